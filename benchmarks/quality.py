"""Does nanogan's training end where torch's does? Scores of both, from the same weights, pictures and z.

    python -m benchmarks.quality --classifier runs/classifier/classifier.safetensors --out FILE.md

For each seed both train the example's DCGAN for as many steps, from the same weights, with the same batches and the
same z. The losses agree at first; then rounding, which differs, grows as in any chaotic system, and two networks come
out. Their pictures, drawn from the same z by one and the same function, are scored as examples/scores.py does. What
training ends in varies with the seed; a difference between the libraries counts only beside that.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine, tables, torch_dcgan
from nanogan import backend, cli, images
from nanogan.analysis.judges.classifier import classify, load_classifier
from nanogan.analysis.measures import scores
from nanogan.cli import at_least
from nanogan.data import Loader
from nanogan.data.named import load_pictures
from nanogan.disk import writable_folder
from nanogan.errors import UserError
from nanogan.models import dcgan
from nanogan.optim import Adam
from nanogan.progress import bar
from nanogan.training import adversarial_step, sample

SHAPE = {"image_size": 28, "channels": 1, "width": 32}  # the example's network
LATENT, BATCH, LR, BETAS = 100, 32, 5e-4, (0.5, 0.999)  # without noise, which the example adds to the images of D
SCORES = ("inception_score", "frechet_distance", "kid", "precision", "recall")


def train(library, pictures, seed, *, epochs, max_steps=None, shape=SHAPE, batch=BATCH, lr=LR, progress=iter):
    """Train the example's DCGAN with ``library`` ("nanogan" or "torch"); return nanogan's generator and all losses.

    The weights, the order of pictures, uint8 (N, H, W, C), and z depend on ``seed`` alone. Losses are D's and G's,
    float64 (steps, 2).
    """
    rng = backend.seeded_rng(seed, "weights")
    g, d = dcgan.generator(latent=LATENT, rng=rng, **shape), dcgan.discriminator(rng=rng, **shape)
    if library == "nanogan":
        opt_g, opt_d = Adam(g, lr=lr, betas=BETAS), Adam(d, lr=lr, betas=BETAS)
    else:
        theirs = [torch_dcgan.copy_of(network).to(memory_format=torch.channels_last) for network in (g, d)]
        optimizers = [torch.optim.Adam(network.parameters(), lr=lr, betas=BETAS) for network in theirs]
    loader = Loader(pictures, batch_size=batch, seed=seed)
    noise, losses = backend.seeded_rng(seed, "noise"), []
    batches = (batch["images"] for epoch in range(1, epochs + 1) for batch in loader.epoch(epoch))
    steps = epochs * len(loader)
    for _ in progress(range(steps if max_steps is None else min(steps, max_steps))):
        real = next(batches)
        z = noise.standard_normal((len(real), LATENT), dtype=np.float32)
        if library == "nanogan":
            result = adversarial_step(g, d, opt_g, opt_d, real, z)
        else:
            result = torch_dcgan.step(*theirs, *optimizers, torch.from_numpy(real), torch.from_numpy(z), freeze_d=True)
        losses.append([float(value) for value in result[:2]])
    if library == "torch":
        g.load_state_dict({name: tensor.numpy() for name, tensor in theirs[0].state_dict().items()})
    return g, np.array(losses)


def score(g, classifier, real, seed):
    """Return {score: value} of as many pictures of ``g`` as there are rows of ``real``, features of real pictures."""
    z = backend.seeded_rng(seed, "scores").standard_normal((len(real), LATENT), dtype=np.float32)
    features, probabilities = classify(classifier, images.to_uint8(sample(g, z)))
    precision, recall = scores.precision_recall(real, features)
    values = scores.inception_score(probabilities), scores.frechet_distance(real, features), scores.kid(real, features)
    return dict(zip(SCORES, (*values, precision, recall), strict=True))


def table(found, agreed):
    """Return rows of a table: found {(library, seed): {score: value}}, agreed {seed: first steps that agree}."""
    seeds = sorted({seed for _, seed in found})
    head = "| score | library | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean | difference of means |"
    rows = [head, "|---" * (len(seeds) + 4) + "|"]
    for name in SCORES:
        values = {lib: [found[lib, seed][name] for seed in seeds] for lib in ("nanogan", "torch")}
        difference = statistics.mean(values["nanogan"]) - statistics.mean(values["torch"])
        told = f"{difference:+.3g}"
        if len(seeds) > 1:
            variances = [statistics.variance(each) / len(seeds) for each in values.values()]
            told += f"; {abs(difference) / (sum(variances) or 1) ** 0.5:.2f} standard errors"
        for library, each in values.items():
            numbers = " | ".join(f"{value:.4g}" for value in each)
            rows.append(
                f"| {name if library == 'nanogan' else ''} | {library} | {numbers} | {statistics.mean(each):.4g} | "
                f"{told if library == 'nanogan' else ''} |"
            )
    steps = ", ".join(f"{agreed[seed]} (seed {seed})" for seed in seeds)
    return [*rows, "", f"First steps whose losses agree to 1%: {steps}."]


def steps_that_agree(losses, others, tolerance=0.01):
    """Return after how many steps two runs' losses, (steps, 2), first differ by more than ``tolerance``, relative."""
    apart = (np.abs(losses - others) > tolerance * np.abs(others)).any(axis=1)
    return int(apart.argmax()) if apart.any() else len(losses)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    count = at_least(int, 1)
    parser.add_argument("--classifier", default="runs/classifier/classifier.safetensors", type=cli.path, metavar="FILE")
    parser.add_argument(
        "--data", type=cli.path, default="mnist", help="a data set with a test split, 28 x 28, grey (default: mnist)"
    )
    parser.add_argument("--seeds", type=at_least(int, 0), nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--epochs", type=count, default=5, help="default: 5, the example's")
    parser.add_argument("--steps", type=count, help="stop after so many")
    parser.add_argument("--samples", type=at_least(int, 64), default=5000, help="that are scored (default: 5000)")
    parser.add_argument("--out", type=cli.path, metavar="FILE", help="write the table there too (Markdown)")
    args = parser.parse_args()
    try:
        if args.out:
            writable_folder(Path(args.out).parent)
        classifier = load_classifier(args.classifier)
        classifier.check(np.empty((0, SHAPE["channels"], SHAPE["image_size"], SHAPE["image_size"])))
        options = {"size": SHAPE["image_size"], "channels": SHAPE["channels"]}
        pictures, _ = load_pictures(args.data, **options)
        test, _ = load_pictures(args.data, split="test", count=10_000, **options)
        Loader(pictures, batch_size=BATCH)  # says if there are too few
    except UserError as error:
        parser.error(str(error))
    lines = machine.about()
    # any of them: MNIST's first 5,000 are easier than its last, other people wrote them
    test = test[backend.seeded_rng(0, "scores").permutation(len(test))[: args.samples]]
    real, _ = classify(classifier, test)
    found, agreed, steps = {}, {}, 0
    for seed in args.seeds:
        losses = {}
        for library in ("nanogan", "torch"):

            def progress(steps, label=f"seed {seed}, {library}"):
                return bar(steps, desc=label, leave=False)

            g, losses[library] = train(
                library, pictures, seed, epochs=args.epochs, max_steps=args.steps, progress=progress
            )
            found[library, seed] = score(g, classifier, real, seed)
            steps = len(losses[library])
            print(f"seed {seed}, {library}: {found[library, seed]}", flush=True)
        agreed[seed] = steps_that_agree(losses["nanogan"], losses["torch"])
    lines += [f"- {args.data}, {steps} steps of {BATCH}; {len(real)} drawn pictures beside as many of the test set", ""]
    text = "\n".join(lines + table(found, agreed)) + "\n"
    print(text)
    tables.save(args.out, "What training ends in", text)


if __name__ == "__main__":
    cli.run(main)
