"""From a command line to a trained DCGAN: what the example scripts share. A script adds its pictures:

    def load_data(args):
        return "my pictures", pictures  # a name to print; uint8 (N, image_size, image_size, C)

    def main():
        parser = recipes.parser("Train a DCGAN on my pictures.", out="runs/mine")
        parser.add_argument("--data-dir", ...)
        return recipes.run(parser, load_data)

    cli.run(main)

A script's own arguments are options with a default, or stand by position and may be left out (nargs="?"): a resumed run
takes them from its checkpoint.
"""

import argparse
import copy
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nanogan import __version__, backend, checkpoint, cli, images, training
from nanogan.analysis.judges.classifier import load_classifier
from nanogan.analysis.measures.scores import frechet_metric
from nanogan.data import Loader
from nanogan.disk import replacing, writable_folder
from nanogan.errors import UserError
from nanogan.games.dcgan import losses_of
from nanogan.games.drawing import draw_z
from nanogan.models import dcgan
from nanogan.optim import Adam
from nanogan.optim.ema import Ema
from nanogan.training import LOSSES, loop
from nanogan.training.loop import LAST

DRY_STEPS = 4
SCORED = 2000  # pictures that --best-by compares after each epoch
FIXED = (
    "seed",
    "image_size",
    "drop_last",
    "batch_size",
    "latent",
    "width",
    "beta1",
    "amp",
    "best_by",
    "dry_run",
    "loss",
    "label_smoothing",
    "instance_noise",
    "ema",
    "lr_decay",
    "d_steps",
    "upsample",
    "z",
)  # for a run's life
NOT_SAVED = ("out", "resume", "generate", "checkpoint", "single_files")


def parser(description, *, out, image_size=28, epochs=5, batch_size=32, width=32, lr=5e-4):
    """Return an argument parser with all options of training and drawing; the others are their defaults."""
    result = cli.parser(description, out=out)
    count = cli.at_least(int, 1, high=1_000_000)
    train = result.add_argument_group("training")
    train.add_argument("--image-size", type=count, default=image_size, help="pixels: 28, 32, 64, 128, ...")
    train.add_argument("--epochs", type=count, default=epochs, help="rounds through the data")
    train.add_argument("--batch-size", type=count, default=batch_size, help="pictures a step")
    train.add_argument("--drop-last", action="store_true", help="leave out an epoch's last, shorter batch")
    train.add_argument("--latent", type=count, default=100, help="numbers in z")
    train.add_argument("--width", type=count, default=width, help="channels of the largest map (torch's ngf, ndf)")
    train.add_argument(
        "--lr",
        type=cli.at_least(float, 0, above=True),
        default=lr,
        help="Adam's; the paper's 2e-4 suits wide networks",
    )
    train.add_argument("--beta1", type=cli.at_least(float, 0, high=0.999), default=0.5, help="Adam's first beta")
    numbers = train.add_mutually_exclusive_group()
    numbers.add_argument(
        "--tf32", action="store_true", help="on a GPU, matrix products of float32 read 10 of 23 fraction bits: faster"
    )
    numbers.add_argument(
        "--amp",
        choices=("fp16", "bf16"),
        help="matrix products read 16-bit numbers, all else stays in float32; fp16 scales losses",
    )
    train.add_argument("--log-every", type=count, default=100, metavar="STEPS", help="print a line")
    train.add_argument("--sample-every", type=count, default=200, metavar="STEPS", help="draw and save")

    game = result.add_argument_group("the game")
    game.add_argument(
        "--loss",
        choices=tuple(LOSSES),
        default="bce",
        help="what D and G minimise: bce, the usual one; saturating, the minimax game of 2014; lsgan, squared distance "
        "to 1 and 0, against vanishing slopes; hinge, a margin, usual in larger networks",
    )
    game.add_argument(
        "--label-smoothing",
        type=cli.at_least(float, 0, high=0.5),
        default=0.0,
        metavar="A",
        help="D's label for real is 1 - A: keeps D from being too sure",
    )
    game.add_argument(
        "--instance-noise",
        type=cli.at_least(float, 0, high=100),
        default=0.0,
        metavar="SIGMA",
        help="noise on all pictures that D sees, falling to 0 over the run: keeps D from winning early",
    )
    game.add_argument(
        "--d-steps",
        type=cli.at_least(int, 1, high=1000),
        default=1,
        metavar="N",
        help="updates of D, a batch each, for every one of G, which --log-every and --sample-every count",
    )
    game.add_argument(
        "--ema",
        type=cli.at_least(float, 0, high=0.999999),
        metavar="BETA",
        help="draw and save with an average of G's weights over about 1 / (1 - BETA) steps: steadier pictures; 0.999",
    )
    game.add_argument(
        "--lr-decay",
        choices=("none", "linear"),
        default="none",
        help="linear: the learning rates fall to 0 over the run, for a calm end",
    )
    game.add_argument(
        "--upsample",
        choices=dcgan.UPSAMPLES,
        default="deconv",
        help="how G doubles a map: deconv, transposed convolutions; resize, repeated pixels and a 3x3 convolution, "
        "against checkerboards",
    )
    game.add_argument(
        "--z",
        choices=("normal", "uniform"),
        default="normal",
        help="what z is drawn from: N(0, 1), or -1 to 1 as in the paper; the same with --generate",
    )

    keep = result.add_argument_group("checkpoints")
    keep.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="FILE",
        help="go on from a checkpoint, or from the last one in --out; of its options --epochs, --lr and those that "
        "change no result may be given anew",
    )
    keep.add_argument(
        "--checkpoint-every",
        type=cli.at_least(float, 0, high=1e6),
        default=2.0,
        metavar="MINUTES",
        help="save DIR/checkpoints/last.safetensors, besides after each epoch; at most 2%% of the time goes into it, "
        "unless 0 asks for every step",
    )
    keep.add_argument(
        "--keep",
        type=cli.at_least(int, 0, high=1_000_000),
        default=3,
        metavar="N",
        help="checkpoints of epochs that remain; 0 keeps all",
    )
    keep.add_argument(
        "--best-by",
        metavar="CLASSIFIER",
        help="a file of examples/train_classifier.py: checkpoints/best.safetensors is the epoch whose drawings are "
        "nearest to the pictures in its features (Fréchet distance)",
    )
    keep.add_argument(
        "--on-disk-full",
        choices=("stop", "continue"),
        default="stop",
        help="stop, or train on without what could not be saved",
    )

    draw = result.add_argument_group("drawing")
    draw.add_argument("--generate", type=count, metavar="N", help="draw N pictures with --checkpoint, and do not train")
    draw.add_argument(
        "--checkpoint",
        metavar="FILE",
        help=f"a saved generator or a run's checkpoint (default: {out}/generator.safetensors)",
    )
    draw.add_argument("--single-files", action="store_true", help="one file for each picture instead of one grid")
    return result


