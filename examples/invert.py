#!/usr/bin/env python3
"""Look for the z of given pictures: can a trained generator draw what it has never seen?

    python examples/mnist_dcgan.py                    train one first
    python examples/invert.py                         about 1 minute; look at runs/invert/inversion.png
    python examples/invert.py --data digits           for a generator that was trained on the built-in digits
    python examples/invert.py --feature-weight 0.1    pictures are to look alike to the discriminator, too

Prints, for training pictures, unseen ones, the generator's own samples and unseen pictures upside down, the mean
squared error of the best z found (pictures are from -1 to 1), and how often an unseen picture is drawn worse than a
training picture: 0.5 if the generator has not memorised, 1 if it has. The picture's rows are pairs, each picture above
the drawn one, in the order above; below the unseen ones stand their nearest training pictures.
"""

import numpy as np

from nanogan import cli, images
from nanogan.analysis.latent import inversion
from nanogan.analysis.measures import neighbours
from nanogan.analysis.networks import pictures_for
from nanogan.backend import get_device, seeded_rng, to_device
from nanogan.data.named import is_set, load_pictures
from nanogan.disk import writable_folder
from nanogan.games.drawing import sample
from nanogan.recipes import experiments, trained

SHOWN = 12  # columns of the picture


def main():
    args = parser().parse_args()
    if args.dry_run:
        args.pictures, args.steps, args.restarts = min(args.pictures, 3), min(args.steps, 3), min(args.restarts, 2)

    device = get_device(args.device)
    g = trained.generator(args.checkpoint).to(device)
    d = trained.discriminator(args.discriminator, args.checkpoint).to(device) if args.feature_weight else None
    layer = len(d) - 3 if d is not None and args.layer is None else args.layer
    out = writable_folder(args.out)
    size = {"size": g.image_size, "channels": g.channels, "seed": args.seed}
    bar = experiments.progress_bar("reading")
    seen, _ = load_pictures(args.data, count=500 if args.dry_run else None, progress=bar, **size)
    split = "test" if args.unseen is None or is_set(args.unseen) else "train"
    unseen, _ = load_pictures(args.unseen or args.data, split=split, count=args.pictures, progress=bar, **size)
    rng = seeded_rng(args.seed, "inversion")
    some = np.sort(rng.permutation(len(seen))[: args.pictures])
    z = to_device(rng.standard_normal((args.pictures, g.latent)).astype(np.float32), device)
    kinds = {
        "training": seen[some],
        "unseen": unseen,
        "samples": images.to_uint8(sample(g, z)),
        "upside_down": unseen[:, ::-1],
    }

    numbers, rows = {"pictures": args.pictures, "steps": args.steps, "restarts": args.restarts}, []
    found = {}
    for kind, pictures in kinds.items():
        found[kind] = inversion.invert(
            g,
            pictures_for(g, pictures),
            steps=args.steps,
            restarts=args.restarts,
            lr=args.lr,
            prior=args.prior,
            d=d,
            layer=layer,
            feature_weight=args.feature_weight,
            rng=rng,
            progress=experiments.progress_bar(f"inverting {kind}"),
        )
        numbers[f"error_{kind}"] = float(found[kind].errors.mean())
        numbers[f"median_error_{kind}"] = float(np.median(found[kind].errors))
        numbers[f"error_{kind}_random_z"] = float(found[kind].start_errors.mean())
        numbers[f"length_of_z_{kind}"] = float(np.linalg.norm(found[kind].z, axis=1).mean())
        rows += [pictures, images.to_uint8(found[kind].pictures)]
    indices, distances = neighbours.nearest(
        unseen, seen, progress=experiments.progress_bar("nearest training pictures")
    )
    rows.insert(4, seen[indices[:, 0]])
    numbers["length_of_z_prior"] = float(np.sqrt(g.latent))
    numbers["error_unseen_nearest_training_picture"] = float(np.mean((distances / 127.5) ** 2))
    numbers["spread_of_restarts_unseen"] = float(found["unseen"].spread.mean())
    numbers["unseen_over_training"], numbers["unseen_over_training_95"] = inversion.ratio(
        found["unseen"].errors, found["training"].errors, rng=rng
    )
    numbers["unseen_worse_than_training"] = neighbours.copying(found["training"].errors, found["unseen"].errors)

    columns = min(SHOWN, *map(len, rows))
    images.save_grid(out / "inversion.png", np.concatenate([row[:columns] for row in rows]), columns=columns)
    experiments.write_numbers(out / "numbers.json", numbers)
    print(f"pictures: {out / 'inversion.png'}")
    return 0


def parser():
    result = experiments.parser(
        "Find z for given pictures by gradient descent through the generator. The paper's section 4.1 asks whether "
        "a generator memorises; this is another answer.",
        out="runs/invert",
        data="mnist",
        checkpoint="runs/mnist_dcgan/generator.safetensors",
    )
    count = cli.at_least(int, 1, high=100_000)
    weight = cli.at_least(float, 0, high=1e6)
    result.add_argument(
        "--unseen", type=cli.path, metavar="NAME|PATH", help="pictures not trained on (default: --data's test split)"
    )
    result.add_argument("--pictures", type=count, default=64, help="of each kind")
    result.add_argument("--steps", type=count, default=300, help="of Adam")
    result.add_argument("--restarts", type=count, default=4, help="random z that are tried for each picture")
    result.add_argument("--lr", type=cli.at_least(float, 0, above=True), default=0.1, help="Adam's, falling to 0")
    result.add_argument("--prior", type=weight, default=0.0, help="weight of the mean of z^2 in the loss")
    result.add_argument("--feature-weight", type=weight, default=0.0, help="weight of the discriminator's features")
    result.add_argument("--layer", type=cli.at_least(int, 0), help="whose (default: the last before the logit)")
    result.add_argument(
        "--discriminator", type=cli.path, metavar="FILE", help="(default: the one saved with --checkpoint)"
    )
    return result


if __name__ == "__main__":
    cli.run(main)
