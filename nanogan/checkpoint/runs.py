"""A run in a file: the state of all that is trained, and where the run stands.

What is saved is anything with ``state_dict()``, a :class:`nanogan.games.game.Game` above all: dictionaries in
dictionaries, with arrays and numbers at the ends. Arrays are named by their path, "g.main.0.weight",
"opt_d.state.main.0.weight.exp_avg", "ema.average.main.0.weight"; everything else is JSON in the file's metadata, with a
checksum over both. No state of a random generator is saved: the random numbers of step n are a function of the run's
seed and n. The file does not depend on the device.
"""

import json
import math
import os
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nanogan.backend import all_to_numpy
from nanogan.checkpoint.safetensors_files import KEY, is_torchs, read_file, start_of, write_arrays
from nanogan.errors import UserError
from nanogan.version import __version__

FORMAT = 3  # of what stands in the metadata
READ = (1, 2, 3)  # formats that can be read: 1 had no EMA weights; 1 and 2 had a G, a D and random generators' states
MAX_TEXT = 1 << 20  # characters of it; a run's are about 2,000
ROOM = 1 << 16  # of these for all but the options
DEPTH = 20  # of dictionaries and lists in the options
LARGEST = 1.7e308  # of floats: JSON's integers may be larger than any
NOT_NEGATIVE = ("steps", "lr", "initial_lr")  # of an optimiser
MAX_COUNT = 1 << 53  # of steps, images, ...: JSON's other readers know integers up to here


@dataclass
class Progress:
    """Where a run stands: what its future depends on besides the state of what is trained, and the images.

    The images' order is a function of the loader's seed, the epoch and the batch.
    """

    step: int  # steps done, from 1
    epoch: int  # the one it is in, from 1
    batch: int  # steps of this epoch done
    steps_per_epoch: int
    seconds: float  # spent on training
    best: float | None = None  # the lowest metric so far
    options: dict = field(default_factory=dict)  # whatever JSON can hold
    nanogan: str = ""  # the versions that saved it; filled in by save_training
    numpy: str = ""
    path: Path | None = None  # the file it was loaded from


COUNTED = ("step", "epoch", "batch", "steps_per_epoch", "seconds", "best")


def save_training(path, trained, progress):
    """Write ``trained.state_dict()`` and ``progress``; the file is replaced as a whole, through to the disk.

    What a layer or a game remembers between steps belongs into its state. Raises UserError if that, or the options, are
    what a file cannot hold, OSError if the file cannot be written.
    """
    arrays, numbers = checked_state(trained)
    arrays = {name: np.asarray(array, order="C") for name, array in all_to_numpy(arrays).items()}
    fields = {
        "format": FORMAT,
        "nanogan": __version__,
        "numpy": np.__version__,
        **{name: getattr(progress, name) for name in COUNTED},
        "state": numbers,
        "options": as_json(progress.options),
    }
    fields = json.loads(json.dumps(fields, allow_nan=False))  # as they will be read: the checksum is of that
    fields["checksum"] = _checksum(fields, arrays)
    text = json.dumps(fields)
    if len(text) > MAX_TEXT:
        raise UserError(
            f"a checkpoint expected options of at most {MAX_TEXT} characters, got {len(text)}: shorten them"
        )
    write_arrays(path, arrays, {KEY: text}, durable=True)


def checked_state(trained):
    """Return :func:`flattened` of ``trained.state_dict()``; raises UserError for what a checkpoint cannot hold."""
    arrays, numbers = flattened(trained.state_dict())
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise UserError(f"a checkpoint expected numbers in the array {name}, got the dtype {array.dtype}")
    for name, value in numbers.items():
        if wrong := _wrong_number(name, value, value):
            raise UserError(f"a checkpoint holds arrays and finite numbers; {name} {wrong}")
    return arrays, numbers


def as_json(options, name="options"):
    """Return ``options``, a dictionary, as JSON holds it: paths become text, NumPy's numbers Python's, tuples lists.

    Raises UserError, naming the place, for whatever JSON cannot hold, and if there is too much of it.
    """
    if not isinstance(options, dict):
        raise UserError(f"{name} expected a dictionary, got {options!r:.80}: of an argparse.Namespace, give vars(args)")
    result = _as_json(options, name)
    length = len(json.dumps(result))
    if length > MAX_TEXT - ROOM:
        raise UserError(f"a checkpoint expected options of at most {MAX_TEXT} characters, got {length}: shorten them")
    return result


