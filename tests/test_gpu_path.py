"""The way of a run over a GPU, in the strict double's hands and, where there is one, on a real card.

What single operations compute there is tested beside the CPU's, in tests/ops, tests/test_layers.py and so on.
"""

import csv
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nanogan import backend, checkpoint, cli, dispatch, layers
from nanogan.data import Loader
from nanogan.games.dcgan import DCGAN, DCGANOptions
from nanogan.games.game import At
from nanogan.gradcheck import __main__ as gradcheck_command
from nanogan.gradcheck.cases import GAMES
from nanogan.gradcheck.games import random_batches
from nanogan.optim import Adam
from nanogan.training import Run, adversarial_step, discriminator_step, sample, train
from nanogan.training.log import Log
from tests import strict_cupy
from tests.conftest import GPU_PROBLEM
from tests.games.test_adversarial import CHANNELS, LATENT, SIZE, batches, networks, run_ours
from tests.helpers import relative_error

EXAMPLE = Path(__file__).parent.parent / "examples" / "mnist_dcgan.py"


def is_double(gpu):
    return isinstance(gpu, strict_cupy._Module)


@pytest.fixture(autouse=True)
def precision_as_it_was():
    yield
    backend.set_matmul_precision("float32")


# ---------------------------------------------------------------------------------------------------------- a step


@pytest.mark.parametrize(("precision", "loss_scaling"), [("float32", False), ("tf32", False), ("fp16", True)])
def test_a_step_moves_nothing_and_waits_for_nothing(double, precision, loss_scaling):
    g, d = (network.to("gpu") for network in networks(np.float32))
    opt_g, opt_d = Adam(g, loss_scaling=loss_scaling), Adam(d, loss_scaling=loss_scaling)
    ((real, z),) = batches(1, np.float32)
    real, z = backend.to_device(real, "gpu"), backend.to_device(z, "gpu")
    backend.set_matmul_precision(precision)
    strict_cupy.transfers.clear()
    result = adversarial_step(g, d, opt_g, opt_d, real, z)
    assert strict_cupy.transfers == []
    assert all(isinstance(value, double.ndarray) and value.shape == () for value in result)
    everything = [*g.state_dict().items(), *d.state_dict().items(), *opt_g.state.items(), *opt_d.state.items()]
    for name, array in everything:
        assert isinstance(array, double.ndarray) or name.endswith("num_batches_tracked"), f"{name} is on the host"


class Watched(Run):
    """Notes what crossed between the host and the device since the step before."""

    def note(self, at, seen):
        self.crossed.append(list(strict_cupy.transfers))
        strict_cupy.transfers.clear()
        super().note(at, seen)


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "kernel by kernel"])
@pytest.mark.parametrize("changed", [False, True], ids=["plain", "with options"])
def test_between_steps_only_a_batch_and_its_noise_cross_and_losses_are_read_now_and_then(
    double, tmp_path, changed, graph, monkeypatch
):
    monkeypatch.setattr(backend.graphs, "ON", graph)
    images = np.random.default_rng(0).integers(0, 256, (8 * 12, SIZE, SIZE, 1)).astype(np.uint8)
    loader = Loader(images, batch_size=8, device="gpu")
    changes = {"loss": "lsgan", "instance_noise": 0.1, "ema": 0.9, "lr_decay": "linear"} if changed else {}
    game = DCGAN(DCGANOptions(latent=LATENT, width=2, **changes), loader.shapes, "gpu")
    run = Watched(tmp_path, log_every=5)
    run.crossed = crossed = []
    train(game, loader, run, epochs=1)
    batch, noise = ("to device", (8, SIZE, SIZE, 1)), ("to device", (8, LATENT))
    losses = [("to host", (5 * steps,)) for steps in (4, 5)]  # those of the first step are printed at once
    quiet = [batch, noise, *(2 * [batch] if changed else [])]  # noise on real and on fake images
    quiet += [("to device", (2,))] if graph and changed else []  # learning rates that fall
    assert crossed[5:11] == [[losses[0], *quiet]] + [quiet] * 4 + [[losses[1], *quiet]]


