"""An epoch of training on MNIST, loader included, in seconds: nanogan beside torch.

    python -m benchmarks.epoch --device gpu --out FILE.md                 at 64 x 64
    python -m benchmarks.epoch --device gpu --network mnist               at 28 x 28, the example's size
    python -m benchmarks.epoch --network tiny --pictures 200          shows on a CPU that it works

nanogan runs the example's loop: Loader, noise drawn by NumPy, adversarial_step, losses read every 100 steps; on a GPU
with its steps as one CUDA graph, which is what training does, and launched kernel by kernel (NANOGAN_GRAPH=0). torch
runs the same step, channels_last and without D's unwanted gradients, fed in two ways: from images that are on the
device as bytes before the clock starts, and from a DataLoader whose workers turn bytes into numbers on the host, as
pytorch/examples does. What feeding takes is shown apart: the same loop without the step.

Images are MNIST's below $NANOGAN_DATA where they are stored; else built-in digits, each used several times.
"""

import argparse
import os
import statistics
import time

import numpy as np
import torch

from benchmarks import machine, networks, tables, torch_dcgan
from benchmarks.clock import Target
from benchmarks.contenders import Form, game_of, recorded, torch_pair
from benchmarks.networks import LATENT, pair_of
from benchmarks.tables import NO_TIME, reason, say
from nanogan import backend, cli
from nanogan.cli import at_least
from nanogan.data import Loader, builtin_digits, load_mnist
from nanogan.errors import UserError
from nanogan.images import resize

NETWORKS = {
    "64": {"image_size": 64, "channels": 1, "width": 64, "batch_size": 128},
    "mnist": networks.NETWORKS["mnist"],
    **networks.TINY,
}
LOG_EVERY = 100
FEEDS = ("images on the device", "DataLoader")


def load(count, image_size):
    """Return the images, uint8 (count, image_size, image_size, 1), and what they are."""
    try:
        images, _ = load_mnist(download=False)
        name = "MNIST"
    except UserError:
        images, _ = builtin_digits(min(count, 3000))
        name = "built-in digits"
    used = resize(images[:count], image_size)
    return np.resize(used, (count, *used.shape[1:])), name if len(used) == count else f"{len(used)} {name}, repeated"


class Nanogan:
    """The example's loop. ``epoch(number, train)`` runs one, with or without its steps."""

    def __init__(self, form, network, images, target):
        self.form, self.target = form, target
        game = game_of(form, *pair_of(network), target)
        self.optimizers = game.opt_g, game.opt_d
        self.play = recorded(game) if form.how == "CUDA graph" else lambda inputs: game.step(**inputs)
        self.loader = Loader(images, batch_size=network["batch_size"], device=target.device)
        self.noise = backend.seeded_rng(0, "noise")

    def epoch(self, number, train=True, steps=None):
        backend.set_matmul_precision(self.form.precision)
        for i, batch in enumerate(self.loader.epoch(number), start=1):
            real = batch["images"]
            z = self.noise.standard_normal((len(real), LATENT), dtype=np.float32)
            z = backend.to_device(z, self.target.device)
            if train:
                result = self.play({"real": real, "z": z})
                if i % LOG_EVERY == 0:
                    _ = [float(value) for value in result]
            if i == steps:
                return


class Torch:
    """torch's loop, fed in one of FEEDS."""

    def __init__(self, form, network, images, target, feed):
        self.form, self.target, self.batch_size = form, target, network["batch_size"]
        self.g, self.d, *self.optimizers = torch_pair(form, *pair_of(network), target)
        self.images = torch.tensor(images)
        self.batches = self.on_device if feed == FEEDS[0] else self.from_workers
        if feed == FEEDS[0]:
            self.images = self.images.to(target.torch)
        else:
            workers = min(4, max(1, (os.cpu_count() or 2) - 1))
            self.loader = torch.utils.data.DataLoader(
                Scaled(self.images),
                batch_size=self.batch_size,
                shuffle=True,
                num_workers=workers,
                pin_memory=target.is_gpu,
                persistent_workers=True,
            )

    def on_device(self):
        """Yield batches (B, C, H, W) cut on the device."""
        for chosen in torch.randperm(len(self.images), device=self.target.torch).split(self.batch_size):
            yield self.images[chosen].permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def from_workers(self):
        """Yield batches (B, C, H, W) made by the DataLoader's workers and copied to the device."""
        for batch in self.loader:
            yield batch.to(self.target.torch, non_blocking=True).to(memory_format=torch.channels_last)

    def epoch(self, number, train=True, steps=None):
        torch_dcgan.set_products(self.form.precision)
        for i, real in enumerate(self.batches(), start=1):
            z = torch.randn(len(real), LATENT, device=self.target.torch)
            if train:
                result = torch_dcgan.queued_step(self.g, self.d, *self.optimizers, real, z, freeze_d=True)
                if i % LOG_EVERY == 0:
                    _ = [float(value) for value in result]
            if i == steps:
                return


