"""A training step on several ranks: how it scales, what the ranks spend on each other, torch's DDP beside it.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m benchmarks.ranks --out benchmarks/results/ranks-cpu.md

Each measurement is a new ``mpiexec -n RANKS``, whose ranks have the threads that are named and no more; the settings
take turns. torch's DistributedDataParallel runs over gloo under the same mpiexec, in channels_last and with D frozen in
G's step, its best form here; its BatchNorm sees a rank's own images, as SyncBatchNorm takes no CPU tensors. torch is
measured twice: with a malloc that keeps freed memory, as nanogan sets it for its process, and with malloc as it is.

Then what the ranks told each other in a step, call by call, and the time of such calls on this machine, make a model of
the cost, which is held against the steps measured here before it is asked about networks that are not here.
"""

import argparse
import json
import math
import os
import shutil
import socket
import statistics
import sys
import time

import numpy as np

from benchmarks import machine, processes, tables
from benchmarks.networks import NETWORKS, TINY
from nanogan import cli, dispatch, ranks
from nanogan.cli import at_least
from nanogan.errors import UserError

SIZES = [2**k for k in (6, 10, 14, 17, 20, 22, 24)]  # bytes of an Allreduce
ASSUMED = {  # what is known of networks that were not measured: bytes a second that a rank sends, seconds of a call
    "25 Gbit/s Ethernet, TCP": (2.8e9, 20e-6),
    "100 Gbit/s InfiniBand": (11.5e9, 4e-6),
}


# ------------------------------------------------------------------------------------------------ what a rank measures


def child(asked):
    """Measure what ``asked``, a dictionary, says, on this rank of several; rank 0 prints it as JSON."""
    together = ranks.start()
    measured = {"nanogan": of_nanogan, "torch": of_torch, "calls": of_calls}[asked["who"]](together, **asked)
    if together.leads:
        print(json.dumps(measured))
    return 0


def of_nanogan(together, network, sync_bn=True, seconds=1.5, **_):
    """Return the seconds of a step, those in calls of MPI, and the bytes of each call in a step."""
    from benchmarks.clock import Target
    from benchmarks.contenders import Form, game_of
    from benchmarks.networks import pair_of
    from nanogan.training import parallel

    game = game_of(Form(), *pair_of(network), Target("cpu"))
    inputs = dict(zip(("real", "z"), batch_of(network), strict=True))
    if together.size == 1:
        return {"step": window(together, lambda: game.step(**inputs), seconds)}
    parallel.join(game, together, sync_bn=sync_bn)
    play = parallel.steps_of_rank(game, together)
    together.comm = Watched(together.comm)
    step = window(together, lambda: play(inputs), seconds)
    together.comm.calls.clear()
    play(inputs)
    calls = list(together.comm.calls)
    together.comm.seconds, count = 0.0, 20
    begun = time.perf_counter()
    for _ in range(count):
        play(inputs)
    share = together.comm.seconds / (time.perf_counter() - begun)
    return {"step": step, "share": share, "calls": calls}


class Watched:
    """A communicator that notes the bytes of each Allreduce, and the seconds spent in them, waiting for others too."""

    def __init__(self, comm):
        self._comm, self.calls, self.seconds = comm, [], 0.0

    def Allreduce(self, here, array, *operation):
        """See mpi4py."""
        begun = time.perf_counter()
        self._comm.Allreduce(here, array, *operation)
        self.seconds += time.perf_counter() - begun
        self.calls.append(array.nbytes)

    def __getattr__(self, name):
        return getattr(self._comm, name)


