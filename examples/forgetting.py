#!/usr/bin/env python3
"""Have a generator forget to draw something: glasses, a digit, what you put boxes round (section 6.3.1, figure 6).

    python examples/faces_dcgan.py                             train a generator of faces first
    python examples/forgetting.py                              half a minute; look at runs/forgetting/forgetting.png
    python examples/forgetting.py --property smile --negatives without
    python examples/forgetting.py --checkpoint runs/mnist_dcgan/generator.safetensors \\
        --classifier runs/classifier/classifier.safetensors --property 7

Logistic regression finds the maps of a hidden layer that are active where the property is. They are set to zero, and
the same z are drawn again: without all maps of weight above 0, as in the paper, and without the few strongest.
forgetting.png has five rows: before; the paper's rule; as many random maps; the --maps strongest; as many random ones.
Left are samples that have the property, right some that have not.

numbers.json holds, for each number of maps left out, how much was lost and what else changed: what the chosen maps did,
then of random choices of as many the mean, the lowest and the highest. nanogan/analysis/inside/forgetting.py says what
each number is.

With any other generator draw the boxes yourself. The first run writes samples.png, samples with their numbers; write
boxes, in pixels of the picture, into a file {"3": [10, 4, 22, 15], "17": [8, 4, 20, 14], ...}, left, top, right and
bottom, and add --boxes FILE.
"""

import numpy as np

from nanogan import backend, checkpoint, cli, images
from nanogan.analysis.inside import forgetting
from nanogan.analysis.judges import attributes
from nanogan.analysis.judges.classifier import classify, load_classifier
from nanogan.analysis.latent import arithmetic
from nanogan.data.sets.faces import ATTRIBUTES, SIZES
from nanogan.disk import writable_folder
from nanogan.errors import UserError
from nanogan.games.drawing import draw_z
from nanogan.recipes import experiments
from nanogan.recipes.trained import existing

CHECKPOINT = "runs/faces_dcgan/generator.safetensors"
NUMBERED = 100  # samples in samples.png
WITH, WITHOUT = 10, 6  # pictures in a row that have the property, and that have not
GAP = 8  # pixels between them
SMALLEST = 64  # pixels that a picture has at least when it is drawn


