"""Networks from PyTorch's files to nanogan's safetensors, and back.

A .pth is read by ``torch.load(weights_only=True)`` alone, which executes nothing of it. Needs torch, as nothing else in
nanogan does.
"""

import contextlib
import io
import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from nanogan import checkpoint
from nanogan.checkpoint.recognition import (
    joined,
    key_flag,
    known,
    natural,
    networks_in,
    recognise,
    rename_flags,
    told,
    unwrapped,
)
from nanogan.checkpoint.safetensors_files import (
    check_is_file,
    convert_command,
    foreign,
    is_safetensors,
    is_torchs,
    read_and_widen,
    start_of,
)
from nanogan.disk import replacing
from nanogan.errors import UserError

USUAL = {
    *("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params", "ema"),
    *("g", "d", "netg", "netd", "net_g", "net_d", "gen", "disc", "dis", "generator", "discriminator", "decoder"),
    *("params_ema", "model_ema", "ema_model", "online_model", "state_dict_ema"),
    *("g_state_dict", "d_state_dict", "netg_state_dict", "netd_state_dict", "gen_state_dict", "disc_state_dict"),
    *("generator_state_dict", "discriminator_state_dict", "g_ema", "ema_state_dict", "model_g", "model_d"),
}  # in small letters
OLDEST = 2, 10  # of torch: files made for the purpose run programs in older ones (CVE-2025-32434, CVE-2026-24747)
PROGRAM = re.compile("GLOBAL|unsupported class|can only (build|be)", re.IGNORECASE)  # in torch's refusals
AVERAGE = "average"  # the network of an optim.Ema
DEPTH = 3  # of dictionaries in dictionaries


def convert(source, target, *, key=None, renames=None, drop=()):
    """Write the network in the file ``source`` to ``target`` and return what to tell about it, a list of sentences.

    The content of ``source`` says what it is, not its name; ``target`` ends in .safetensors, .pth or .pt. ``key``:
    where the state dict stands, if ``source`` holds more, as "model" or "models.netG". ``renames``: {name: new one} of
    layers or arrays. ``drop``: names of layers or arrays to leave out. Raises UserError, and leaves ``target`` as it
    was, if anything is not as it should be.
    """
    source, target = Path(source), Path(target)
    suffix = target.suffix.lower()
    if suffix not in (".safetensors", ".pth", ".pt"):
        raise UserError(f"OUT expected a name that ends in .safetensors or .pth, got {target}")
    if target.is_dir():
        raise UserError(f"OUT expected the name of a file, got the folder {target}")
    check_is_file(source, "file", (".safetensors", ".pth", ".pt", ".bin", ".ckpt"))
    if target.exists() and os.path.samefile(source, target):
        raise UserError(f"IN and OUT are the same file, {target}: choose another name")
    if suffix != ".safetensors":
        _torch()  # rather now than when all is read
    start = start_of(source)
    is_named_so = source.suffix.lower() == ".safetensors"
    read = read_safetensors if is_safetensors(start) or (is_named_so and not is_torchs(start)) else read_torch
    state, notes = read(source, key)
    state = _renamed(_without(state, drop), renames or {})
    found = recognise(state)
    notes.append(f"it holds {known(state) or found}")
    if found.renames:
        notes.append(f"nanogan opens it after {rename_flags(found.renames)}")
    elif not found.fits:
        notes += [
            f"{told(beginning)}.* in it are {network}: "
            + convert_command(target, joined(key_flag(beginning), rename_flags(network.renames)))
            for beginning, network in networks_in(state).items()
        ]
    if found.fits and found.kind == "discriminator":
        notes.append("names and shapes fit; strides and paddings are in no such file, so try it on pictures")
    write = _write_safetensors if suffix == ".safetensors" else _write_torch
    write(target, state)
    count = sum(array.size for array in state.values())
    return [*notes, f"{target}: {len(state)} arrays, {count:,} numbers"]


