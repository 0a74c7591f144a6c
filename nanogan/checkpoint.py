"""Networks in files: safetensors with PyTorch's parameter names, so that torch opens them and nothing is executed.

    checkpoint.save("generator.safetensors", g)
    g = checkpoint.load_generator("generator.safetensors")

In torch: ``netG.load_state_dict(safetensors.torch.load_file("generator.safetensors"))``.
"""

import os

import numpy as np
import safetensors
import safetensors.numpy

from nanogan.backend import to_numpy
from nanogan.errors import UserError
from nanogan.files import replacing
from nanogan.models import dcgan


def save(path, network):
    """Write ``network``'s parameters and buffers; the file is replaced as a whole."""
    state = {name: np.asarray(to_numpy(array), order="C") for name, array in network.state_dict().items()}
    with replacing(path) as temporary:
        try:
            safetensors.numpy.save_file(state, temporary)
        except safetensors.SafetensorError as error:  # its name for every failure to write
            raise OSError(f"{path} could not be written ({error})") from None


def read(path):
    """Return the arrays in a safetensors file as {name: NumPy array}.

    Raises UserError if it does not exist or is not (or no longer) a whole safetensors file. A pickle (torch's .pt and
    .pth) is never loaded, because loading one may run any program.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no checkpoint {path}: train one first, or check the path")
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, KeyError, ValueError, OSError, TypeError, AttributeError) as error:
        # the last two: number formats that NumPy does not have, such as bfloat16
        reason = str(error).splitlines()[0]
        hint = (
            "convert torch's .pt and .pth files with "
            'safetensors.torch.save_file(torch.load(path, weights_only=True, map_location="cpu"), new_path)'
        )
        raise UserError(f"{path} is not a whole safetensors file ({reason}); {hint}") from None


def load(path, network):
    """Copy the arrays in the file ``path`` into ``network`` and return it. Raises UserError if they do not fit."""
    try:
        network.load_state_dict(read(path))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return network


def load_generator(path):
    """Return the DCGAN generator saved in ``path``, on the CPU; its size is inferred from the shapes of its arrays.

    Also opens pytorch/examples' ``netG``, once it is saved as safetensors.
    """
    state = read(path)
    try:
        network = dcgan.generator(**dcgan.options_of(state))
        network.load_state_dict(state)
        if not all(np.isfinite(array).all() for array in state.values()):
            raise UserError("its weights are not finite numbers")
    except UserError as error:
        raise UserError(f"{path} is not a DCGAN generator: {error}") from None
    return network
