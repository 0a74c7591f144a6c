"""Networks in files: safetensors with PyTorch's parameter names, so that torch opens them and nothing is executed."""

import numpy as np

from nanogan.checkpoint.recognition import recognise, rename_flags, renames_between
from nanogan.checkpoint.safetensors_files import KEY, below, read_file, write_arrays
from nanogan.errors import UserError
from nanogan.models import conditional, cyclegan, dcgan, discogan


def save(path, network):
    """Write ``network``'s parameters and buffers; the file is replaced as a whole."""
    write_arrays(path, network.state_dict())


def load(path, network):
    """Copy the arrays in the file ``path`` into ``network`` and return it. Raises UserError if they do not fit."""
    state, metadata = read_file(path)
    try:
        network.load_state_dict(state)
    except UserError as error:
        if KEY in metadata:
            hint = "it is a training checkpoint, which load_generator and load_discriminator open"
        elif renames := renames_between(state, network.state_dict()):
            hint = f"nothing but names differs: {_mended(path, rename_flags(renames))}"
        else:
            hint = f"the file holds {recognise(state)}"
        raise UserError(f"{path}: {error}; {hint}") from None
    return network


def _mended(path, flags):
    return f"python -m nanogan.convert {path} NEW.safetensors {flags} mends that"


def load_generator(path):
    """Return the DCGAN generator saved in ``path``, on the CPU; its size is inferred from the shapes of its arrays.

    Also opens training checkpoints, of which it takes the average of the generator's weights if there is one, and
    pytorch/examples' ``netG`` once it is saved as safetensors.
    """
    return _load("generator", dcgan.generator, dcgan.options_of, path)


def load_discriminator(path):
    """Return the DCGAN discriminator saved in ``path``, on the CPU; its size is inferred from its arrays' shapes.

    Also opens training checkpoints, and pytorch/examples' ``netD`` once it is saved as safetensors; the sigmoid at that
    one's end is left to the loss. Strides and paddings are not in a file: see dcgan.discriminator_options_of.
    """
    return _load("discriminator", dcgan.discriminator, dcgan.discriminator_options_of, path)


def load_conditional(path):
    """Return the conditional DCGAN generator (nanogan.models.conditional) saved in ``path``, on the CPU.

    Its sizes are inferred from the shapes of its arrays; how many of its inputs are the label's stands in the file.
    """
    return _load("generator", conditional.generator, conditional.options_of, path, "conditional DCGAN generator")


def generator_loader(models, name):
    """Return ``load(path)``, which opens a generator of ``models``, on the CPU.

    models: a file of nanogan.models, with ``generator(**options)`` and ``options_of(state)``, which infers the options
    from the shapes of its arrays. name: what an error calls it, "vanilla GAN generator".
    """
    return lambda path: _load("generator", models.generator, models.options_of, path, name)


def load_translator(path):
    """Return the translator saved in ``path``, on the CPU: the generator of a CycleGAN or a DiscoGAN.

    Its sizes are inferred from the shapes of its arrays. Raises UserError if the file holds something else.
    """
    state, metadata = read_file(path)
    for models in (cyclegan, discogan):
        try:
            network = models.generator(**models.options_of(state))
            network.load_state_dict(state)
            break
        except UserError:
            continue
    else:
        found = "a run: take its a_to_b.safetensors or b_to_a.safetensors" if KEY in metadata else recognise(state)
        raise UserError(f"{path} is not a translator, such as a CycleGAN's a_to_b.safetensors: it holds {found}")
    if not all(np.isfinite(array).all() for array in state.values()):
        raise UserError(f"{path} is not a translator: its weights are not finite numbers")
    return network


def _load(kind, build, options_of, path, name=None):
    name = name or f"DCGAN {kind}"
    state, metadata = read_file(path)
    if KEY in metadata:
        average = (below("ema.average.", state) or below("ema.", state)) if kind == "generator" else {}
        state = average or below(f"{kind[0]}.", state)
    try:
        network = build(**options_of(state))
        network.load_state_dict(state)
    except UserError:
        found = recognise(state)
        hint = ""
        if found.fits:
            hint = f": load_{found.kind} opens it"
        elif found.renames and found.kind == kind:
            flags = f"--key {kind[0]} " if KEY in metadata else ""
            hint = f": {_mended(path, flags + rename_flags(found.renames))}"
        raise UserError(f"{path} is not a {name} of nanogan's: it holds {found}{hint}") from None
    if not all(np.isfinite(array).all() for array in state.values()):
        raise UserError(f"{path} is not a {name}: its weights are not finite numbers")
    return network
