#!/usr/bin/env python3
"""Train the classifier in whose feature space generators are scored.

    python examples/train_classifier.py                 MNIST: about a minute; runs/classifier/classifier.safetensors
    python examples/train_classifier.py --data digits   the built-in digits, without a network
    python examples/scores.py                           then: the scores of runs/mnist_dcgan/generator.safetensors

Prints its accuracy on the test set, which it has not seen (MNIST: 99%), and draws the pictures that it gets wrong. The
same seed gives the same weights on the same machine.
"""

import numpy as np

from nanogan import backend, checkpoint, cli, images
from nanogan.analysis.judges.classifier import Classifier, classify, train_classifier
from nanogan.data.named import is_set, load_pictures
from nanogan.disk import writable_folder
from nanogan.errors import UserError
from nanogan.recipes import experiments

DRY_PICTURES = 256


def main():
    parser = experiments.parser(
        "Train the classifier in whose feature space examples/scores.py compares pictures (DCGAN paper, supplementary "
        "material: evaluating DCGANs' capability to capture data distributions).",
        out="runs/classifier",
        data="mnist",
    )
    count = cli.at_least(int, 1, high=1_000_000)
    parser.add_argument("--epochs", type=count, default=5, help="rounds through the data")
    parser.add_argument("--image-size", type=count, default=28, help="pixels, a multiple of 4")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=1, help="1: grey, 3: colour")
    parser.add_argument("--width", type=count, default=32, help="maps of the first convolution")
    args = parser.parse_args()

    if not is_set(args.data):
        raise UserError(f"a classifier expected a data set with labels, got the folder {args.data}: use --data mnist")
    device = backend.get_device(args.device)
    shape = {"image_size": args.image_size, "channels": args.channels, "width": args.width}
    Classifier(**shape)  # a wrong size is told before anything is read or written
    out = writable_folder(args.out)
    sets = [
        load_pictures(
            args.data,
            size=args.image_size,
            channels=args.channels,
            split=split,
            count=DRY_PICTURES if args.dry_run else (10_000 if split == "test" else None),
            seed=args.seed,
            progress=experiments.progress_bar(f"reading {split}"),
        )
        for split in ("train", "test")
    ]
    (pictures, labels), (test, test_labels) = sets
    classes = max(10, int(labels.max()) + 1)  # the built-in faces have 32, one for each combination of attributes
    network = Classifier(rng=backend.seeded_rng(args.seed, "weights"), classes=classes, **shape).to(device)

    loss = train_classifier(
        network,
        pictures,
        labels,
        epochs=1 if args.dry_run else args.epochs,
        seed=args.seed,
        progress=experiments.progress_bar("training"),
    )
    _, probabilities = classify(network, test, progress=experiments.progress_bar("testing"))
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != test_labels)
    if len(wrong):
        images.save_grid(out / "mistakes.png", test[wrong[:64]])
    checkpoint.save(out / "classifier.safetensors", network)
    experiments.write_numbers(
        out / "numbers.json",
        {
            "data": args.data,
            "train_pictures": len(pictures),
            "test_pictures": len(test),
            "test_accuracy": 1 - len(wrong) / len(test),
            "last_epoch_loss": loss,
        },
    )
    print(f"classifier: {out / 'classifier.safetensors'}")


if __name__ == "__main__":
    cli.run(main)
