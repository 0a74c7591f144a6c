"""What the example's training ends in with other settings, and how long it takes: how its defaults were found.

    python -m benchmarks.recipe --classifier runs/classifier/classifier.safetensors --seeds 0 1 2 --out FILE.md

Each candidate trains the example's DCGAN on as many images, and 5,000 generated digits are scored beside 5,000 of the
test set, as examples/scores.py does. Beside them torch, with the settings of pytorch/examples' DCGAN. ``--jobs 2`` has
two of them train side by side, each on one thread. Times count what the process computed, whatever ran beside it.
"""

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import machine, processes, quality, tables
from nanogan import backend, cli
from nanogan.analysis.judges.classifier import classify, load_classifier
from nanogan.cli import at_least
from nanogan.data import Loader
from nanogan.data.named import load_pictures
from nanogan.disk import writable_folder
from nanogan.games.dcgan import DCGAN, DCGANOptions
from nanogan.games.game import At

TORCH = "torch, pytorch/examples' settings: batch 64, lr 2e-4"
FORMER = {"batch_size": 32, "lr": 5e-4, "instance_noise": 0.0}  # the example's defaults before this was measured
DEFAULT = {"batch_size": 64, "lr": 2e-3, "instance_noise": 0.3}  # the defaults of examples/mnist_dcgan.py
CHANGES = (
    {"instance_noise": 0.0},
    {"instance_noise": 0.5},
    {"batch_size": 32, "lr": 1e-3},
    {"batch_size": 128},
    {"lr": 1e-3},
    {"d_width": 16},
    {"label_smoothing": 0.1},
    {"loss": "hinge"},
    {"lr_decay": "linear"},
    {"ema": 0.999},
)


def named(change):
    """ "batch size 32, lr 0.0005" of a candidate's differences from the default."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in change.items())


CANDIDATES = {"the default": DEFAULT, "the former default": FORMER}
CANDIDATES |= {f"the default with {named(change)}": DEFAULT | change for change in CHANGES}


def train(settings, pictures, seed, epochs):
    """Train the game with ``settings``, DCGAN's options and batch_size; return the generator that it shows."""
    options = {key: value for key, value in settings.items() if key != "batch_size"}
    shape = {key: quality.SHAPE[key] for key in ("image_size", "width")}
    loader = Loader(pictures, batch_size=settings["batch_size"], seed=seed)
    game = DCGAN(DCGANOptions(latent=quality.LATENT, **shape | options), loader.shapes, seed=seed)
    noise, step, steps = backend.seeded_rng(seed, "noise"), 0, epochs * len(loader)
    for epoch in range(1, epochs + 1):
        for batch in loader.epoch(epoch):
            step += 1
            game.step(**game.draw([batch], noise, At(step, epoch, steps, len(loader))))
    return game.shown_g


def child(name, seed, options):
    """Print the scores of one candidate, and the seconds that its training took."""
    data = {"size": quality.SHAPE["image_size"], "channels": quality.SHAPE["channels"]}
    pictures, _ = load_pictures(options["data"], count=options["images"], **data)
    test, _ = load_pictures(options["data"], split="test", count=10_000, **data)
    begun = time.process_time()
    if name == TORCH:
        g, _ = quality.train("torch", pictures, seed, epochs=options["epochs"], batch=64, lr=2e-4)
    else:
        g = train(CANDIDATES[name], pictures, seed, options["epochs"])
    seconds = time.process_time() - begun
    classifier = load_classifier(options["classifier"])
    test = test[backend.seeded_rng(0, "scores").permutation(len(test))[: options["samples"]]]
    real, _ = classify(classifier, test)
    print(json.dumps(quality.score(g, classifier, real, seed) | {"seconds": seconds}))


def table(found):
    """Return rows of a table: found {candidate: [{score: value} for each seed]}, the best mean first."""
    rows = [
        "| settings | Fréchet distance, each seed | mean | precision | recall | seconds |",
        "|---|---|---|---|---|---|",
    ]
    means = {name: {key: statistics.mean(one[key] for one in ones) for key in ones[0]} for name, ones in found.items()}
    for name in sorted(means, key=lambda name: means[name]["frechet_distance"]):
        each = ", ".join(f"{one['frechet_distance']:.2f}" for one in found[name])
        mean = means[name]
        figures = (f"{mean[key]:.2f}" for key in ("frechet_distance", "precision", "recall"))
        rows.append(tables.row((name, each, *figures, f"{mean['seconds']:.0f}")))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    count = at_least(int, 1)
    parser.add_argument("--classifier", default="runs/classifier/classifier.safetensors", type=cli.path, metavar="FILE")
    parser.add_argument("--data", type=cli.path, default="mnist", help="a data set with a test split (default: mnist)")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="candidates of this name, or whose name holds it")
    parser.add_argument("--seeds", type=at_least(int, 0), nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--epochs", type=count, default=5, help="default: 5, the example's")
    parser.add_argument("--images", type=count, help="how many to train on (default: all)")
    parser.add_argument("--samples", type=at_least(int, 64), default=5000, help="that are scored (default: 5000)")
    parser.add_argument("--jobs", type=count, default=1, help="how many train side by side (default: 1)")
    parser.add_argument("--out", type=cli.path, metavar="FILE", help="write the table there too (Markdown)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(*json.loads(args.child))
    if args.out:
        writable_folder(Path(args.out).parent)
    load_classifier(args.classifier).check(np.empty((0, 1, 28, 28)))
    options = {key: getattr(args, key) for key in ("classifier", "data", "epochs", "images", "samples")}
    every = (*CANDIDATES, TORCH)
    asked = args.only or every
    names = [name for name in every if any(text == name if text in every else text in name for text in asked)]
    if not names:
        parser.error(f"--only: no candidate's name holds {' or '.join(args.only)}: leave it out to see all")
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "NANOGAN_THREADS": "1"}

    def run(name, seed):
        command = processes.python("benchmarks.recipe", "--child", json.dumps([name, seed, options]))
        scores = processes.last_line(command, environment=one_thread)
        print(f"seed {seed}, {name}: {scores}", flush=True)
        return scores

    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = {(name, seed): pool.submit(run, name, seed) for seed in args.seeds for name in names}
        try:
            found = {name: [jobs[name, seed].result() for seed in args.seeds] for name in names}
        except BaseException:  # one that failed, or Ctrl-C: the others need not begin
            pool.shutdown(cancel_futures=True)
            raise
    lines = machine.about()
    lines += [f"- {args.data}, {args.epochs} epochs, one thread; {args.samples} generated images", ""]
    text = "\n".join(lines + table(found)) + "\n"
    print(text)
    tables.save(args.out, "What settings end in", text)


if __name__ == "__main__":
    cli.run(main)
