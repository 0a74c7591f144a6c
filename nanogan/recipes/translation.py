"""Two domains: their images, what is measured of the translation between them, and the translation of a folder.

The domains of digits are made from the halves of one set: no digit is in both, so nothing pairs them. How B was made is
known, so a translation can be undone, and a judge that has seen grey digits alone can say which digit it shows.
"""

import functools
from pathlib import Path

import numpy as np

from nanogan import backend, checkpoint, cli, images
from nanogan.analysis.judges.classifier import classify
from nanogan.backend import seeded_rng, to_device
from nanogan.data import PictureFolder
from nanogan.data.named import is_set
from nanogan.disk import is_ours, writable_folder
from nanogan.errors import UserError
from nanogan.recipes.datasets import add_data, load_data, load_test
from nanogan.recipes.flags import images_needed, progress_bar
from nanogan.recipes.judging import IMAGES, add_judge, can_judge, judge
from nanogan.recipes.train import run, skipped_of, tell_left_out, tell_skipped
from nanogan.text import quoted

MEASURED = 1000  # test images of each domain
BATCH = 50  # images translated at a time
FIXED = ("pair", "count", "a", "b", "data", "channels")  # options that a resumed run may not change


# --------------------------------------------------------------------------------------------------------- the domains


def inverted(digits, rng):
    """Dark digits on a bright ground: 255 - x."""
    return 255 - digits


def coloured(digits, rng):
    """Grey digits (N, H, W, 1) in random bright colours, (N, H, W, 3): one channel is full, one empty, one between."""
    colours = np.zeros((len(digits), 3))
    colours[:, 1], colours[:, 2] = 1, rng.random(len(digits))
    colours = rng.permuted(colours, axis=1)  # (N, 3)
    return np.rint(digits * colours[:, None, None, :]).astype(np.uint8)


PAIRS = {  # name: how digits of A become images of B, and what undoes it; both of uint8 (N, H, W, C)
    "inverted": (inverted, lambda x: 255 - x),
    "coloured": (coloured, lambda x: x.max(axis=3, keepdims=True)),
}


def run_translation(parser):
    """Do what the command line of a game of two domains says, training or ``--translate``; return the exit status.

    ``parser`` is :func:`nanogan.recipes.parser`'s; the flags of the domains are added to it.
    """
    add_domains(parser)
    args = parser.parse_args()
    check_domains(parser, args)
    if args.translate is not None:
        return translate(args, f"{parser.get_default('out')}/{next(iter(parser.game.exports))}")
    check = functools.partial(check_domains, parser)
    return run(parser, load_domains, fixed=FIXED, check=check, measure=measure_translation)


def add_domains(parser):
    """Add the flags of two domains: digits and what becomes of them, or two folders; and of translating a folder."""
    group = add_data(parser, channels=None)
    group.add_argument(
        "--pair",
        choices=tuple(PAIRS),
        default="inverted",
        help="A: half of the digits; B: the other half, inverted (dark on bright) or in bright colours",
    )
    group.add_argument(
        "--count", type=cli.at_least(int, 1, high=1_000_000), default=8000, help="digits of each domain, at most"
    )
    group.add_argument("--a", type=cli.path, metavar="FOLDER", help="images of domain A, in place of digits; needs --b")
    group.add_argument("--b", type=cli.path, metavar="FOLDER", help="images of domain B")
    add_judge(parser)
    group = parser.add_argument_group("translating")
    group.add_argument(
        "--translate", type=cli.path, metavar="FOLDER", help="translate the images in FOLDER, and do not train"
    )
    first, second = (f"{parser.get_default('out')}/{name}" for name in parser.game.exports)
    group.add_argument(
        "--checkpoint",
        type=cli.path,
        metavar="FILE",
        help=f"a trained translator (default: {first}; the other way: {second})",
    )


def check_domains(parser, args):
    """Report flags that do not fit together, and choose --channels: folders in colour, digits in grey."""
    if args.checkpoint is not None and args.translate is None:
        parser.error("--checkpoint names a trained translator: add --translate FOLDER")
    if args.translate is not None and args.resume is not None:
        parser.error("--translate translates and --resume trains: leave one of them out")
    if (args.a is None) != (args.b is None) and args.resume is None:  # a run goes on with one that moved
        parser.error("--a and --b name the folders of two domains: give both")
    for name in ("data", "pair", "count"):
        if args.a is not None and getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} chooses digits, --a and --b folders: leave one of them out")
    if args.channels is None:
        args.channels = 1 if args.a is None else 3
    if args.a is None and args.pair == "coloured" and args.channels == 3:
        parser.error("--pair coloured colours grey images: leave --channels 3 out")


def load_domains(args):
    """Return a name and the columns "a" and "b", uint8 (N, size, size, C), which are not paired."""
    needed = images_needed(args)
    if args.a is not None or args.b is not None:
        if None in (args.a, args.b):
            raise UserError("--a and --b name the folders of two domains, and this run had none: leave it out")
        progress = progress_bar("listing")
        options = {"size": args.image_size, "channels": args.channels, "progress": progress}
        folders = {name: PictureFolder(getattr(args, name), **options) for name in ("a", "b")}
        columns = {name: folder if needed is None else folder[:needed] for name, folder in folders.items()}
        return f"{args.a} and {args.b}", columns
    name, columns = load_data(args, 2 * (args.count if needed is None else needed))
    digits, count = columns["images"], args.count if needed is None else needed
    mixed = seeded_rng(args.seed, "domains").permutation(len(digits))[: 2 * count]  # a set may be sorted by class
    a, b = (digits[chosen] for chosen in _halves(mixed))
    args.when_begun.append(lambda: tell_skipped(skipped_of({"images": digits}), Path(args.out)))
    change, _ = PAIRS[args.pair]
    return f"{name}, and {args.pair} ones", {"a": a, "b": change(b, seeded_rng(args.seed, "domain b"))}