def main():
    args = parser().parse_args()
    if args.dry_run:
        args.samples, args.new, args.random = min(args.samples, 100), min(args.new, 60), min(args.random, 2)
    if args.checkpoint == CHECKPOINT and not (args.property or args.classifier or args.boxes):
        args.property = "glasses"
    if args.classifier and args.property is None:
        raise UserError("--classifier judges classes: say with --property which one is to be forgotten")
    if args.boxes and args.negatives == "without":
        raise UserError(
            "boxes drawn by hand are told from elsewhere in the same samples: leave out --negatives without"
        )
    device = backend.get_device(args.device)
    path = existing(args.checkpoint, "generator", script="faces_dcgan.py", flag="--checkpoint")
    g = checkpoint.load_generator(path).to(device)
    layer = layer_of(g, args.convolution)
    by_hand = forgetting.read_boxes(args.boxes, samples=args.samples, size=g.image_size) if args.boxes else None
    judge = Classes(args, g) if args.classifier else Faces(args, g) if args.property else None
    out = writable_folder(args.out)

    rng = backend.seeded_rng(args.seed, "forgetting")
    z, z_new = (draw_z(rng, n, g.latent, device=device) for n in (args.samples, args.new))
    y, y_new = (forgetting.activations(g, each, layer) for each in (z, z_new))
    channels = y.shape[1]
    if args.maps > channels:
        raise UserError(f"--maps expected at most the layer's {channels}, got {args.maps}")
    pictures = forgetting.draw(g, y, layer)
    images.save_png(out / "samples.png", arithmetic.numbered(pictures[:NUMBERED]))
    print(f"samples with their numbers: {out}/samples.png")
    if judge is None and by_hand is None:
        print("choose a --property, or write boxes round what is to be forgotten in some samples and add --boxes FILE")
        return

    # positive and negative: the positions that the regression learns from, bool (N, h, w)
    # boxed and in_boxes: activations, and in which pixels of their pictures the change is the wanted one, (n, H, W)
    # shown: activations of samples that have the property, and of others
    numbers = {"property": args.property, "layer": layer, "channels": channels, "map_size": y.shape[2]}
    if judge:
        numbers |= judge.prepare(args, g)
        seen, seen_new = judge(pictures), judge(forgetting.draw(g, y_new, layer))
        numbers["samples_with_it"] = float(seen_new[:, judge.k].mean())
        shown = split(y_new, seen_new[:, judge.k], args.property)
    if by_hand:
        positive, negative = masks_by_hand(by_hand, len(y), g.image_size, y.shape[2:])
        boxed, in_boxes = taken(y, list(by_hand)), masks_by_hand(by_hand, len(y), g.image_size)[0][list(by_hand)]
        shown = shown if judge else (boxed, y_new)
    else:
        positive, negative = masks_of(judge, seen[:, judge.k], args.negatives, g.image_size, y.shape[2:])
        in_boxes = forgetting.inside(judge.boxes, g.image_size, (g.image_size, g.image_size))
        boxed, in_boxes = shown[0], in_boxes[None].repeat(len(shown[0]), axis=0)

    x, labels = forgetting.examples(y, positive, negative, rng=rng)
    fit = forgetting.logistic_regression(x, labels, l2=args.l2, progress=experiments.progress_bar("regression"))
    by_rule = forgetting.responsible(fit.weights)
    numbers |= {"positions": len(labels), "regression_accuracy": fit.accuracy, "regression_slope": fit.slope}
    numbers |= {"maps_by_rule": len(by_rule), "strongest_maps": by_rule[:16].tolist()}
    boxed_before = forgetting.draw(g, boxed, layer)

    def effect(maps):
        result = forgetting.change(boxed_before, forgetting.draw(g, boxed, layer, without=maps), in_boxes)
        if judge:
            result |= forgetting.rates(seen_new, judge(forgetting.draw(g, y_new, layer, without=maps)), judge.k)
        return result

    counts = sorted({args.maps} | {2**i for i in range(10) if 2**i < channels})
    choices = {"by_rule": by_rule} | {f"{n}_maps": forgetting.responsible(fit.weights, n) for n in counts}
    for name, maps in choices.items():
        progress = experiments.progress_bar(f"without {len(maps)} maps")
        measured = forgetting.beside_random(effect, maps, channels, trials=args.random, rng=rng, progress=progress)
        numbers |= {f"{key}_{name}": [round(float(v), 4) for v in four.values()] for key, four in measured.items()}

    rows = [()]
    for maps in (by_rule, choices[f"{args.maps}_maps"]):
        rows += [maps, rng.choice(channels, len(maps), replace=False)]
    sheets = [sheet(g, layer, some[:n], rows) for some, n in zip(shown, (WITH, WITHOUT), strict=True)]
    gap = np.full((len(sheets[0]), GAP, g.channels), 255, np.uint8)
    images.save_png(out / "forgetting.png", np.concatenate([sheets[0], gap, sheets[1]], axis=1))
    experiments.write_numbers(out / "numbers.json", numbers)
    print(f"picture: {out}/forgetting.png")


def parser():
    result = cli.parser(
        "Have a trained generator forget to draw something (the DCGAN paper, section 6.3.1, figure 6).",
        out="runs/forgetting",
    )
    count = cli.at_least(int, 1, high=20_000)
    add = result.add_argument
    add(
        "--checkpoint",
        default=CHECKPOINT,
        type=cli.path,
        metavar="FILE",
        help="a saved generator, or a run's checkpoint",
    )
    add(
        "--property",
        metavar="NAME",
        help=f"{', '.join(ATTRIBUTES)}, if the checkpoint draws built-in faces (of the default one: glasses); or a "
        "class of --classifier",
    )
    add(
        "--classifier",
        type=cli.path,
        metavar="FILE",
        help="that judges classes: what examples/train_classifier.py wrote",
    )
    add("--boxes", type=cli.path, metavar="FILE", help="boxes drawn by hand, see the head of this script")
    add(
        "--negatives",
        choices=("elsewhere", "without"),
        help="what the boxes' positions are told from: the rest of the same pictures, as in the paper, or the same "
        "boxes in samples without the property (default: elsewhere; without for a class, whose box is the picture)",
    )
    add("--convolution", type=count, metavar="N", help="of G, counted from 1 (default: the last but two)")
    add("--maps", type=count, default=4, metavar="N", help="how many of the strongest forgetting.png leaves out")
    add("--l2", type=cli.at_least(float, 0), default=1e-3, help="the regression's penalty of weights")
    add("--samples", type=count, default=500, metavar="N", help="that the regression learns from")
    add("--new", type=count, default=500, metavar="N", help="other samples, of which the rates are measured")
    add("--random", type=count, default=10, metavar="N", help="random choices of as many maps")
    return result