class Scaled(torch.utils.data.Dataset):
    """Images of bytes (N, H, W, C) as numbers from -1 to 1, (C, H, W) each."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i].permute(2, 0, 1).float().div_(127.5).sub_(1)


def contenders(target):
    """Yield (name, function that makes the contender)."""
    labels = {"float32": "float32"} | ({"tf32": "tf32", "bf16": "bf16 autocast"} if target.is_gpu else {})
    for precision in labels:
        for how, name in (("CUDA graph", "nanogan CUDA graph"), ("eager", "nanogan")):
            if how == "eager" or target.is_gpu:
                form = Form(precision, how)
                yield f"{name}, {precision}", lambda *args, form=form: Nanogan(form, *args)
    for feed in FEEDS:
        for precision, label in labels.items():
            form = Form(precision)
            yield f"torch, {label}, {feed}", lambda *args, form=form, feed=feed: Torch(form, *args, feed)


def main():
    parser = argparse.ArgumentParser(description="An epoch of training, loader included; nanogan beside torch.")
    count = at_least(int, 1)
    parser.add_argument("--device", default="cpu", help="cpu, gpu, or gpu:N (default: cpu)")
    parser.add_argument("--network", choices=NETWORKS, default="64", help="default: 64, batch 128")
    parser.add_argument("--pictures", type=count, default=60_000, help="in an epoch (default: 60000, as MNIST)")
    parser.add_argument("--rounds", type=count, default=3, help="epochs of each, in alternation (default: 3)")
    parser.add_argument("--budget", type=count, metavar="SECONDS", help="leave out what does not fit")
    parser.add_argument("--out", type=cli.path, metavar="FILE", help="write the table there too (Markdown)")
    args = parser.parse_args()
    target = Target.chosen(args.device, parser)
    begun, network = time.perf_counter(), NETWORKS[args.network]
    images, data = load(max(args.pictures, network["batch_size"]), network["image_size"])
    lines = machine.about(target)
    lines += [f"- {len(images)} images ({data}); {network}; medians of {args.rounds} epochs in alternation", ""]
    print("\n".join(lines), flush=True)

    runs, times, feeding, failures = {}, {}, {}, {}

    def attempt(name, function, *arguments):
        if args.budget and time.perf_counter() - begun > args.budget:
            failures.setdefault(name, NO_TIME)  # shown only if there is no time of it at all
            return None
        try:
            return function(*arguments)
        except Exception as error:
            failures[name] = reason(error)
            runs.pop(name, None)
            return None

    def first(name, make):
        run = make(network, images, target)
        run.epoch(1, True, 5)  # choices by trial, kernels compiled, workers started
        target.synchronize()
        runs[name] = run

    for name, make in contenders(target):
        say(f"{name}: first steps")
        attempt(name, first, name, make)
    for number in range(2, 2 + args.rounds):
        for name, run in list(runs.items()):
            seconds = attempt(name, lambda run=run, number=number: target.seconds(lambda: run.epoch(number)))
            if seconds is not None:
                times.setdefault(name, []).append(seconds)
                say(f"{name}: {seconds:.2f} s")
    for name, run in list(runs.items()):
        feeding[name] = attempt(name, lambda run=run: target.seconds(lambda: run.epoch(1, False)))

    lines += [
        "| | seconds an epoch, median | fastest to slowest | images/s | the same loop without the step, s |",
        "|---|---|---|---|---|",
    ]
    for name, values in times.items():
        median = statistics.median(values)
        alone = "-" if feeding.get(name) is None else f"{feeding[name]:.2f}"
        spread = f"{min(values):.2f} to {max(values):.2f}"
        lines.append(tables.row((name, f"{median:.2f}", spread, f"{len(images) / median:.0f}", alone)))
    lines += [f"| {name} | does not run: {why} | | | |" for name, why in failures.items() if name not in times]
    text = "\n".join(lines) + "\n"
    print(text[text.index("| |") :], flush=True)
    tables.save(args.out, "An epoch", text)


if __name__ == "__main__":
    cli.run(main)
