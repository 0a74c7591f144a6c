"""Arrays in safetensors files: nothing in them is executed, and a file is replaced as a whole or not at all."""

import os
import shlex
import stat
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from nanogan.backend import all_to_numpy
from nanogan.checkpoint.recognition import told
from nanogan.disk import replacing
from nanogan.errors import UserError
from nanogan.text import one_line

KEY = "nanogan_training"  # of the metadata of a training checkpoint
NUMPY = {  # safetensors' name of a format that NumPy has: NumPy's
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    **{f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
    "BOOL": "?",
}
SHOWN = 4  # files of a folder, named in an error


def write_arrays(path, state, metadata=None, durable=False):
    arrays = {name: np.asarray(array, order="C") for name, array in all_to_numpy(state).items()}
    data = safetensors.numpy.save(arrays, metadata)
    with replacing(path, durable=durable) as temporary, open(temporary, "wb") as file:
        file.write(data)


def read(path):
    """Return the arrays in a safetensors file as {name: NumPy array}; bfloat16 and float8 become float32, exactly.

    Raises UserError if it does not exist or is not (or no longer) a whole safetensors file. A pickle (torch's .pt and
    .pth) is never loaded, because loading one may run any program.
    """
    return read_file(path)[0]


def read_file(path):
    """Return the arrays of a safetensors file, {name: NumPy array}, and its metadata, {name: text}."""
    arrays, metadata, _ = read_and_widen(path)
    return arrays, metadata


def read_and_widen(path):
    """Return what :func:`read_file` does, and of which formats arrays became float32, {name: "bfloat16"}."""
    check_is_file(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names, metadata = list(file.keys()), file.metadata() or {}
            formats = {name: file.get_slice(name).get_dtype() for name in names}
            _check_formats(path, formats)
            if NUMPY.keys() >= set(formats.values()):
                return {name: file.get_tensor(name) for name in names}, metadata, {}
        arrays = _decoded(path)
        return arrays, metadata, {name: WIDER[code][0] for name, code in formats.items() if code in WIDER}
    except (safetensors.SafetensorError, KeyError, ValueError, OSError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(_why_not(path, error)) from None


def below(prefix, arrays):
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


# ------------------------------------------------------------------------------------- formats that NumPy does not have


def _bfloat16(data):
    """The upper half of a float32."""
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


def _float8_e5m2(data):
    """The upper half of a float16."""
    return (np.frombuffer(data, np.uint8).astype(np.uint16) << 8).view(np.float16).astype(np.float32)


def _float8_e4m3(data):
    """Sign, 4 bits of exponent, which is 8 less than a float16's of 5 bits, and 3 of mantissa; all ones: NaN."""
    bits = np.frombuffer(data, np.uint8).astype(np.uint16)
    values = ((bits & 0x80) << 8 | (bits & 0x7F) << 7).view(np.float16).astype(np.float32) * 256
    values[bits & 0x7F == 0x7F] = np.nan
    return values


WIDER = {  # safetensors' name: (torch's name, float32 from the bytes)
    "BF16": ("bfloat16", _bfloat16),
    "F8_E5M2": ("float8_e5m2", _float8_e5m2),
    "F8_E4M3": ("float8_e4m3fn", _float8_e4m3),
}


def _decoded(path):
    """The arrays of a whole file with formats that NumPy does not have. safetensors checks all sizes."""
    with open(path, "rb") as file:
        stored = safetensors.deserialize(file.read())
    arrays = {}
    while stored:  # each one's bytes are let go as soon as its array is there
        name, array = stored.pop()
        code, data = array["dtype"], array["data"]
        values = WIDER[code][1](data) if code in WIDER else np.frombuffer(data, NUMPY[code])
        arrays[name] = values.reshape(array["shape"])
    return dict(sorted(arrays.items()))


def _check_formats(path, formats):
    for name, code in formats.items():
        if code not in NUMPY and code not in WIDER:
            raise UserError(
                f"{path} has the array {told(name)} of format {code}, which nanogan does not read: in torch, save real "
                "values as float32, array.float()"
            )


# -------------------------------------------------------------------------------------------- why a file was not read


def check_is_file(path, kind="checkpoint", suffixes=(".safetensors",)):
    """Raise UserError unless there is a file ``path``. For a folder, name the files in it that end in ``suffixes``.

    ``kind``: what an error calls it.
    """
    try:
        mode = os.stat(path).st_mode
    except PermissionError:
        raise UserError(f"{path} cannot be opened (Permission denied): check who may read it and its folder") from None
    except (OSError, ValueError):  # a path with a null character
        advice = "train one first, or check the path" if kind == "checkpoint" else "check the path"
        raise UserError(f"there is no {kind} {path}: {advice}") from None
    if stat.S_ISDIR(mode):
        inside = ", ".join(str(file) for file in _networks_in(path, suffixes)[:SHOWN])
        raise UserError(f"{path} is a folder, and a file was expected: name one in it{inside and f', as {inside}'}")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is not a regular file: name the file of weights")


def _networks_in(folder, suffixes):
    """The files of networks in a folder, those that a run exported and then its checkpoints, newest last."""
    files = [*sorted(Path(folder).glob("*")), *sorted(Path(folder).glob("checkpoints/*"))]
    return [file for file in files if file.suffix in suffixes]


def start_of(path):
    """The first bytes of a file; none if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(512)
    except OSError:
        return b""


def is_safetensors(start):
    """Whether a file that starts so is a safetensors file, whatever its name: a length of 8 bytes, a JSON object."""
    return start[8:9] == b"{" and not all(9 <= byte < 127 for byte in start[:8])  # which would be JSON alone


def is_torchs(start):
    """Whether a file that starts so may be one of torch.save's: a ZIP archive, or a pickle of protocol 2 or later."""
    return (
        not is_safetensors(start)
        and not foreign(start)
        and start.startswith((b"PK", *(bytes([0x80, i]) for i in range(2, 6))))
    )


def convert_command(path, *flags):
    """The command that converts a file, for one to copy."""
    return " ".join(["python -m nanogan.convert", shlex.quote(str(path)), "NEW.safetensors", *flags])


def foreign(start):
    """What a file is that starts with these bytes and is no network in a file, and the way out; None if unknown."""
    text = start.lstrip().lower()
    if not start:
        return "it is empty; save or download it again"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, which stands for the file; run git lfs pull where it was cloned"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it is a web page; download the file itself (on Hugging Face and GitHub its link says Download or Raw)"
    if text.startswith(b"{") and not is_safetensors(start):
        return (
            "it is JSON text, as the index of a network in several files is, or a configuration; name the file of the "
            "weights (several files: load them in torch and save one)"
        )
    if start.startswith(b"PK") and start[30 : 30 + int.from_bytes(start[26:28], "little")].endswith(b".npy"):
        return "it is an archive of NumPy's (.npz); name a file of weights that safetensors or torch.save wrote"
    for magic, noun in FOREIGN.items():
        if start.startswith(magic):
            return f"it is {noun}; name a file of weights that safetensors or torch.save wrote"
    return None


FOREIGN = {
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"\x93NUMPY": "an array of NumPy's (.npy)",
    b"GGUF": "a GGUF file",
    b"\x89PNG": "a PNG image",
    b"\x1f\x8b": "compressed with gzip",
}


def _why_not(path, error):
    """One sentence: why ``path``, a file, could not be read as safetensors."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"{path} cannot be read ({error.strerror}): check who may read it, and the disk"
    start = start_of(path)
    if is_torchs(start):
        command = convert_command(path)
        return f"{path} is not a safetensors file but looks like one of torch.save's: convert it with {command}"
    what = foreign(start)
    if what is None:
        reason = one_line(error, 150)
        doubt = "" if is_safetensors(start) else ", or is of another kind"
        what = f"it was cut short or damaged ({reason}){doubt}; save or download it again, or take an older one"
    return f"{path} is not a whole safetensors file: {what}"