class Faces:
    """Sees the attributes of built-in faces in pictures: bool (N, 5)."""

    def __init__(self, args, g):
        if args.property not in ATTRIBUTES:
            raise UserError(
                f"--property expected one of {', '.join(ATTRIBUTES)}, or a class with --classifier, got {args.property}"
            )
        if g.channels != 3 or g.image_size not in SIZES:
            raise UserError(
                f"built-in faces have 3 channels and 32 or 64 pixels, {args.checkpoint} draws {g.channels} and "
                f"{g.image_size}: use --classifier, or draw --boxes by hand"
            )
        self.k = ATTRIBUTES.index(args.property)
        self.boxes = [tuple(g.image_size * share for share in box) for box in forgetting.FACE_BOXES[args.property]]

    def prepare(self, args, g):
        """Train on faces whose attributes are known; return how often it is right on others."""
        train, test = (400, 100) if args.dry_run else (8000, 2000)
        self.network, accuracy = attributes.fit_to_faces(
            g.image_size,
            train=train,
            test=test,
            seed=args.seed,
            device=args.device,
            drawing=experiments.progress_bar("drawing faces"),
            progress=experiments.progress_bar("training the classifier"),
        )
        return {"classifier_accuracy": float(accuracy.min())}

    def __call__(self, pictures):
        return attributes.has(self.network, pictures)


class Classes:
    """Sees of which class pictures are: bool (N, classes), one True each."""

    def __init__(self, args, g):
        path = existing(args.classifier, "classifier", script="train_classifier.py", flag="--classifier")
        self.network = load_classifier(path).to(backend.get_device(args.device))
        of = self.network
        if (of.image_size, of.channels) != (g.image_size, g.channels):
            raise UserError(
                f"{args.classifier} is for pictures of {of.image_size} pixels and {of.channels} channels, "
                f"{args.checkpoint} draws {g.image_size} and {g.channels}: python examples/train_classifier.py "
                f"--image-size {g.image_size} --channels {g.channels}"
            )
        if args.property not in map(str, range(of.classes)):
            raise UserError(f"--property expected a class from 0 to {of.classes - 1}, got {args.property}")
        self.k = int(args.property)
        self.boxes = [(0, 0, g.image_size, g.image_size)]

    def prepare(self, args, g):
        return {}

    def __call__(self, pictures):
        _, probabilities = classify(self.network, pictures)
        return np.eye(self.network.classes, dtype=bool)[probabilities.argmax(axis=1)]


def layer_of(g, convolution):
    """The layer that ends ``convolution``, counted from 1; the paper's if None."""
    hidden = forgetting.hidden_layers(g)
    if convolution is None:
        return forgetting.second_highest(g)
    if convolution > len(hidden):
        raise UserError(f"--convolution expected a hidden one of G, from 1 to {len(hidden)}, got {convolution}")
    return hidden[convolution - 1]


def split(y, has, name):
    """Activations of the samples that have the property, and of those that have not."""
    if has.all() or not has.any():
        raise UserError(
            f"{name} was seen in {has.sum()} of {len(has)} samples, some with it and some without were expected: "
            "choose another --property, or add --new"
        )
    return taken(y, np.flatnonzero(has)), taken(y, np.flatnonzero(~has))


def masks_of(judge, has, negatives, size, shape):
    """The positions, of maps of ``shape``, that show a judged property and those that do not: two bool (N, h, w)."""
    box, has = forgetting.inside(judge.boxes, size, shape), has[:, None, None]
    if negatives is None:
        negatives = "without" if box.all() else "elsewhere"
    return has & box, (has & ~box if negatives == "elsewhere" else ~has & box)


def masks_by_hand(boxes, count, size, shape=None):
    """Which positions of ``count`` maps of ``shape`` (pixels if None) are in ``boxes``, {number: boxes}, and which are
    elsewhere in the same samples: two bool (N, h, w)."""
    inside, elsewhere = np.zeros((2, count, *(shape or (size, size))), bool)
    for number, some in boxes.items():
        inside[number] = forgetting.inside(some, size, inside.shape[1:])
        elsewhere[number] = ~inside[number]
    return inside, elsewhere


def taken(y, numbers):
    return y[backend.array_module(y).asarray(numbers)]


def sheet(g, layer, y, rows):
    """The pictures of activations y (N, C, h, w), in a row for each of ``rows``, the maps left out in it."""
    pictures = np.concatenate([images.to_uint8(forgetting.draw(g, y, layer, without=maps)) for maps in rows])
    larger = -(-SMALLEST // g.image_size)
    return images.grid(pictures.repeat(larger, axis=1).repeat(larger, axis=2), columns=len(y))


if __name__ == "__main__":
    cli.run(main)
