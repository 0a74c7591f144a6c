#!/usr/bin/env python3
"""Train a DCGAN that draws the digit it is asked for, and let its drawings teach a classifier: the 1-NN score.

    python examples/conditional_dcgan.py                    MNIST, some minutes; look at runs/conditional_dcgan
    python examples/conditional_dcgan.py --epochs 5 --mlp-epochs 10              what docs/experiments tells of
    python examples/conditional_dcgan.py --data digits      the built-in digits, without a network
    python examples/conditional_dcgan.py --checkpoint runs/conditional_dcgan/generator.safetensors --one-nn 200000
                                                            more drawings of the one that was trained
    --classifier runs/classifier/classifier.safetensors     (examples/train_classifier.py) how often it sees in a
                                                            drawing what was asked for

Prints, and writes to numbers.json, the share of real test pictures whose nearest picture (Euclidean, in pixels) has
another label, when N pictures teach: real ones; drawings of the conditional DCGAN; of a GAN of fully connected layers,
the paper's baseline; random pixels. Draws dcgan.png and mlp.png: a row for each class, a column for each z.
A sixth of the training set (MNIST: 10,000, as in the paper) is not trained on; --judge validation takes it in
place of the test set, to compare settings.
"""

import numpy as np
from tqdm import tqdm

from nanogan import backend, checkpoint, cli, images
from nanogan.analysis import common
from nanogan.analysis.judges.classifier import classify, load_classifier
from nanogan.analysis.measures.one_nn import draw, drawn_parts, errors_at, noise_parts, parts_of
from nanogan.data.named import is_set, load_pictures
from nanogan.disk import writable_folder
from nanogan.errors import TrainingDiverged, UserError
from nanogan.games.drawing import draw_z
from nanogan.models import conditional
from nanogan.optim import Adam
from nanogan.training import adversarial_step

DRY_PICTURES, DRY_STEPS = 480, 3
COUNTS = (1000, 10_000, 50_000)  # of pictures that teach, told on the way to --one-nn
ASKED = 5000  # drawings that the classifier labels
COLUMNS = 16


def main():
    args = _parser().parse_args()
    device = backend.get_device(args.device)
    if not is_set(args.data):
        raise UserError(f"labels come with data sets, not with the folder {args.data}: use --data mnist")
    saved = None if args.checkpoint is None else checkpoint.load_conditional(args.checkpoint).to(device)
    classifier = None if args.classifier is None else load_classifier(args.classifier).to(device)
    _check_sizes(args, checkpoint=saved and saved.network, classifier=classifier)
    out = writable_folder(args.out)
    pictures, labels, seen, test, test_labels = _load(args)
    classes = int(labels.max()) + 1
    for name, network in (("checkpoint", saved), ("classifier", classifier)):
        if network is not None and network.classes < classes:
            given = getattr(args, name)
            raise UserError(f"{given} knows {network.classes} classes, {args.data} has {classes}: use another --{name}")
    classes = classes if saved is None else saved.classes

    sizes = {"classes": classes, "rng": backend.seeded_rng(args.seed, "weights")}
    game = pictures[:seen], labels[:seen], args
    generators = {"dcgan": saved}
    if saved is None:
        shape = {"image_size": args.image_size, "channels": args.channels, "width": args.width, **sizes}
        g, d = conditional.generator(latent=args.latent, **shape), conditional.discriminator(**shape)
        train("dcgan", g.to(device), d.to(device), *game, epochs=args.epochs, path=out / "generator.safetensors")
        generators["dcgan"] = g
    if args.mlp_epochs:
        g, d = conditional.mlp_pair(latent=args.latent, pixels=pictures[0].size, **sizes)
        train("mlp", g.to(device), d.to(device), *game, epochs=args.mlp_epochs, flat=True)
        generators["mlp"] = g

    # ---- what the drawings look like, and what they teach
    shape = args.channels, args.image_size, args.image_size
    for name, g in generators.items():
        z = draw_z(backend.seeded_rng(args.seed, "fixed noise"), COLUMNS, g.latent)
        sheet = draw(g, np.tile(z, (classes, 1)), np.repeat(np.arange(classes), COLUMNS), shape)
        images.save_grid(out / f"{name}.png", sheet, columns=COLUMNS)
    count = DRY_PICTURES if args.dry_run else args.one_nn
    numbers = {"data": args.data, "judge": args.judge, "judged_by": len(test), "trained_on": seen}
    sources = {"real": parts_of(pictures[: len(pictures) if args.judge == "test" else seen], labels)}
    sources |= {name: drawn_parts(g, shape, count=count, seed=args.seed) for name, g in generators.items()}
    sources["noise"] = noise_parts(shape, classes=classes, count=count, seed=args.seed)
    for name, parts in sources.items():
        parts = common.progress_bar(f"1-NN, {name}")(parts)
        for taught, error in errors_at(COUNTS, parts, test, test_labels).items():
            numbers[f"{name} one_nn_error {taught}"] = error
    if classifier is not None:
        asked = {"real": (test, test_labels)}
        for name, g in generators.items():
            parts = drawn_parts(g, shape, count=min(count, ASKED), seed=args.seed)
            asked[name] = [np.concatenate(each) for each in zip(*parts, strict=True)]
        for name, (given, wanted) in asked.items():
            _, probabilities = classify(classifier, given, progress=common.progress_bar(f"labels, {name}"))
            numbers[f"{name} label_accuracy"] = float((probabilities.argmax(axis=1) == wanted).mean())
    common.write_numbers(out / "numbers.json", numbers)
    print(f"pictures: {', '.join(str(out / f'{name}.png') for name in generators)}")


