"""Networks in files: safetensors with PyTorch's parameter names, so that torch opens them and nothing is executed.

    checkpoint.save("generator.safetensors", g)
    g = checkpoint.load_generator("generator.safetensors")
    d = checkpoint.load_discriminator("discriminator.safetensors")

In torch: ``netG.load_state_dict(safetensors.torch.load_file("generator.safetensors"))``.

A training checkpoint is one such file with all that a run's future depends on:

    checkpoint.save_training("last.safetensors", g, d, opt_g, opt_d, progress)
    progress = checkpoint.load_training("last.safetensors", g, d, opt_g, opt_d)

Its arrays are named "g.main.0.weight", "ema.main.0.weight", "opt_d.main.0.weight.exp_avg" and so on; everything else is
JSON in the file's metadata, under "nanogan_training", with a checksum over both. It does not depend on the device.
"""

import json
import math
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from nanogan.backend import to_numpy
from nanogan.disk import replacing
from nanogan.errors import UserError
from nanogan.models import conditional, dcgan
from nanogan.models.recognition import recognise, rename_flags, renames_between
from nanogan.optim.ema import Ema
from nanogan.version import __version__

KEY = "nanogan_training"  # of the metadata
FORMAT = 2  # of what stands there
READ = (1, 2)  # formats that can be read: 1 knew no average of g's weights and no noise on pictures
MAX_TEXT = 1 << 20  # characters of it; a run's are about 2,000
MAX_COUNT = 1 << 53  # of steps, pictures, ...: JSON's other readers know whole numbers up to here


def save(path, network):
    """Write ``network``'s parameters and buffers; the file is replaced as a whole."""
    _write(path, network.state_dict())


def _write(path, state, metadata=None, durable=False):
    arrays = {name: np.asarray(to_numpy(array), order="C") for name, array in state.items()}
    data = safetensors.numpy.save(arrays, metadata)
    with replacing(path, durable=durable) as temporary, open(temporary, "wb") as file:
        file.write(data)


def read(path):
    """Return the arrays in a safetensors file as {name: NumPy array}.

    Raises UserError if it does not exist or is not (or no longer) a whole safetensors file. A pickle (torch's .pt and
    .pth) is never loaded, because loading one may run any program.
    """
    return _read(path)[0]


def _read(path):
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


def load(path, network):
    """Copy the arrays in the file ``path`` into ``network`` and return it. Raises UserError if they do not fit."""
    state, metadata = _read(path)
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


def _load(kind, build, options_of, path, name=None):
    name = name or f"DCGAN {kind}"
    state, metadata = _read(path)
    if KEY in metadata:
        average = _below("ema.", state) if kind == "generator" else {}
        state = average or _below(f"{kind[0]}.", state)
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


# ------------------------------------------------------------------------------------------- training checkpoints


@dataclass
class Progress:
    """Where a run stands: what its future depends on besides networks, optimisers and pictures.

    The pictures' order is a function of the loader's seed, the epoch and the batch.
    """

    step: int  # steps done, from 1
    epoch: int  # the one it is in, from 1
    batch: int  # steps of this epoch done
    steps_per_epoch: int
    seconds: float  # spent on training
    noise_rng: np.random.Generator  # of the z to come
    best: float | None = None  # the lowest metric so far
    options: dict = field(default_factory=dict)  # whatever JSON can hold
    instance_rng: np.random.Generator | None = None  # of the noise on pictures to come
    ema: Ema | None = None  # the average of g's weights
    nanogan: str = ""  # the versions that saved it; filled in by save_training
    numpy: str = ""
    path: Path | None = None  # the file it was loaded from


