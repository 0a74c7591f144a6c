#!/usr/bin/env python3
"""Calculate with z: smiling - neutral + neutral with short hair (sections 6.3.2 of the paper, figures 7 and 8).

    python examples/faces_dcgan.py                                   train a generator of faces first
    python examples/latent_arithmetic.py                             half a minute; look at runs/latent_arithmetic

A classifier trained on the built-in faces, whose attributes are known, chooses three samples for each concept and
judges the results. Writes samples.png (samples with their numbers), arithmetic.png (a row for each attribute: the
samples and the picture of their mean z, for a - b + c; then the nine results) and turn.png (faces turned along an
axis). Prints, and writes to numbers.json, how often the result has the attribute, beside a random vector of equal
length in place of a - b; the same for means of 1, 10 and 30 samples; how many faces the axis turns.

With any other generator, choose the samples yourself, by their numbers in samples.png:

    python examples/latent_arithmetic.py --checkpoint runs/mnist_dcgan/generator.safetensors
    python examples/latent_arithmetic.py --checkpoint ... -a 3 17 40 -b 8 21 33 -c 5 60 71
"""

import numpy as np

from nanogan import backend, checkpoint, cli, images
from nanogan.analysis.judges import attributes
from nanogan.analysis.latent import arithmetic
from nanogan.data.sets.faces import ATTRIBUTES, SIZES
from nanogan.disk import writable_folder
from nanogan.errors import UserError
from nanogan.games.drawing import draw_z, sample
from nanogan.recipes import experiments
from nanogan.recipes.trained import existing

NUMBERED = 100  # samples in samples.png
# What each row of arithmetic.png gains, and the attribute in which the two others differ: the paper's first example is
# smiling woman - neutral woman + neutral man
ROWS = (
    ("smile", "long_hair"),
    ("glasses", "long_hair"),
    ("long_hair", "glasses"),
    ("looks_right", "smile"),
    ("round", "glasses"),
)


def main():
    parser = cli.parser(
        "Calculate with the z of a trained generator (the DCGAN paper, section 6.3.2, figures 7 and 8).",
        out="runs/latent_arithmetic",
    )
    count = cli.at_least(int, 1, high=100_000)
    parser.add_argument(
        "--checkpoint",
        default="runs/faces_dcgan/generator.safetensors",
        type=cli.path,
        metavar="FILE",
        help="a saved generator, or a run's checkpoint",
    )
    parser.add_argument("--samples", type=count, default=2000, help="to choose from")
    parser.add_argument("--trials", type=count, default=100, help="calculations for each attribute")
    for name in "abc":
        parser.add_argument(
            f"-{name}",
            nargs="+",
            type=cli.at_least(int, 0),
            metavar="N",
            help=f"numbers of the samples whose mean is {name} in a - b + c",
        )
    args = parser.parse_args()
    chosen = [args.a, args.b, args.c]
    if any(chosen) and not all(chosen):
        parser.error("a - b + c expected samples for each of the three: give -a, -b and -c")
    device = backend.get_device(args.device)
    path = existing(args.checkpoint, "generator", script="faces_dcgan.py", flag="--checkpoint")
    g = checkpoint.load_generator(path).to(device)
    samples = min(args.samples, 200) if args.dry_run else args.samples
    if all(chosen) and max(map(max, chosen)) >= samples:
        raise UserError(f"samples are numbered from 0 to {samples - 1}, got {max(map(max, chosen))}: add --samples")
    out = writable_folder(args.out)

    rng = backend.seeded_rng(args.seed, "arithmetic")
    z = draw_z(rng, samples, g.latent, device=device)
    pictures = sample(g, z)
    images.save_png(out / "samples.png", arithmetic.numbered(pictures[:NUMBERED]))
    print(f"samples with their numbers: {out}/samples.png")
    if all(chosen):
        images.save_grid(out / "arithmetic.png", row(g, z, pictures, chosen, rng), columns=sum(map(len, chosen)) + 15)
        print(f"a - b + c: {out}/arithmetic.png")
    elif g.channels == 3 and g.image_size in SIZES:
        measure(args, g, z, pictures, out, rng)
    else:
        print(
            f"choose some and add -a, -b and -c: {cli.command('--checkpoint', args.checkpoint)} -a 0 1 2 -b ... -c ..."
        )


