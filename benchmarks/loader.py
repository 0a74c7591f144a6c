"""How fast pictures come out of a folder, and whether a training step has to wait for them.

    python -m benchmarks.loader --out benchmarks/results/loader-cpu.md
    python -m benchmarks.loader FOLDER [FOLDER ...]

Without a folder, 2,000 JPEGs of 256 x 256 are made in a temporary one. The step is a sleep: to the processor, a GPU at
work is no more. Each folder is read once before anything is timed, so the files come from memory, not from the disk.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import machine, tables
from nanogan import cli
from nanogan.cli import at_least
from nanogan.data import Loader, PictureFolder

MADE = 2000


def make_pictures(folder, count=MADE, size=256):
    """Write JPEGs with about a photograph's detail: coarse shapes, finer ones on them, some noise."""
    rng = np.random.default_rng(0)
    for i in range(count):
        picture = np.zeros((size, size, 3), np.float32)
        for cells, weight in ((4, 60), (16, 30), (64, 15), (size, 6)):
            noise = rng.standard_normal((cells, cells, 3)) * weight
            shapes = Image.fromarray(np.clip(noise + 128, 0, 255).astype(np.uint8))
            picture += np.asarray(shapes.resize((size, size), Image.Resampling.BICUBIC), np.float32) - 128
        Image.fromarray(np.clip(picture + 128, 0, 255).astype(np.uint8)).save(folder / f"{i:05d}.jpg", quality=90)


def pictures_a_second(pictures, batch, seconds):
    """Return how many pictures a second come out in batches of random ones: the median of five parts of the time."""
    rng, rates = np.random.default_rng(0), []
    for _ in range(5):
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds / 5:
            pictures[rng.integers(len(pictures), size=batch)]
            count += batch
        rates.append(count / (time.perf_counter() - start))
    return statistics.median(rates)


def waited(pictures, batch, step_ms, seconds):
    """Return the median and the mean milliseconds that a step of ``step_ms`` waits for its batch."""
    loader, waits = Loader(pictures, batch_size=batch, drop_last=True), []
    end = time.perf_counter() + seconds
    batches = itertools.chain.from_iterable(map(loader.epoch, itertools.count(1)))
    while time.perf_counter() < end or len(waits) < 10:
        start = time.perf_counter()
        next(batches)
        waits.append((time.perf_counter() - start) * 1e3)
        time.sleep(step_ms / 1e3)
    waits = waits[len(waits) // 10 :]  # the first ones find nothing made ahead
    return statistics.median(waits), statistics.mean(waits)


def measure(folder, args):
    """Yield the rows of a folder's table, without its name."""
    cores = os.cpu_count() or 1
    counts = sorted({1, *(2**i for i in range(1, cores.bit_length()) if 2**i <= cores), cores})
    with tempfile.TemporaryDirectory() as temporary:
        for workers in counts:
            pictures = PictureFolder(folder, size=args.size, workers=workers)
            if workers == 1:
                pictures[:]  # the files are in memory from now on
            yield row(f"decoded, {workers} worker{'s' if workers > 1 else ''}", pictures, args)
        start = time.perf_counter()
        pictures = PictureFolder(folder, size=args.size, cache=Path(temporary) / "packed.npy").pack()
        yield row(f"packed (once, in {time.perf_counter() - start:.1f} s)", pictures, args)
    yield row("an array in memory", PictureFolder(folder, size=args.size)[:], args)


def row(label, pictures, args):
    rate = pictures_a_second(pictures, args.batch_size, args.seconds)
    median, mean = waited(pictures, args.batch_size, args.step_ms, args.seconds)
    made = args.batch_size / rate * 1e3
    return label, f"{rate:,.0f}", f"{made:.1f}", f"{median:.1f}", f"{mean:.1f}", "yes" if mean < 1 else "no"


def main():
    parser = argparse.ArgumentParser(description="Pictures a second out of folders, decoded and packed.")
    parser.add_argument(
        "folders", nargs="*", type=cli.path, metavar="FOLDER", help=f"default: {MADE} JPEGs made for this"
    )
    parser.add_argument("--size", type=at_least(int, 1), default=64, help="of the pictures that come out; default: 64")
    parser.add_argument("--batch-size", type=at_least(int, 1), default=64, help="default: 64")
    parser.add_argument("--step-ms", type=at_least(float, 0), default=5.0, help="of training on a batch; default: 5")
    parser.add_argument("--seconds", type=at_least(float, 0.1), default=3.0, help="for each figure; default: 3")
    parser.add_argument("--out", type=cli.path, metavar="FILE", help="write the table there too (Markdown)")
    args = parser.parse_args()

    lines = machine.about()
    lines += [
        f"- pictures of {args.size} x {args.size} x 3 in batches of {args.batch_size}, random order; a figure is the "
        f"median of {args.seconds:g} s",
        f"- a step waits: for its batch, which is made ahead while steps of {args.step_ms:g} ms sleep; it keeps up if "
        "the mean is below 1 ms; an array is not made ahead",
        "",
        "| folder | source | pictures a second | ms a batch | a step waits, ms, median | mean | keeps up |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        if not args.folders:
            make_pictures(Path(temporary))
        for folder in args.folders or [temporary]:
            count = len(PictureFolder(folder, size=args.size))
            name = "/".join(Path(folder).parts[-2:]) if args.folders else "made, 256 x 256"
            for cells in measure(folder, args):
                lines.append(tables.row((f"{name}, {count:,}", *cells)))
                print(lines[-1], flush=True)
    tables.save(args.out, "How fast pictures come out of a folder", lines)


if __name__ == "__main__":
    cli.run(main)