def run(parser, load_data, *, fixed=(), check=None):
    """Do what the command line says; return the exit status.

    ``load_data(args)`` returns a name to print and the pictures, uint8 (N, image_size, image_size, C). ``fixed`` names
    options of the script that may not change when a run is resumed. ``check(args)`` may call ``parser.error``.
    """
    args = parser.parse_args()
    if args.generate is None and (args.single_files or args.checkpoint is not None):
        parser.error("--single-files and --checkpoint draw with a trained network: add --generate N")
    if args.generate is not None and args.resume is not None:
        parser.error("--generate draws and --resume trains: leave one of them out")
    if check is not None:
        check(args)
    if args.generate is not None:
        args.checkpoint = args.checkpoint or f"{parser.get_default('out')}/generator.safetensors"
        return generate(args)
    resume = None if args.resume is None else _resume(parser, args, (*FIXED, *fixed))
    return train(args, load_data, resume)


def progress_bar(label):
    """Return what wraps an iteration to show how far it is."""
    return lambda items: tqdm(items, desc=label, leave=False, disable=None)


def pictures_needed(args):
    """The number of pictures that a dry run takes; None for all."""
    return args.batch_size * args.d_steps * DRY_STEPS if args.dry_run else None


# -------------------------------------------------------------------------------------------------------- training