def read_torch(path, key=None):
    """Return ({name: NumPy array}, notes) from a file of torch.save's; nothing in it is executed.

    Raises UserError if it holds anything but numbers, or no state dict, or several and ``key`` names none.
    """
    torch = _torch()
    check_is_file(path, "file")
    content = _loaded(torch, path)
    state, notes = _chosen(torch, content, key, path)
    problems = [f"{told(name)} is {_problem(torch, value)}" for name, value in state.items() if _problem(torch, value)]
    if problems:
        raise UserError(f"{path} expected arrays of plain numbers, but {problems[0]}: save its dense values in torch")
    # A tensor may be a view that shows a few stored numbers over and over; a parameter is not.
    size, stored = sum(value.numel() * value.element_size() for value in state.values()), os.path.getsize(path)
    if size > stored:
        raise UserError(
            f"{path} has {stored} bytes, but its arrays would take {size}, because they share their numbers: "
            "save a clone of each in torch"
        )
    state, taken_off = _unwrapped(state)
    arrays, widened = {}, []
    for name, tensor in state.items():
        try:
            arrays[name] = tensor.detach().numpy().copy(order="C")
        except TypeError:  # a format that NumPy has not, such as bfloat16; float32 holds each of its numbers
            arrays[name] = tensor.detach().float().numpy()
            widened.append(str(tensor.dtype).removeprefix("torch."))
    return arrays, [*notes, *taken_off, *_widened(widened)]


def _unwrapped(state):
    """``state`` without the beginnings that wrappers gave all its names, and notes on them."""
    whole = len(state)
    state, wrappers = unwrapped(state)
    left_out = f", and {whole - len(state)} without it left out" if whole > len(state) else ""
    return state, [f'"{wrapper}" was taken off all {len(state)} names{left_out}' for wrapper in wrappers]


def _widened(formats):
    """A note on arrays of number formats that became float32, if there are any."""
    names = ", ".join(sorted(set(formats)))
    return [f"{len(formats)} arrays of {names} became float32, exactly"] if formats else []


def read_safetensors(path, key=None):
    """Return ({name: NumPy array}, notes) from a safetensors file; ``key``, as "g", takes what is named "g.*"."""
    state, metadata, widened = read_and_widen(path)
    notes = []
    if checkpoint.KEY in metadata and key is None:
        choices = ", ".join(f"--key {told(name)}" for name in _networks(state)[:8])
        raise UserError(f"{path} is a training checkpoint: choose one of its networks with {choices}")
    if key is not None:
        if not any(name.startswith(f"{key}.") for name in state):
            state, _ = unwrapped(state)
        if not any(name.startswith(f"{key}.") for name in state):
            raise UserError(f"{path} has no arrays named {told(key)}.*, only {_some(state) or 'nothing'}: choose --key")
        if any(name.startswith(f"{key}.{AVERAGE}.") for name in state):
            key = f"{key}.{AVERAGE}"
        state, notes = _below(state, f"{key}.")
        widened = checkpoint.safetensors_files.below(f"{key}.", widened)
    elif metadata:
        notes.append(f"left out: the metadata {', '.join(map(told, sorted(metadata)))}")
    state, taken_off = _unwrapped(state)
    notes += [*taken_off, *_widened(list(widened.values()))]
    return {name: state[name] for name in sorted(state, key=natural)}, notes


def _networks(state):
    """The names of the networks in a training checkpoint's arrays, without its optimisers."""
    networks = []
    for member in sorted({_member(name) for name in state if not name.startswith("opt")}):
        group = checkpoint.safetensors_files.below(f"{member}.", state)
        parts = sorted({name.partition(".")[0] for name in group})
        parts = [part for part in parts if known(checkpoint.safetensors_files.below(f"{part}.", group))]
        networks += [f"{member}.{part}" for part in parts] or [member]  # "translators.ab" of a CycleGAN
    return networks


def _member(name):
    """The network that an array of a training checkpoint belongs to: "g" of "g.main.0.weight", or "ema.average"."""
    member, _, rest = name.partition(".")
    return f"{member}.{AVERAGE}" if rest.startswith(f"{AVERAGE}.") else member


# ---------------------------------------------------------------------------------------------------- torch's files


def _torch():
    """The module torch. Raises UserError if it is missing or not safe for strangers' files."""
    try:
        import torch
    except ImportError:
        raise UserError('files of PyTorch\'s need torch: pip install "nanogan[torch]"') from None
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < OLDEST:
        raise UserError(
            f"torch {torch.__version__} can be made to run a program by the file that it loads: "
            'pip install --upgrade "nanogan[torch]" for 2.10 or newer'
        )
    return torch


