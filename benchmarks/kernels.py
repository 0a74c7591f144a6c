"""Which convolutions of a DCGAN are faster in one kernel than by a gather and cuBLAS: measured on this GPU.

    python -m benchmarks.kernels --device gpu --out FILE.md
    python -m benchmarks.kernels --device gpu --write-table        and nanogan computes so from then on

For each layer, direction and precision, the time of a call on the card: of nanogan/fast/gpu/conv.py, and of the kernel
of nanogan/fast/gpu/conv4s2.cu with each tile. Each result is first compared with the readable operation in float64; one
that is wrong is never chosen. What is at least 5% faster is written into conv4s2.py's chosen.json, for this GPU.
"""

import argparse
import json
import statistics

import numpy as np

from benchmarks import machine, tables
from benchmarks.clock import Target
from benchmarks.networks import LARGE, NETWORKS, pair_of
from benchmarks.tables import reason
from benchmarks.timing import seconds_on_the_gpu
from nanogan import backend, cli, layers, ops
from nanogan.disk import replacing
from nanogan.errors import UserError

MEASURED = {name: (NETWORKS | LARGE)[name] for name in ("64-b128", "64", "mnist")}
TOLERANCES = {"float32": 5e-6, "tf32": 2e-3}  # the largest difference, as a share of the largest value
GAIN = 0.95  # of the gather's time, at most
CALLS, WINDOWS, AHEAD = 20, 7, 64
OPTIONS = {"stride": 2, "padding": 1}


def sizes_of(network):
    """Return [(N, P, Q, C, R)] of the discriminator's layers that have these kernels; the generator's are the same."""
    found, size = [], network["image_size"]
    for layer in pair_of(network)[1].layers:
        if isinstance(layer, layers.Conv2d) and layer.params["weight"].shape[2:] == (4, 4):
            R, C = layer.params["weight"].shape[:2]
            size //= 2
            if R % 16 == C % 16 == 0:
                found.append((network["batch_size"], size, size, C, R))
    return found


class Case:
    """One direction of one layer: ``gather(into)`` and ``kernel(tile, into)`` compute it, ``exact()`` in float64.

    ``into`` is None or, of dw, the gradients to add to, as in training.
    """

    def __init__(self, direction, sizes, cupy):
        from nanogan.fast.gpu import conv, conv4s2

        N, P, Q, C, R = sizes
        rng = np.random.default_rng(0)

        def draw(N, C, H, W):  # channels-last
            return cupy.asarray(rng.standard_normal((N, H, W, C), dtype=np.float32)).transpose(0, 3, 1, 2)

        large, small, w = draw(N, C, 2 * P, 2 * Q), draw(N, R, P, Q), draw(R, C, 4, 4)
        self.direction, self.gradients = direction, [cupy.zeros((R, 4, 4, C), np.float32).transpose(0, 3, 1, 2)]

        def by_the(module, number):
            x, dy, weight = (a.astype(number, copy=False) for a in (large, small, w))
            forward = lambda into=None: module.conv2d_forward(x, weight, None, **OPTIONS)[0]  # noqa: E731
            _, cache = module.conv2d_forward(x, weight, None, **OPTIONS)

            def backward(into=None):
                needs = {"need_dx": direction == "up", "need_dw": direction == "wgrad"}
                dx, dw, _ = module.conv2d_backward(dy, cache, **needs, **({"into": into} if into else {}))
                return dx if direction == "up" else dw

            return forward if direction == "down" else backward

        self.gather = by_the(conv, np.float32)
        self.exact = lambda: by_the(ops, np.float64)()
        self.kernel = {
            "down": lambda tile, into=None: conv4s2.down(large, w, tile),
            "up": lambda tile, into=None: conv4s2.up(small, w, tile),
            "wgrad": lambda tile, into=None: conv4s2.wgrad(large, small, tile, into),
        }[direction]


def microseconds(function, cupy):
    """Return the median time of a call on the GPU, whose host queues the calls behind work that lasts longer."""
    ahead = cupy.empty(1 << 28, np.uint8)

    def longer_work():
        for _ in range(AHEAD):
            ahead.fill(0)

    return 1e6 * statistics.median(seconds_on_the_gpu(cupy, function, CALLS, longer_work) for _ in range(WINDOWS))