def train(args, load_data, resume=None):
    """Train with the options ``args`` and return the exit status; ``resume`` is what is known of a checkpoint."""
    device = backend.get_device(args.device)
    _choose_precision(args, device)
    dcgan.plan(args.image_size)  # a wrong size is told before anything is read or written
    losses_of(args.loss, args.label_smoothing)
    out = writable_folder(args.out)
    name, pictures = load_data(args)
    facts = {"pictures": len(pictures), "pictures_crc32": _fingerprint(pictures)}
    if resume is not None:
        _compare_pictures(resume, name, facts)
    loader = Loader(pictures, batch_size=args.batch_size, seed=args.seed, drop_last=args.drop_last, device=device)

    channels = pictures.shape[3]
    rng = backend.seeded_rng(args.seed, "weights")
    shape = {"image_size": args.image_size, "channels": channels, "width": args.width, "rng": rng}
    g = dcgan.generator(latent=args.latent, upsample=args.upsample, **shape).to(device)
    d = dcgan.discriminator(**shape).to(device)
    settings = {"lr": args.lr, "betas": (args.beta1, 0.999), "loss_scaling": args.amp == "fp16"}
    opt_g, opt_d = Adam(g, **settings), Adam(d, **settings)
    ema = None if args.ema is None else Ema(g, beta=args.ema)
    metric = None
    if args.best_by is not None:
        classifier = load_classifier(args.best_by).to(device)
        metric = frechet_metric(classifier, pictures[:SCORED], latent=args.latent, seed=args.seed, z_kind=args.z)
    fixed_z = draw_z(backend.seeded_rng(args.seed, "fixed noise"), 64, args.latent, args.z, device)

    print(f"{name}: {len(pictures)} pictures of {args.image_size} x {args.image_size}, on {device}")
    print(f"generator: {g.parameter_count():,} parameters; discriminator: {d.parameter_count():,}")
    if resume is not None:
        resume = checkpoint.load_training(resume.path, g, d, opt_g, opt_d, ema)
        print(f"resumed at step {resume.step}, batch {resume.batch} of epoch {resume.epoch}: {resume.path}")
        if (resume.nanogan, resume.numpy) != (__version__, np.__version__):
            print(
                f"it was saved by nanogan {resume.nanogan} with NumPy {resume.numpy}, this is nanogan {__version__} "
                f"with NumPy {np.__version__}: the run goes on, but its last digits may differ"
            )
        if resume.options.get("lr") != args.lr:
            for optimizer in (opt_g, opt_d):
                optimizer.lr = optimizer.initial_lr = args.lr

    if device.kind == "gpu":
        print("the first steps compile the GPU's kernels, which CuPy then keeps for the next run")
    epochs, max_steps = (1, DRY_STEPS) if args.dry_run else (args.epochs, None)
    try:
        completed = training.train(
            g,
            d,
            opt_g,
            opt_d,
            loader,
            epochs=epochs,
            out=out,
            noise_rng=backend.seeded_rng(args.seed, "noise"),
            fixed_z=fixed_z,
            device=device,
            log_every=1 if args.dry_run else args.log_every,
            sample_every=args.sample_every,
            max_steps=max_steps,
            options=vars(args) | facts | {"nanogan": __version__, "numpy": np.__version__},
            resume=resume,
            checkpoint_minutes=args.checkpoint_every,
            keep=args.keep,
            metric=metric,
            on_disk_full=args.on_disk_full,
            loss=args.loss,
            label_smoothing=args.label_smoothing,
            instance_noise=args.instance_noise,
            instance_rng=backend.seeded_rng(args.seed, "instance noise"),
            ema=ema,
            lr_decay=args.lr_decay,
            d_steps=args.d_steps,
            z_kind=args.z,
        )
    finally:
        _tell_skipped(pictures, out)
    steps_per_epoch = loop.steps_in_epoch(loader, args.d_steps)
    if resume is not None and completed and resume.step >= loop.total_steps(epochs, steps_per_epoch, max_steps):
        print(f"nothing was left to do: {resume.path} is of step {resume.step}")
    state = "done" if completed else "stopped"
    print(f"{state}: {out} holds report.html, samples/, training.gif, losses.png, generator.safetensors")
    if not completed:
        print(f"to go on: {cli.command('--resume', out / LAST)}")
    elif not args.dry_run:
        more = 2 * max(args.epochs, resume.epoch if resume is not None else 0)
        print(f"to train longer: {cli.command('--resume', out / LAST, '--epochs', more)}")
    return 0 if completed else 130