def row(g, z, pictures, chosen, rng):
    """Return the pictures of one calculation, uint8 (N, H, W, C): a and its mean - b and its mean + c ... = nine."""
    width, channels = g.image_size, g.channels
    pictures, tiles = images.to_uint8(pictures), []
    for numbers, after in zip(chosen, "-+=", strict=True):
        mean = arithmetic.taken(z, numbers).mean(axis=0)[None]
        tiles += [pictures[numbers], images.to_uint8(sample(g, mean))]
        tiles += [arithmetic.sign(after, width, channels)[None]]
    result = arithmetic.formula(*(arithmetic.taken(z, numbers) for numbers in chosen))
    return np.concatenate([*tiles, images.to_uint8(sample(g, arithmetic.with_neighbours(result, rng)))])


def measure(args, g, z, pictures, out, rng):
    """Train the classifier, let it choose and judge, and write what comes of it."""
    train, test = (400, 100) if args.dry_run else (8000, 2000)
    trials = 4 if args.dry_run else args.trials
    network, accuracy = attributes.fit_to_faces(
        g.image_size,
        train=train,
        test=test,
        seed=args.seed,
        device=args.device,
        drawing=experiments.progress_bar("drawing faces"),
        progress=experiments.progress_bar("training the classifier"),
    )

    def judge(some):
        return attributes.has(network, some)

    values = judge(pictures)
    numbers = {"classifier_accuracy": float(accuracy.min()), "samples": len(z), "trials": trials}
    numbers |= {f"samples_with_{name}": float(values[:, k].mean()) for k, name in enumerate(ATTRIBUTES)}

    for count in experiments.progress_bar("calculating")((3, 1, 10, 30)):
        rates = [
            arithmetic.rates(g, judge, z, values, k, count=count, trials=trials, rng=rng)
            for k in range(len(ATTRIBUTES))
        ]
        if count == 3:
            numbers |= {
                f"{name}_{key}": rate
                for name, each in zip(ATTRIBUTES, rates, strict=True)
                for key, rate in each.items()
            }
        for key in ("success", "random", "kept", "random_kept"):
            known = [each[key] for each in rates if each[key] is not None]
            numbers[f"mean_of_{count}_{key}"] = float(np.mean(known)) if known else None

    rows = []
    for gained, given in ROWS:
        chosen = arithmetic.concepts(values, ATTRIBUTES.index(gained), ATTRIBUTES.index(given), count=3, rng=rng)
        if chosen is None:
            print(f"too few samples have {gained} and {given} in all combinations: arithmetic.png leaves that row out")
        else:
            rows.append(row(g, z, pictures, chosen, rng))
    if rows:
        images.save_grid(out / "arithmetic.png", np.concatenate(rows), columns=len(rows[0]))
    turned = turn(g, judge, z, values, out, rng)
    numbers |= turned
    experiments.write_numbers(out / "numbers.json", numbers)
    written = ["samples.png"] + ["arithmetic.png"] * bool(rows) + ["turn.png"] * bool(turned)
    print(f"pictures: {', '.join(str(out / name) for name in written)}")


def turn(g, judge, z, values, out, rng, *, average=4, axes=40):
    """Write turn.png, and return how many samples an axis between means of ``average`` samples turns."""
    attribute = ATTRIBUTES.index("looks_right")
    right, left = np.flatnonzero(values[:, attribute]), np.flatnonzero(~values[:, attribute])
    if min(len(right), len(left)) < average:
        print(f"too few samples look to one of the sides: no {out}/turn.png")
        return {}
    rates = []
    for _ in range(axes):
        towards, away = (
            arithmetic.taken(z, rng.choice(side, average, replace=False)).mean(axis=0) for side in (right, left)
        )
        axis = towards - away
        rates.append(arithmetic.turn_rates(g, judge, z[:100], axis, attribute, rng=rng))
    ways = arithmetic.turned(z[:8], axis, np.linspace(-1, 1, 9))  # along the last axis
    images.save_grid(out / "turn.png", sample(g, ways.reshape(-1, g.latent)), columns=9)
    return {f"turn_{key}": float(np.mean([each[key] for each in rates])) for key in rates[0]}


if __name__ == "__main__":
    cli.run(main)
