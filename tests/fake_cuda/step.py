"""Play one step of the DCGAN on the fake driver and print what it took, as JSON.

    FOLDER/venv/bin/python -m tests.fake_cuda.step mnist float32 [--mode eager]

Three steps first fill the memory pool and compile the kernels; the fourth is counted, more are timed.
"""

import argparse
import json
import statistics
import sys
import time

import numpy as np

from nanogan import backend
from nanogan.games.dcgan import adversarial_step
from nanogan.models import dcgan
from nanogan.optim import Adam
from tests.fake_cuda import driver

SIZES = {  # image_size, channels, width, batch
    "mnist": (28, 1, 32, 32),  # what examples/mnist_dcgan.py trains unless it is told otherwise
    "64x64": (64, 3, 64, 128),  # pytorch/examples' DCGAN
}
LATENT = 100
WARM_UP, TIMED = 3, 20  # steps


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("precision", choices=backend.PRECISIONS)
    parser.add_argument("--mode", choices=MODES, default="eager", help="how a step is played")
    options = parser.parse_args(arguments)
    driver.use()
    json.dump(measure(MODES[options.mode](*game(options.size, options.precision))), sys.stdout, indent=1)
    print()


def game(size, precision):
    """Return adversarial_step's arguments: networks, optimisers and a batch on the GPU."""
    image_size, channels, width, N = SIZES[size]
    rng = np.random.default_rng(0)
    g = dcgan.generator(image_size=image_size, channels=channels, latent=LATENT, width=width, rng=rng).to("gpu")
    d = dcgan.discriminator(image_size=image_size, channels=channels, width=width, rng=rng).to("gpu")
    backend.set_matmul_precision(precision)
    how = {"lr": 2e-4, "betas": (0.5, 0.999), "loss_scaling": precision == "fp16"}
    real = backend.to_device(rng.uniform(-1, 1, (N, channels, image_size, image_size)).astype(np.float32), "gpu")
    z = backend.to_device(rng.standard_normal((N, LATENT), dtype=np.float32), "gpu")
    return g, d, Adam(g, **how), Adam(d, **how), real, z


def eager(*arguments):
    """Return a function that plays a step launch by launch."""
    return lambda: adversarial_step(*arguments)


MODES = {"eager": eager}  # name: a function that takes adversarial_step's arguments and returns one that plays a step


def measure(play):
    """Return what a step takes, as a dictionary for JSON."""
    start = time.perf_counter()
    play()
    first = time.perf_counter() - start
    for _ in range(WARM_UP - 1):
        play()
    driver.clear()
    play()
    driver.stop()
    launches, (bytes_now, bytes_peak) = driver.launches(), driver.bytes_in_use()
    driver.fill(False)
    times = []
    for _ in range(TIMED):
        start = time.perf_counter()
        play()
        times.append(time.perf_counter() - start)
    return {
        "launches": launches.total(),
        "launches_by_name": dict(launches.most_common()),
        "device_syncs": driver.device_syncs(),
        "copies": driver.copies(),
        "allocations": driver.allocations(),
        "device_bytes": bytes_now,
        "device_bytes_peak": bytes_peak,
        "first_step_seconds": round(first, 2),
        "host_milliseconds": round(1000 * statistics.median(times), 2),  # of a step, the median; nothing runs below
    }


if __name__ == "__main__":
    main()
