"""The flags of a script that trains: the game's own, from the fields of its Options, and those of every run."""

import argparse
import dataclasses

from nanogan import cli
from nanogan.games.dcgan import DCGAN
from nanogan.games.game import option_type
from nanogan.progress import bar

DRY_STEPS = 4
# what run notes in args: a step's batches, what to write at the beginning, and which images a resumed run names anew
NO_OPTIONS = ("batches", "when_begun", "named_anew")
RUN_FIXED = ("seed", "drop_last", "batch_size", "amp", "best_by", "dry_run")  # for a run's life, besides the game's


def parser(description, *, out, game=DCGAN, epochs=5, batch_size=32, presets=None, **defaults):
    """Return an argument parser with all flags of training and, if the game generates, of ``--generate``.

    game: the :class:`nanogan.games.game.Game` that is trained. ``defaults`` replace those of its options. ``presets``,
    {name: (help, {option: value})}, are what ``--preset NAME`` sets; a flag on the command line comes before it.
    """
    result = cli.parser(description, out=out, together=True)
    result.game, result.presets = game, presets or {}
    if presets:
        told = "; ".join(f"{name}: {text}" for name, (text, _) in presets.items())
        result.add_argument("--preset", choices=tuple(presets), help=f"other defaults. {told}")
    add_training(result, epochs, batch_size)
    add_game(result, game, defaults)
    add_checkpoints(result)
    if game.generates:
        add_generating(result, game, out)
    return result


def add_game(parser, game, defaults):
    """Add a flag for each field of ``game.Options``; ``defaults``, {name: value}, replace theirs."""
    group = parser.add_argument_group(f"the {game.__name__}")
    fields = {field.name: field for field in dataclasses.fields(game.Options)}
    for name in defaults.keys() - fields.keys():
        raise TypeError(f"{game.__name__} has no option {name}: use one of {', '.join(fields)}")
    for name, field in fields.items():
        flag, default = f"--{name.replace('_', '-')}", defaults.get(name, field.default)
        limits = {key: field.metadata[key] for key in ("low", "above", "high") if field.metadata[key] is not None}
        kind, choices = option_type(field), field.metadata["choices"]
        if kind is bool:
            group.add_argument(flag, action="store_true", default=default, help=field.metadata["help"])
            continue
        group.add_argument(
            flag,
            default=default,
            help=field.metadata["help"],
            **{"choices": choices}
            if choices
            else {"type": _number(kind, **limits), "metavar": field.metadata["metavar"]},
        )


def _number(kind, low=None, above=None, high=None):
    if kind is str:
        return str
    return cli.at_least(kind, above if low is None else low, above=low is None and above is not None, high=high)


def add_training(parser, epochs, batch_size):
    count = cli.at_least(int, 1, high=1_000_000)
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=count, default=epochs, help="rounds through the data")
    group.add_argument("--batch-size", type=count, default=batch_size, help="images a step")
    group.add_argument("--drop-last", action="store_true", help="leave out an epoch's last, shorter batch")
    precisions = group.add_mutually_exclusive_group()
    precisions.add_argument(
        "--tf32", action="store_true", help="on a GPU, matrix products of float32 read 10 of 23 fraction bits: faster"
    )
    precisions.add_argument(
        "--amp",
        choices=("fp16", "bf16"),
        help="matrix products read 16-bit numbers, all else stays in float32; fp16 scales losses",
    )
    group.add_argument(
        "--sync-bn",
        choices=("auto", "on", "off"),
        default="auto",
        help="with mpiexec -n N python ...: BatchNorm over the whole batch (on), as in one process, or over each "
        "process's images (off), for slow networks; auto: on if all processes are on one machine",
    )
    group.add_argument("--log-every", type=count, default=100, metavar="STEPS", help="print a line")
    group.add_argument("--sample-every", type=count, default=200, metavar="STEPS", help="save a grid of samples")


def add_checkpoints(parser):
    group = parser.add_argument_group("checkpoints")
    group.add_argument(
        "--resume",
        nargs="?",
        const=True,  # the last one in --out
        type=cli.path,
        metavar="FILE",
        help="go on from a checkpoint, or from the last one in --out; of its options --epochs, --lr and those that "
        "change no result may be given anew",
    )
    group.add_argument(
        "--checkpoint-every",
        type=cli.at_least(float, 0, high=1e6),
        default=2.0,
        metavar="MINUTES",
        help="save DIR/checkpoints/last.safetensors, besides after each epoch; at most 2%% of the time goes into it, "
        "unless 0 asks for every step",
    )
    group.add_argument(
        "--keep",
        type=cli.at_least(int, 0, high=1_000_000),
        default=3,
        metavar="N",
        help="checkpoints of epochs that remain; 0 keeps all",
    )
    group.add_argument(
        "--best-by",
        type=cli.path,
        metavar="CLASSIFIER",
        help="a file of examples/train_classifier.py: checkpoints/best.safetensors is the epoch whose samples are "
        "nearest to the images in its features (Fréchet distance)",
    )
    group.add_argument(
        "--on-disk-full",
        choices=("stop", "continue"),
        default="stop",
        help="stop, or train on without what could not be saved",
    )


def add_generating(parser, game, out):
    group = parser.add_argument_group("generating")
    count = cli.at_least(int, 1, high=1_000_000)
    group.add_argument(
        "--generate", type=count, metavar="N", help="generate N images with --checkpoint, and do not train"
    )
    group.add_argument(
        "--checkpoint",
        type=cli.path,
        metavar="FILE",
        help=f"a saved generator or a run's checkpoint (default: {out}/{next(iter(game.exports), 'generator')})",
    )
    group.add_argument("--single-files", action="store_true", help="one file for each image instead of one grid")


def fixed_options(parser):
    """The names of the options that may not change when a run is resumed."""
    own = [field.name for field in dataclasses.fields(parser.game.Options) if not field.metadata["may_change"]]
    return (*RUN_FIXED, *(["preset"] if parser.presets else []), *own)


def given(parser, args):
    """The names of the options that stand on the command line."""
    unset = object()
    marked = parser.parse_args(namespace=argparse.Namespace(**dict.fromkeys(vars(args), unset)))
    absent = {name for name in positional(parser) if getattr(args, name) == parser.get_default(name)}
    return {name for name, value in vars(marked).items() if value is not unset} - absent


def apply_preset(parser, args):
    """Set the options of ``args.preset`` that do not stand on the command line."""
    if getattr(args, "preset", None) is not None:
        here = given(parser, args)
        for name, value in parser.presets[args.preset][1].items():
            if name not in here:
                setattr(args, name, value)


def positional(parser):
    """The names of the arguments that stand by position."""
    return {action.dest for action in parser._actions if not action.option_strings}


def as_flag(name, value):
    """An option as it stands on a command line; None if it would not."""
    if value is None or value is False:
        return None
    flag = f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag}={value}"


def progress_bar(label):
    """Return what wraps an iteration to show how far it is."""
    return lambda items: bar(items, desc=label, leave=False)


def images_needed(args):
    """The number of images that a dry run takes; None for all. (``run`` has noted a step's batches in ``args``.)"""
    return args.batch_size * args.batches * DRY_STEPS if args.dry_run else None
