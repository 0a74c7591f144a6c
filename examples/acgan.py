#!/usr/bin/env python3
"""Train an ACGAN, whose discriminator names the class of an image, or generate with a trained one.

    python examples/acgan.py                                train on MNIST: 2.5 minutes on two CPU cores; runs/acgan
    python examples/acgan.py --resume --epochs 8            train longer
    python examples/acgan.py --generate 100 --out digits    0, 1, ..., 9, and again
    python examples/acgan.py --data FOLDER --channels 3 --image-size 64 --width 64 --lr 2e-4 --device gpu
                                                            a folder with a folder of images for each class
    python examples/acgan_noise.py                          next: does it help to classify noisy images?

A grid of samples has a column for each class; the images of a row are of one z. After each epoch an independent
classifier, trained first, judges 2,000 samples: how many it takes for the class asked for (in all, and for the worst
class), and how much those of a class differ (spread, recall: nanogan/analysis/measures/classes.py).
A. Odena, C. Olah, J. Shlens, arXiv:1610.09585, section 3. docs/games/acgan.md has the results.
"""

from nanogan import checkpoint, cli, recipes
from nanogan.games.acgan import ACGAN


def main():
    parser = recipes.parser(
        "Train an ACGAN (A. Odena et al., arXiv:1610.09585, section 3 and appendix A), whose discriminator names the "
        "class of an image, or generate with a trained one. python examples/acgan.py trains on MNIST.",
        out="runs/acgan",
        game=ACGAN,
        epochs=4,
        dropout=0.25,  # the paper's 0.5 and 2e-4 suit wider and deeper networks: docs/games/acgan.md
        lr=1e-3,
        lr_decay="linear",
    )
    recipes.add_data(parser, classes=True)
    recipes.add_judge(parser)
    return recipes.run(
        parser,
        recipes.load_data,
        fixed=recipes.DATA_FIXED,
        load=checkpoint.load_conditional,
        measure=recipes.measure_classes,
    )


if __name__ == "__main__":
    cli.run(main)