def _loaded(torch, path):
    """What torch.load returns for a file that holds nothing but numbers, text and containers of these."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
            if any(member.filename.endswith("/constants.pkl") for member in members):
                raise UserError(
                    f"{path} holds a TorchScript program: if you trust who made it, run "
                    f'torch.save(torch.jit.load({str(path)!r}).state_dict(), "weights.pth") and convert that'
                )
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise UserError(f"{path} is compressed, as torch.save's files never are: unpack it first")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on TorchScript and old formats, which are refused or fine
            with Path(path).open("rb") as file:  # of a path, torch would read the ending too, and believe it
                return torch.load(file, weights_only=True, map_location="cpu")
    except UserError:
        raise
    except Exception as error:  # a file made for the purpose can bring about any
        if isinstance(error, PermissionError):
            raise UserError(f"{path} cannot be read ({error.strerror}): check who may read it") from None
        if what := foreign(start_of(path)):
            raise UserError(f"{path} is not a whole file of torch.save's (it has no weights): {what}") from None
        if isinstance(error, pickle.UnpicklingError) and PROGRAM.search(str(error)):
            raise UserError(
                f"{path} holds more than numbers (or was cut short), and opening it could run any program: if you "
                "trust who made it, run "
                f"m = torch.load({str(path)!r}, weights_only=False), then {_saving(path)}, "
                "where its classes can be imported, and convert that"
            ) from None
        words = str(error).rpartition("WeightsUnpickler error: ")[2] or "at its end"
        reason = " ".join(f"{type(error).__name__}: {words}".split()).split(". ")[0][:150]
        raise UserError(f"{path} is not a whole file of torch.save's ({reason}): fetch or save it again") from None


def _saving(path):
    """The statement of Python that saves the weights alone of ``m``, which is what torch.load made of a file."""
    if not _is_dictionary(path):
        return 'torch.save(m.state_dict(), "weights.pth")'
    return (
        'm = {k: v.state_dict() if hasattr(v, "state_dict") else v for k, v in m.items()}, then torch.save({k: v for k,'
        " v in m.items() if torch.is_tensor(v) or isinstance(v, dict) and all(map(torch.is_tensor, v.values()))},"
        ' "weights.pth")'
    )


def _is_dictionary(path):
    """Whether a file's pickle starts with a dictionary, going by its first bytes alone."""
    with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(name) as file:
            return file.read(30)[2:].startswith((b"}", b"ccollections\nOrderedDict\n"))
    return False


def _chosen(torch, content, key, path):
    """Return the state dict in what a file holds, and notes on what was taken and what left out."""
    if _is_state(torch, content) and key is None:
        return content, []
    if not isinstance(content, Mapping):
        raise UserError(f"{path} expected a state dict, got {_called(content)}: save network.state_dict()")
    found = {name: (state, left) for name, state, left in _states(torch, content)}
    usual = [name for name in found if name.rpartition(".")[2].lower() in USUAL]
    if key is None and len(usual) == 1:
        key = usual[0]
    if key in found:
        state, left = found[key]
        return state, [f"taken: {told(key)}" + (f"; left out: {_some(left)}" if left else "")]
    if key is not None:  # "generator" of a state dict that names its arrays "generator.main.0.weight"
        whole = {"": (content, [])} if _is_state(torch, content) else {}
        for name, (state, left) in (whole | found).items():
            start = f"{name}." if name else ""
            beginning = f"{key}."[len(start) :]
            if key.startswith(start) and any(array.startswith(beginning) for array in state):
                return _below(state, beginning, left)
        inside = {name: unwrapped(state)[0] for name, (state, _) in (whole | found).items()}
        inside = [name for name, state in inside.items() if any(array.startswith(f"{key}.") for array in state)]
        if len(inside) == 1:
            state, left = (whole | found)[inside[0]]
            return _below(unwrapped(state)[0], f"{key}.", left)
    if not found and key is None and {"state", "param_groups"} <= content.keys():
        raise UserError(f"{path} holds the state of an optimizer and no network: name the file of the network")
    arrays = {n: array for n, array in content.items() if isinstance(n, str) and isinstance(array, torch.Tensor)}
    if not found and key is None and any("." in name for name in arrays):  # a state dict with other things among it
        return arrays, [f"left out: {_some(name for name in content if name not in arrays)}"]
    if not found:
        wanted = f"nothing named {told(key)}" if key else "no state dict"
        raise UserError(f"{path} holds {wanted}, only {_some(content) or 'nothing'}: save network.state_dict()")
    candidates = ", ".join(f"--key {told(name)} ({len(found[name][0])} arrays)" for name in list(found)[:8])
    got = "" if key is None else f", not {told(key)}"
    raise UserError(f"{path} holds these state dicts{got}: choose one with {candidates}")


