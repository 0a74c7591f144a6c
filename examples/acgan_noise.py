#!/usr/bin/env python3
"""Does an ACGAN help to classify noisy images? Four classifiers of one network, trained on the same labelled images.

    python examples/acgan_noise.py                       1,000 images of MNIST: 2 minutes on two CPU cores
    python examples/acgan_noise.py --images 60000        all of them
    python examples/acgan_noise.py --seed 1              other images, weights and noise

    alone    the trunk and class head of ACGAN's discriminator, trained without a GAN
    acgan    the same two networks, trained as a part of an ACGAN (A. Odena et al., arXiv:1610.09585, section 3)
    samples  as alone, with as many images again in each batch that the trained ACGAN's generator made
    noise    as alone, with Gaussian noise of 0.5 on the images: what one would do without a GAN

All start from the same weights and take the same number of steps, with the same real images, optimiser and dropout.
Prints, and writes to runs/acgan_noise/numbers.json, the share of test images that each names right when noise of
several sizes is added to them (pixels go from -1 to 1). noisy.png shows test images, a row for each size.
docs/games/acgan.md has the results of three seeds.
"""

import itertools

import numpy as np

from nanogan import backend, cli, images, recipes
from nanogan.backend import channels_last
from nanogan.data import Loader
from nanogan.disk import writable_folder
from nanogan.errors import UserError
from nanogan.games.acgan import ACGAN
from nanogan.games.drawing import draw_noise, sample, with_noise
from nanogan.models.conditional import join, one_hot
from nanogan.ops import cross_entropy_backward, cross_entropy_forward
from nanogan.optim import Adam, supervised_step
from nanogan.recipes import experiments
from nanogan.training import Plan

SIGMAS = (0.0, 0.25, 0.5, 0.75, 1.0)
TAUGHT = 0.5  # the noise that the last classifier learns with
SHOWN = 16
DRY_IMAGES, DRY_STEPS = 200, 4


def main():
    args = parser().parse_args()
    options = ACGAN.Options(width=args.width, dropout=args.dropout, lr=args.lr, lr_decay="linear")
    args.image_size, args.channels = options.image_size, 1
    out = writable_folder(args.out)
    name, columns = recipes.load_data(args, DRY_IMAGES if args.dry_run else None)
    if "labels" not in columns:
        raise UserError(f"classifiers expected images with labels, those of {name} have none: use --data mnist")
    test, labels = recipes.load_split(args, "test", DRY_IMAGES if args.dry_run else None)
    count, steps = (DRY_IMAGES, DRY_STEPS) if args.dry_run else (args.images, args.steps)
    chosen = backend.seeded_rng(args.seed, "images").permutation(len(columns["labels"]))[:count]
    loader = Loader(
        {column: values[chosen] for column, values in columns.items()},
        batch_size=min(args.batch_size, len(chosen)), seed=args.seed, drop_last=True, device=args.device,
        classes=1 + int(max(columns["labels"].max(), labels.max())),
    )  # fmt: skip
    print(f"{name}: {len(chosen)} images to learn from, {len(test)} to be tested with", flush=True)

    game = ACGAN(options, loader.shapes, args.device, args.seed)
    for at, batches in steps_of(loader, steps, "acgan"):
        game.reseed(args.seed, at.step)
        game.step(**game.draw(batches, backend.seeded_rng(args.seed, f"step {at.step}"), at))
    classifiers = {"alone": None, "acgan": game.d.classifier, "samples": None, "noise": None}
    for kind in ("alone", "samples", "noise"):
        classifiers[kind] = learned(kind, game, loader, steps, args.seed)

    noisy = {sigma: noisy_images(test, sigma, args.seed) for sigma in SIGMAS}
    grid = np.concatenate([x[:SHOWN].clip(-1, 1) for x in noisy.values()])
    images.save_grid(out / "noisy.png", images.to_uint8(grid), columns=SHOWN)
    numbers = {"data": name, "images": len(chosen), "test_images": len(test), "steps": steps, "seed": args.seed}
    for kind, network in classifiers.items():
        numbers |= {f"{kind} {sigma}": accuracy(network, x, labels, game.device) for sigma, x in noisy.items()}
    experiments.write_numbers(out / "numbers.json", numbers)


def steps_of(loader, steps, label):
    """Yield (At, batches) of ``steps`` steps."""
    plan = Plan(loader, 1, epochs=-(-steps // len(loader)))
    return experiments.progress_bar(label, steps)(itertools.islice(plan.steps(loader), steps))


def learned(kind, game, loader, steps, seed):
    """Return a classifier of the networks and first weights of ``game``, trained as ``kind`` says."""
    start = ACGAN(game.options, loader.shapes, game.device, seed)
    network, xp = start.d.classifier, start.d.array_module
    optimizer = Adam(network, lr=game.options.lr, betas=game.opt_d.betas)
    for at, batches in steps_of(loader, steps, kind):
        start.reseed(seed, at.step)  # dropout
        rng = backend.seeded_rng(seed, f"{kind}, step {at.step}")
        drawn = game.draw(batches, rng, at)
        x, labels, optimizer.lr = drawn["real"], drawn["labels"], drawn["lr"]
        if kind == "samples":
            wanted = drawn["wanted"]
            fake = sample(game.g, join(drawn["z"], one_hot(wanted, game.classes)))
            x, labels = channels_last(xp.concatenate([x, fake])), xp.concatenate([labels, wanted])
        elif kind == "noise":
            x = with_noise(x, draw_noise(rng, x.shape, TAUGHT, game.device))
        supervised_step(network, optimizer, x, labels, cross_entropy_forward, cross_entropy_backward)
    return network


def noisy_images(pixels, sigma, seed):
    """uint8 (N, H, W, C) -> (N, C, H, W) from -1 to 1, with noise from N(0, sigma^2), which is not cut off there."""
    x = images.from_uint8(pixels)
    return with_noise(x, draw_noise(backend.seeded_rng(seed, f"noise {sigma}"), x.shape, sigma))


def accuracy(network, x, labels, device, batch_size=250):
    """The share of images x (N, C, H, W) whose largest logit is that of their label."""
    right = 0
    for i in range(0, len(x), batch_size):
        logits, _ = network.forward(backend.to_device(x[i : i + batch_size], device), train=False)
        right += int((backend.to_numpy(logits).argmax(axis=1) == labels[i : i + batch_size]).sum())
    return right / len(x)


def parser():
    result = cli.parser(
        "Classify noisy images with ACGAN's class head (A. Odena et al., arXiv:1610.09585, section 3), and with the "
        "same network trained without a GAN, with an ACGAN's samples, or with noise. python examples/acgan_noise.py",
        out="runs/acgan_noise",
    )
    recipes.add_data(result, classes=True)
    count = cli.at_least(int, 2, high=1_000_000)
    result.add_argument("--images", type=count, default=1000, help="labelled images to learn from, chosen at random")
    result.add_argument("--steps", type=count, default=3000, help="of each network")
    result.add_argument("--batch-size", type=count, default=32, help="real images a step")
    result.add_argument("--width", type=count, default=32, help="channels of the largest map")
    result.add_argument("--lr", type=cli.at_least(float, 0, above=True), default=1e-3, help="Adam's first rate")
    result.add_argument("--dropout", type=cli.at_least(float, 0, high=0.99), default=0.25, help="of D's trunk")
    return result


if __name__ == "__main__":
    cli.run(main)
