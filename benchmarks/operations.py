"""Where a DCGAN's step spends its time: each operation of a network by itself, nanogan beside torch.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m benchmarks.operations --out FILE.md
    python -m benchmarks.operations --device gpu --network 64-b128 --out FILE.md

Convolutions are counted as the definition counts them, 2 operations for each multiplication, so that Winograd's may
pass the machine's own matrix product. Bytes are the fewest that must move: each input read once, each result written
once. Operations over the product's speed and bytes over a copy's, both measured in the same run, give two times; the
larger is the least that the machine allows, and the last column says how near both come. torch runs channels-last.

A GPU's calls are queued, many for each wait, so a call that takes the card less time than Python takes to ask for it
shows Python's; small arrays may stay in the card's cache between calls, for both.
"""

import argparse
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import machine, tables, torch_dcgan
from benchmarks.clock import Target
from benchmarks.networks import LARGE, LATENT, NETWORKS, TINY, pair_of
from benchmarks.tables import NO_TIME, reason, say
from nanogan import backend, cli, layers
from nanogan.cli import at_least
from nanogan.data import Loader
from nanogan.errors import UserError
from nanogan.models import dcgan
from nanogan.optim import Adam


class Operation:
    """One row: a function of nanogan and torch's, the operations (2 a multiplication) and bytes that both must do."""

    def __init__(self, name, what, ours, theirs, *, operations=0, numbers=0, products=False, ceiling="copied"):
        self.name, self.what, self.ours, self.theirs = name, what, ours, theirs
        self.operations, self.bytes, self.products, self.ceiling = operations, 4 * numbers, products, ceiling

    def least(self, ceilings, precision):
        """Return the fewest seconds that the machine allows, or None if its ceilings were not measured."""
        times = []
        if self.bytes and self.ceiling in ceilings:
            times.append(self.bytes / ceilings[self.ceiling])
        if self.operations and precision in ceilings:
            times.append(self.operations / ceilings[precision])
        return max(times, default=None)


def pixels(rng, N, C, H, W):
    """Random numbers (N, C, H, W), channels-last in memory."""
    return rng.standard_normal((N, H, W, C), dtype=np.float32).transpose(0, 3, 1, 2)


def tensor(x, target):
    """torch's copy of a NumPy array: on the device, channels-last."""
    return torch.tensor(np.ascontiguousarray(x)).to(target.torch).contiguous(memory_format=torch.channels_last)


def torch_conv(kind, layer, x, dy, target):
    """Return {"forward", "dx", "dw"}: torch's functions for the same convolution."""
    x, dy, w = (tensor(a, target) for a in (x, dy, layer.params["weight"]))
    stride, padding = ([layer.options[name]] * 2 for name in ("stride", "padding"))
    transposed = kind is layers.ConvTranspose2d
    function = F.conv_transpose2d if transposed else F.conv2d

    def backward(*wanted):
        options = None, stride, padding, [1, 1], transposed, [0, 0], 1, wanted
        return lambda: torch.ops.aten.convolution_backward(dy, x, w, *options)

    return {
        "forward": lambda: function(x, w, stride=stride, padding=padding),
        "dx": backward(True, False, False),
        "dw": backward(False, True, False),
    }


def convolutions(network, rng, target):
    """Yield the three operations of every convolution of both networks."""
    N, size, channels = network["batch_size"], network["image_size"], network["channels"]
    g, d = pair_of(network, rng)
    for letter, net, x_shape in (("D", d, (N, channels, size, size)), ("G", g, (N, LATENT, 1, 1))):
        for layer in net.layers:
            kind = type(layer)
            if kind not in (layers.Conv2d, layers.ConvTranspose2d):
                continue
            x = pixels(rng, *x_shape)
            y_shape = layer.forward(x[:1])[0].shape[1:]
            dy = pixels(rng, N, *y_shape)
            weight = layer.params["weight"].size
            name = f"{letter} {x.shape[1]}->{y_shape[0]} @{x.shape[2]}->{y_shape[1]}"
            theirs = torch_conv(kind, layer, x, dy, target) if target.has_torch else {}
            counts = {
                "operations": 2 * N * int(np.prod((y_shape if kind is layers.Conv2d else x.shape[1:])[1:])) * weight,
                "numbers": x.size + dy.size + weight,
                "products": True,
            }
            layer.to(target.device)
            x_there, dy_there = backend.to_device(x, target.device), backend.to_device(dy, target.device)

            def forward(layer=layer, x=x_there):
                return layer.forward(x)

            def backward(needs, layer=layer, x=x_there, dy=dy_there):
                packed = []  # by the forward of the precision that is on when it is called first

                def call():
                    if not packed:
                        packed.append(layer.forward(x)[1])
                    layer.backward(dy, packed[0], **needs)

                call.restart = packed.clear
                return call

            yield Operation(name, "forward", forward, theirs.get("forward"), **counts)
            yield Operation(name, "dx", backward({"need_dw": False}), theirs.get("dx"), **counts)
            yield Operation(name, "dw", backward({"need_dx": False}), theirs.get("dw"), **counts)
            x_shape = (N, *y_shape)