def _below(state, beginning, left=()):
    """Return the arrays whose names begin so, without it, and a note on those left out."""
    chosen = {name[len(beginning) :]: array for name, array in state.items() if name.startswith(beginning)}
    left = [*left, *(name for name in state if not name.startswith(beginning))]
    return chosen, [f"taken: {told(beginning)}*" + (f"; left out: {_some(left)}" if left else "")]


def _some(names):
    names = [told(str(name)) for name in names]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _states(torch, content, prefix="", left=(), seen=None):
    """Yield ("models.netG", state dict, what else there is) in a dictionary of dictionaries; each looked at once."""
    seen = set() if seen is None else seen
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Mapping) or id(value) in seen:
            continue
        seen.add(id(value))
        others = [*left, *(f"{prefix}{other}" for other in content if other != name)]
        if _is_state(torch, value):
            yield prefix + name, value, others
        elif prefix.count(".") < DEPTH:
            yield from _states(torch, value, f"{prefix}{name}.", others, seen)


def _is_state(torch, value):
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(array, torch.Tensor) for name, array in value.items())
    )


def _problem(torch, tensor):
    """What keeps a tensor from being written as plain numbers, or None."""
    if tensor.device.type != "cpu":
        return f"on the device {tensor.device.type}"
    if tensor.layout != torch.strided:
        return f"of layout {tensor.layout}"
    if tensor.is_quantized or tensor.is_complex():
        return f"of {tensor.dtype}"
    return None


def _called(value):
    return f"{type(value).__name__}" if not isinstance(value, list) else f"a list of {len(value)}"


# ------------------------------------------------------------------------------------------------------------ names


def _without(state, names):
    """Return ``state`` without the arrays of these names, and those below them."""
    for unwanted in names:
        rest = {name: array for name, array in state.items() if not f"{name}.".startswith(f"{unwanted.rstrip('.')}.")}
        if len(rest) == len(state):
            raise UserError(f"--drop {told(unwanted)}: no array is named so; the first is {told(next(iter(state)))}")
        if not rest:
            raise UserError(f"--drop {told(unwanted)} leaves nothing: drop a part of the network")
        state = rest
    return state


def _renamed(state, renames):
    """Return ``state`` with the names or their beginnings, up to a dot, replaced: the longest that fits, once."""
    renames = {old.rstrip("."): new.rstrip(".") for old, new in renames.items()}
    unused, result = set(renames), {}
    for name, array in state.items():
        fitting = [old for old in renames if name == old or name.startswith(f"{old}.")]
        new = name
        if fitting:
            old = max(fitting, key=len)
            new = renames[old] + name[len(old) :]
            unused.discard(old)
        if new in result:
            raise UserError(f"two arrays would be named {told(new)}: rename one of them otherwise")
        result[new] = array
    if unused:
        raise UserError(f"--rename {min(unused)}=...: no array is named so; the first is {told(next(iter(state)))}")
    return result


# ---------------------------------------------------------------------------------------------------------- writing


def _write_safetensors(path, state):
    if "__metadata__" in state:
        raise UserError('safetensors keeps the name "__metadata__" for itself: rename that array with --rename')
    _write(path, safetensors.numpy.save(state))


def _write_torch(path, state):
    torch = _torch()
    buffer = io.BytesIO()
    torch.save(OrderedDict((name, torch.from_numpy(np.array(array))) for name, array in state.items()), buffer)
    _write(path, buffer.getvalue())


def _write(path, data):
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