def _as_json(value, name, depth=0):
    if depth > DEPTH:
        raise UserError(f"{name:.80} expected at most {DEPTH} dictionaries and lists in one another, got more")
    if isinstance(value, dict):
        wrong = [key for key in value if not isinstance(key, (str, int, np.integer)) or isinstance(key, bool)]
        wrong += [key for key in value if not isinstance(key, str) and str(key) in value]
        if wrong:
            raise UserError(f"{name} expected names that are text, each once, got {wrong[0]!r:.80}")
        return {str(key): _as_json(each, f"{name}[{key!r}]", depth + 1) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(each, f"{name}[{i}]", depth + 1) for i, each in enumerate(value)]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        return _as_json(value.tolist(), name, depth)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)) and -LARGEST <= value <= LARGEST:
        return value
    raise UserError(
        f"{name} expected what JSON can hold (text, finite numbers, True, False, None, lists and dictionaries of "
        f"these), got {value!r:.80}: give it as text, or leave it out"
    )


def load_training(path, trained):
    """Copy a training checkpoint into ``trained``, on whatever device its arrays are, and return the run's Progress.

    ``trained`` has ``state_dict()`` and ``load_state_dict(state)``. Everything is checked first: nothing is changed if
    UserError is raised, because the file is damaged, is of something else, or holds numbers that no run writes.
    """
    progress, arrays, numbers = read_training(path)
    own = trained.state_dict()
    own_arrays, own_numbers = flattened(own)
    for name in own_numbers.keys() & arrays.keys():  # a NumPy scalar was saved as an array once
        if arrays[name].ndim == 0:
            numbers[name] = arrays.pop(name).item()
    problems = [f"{name} is missing" for name in own_arrays if name not in arrays]
    problems += [f"{name} is unknown here" for name in arrays if name not in own_arrays]
    problems += [f"{name} is missing" for name in own_numbers if name not in numbers]
    problems += [f"{name} is unknown here" for name in numbers if name not in own_numbers]
    for name in own_arrays.keys() & arrays.keys():
        here, there = own_arrays[name], arrays[name]
        if (there.shape, there.dtype) != (here.shape, here.dtype):
            problems.append(f"{name} is {there.dtype} {there.shape} instead of {here.dtype} {here.shape}")
        elif there.dtype.kind == "f" and not np.isfinite(there).all():
            problems.append(f"{name} is not finite")
    for name in own_numbers.keys() & numbers.keys():
        wrong = _wrong_number(name, numbers[name], own_numbers[name])
        problems += [f"{name} {wrong}"] if wrong else []
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise UserError(f"{path} belongs to another network: {'; '.join(sorted(problems)[:4])}{more}")
    try:
        trained.load_state_dict(_filled(own, arrays | numbers))
    except UserError as error:
        raise UserError(f"{path} cannot be resumed from: {error}") from None
    return progress


def read_training(path):
    """Return what is in a training checkpoint: its Progress, its arrays {path: array} and its numbers {path: number}.

    Files of older formats are returned as if they were of the newest. Raises UserError unless the file is whole and
    every number is one that a run can have. Whether it fits a game is not known here: see :func:`load_training`.
    """
    try:
        arrays, metadata = read_file(path)
    except UserError:
        if is_torchs(start_of(path)):  # no conversion would make a run of it
            raise UserError(
                f"{path} looks like one of torch.save's, and a run is resumed from nanogan's checkpoints alone: name "
                "one of the files that a run left in its folder checkpoints"
            ) from None
        raise
    if KEY not in metadata:
        raise UserError(
            f"{path} holds no training that could be resumed, only networks: "
            "take one of the files in the folder checkpoints beside it"
        )
    try:
        progress, arrays, numbers = _parsed(metadata[KEY], arrays)
    except UserError as error:
        raise UserError(f"{path} cannot be resumed from: {error}") from None
    except RecursionError:  # lists in lists in lists ...
        raise UserError(f"{path} cannot be resumed from: its metadata is no JSON that nanogan wrote") from None
    progress.path = Path(path)
    return progress, arrays, numbers


# ------------------------------------------------------------------------------------------ dictionaries to names


