#!/usr/bin/env python3
"""Train a DCGAN on built-in faces, whose attributes are known; examples/latent_arithmetic.py calculates with it.

    python examples/faces_dcgan.py                                   train; look at runs/faces_dcgan/report.html
    python examples/faces_dcgan.py --image-size 64 --width 64 --batch-size 128 --device gpu        a larger network
    python examples/faces_dcgan.py --resume --epochs 10              train longer
    python examples/faces_dcgan.py --generate 64 --out pictures      draw, with runs/faces_dcgan/generator.safetensors

Needs no data and no network. 2 to 3 minutes on two CPU cores. Prints pytorch/examples' log line every --log-every
steps.
"""

from nanogan import cli, images, recipes
from nanogan.data.sets.faces import builtin_faces

COUNT = 20_000


def load_data(args):
    """Return a name and the faces, uint8 (N, size, size, 3)."""
    faces, _ = builtin_faces(
        recipes.pictures_needed(args) or COUNT,
        size=32 if args.image_size <= 32 else 64,
        seed=args.seed,
        progress=recipes.progress_bar("drawing faces"),
    )
    return "built-in faces", images.resize(faces, args.image_size, progress=recipes.progress_bar("resizing"))


def main():
    parser = recipes.parser(
        "Train a DCGAN (Radford 2015, arXiv:1511.06434, section 3) on built-in faces, or generate with a trained one.",
        out="runs/faces_dcgan",
        image_size=32,
        epochs=4,
        width=24,
        lr=5e-4,
    )
    return recipes.run(parser, load_data)


if __name__ == "__main__":
    cli.run(main)
