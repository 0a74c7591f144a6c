"""Arrays in safetensors files: nothing in them is executed, and a file is replaced as a whole or not at all."""

import os

import numpy as np
import safetensors
import safetensors.numpy

from nanogan.backend import to_numpy
from nanogan.disk import replacing
from nanogan.errors import UserError

KEY = "nanogan_training"  # of the metadata of a training checkpoint


def write_arrays(path, state, metadata=None, durable=False):
    arrays = {name: np.asarray(to_numpy(array), order="C") for name, array in state.items()}
    data = safetensors.numpy.save(arrays, metadata)
    with replacing(path, durable=durable) as temporary, open(temporary, "wb") as file:
        file.write(data)


def read(path):
    """Return the arrays in a safetensors file as {name: NumPy array}.

    Raises UserError if it does not exist or is not (or no longer) a whole safetensors file. A pickle (torch's .pt and
    .pth) is never loaded, because loading one may run any program.
    """
    return read_file(path)[0]


def read_file(path):
    """Return the arrays of a safetensors file, {name: NumPy array}, and its metadata, {name: text}."""
    if not os.path.isfile(path):
        raise UserError(f"there is no checkpoint {path}: train one first, or check the path")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (safetensors.SafetensorError, KeyError, ValueError, OSError, TypeError, AttributeError) as error:
        # the last two: number formats that NumPy does not have, such as bfloat16
        reason = str(error).splitlines()[0]
        hint = "convert torch's .pt and .pth files with python -m nanogan.convert IN.pth OUT.safetensors"
        raise UserError(f"{path} is not a whole safetensors file ({reason}); {hint}") from None


def below(prefix, arrays):
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