def of_torch(together, network, threads, seconds=1.5, port=None, keeps_memory=True, **_):
    """Return the seconds of a step of torch's, with DistributedDataParallel if there are several ranks.

    keeps_memory: whether malloc is set as nanogan sets it, to keep freed memory for the next arrays; torch gains from
    that as well, as it does where both are measured in one process (:mod:`benchmarks.step`).
    """
    import torch

    from benchmarks import torch_dcgan
    from benchmarks.clock import Target
    from benchmarks.contenders import Form, torch_pair
    from benchmarks.networks import pair_of

    if keeps_memory:
        dispatch.load("cpu")
    torch.set_num_threads(threads)
    g, d, opt_g, opt_d = torch_pair(Form(), *pair_of(network), Target("cpu"))
    own = together.own(network["batch_size"])
    real, z = (torch.tensor(array[own].copy()) for array in batch_of(network))
    real = real.to(memory_format=torch.channels_last)
    if together.size == 1:
        return {"step": window(together, lambda: torch_dcgan.step(g, d, opt_g, opt_d, real, z, freeze_d=True), seconds)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=together.rank, world_size=together.size)
    both = [torch.nn.parallel.DistributedDataParallel(network) for network in (g, d)]
    step = window(together, lambda: ddp_step(*both, opt_g, opt_d, real, z), seconds)
    both.clear()  # their end after that of the group may wait for ever
    torch.distributed.destroy_process_group()
    return {"step": step}


def ddp_step(g, d, opt_g, opt_d, real, z):
    """pytorch/examples' step with gradients averaged once for D and once for G."""
    import torch

    loss = torch.nn.BCEWithLogitsLoss()
    opt_d.zero_grad()
    with d.no_sync():
        real_logits = d(real)
        loss_real = loss(real_logits, torch.ones_like(real_logits))
        loss_real.backward()
    fake = g(z.reshape(len(z), -1, 1, 1))
    fake_logits = d(fake.detach())
    loss_fake = loss(fake_logits, torch.zeros_like(fake_logits))
    loss_fake.backward()
    opt_d.step()

    d.module.requires_grad_(False)
    opt_g.zero_grad()
    new_logits = d.module(fake)
    loss_g = loss(new_logits, torch.ones_like(new_logits))
    loss_g.backward()
    opt_g.step()
    d.module.requires_grad_(True)
    numbers = [
        loss_real + loss_fake,
        loss_g,
        *(torch.sigmoid(x).mean() for x in (real_logits, fake_logits, new_logits)),
    ]
    return [float(value.detach()) for value in numbers]


