"""From options to a run: the data, the game, the folder."""

import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from nanogan import backend, checkpoint, cli, ranks, training
from nanogan.analysis.judges.classifier import load_classifier
from nanogan.analysis.measures.scores import frechet_metric
from nanogan.data import Loader
from nanogan.disk import Lock, provisional_folder, replacing, writable_folder
from nanogan.errors import UserError
from nanogan.ranks.cards import device_of_rank
from nanogan.ranks.shards import check_batch
from nanogan.recipes import resume
from nanogan.recipes.flags import DRY_STEPS, NO_OPTIONS, apply_preset
from nanogan.recipes.generate import generate
from nanogan.text import quoted
from nanogan.training.earlier import check_own, folder_of, same_folder
from nanogan.training.parallel import described, other_ranks
from nanogan.version import __version__

SCORED = 2000  # images that --best-by compares after each epoch


def run(parser, load_data, *, fixed=(), check=None, load=checkpoint.load_generator, measure=None):
    """Do what the command line says; return the exit status.

    ``load_data(args)`` returns a name to print and the images, uint8 (N, image_size, image_size, C), or a dictionary of
    columns, {"images": ..., "labels": ...}. ``fixed`` names options of the script that may not change when a run is
    resumed. ``check(args)`` may call ``parser.error``. ``load(path)`` returns the network that ``--generate`` takes.
    ``measure(args, columns)`` is called once before training and returns None, or a function of the game that returns
    {name: number}: what is measured after each epoch, printed, and written to measures.csv. What either of them writes
    into the run's folder belongs into ``args.when_begun``, a list of functions: a run may still be refused.
    """
    args = parser.parse_args()
    if parser.game.generates:
        _check_generating(parser, args)
    apply_preset(parser, args)
    if check is not None:
        check(args)
    if getattr(args, "judge", None) is not None:
        load_classifier(args.judge)  # a wrong file is told before anything is read or trained
    if parser.game.generates and args.generate is not None:
        if ranks.current().size > 1:
            parser.error("--generate takes one process: start it without mpiexec")
        args.checkpoint = args.checkpoint or f"{parser.get_default('out')}/{next(iter(parser.game.exports))}"
        return generate(args, parser.game, load)
    progress = None
    if args.resume is not None:
        progress = ranks.current().led(lambda: resume.resume(parser, args, fixed))
        found, progress = ranks.current().told((vars(args), progress))
        vars(args).update(found)
    return train(args, parser.game, load_data, progress, measure)


def _check_generating(parser, args):
    if args.generate is None and (args.single_files or args.checkpoint is not None):
        parser.error("--single-files and --checkpoint generate with a trained network: add --generate N")
    if args.generate is not None and args.resume is not None:
        parser.error("--generate generates and --resume trains: leave one of them out")


def train(args, game, load_data, progress=None, measure=None):
    """Train a Game class with the options ``args`` and return the exit status; ``progress`` is a checkpoint's.

    ``load_data`` and ``measure`` are those of :func:`run`.
    """
    together = ranks.current()
    check_batch(args.batch_size, together)
    device = device_of_rank(together, args.device)
    _choose_precision(args, device)
    if args.best_by is not None and not game.generates:
        raise UserError(f"--best-by compares generated images, and a {game.__name__} generates none: leave it out")
    options = game.Options.of(vars(args))  # wrong ones are told before anything is read or written
    args.batches = game.batches_of(options)  # of a step, for images_needed
    args.named_anew = getattr(args, "named_anew", [])
    args.when_begun = []  # functions that write what load_data and measure leave in the run's folder
    sync_bn = together.local_size == together.size if args.sync_bn == "auto" else args.sync_bn == "on"
    if together.size > 1:
        args.sync_bn = "on" if sync_bn else "off"  # a resumed run takes the same, wherever its processes are
    if progress is not None and progress.step >= _last_step(args, progress.steps_per_epoch):
        return together.told(together.led(lambda: _nothing_left(args, game, progress)))
    with _reserved(args, game, progress, together) as lock:  # a second run is refused before it reads anything
        name, columns, facts = together.first_on_each_machine(lambda: _columns(args, game, load_data, progress))
        loader = Loader(
            columns,
            batch_size=args.batch_size,
            seed=args.seed,
            drop_last=args.drop_last,
            device=device,
            unpaired=game.unpaired,
        )
        if together.size > 1:
            loader.shared(together)  # raises UserError before anything is measured or written
        playing = game(options, loader.shapes, device, args.seed)
        _check_batches(args, playing, len(columns[game.real]), 1 if sync_bn else together.size)
        facts |= _facts_of_ranks(together, loader, sync_bn)

        def begin():
            """Rank 0's part: what is measured, what is printed, and the run's folder."""
            metric = None if args.best_by is None else _metric(args, playing, columns[game.real], device)
            _tell_start(name, loader, playing, device)
            tell_left_out(columns)
            if together.size > 1:
                print(described(together, playing, loader, sync_bn))
            resumed = None if progress is None else _resumed(progress, playing, facts)
            return resumed, _folder(args, metric, measure, columns, facts, lock)

        progress, folder = together.led(begin) or (None, _folder(args))
        completed = _play(args, playing, loader, folder, progress, together, sync_bn)
        return _tell_end(args, Path(args.out), playing, progress, completed)