def not_convolutions(network, rng, target):
    """Yield BatchNorm with its activation, Adam, and the way of a batch to the device."""
    N, size, width = network["batch_size"], network["image_size"], network["width"]
    C, s = 2 * width, size // 4
    x, dy = pixels(rng, N, C, s, s), pixels(rng, N, C, s, s)
    ours = layers.Sequential(layers.BatchNorm2d(C), layers.LeakyReLU(negative_slope=0.2)).to(target.device)
    x_there, dy_there = backend.to_device(x, target.device), backend.to_device(dy, target.device)
    _, cache = ours.forward(x_there)
    forward = backward = step = None
    if target.has_torch:
        norm = torch.nn.BatchNorm2d(C).to(target.torch)
        t, t_dy = tensor(x, target).requires_grad_(), tensor(dy, target)
        t_y = F.leaky_relu(norm(t), 0.2)
        inputs = [t, *norm.parameters()]
        forward = lambda: F.leaky_relu(norm(t), 0.2, inplace=True)  # noqa: E731
        backward = lambda: torch.autograd.grad(t_y, inputs, t_dy, retain_graph=True)  # noqa: E731
    name = f"BatchNorm + LeakyReLU, {C} channels @{s}"
    yield Operation(name, "forward", lambda: ours.forward(x_there), forward, numbers=2 * x.size)
    yield Operation(name, "backward", lambda: ours.backward(dy_there, cache), backward, numbers=3 * x.size)

    d = dcgan.discriminator(image_size=size, channels=network["channels"], width=width, rng=rng)
    for _, _, gradient in d.named_parameters():
        gradient[...] = rng.standard_normal(gradient.shape)
    if target.has_torch:
        td = torch_dcgan.copy_of(d).to(target.torch, memory_format=torch.channels_last)
        for parameter in td.parameters():
            parameter.grad = torch.randn_like(parameter)
        step = torch.optim.Adam(td.parameters(), lr=2e-4, **({"fused": True} if target.is_gpu else {})).step
    optimizer = Adam(d.to(target.device), lr=2e-4)
    count = d.parameter_count()
    yield Operation(f"Adam, {count / 1e6:.1f} M parameters", "step", optimizer.step, step, numbers=7 * count)
    if target.is_gpu:
        yield transfer(network, rng, target)


def transfer(network, rng, target):
    """A batch of nanogan's Loader, from bytes in memory to numbers on the device, beside torch's way there."""
    N, size = network["batch_size"], network["image_size"]
    images = rng.integers(0, 256, (4 * N, size, size, network["channels"]), dtype=np.uint8)
    loader = Loader(images, batch_size=N, device=target.device)
    batches, number = [], iter(range(1, 1_000_000))

    def ours():
        if not batches:
            batches.append(loader.epoch(next(number)))
        if next(batches[0], None) is None:
            batches.clear()

    theirs = None
    if target.has_torch:
        bytes_, chosen = torch.tensor(images), torch.randperm(4 * N)[:N]

        def theirs():
            host = torch.empty((N, *images.shape[1:]), dtype=torch.uint8, pin_memory=True)
            torch.index_select(bytes_, 0, chosen, out=host)
            there = host.to(target.torch, non_blocking=True).permute(0, 3, 1, 2)
            return there.float().div_(127.5).sub_(1)

    numbers = N * images[0].size / 4  # bytes are what has to cross
    return Operation("a batch from the loader", "to the device", ours, theirs, numbers=numbers, ceiling="to the device")