@pytest.mark.parametrize("loss", ["saturating", "lsgan", "hinge"])
def test_other_games_move_nothing_either(double, loss):
    g, d = (network.to("gpu") for network in networks(np.float32))
    opt_g, opt_d, soft = Adam(g), Adam(d), 0.0 if loss == "hinge" else 0.1
    ((real, z),) = batches(1, np.float32)
    real, z = backend.to_device(real, "gpu"), backend.to_device(z, "gpu")
    noise = [0.1 * real, 0.2 * real]
    strict_cupy.transfers.clear()
    discriminator_step(g, d, opt_d, real, z, loss=loss, label_smoothing=soft, noise=noise)
    result = adversarial_step(g, d, opt_g, opt_d, real, z, loss=loss, label_smoothing=soft, noise=noise)
    assert strict_cupy.transfers == []
    assert all(isinstance(value, double.ndarray) and value.shape == () for value in result)


def draws_in_a_step(game):
    """Whether a layer draws on the host inside a step, as Dropout does: its zeros have to cross."""
    return any(hasattr(layer, "rng") for network in game.networks().values() for _, layer in network.named_layers())


@pytest.mark.parametrize("name", GAMES)
def test_a_step_of_every_game_waits_for_nothing_and_is_the_cpus(double, name):
    game_class, options, shapes = GAMES[name]
    results = {}
    for device in ("cpu", "gpu"):
        game = game_class(game_class.Options.of(options), shapes, device, seed=1)
        batches = random_batches(shapes, game.batches, np.random.default_rng(0), device)
        batches = [
            {k: a.astype(np.float32) if a.dtype.kind == "f" else a for k, a in batch.items()} for batch in batches
        ]
        game.reseed(1, 1)
        inputs = game.draw(batches, np.random.default_rng(1), At(1, 1, 4))
        strict_cupy.transfers.clear()
        seen = game.step(**inputs)
        if device == "gpu":
            kinds = {direction for direction, _ in strict_cupy.transfers}
            assert kinds <= ({"to device"} if draws_in_a_step(game) else set())
            assert all(isinstance(value, double.ndarray) and value.shape == () for value in seen)
        assert {value.dtype for value in seen} == {np.dtype(np.float32)}
        gradients = {
            f"{key}.{name}": backend.to_numpy(gradient).copy()
            for key, network in game.networks().items()
            for name, _, gradient in network.named_parameters()
        }
        results[device] = [float(value) for value in seen], gradients
    np.testing.assert_allclose(results["gpu"][0], results["cpu"][0], rtol=1e-4, atol=1e-5)
    largest = max(abs(gradient).max() for gradient in results["cpu"][1].values())
    for key, expected in results["cpu"][1].items():
        assert abs(results["gpu"][1][key] - expected).max() <= 1e-4 * largest, key


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_50_steps_are_the_cpus(gpu, dtype, tolerance):
    """float32: the largest sum here has 4096 terms, and Adam makes one small error into one of the learning rate."""
    ours, g, d = run_ours(50, dtype, "gpu")
    cpus, cpu_g, cpu_d = run_ours(50, dtype, "cpu")
    np.testing.assert_allclose(ours, cpus, rtol=tolerance)
    for network, other in ((g, cpu_g), (d, cpu_d)):
        for name, array in network.state_dict().items():
            assert relative_error(backend.to_numpy(array), other.state_dict()[name]) < 100 * tolerance, name


@pytest.mark.parametrize("fast", [True, False])
def test_the_readable_path_and_the_fast_one_are_the_cpus(double, fast, monkeypatch):
    monkeypatch.setattr(dispatch, "FAST", fast)
    np.testing.assert_allclose(run_ours(5, np.float64, "gpu")[0], run_ours(5, np.float64, "cpu")[0], rtol=1e-12)


def test_another_gpu_is_used_from_beginning_to_end(double):
    """The double refuses an array of another device than the current one."""
    ours, g, _ = run_ours(3, np.float64, "gpu:1")
    assert {array.device.id for _, array, _ in g.named_parameters()} == {1}
    np.testing.assert_allclose(ours, run_ours(3, np.float64, "cpu")[0], rtol=1e-12)