def of_calls(together, **_):
    """Return {bytes: median seconds of an Allreduce}."""
    found = {}
    for size in SIZES:
        array, times = np.ones(size // 4, np.float32), []
        for _ in range(30):
            together.comm.Barrier()
            begun = time.perf_counter()
            for _ in range(10):
                together.total(array)
            times.append((time.perf_counter() - begun) / 10)
        found[size] = statistics.median(times)
    return found


def batch_of(network):
    """A batch of images and z, the whole of it, the same on every rank."""
    rng, N, C, size = np.random.default_rng(1), *(network[key] for key in ("batch_size", "channels", "image_size"))
    real = rng.uniform(-1, 1, (N, size, size, C)).astype(np.float32).transpose(0, 3, 1, 2)  # channels-last
    return real, rng.standard_normal((N, 100), dtype=np.float32)


def window(together, step, seconds):
    """Return the median seconds of a step, of as many as take ``seconds``, after some that do not count."""
    for _ in range(3):
        step()
    begun = time.perf_counter()
    step()
    once = time.perf_counter() - begun
    count = max(5, int(together.told(seconds / once)))
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


# ------------------------------------------------------------------------------------------------------- the settings


def measured(size, threads, who, **asked):
    """Run a child on ``size`` ranks of ``threads`` threads each, and return what it printed."""
    asked = asked | {"who": who, "threads": threads, "port": free_port()}
    command = processes.python("benchmarks.ranks", "--child", json.dumps(asked))
    if size > 1:
        command = [mpiexec(), "-n", str(size), *command]
    environment = dict.fromkeys(("OPENBLAS_NUM_THREADS", "NANOGAN_THREADS", "OMP_NUM_THREADS"), str(threads))
    return processes.last_line(command, limit=120, environment=environment)


def mpiexec():
    """The launcher beside this Python, or the one on the path. Raises UserError if there is none."""
    found = shutil.which("mpiexec", path=os.path.dirname(sys.executable)) or shutil.which("mpiexec")
    if found is None:
        raise UserError("no mpiexec was found: pip install mpich")
    return found


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def settings_of(network, cores):
    """[(words, ranks, threads, who, options)] of one network: strong scaling, then weak."""
    batch = network["batch_size"]
    strong = {"network": network}
    several = [n for n in (2, 4) if batch % n == 0]
    found = [(f"batch {batch}", 1, 1, "nanogan", strong), (f"batch {batch}", 1, cores, "nanogan", strong)]
    for n in several:
        threads = max(1, cores // n)
        found.append((f"batch {batch}", n, threads, "nanogan", strong | {"sync_bn": True}))
        found.append((f"batch {batch}", n, threads, "nanogan", strong | {"sync_bn": False}))
    for keeps_memory in (True, False):
        torch = strong | {"keeps_memory": keeps_memory}
        found += [(f"batch {batch}", n, max(1, cores // n), "torch", torch) for n in (1, 2)]
    for n in [1, *several]:
        weak = {"network": network | {"batch_size": batch * n}, "sync_bn": True}
        found.append((f"{batch} images a rank", n, 1, "nanogan", weak))
    return found


def figures_of(name, network, cores, rounds):
    """Measure all settings of a network in turns; return [(setting, median step, median share, calls)]."""
    settings = settings_of(network, cores)
    found = [[] for _ in settings]
    for done in range(rounds):
        for results, (words, size, threads, who, options) in zip(found, settings, strict=True):
            tables.say(f"{name}, round {done + 1}: {who}, {words}, {size} x {threads}")
            results.append(measured(size, threads, who, **options))
    return [
        (
            setting,
            statistics.median(each["step"] for each in results),
            statistics.median(each["share"] for each in results) if "share" in results[0] else None,
            results[0].get("calls"),
        )
        for setting, results in zip(settings, found, strict=True)
    ]


def rows_of(name, figures):
    """Return the table of a network."""
    alone = {
        words: step for (words, size, threads, who, _), step, *_ in figures if (size, threads, who) == (1, 1, "nanogan")
    }
    best_torch = min(step for (_, _, _, who, _), step, *_ in figures if who == "torch")
    lines = [
        "",
        f"## {name}",
        "",
        "| | ranks x threads | BatchNorm over | ms a step | of it in MPI | efficiency | speed, torch's best = 1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for (words, size, threads, who, options), step, share, _ in figures:
        strong = words.startswith("batch")
        gain = alone.get(words, math.nan) / step / (size * threads) if strong else alone_of_weak(figures) / step
        over = "-" if size == 1 else "all" if options.get("sync_bn") and who == "nanogan" else "own"
        label = f"{'nanogan' if who == 'nanogan' else 'torch' + (' DDP' if size > 1 else '')}, {words}"
        label += "" if options.get("keeps_memory", True) else ", malloc as it is"
        lines.append(tables.row((
            label, f"{size} x {threads}", over, f"{step * 1e3:.1f}", "-" if share is None else f"{share:.0%}",
            f"{gain:.2f}" if who == "nanogan" else "-", f"{best_torch / step:.2f}" if strong else "-",
        )))  # fmt: skip
    return lines


def alone_of_weak(figures):
    """The step of one rank with its share of the images."""
    return next(step for (words, size, *_), step, *_ in figures if size == 1 and not words.startswith("batch"))


# ---------------------------------------------------------------------------------------------------------- the model


def call_seconds(n, size, rate, latency):
    """The seconds that an Allreduce of ``size`` bytes takes n ranks, by the better of MPICH's two ways.

    Recursive doubling, log2 n times all; or halving and doubling, 2 log2 n messages that come to 2 (n - 1) / n of it.
    R. Thakur, R. Rabenseifner, W. Gropp, Optimization of Collective Communication Operations in MPICH, 2005, section 4.
    ``rate``: bytes a second, sums included; ``latency``: seconds of a message.
    """
    rounds = math.ceil(math.log2(n))
    doubling = rounds * (latency + size / rate)
    return min(doubling, 2 * rounds * latency + 2 * (n - 1) / n * size / rate) if n > 1 else 0.0


def fitted(calls, n=2):
    """Return (rate, latency) for which the model comes nearest to measured calls, {bytes: seconds}, by their ratio."""

    def wrong(rate, latency):
        return sum(math.log(call_seconds(n, int(size), rate, latency) / taken) ** 2 for size, taken in calls.items())

    rates, latencies = np.geomspace(1e8, 1e11, 151), np.geomspace(1e-7, 1e-3, 121)
    return min(((float(r), float(s)) for r in rates for s in latencies), key=lambda pair: wrong(*pair))


def model_rows(calls_measured, figures, name, network):
    """Return lines: the fit, what it says of the steps measured here, and of networks and numbers of ranks not here."""
    rate, latency = fitted(calls_measured)
    by_setting = {
        (size, options.get("sync_bn")): results
        for (words, size, _, who, options), *results in figures
        if who == "nanogan" and words.startswith("batch") and size > 1
    }
    lines = ["", f"## A model of the cost, {name}", ""]
    lines += ["| bytes of an Allreduce, 2 ranks | us, measured | us, model |", "|---|---|---|"]
    for size, taken in calls_measured.items():
        lines.append(
            tables.row(
                (f"{int(size):,}", f"{taken * 1e6:.1f}", f"{call_seconds(2, int(size), rate, latency) * 1e6:.1f}")
            )
        )
    lines += ["", f"Fitted: {rate / 1e9:.1f} GB/s, {latency * 1e6:.1f} us a message.", ""]
    for words in ("all", "own"):
        step, share, calls = by_setting[2, words == "all"]
        told = sum(call_seconds(2, size, rate, latency) for size in calls)
        lines.append(
            f"- BatchNorm over {words}: {len(calls)} calls a step, {sum(calls) / 1e6:.2f} MB; in MPI here "
            f"{share * step * 1e3:.2f} ms a step, waiting for the other rank included, {told * 1e3:.2f} by the model"
        )
    synced, local = (by_setting[2, sync_bn][2] for sync_bn in (True, False))
    batch = network["batch_size"]
    lines += [
        "",
        f"Efficiency, in %, of n ranks with {batch} images each, BatchNorm over all / over own, nothing overlapped. "
        f"The steps of a rank are assumed: {STEPS[0]:.0f} ms, a large CPU node; {STEPS[1]:.0f} ms, a GPU; "
        f"{figures[0][1] * 1e3:.0f} ms is one core here.",
        "",
        "| network, assumed | ranks | ms in MPI | "
        + " | ".join(f"{ms:.0f} ms" for ms in (*STEPS, figures[0][1] * 1e3))
        + " |",
        "|---|---|---|---|---|---|",
    ]
    for words, (rate, latency) in ASSUMED.items():
        for n in (8, 64, 256, 1024):
            costs = [sum(call_seconds(n, size, rate, latency) for size in calls) * 1e3 for calls in (synced, local)]
            shares = [
                " / ".join(f"{100 * ms / (ms + cost):.0f}" for cost in costs) for ms in (*STEPS, figures[0][1] * 1e3)
            ]
            lines.append(tables.row((words, n, " / ".join(f"{cost:.1f}" for cost in costs), *shares)))
    return lines


STEPS = (40.0, 6.0)  # ms


def main():
    parser = argparse.ArgumentParser(
        description="A training step on several ranks, and a model of what more would cost."
    )
    parser.add_argument("--rounds", type=at_least(int, 1), default=3, help="default: 3")
    parser.add_argument("--network", choices=("all", *NETWORKS, *TINY), default="all", help="default: all of them")
    parser.add_argument("--out", type=cli.path, metavar="FILE", help="write the tables there too (Markdown)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(json.loads(args.child))

    networks = NETWORKS | TINY if args.network != "all" else NETWORKS
    chosen = networks if args.network == "all" else {args.network: networks[args.network]}
    lines = machine.about()
    lines += [f"- medians of {args.rounds} processes each, in alternation; float32; efficiency: to 1 rank of 1 thread"]
    print("\n".join(lines), flush=True)
    for name, network in chosen.items():
        figures = figures_of(name, network, len(ranks.cores()), args.rounds)
        rows = rows_of(f"{network['image_size']} x {network['image_size']}, width {network['width']}", figures)
        if name in ("64", "tiny"):
            calls = measured(2, 1, "calls", network=network)
            rows += model_rows(calls, figures, name, network)
        print("\n".join(rows), flush=True)
        lines += rows
    tables.save(args.out, "Steps on several ranks", lines)


if __name__ == "__main__":
    cli.run(main)