def alternate(functions, rounds, target):
    """Return the median seconds of a call of each function: in turns, after calls to warm up."""
    times, calls = [[] for _ in functions], [1] * len(functions)
    for turn in range(-(-rounds // 3)):
        for i, function in enumerate(functions):
            for _ in range(3):
                function()
            if target.is_gpu and turn == 0:
                calls[i] = target.calls(function, 0.01, most=2000)
            times[i] += [target.seconds(function, calls[i]) for _ in range(3)]
    return [statistics.median(seconds) for seconds in times]


def precisions(target):
    """Return {what products are made with: the function that switches both libraries to it}."""

    def switch(precision):
        torch_dcgan.set_products(precision)
        backend.set_matmul_precision(precision)

    names = ("float32", "tf32") if target.is_gpu else ("float32",)
    return {name: lambda name=name: switch(name) for name in names}


def measure(operation, switch, rounds, target):
    """Return the seconds of nanogan and of torch, each None where it does not run, and a list of the reasons."""
    functions, problems = {}, []
    try:
        switch()
    except UserError as error:  # torch has been switched: it is measured all the same
        problems.append(reason(error))
        functions["nanogan"] = None
    for name, function in (("nanogan", operation.ours), ("torch", operation.theirs)):
        if name in functions or function is None:
            continue
        try:
            getattr(function, "restart", lambda: None)()
            function()
            target.synchronize()
            functions[name] = function
        except Exception as error:
            problems.append(f"{name}: {reason(error)}")
    functions = {name: function for name, function in functions.items() if function}
    times = {}
    try:
        times = dict(zip(functions, alternate(list(functions.values()), rounds, target), strict=True))
    except Exception as error:
        problems.append(reason(error))
    return times.get("nanogan"), times.get("torch"), problems


def cells(operation, precision, ours, theirs, ceilings):
    """Return the cells of a row behind the operation's name."""
    least = operation.least(ceilings, precision)

    def show(value, text):
        return "-" if value is None else format(value, text)

    def share(seconds):
        return "-" if None in (seconds, least) else f"{least / seconds:.0%}"

    return (
        precision if operation.products else "float32",
        show(ours and ours * 1e3, ".3f"),
        show(theirs and theirs * 1e3, ".3f"),
        show(theirs / ours if ours and theirs else None, ".2f"),
        show(operation.operations / ours / 1e9 if ours and operation.operations else None, ".0f"),
        show(operation.bytes / ours / 1e9 if ours else None, ".0f"),
        f"{share(ours)} / {share(theirs)}",
    )


def main():
    networks = NETWORKS | LARGE | TINY
    parser = argparse.ArgumentParser(description="Each operation of a DCGAN, nanogan beside torch.")
    parser.add_argument("--device", default="cpu", help="cpu, gpu, or gpu:N (default: cpu)")
    parser.add_argument("--network", choices=networks, help="default: 64; on a GPU 64-b128")
    parser.add_argument("--rounds", type=at_least(int, 1), default=15, help="default: 15")
    parser.add_argument("--budget", type=at_least(int, 1), metavar="SECONDS", help="leave out what does not fit")
    parser.add_argument("--out", type=cli.path, metavar="FILE", help="write the table there too (Markdown)")
    args = parser.parse_args()
    target = Target.chosen(args.device, parser)
    begun, label = time.perf_counter(), args.network or ("64-b128" if target.is_gpu else "64")
    network, rng, ceilings = networks[label], np.random.default_rng(0), machine.ceilings(target)
    lines = [
        *machine.about(target, ceilings),
        f"- network {label}: {network}; medians of {args.rounds} windows, in alternation",
        "",
        "| operation | | products | nanogan, ms | torch, ms | speed, torch = 1 | nanogan, GFLOP/s | GB/s | of what the "
        "machine allows, nanogan / torch |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)

    def row(*cells):
        lines.append(tables.row(cells))
        print(lines[-1], flush=True)
        tables.save(args.out, "Each operation", lines)  # after every row: it stays if the time is up

    def every(operations):
        for operation in operations:
            for precision, switch in precisions(target).items():
                if precision != "float32" and not operation.products:
                    continue
                if args.budget and time.perf_counter() - begun > args.budget:
                    return say(f"{operation.name} and what follows: {NO_TIME}")
                ours, theirs, problems = measure(operation, switch, args.rounds, target)
                row(operation.name, operation.what, *cells(operation, precision, ours, theirs, ceilings))
                for problem in problems:
                    say(f"{operation.name}, {operation.what}, {precision}: {problem}")

    every(not_convolutions(network, rng, target))
    with torch.no_grad():
        every(convolutions(network, rng, target))


if __name__ == "__main__":
    cli.run(main)