def test_activations_stay_channels_last(gpu, rng):
    """CuPy returns elementwise results in C order; a convolution would have to copy them."""
    network = layers.Sequential(
        layers.Conv2d(3, 4, kernel_size=3, padding=1, rng=rng), layers.BatchNorm2d(4), layers.ReLU(), layers.Tanh(),
        layers.Sigmoid(), layers.LeakyReLU(negative_slope=0.2), layers.ConvTranspose2d(4, 3, kernel_size=2, rng=rng),
    ).to("gpu")  # fmt: skip
    x = backend.to_device(rng.standard_normal((2, 3, 5, 6)).astype(np.float32), "gpu")
    caches, outputs = [], []
    for layer in network.layers:
        assert x.transpose(0, 2, 3, 1).flags.c_contiguous, f"before {layer!r}"
        x, cache = layer.forward(x)
        caches.append(cache)
        outputs.append(x)
    dy = backend.to_device(rng.standard_normal(x.shape).astype(np.float32), "gpu")
    for layer, cache in reversed(list(zip(network.layers, caches, strict=True))):
        dy = layer.backward(dy, cache)
        pixels = dy.transpose(0, 2, 3, 1)
        assert pixels.strides[-1] == dy.dtype.itemsize, f"after {layer!r}"  # a convolution's dx lies within its padding


@pytest.mark.gpu
def test_memory_does_not_grow_over_1000_steps(tmp_path):
    if GPU_PROBLEM:
        pytest.skip(GPU_PROBLEM)
    pool = sys.modules["cupy"].get_default_memory_pool()
    g, d = (network.to("gpu") for network in networks(np.float32))
    opt_g, opt_d = Adam(g), Adam(d)
    pictures = np.random.default_rng(0).integers(0, 256, (8 * 1000, SIZE, SIZE, CHANNELS)).astype(np.uint8)
    noise, log, seen = np.random.default_rng(1), Log(tmp_path / "log.csv", DCGAN.fields()), []
    for step, batch in enumerate(Loader(pictures, batch_size=8, device="gpu").epoch(1), start=1):
        real = batch["images"]
        z = backend.to_device(noise.standard_normal((8, LATENT), dtype=np.float32), "gpu")
        log.add(1, step, adversarial_step(g, d, opt_g, opt_d, real, z), 0.0)
        if step % 100 == 0:
            log.fetch()
            seen.append((pool.used_bytes(), pool.total_bytes()))
    log.close()
    assert len(set(seen[1:])) == 1, seen


# ------------------------------------------------------------------------------------------------- data and pictures


@pytest.mark.parametrize("ahead", [1, 3])
def test_batches_that_travel_ahead_arrive_whole_and_in_order(gpu, ahead, rng):
    size = 4 if is_double(gpu) else 2_000  # on a card large enough that a missing wait shows
    sent = [rng.integers(0, 256, (n, 5, size, 3), dtype=np.uint8) for n in (600, 600, 600, 600, 600, 200)]
    held = list(backend.copied_ahead(iter(sent), "gpu", ahead=ahead))  # all of them kept: none may be overwritten
    assert len(held) == len(sent)
    for there, batch in zip(held, sent, strict=True):
        assert isinstance(there, gpu.ndarray)
        np.testing.assert_array_equal(backend.to_numpy(there), batch)


@pytest.mark.parametrize("ahead", [1, 3])
def test_every_column_of_a_batch_travels(gpu, ahead, rng):
    """Each in memory of its own: columns of other sizes, types and dimensions, in batches of other lengths."""
    size = 4 if is_double(gpu) else 2_000
    sent = [
        {"images": rng.integers(0, 256, (n, 5, size, 3), dtype=np.uint8),
         "more": rng.integers(0, 256, (n, 2, size, 1), dtype=np.uint8),
         "labels": rng.integers(0, 10, n), "points": rng.random((n, 2))}
        for n in (300, 400, 300, 300, 300, 20)
    ]  # fmt: skip
    held = list(backend.copied_ahead(iter(sent), "gpu", ahead=ahead))
    assert len(held) == len(sent)
    for there, batch in zip(held, sent, strict=True):
        assert list(there) == list(batch)
        for name, array in batch.items():
            assert isinstance(there[name], gpu.ndarray)
            assert there[name].dtype == array.dtype
            np.testing.assert_array_equal(backend.to_numpy(there[name]), array)


