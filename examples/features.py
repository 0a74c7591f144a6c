#!/usr/bin/env python3
"""Classify pictures with what a discriminator learned without labels (section 5 of the paper).

    python examples/mnist_dcgan.py                              train one first
    python examples/features.py                                 a few minutes; look at runs/features/features.png
    python examples/features.py --pictures 60000 --choosing 10 --draws 100           the paper's numbers: an hour
    python examples/features.py --train cifar10 --width 32 --data cifar10 --epochs 15     with the paper's networks
    python examples/features.py --train svhn --data FOLDER --epochs 10               FOLDER holds train_32x32.mat, ...

Of every picture, D's activations in all layers, max-pooled to 4 x 4 each and laid one after the other, are what a
linear L2-SVM is taught with. Two protocols: all labels, the paper's for CIFAR-10; and 100 labels of each class, drawn
many times, its own for SVHN. Beside it, with the same SVM: D with its weights untrained, raw pixels, and k-means
features. --train plays the game first, on all pictures without their labels, and saves D for --checkpoint. Prints the
test errors, writes them to numbers.json. Needs scikit-learn: pip install -e ".[analysis]"
"""

import copy
import sys
from functools import partial

import numpy as np

from nanogan import backend, checkpoint, cli, images, init
from nanogan.analysis.inside import features as analysis
from nanogan.data.named import is_set, load_pictures
from nanogan.disk import writable_folder
from nanogan.errors import UserError
from nanogan.games.drawing import draw_z, sample
from nanogan.images import plots as plot
from nanogan.models import paper
from nanogan.recipes import experiments, trained

NAMES = {"d": "D's features", "untrained": "the same, D untrained", "k-means": "k-means", "pixels": "raw pixels"}
THE_PAPERS = {"d": "17.2% CIFAR-10, 22.48% SVHN", "k-means": "19.4% CIFAR-10, one layer"}
PATCHES = 100_000  # that k-means finds its centres among
FROZEN = 10_000  # pictures whose batches give BatchNorm's statistics


def main():
    parser = experiments.parser(
        "Teach a linear classifier with a discriminator's features. The paper's section 5 (empirical validation of "
        "DCGANs capabilities), tables 1 and 2.",
        out="runs/features",
        data="mnist",
        checkpoint="runs/mnist_dcgan/discriminator.safetensors",
    )
    count = cli.at_least(int, 1, high=1_000_000)
    parser.add_argument("--pictures", type=count, default=5000, help="that have labels, or as many as there are")
    parser.add_argument("--test", type=count, default=10_000, help="pictures that the SVM is tested on, at most")
    parser.add_argument("--per-class", type=count, default=100, metavar="N", help="labels, where they are few")
    parser.add_argument("--choosing", type=count, default=2, metavar="N", help="draws of them that choose C; paper: 10")
    parser.add_argument("--draws", type=count, default=10, metavar="N", help="draws that are tested; the paper's: 100")
    parser.add_argument(
        "--centres", type=cli.at_least(int, 1, high=PATCHES), default=400, help="of k-means: a quarter of its features"
    )
    parser.add_argument("--kinds", nargs="+", choices=NAMES, default=list(NAMES), help="features to compare")
    game = parser.add_argument_group("training D first, in place of --checkpoint")
    game.add_argument("--train", choices=paper.PLANS, help="the paper's network for this set; 32 x 32")
    game.add_argument("--width", type=count, help="maps of its first convolution (default: the paper's, 128 or 64)")
    game.add_argument("--channels", type=int, choices=(1, 3), default=3, help="3: colour, 1: grey")
    game.add_argument("--epochs", type=count, default=5, help="rounds through the data")
    game.add_argument("--batch-size", type=count, default=128, help="pictures a step")
    args = parser.parse_args()
    if args.train and args.checkpoint != parser.get_default("checkpoint"):
        parser.error("--train makes a discriminator and --checkpoint names one: leave one of them out")
    for name in ("width", "channels", "epochs", "batch_size"):
        if not args.train and getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} is of a game that is played first: add --train")
    if args.dry_run:
        args.pictures, args.test, args.per_class, args.choosing, args.draws, args.centres = 300, 100, 5, 1, 2, 16

    if not is_set(args.data):
        raise UserError(f"a classifier expected a data set with labels, got the folder {args.data}: use --data mnist")
    device = backend.get_device(args.device)
    if args.train:
        rng = backend.seeded_rng(args.seed, "weights of d")
        d = paper.discriminator(args.train, channels=args.channels, width=args.width, rng=rng)
    else:
        d = trained.any_discriminator(args.checkpoint)
    d.to(device)
    out = writable_folder(args.out)
    load = partial(load_pictures, args.data, size=d.image_size, channels=d.channels, seed=args.seed)
    analysis.sklearn("svm")  # if it is missing, this says so before anything takes long
    if args.train:
        bar = experiments.progress_bar("reading the pictures to train with")
        unlabelled, _ = load(count=2 * args.batch_size if args.dry_run else None, progress=bar)
        train(args, d, unlabelled, device, out)
    train_set, test_set = (
        load(split=split, count=n, progress=experiments.progress_bar(f"reading {split}"))
        for split, n in (("train", args.pictures), ("test", args.test))
    )
    print(f"{args.data}: {len(train_set[0])} labelled pictures, {len(test_set[0])} to test")

    untaught = set(test_set[1].tolist()) - set(train_set[1].tolist())
    if untaught:
        names = ", ".join(map(str, sorted(untaught)))
        print(f"only test pictures are of class {names}: no classifier can tell them", file=sys.stderr)

    numbers = {"data": args.data, "pictures": len(train_set[0]), "test_pictures": len(test_set[0])}
    for kind in args.kinds:
        encode = encoder(kind, args, d, train_set[0])
        x, test = analysis.scaled(encode(train_set[0]), encode(test_set[0]))
        numbers[f"{kind}_features"] = x.shape[1]
        results = measure(args, NAMES[kind], x, test, train_set[1], test_set[1])
        numbers |= {f"{kind}_{protocol}_{key}": v for protocol, each in results.items() for key, v in each.items()}
    draw(args, numbers, out / "features.png")
    experiments.write_numbers(out / "numbers.json", numbers)
    print(f"\n{table(args, numbers)}\npicture: {out / 'features.png'}")


