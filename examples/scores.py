#!/usr/bin/env python3
"""Score a trained generator against real pictures that it never saw.

    python examples/mnist_dcgan.py             first: a generator, in runs/mnist_dcgan
    python examples/train_classifier.py        first: the classifier whose features are compared, in runs/classifier
    python examples/scores.py                  about a minute; look at runs/scores

Prints, and writes to numbers.json, the scores of three sources beside one half of the test pictures: "real" is the
other half, what a perfect generator would get; "generator" is the one asked for; "noise" are random pixels. Neither G
nor the classifier has seen any of the test pictures. See nanogan/analysis/measures/scores.py for each score.
Draws scores.png: two rows of drawn pictures that lie nearest to real ones, two of those that lie farthest, two of real
ones that nothing drawn comes near.

one_nn_error, in pixels, is the paper's 1-NN score where "real" training pictures teach. For "generator" it is not: the
paper's drew each digit on demand; this one draws any, which the classifier then labels.
"""

import numpy as np

from nanogan import backend, checkpoint, cli, images
from nanogan.analysis.judges.classifier import classify, load_classifier
from nanogan.analysis.measures import scores
from nanogan.data.named import is_set, load_pictures
from nanogan.disk import writable_folder
from nanogan.errors import UserError
from nanogan.games.drawing import draw_z, sample
from nanogan.recipes import experiments
from nanogan.recipes.trained import existing

DRY_PICTURES = 64
COLUMNS = 16


def main():
    args = parser().parse_args()

    device = backend.get_device(args.device)
    g = checkpoint.load_generator(existing(args.checkpoint, flag="--checkpoint")).to(device)
    path = existing(args.classifier, "classifier", script="train_classifier.py", flag="--classifier")
    classifier = load_classifier(path).to(device)
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
    options["progress"] = experiments.progress_bar("reading")
    samples, teachers = (DRY_PICTURES, DRY_PICTURES) if args.dry_run else (args.samples, args.one_nn)
    test, test_labels = load_pictures(args.data, split="test", count=2 * samples, **options)
    train, train_labels = load_pictures(args.data, split="train", count=teachers, **options)
    count, teachers = len(test) // 2, len(train)
    rng = backend.seeded_rng(args.seed, "scores")
    order = rng.permutation(len(test))  # MNIST's first 5,000 are easier than its last: other people wrote them
    reference, others = test[order[:count]], test[order[count : 2 * count]]

    z = draw_z(rng, max(count, teachers), g.latent)
    starts = experiments.progress_bar("drawing")(range(0, len(z), 256))
    drawn = np.concatenate([images.to_uint8(sample(g, backend.to_device(z[i : i + 256], device))) for i in starts])
    noise = rng.integers(0, 256, drawn.shape, dtype=np.uint8)

    numbers = {"data": args.data, "pictures": count, "one_nn_pictures": teachers}
    real, _ = classify(classifier, reference)
    for name, pictures in (("real", others), ("generator", drawn), ("noise", noise)):
        features, probabilities = classify(classifier, pictures, progress=experiments.progress_bar(f"scoring {name}"))
        if name == "real":
            pixels, labels = train, train_labels
        else:
            pixels, labels = pictures[:teachers], probabilities[:teachers].argmax(axis=1)
        features, probabilities = features[:count], probabilities[:count]
        precision, recall = scores.precision_recall(real, features, k=args.k)
        values = {
            "inception_score": scores.inception_score(probabilities),
            "frechet_distance": scores.frechet_distance(real, features),
            "kid": scores.kid(real, features),
            "precision": precision,
            "recall": recall,
            "one_nn_error": scores.one_nn_error(pixels, labels, test, test_labels),
        }
        numbers |= {f"{name} {score}": value for score, value in values.items()}
        if name == "generator":
            _draw(out / "scores.png", reference, drawn, real, features)
    experiments.write_numbers(out / "numbers.json", numbers)
    print(f"picture: {out / 'scores.png'}")


def parser():
    result = experiments.parser(
        "Score a trained generator: inception-style score, Fréchet distance, KID, precision and recall, 1-NN "
        "(DCGAN paper, supplementary material: evaluating DCGANs' capability to capture data distributions).",
        out="runs/scores",
        data="mnist",
        checkpoint="runs/mnist_dcgan/generator.safetensors",
    )
    result.add_argument(
        "--classifier",
        default="runs/classifier/classifier.safetensors",
        type=cli.path,
        metavar="FILE",
        help="what examples/train_classifier.py wrote",
    )
    result.add_argument(
        "--samples",
        type=cli.at_least(int, 64, high=60_000),
        default=5000,
        help="pictures of each kind, or as many as there are; values from other numbers do not compare",
    )
    result.add_argument(
        "--one-nn",
        type=cli.at_least(int, 64, high=60_000),
        default=10_000,
        metavar="N",
        help="pictures that teach the 1-NN classifier; the paper's best figures are from more",
    )
    result.add_argument("--k", type=cli.at_least(int, 1, high=60), default=3, help="precision's and recall's neighbour")
    return result


def _draw(path, reference, drawn, real_features, drawn_features):
    """Draw the nearest and the farthest drawn pictures, and the real ones that are farthest from all drawn."""
    _, distances = scores.nearest(drawn_features, real_features)
    _, uncovered = scores.nearest(real_features, drawn_features)
    some = 2 * COLUMNS
    order, missed = np.argsort(distances), np.argsort(-uncovered)
    sheet = np.concatenate([drawn[order[:some]], drawn[order[::-1][:some]], reference[missed[:some]]])
    images.save_grid(path, sheet, columns=COLUMNS)


if __name__ == "__main__":
    cli.run(main)