def flattened(state, prefix=""):
    """Return ({path: array}, {path: number}) of dictionaries in dictionaries; a path joins the keys with dots."""
    arrays, numbers = {}, {}
    for key, value in state.items():
        if isinstance(value, dict):
            for found, below in zip((arrays, numbers), flattened(value, f"{prefix}{key}."), strict=True):
                found.update(below)
        else:
            value = value.item() if isinstance(value, np.generic) else value  # np.float32(0.1) has a dtype too
            (arrays if hasattr(value, "dtype") else numbers)[f"{prefix}{key}"] = value
    return arrays, numbers


def _filled(state, values, prefix=""):
    """Return dictionaries of the structure of ``state`` with ``values``, {path: array or number}, at their ends."""
    return {
        key: _filled(value, values, f"{prefix}{key}.") if isinstance(value, dict) else values[f"{prefix}{key}"]
        for key, value in state.items()
    }


# -------------------------------------------------------------------------------------------- what the JSON may say


def _parsed(text, arrays):
    """Return Progress, arrays and numbers of a checkpoint. Raises UserError for whatever nanogan does not write."""
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
        step=_integer(fields, "step", 1),
        epoch=_integer(fields, "epoch", 1),
        batch=_integer(fields, "batch", 1),
        steps_per_epoch=_integer(fields, "steps_per_epoch", 1),
        seconds=_float(fields, "seconds"),
        best=None if fields.get("best") is None else _float(fields, "best", -math.inf),
        options=_group(fields, "options"),
        nanogan=str(fields.get("nanogan"))[:20],
        numpy=str(fields.get("numpy"))[:20],
    )
    batch = progress.step - (progress.epoch - 1) * progress.steps_per_epoch
    if progress.batch != batch or not 1 <= batch <= progress.steps_per_epoch:
        raise UserError(f"step {progress.step} cannot be batch {progress.batch} of epoch {progress.epoch}")
    if fields["format"] < 3:
        arrays, numbers = _of_older_formats(fields, arrays)
    else:
        numbers = _group(fields, "state")
    return progress, arrays, numbers


def _of_older_formats(fields, arrays):
    """The arrays and numbers of formats 1 and 2 under today's names."""
    numbers = {}
    for optimizer in ("opt_g", "opt_d"):
        saved = _group(fields, optimizer)
        numbers[f"{optimizer}.steps"] = _integer(saved, "steps", 0)
        numbers |= {f"{optimizer}.{name}": _float(saved, name) for name in ("lr", "initial_lr")}
    if fields.get("ema") is not None:
        numbers["ema.steps"] = _integer(_group(fields, "ema"), "steps", 0)
    renamed = {}
    for name, array in arrays.items():
        name = re.sub(r"^(opt_[gd])\.", r"\1.state.", name)
        renamed[re.sub(r"^ema\.", "ema.average.", name)] = array
    return renamed, numbers


def _group(fields, name):
    if not isinstance(fields.get(name), dict):
        raise UserError(f"{name} expected a group of values, got {fields.get(name)!r:.40}")
    return fields[name]


def _integer(fields, name, low, high=MAX_COUNT):
    value = fields.get(name)
    if type(value) is not int or not low <= value <= high:  # a bool is an int too
        raise UserError(f"{name} expected an integer from {low} to {high}, got {value!r:.40}")
    return value


def _float(fields, name, low=0.0):
    value = fields.get(name)
    if type(value) not in (int, float) or not max(low, -LARGEST) <= value <= LARGEST:
        raise UserError(f"{name} expected a finite number{' >= 0' if low == 0 else ''}, got {value!r:.40}")
    return float(value)


def _wrong_number(name, value, own):
    """What is wrong with a saved number in place of ``own``; None if nothing is."""
    low = 0 if name.rpartition(".")[2] in NOT_NEGATIVE else -LARGEST
    if isinstance(own, bool):
        return None if type(value) is bool else f"expected true or false, got {value!r:.40}"
    if isinstance(own, int):
        right, noun = type(value) is int and low <= value <= MAX_COUNT, "an integer"
    else:
        right, noun = type(value) in (int, float) and low <= value <= LARGEST, "a finite number"
    return None if right else f"expected {noun}{' >= 0' if low == 0 else ''}, got {value!r:.40}"


def _checksum(fields, arrays):
    """CRC-32 of everything in a checkpoint: against damage, not against malice."""
    value = zlib.crc32(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        value = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), value)
        value = zlib.crc32(np.ascontiguousarray(array), value)
    return value
