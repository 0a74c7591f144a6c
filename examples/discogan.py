#!/usr/bin/env python3
"""Train a DiscoGAN, which translates images of one kind into another without pairs, or translate with a trained one.

    python examples/discogan.py                                      MNIST digits and inverted ones; runs/discogan
    python examples/discogan.py --pair coloured                      grey digits and coloured ones
    python examples/discogan.py --a horses --b zebras --image-size 64 --epochs 50
                                                                     two folders of images, of any sizes and numbers
    python examples/discogan.py --translate photos                   to runs/discogan/translated, from A to B
    python examples/discogan.py --translate photos --checkpoint runs/discogan/b_to_a.safetensors           from B to A
    python examples/discogan.py --a horses --b zebras --preset paper --device gpu          the paper's size and settings

T. Kim et al., arXiv:1703.05192, section 3. The first two take less than a minute on two CPU cores each; what came out,
and what differs from CycleGAN (examples/cyclegan.py), is in docs/games/discogan.md. A grid of samples has six rows:
images of A, translated, and back again; images of B, translated, and back again.
Without MNIST and without a network it trains on built-in digits, and says so.
"""

from nanogan import cli, recipes
from nanogan.games.discogan import DiscoGAN

PAPER = {"image_size": 64, "width": 64, "lr": 2e-4, "reconstruction": 1.0, "batch_size": 64, "epochs": 1000}


def main():
    parser = recipes.parser(
        "Train a DiscoGAN (T. Kim et al., arXiv:1703.05192, section 3), which translates images of one kind into "
        "another without pairs, or translate a folder of images with a trained one.",
        out="runs/discogan",
        game=DiscoGAN,
        epochs=4,
        batch_size=32,
        presets={"paper": ("64 pixels, width 64, lr 2e-4, losses without weights, batches of 64, 1000 epochs", PAPER)},
    )
    return recipes.run_translation(parser)


if __name__ == "__main__":
    cli.run(main)
