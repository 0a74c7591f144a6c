"""What the scripts of the experiments share: their flags, their pictures, and the file of their numbers."""

import json
import math
from pathlib import Path

from nanogan import cli
from nanogan.data.named import NAMES
from nanogan.disk import replacing
from nanogan.progress import bar


def parser(description, *, out, data="digits", checkpoint=None):
    """Return an argument parser with the flags that every experiment has.

    ``data`` is the default of --data; with ``checkpoint``, the default of --checkpoint, a trained generator or a run's
    checkpoint is asked for.
    """
    result = cli.parser(description, out=out)
    result.add_argument(
        "--data",
        default=data,
        type=cli.path,
        metavar="NAME|PATH",
        help=f"{', '.join(NAMES)}, a folder, CIFAR-10's or SVHN's own file, an .npz",
    )
    if checkpoint is not None:
        result.add_argument(
            "--checkpoint",
            default=checkpoint,
            type=cli.path,
            metavar="FILE",
            help="a saved generator, or a run's checkpoint",
        )
    return result


def progress_bar(label, total=None):
    """Return what wraps an iteration to show how far it is."""
    return lambda items: bar(items, desc=label, total=total, leave=False)


def write_numbers(path, numbers):
    """Write an experiment's numbers, a dictionary that JSON can hold, and print them a line each.

    What is not finite, as after a training that diverged, is null in the file, for JSON has no NaN.
    """
    finite = {
        name: value if not isinstance(value, float) or math.isfinite(value) else None for name, value in numbers.items()
    }
    text = json.dumps(finite, indent=2, allow_nan=False)
    with replacing(Path(path)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    for name, value in numbers.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    print(f"numbers: {path}")
