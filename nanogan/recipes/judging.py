"""The judge of a run: a classifier of real images, which knows nothing of the generator whose samples it looks at."""

import time
from pathlib import Path

import numpy as np

from nanogan import backend, checkpoint, cli
from nanogan.analysis.judges.classifier import Classifier, classify, load_classifier, train_classifier
from nanogan.errors import UserError
from nanogan.recipes.datasets import load_test
from nanogan.recipes.flags import progress_bar

IMAGES, EPOCHS, WIDTH = 20_000, 3, 16  # that a judge is trained on; MNIST: 98% right after ten seconds
TEST_IMAGES = 5000


def add_judge(parser, *, otherwise="a small one is trained before the run"):
    """Add the flag --judge; ``otherwise``: what happens without it."""
    parser.add_argument(
        "--judge",
        type=cli.path,
        metavar="FILE",
        help="a classifier of examples/train_classifier.py that judges the samples after each epoch; without this flag "
        + otherwise,
    )


def can_judge(args, columns):
    """Whether :func:`judge` has a classifier for ``columns``; says why if it has none."""
    size = columns["images"].shape[1]
    if args.judge is not None or ("labels" in columns and size % 4 == 0):
        return True
    why = "the images have no labels" if "labels" not in columns else "a judge needs a size that is a multiple of 4"
    print(f"samples are not judged: {why}; --judge FILE names a trained classifier")
    return False


def judge(args, columns):
    """Return the classifier in the file ``args.judge``, or one trained on ``columns``, {"images", "labels"}.

    The trained one depends on the images and the seed alone, is saved as ``args.out``/judge.safetensors when the run
    begins, and its accuracy on the test set is printed if there is one. Raises UserError if there are no labels, or if
    the classifier in the file expects other images, or knows fewer classes.
    """
    images, labels = columns["images"], columns.get("labels")
    _, size, _, channels = images.shape
    device = backend.get_device(args.device)
    if args.judge is not None:
        network = load_classifier(args.judge).to(device)
        try:
            network.check(np.empty((0, channels, size, size)))
        except UserError as error:
            raise UserError(f"{error}, or leave --judge out") from None
        classes = 0 if labels is None else int(np.max(labels)) + 1
        if network.classes < classes:
            raise UserError(
                f"{args.judge} knows {network.classes} classes, and the images are of {classes}: train a classifier of "
                "these images, or leave --judge out"
            )
        return network
    if labels is None:
        raise UserError("a judge expected images with labels, got images alone: name a trained classifier with --judge")
    start, rng = time.perf_counter(), backend.seeded_rng(args.seed, "judge")
    network = Classifier(
        image_size=size, channels=channels, width=WIDTH, classes=max(10, int(np.max(labels)) + 1), rng=rng
    )
    network.to(device)
    chosen = np.sort(rng.permutation(len(images))[:IMAGES])
    epochs = 1 if args.dry_run else EPOCHS
    progress = progress_bar("training the judge")
    train_classifier(
        network, images[chosen], np.asarray(labels)[chosen], epochs=epochs, seed=args.seed, progress=progress
    )
    args.when_begun.append(lambda: checkpoint.save(Path(args.out) / "judge.safetensors", network))
    told = f"judge: a classifier, trained on {len(chosen)} images in {time.perf_counter() - start:.0f} s"
    print(told + _accuracy(args, network))
    return network


def _accuracy(args, network):
    """Say how often ``network`` is right on the test set of ``args.data``; nothing if there is none."""
    tested = load_test(args, 200 if args.dry_run else TEST_IMAGES)
    if tested is None:
        return ""
    images, labels = tested
    _, probabilities = classify(network, images)
    return f"; right on {np.mean(probabilities.argmax(axis=1) == labels):.1%} of {len(images)} test images"
