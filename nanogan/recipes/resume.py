"""A checkpoint and a command line, put together."""

import copy
import os
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from nanogan import checkpoint
from nanogan.data.named import NAMES
from nanogan.errors import UserError
from nanogan.recipes.flags import NO_OPTIONS, as_flag, fixed_options, given, positional
from nanogan.training import LAST

NOT_SAVED = (*NO_OPTIONS, "out", "resume", "generate", "checkpoint", "single_files")
FILES = ("judge", "best_by")  # options that name a classifier
DATA = ("data", "path", "data_dir", "a", "b")  # options that name images, or where they are
PATHS = (*DATA, *FILES, "cache", "stage1")
FOLDER = "working_folder"  # from which relative paths count
FACTS = (  # of a run's options, what no flag says
    "pictures", "pictures_crc32", "labels_crc32", "captions_crc32", "judge_crc32", "best_by_crc32", FOLDER, "nanogan",
    "numpy", "processes", "batchnorm_images", "left_out",
)  # fmt: skip


def resume(parser, args, fixed=()):
    """Find the checkpoint, fill ``args`` with its options, and return its Progress.

    Options on the command line come before those of the checkpoint, but may not contradict those that a resumed run
    may not change; ``fixed`` names more of these. Images may be named anew, since they may have moved: whether they are
    the same, :func:`compare_images` finds. A relative path of the checkpoint that is not there from here is looked for
    from the folder in which the run was started.
    """
    here = given(parser, args)
    path = Path(args.out if args.resume is True else args.resume)
    path = path / LAST if args.resume is True or path.is_dir() else path
    if path.parent == Path() and path.is_file():
        path = path.absolute()  # where it was started in the folder checkpoints, which tells the run's folder
    if not path.is_file():
        raise UserError(
            f"there is no checkpoint {path} to resume: leave --resume out to start a run, or name a file that a run "
            "left in its folder checkpoints"
        )
    try:
        progress, arrays, _ = checkpoint.read_training(path)
    except UserError as error:
        others = sorted(other for other in path.parent.glob("epoch_*.safetensors") if other != path)
        raise UserError(f"{error}; {others[-1]} may be whole" if others else str(error)) from None
    saved = _saved_options(parser, vars(args), progress)
    args.named_anew = [name for name in DATA if name in here and getattr(args, name) != getattr(saved, name)]
    for name in (*fixed_options(parser), *fixed):
        if name in here and not _may_stand_for(name, getattr(args, name), getattr(saved, name), progress):
            old, new = (as_flag(name, getattr(each, name)) or "none" for each in (saved, args))
            raise UserError(
                f"{new} contradicts {path}, whose run has {old}: leave it out, or start a run without --resume"
            )
    if "judge" in here and not _may_stand_for("judge", args.judge, saved.judge, progress):
        print("samples are judged by another classifier from here on: measures.csv holds both", file=sys.stderr)
    for name, value in vars(saved).items():
        if name not in here and name not in NOT_SAVED:
            setattr(args, name, _from_here(value, progress.options.get(FOLDER)) if name in PATHS else value)
    if "out" not in here and path.parent.name == LAST.parent.name:
        args.out = str(path.parent.parent)
    for name in FILES:
        if vars(args).get(name) is not None and not os.path.exists(vars(args)[name]):
            raise UserError(
                f"{vars(args)[name]}, which {path} names, is not there: say where it is with {as_flag(name, 'FILE')}"
            )
    problem = parser.game.contradiction(parser.game.Options.of(vars(args)), arrays)
    if problem:
        raise UserError(f"{path} cannot be resumed from: {problem}")
    return progress


def _may_stand_for(name, new, old, progress):
    """Whether an option may have another value than in the checkpoint: images or a classifier that moved."""
    if new == old or None in (new, old):
        return new == old
    if name in DATA:  # compare_images looks at the images themselves
        return not {old, new} <= {"auto", *NAMES}
    return name in FILES and _crc32(new) == progress.options.get(f"{name}_crc32")


def _crc32(path):
    """The CRC-32 of a file; that of nothing if it cannot be read, which is told by who opens it."""
    with suppress(OSError):
        return zlib.crc32(Path(path).read_bytes())
    return 0


