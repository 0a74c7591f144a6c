#!/usr/bin/env python3
"""Train a CycleGAN, which translates images of one kind into another without pairs, or translate with a trained one.

    python examples/cyclegan.py                                      MNIST digits and inverted ones; runs/cyclegan
    python examples/cyclegan.py --pair coloured                      grey digits and coloured ones
    python examples/cyclegan.py --a horses --b zebras --image-size 64 --identity 5 --epochs 20 --batch-size 4
                                                                     two folders of images, of any sizes and numbers
    python examples/cyclegan.py --translate photos                   to runs/cyclegan/translated, from A to B
    python examples/cyclegan.py --translate photos --checkpoint runs/cyclegan/b_to_a.safetensors           from B to A
    python examples/cyclegan.py --a horses --b zebras --preset paper --device gpu          the paper's size and settings

J.-Y. Zhu et al., arXiv:1703.10593: sections 3 and 4, identity loss section 5.2, networks section 7.2. The first two
take a bit over 2 minutes on two CPU cores each; what came out is in docs/games/cyclegan.md. A grid of samples has six
rows: images of A, translated, and back again; images of B, translated, and back again.
Without MNIST and without a network it trains on built-in digits, and says so.
"""

from nanogan import cli, recipes
from nanogan.games.cyclegan import CycleGAN

PAPER = {"image_size": 256, "width": 64, "blocks": 9, "strides": 3, "identity": 5.0, "batch_size": 1, "epochs": 200}


def main():
    parser = recipes.parser(
        "Train a CycleGAN (J.-Y. Zhu et al., arXiv:1703.10593, sections 3, 4 and 7), which translates images of one "
        "kind into another without pairs, or translate a folder of images with a trained one.",
        out="runs/cyclegan",
        game=CycleGAN,
        epochs=1,
        batch_size=8,
        presets={"paper": ("256 pixels, width 64, 9 blocks, identity loss, batches of 1, 200 epochs", PAPER)},
    )
    return recipes.run_translation(parser)


if __name__ == "__main__":
    cli.run(main)
