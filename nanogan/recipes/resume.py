"""A checkpoint and a command line, put together."""

import copy
import sys
import zlib
from pathlib import Path

import numpy as np

from nanogan import checkpoint
from nanogan.errors import UserError
from nanogan.recipes.flags import NO_OPTIONS, as_flag, fixed_options, given, positional
from nanogan.training import LAST

NOT_SAVED = (*NO_OPTIONS, "out", "resume", "generate", "checkpoint", "single_files")
FACTS = ("pictures", "pictures_crc32", "labels_crc32", "nanogan", "numpy")  # of a run's options, what no flag says


def resume(parser, args, fixed=()):
    """Find the checkpoint, fill ``args`` with its options, and return its Progress.

    Options on the command line come before those of the checkpoint, but may not contradict those that a resumed run
    may not change; ``fixed`` names more of these.
    """
    here = given(parser, args)
    path = Path(args.out if args.resume is True else args.resume)
    path = path / LAST if args.resume is True or path.is_dir() else path
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
    for name in (*fixed_options(parser), *fixed):
        if name in here and getattr(args, name) != getattr(saved, name):
            old, new = (as_flag(name, getattr(each, name)) or "none" for each in (saved, args))
            raise UserError(
                f"{new} contradicts {path}, whose run has {old}: leave it out, or start a run without --resume"
            )
    if "judge" in here and args.judge != saved.judge:
        print("samples are judged by another classifier from here on: measures.csv holds both", file=sys.stderr)
    for name, value in vars(saved).items():
        if name not in here and name not in NOT_SAVED:
            setattr(args, name, value)
    if "out" not in here and path.parent.name == LAST.parent.name:
        args.out = str(path.parent.parent)
    problem = parser.game.contradiction(parser.game.Options.of(vars(args)), arrays)
    if problem:
        raise UserError(f"{path} cannot be resumed from: {problem}")
    return progress


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


def facts_of(images, labels=None, unpaired=()):
    """What a run notes of its images: how many, the CRC-32 of up to 100 of them, and that of all labels.

    ``unpaired``: further columns of images, which count like the first.
    """
    checksum, sets = 0, [images, *unpaired]
    for each in sets:
        some = np.linspace(0, len(each) - 1, 100).astype(int)
        checksum = zlib.crc32(np.ascontiguousarray(each[some]), checksum) if len(each) else checksum
    facts = {"pictures": sum(map(len, sets)), "pictures_crc32": checksum}
    if labels is not None:
        facts["labels_crc32"] = zlib.crc32(np.ascontiguousarray(labels, np.int64))
    return facts


def compare_images(progress, name, facts):
    """Refuse to go on with another number of images; say so if they are others."""
    old = progress.options
    if facts["pictures"] != old.get("pictures"):
        raise UserError(
            f"{progress.path} was trained on {old.get('pictures')!r:.20} images, {name} has {facts['pictures']} now: "
            "give it the same ones, or start a run without --resume"
        )
    if facts["pictures_crc32"] != old.get("pictures_crc32"):
        print(f"the images of {name} are not those that {progress.path} was trained on: going on", file=sys.stderr)
    if facts.get("labels_crc32") != old.get("labels_crc32", facts.get("labels_crc32")):
        raise UserError(
            f"{progress.path} was trained with other labels than {name} has now: give it the same ones, or start a run "
            "without --resume"
        )