def test_a_batch_is_used_at_once(gpu, rng):
    sent = [rng.standard_normal((4, 3)).astype(np.float32) for _ in range(5)]
    sums = [backend.to_numpy((there * 2).sum()) for there in backend.copied_ahead(iter(sent), "gpu")]
    np.testing.assert_allclose(sums, [2 * batch.sum() for batch in sent], rtol=1e-5)


def test_batches_arrive_on_their_device_whichever_is_current(double, rng):
    sent = [rng.standard_normal((2, 3)) for _ in range(4)]
    for there, batch in zip(backend.copied_ahead(iter(sent), "gpu:1"), sent, strict=True):
        assert there.device.id == 1
        with double.cuda.Device(1):
            np.testing.assert_array_equal(there.get(), batch)
        double.cuda.Device(0).use()


def test_a_loop_that_is_left_early_waits_for_what_travels(double, rng):
    """The memory goes back to the pool: a copy that is still to come would overwrite what is put there next."""
    before = double.cuda.Stream
    streams = []

    class Stream(before):
        def __init__(self, **options):
            super().__init__(**options)
            streams.append(self)

    double.cuda.Stream = Stream
    try:
        batches = backend.copied_ahead((rng.standard_normal((4, 3)) for _ in range(5)), "gpu")
        next(batches)
        assert any(copy is not None for copy in streams[-1]._queue)
        batches.close()
        assert all(copy is None for copy in streams[-1]._queue)
    finally:
        double.cuda.Stream = before


def test_another_thread_uses_the_device_it_names(double):
    """CuPy's current device is each thread's own, and 0 where none was chosen."""
    device = backend.get_device("gpu:1")
    with ThreadPoolExecutor(1) as thread:
        x = thread.submit(lambda: backend.to_device(np.ones(3), device) * 2).result()
    assert x.device.id == 1


def test_the_next_batch_leaves_before_the_last_one_is_used(double, rng):
    order = []

    def batches():
        for i in range(3):
            order.append(f"read {i}")
            yield rng.standard_normal((2, 2))

    for i, _ in enumerate(backend.copied_ahead(batches(), "gpu")):
        order.append(f"use {i}")
    assert order == ["read 0", "read 1", "use 0", "read 2", "use 1", "use 2"]


def test_a_loader_gives_the_cpus_batches_to_the_bit(gpu, rng):
    pictures = rng.integers(0, 256, (11, 6, 5, 3)).astype(np.uint8)
    columns = {"images": pictures, "labels": np.arange(11), "points": rng.random((11, 2))}
    there = list(Loader(columns, batch_size=4, device="gpu").epoch(1))
    here = list(Loader(columns, batch_size=4).epoch(1))
    for batch, expected in zip(there, here, strict=True):
        assert batch["images"].transpose(0, 2, 3, 1).flags.c_contiguous
        for name, array in expected.items():
            assert batch[name].shape == array.shape
            assert batch[name].dtype == array.dtype
            np.testing.assert_array_equal(backend.to_numpy(batch[name]), array)


