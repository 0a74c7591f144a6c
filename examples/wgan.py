#!/usr/bin/env python3
"""Train a WGAN with clipped weights on MNIST: the game that the gradient penalty of wgan_gp.py mends.

    python examples/wgan.py                                        1.3 minutes on two CPU cores; look at runs/wgan
    python examples/wgan.py --critic plain --out runs/plain        WGAN-GP's critic, without BatchNorm
    python examples/wgan.py --generate 64 --out runs/digits        with runs/wgan/generator.safetensors
    python examples/wgan.py --image-size 64 --width 64 --batch-size 64 --lr 5e-5 --epochs 100 --device gpu

M. Arjovsky et al., arXiv:1701.07875, section 3 and algorithm 1. A step is --n-critic updates of the critic, a batch
each, and one of G. After each epoch a classifier that was trained before the run judges 2,000 samples, see
nanogan/analysis/measures/quality.py; measures.csv has the numbers. docs/games/wgan_gp.md shows what came out, beside
the gradient penalty. Without MNIST and without a network it trains on built-in digits.
"""

from nanogan import cli, recipes
from nanogan.games.wgan import WGAN


def main():
    parser = recipes.parser(
        "Train a WGAN with clipped weights, or generate with one (Arjovsky et al., arXiv:1701.07875, section 3).",
        out="runs/wgan",
        game=WGAN,
        epochs=8,
        width=16,
        lr=5e-4,
        lr_decay="linear",
    )
    recipes.add_data(parser)
    recipes.add_judge(parser)
    return recipes.run(parser, recipes.load_data, fixed=recipes.DATA_FIXED, measure=recipes.measure_samples)


if __name__ == "__main__":
    cli.run(main)
