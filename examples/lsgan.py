#!/usr/bin/env python3
"""Train an LSGAN on MNIST: D's scores are pulled to 1 and 0 by their squared distance; there is no sigmoid.

    python examples/lsgan.py                                       2 minutes on two CPU cores; runs/lsgan
    python examples/lsgan.py --targets pearson --out runs/pearson  scores of -1 and 1, and 0 for G: equation 8
    python examples/lsgan.py --generate 64 --out runs/digits       with runs/lsgan/generator.safetensors
    python examples/lsgan.py --image-size 64 --width 64 --batch-size 64 --lr 2e-4 --epochs 20 --device gpu
    python examples/vanishing_gradients.py                         the gradient that this loss leaves and others lose

X. Mao et al., arXiv:1611.04076, section 3, equation 9. After each epoch a classifier that was trained before the run
judges 2,000 samples, see nanogan/analysis/measures/quality.py; measures.csv has the numbers. docs/games/lsgan.md shows
what came out. Without MNIST and without a network it trains on built-in digits.
"""

from nanogan import cli, recipes
from nanogan.games.lsgan import LSGAN


def main():
    parser = recipes.parser(
        "Train an LSGAN, or generate with one (Mao et al., arXiv:1611.04076, section 3, equation 9).",
        out="runs/lsgan",
        game=LSGAN,
        epochs=4,
    )
    recipes.add_data(parser)
    recipes.add_judge(parser)
    return recipes.run(parser, recipes.load_data, fixed=recipes.DATA_FIXED, measure=recipes.measure_samples)


if __name__ == "__main__":
    cli.run(main)