def _resumed(progress, playing, facts):
    """Load a checkpoint into the game, say so, and return its Progress."""
    progress = checkpoint.load_training(progress.path, playing)
    _tell_resumed(progress, facts)
    return progress


def _play(args, playing, loader, folder, progress, together, sync_bn):
    """Train; whatever comes of it, say which images could not be used. Return whether the run was completed."""
    epochs, max_steps = _duration(args)
    how = {"epochs": epochs, "seed": args.seed, "max_steps": max_steps, "ranks": together, "sync_bn": sync_bn}
    try:
        completed = training.train(playing, loader, folder, resume=progress, **how)
        skipped = together.all_told(skipped_of(loader.columns))
        return completed
    except BaseException:
        skipped = [skipped_of(loader.columns)]
        raise
    finally:
        if together.leads:
            tell_skipped({path: why for each in skipped for path, why in each.items()}, Path(args.out))


def _facts_of_ranks(together, loader, sync_bn):
    """What a run of several processes notes: see :func:`nanogan.training.parallel.other_ranks`."""
    if together.size == 1:
        return {}
    images = loader.batch_size if sync_bn else loader.batch_size // together.size
    left_out = loader.last_batch % together.size
    return {"processes": together.size, "batchnorm_images": images, "left_out": left_out}


@contextmanager
def _reserved(args, game, progress, together):
    """Yield the lock of the run's folder, which is rank 0's; None on other ranks, which write nothing."""
    with ExitStack() as stack:

        def reserve():
            out = stack.enter_context(provisional_folder(args.out))
            lock = stack.enter_context(Lock(out))
            check_own(out, game.exports, progress)
            return lock

        yield together.led(reserve)


def _folder(args, metric=None, measure=None, columns=None, facts=None, lock=None):
    """The run's folder; other ranks than the first know of it when files are due, and nothing else."""
    how_often = {
        "log_every": 1 if args.dry_run else args.log_every,
        "sample_every": args.sample_every,
        "checkpoint_minutes": args.checkpoint_every,
        "keep": args.keep,
        "on_disk_full": args.on_disk_full,
    }
    if facts is None:
        return training.Run(args.out, **how_often)
    return training.Run(
        args.out,
        metric=metric,
        measure=None if measure is None else measure(args, columns),
        options=_options(args) | facts | resume.notes(args),
        when_begun=args.when_begun,
        lock=lock,
        **how_often,
    )


def _columns(args, game, load_data, progress):
    """Return the name of the images, the columns, and what a run notes of them; refuse others than ``progress`` had."""
    name, columns = _load(args, load_data, progress)
    columns = columns if isinstance(columns, dict) else {"images": columns}
    unpaired = [columns[column] for column in game.unpaired]
    facts = resume.facts_of(columns[game.real], columns.get("labels"), unpaired, columns.get("captions"))
    if progress is not None:
        resume.compare_images(progress, name, facts, args.named_anew)
    return name, columns, facts


def _load(args, load_data, progress):
    """Call ``load_data``; what a resumed run does not find may have moved."""
    try:
        return load_data(args)
    except UserError as error:
        if progress is None:
            raise
        raise type(error)(f"{error}{resume.missing(args)}") from None


def _duration(args):
    """The epochs of a run, and the steps after which it ends early, or None."""
    return (1, DRY_STEPS) if args.dry_run else (args.epochs, None)


def _last_step(args, steps_per_epoch):
    epochs, max_steps = _duration(args)
    return min(epochs * steps_per_epoch, max_steps or epochs * steps_per_epoch)


def _nothing_left(args, game, progress):
    """Say so at once: no data are read and no judge is trained. Return the exit status."""
    why = f"step {progress.step}, and --epochs {args.epochs} ends at step {args.epochs * progress.steps_per_epoch}"
    why = "a dry run, which is done: start a run without --resume" if args.dry_run else why
    print(f"nothing was left to do: {progress.path} is of {why}")
    out = folder_of(progress)
    if same_folder(out, Path(args.out)):
        with Lock(writable_folder(out, results=False)):
            training.Run(out).draw_again(game, progress)
        return _tell_end(args, out, game, progress, completed=True)
    _tell_longer(args, progress.path, progress)
    return 0


def _options(args):
    """What a checkpoint says of its run besides the images."""
    options = {name: value for name, value in vars(args).items() if name not in NO_OPTIONS}
    return options | {"nanogan": __version__, "numpy": np.__version__}


def _named(game):
    """(what is printed, network): pytorch/examples' two by their names, others by their attributes."""
    usual = {"g": "generator", "d": "discriminator"}
    return [(usual.get(name, name), network) for name, network in game.networks().items()]


