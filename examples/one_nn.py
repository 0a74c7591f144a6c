#!/usr/bin/env python3
"""Let the images of a conditional generator teach a nearest-neighbour classifier: the DCGAN paper's 1-NN score.

    python examples/conditional_dcgan.py                    first: a generator, in runs/conditional_dcgan
    python examples/one_nn.py                               some minutes; look at runs/one_nn
    python examples/one_nn.py --one-nn 200000 --mlp-epochs 0          more generated images; no baseline
    --classifier runs/classifier/classifier.safetensors     (examples/train_classifier.py) how often it sees in a
                                                            generated image what was asked for

Prints, and writes to numbers.json, the share of real test images whose nearest image (Euclidean, in pixels) has another
label, when N images teach: real ones; those of the conditional DCGAN; of a GAN of fully connected layers, the paper's
baseline, which is trained here; random pixels. dcgan.png and mlp.png show a row for each class, a column for each z.
A sixth of the training set (MNIST: 10,000, as in the paper) is trained on neither here nor by conditional_dcgan.py;
--judge validation takes it in place of the test set, to compare settings.
"""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np

from nanogan import backend, cli, images, training
from nanogan.analysis.judges.classifier import classify, load_classifier
from nanogan.analysis.measures.one_nn import draw, drawn_parts, errors_at, hold_out, noise_parts, parts_of
from nanogan.data import Loader
from nanogan.data.named import is_set, load_pictures
from nanogan.disk import writable_folder
from nanogan.errors import UserError
from nanogan.games.conditional import ConditionalDCGAN
from nanogan.games.drawing import draw_z
from nanogan.recipes import experiments, trained

DRY_IMAGES, DRY_STEPS = 480, 3
COUNTS = (1000, 10_000, 50_000)  # of images that teach, reported on the way to --one-nn
ASKED = 5000  # generated images that the classifier labels
COLUMNS = 16


def main():
    args = _parser().parse_args()
    device = backend.get_device(args.device)
    if not is_set(args.data):
        raise UserError(
            f"labels and a test split come with data sets, not with the folder {args.data}: use --data mnist"
        )
    g = trained.conditional(args.checkpoint).to(device)
    classifier = None if args.classifier is None else load_classifier(args.classifier).to(device)
    _check(args, g, classifier)
    out = writable_folder(args.out)
    train, train_labels, test, test_labels = _load(args, g)
    classes = 1 + int(max(train_labels.max(), test_labels.max()))
    for name, network in (("checkpoint", g), ("classifier", classifier)):
        if network is not None and network.classes < classes:
            given = getattr(args, name)
            raise UserError(f"{given} knows {network.classes} classes, {args.data} has {classes}: use another --{name}")

    trained_on, held_out = hold_out(len(train))
    generators = {"dcgan": g}
    if args.mlp_epochs:
        generators["mlp"] = train_baseline(train[trained_on], train_labels[trained_on], g, args, out / "mlp")
    if args.judge == "validation":
        teachers, test, test_labels = trained_on, train[held_out], train_labels[held_out]
    else:
        teachers = np.concatenate([trained_on, held_out])

    # ---- what the generated images look like, and what they teach
    shape = g.channels, g.image_size, g.image_size
    for name, generator in generators.items():
        z = draw_z(backend.seeded_rng(args.seed, "fixed noise"), COLUMNS, g.latent)
        sheet = draw(generator, np.tile(z, (g.classes, 1)), np.repeat(np.arange(g.classes), COLUMNS), shape)
        images.save_grid(out / f"{name}.png", sheet, columns=COLUMNS)
    count = DRY_IMAGES if args.dry_run else args.one_nn
    numbers = {"data": args.data, "judge": args.judge, "judged_by": len(test), "trained_on": len(trained_on)}
    sources = {"real": parts_of(train[teachers], train_labels[teachers])}
    sources |= {name: drawn_parts(each, shape, count=count, seed=args.seed) for name, each in generators.items()}
    sources["noise"] = noise_parts(shape, classes=g.classes, count=count, seed=args.seed)
    for name, parts in sources.items():
        parts = experiments.progress_bar(f"1-NN, {name}")(parts)
        for taught, error in errors_at(COUNTS, parts, test, test_labels).items():
            numbers[f"{name} one_nn_error {taught}"] = error
    if classifier is not None:
        asked = {"real": (test, test_labels)}
        for name, generator in generators.items():
            parts = drawn_parts(generator, shape, count=min(count, ASKED), seed=args.seed)
            asked[name] = [np.concatenate(each) for each in zip(*parts, strict=True)]
        for name, (given, wanted) in asked.items():
            _, probabilities = classify(classifier, given, progress=experiments.progress_bar(f"labels, {name}"))
            numbers[f"{name} label_accuracy"] = float((probabilities.argmax(axis=1) == wanted).mean())
    experiments.write_numbers(out / "numbers.json", numbers)
    print(f"images: {', '.join(str(out / f'{name}.png') for name in generators)}")


