#!/usr/bin/env python3
"""Does a trained generator copy? Its samples beside their nearest training pictures, in pixels and in features.

    python examples/mnist_dcgan.py                    train one first
    python examples/nearest.py                        about 1 minute; look at runs/nearest/nearest.png
    python examples/nearest.py --data digits          for networks that were trained on the built-in digits
    python examples/nearest.py --data FOLDER --unseen ANOTHER

First looks for duplicates in the training set, which a generator that fits it well would draw more often; they are in
duplicates.png. Then draws samples: in each row a sample, its nearest training pictures in pixels, and those in the
discriminator's features. The upper half of the rows are the most suspicious samples, much nearer to one training
picture than to the next 49; the lower half are any. Prints the median distances, beside those of unseen pictures, and
how often a sample is nearer than an unseen picture: 0.5 if it copies no more than new pictures do, 1 for copies.
"""

import numpy as np

from nanogan import backend, cli, images
from nanogan.analysis.measures import neighbours
from nanogan.data.named import is_set, load_pictures
from nanogan.disk import writable_folder
from nanogan.games.drawing import draw_z, sample
from nanogan.recipes import experiments, trained

GROUPS = 12  # of duplicates that are shown
GAP = 4  # pixels
AROUND = 50  # neighbours that the nearest is compared with


def parse_args():
    parser = experiments.parser(
        "Show the nearest training pictures of a generator's samples. The paper's section 4.1 (memorising, and "
        "duplicates); its section 6 says why it shows no neighbours itself.",
        out="runs/nearest",
        data="mnist",
        checkpoint="runs/mnist_dcgan/generator.safetensors",
    )
    count = cli.at_least(int, 1, high=1_000_000)
    parser.add_argument(
        "--unseen", type=cli.path, metavar="NAME|PATH", help="pictures not trained on (default: --data's test split)"
    )
    parser.add_argument("--samples", type=count, default=1000, help="that are drawn, and as many unseen pictures")
    parser.add_argument("--shown", type=count, default=10, help="samples in the picture")
    parser.add_argument("--neighbours", type=count, default=4, help="of each, in pixels and in features")
    parser.add_argument(
        "--near",
        type=cli.at_least(float, 0, high=255),
        default=12.0,
        metavar="LEVELS",
        help="near-duplicates differ by at most this, root mean square, of 255; 0: only equal pictures",
    )
    parser.add_argument(
        "--discriminator", type=cli.path, metavar="FILE", help="(default: the one saved with --checkpoint)"
    )
    args = parser.parse_args()
    if args.dry_run:
        args.samples = min(args.samples, 20)
    return args


def main():
    args = parse_args()
    device = backend.get_device(args.device)
    g = trained.generator(args.checkpoint).to(device)
    d = trained.discriminator(args.discriminator, args.checkpoint).to(device)
    out = writable_folder(args.out)
    size = {
        "size": g.image_size,
        "channels": g.channels,
        "seed": args.seed,
        "progress": experiments.progress_bar("reading"),
    }
    seen, _ = load_pictures(args.data, count=200 if args.dry_run else None, **size)
    other = args.unseen or args.data
    split = "test" if args.unseen is None or is_set(args.unseen) else "train"
    unseen, _ = load_pictures(other, split=split, count=args.samples, **size)

    equal = neighbours.duplicates(seen, progress=experiments.progress_bar("equal pictures"))
    groups = equal
    if args.near:
        bar = experiments.progress_bar("near-duplicates")
        groups = neighbours.duplicates(seen, threshold=args.near, progress=bar)
    numbers = {
        "pictures": len(seen),
        "groups_of_equal_pictures": len(equal),
        f"groups_within_{args.near:g}_levels": len(groups),
        "pictures_in_them": sum(map(len, groups)),
        "first_groups": [group[:GROUPS] for group in groups[:GROUPS]],
    }
    if groups:
        pairs = np.array([group[:2] for group in groups[:GROUPS]])
        images.save_grid(out / "duplicates.png", seen[pairs.T.ravel()], columns=len(pairs))

    rng = backend.seeded_rng(args.seed, "nearest")
    z = draw_z(rng, args.samples, g.latent, device=device)
    samples = images.to_uint8(sample(g, z))
    few = min(args.neighbours, len(seen))
    around = min(max(few, AROUND), len(seen))
    columns = []
    for name, embed in (("pixels", neighbours.in_pixels), ("features", neighbours.in_features(d))):
        queries = np.concatenate([samples, unseen])
        bar = experiments.progress_bar(f"nearest in {name}")
        indices, distances = neighbours.nearest(queries, seen, embed=embed, count=around, progress=bar)
        closeness = neighbours.relative(distances)
        own, new = distances[: len(samples), 0], distances[len(samples) :, 0]
        if not columns:
            suspicious = np.argsort(closeness[: len(samples)], kind="stable")
            rows = np.concatenate([suspicious[: -(-args.shown // 2)], np.arange(len(samples))])[: args.shown]
        columns.append(seen[indices[rows, :few].ravel()])
        numbers |= {
            f"distance_samples_{name}": float(np.median(own)),
            f"distance_unseen_{name}": float(np.median(new)),
            f"smallest_distance_samples_{name}": float(own.min()),
            f"smallest_distance_unseen_{name}": float(new.min()),
            f"smallest_relative_samples_{name}": float(closeness[: len(samples)].min()),
            f"smallest_relative_unseen_{name}": float(closeness[len(samples) :].min()),
            f"sample_nearer_than_unseen_{name}": neighbours.copying(own, new),
        }

    blocks = [images.grid(samples[rows], columns=1)]
    blocks += [images.grid(block, columns=few) for block in columns]
    gap = np.full((blocks[0].shape[0], GAP, g.channels), 255, np.uint8)
    sheet = np.concatenate([blocks[0], gap, blocks[1], gap, blocks[2]], axis=1)
    images.save_png(out / "nearest.png", sheet)
    experiments.write_numbers(out / "numbers.json", numbers)
    print(f"pictures: {out / 'nearest.png'}" + (f", {out / 'duplicates.png'}" if groups else ""))
    return 0


if __name__ == "__main__":
    cli.run(main)