def save_training(path, g, d, opt_g, opt_d, progress):
    """Write all that the rest of a run depends on; the file is replaced as a whole, through to the disk.

    ``progress`` is a Progress. Random states of the networks' layers (Dropout's ``rng``) are saved too; anything else
    that a layer of your own remembers between steps belongs into its ``buffers``. Raises UserError if a random
    generator is not numpy.random.default_rng's (PCG64), OSError if the file cannot be written.
    """
    arrays = _arrays(g, d, opt_g, opt_d, progress.ema)
    arrays = {name: np.asarray(to_numpy(array), order="C") for name, array in arrays.items()}
    fields = {
        "format": FORMAT,
        "nanogan": __version__,
        "numpy": np.__version__,
        **{name: getattr(progress, name) for name in ("step", "epoch", "batch", "steps_per_epoch", "seconds", "best")},
        "noise_rng": rng_state(progress.noise_rng),
        "instance_rng": None if progress.instance_rng is None else rng_state(progress.instance_rng),
        "ema": None if progress.ema is None else {"steps": progress.ema.steps},
        "layer_rngs": {name: rng_state(rng) for name, rng in _layer_rngs(g, d).items()},
        "opt_g": {name: getattr(opt_g, name) for name in ("steps", "lr", "initial_lr")},
        "opt_d": {name: getattr(opt_d, name) for name in ("steps", "lr", "initial_lr")},
        "options": progress.options,
    }
    fields = json.loads(json.dumps(fields, allow_nan=False))  # as they will be read: the checksum is of that
    fields["checksum"] = _checksum(fields, arrays)
    text = json.dumps(fields)
    if len(text) > MAX_TEXT:
        raise UserError(
            f"a checkpoint expected options of at most {MAX_TEXT} characters, got {len(text)}: shorten them"
        )
    _write(path, arrays, {KEY: text}, durable=True)


def load_training(path, g, d, opt_g, opt_d, ema=None):
    """Copy a training checkpoint into networks and optimisers, on whatever device they are, and return its Progress.

    ``ema`` is the :class:`nanogan.optim.Ema` of ``g``, which a run with one needs. All is checked first: nothing is
    changed if UserError is raised, because the file is damaged, is of another network, or holds numbers that no run
    writes.
    """
    progress, arrays, rest = read_training(path)
    if (ema is None) != (rest["ema_steps"] is None):
        has, needs = ("no", "without") if ema is not None else ("an", "with")
        raise UserError(f"{path} is of a run with {has} average of g's weights: load it {needs} ema=Ema(g, beta=...)")
    own = _arrays(g, d, opt_g, opt_d, ema)
    problems = [f"{name} is missing" for name in own if name not in arrays]
    problems += [f"{name} is unknown here" for name in arrays if name not in own]
    for name in own.keys() & arrays.keys():
        if (arrays[name].shape, arrays[name].dtype) != (own[name].shape, own[name].dtype):
            problems.append(
                f"{name} is {arrays[name].dtype} {arrays[name].shape} instead of {own[name].dtype} {own[name].shape}"
            )
        elif arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            problems.append(f"{name} is not finite")
    layer_rngs, saved_rngs = _layer_rngs(g, d), rest["layer_rngs"]
    problems += [f"{name} differs in having a random generator" for name in layer_rngs.keys() ^ saved_rngs.keys()]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        listed = "; ".join(sorted(problems)[:4])
        raise UserError(f"{path} belongs to another network: {listed}{more}")

    g.load_state_dict(_below("g.", arrays))
    d.load_state_dict(_below("d.", arrays))
    opt_g.load_state_dict({"state": _below("opt_g.", arrays)} | rest["opt_g"])
    opt_d.load_state_dict({"state": _below("opt_d.", arrays)} | rest["opt_d"])
    for name, rng in layer_rngs.items():
        rng.bit_generator.state = saved_rngs[name].bit_generator.state
    if ema is not None:
        ema.average.load_state_dict(_below("ema.", arrays))
        ema.steps = rest["ema_steps"]
    progress.ema = ema
    return progress


def read_training(path):
    """Return what is in a training checkpoint: its Progress, its arrays, and the states of optimisers and layers.

    Raises UserError unless it is whole and every number is one that a run can have. Whether it fits a network is not
    known here: see :func:`load_training`.
    """
    arrays, metadata = _read(path)
    if KEY not in metadata:
        raise UserError(
            f"{path} holds no training that could be resumed, only networks: "
            "take one of the files in the folder checkpoints beside it"
        )
    try:
        progress, rest = _parsed(metadata[KEY], arrays)
    except UserError as error:
        raise UserError(f"{path} cannot be resumed from: {error}") from None
    except RecursionError:  # lists in lists in lists ...
        raise UserError(f"{path} cannot be resumed from: its metadata is no JSON that nanogan wrote") from None
    progress.path = Path(path)
    return progress, arrays, rest


