#!/usr/bin/env python3
"""Have a generator forget to draw something: glasses, a digit, what you put boxes round (section 6.3.1, figure 6).

    python examples/faces_dcgan.py                             train a generator of faces first
    python examples/forgetting.py                              a minute or two; look at runs/forgetting/forgetting.png
    python examples/forgetting.py --property smile             or long_hair, looks_right, round
    python examples/forgetting.py --checkpoint runs/mnist_dcgan/generator.safetensors \\
        --classifier runs/classifier/classifier.safetensors --property 7

Logistic regression finds the maps of a hidden layer that are active where the property is; they are set to zero, and
the same z are drawn again. A classifier says how often the property is there before and after, and what else changed,
beside as many maps chosen at random. forgetting.png has the rows before, after, and after dropping random maps.

With any other generator, draw the boxes yourself. The first run writes samples.png, samples with their numbers; put
boxes, in pixels of the picture, into a file {"3": [10, 4, 22, 15], "17": [8, 4, 20, 14], ...} and add --boxes FILE.
"""

from pathlib import Path

import numpy as np

from nanogan import backend, cli, images
from nanogan.analysis import arithmetic, attributes, common, forgetting, trained
from nanogan.analysis.classifier import classify, load_classifier
from nanogan.data.faces import ATTRIBUTES, SIZES, builtin_faces
from nanogan.errors import UserError
from nanogan.files import writable_folder

NUMBERED = 100  # samples in samples.png
WITH, WITHOUT = 10, 6  # pictures in each row that have the property, and that do not
GAP = 8  # pixels between them


def main():
    parser = cli.parser(
        "Have a trained generator forget to draw something (the DCGAN paper, section 6.3.1, figure 6).",
        out="runs/forgetting",
    )
    count = cli.at_least(int, 1, high=100_000)
    parser.add_argument(
        "--checkpoint",
        default="runs/faces_dcgan/generator.safetensors",
        metavar="FILE",
        help="a saved generator, or a run's checkpoint",
    )
    parser.add_argument(
        "--property", metavar="NAME|CLASS", help=f"{', '.join(ATTRIBUTES)} (glasses if not given); or a classifier's class"
    )
    parser.add_argument("--classifier", metavar="FILE", help="what examples/train_classifier.py wrote: it judges classes")
    parser.add_argument("--boxes", metavar="FILE", help="boxes drawn by hand, JSON; see above")
    parser.add_argument("--convolution", type=count, help="of G, counted from 1 (default: the last hidden one but one)")
    parser.add_argument(
        "--negatives",
        choices=("elsewhere", "without"),
        help="what positions in boxes are told from: the rest of the same pictures, as in the paper, or the same boxes "
        "in samples without the property (default: elsewhere; for a classifier's class without)",
    )
    parser.add_argument("--maps", type=count, metavar="N", help="drop the N strongest (default: all of weight > 0)")
    parser.add_argument("--l2", type=cli.at_least(float, 0), default=1e-3, help="the regression's weight penalty")
    parser.add_argument("--samples", type=count, default=500, help="that the regression learns from")
    parser.add_argument("--new", type=count, default=1000, metavar="N", help="other samples, that are measured")
    parser.add_argument("--random", type=count, default=10, metavar="N", help="random choices of as many maps")
    args = parser.parse_args()

    device = backend.get_device(args.device)
    if not Path(args.checkpoint).is_file():
        raise UserError(
            f"there is no generator {args.checkpoint}: train one first (python examples/faces_dcgan.py), or name one "
            "with --checkpoint"
        )
    g = trained.generator(args.checkpoint).to(device)
    hidden = forgetting.hidden_layers(g)
    layer = forgetting.second_highest(g) if args.convolution is None else hidden[checked(args.convolution, hidden) - 1]
    if args.dry_run:
        args.samples, args.new, args.random = min(args.samples, 100), min(args.new, 60), min(args.random, 2)
    rng = backend.seeded_rng(args.seed, "forgetting")
    z, new = (
        backend.to_device(rng.standard_normal((n, g.latent), dtype=np.float32), device)
        for n in (args.samples, args.new)
    )
    y, y_new = forgetting.activations(g, z, layer), forgetting.activations(g, new, layer)
    print(y.shape)
    return 0


if __name__ == "__main__":
    cli.run(main)
