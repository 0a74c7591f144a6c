"""Networks in files: safetensors with PyTorch's parameter names, so that torch opens them and nothing is executed."""

import shlex
from pathlib import Path

import numpy as np

from nanogan.checkpoint.recognition import (
    described,
    joined,
    key_flag,
    known,
    listed,
    networks_in,
    recognise,
    rename_flags,
    renames_between,
    told,
    unwrapped,
)
from nanogan.checkpoint.safetensors_files import KEY, below, convert_command, read_file, write_arrays
from nanogan.errors import UserError
from nanogan.models import conditional, cyclegan, dcgan, discogan


def save(path, network):
    """Write ``network``'s parameters and buffers; the file is replaced as a whole."""
    write_arrays(path, network.state_dict())


def load(path, network):
    """Copy the arrays in the file ``path`` into ``network`` and return it. Raises UserError if they do not fit.

    Counters, on which no output depends, may be missing or too many.
    """
    state, metadata = read_file(path)
    try:
        copy_state(state, network)
    except UserError as error:
        if KEY in metadata:
            hint = "it is a training checkpoint, which load_generator and load_discriminator open"
        elif renames := renames_between(state, network.state_dict()):
            hint = f"nothing but names differs: {_mended(path, rename_flags(renames))}"
        else:
            hint = f"the file holds {described(state)}"
        raise UserError(f"{path}: {error}; {hint}") from None
    return network


def copy_state(state, network):
    """Copy a state dict, with or without wrappers' beginnings of names, into ``network``."""
    if not network.state_dict().keys() <= state.keys():
        state, _ = unwrapped(state)
    network.load_state_dict(state)


def _check_finite(path, name, state):
    """Raise UserError unless all floating-point weights are finite in float32, which networks compute in."""
    with np.errstate(over="ignore"):
        floats = (array.astype(np.float32, copy=False) for array in state.values() if array.dtype.kind == "f")
        if not all(np.isfinite(array).all() for array in floats):
            raise UserError(f"{path} is not a {name}: its weights are not finite numbers in float32")


def _mended(path, flags):
    return f"mend that with {convert_command(path, flags)}"


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
            copy_state(state, network)
            break
        except UserError:
            continue
    else:
        found = "a run: take its a_to_b.safetensors or b_to_a.safetensors" if KEY in metadata else described(state)
        raise UserError(f"{path} is not a translator, such as a CycleGAN's a_to_b.safetensors: it holds {found}")
    _check_finite(path, "translator", state)
    return network


def _load(kind, build, options_of, path, name=None):
    name = name or f"DCGAN {kind}"
    state, metadata = read_file(path)
    if KEY in metadata:
        state = _of_a_run(state, kind, path, name)
    state, _ = unwrapped(state)
    try:
        network = build(**options_of(state))
        copy_state(state, network)
    except UserError:
        _check_finite(path, name, state)
        instead = _instead(path, state, kind, name, of_a_run=KEY in metadata)
        raise UserError(f"{path} is not a {name} of nanogan's: {instead}") from None
    _check_finite(path, name, state)
    return network


def _of_a_run(state, kind, path, name):
    """The network ``kind`` in a training checkpoint's arrays; of a generator the average, if there is one."""
    average = (below("ema.average.", state) or below("ema.", state)) if kind == "generator" else {}
    network = average or below(f"{kind[0]}.", state)
    if not network:
        networks = listed(sorted({told(array.partition(".")[0]) for array in state if not array.startswith("opt")}))
        raise UserError(f"{path} is a checkpoint of a run without a {name}: its networks are {networks}")
    return network


def _instead(path, state, kind, name, of_a_run):
    """What a file holds in place of ``name``, a network ``kind``, and what to do about it."""
    among = f"--key {kind[0]}" if of_a_run else ""
    found, can_be_mended = recognise(state), name == f"DCGAN {kind}" and not known(state)
    if can_be_mended and found.renames and found.kind == kind and "".join(found.renames).isprintable():
        return f"it holds {found}: {_mended(path, joined(among, rename_flags(found.renames)))}"
    if can_be_mended and not found.fits:
        wanted = [(beginning, part) for beginning, part in networks_in(state).items() if part.kind == kind]
        if wanted:
            beginning, part = wanted[0]
            flags = joined(joined(among, key_flag(beginning)), rename_flags(part.renames))
            names = " and ".join(f"{told(beginning)}.*" for beginning, _ in wanted)
            command = convert_command(path, flags)
            return f"it holds more than a {kind}; {names} in it are {part}: take it out with {command}"
    text = f"it holds {described(state)}"
    if can_be_mended and found.extra and found.kind == kind and "".join(found.extra).isprintable():
        drops = " ".join(f"--drop {shlex.quote(name)}" for name in found.extra[:8])
        return f"{text}; if its output does not depend on them: {_mended(path, joined(among, drops))}"
    if found.fits or known(state):
        beside = Path(path).with_name(f"{kind}.safetensors")
        text += f"; name the file of a {name}" + (f", as {beside}" if beside.is_file() and beside != Path(path) else "")
    return text
