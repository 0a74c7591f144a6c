"""What a judge says of a game's samples, beside real images: how good they are, or of which class."""

import numpy as np

from nanogan import backend
from nanogan.analysis.measures.classes import class_metric
from nanogan.analysis.measures.quality import Quality
from nanogan.recipes.datasets import load_test
from nanogan.recipes.judging import can_judge, judge

SAMPLES = 2000


def measure_samples(args, columns):
    """Return measured(game), the numbers of :class:`nanogan.analysis.measures.quality.Quality`, for recipes.run.

    Samples are those that --generate would write, of ``game.exports``' first network; the same z after each epoch. They
    are compared with test images, or with the training images if there is no test split; what as many other real images
    score is printed.
    Returns None, and says why, if there is no judge for such images.
    """
    images = columns["images"]
    if not can_judge(args, columns):
        return None
    classifier, count = judge(args, columns), 64 if args.dry_run else SAMPLES
    images, _ = load_test(args, 5 * count) or (images, None)
    mixed = backend.seeded_rng(0, "real images of a measure").permutation(len(images))  # MNIST's first are easier
    quality = Quality(classifier, images[mixed[:count]])
    if len(others := mixed[count : 2 * count]) == count:
        told = ", ".join(f"{name} {value:.4g}" for name, value in quality.of(images[others]).items())
        print(f"{count} other real images: {told}")
    device = backend.get_device(args.device)

    def measured(game):
        network, rng = next(iter(game.exported().values())), backend.seeded_rng(args.seed, "measure")
        return quality.of(game.generate(network, quality.count, game.options, rng, device))

    return measured


def measure_classes(args, columns):
    """Return measured(game), the numbers of :func:`nanogan.analysis.measures.classes.class_metric`, for recipes.run.

    Samples are those that --generate would write, of class 0, 1, ..., and again; the same z after each epoch. Returns
    None, and says why, if there is no judge for such images.
    """
    if not can_judge(args, columns):
        return None
    classifier, labels = judge(args, columns), np.asarray(columns["labels"])
    chosen = np.sort(backend.seeded_rng(args.seed, "real images").permutation(len(labels))[:SAMPLES])
    metric = class_metric(classifier, columns["images"][chosen], labels[chosen])

    def measured(game):
        rng = backend.seeded_rng(args.seed, "samples")
        generated = game.generate(game.g, len(chosen), game.options, rng, game.device)
        return metric(generated, np.arange(len(chosen)) % game.classes)

    return measured
