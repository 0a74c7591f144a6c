"""The data of the example scripts: a set by its name, MNIST by default, or built-in digits where there is none."""

import sys

from nanogan import cli
from nanogan.data.named import NAMES, OtherChannels, is_set, load_pictures
from nanogan.errors import DataNotFound, UserError
from nanogan.recipes.flags import images_needed, progress_bar


def add_data(parser, *, channels=1, classes=False):
    """Add the flags --data and --channels, whose default is ``channels``; ``classes``: whether labels are needed."""
    folder = "a folder with a folder of images for each class" if classes else "a folder of images"
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        default="auto",
        type=cli.path,
        metavar="NAME|PATH",
        help=f"{', '.join(NAMES)}, CIFAR-10's or SVHN's own file, an .npz, or {folder}; auto: mnist, or built-in "
        "digits if it is not on this machine and could not be downloaded",
    )
    group.add_argument("--channels", type=int, choices=(1, 3), default=channels, help="1: grey, 3: colour")
    return group


DATA_FIXED = ("data", "channels")  # for a run's life


def load_data(args, count=None):
    """Return the name and the columns of ``args.data``: images, uint8 (N, size, size, channels), and labels (N,).

    There is no column of labels if the images have none. A dry run reads as few images as it needs, ``count`` if given.
    ``args.data`` becomes the name that was found, so that a resumed run takes the same.
    """
    name = "mnist" if args.data == "auto" else args.data
    count = images_needed(args) if count is None else count
    try:
        images, labels = load_split(args, "train", count, name)
    except DataNotFound as error:
        if args.data != "auto":
            raise
        print(
            "MNIST is not on this machine and could not be downloaded: this run trains on built-in digits. For MNIST, "
            "put its four files into a folder mnist and set NANOGAN_DATA to the folder that contains it. "
            f"({error})",
            file=sys.stderr,
        )
        name = "digits"
        images, labels = load_split(args, "train", count, name)
    args.data = name
    return name, {"images": images} if labels is None else {"images": images, "labels": labels}


def load_split(args, split="test", count=None, name=None):
    """Return images and labels (None if there are none) of a split of ``args.data``, at most ``count``.

    Raises UserError if the data set has no such split.
    """
    name = args.data if name is None else name
    try:
        return load_pictures(
            name,
            size=args.image_size,
            channels=args.channels,
            split=split,
            count=count if is_set(name) else None,  # the first ones of a folder are of one class
            seed=args.seed,
            progress=progress_bar(f"reading {split} images"),
        )
    except OtherChannels as error:
        raise UserError(f"{error}: add --channels 3") from None


def load_test(args, count=None):
    """Return :func:`load_split` of the test images, at most ``count``; None if ``args.data`` has none that can be used.

    Says why of a file: it has no test split, or one that is damaged.
    """
    if not is_set(args.data):
        return None  # a folder
    try:
        return load_split(args, "test", count)
    except UserError as error:
        print(f"no test images are used: {error}")
        return None