def _tell_skipped(pictures, out):
    """Say which pictures could not be used; all of them are listed in ``out``/skipped.txt."""
    skipped = getattr(pictures, "skipped", None)
    if not skipped:
        return
    with suppress(OSError), replacing(out / "skipped.txt") as temporary:
        lines = [f"{path}: {reason}" for path, reason in skipped.items()]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
    first = "; ".join(f"{path} ({reason})" for path, reason in list(skipped.items())[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    print(f"{len(skipped)} could not be used, see {out / 'skipped.txt'}: {first}{more}", file=sys.stderr)


def _choose_precision(args, device):
    """Set what matrix products read, as ``--tf32`` or ``--amp`` ask."""
    if args.tf32 and device.kind == "cpu":
        raise UserError("--tf32 expected a GPU, whose way of multiplying it is: leave it out, or add --device gpu")
    if args.amp and device.kind == "cpu":
        print(f"--amp {args.amp} on the CPU only imitates the rounding, and is slower", file=sys.stderr)
    backend.set_matmul_precision("tf32" if args.tf32 else args.amp or "float32")


def _resume(parser, args, fixed):
    """Find the checkpoint, fill ``args`` with its options, and return its Progress.

    Options on the command line come before those of the checkpoint, but may not contradict the ``fixed`` ones.
    """
    given = _given(parser, args)
    path = Path(args.resume or args.out)
    path = path / LAST if args.resume == "" or path.is_dir() else path
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
    for name in fixed:
        if name in given and getattr(args, name) != getattr(saved, name):
            old, new = (_as_flag(name, getattr(each, name)) or "none" for each in (saved, args))
            raise UserError(
                f"{new} contradicts {path}, whose run has {old}: leave it out, or start a run without --resume"
            )
    for name, value in vars(saved).items():
        if name not in given and name not in NOT_SAVED:
            setattr(args, name, value)
    if "out" not in given and path.parent.name == LAST.parent.name:
        args.out = str(path.parent.parent)

    # Nothing is built from these numbers unless the file holds arrays of just these shapes.
    g_state = {name[2:]: array for name, array in arrays.items() if name.startswith("g.")}
    try:
        sizes = dcgan.options_of(g_state)
    except UserError as error:
        raise UserError(f"{path} is not of a DCGAN: {error}") from None
    for name in ("image_size", "latent", "width", "upsample"):
        if sizes[name] != getattr(args, name):
            raise UserError(
                f"{path} contradicts itself: its {name} is {getattr(args, name)}, its arrays' {sizes[name]}"
            )
    return progress


def _given(parser, args):
    """The names of the options that stand on the command line."""
    unset = object()
    marked = parser.parse_args(namespace=argparse.Namespace(**dict.fromkeys(vars(args), unset)))
    absent = {name for name in _positional(parser) if getattr(args, name) == parser.get_default(name)}
    return {name for name, value in vars(marked).items() if value is not unset} - absent


def _positional(parser):
    """The names of the arguments that stand by position."""
    return {action.dest for action in parser._actions if not action.option_strings}


def _saved_options(parser, known, progress):
    """A checkpoint's options, checked by ``parser`` as if they stood on the command line."""
    unknown = progress.options.keys() - known.keys() - {"pictures", "pictures_crc32", "nanogan", "numpy"}
    if unknown:
        flag = min(unknown).replace("_", "-")[:40]
        raise UserError(f"{progress.path} is a run of another script: this one has no option --{flag}")

    def refuse(message):
        raise UserError(f"{progress.path} has options that no run has: {message}")

    values = {name: v for name, v in progress.options.items() if name in known and name not in NOT_SAVED}
    by_position = [str(values.pop(name)) for name in _positional(parser) & values.keys() if values[name] is not None]
    texts = [_as_flag(name, value) for name, value in values.items()]
    checker = copy.copy(parser)
    checker.error = refuse
    return checker.parse_args([text for text in texts if text] + (["--", *by_position] if by_position else []))


def _as_flag(name, value):
    """An option as it stands on a command line; None if it would not."""
    if value is None or value is False:
        return None
    flag = f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag}={value}"


def _fingerprint(pictures):
    """A number that tells other pictures: the CRC-32 of up to 100 of them."""
    some = np.linspace(0, len(pictures) - 1, 100).astype(int)
    return zlib.crc32(np.ascontiguousarray(pictures[some])) if len(pictures) else 0


def _compare_pictures(resume, name, facts):
    """Refuse to go on with another number of pictures; say so if they are others."""
    old = resume.options
    if facts["pictures"] != old.get("pictures"):
        raise UserError(
            f"{resume.path} was trained on {old.get('pictures')!r:.20} pictures, {name} has {facts['pictures']} now: "
            "give it the same ones, or start a run without --resume"
        )
    if facts["pictures_crc32"] != old.get("pictures_crc32"):
        print(f"the pictures of {name} are not those that {resume.path} was trained on: going on", file=sys.stderr)


# --------------------------------------------------------------------------------------------------------- drawing


def generate(args):
    """Draw ``args.generate`` pictures with a trained generator and return the exit status."""
    device = backend.get_device(args.device)
    g = checkpoint.load_generator(args.checkpoint).to(device)
    out = writable_folder(args.out)
    count = min(args.generate, 4) if args.dry_run else args.generate
    rng = backend.seeded_rng(args.seed, "generate")
    z = draw_z(rng, count, g.latent, args.z, device)
    pictures = images.to_uint8(training.sample(g, z))
    if args.single_files:
        for i, picture in enumerate(progress_bar("writing")(pictures), start=1):
            images.save_png(out / f"generated_{i:06d}.png", picture)
        print(f"{count} pictures: {out}/generated_*.png")
    else:
        images.save_grid(out / "generated.png", pictures)
        print(f"{count} pictures: {out}/generated.png")
    return 0