def measure(case, tiles, precision, cupy):
    """Return {None or a tile: microseconds, or why there are none}; None is the gather and cuBLAS."""
    backend.set_matmul_precision(precision)
    exact, found = case.exact(), {}
    ways = {None: case.gather} | {tile: lambda into=None, tile=tile: case.kernel(tile, into) for tile in tiles}
    for tile, way in ways.items():
        try:
            error = float(abs(way() - exact).max() / abs(exact).max())
        except Exception as problem:
            found[tile] = reason(problem)
            continue
        if error < TOLERANCES[precision]:  # not so if it is NaN
            found[tile] = microseconds(lambda way=way: way(case.gradients), cupy)
        else:
            found[tile] = f"wrong by {error:.0e}"
    return found


def fastest(found):
    """Return the tile to choose, or None: the fastest right one, if it is enough faster than the gather and cuBLAS."""
    times = {tile: time for tile, time in found.items() if not isinstance(time, str)}
    tile = min(times, key=times.get, default=None)
    worthwhile = tile is not None and (None not in times or times[tile] <= GAIN * times[None])
    return tile if worthwhile else None


def row(direction, sizes, precision, found):
    """Return a line of the table."""
    N, P, Q, C, R = sizes
    shown = [found[tile] if isinstance(found[tile], str) else f"{found[tile]:.1f}" for tile in found]
    times = {tile: time for tile, time in found.items() if tile and not isinstance(time, str)}
    best = min(times.values(), default=float("nan"))
    gather = found[None] if not isinstance(found[None], str) else float("nan")
    rate, tile = 32 * N * P * Q * C * R / 1e6 / best, fastest(found)
    cells = [f"{N} x {P} x {Q}, {C} -> {R}", direction, precision, *shown, f"{rate:.1f}", f"{best / gather:.0%}"]
    return tables.row((*cells, "x".join(map(str, tile)) if tile else "gather"))


def write_table(path, gpu, choices):
    """Write {(precision, direction, sizes): tile or None} into chosen.json; rows that were not measured stay."""
    table = json.loads(path.read_text(encoding="utf-8"))
    rows = table.setdefault(gpu, {})
    for (precision, direction, sizes), tile in choices.items():
        name = " ".join(map(str, (precision, direction, *sizes)))
        rows.pop(name, None)
        if tile:
            rows[name] = list(tile)
    with replacing(path) as temporary:
        lines = json.dumps(table, indent=1).replace("[\n   ", "[").replace(",\n   ", ", ").replace("\n  ]", "]")
        temporary.write_text(lines + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--device", default="gpu", help="gpu, or gpu:N for one of several")
    parser.add_argument("--out", type=cli.path, metavar="FILE.md", help="write the table to this file too")
    parser.add_argument("--write-table", action="store_true", help="choose what is faster from now on")
    args = parser.parse_args()
    target = Target(args.device)
    if not target.is_gpu:
        raise UserError(f"benchmarks.kernels measures kernels of a GPU and needs one, got --device {args.device}")
    from nanogan.fast.gpu import conv4s2

    cupy, index = target.device.array_module, target.device.index
    tiles = "".join(f" {BM}x{BN} |" for BM, BN in conv4s2.TILES)
    lines = [f"- {line}" for line in machine.describe_gpu(target, {})[:3]]
    lines += [f"- microseconds of a call, medians of {WINDOWS} windows of {CALLS} calls", ""]
    lines += [
        f"| N x P x Q, C -> R | direction | products | gather + cuBLAS |{tiles} best, TFLOP/s | of gather | chosen |"
    ]
    lines += ["|" + "---|" * (7 + len(conv4s2.TILES))]
    print("\n".join(lines), flush=True)
    choices = {}
    for sizes in dict.fromkeys(sizes for network in MEASURED.values() for sizes in sizes_of(network)):
        for direction in conv4s2.DIRECTIONS:
            case = Case(direction, sizes, cupy)
            for precision in conv4s2.PRODUCTS:
                found = measure(case, conv4s2.TILES, precision, cupy)
                choices[precision, direction, sizes] = fastest(found)
                lines.append(row(direction, sizes, precision, found))
                print(lines[-1], flush=True)
                tables.save(args.out, "Convolution kernels", lines)  # each time: it stays if the time is up
    if args.write_table:
        write_table(conv4s2.CHOSEN, conv4s2.gpu_name(index), choices)
        print(f"{sum(map(bool, choices.values()))} of {len(choices)} chosen, in {conv4s2.CHOSEN}")


if __name__ == "__main__":
    cli.run(main)
