#!/usr/bin/env python3
"""Score a trained generator against real pictures that it never saw.

    python examples/mnist_dcgan.py             first: a generator, in runs/mnist_dcgan
    python examples/train_classifier.py        first: the classifier whose features are compared, in runs/classifier
    python examples/scores.py                  about a minute; look at runs/scores

Prints, and writes to numbers.json, five scores of three sources: "real" are training pictures, what a perfect generator
would get; "generator" is the one asked for; "noise" are random pixels. See nanogan/analysis/scores.py for each score.
Draws scores.png: two rows of drawn pictures that lie nearest to real ones, two of those that lie farthest, two of real
ones that nothing drawn comes near.

one_nn_error is the paper's 1-NN score for "real". For "generator" it is not: the paper's generator drew each digit on
demand, ours draws any, which the classifier then labels.
"""

from pathlib import Path

import numpy as np

from nanogan import backend, checkpoint, cli, images, training
from nanogan.analysis import common, scores
from nanogan.analysis.classifier import classify, load_classifier
from nanogan.data.named import is_set, load_pictures
from nanogan.errors import UserError
from nanogan.files import writable_folder

DRY_PICTURES = 64
COLUMNS = 16


def main():
    parser = common.parser(
        "Score a trained generator: inception-style score, Fréchet distance, KID, precision and recall, 1-NN "
        "(DCGAN paper, supplementary material: evaluating DCGANs' capability to capture data distributions).",
        out="runs/scores",
        data="mnist",
        checkpoint="runs/mnist_dcgan/generator.safetensors",
    )
    parser.add_argument(
        "--classifier",
        default="runs/classifier/classifier.safetensors",
        metavar="FILE",
        help="what examples/train_classifier.py wrote",
    )
    parser.add_argument(
        "--samples",
        type=cli.at_least(int, 64, high=60_000),
        default=10_000,
        help="pictures of each kind, or as many as there are; values from other numbers do not compare",
    )
    parser.add_argument("--k", type=cli.at_least(int, 1, high=60), default=3, help="precision's and recall's neighbour")
    args = parser.parse_args()

    device = backend.get_device(args.device)
    g = checkpoint.load_generator(_existing(args.checkpoint, "checkpoint", "examples/mnist_dcgan.py")).to(device)
    classifier = load_classifier(_existing(args.classifier, "classifier", "examples/train_classifier.py"))
    classifier = classifier.to(device)
    if (classifier.image_size, classifier.channels) != (g.image_size, g.channels):
        raise UserError(
            f"{args.classifier} is for pictures of {classifier.image_size} x {classifier.image_size} and "
            f"{classifier.channels} channels, {args.checkpoint} draws {g.image_size} x {g.image_size} and "
            f"{g.channels}: python examples/train_classifier.py --image-size {g.image_size} --channels {g.channels}"
        )
    if not is_set(args.data):
        raise UserError(f"scores expected a data set with a test split, got the folder {args.data}: use --data mnist")
    out = writable_folder(args.out)
    options = {"size": g.image_size, "channels": g.channels, "seed": args.seed}
    options["count"] = DRY_PICTURES if args.dry_run else args.samples
    options["progress"] = common.progress_bar("reading")
    test, test_labels = load_pictures(args.data, split="test", **options)
    train, train_labels = load_pictures(args.data, split="train", **options)
    count = min(len(test), len(train))
    test, test_labels, train, train_labels = (each[:count] for each in (test, test_labels, train, train_labels))

    rng = backend.seeded_rng(args.seed, "scores")
    z = rng.standard_normal((count, g.latent), dtype=np.float32)
    starts = common.progress_bar("drawing")(range(0, count, 256))
    drawn = np.concatenate(
        [images.to_uint8(training.sample(g, backend.to_device(z[i : i + 256], device))) for i in starts]
    )
    noise = rng.integers(0, 256, test.shape, dtype=np.uint8)

    numbers = {"data": args.data, "pictures": count}
    real, _ = classify(classifier, test)
    for name, pictures, labels in (("real", train, train_labels), ("generator", drawn, None), ("noise", noise, None)):
        features, probabilities = classify(classifier, pictures, progress=common.progress_bar(f"scoring {name}"))
        labels = probabilities.argmax(axis=1) if labels is None else labels
        precision, recall = scores.precision_recall(real, features, k=args.k)
        values = {
            "inception_score": scores.inception_score(probabilities),
            "frechet_distance": scores.frechet_distance(real, features),
            "kid": scores.kid(real, features),
            "precision": precision,
            "recall": recall,
            "one_nn_error": scores.one_nn_error(pictures, labels, test, test_labels),
        }
        numbers |= {f"{name} {score}": value for score, value in values.items()}
        if name == "generator":
            _draw(out / "scores.png", test, drawn, real, features)
    common.write_numbers(out / "numbers.json", numbers)
    print(f"picture: {out / 'scores.png'}")


def _existing(path, kind, script):
    if not Path(path).is_file():
        raise UserError(f"there is no {kind} {path}: train one first, python {script}, or name one with --{kind}")
    return path


def _draw(path, test, drawn, real_features, drawn_features):
    """Draw the nearest and the farthest drawn pictures, and the real ones that are farthest from all drawn."""
    _, distances = scores.nearest(drawn_features, real_features)
    _, uncovered = scores.nearest(real_features, drawn_features)
    some = 2 * COLUMNS
    order, missed = np.argsort(distances), np.argsort(-uncovered)
    sheet = np.concatenate([drawn[order[:some]], drawn[order[::-1][:some]], test[missed[:some]]])
    images.save_grid(path, sheet, columns=COLUMNS)


if __name__ == "__main__":
    cli.run(main)