def _check_batches(args, game, count, parts):
    """Raise UserError if an epoch of ``count`` images has a batch too small for the game: its last one, or all.

    parts: into how many a batch is divided, each with statistics of its own.
    """
    smallest = args.batch_size if args.drop_last else count % args.batch_size or args.batch_size
    if parts > 1 and smallest // parts < game.least_batch:
        raise UserError(
            f"a batch of {smallest} images leaves {smallest // parts} for each of {parts} processes, and "
            f"{type(game).__name__} expected {game.least_batch} at least: use --sync-bn on, a larger --batch-size, or "
            "--drop-last"
        )
    if smallest < game.least_batch:
        remedy = "" if args.batch_size < game.least_batch else ", or --drop-last"
        raise UserError(
            f"{count} images in batches of {args.batch_size} leave a batch of {smallest}, and {type(game).__name__} "
            f"expected batches of at least {game.least_batch}: use another --batch-size{remedy}"
        )


def _metric(args, playing, images, device):
    """Return metric(game): how far its images are from the real ones in the classifier's features."""

    def generate(network, count, rng):
        return playing.generate(network, count, playing.options, rng, device)

    classifier = load_classifier(args.best_by).to(device)
    inner = frechet_metric(classifier, images[:SCORED], seed=args.seed, generate=generate)
    return lambda game: inner(next(iter(game.exported().values())))


def _choose_precision(args, device):
    """Set what matrix products read, as ``--tf32`` or ``--amp`` ask."""
    if args.tf32 and device.kind == "cpu":
        raise UserError("--tf32 expected a GPU, whose way of multiplying it is: leave it out, or add --device gpu")
    if args.amp and device.kind == "cpu":
        print(f"--amp {args.amp} on the CPU only imitates the rounding, and is slower", file=sys.stderr)
    backend.set_matmul_precision("tf32" if args.tf32 else args.amp or "float32")


# ------------------------------------------------------------------------------------------------- what is printed


def _tell_start(name, loader, game, device):
    _, H, W = loader.shapes[game.real]
    counts = [len(column) for key, column in loader.columns.items() if key in (game.real, *game.unpaired)]
    print(f"{quoted(name)}: {' and '.join(map(str, counts))} images of {W} x {H}, on {device}")
    print("; ".join(f"{label}: {network.parameter_count():,} parameters" for label, network in _named(game)))
    if loader.shapes.get("labels") == 1:
        print("all images are of one class: in a folder, each class has its own folder below it", file=sys.stderr)
    if device.kind == "gpu":
        print("the first steps compile the GPU's kernels, which CuPy then keeps for the next run")


def _tell_resumed(progress, facts):
    print(f"resumed at step {progress.step}, batch {progress.batch} of epoch {progress.epoch}: {progress.path}")
    changed = other_ranks(progress.options, facts)
    if changed:
        print(changed)
    if (progress.nanogan, progress.numpy) != (__version__, np.__version__):
        print(
            f"it was saved by nanogan {progress.nanogan} with NumPy {progress.numpy}, this is nanogan {__version__} "
            f"with NumPy {np.__version__}: the run goes on, but its last digits may differ"
        )


def _tell_end(args, out, game, progress, completed):
    """Say where everything is and how to go on; return the exit status."""
    state = "done" if completed else "stopped"
    exported = "".join(f", {name}" for name in list(game.exports)[:1])
    print(f"{state}: {out} holds report.html, samples/, training.gif, losses.png{exported}")
    if not completed:
        print(f"to go on: {cli.command('--resume', out / training.LAST)}")
    else:
        _tell_longer(args, out / training.LAST, progress)
    return 0 if completed else 130


def _tell_longer(args, path, progress):
    if not args.dry_run:
        more = 2 * max(args.epochs, progress.epoch if progress is not None else 0)
        print(f"to train longer: {cli.command('--resume', path, '--epochs', more)}")


def tell_left_out(columns):
    """Say what else a folder of images holds, which nobody asked for."""
    for column in columns.values():
        if getattr(column, "left_out", ()):
            print(f"left out of {column.path}: {'; '.join(column.left_out)}", file=sys.stderr)


def skipped_of(columns):
    """Return {path: why it could not be used} of the images that were asked for so far."""
    return {path: why for column in columns.values() for path, why in getattr(column, "skipped", {}).items()}


def tell_skipped(skipped, out):
    """Say which images could not be used, :func:`skipped_of`; all are listed in ``out``/skipped.txt, a line each."""
    if not skipped:
        return
    lines = [f"{quoted(path)}: {reason}" for path, reason in skipped.items()]
    with suppress(OSError), replacing(out / "skipped.txt") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    first = "; ".join(f"{quoted(path)} ({reason})" for path, reason in list(skipped.items())[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    print(f"{len(skipped)} could not be used, see {out / 'skipped.txt'}: {first}{more}", file=sys.stderr)