def test_checkpoints_cross_over_and_draw_the_same(gpu, tmp_path, rng):
    g, _ = networks(np.float32)
    checkpoint.save(tmp_path / "cpu.safetensors", g)
    z = rng.standard_normal((5, LATENT)).astype(np.float32)
    expected = sample(g, z)
    there = checkpoint.load_generator(tmp_path / "cpu.safetensors").to("gpu")
    drawn = backend.to_numpy(sample(there, backend.to_device(z, "gpu"), batch_size=2))
    np.testing.assert_allclose(drawn, expected, atol=1e-5)
    checkpoint.save(tmp_path / "gpu.safetensors", there)
    assert (tmp_path / "gpu.safetensors").read_bytes() == (tmp_path / "cpu.safetensors").read_bytes()
    fresh, _ = networks(np.float32)
    checkpoint.load(tmp_path / "gpu.safetensors", fresh.to("gpu"))
    np.testing.assert_array_equal(
        backend.to_numpy(fresh.state_dict()["main.0.weight"]), g.state_dict()["main.0.weight"]
    )


def run_example(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    return exit.value.code


def test_the_example_trains_and_draws_there(gpu, tmp_path, monkeypatch):
    options = "--data", "digits", "--dry-run", "--image-size", "16", "--width", "4", "--batch-size", "8"
    assert run_example(monkeypatch, "--device", "gpu", "--out", tmp_path / "gpu", *options) == 0
    assert run_example(monkeypatch, "--device", "cpu", "--out", tmp_path / "cpu", *options) == 0
    for name in ("real.png", "training.gif", "losses.png", "generator.safetensors"):
        assert (tmp_path / "gpu" / name).stat().st_size > 0
    logs = [(tmp_path / kind / "log.csv").read_text(encoding="utf-8") for kind in ("gpu", "cpu")]
    rows = [list(csv.DictReader(log.splitlines())) for log in logs]
    assert len(rows[0]) == len(rows[1]) > 1
    for ours, cpus in zip(*rows, strict=True):
        for name in ("loss_d", "loss_g", "d_real"):
            assert float(ours[name]) == pytest.approx(float(cpus[name]), abs=1e-4)
    drawn = "--generate", "4", "--checkpoint", tmp_path / "gpu" / "generator.safetensors"
    assert run_example(monkeypatch, "--device", "gpu", "--out", tmp_path / "drawn", *drawn) == 0
    assert (tmp_path / "drawn" / "generated.png").stat().st_size > 0


def test_gradients_are_slopes_there(gpu, monkeypatch, capsys):
    """The command itself, all of it on a real card, some operations in the double's hands."""
    names = [] if not is_double(gpu) else ["conv2d", "batchnorm", "leaky_relu", "bce", "BatchNorm2d"]
    monkeypatch.setattr(sys, "argv", ["gradcheck", "--device", "gpu", *(f"--op={name}" for name in names)])
    assert gradcheck_command.main() == 0, capsys.readouterr().out


# ------------------------------------------------------------------------------------------------- what goes wrong


def test_too_little_memory_gets_one_sentence_with_the_settings_to_lower(gpu, capsys, monkeypatch):
    def main():
        if not is_double(gpu):
            gpu.empty(1 << 50, np.uint8)
        raise gpu.cuda.memory.OutOfMemoryError("Out of memory allocating 1,125,899,906,842,624 bytes")

    monkeypatch.setattr(sys, "argv", ["example"])
    with pytest.raises(SystemExit) as exit:
        cli.run(main)
    told = capsys.readouterr().err
    assert exit.value.code == 1
    assert "out of memory" in told
    assert "--batch-size" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("CUBLAS_STATUS_ALLOC_FAILED", "out of memory (CUBLAS_STATUS_ALLOC_FAILED): use smaller batches"),
        ("cudaErrorMemoryAllocation: out of memory", "NANOGAN_GRAPH=0 saves memory, too"),
        ("cudaErrorIllegalAddress: an illegal\nmemory access", "the GPU stopped working (cudaErrorIllegalAddress"),
    ],
)
def test_errors_of_cudas_libraries_get_one_sentence(text, told, capsys, monkeypatch):
    Error = type("CUDARuntimeError", (RuntimeError,), {"__module__": "cupy_backends.cuda.api.runtime"})

    def main():
        raise Error(text)

    monkeypatch.setattr(sys, "argv", ["example"])
    with pytest.raises(SystemExit) as exit:
        cli.run(main)
    err = capsys.readouterr().err
    assert exit.value.code == 1
    assert told in err
    assert err.count("\n") == 1