def _parsed(text, arrays):
    """Return Progress and the rest from a checkpoint's JSON. Raises UserError for whatever nanogan does not write."""
    try:
        fields = json.loads(text) if len(text) <= MAX_TEXT else None
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise UserError("its metadata is no JSON that nanogan wrote")
    if fields.get("format") not in READ:
        known = " and ".join(map(str, READ))
        raise UserError(f"it has format {fields.get('format')!r:.20}, this nanogan reads {known}: use its own version")
    if fields.pop("checksum", None) != _checksum(fields, arrays):
        raise UserError("its checksum is wrong, so it was damaged after it was saved: take an older one")
    progress = Progress(
        step=_whole(fields, "step", 1),
        epoch=_whole(fields, "epoch", 1),
        batch=_whole(fields, "batch", 1),
        steps_per_epoch=_whole(fields, "steps_per_epoch", 1),
        seconds=_number(fields, "seconds"),
        noise_rng=_rng(_group(fields, "noise_rng")),
        instance_rng=None if fields.get("instance_rng") is None else _rng(_group(fields, "instance_rng")),
        best=None if fields.get("best") is None else _number(fields, "best", -math.inf),
        options=_group(fields, "options"),
        nanogan=str(fields.get("nanogan"))[:20],
        numpy=str(fields.get("numpy"))[:20],
    )
    batch = progress.step - (progress.epoch - 1) * progress.steps_per_epoch
    if progress.batch != batch or not 1 <= batch <= progress.steps_per_epoch:
        raise UserError(f"step {progress.step} cannot be batch {progress.batch} of epoch {progress.epoch}")
    rest = {name: _optimizer(_group(fields, name)) for name in ("opt_g", "opt_d")}
    layers = _group(fields, "layer_rngs")
    rest["ema_steps"] = None if fields.get("ema") is None else _whole(_group(fields, "ema"), "steps", 0)
    rest["layer_rngs"] = {name: _rng(_group(layers, name)) for name in layers}
    return progress, rest


def _optimizer(fields):
    return {
        "steps": _whole(fields, "steps", 0),
        "lr": _number(fields, "lr"),
        "initial_lr": _number(fields, "initial_lr"),
    }


def _group(fields, name):
    if not isinstance(fields.get(name), dict):
        raise UserError(f"{name} expected a group of values, got {fields.get(name)!r:.40}")
    return fields[name]


def _whole(fields, name, low, high=MAX_COUNT):
    value = fields.get(name)
    if type(value) is not int or not low <= value <= high:  # a bool is an int too
        raise UserError(f"{name} expected a whole number from {low} to {high}, got {value!r:.40}")
    return value


def _number(fields, name, low=0.0):
    value = fields.get(name)
    if type(value) not in (int, float) or not low <= value < math.inf or value == -math.inf:
        raise UserError(f"{name} expected a finite number{' >= 0' if low == 0 else ''}, got {value!r:.40}")
    return float(value)


def _checksum(fields, arrays):
    """CRC-32 of everything in a checkpoint: against damage, not against malice."""
    value = zlib.crc32(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        value = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), value)
        value = zlib.crc32(np.ascontiguousarray(array), value)
    return value


def _arrays(g, d, opt_g, opt_d, ema=None):
    """Return all arrays of a run under their names in the file: the arrays, not copies."""
    groups = {"g": g.state_dict(), "d": d.state_dict()} | ({} if ema is None else {"ema": ema.average.state_dict()})
    groups |= {"opt_g": opt_g.state_dict()["state"], "opt_d": opt_d.state_dict()["state"]}
    return {f"{group}.{name}": array for group, state in groups.items() for name, array in state.items()}


def _below(prefix, arrays):
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def _layer_rngs(g, d):
    """Return {"d.main.3": generator} of the layers that draw numbers."""
    return {
        f"{group}.{name}": layer.rng
        for group, network in (("g", g), ("d", d))
        for name, layer in network.named_layers()
        if isinstance(getattr(layer, "rng", None), np.random.Generator)
    }


def rng_state(rng):
    """Return the state of a numpy.random.Generator as a dictionary of whole numbers. Raises UserError if not PCG64."""
    state = rng.bit_generator.state
    if state["bit_generator"] != "PCG64":
        raise UserError(
            f"a run that can be resumed expected random generators of numpy.random.default_rng (PCG64), "
            f"got {state['bit_generator']}: make it with default_rng or nanogan.backend.seeded_rng"
        )
    return {**state["state"], "has_uint32": state["has_uint32"], "uinteger": state["uinteger"]}


def _rng(fields):
    """Return a generator in the state that :func:`rng_state` gave."""
    inner = {name: _whole(fields, name, 0, 2**128 - 1) for name in ("state", "inc")}
    outer = {"has_uint32": _whole(fields, "has_uint32", 0, 1), "uinteger": _whole(fields, "uinteger", 0, 2**32 - 1)}
    rng = np.random.Generator(np.random.PCG64())
    rng.bit_generator.state = {"bit_generator": "PCG64", "state": inner, **outer}
    return rng
