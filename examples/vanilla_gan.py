#!/usr/bin/env python3
"""Train a vanilla GAN on MNIST: fully connected networks, and the losses of the first paper.

    python examples/vanilla_gan.py                                 2 minutes on two CPU cores; runs/vanilla_gan
    python examples/vanilla_gan.py --loss saturating --out runs/saturating         the minimax game: fails 2 times of 3
    python examples/vanilla_gan.py --generate 64 --out runs/digits                 with runs/vanilla_gan
    python examples/vanilla_gan.py --hidden 1024 --epochs 100 --device gpu         larger and longer
    python examples/vanishing_gradients.py                         what either loss leaves of G's gradient

I. Goodfellow et al., arXiv:1406.2661, section 3 (losses), 5 (MNIST). After each epoch a classifier that was trained
before the run judges 2,000 samples, see nanogan/analysis/measures/quality.py; measures.csv has the numbers.
docs/games/vanilla.md shows what came out. Without MNIST and without a network it trains on built-in digits.
"""

from nanogan import checkpoint, cli, recipes
from nanogan.games.vanilla import VanillaGAN
from nanogan.models import vanilla


def main():
    parser = recipes.parser(
        "Train a vanilla GAN of fully connected layers, or generate with one (Goodfellow et al., arXiv:1406.2661, "
        "sections 3 and 5).",
        out="runs/vanilla_gan",
        game=VanillaGAN,
        epochs=40,
        batch_size=100,
    )
    recipes.add_data(parser)
    recipes.add_judge(parser)
    return recipes.run(
        parser,
        recipes.load_data,
        fixed=recipes.DATA_FIXED,
        load=checkpoint.generator_loader(vanilla, "vanilla GAN generator"),
        measure=recipes.measure_samples,
    )


if __name__ == "__main__":
    cli.run(main)