def _halves(column):
    """Return the first and the second half of a column. Raises UserError if it has fewer than 2 elements."""
    half = len(column) // 2
    if not half:
        raise UserError(f"two domains expected at least 2 images, got {len(column)}")
    return column[:half], column[half : 2 * half]


# -------------------------------------------------------------------------------------------------------- the measures


def measure_translation(args, columns):
    """Return measured(game) -> {name: number} on test images of the domains of digits; None for other images.

    kept_ab, kept_ba     share of translated digits that the judge, after the change is undone, finds to be the same
    error_ab, error_ba   mean absolute difference from the source, after the change is undone; pixels from -1 to 1
    cycle_a, cycle_b     mean absolute difference of what came back from the source; pixels from -1 to 1
    colour_ab            of coloured digits: how saturated the translations are; 1: as real ones, 0: grey, and though
                         nothing was translated, a grey digit is kept
    """
    if args.a is not None or not is_set(args.data):
        return None
    digits = load_data(args, 200 if args.dry_run else IMAGES)[1]
    test = load_test(args, 32 if args.dry_run else 2 * MEASURED)
    if test is None:
        print(f"{args.data} has no test images: no translation is measured")
    if test is None or not can_judge(args, digits):
        return None
    grey = judge(args, digits)
    (digits_a, digits_b), (labels_a, labels_b) = map(_halves, test)
    change, undo = PAIRS[args.pair]
    b = change(digits_b, seeded_rng(args.seed, "test images of domain b"))

    def measured(game):
        fake_b, fake_a = translated(game.ab, digits_a), translated(game.ba, b)
        numbers = {
            "kept_ab": _share(grey, undo(fake_b), labels_a),
            "kept_ba": _share(grey, fake_a, labels_b),
            "error_ab": _difference(undo(fake_b), digits_a),
            "error_ba": _difference(fake_a, digits_b),
            "cycle_a": _difference(translated(game.ba, fake_b), digits_a),
            "cycle_b": _difference(translated(game.ab, fake_a), b),
        }
        return numbers | {"colour_ab": saturation(fake_b)} if args.pair == "coloured" else numbers

    return measured


def saturation(pixels):
    """1 - darkest channel / brightest channel of images (N, H, W, C), each weighed with its brightness."""
    brightest, darkest = pixels.max(axis=3).astype(float), pixels.min(axis=3).astype(float)
    return float(1 - darkest.sum() / brightest.sum()) if brightest.any() else 0.0


def _share(network, pixels, labels):
    """The share of images (N, H, W, C) in which a classifier sees the class of ``labels``."""
    _, probabilities = classify(network, pixels)
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def _difference(x, y):
    """Mean |x - y| of uint8 images, as if they went from -1 to 1."""
    return float(np.abs(x.astype(np.float32) - y).mean() / 127.5)


def translated(network, pixels):
    """Return what a translator makes of images, uint8 (N, H, W, C) -> uint8 (N, H, W, C_out)."""
    return np.concatenate([_translated(network, pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)])


def _translated(network, pixels):
    y, _ = network.forward(images.from_uint8(to_device(pixels, network.device)), train=False)
    return images.to_uint8(y)


# -------------------------------------------------------------------------------------------------------- a folder


def translate(args, default):
    """Translate the images in the folder ``args.translate`` and return the exit status.

    With the network in ``args.checkpoint``, or in ``default``; at the size that it was trained at. An image keeps its
    path below the folder, now below ``args.out``/translated and as a PNG file.
    """
    target = Path(args.out) / "translated"
    _check_apart(target, Path(args.translate))
    if any(target.glob("[!.]*")) and not is_ours(target):
        raise UserError(f"{target} holds files that nanogan did not write, and might replace: choose another --out")
    network = checkpoint.load_translator(args.checkpoint or default).to(backend.get_device(args.device))
    options = {"size": network.image_size, "channels": network.in_channels}
    folder = PictureFolder(args.translate, progress=progress_bar("listing"), **options)
    folder[:1]  # raises UserError, before a folder is made, if no image can be read
    out = writable_folder(target)
    count, written = min(len(folder), 4) if args.dry_run else len(folder), set()
    for start in progress_bar("translating")(range(0, count, BATCH)):
        indices = range(start, min(start + BATCH, count))
        for i, image in zip(indices, _translated(network, folder[np.array(indices)]), strict=True):
            if folder.file(i) not in folder.skipped:
                written.add(_save(image, Path(folder.file(i)).relative_to(args.translate), out, written))
    print(f"{len(written)} images of {network.image_size} x {network.image_size}: {out}")
    for path, reason in folder.skipped.items():
        print(quoted(f"{path} could not be read: {reason}"))
    tell_left_out({"images": folder})
    return 0


def _check_apart(out, source):
    """Raise UserError if translations would come to lie among the images that are translated, or replace them."""
    out, folder = out.resolve(), source.resolve()
    if out == folder or out in folder.parents or folder in out.parents:
        raise UserError(f"{source} would hold its own translations, in {out}: choose another folder with --out")


def _save(image, name, out, written):
    """Write an image below ``out`` as NAME.png and return the path; a second file of a name keeps its suffix too."""
    path = out / name.with_suffix(".png")
    path = path if path not in written else out / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    images.save_png(path, image)
    return path