def _from_here(value, folder):
    """A path of a run that was started in ``folder``, as it is found from the working folder, if it is."""
    if not isinstance(value, str) or not isinstance(folder, str) or value in {"auto", *NAMES} - {"faces"}:
        return value  # a folder faces comes before the built-in ones
    there = os.path.join(folder, value)
    if os.path.isabs(value) or os.path.exists(value) or not os.path.exists(there):
        return value
    with suppress(ValueError):  # Windows: on another drive
        return os.path.relpath(there)
    return there


def missing(args):
    """What to say of images that a resumed run does not find: that they may be named anew; "" if all are there."""
    paths = {name: vars(args).get(name) for name in DATA if name not in args.named_anew}
    lost = [name for name, value in paths.items() if isinstance(value, str) and _is_lost(value)]
    if not lost:
        return ""
    flag = "PATH" if lost[0] == "path" else f"--{lost[0].replace('_', '-')} PATH"
    return f"; if the run's images moved, say where to with {flag}"


def _is_lost(value):
    return value not in ("auto", *NAMES) and not os.path.exists(value)


def notes(args):
    """What a run notes besides its options and the facts of its images: where it was started, and its classifiers."""
    files = {f"{name}_crc32": _crc32(vars(args)[name]) for name in FILES if vars(args).get(name) is not None}
    with suppress(FileNotFoundError):  # a working folder that was removed
        files[FOLDER] = os.getcwd()
    return files


def _saved_options(parser, known, progress):
    """A checkpoint's options, checked by ``parser`` as if they stood on the command line."""
    unknown = progress.options.keys() - known.keys() - set(FACTS)
    if unknown:
        flag = min(unknown).replace("_", "-")[:40]
        raise UserError(f"{progress.path} is a run of another script: this one has no option --{flag}")

    def refuse(message):
        raise UserError(f"{progress.path} has options that no run has: {message}")

    values = {name: v for name, v in progress.options.items() if name in known and name not in NOT_SAVED}
    by_position = [str(values.pop(name)) for name in positional(parser) & values.keys() if values[name] is not None]
    texts = [as_flag(name, value) for name, value in values.items()]
    checker = copy.copy(parser)
    checker.error = refuse
    return checker.parse_args([text for text in texts if text] + (["--", *by_position] if by_position else []))


def facts_of(images, labels=None, unpaired=(), captions=None):
    """What a run notes of its images: how many, the CRC-32 of up to 100 of them, and that of all labels and captions.

    ``unpaired``: further columns of images, which count like the first.
    """
    checksum, sets = 0, [images, *unpaired]
    for each in sets:
        some = np.linspace(0, len(each) - 1, 100).astype(int)
        checksum = zlib.crc32(np.ascontiguousarray(each[some]), checksum) if len(each) else checksum
    facts = {"pictures": sum(map(len, sets)), "pictures_crc32": checksum}
    if labels is not None:
        facts["labels_crc32"] = zlib.crc32(np.ascontiguousarray(labels, np.int64))
    if captions is not None:
        words = zlib.crc32("\0".join(captions.words).encode())
        facts["captions_crc32"] = zlib.crc32(np.ascontiguousarray(captions.numbers, np.int64), words)
    return facts


def compare_images(progress, name, facts, named_anew=()):
    """Refuse to go on with another number of images, or with others that were named anew; say so of others.

    ``named_anew``: the options, if any, that name the images and stand on the command line.
    """
    old = progress.options
    if facts["pictures"] != old.get("pictures"):
        raise UserError(
            f"{progress.path} was trained on {old.get('pictures')!r:.20} images, {name} has {facts['pictures']} now: "
            "give it the same ones, or start a run without --resume"
        )
    if facts["pictures_crc32"] != old.get("pictures_crc32"):
        if named_anew:
            raise UserError(
                f"the images of {name} are not those that {progress.path} was trained on: give it the same ones, or "
                "start a run without --resume"
            )
        print(f"the images of {name} are not those that {progress.path} was trained on: going on", file=sys.stderr)
    for key, noun in (("labels_crc32", "labels"), ("captions_crc32", "captions")):
        if facts.get(key) != old.get(key, facts.get(key)):
            raise UserError(
                f"{progress.path} was trained with other {noun} than {name} has now: give it the same ones, or start a "
                "run without --resume"
            )
