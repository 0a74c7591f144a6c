#!/usr/bin/env python3
"""Train a conditional DCGAN, whose generator makes the digit that it is asked for, or generate with a trained one.

    python examples/conditional_dcgan.py                             train on MNIST; look at runs/conditional_dcgan
    python examples/conditional_dcgan.py --resume                    go on after Ctrl-C, a crash, a power cut
    python examples/conditional_dcgan.py --resume --epochs 5         train longer
    python examples/conditional_dcgan.py --generate 100 --out digits 0, 1, ..., 9, and again
    python examples/conditional_dcgan.py --data FOLDER --channels 3 --image-size 32
                                                                     a folder with a folder of images for each class
    python examples/one_nn.py                                        next: how well its digits teach a classifier

A grid of samples has a row for each class; the images of a column are of one z. Prints the log line of mnist_dcgan.py.
A sixth of the training set (MNIST: 10,000, as in the paper) is not trained on: one_nn.py --judge validation takes it in
place of the test set, to compare settings.
Without MNIST and without a network it trains on built-in digits, and says so.
"""

import sys

from nanogan import checkpoint, cli, recipes
from nanogan.analysis.measures.one_nn import hold_out
from nanogan.data.named import NAMES, is_set, load_pictures
from nanogan.errors import DataNotFound
from nanogan.games.conditional import ConditionalDCGAN


def load_data(args):
    """Return the name and the columns of the data set asked for: images, uint8 (N, size, size, channels), labels (N,).

    There is no column of labels if the images have none: the game says what it expected.
    """
    name = "mnist" if args.data == "auto" else args.data
    try:
        images, labels = _load(args, name)
    except DataNotFound as error:
        if args.data != "auto":
            raise
        print(
            "No MNIST here: this run trains on built-in digits. For the real ones go online, or put MNIST's four files "
            f"into a folder mnist and set NANOGAN_DATA to the folder that holds it. ({error})",
            file=sys.stderr,
        )
        name = "digits"
        images, labels = _load(args, name)
    args.data = name  # a resumed run takes the same
    if labels is None:
        return name, {"images": images}
    if is_set(name) and not args.train_on_all:
        trained_on, _ = hold_out(len(images))
        images, labels = images[trained_on], labels[trained_on]
        name += " without the sixth that is held out"
    return name, {"images": images, "labels": labels}


def _load(args, name):
    return load_pictures(
        name,
        size=args.image_size,
        channels=args.channels,
        count=_needed(args) if is_set(name) else None,  # the first ones of a folder are of one class
        seed=args.seed,
        progress=recipes.progress_bar("reading"),
    )


def _needed(args):
    """The images of a dry run, and the sixth that is held out; None for all."""
    count = recipes.images_needed(args)
    return count if count is None or args.train_on_all else max(6, count * 6 // 5)


def main():
    parser = recipes.parser(
        "Train a conditional DCGAN, which generates images of the class that it is asked for, or generate with one.",
        out="runs/conditional_dcgan",
        game=ConditionalDCGAN,
        epochs=2,
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        default="auto",
        metavar="NAME|PATH",
        help=f"{', '.join(NAMES)}, CIFAR-10's or SVHN's own file, an .npz, or a folder with a folder of images for "
        "each class; auto: mnist, or the built-in digits where it is not available",
    )
    data.add_argument("--channels", type=int, choices=(1, 3), default=1, help="1: grey, 3: colour")
    data.add_argument(
        "--train-on-all",
        action="store_true",
        help="train on the whole training set; without this flag a random sixth of it, the same in every run, is held "
        "out for one_nn.py --judge validation (of a folder, nothing is)",
    )
    return recipes.run(parser, load_data, fixed=("data", "channels", "train_on_all"), load=checkpoint.load_conditional)


if __name__ == "__main__":
    cli.run(main)
