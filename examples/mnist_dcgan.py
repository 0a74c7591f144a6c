#!/usr/bin/env python3
"""Train a DCGAN on MNIST, or draw pictures with one that was trained.

    python examples/mnist_dcgan.py                                   train; look at runs/mnist_dcgan
    python examples/mnist_dcgan.py --resume                          go on after Ctrl-C, a crash, a power cut
    python examples/mnist_dcgan.py --resume --epochs 20              train longer
    python examples/mnist_dcgan.py --generate 64 --out pictures      draw, with runs/mnist_dcgan/generator.safetensors
    python examples/mnist_dcgan.py --image-size 64 --width 64 --batch-size 128 --lr 2e-4 --device gpu       a larger one
    python examples/mnist_dcgan.py --preset notes --device gpu       64 x 64, G 1024-512-256-128, D 64-128-256-512

Prints pytorch/examples' log line every --log-every steps: Loss_D falls and Loss_G rises when the discriminator wins;
D(x) is what it believes of real pictures, D(G(z)) of drawn ones. Times are in the README.
Without MNIST and without a network it trains on built-in digits, and says so.
"""

import argparse
import os
import sys

from nanogan import cli, images, recipes
from nanogan.data import builtin_digits, load_mnist
from nanogan.errors import DataNotFound


def load_data(args):
    """Return the name and pictures, uint8 (N, size, size, 1), of the data set asked for."""
    count = recipes.pictures_needed(args)
    name = "mnist" if args.data == "auto" else args.data
    pictures = None
    if name != "digits":
        try:
            pictures, _ = load_mnist(name, data_dir=args.data_dir)
        except DataNotFound as error:
            if args.data != "auto" or args.data_dir is not None:
                raise
            print(
                "No MNIST here: this run trains on built-in digits. For the real ones go online, or put "
                "train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz into a folder and add --data-dir FOLDER. "
                f"({error})",
                file=sys.stderr,
            )
            name = "digits"
    if pictures is None:
        pictures, _ = builtin_digits(count or 60_000, seed=args.seed, progress=recipes.progress_bar("drawing digits"))
    if args.data == "auto" and args.data_dir is None:
        args.data = name  # a resumed run takes the same
    elif args.data == "auto":
        name = f"idx files in {args.data_dir}"  # MNIST's or another set's: their names are the same
    return name, images.resize(pictures[:count], args.image_size, progress=recipes.progress_bar("resizing"))


# Chosen from what benchmarks/recipe.py tried at this size: benchmarks/results/recipe-cpu.md
DEFAULTS = {"batch_size": 64, "lr": 2e-3, "instance_noise": 0.3}
NAMES = ("auto", "mnist", "fashion-mnist", "digits")
NOTES = {
    "image_size": 64,
    "width": 128,
    "d_width": 64,
    "last_bias": True,
    "gain": 0.0,
    "d_weight": 0.5,
    "lr": 2e-4,
    "instance_noise": 0.0,
    "batch_size": 128,
    "epochs": 5,
}


class NameOrFolder(argparse.Action):
    """--data FOLDER is --data-dir FOLDER, as other examples have it."""

    def __call__(self, parser, namespace, value, option=None):
        if value in NAMES:
            namespace.data = value
        elif os.path.isdir(value):
            namespace.data_dir = value
        else:
            parser.error(f"argument --data: invalid choice: {value!r} (choose from {', '.join(NAMES)}, or a folder)")


def main():
    parser = recipes.parser(
        "Train a DCGAN (Radford 2015, arXiv:1511.06434, section 3) on MNIST, or generate digits with a trained one.",
        out="runs/mnist_dcgan",
        presets={"notes": ("the settings of docs/games/dcgan.md, for a GPU", NOTES)},
        image_size=28,
        width=32,
        **DEFAULTS,
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        type=cli.path,
        action=NameOrFolder,
        metavar="NAME|FOLDER",
        default="auto",
        help="mnist, fashion-mnist, digits, or --data-dir's folder; auto: mnist, or the built-in digits if it is "
        "not on this machine and cannot be downloaded",
    )
    data.add_argument("--data-dir", type=cli.path, metavar="DIR", help="folder with the idx files, gzipped or not")
    recipes.add_judge(parser, otherwise="nothing is measured")

    def check(args):
        if args.data == "digits" and args.data_dir is not None:
            parser.error("--data digits is built in: leave --data-dir out, or use --data mnist")

    def measure(args, columns):
        return recipes.measure_samples(argparse.Namespace(channels=1, **vars(args)), columns) if args.judge else None

    return recipes.run(parser, load_data, fixed=("data",), check=check, measure=measure)


if __name__ == "__main__":
    cli.run(main)