def train_baseline(pictures, labels, g, args, out):
    """Train fully connected networks in the game that ``g`` was trained in, and return their generator.

    The run is left in the folder ``out``. z and classes are as many as those of ``g``.
    """
    options = ConditionalDCGAN.Options(image_size=g.image_size, latent=g.latent, networks="mlp", lr=args.lr)
    loader = Loader(
        {"images": pictures, "labels": labels},
        batch_size=args.batch_size,
        seed=args.seed,
        drop_last=True,
        device=args.device,
    )
    game = ConditionalDCGAN(options, loader.shapes | {"labels": g.classes}, args.device, args.seed)
    epochs, max_steps = (1, DRY_STEPS) if args.dry_run else (args.mlp_epochs, None)
    print(f"training the baseline of fully connected layers: {out}")
    run = training.Run(out, log_every=min(500, len(loader)), options=vars(args))
    if not training.train(game, loader, run, epochs=epochs, seed=args.seed, max_steps=max_steps):
        raise KeyboardInterrupt  # a half-trained baseline is not to be compared with
    return game.g


def _parser():
    parser = experiments.parser(
        "Teach a nearest-neighbour classifier with the images of a conditional DCGAN (DCGAN paper, supplementary "
        "material: evaluating DCGANs' capability to capture data distributions).",
        out="runs/one_nn",
        data="mnist",
        checkpoint="runs/conditional_dcgan/generator.safetensors",
    )
    count = cli.at_least(int, 1, high=1_000_000)
    parser.add_argument(
        "--mlp-epochs",
        type=cli.at_least(int, 0, high=1_000_000),
        default=2,
        help="rounds through the data, of the GAN of fully connected layers; 0 leaves it out",
    )
    parser.add_argument("--batch-size", type=count, default=32, help="images a step, of that GAN")
    parser.add_argument(
        "--lr", type=cli.at_least(float, 0, above=True, high=1), default=5e-4, help="Adam's, of that GAN"
    )
    parser.add_argument(
        "--one-nn",
        type=cli.at_least(int, 10, high=100_000_000),
        default=50_000,
        metavar="N",
        help="generated images that teach; the paper's best figure is from 10 million",
    )
    parser.add_argument(
        "--judge",
        choices=("test", "validation"),
        default="test",
        help="real images to be classified: the test set, or the sixth of the training set that was not trained on",
    )
    parser.add_argument("--classifier", type=cli.path, metavar="FILE", help="what examples/train_classifier.py wrote")
    return parser


def _load(args, g):
    """Return training images and labels, and test images and labels."""
    options = {"size": g.image_size, "channels": g.channels, "seed": args.seed}
    options["progress"] = experiments.progress_bar("reading")
    few = DRY_IMAGES if args.dry_run else None
    train = load_pictures(args.data, split="train", count=few, **options)
    return *train, *load_pictures(args.data, split="test", count=few or 10_000, **options)


def _check(args, g, classifier):
    """Raise UserError if the classifier is for images of another size, or if g was trained on those that judge."""
    if classifier is not None and (classifier.image_size, classifier.channels) != (g.image_size, g.channels):
        raise UserError(
            f"{args.classifier} is for images of {classifier.image_size} x {classifier.image_size} with "
            f"{classifier.channels} channels, {args.checkpoint} generates {g.image_size} x {g.image_size} with "
            f"{g.channels}: python examples/train_classifier.py --image-size {g.image_size} --channels {g.channels}"
        )
    if args.judge == "validation" and _trained_on_all(Path(args.checkpoint)):
        raise UserError(
            f"{args.checkpoint} was trained on the whole training set, none of which can judge it: use --judge test, "
            "or train one without --train-on-all"
        )


def _trained_on_all(path):
    """Whether options.json says so, which a run leaves beside its generator and above its checkpoints."""
    for folder in path.parents[:2]:
        with suppress(OSError, ValueError, AttributeError):
            if json.loads((folder / "options.json").read_text(encoding="utf-8")).get("train_on_all"):
                return True
    return False


if __name__ == "__main__":
    cli.run(main)
