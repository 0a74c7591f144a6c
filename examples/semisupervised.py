#!/usr/bin/env python3
"""Train a classifier with 100 labelled digits and 60,000 without labels: the discriminator of a GAN.

    python examples/semisupervised.py                                train on MNIST; look at runs/semisupervised
    python examples/semisupervised.py --labels 20                    2 labelled digits of each class
    python examples/semisupervised.py --generator unconditional      G is given z alone
    python examples/semisupervised.py --g-loss features              feature matching, in place of the usual loss of G
    python examples/semisupervised.py --generate 100 --out digits    with a trained G
    python -m benchmarks.games semisupervised --seeds 0 1 2 3 4      test accuracy over five seeds

About 2 minutes on two CPU cores: 94 to 96% right, where the labels alone give 75 to 78%. Before the run the same
network is trained on the labelled digits alone; after each epoch the test accuracies of both are printed, and written
to measures.csv, and the share of G's digits that are of the class asked for, by a judge that knows all labels. D and G
never read the labels of other images. docs/games/semisupervised.md shows what came out.
Without MNIST and without a network it trains on built-in digits, and says so; --class-weight 0.5 suits them better.

T. Salimans et al., arXiv:1606.03498, sections 3.1 and 5; A. Odena, arXiv:1606.01583.
"""

import numpy as np

from nanogan import backend, checkpoint, cli, data, images, recipes
from nanogan.games.semisupervised import SemiSupervisedGAN
from nanogan.models import semisupervised
from nanogan.ops import cross_entropy_backward, cross_entropy_forward
from nanogan.optim import Adam, supervised_step

ALONE_STEPS = 500  # of the classifier that learns from the labelled images alone; more change nothing


def load_data(args):
    """Return the name of the data set and its columns: all images, and ``args.labels`` of them with their labels."""
    enough = None
    if args.dry_run:  # some of each class
        enough = max(recipes.images_needed(args), min(10 * args.labels, 60_000))
    name, columns = recipes.load_data(args, enough)
    return name, data.few_labels(columns["images"], columns.get("labels"), args.labels, seed=args.seed)


def measure(args, columns):
    """Return what gives the test accuracy of a game's D beside that of the labelled images alone."""
    tested = recipes.load_test(args, 200 if args.dry_run else None)
    if tested is None:
        print(f"{args.data} has no test images: no accuracy is measured")
        return None
    alone = accuracy(trained_alone(args, columns), *tested)
    print(
        f"trained on the {args.labels} labelled images alone, D is right on {alone:.2%} of {len(tested[0])} test images"
    )
    obeyed = None
    if args.generator == "conditional":  # the judge knows all labels; D and G learn nothing of it
        obeyed = recipes.measure_classes(args, recipes.load_data(args)[1])

    def measured(game):
        numbers = {"test accuracy": accuracy(game.averaged_d, *tested), "labels alone": alone}
        return numbers if obeyed is None else numbers | obeyed(game)

    return measured


def trained_alone(args, columns):
    """Return the discriminator of the same sizes, trained as a classifier of the labelled images: no GAN."""
    x, labels = columns["labelled"].samples, columns["labels"][: args.labels]
    _, size, _, channels = x.shape
    rng = backend.seeded_rng(args.seed, "labels alone")
    network = semisupervised.discriminator(
        image_size=size, channels=channels, width=args.width, classes=labels.max() + 1, rng=rng
    ).to(backend.get_device(args.device))
    optimizer, xp = Adam(network, lr=1e-3), network.array_module
    x, labels, steps = (
        images.from_uint8(xp.asarray(x), np.float32),
        xp.asarray(labels),
        4 if args.dry_run else ALONE_STEPS,
    )
    for step in range(steps):
        optimizer.lr = 1e-3 * (1 - step / steps)
        supervised_step(network, optimizer, x, labels, cross_entropy_forward, cross_entropy_backward)
    return network


def accuracy(network, tested, labels, batch_size=1000):
    """Return the share of images, uint8 (N, H, W, C), whose class has the largest of the network's logits."""
    right, xp = 0, network.array_module
    for i in range(0, len(tested), batch_size):
        x = images.from_uint8(xp.asarray(tested[i : i + batch_size]), np.float32)
        logits, _ = network.forward(x, train=False)
        right += int((logits.argmax(axis=1) == xp.asarray(labels[i : i + batch_size])).sum())
    return right / len(tested)


def main():
    parser = recipes.parser(
        "Train a semi-supervised GAN, whose discriminator learns to classify from few labels and many images, or "
        "generate with one. T. Salimans et al., arXiv:1606.03498, sections 3.1 and 5; A. Odena, arXiv:1606.01583.",
        out="runs/semisupervised",
        game=SemiSupervisedGAN,
        epochs=10,
        batch_size=100,
    )
    recipes.add_judge(parser)
    recipes.add_data(parser, classes=True).add_argument(
        "--labels",
        type=cli.at_least(int, 1, high=1_000_000),
        default=100,
        metavar="N",
        help="images whose labels are used, equally many of each class, chosen by --seed",
    )
    return recipes.run(
        parser,
        load_data,
        fixed=(*recipes.DATA_FIXED, "labels"),
        load=checkpoint.generator_loader(semisupervised, "semi-supervised generator"),
        measure=measure,
    )


if __name__ == "__main__":
    cli.run(main)
