#!/usr/bin/env python3
"""Train a WGAN-GP on MNIST: a critic whose slope is held at 1 by a penalty, with a second derivative by hand.

    python examples/wgan_gp.py                                     1.3 minutes on two CPU cores; runs/wgan_gp
    python examples/wgan.py                                        the same game with clipped weights, to compare
    python examples/wgan_gp.py --generate 64 --out runs/digits     with runs/wgan_gp/generator.safetensors
    python examples/wgan_gp.py --image-size 64 --width 64 --batch-size 64 --lr 1e-4 --epochs 50 --device gpu

I. Gulrajani et al., arXiv:1704.00028, algorithm 1 and section 4. A step is --n-critic updates of the critic, a batch
each, and one of G. The log has the critic's estimate of the Wasserstein distance, which falls as G improves, and the
mean slope between real and generated images, which stays near 1. After each epoch a classifier that was trained before
the run judges 2,000 samples, see nanogan/analysis/measures/quality.py; measures.csv has the numbers.
docs/games/wgan_gp.md shows what came out. Without MNIST and without a network it trains on built-in digits.
"""

from nanogan import cli, recipes
from nanogan.games.wgan_gp import WGANGP


def main():
    parser = recipes.parser(
        "Train a WGAN-GP, or generate with one (Gulrajani et al., arXiv:1704.00028, algorithm 1 and section 4).",
        out="runs/wgan_gp",
        game=WGANGP,
        epochs=4,
        width=16,
        lr=1e-3,
        lr_decay="linear",
    )
    recipes.add_data(parser)
    recipes.add_judge(parser)
    return recipes.run(parser, recipes.load_data, fixed=recipes.DATA_FIXED, measure=recipes.measure_samples)


if __name__ == "__main__":
    cli.run(main)