def train(args, d, pictures, device, out):
    """Play the game on pictures without labels; save D and what G draws at the end."""
    bar = experiments.progress_bar("training D against G")
    options = {"epochs": 1 if args.dry_run else args.epochs, "batch_size": args.batch_size, "seed": args.seed}
    g = analysis.train(d, pictures, device=device, progress=bar, **options)
    checkpoint.save(out / "discriminator.safetensors", d)
    z = draw_z(backend.seeded_rng(args.seed, "samples"), 64, g.latent, device=device)
    images.save_grid(out / "samples.png", sample(g, z))
    print(f"D, for --checkpoint: {out / 'discriminator.safetensors'}; what G drew: {out / 'samples.png'}")


def encoder(kind, args, d, train_pictures):
    """Return what turns pictures into rows, (N, M); what it has to learn, it learns from ``train_pictures``."""
    if kind == "pixels":
        return analysis.pixels
    bar = experiments.progress_bar(f"features: {NAMES[kind]}")
    if kind == "k-means":
        patches = 2000 if args.dry_run else PATCHES
        return partial(
            analysis.KMeans(train_pictures, count=args.centres, patches=patches, seed=args.seed).features, progress=bar
        )
    if kind == "untrained":
        d = init.dcgan_(copy.deepcopy(d), backend.seeded_rng(args.seed, "untrained"))
    return partial(analysis.features, analysis.frozen(d, train_pictures[:FROZEN]), progress=bar)


def measure(args, name, x, test, labels, test_labels):
    """Return {"all": ..., "few": ...}: what the two protocols give for features x (N, M) and test (T, M)."""
    order = backend.seeded_rng(args.seed, "validation").permutation(len(x))
    hold, rest = np.split(order, [min(10_000, len(x) // 5)])
    few = analysis.few_labels(
        x[rest],
        labels[rest],
        (x[hold], labels[hold]),
        (test, test_labels),
        per_class=args.per_class,
        choosing=args.choosing,
        draws=args.draws,
        seed=args.seed,
        progress=experiments.progress_bar(f"{name}, few labels"),
    )
    bar = experiments.progress_bar(f"{name}, all labels")
    return {"all": analysis.all_labels(x, labels, test, test_labels, seed=args.seed, progress=bar), "few": few}


def table(args, numbers):
    """Return the test errors as a table, in words."""
    few = f"{args.per_class} labels a class"
    lines = [f"{'test errors':24}{'features':>9}{'all labels':>12}{few:>22}   the paper"]
    for kind in args.kinds:
        error, spread = numbers[f"{kind}_few_error"], numbers[f"{kind}_few_spread"]
        lines.append(
            f"{NAMES[kind]:24}{numbers[f'{kind}_features']:9}{numbers[f'{kind}_all_error']:12.2%}"
            f"{f'{error:.2%} +- {spread:.2%}':>22}   {THE_PAPERS.get(kind, '')}"
        )
    return "\n".join(lines)


def draw(args, numbers, path):
    """Draw the test errors as bars."""
    groups = {
        "test error, all labels": [(NAMES[kind], numbers[f"{kind}_all_error"], 0) for kind in args.kinds],
        f"test error, {args.per_class} labels a class": [
            (NAMES[kind], numbers[f"{kind}_few_error"], numbers[f"{kind}_few_spread"]) for kind in args.kinds
        ],
    }
    plot.save_bars(path, groups)


if __name__ == "__main__":
    cli.run(main)