def train(name, g, d, pictures, labels, args, *, epochs, flat=False, path=None):
    """Play the game with pictures, uint8 (N, H, W, C), and their labels; write g to ``path`` after each epoch.

    The drawn pictures of a step are asked for the labels of its real ones, so that both occur equally often.
    ``flat``: for networks that take a picture as one pixel of many channels.
    """
    opt_g, opt_d = (Adam(network, lr=args.lr, betas=(0.5, 0.999)) for network in (g, d))
    noise = backend.seeded_rng(args.seed, f"noise of {name}")
    steps = len(pictures) // args.batch_size
    epochs, steps = (1, min(steps, DRY_STEPS)) if args.dry_run else (epochs, steps)
    for step in common.progress_bar(f"training {name}")(range(epochs * steps)):
        epoch, i = divmod(step, steps)
        if i == 0:
            order = backend.seeded_rng(args.seed, f"order of epoch {epoch}").permutation(len(pictures))
        chosen = order[i * args.batch_size : (i + 1) * args.batch_size]
        real = pictures[chosen].transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1  # (B, C, H, W)
        real = real.reshape(len(real), -1, 1, 1) if flat else real
        hot = conditional.one_hot(labels[chosen], g.classes)  # (B, classes)
        z = conditional.join(draw_z(noise, len(real), g.latent), hot)  # (B, latent + classes)
        real = conditional.with_maps(real, hot)  # (B, C + classes, H, W)
        real, z = (backend.to_device(each, args.device) for each in (real, z))
        result = adversarial_step(g, d, opt_g, opt_d, real, z)
        if i + 1 == steps:
            loss_d, loss_g = float(result.loss_d), float(result.loss_g)
            if not np.isfinite(loss_d + loss_g):
                raise TrainingDiverged(f"the losses of {name} are no longer finite numbers: try a lower --lr")
            tqdm.write(f"{name}: epoch {epoch + 1} of {epochs}  Loss_D: {loss_d:.4f}  Loss_G: {loss_g:.4f}")
            if path is not None:
                checkpoint.save(path, g)


def _parser():
    parser = common.parser(
        "Train a conditional DCGAN and teach a nearest-neighbour classifier with its drawings (DCGAN paper, "
        "supplementary material: evaluating DCGANs' capability to capture data distributions).",
        out="runs/conditional_dcgan",
        data="mnist",
    )
    count = cli.at_least(int, 1, high=1_000_000)
    parser.add_argument("--epochs", type=count, default=2, help="rounds through the data, of the DCGAN")
    parser.add_argument(
        "--mlp-epochs",
        type=cli.at_least(int, 0, high=1_000_000),
        default=2,
        help="of the GAN of fully connected layers; 0 leaves it out",
    )
    parser.add_argument("--batch-size", type=cli.at_least(int, 2, high=1_000_000), default=32, help="pictures a step")
    parser.add_argument("--lr", type=cli.at_least(float, 0, above=True, high=1), default=5e-4, help="Adam's")
    parser.add_argument("--latent", type=count, default=100, help="numbers in z")
    parser.add_argument("--width", type=count, default=32, help="channels of the DCGAN's largest map")
    parser.add_argument("--image-size", type=count, default=28, help="pixels; cifar10's are 32")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=1, help="1: grey, 3: colour")
    parser.add_argument(
        "--one-nn",
        type=cli.at_least(int, 10, high=100_000_000),
        default=50_000,
        metavar="N",
        help="drawings that teach; the paper's best figure is from 10 million",
    )
    parser.add_argument(
        "--judge", choices=("test", "validation"), default="test", help="real pictures that are to be told"
    )
    parser.add_argument("--checkpoint", metavar="FILE", help="a saved conditional generator, in place of training one")
    parser.add_argument("--classifier", metavar="FILE", help="what examples/train_classifier.py wrote")
    return parser


def _load(args):
    """Return training pictures and labels, how many of them are trained on, and the pictures and labels that judge."""
    options = {"size": args.image_size, "channels": args.channels, "seed": args.seed}
    options["progress"] = common.progress_bar("reading")
    few = DRY_PICTURES if args.dry_run else None
    pictures, labels = load_pictures(args.data, split="train", count=few, **options)
    order = backend.seeded_rng(args.seed, "held out").permutation(len(pictures))  # some sets are sorted by class
    pictures, labels = pictures[order], labels[order]
    seen = len(pictures) - len(pictures) // 6
    if seen < max(6, args.batch_size):
        raise UserError(
            f"there are {seen} pictures to train on, {max(6, args.batch_size)} or more were expected: use more, or a "
            "smaller --batch-size"
        )
    if args.judge == "validation":
        return pictures, labels, seen, pictures[seen:], labels[seen:]
    test, test_labels = load_pictures(args.data, split="test", count=few or 10_000, **options)
    return pictures, labels, seen, test, test_labels


def _check_sizes(args, **networks):
    """Raise UserError if a network that was given is for pictures of another size than those asked for."""
    for name, network in networks.items():
        if network and (network.image_size, network.channels) != (args.image_size, args.channels):
            raise UserError(
                f"{getattr(args, name)} is for pictures of {network.image_size} x {network.image_size} with "
                f"{network.channels} channels: add --image-size {network.image_size} --channels {network.channels}, "
                f"or give another --{name}"
            )


if __name__ == "__main__":
    cli.run(main)
