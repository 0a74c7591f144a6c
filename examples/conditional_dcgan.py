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
place of the test set, to compare settings. 50 seconds on two CPU cores.
Without MNIST and without a network it trains on built-in digits, and says so.
"""

from nanogan import checkpoint, cli, recipes
from nanogan.analysis.measures.one_nn import hold_out
from nanogan.data.named import is_set
from nanogan.games.conditional import ConditionalDCGAN


def load_data(args):
    """Return the name and the columns of the data set asked for: images, uint8 (N, size, size, channels), labels (N,).

    There is no column of labels if the images have none: the game says what it expected.
    """
    name, columns = recipes.load_data(args, _needed(args))
    if is_set(name) and "labels" in columns and not args.train_on_all:
        trained_on, _ = hold_out(len(columns["images"]))
        columns = {column: values[trained_on] for column, values in columns.items()}
        name += " without the sixth that is held out"
    return name, columns


def _needed(args):
    """The images of a dry run, and the sixth that is held out; None for all."""
    count = recipes.images_needed(args)
    return count if count is None or args.train_on_all else max(6, count * 6 // 5)


def main():
    parser = recipes.parser(
        "Train a conditional DCGAN (M. Mirza, S. Osindero, arXiv:1411.1784, section 3), which generates images of the "
        "class that it is asked for, or generate with a trained one.",
        out="runs/conditional_dcgan",
        game=ConditionalDCGAN,
        epochs=2,
    )
    data = recipes.add_data(parser, classes=True)
    data.add_argument(
        "--train-on-all",
        action="store_true",
        help="train on the whole training set; without this flag a random sixth of it, the same in every run, is held "
        "out for one_nn.py --judge validation (of a folder, nothing is)",
    )
    recipes.add_judge(parser, otherwise="nothing is measured")

    def measure(args, columns):
        return recipes.measure_classes(args, columns) if args.judge else None

    return recipes.run(
        parser,
        load_data,
        fixed=(*recipes.DATA_FIXED, "train_on_all"),
        load=checkpoint.load_conditional,
        measure=measure,
    )


if __name__ == "__main__":
    cli.run(main)
