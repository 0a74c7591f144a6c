"""The convolution kernels of nanogan/fast/gpu/conv4s2.cu against nanogan.ops, and through the compiler.

In the strict double the kernels' own C++ runs, compiled by g++; a real card runs it where there is one.
"""

import importlib
import itertools
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from benchmarks import kernels
from nanogan import backend, dispatch, layers, ops
from nanogan.errors import UserError
from tests.helpers import channels_last, relative_error

# N, P, Q, C, R: N*P*Q below a tile and above it, C and R that are no multiples of a tile
SIZES = [(2, 3, 5, 16, 48), (3, 7, 7, 48, 16), (1, 2, 2, 32, 80)]
EXACT, TF32 = 2e-6, 2e-3  # relative errors


@pytest.fixture
def conv4s2(gpu, monkeypatch):
    """The module, on CuPy or its double, with an empty table."""
    backend.get_device("gpu")
    dispatch.load("gpu")
    module = importlib.import_module("nanogan.fast.gpu.conv4s2")
    monkeypatch.setattr(module, "gpu_name", lambda index: "this GPU")
    monkeypatch.setattr(module, "TABLE", {})
    yield module
    backend.set_matmul_precision("float32")


def choose(module, tile, *all_sizes, directions=("down", "up", "wgrad"), precisions=("float32", "tf32")):
    """Fill the table."""
    for sizes in all_sizes:
        module.TABLE.update({("this GPU", p, direction, sizes): tile for p in precisions for direction in directions})


def there(x):
    return backend.to_device(x, "gpu")


def draw(rng, *shape):
    return channels_last(rng.standard_normal(shape, dtype=np.float32))


def both_operations(rng, sizes):
    """Yield (forward, backward, x, w, b, dy) of the convolution and of the transposed one, with NumPy arrays."""
    N, P, Q, C, R = sizes
    large, small = draw(rng, N, C, 2 * P, 2 * Q), draw(rng, N, R, P, Q)
    w = draw(rng, R, C, 4, 4)
    yield ops.conv2d_forward, ops.conv2d_backward, large, w, draw(rng, R), small
    yield ops.conv_transpose2d_forward, ops.conv_transpose2d_backward, small, w, draw(rng, C), large


def errors(rng, sizes, expected_path):
    """{what: relative error} of both operations by dispatch, against float64."""
    found = {}
    for forward, backward, x, w, b, dy in both_operations(rng, sizes):
        y, cache = forward(*(a.astype(np.float64) for a in (x, w, b)), stride=2, padding=1)
        expected = (y, *backward(dy.astype(np.float64), cache))
        with dispatch.watch() as ran:
            y, (chosen, cache) = dispatch.dispatch(forward, backward, *map(there, (x, w, b)), stride=2, padding=1)
        assert ran == [f"nanogan.fast.gpu.{expected_path}.{forward.__name__}"]
        for name, got, right in zip(("y", "dx", "dw", "db"), (y, *chosen(there(dy), cache)), expected, strict=True):
            got = backend.to_numpy(got)
            assert got.dtype == np.float32
            found[forward.__name__, name] = relative_error(got, right)
    return found


@pytest.mark.parametrize("number", range(4))
def test_every_tile_computes_the_readable_operations(conv4s2, number, rng):
    for sizes in (SIZES[:1], SIZES[1:2], SIZES[1:2], SIZES)[number]:
        choose(conv4s2, conv4s2.TILES[number], sizes)
        found = errors(rng, sizes, "conv4s2")
        assert max(found.values()) < EXACT, (sizes, found)


def test_sums_of_4096_products_are_as_exact_as_float32s(conv4s2, rng):
    """As in a layer of 256 channels. Added up in the tensor cores they are off by 4e-5."""
    large, w = draw(rng, 1, 256, 4, 4), draw(rng, 16, 256, 4, 4)
    exact, _ = ops.conv2d_forward(large.astype(np.float64), w.astype(np.float64), stride=2, padding=1)
    assert relative_error(backend.to_numpy(conv4s2.down(there(large), there(w), (64, 32))), exact) < EXACT


def test_tf32_is_tf32(conv4s2, rng):
    choose(conv4s2, (64, 64), SIZES[1])
    backend.set_matmul_precision("tf32")
    found = errors(rng, SIZES[1], "conv4s2")
    assert max(found.values()) < TF32, found
    assert min(error for (_, name), error in found.items() if name != "db") > 10 * EXACT, found


@pytest.mark.parametrize(
    ("directions", "expected"),
    [
        (["down"], "down"),  # the transposed convolution's dx and dw share a gather, so both do without the kernels
        (["up"], "up up"),
        (["wgrad"], "wgrad add_parts"),
        (["down", "wgrad"], "down wgrad add_parts down wgrad add_parts"),
    ],
)
def test_what_was_not_chosen_is_computed_as_before(conv4s2, directions, expected, monkeypatch, rng):
    ran, run = [], conv4s2._run
    monkeypatch.setattr(conv4s2, "_run", lambda name, *args: (ran.append(name), run(name, *args)))
    choose(conv4s2, (64, 32), SIZES[0], directions=directions)
    found = errors(rng, SIZES[0], "conv4s2")
    assert max(found.values()) < EXACT, found
    assert " ".join(ran) == expected


@pytest.mark.parametrize("directions", [("down", "up", "wgrad"), ("down", "up")])
def test_only_what_is_needed_is_computed_and_dw_is_added(conv4s2, directions, rng):
    choose(conv4s2, (64, 32), SIZES[0], directions=directions)
    for forward, backward, x, w, _, dy in both_operations(rng, SIZES[0]):
        expected_dx, expected_dw, _ = backward(dy, forward(x, w, stride=2, padding=1)[1])
        _, (chosen, cache) = dispatch.dispatch(forward, backward, there(x), there(w), stride=2, padding=1)
        dx, dw, db = chosen(there(dy), cache, need_dw=False)
        assert (dw, db) == (None, None)
        assert relative_error(backend.to_numpy(dx), expected_dx) < EXACT
        dx, dw, db = chosen(there(dy), cache, need_dx=False)
        assert (dx, db) == (None, None)
        assert relative_error(backend.to_numpy(dw), expected_dw) < EXACT
        start = draw(rng, *w.shape)
        gradient = there(start)
        assert chosen.adds_gradients
        assert chosen(there(dy), cache, need_dx=False, into=[gradient])[1] is None
        assert relative_error(backend.to_numpy(gradient), start + expected_dw) < EXACT


def test_any_order_and_place_in_memory(conv4s2, rng):
    """Channels first, and a weight that begins 4 bytes behind a multiple of 16."""
    N, P, Q, C, R = SIZES[0]
    large, w = draw(rng, N, C, 2 * P, 2 * Q), draw(rng, R, C, 4, 4)
    y, _ = ops.conv2d_forward(large, w, stride=2, padding=1)
    flat = there(np.concatenate([np.zeros(1, np.float32), w.transpose(0, 2, 3, 1).ravel()]))
    shifted = flat[1:].reshape(R, 4, 4, C).transpose(0, 3, 1, 2)
    got = conv4s2.down(there(np.ascontiguousarray(large)), shifted, (64, 32))
    assert relative_error(backend.to_numpy(got), y) < EXACT


def test_a_layer_adds_the_same_gradients(conv4s2, rng):
    N, P, Q, C, R = SIZES[0]
    x, dy = draw(rng, N, C, 2 * P, 2 * Q), draw(rng, N, R, P, Q)
    choose(conv4s2, (64, 32), SIZES[0])
    layer = layers.Conv2d(C, R, 4, 2, 1, rng=rng)
    expected = {}
    for device in ("cpu", "gpu"):
        layer.to(device)
        layer.zero_grad()
        for _ in range(2):
            _, cache = layer.forward(backend.to_device(x, device))
            layer.backward(backend.to_device(dy, device), cache)
        for name, gradient in layer.grads.items():
            assert relative_error(backend.to_numpy(gradient), expected.setdefault(name, gradient)) < EXACT, name


# -------------------------------------------------------------------------------------------------------- the table


def test_nothing_in_the_table_serves_nothing(conv4s2, rng):
    errors(rng, SIZES[0], "conv")
    for forward, *_ in both_operations(rng, SIZES[0]):
        assert [path.priority for path in dispatch._paths["gpu", forward]] == [1, 0]


def test_only_what_was_measured_is_served(conv4s2, monkeypatch):
    choose(conv4s2, (64, 32), (2, 3, 3, 16, 16), (2, 3, 3, 3, 16), precisions=("float32",))
    options = {"stride": 2, "padding": 1}
    ones = lambda *shape: there(np.ones(shape, np.float32))  # noqa: E731
    w, large, small = ones(16, 16, 4, 4), ones(2, 16, 6, 6), ones(2, 16, 3, 3)
    served, transposed = conv4s2.serves_conv2d, conv4s2.serves_conv_transpose2d
    assert served(large, w, **options)
    assert transposed(small, w, **options)
    assert not served(ones(3, 16, 6, 6), w, **options)  # another batch
    assert not served(ones(2, 16, 7, 6), w, **options)
    assert not served(ones(2, 3, 6, 6), ones(16, 3, 4, 4), **options), "3 channels are no multiple of 16"
    assert not served(large, ones(16, 3, 4, 4), **options)
    assert not served(large, w, stride=1, padding=1)
    assert not served(large, w, stride=2, padding=(1, 0))
    assert not served(large.astype(np.float64), w.astype(np.float64), **options)
    assert not transposed(small, w, output_padding=1, **options)
    backend.set_matmul_precision("tf32")
    assert not served(large, w, **options), "it was not measured in this precision"
    backend.set_matmul_precision("float32")
    monkeypatch.setattr(conv4s2, "gpu_name", lambda index: "another GPU")
    assert not served(large, w, **options)


def test_the_table_of_the_package_is_of_kernels_that_there_are(conv4s2):
    for (_, precision, direction, sizes), tile in conv4s2.read_table(conv4s2.CHOSEN.read_text("utf-8")).items():
        assert precision in conv4s2.PRODUCTS
        assert direction in conv4s2.DIRECTIONS
        assert tile in conv4s2.TILES
        N, P, Q, C, R = sizes
        assert C % conv4s2.BK == R % conv4s2.BK == 0


# --------------------------------------------------------------------------------------------------- the benchmark


def test_the_benchmark_never_chooses_what_is_wrong_or_hardly_faster(conv4s2, monkeypatch):
    double = importlib.import_module("cupy")
    case = kernels.Case("down", SIZES[2], double)
    kernel = case.kernel
    case.kernel = lambda tile, into=None: kernel((64, 32)) * (1.01 if tile == (64, 64) else 1)
    monkeypatch.setattr(kernels, "microseconds", lambda function, cupy: (function(), 10.0)[1])
    found = kernels.measure(case, [(64, 64), (64, 32)], "float32", double)
    assert found == {None: 10, (64, 64): "wrong by 1e-02", (64, 32): 10}
    assert kernels.fastest(found) is None
    assert kernels.fastest(found | {(64, 32): 9.6}) is None
    assert kernels.fastest(found | {(64, 32): 9.4}) == (64, 32)
    line = kernels.row("down", SIZES[2], "float32", found | {(64, 32): 5.0})
    assert line == "| 1 x 2 x 2, 32 -> 80 | down | float32 | 10.0 | wrong by 1e-02 | 5.0 | 0.1 | 50% | 64x32 |"


def test_what_the_benchmark_writes_is_what_the_kernels_read(conv4s2, tmp_path):
    path = tmp_path / "chosen.json"
    path.write_text('{"other": {"tf32 up 1 2 3 16 16": [64, 64]}, "this": {"tf32 up 1 2 3 16 16": [64, 64]}}', "utf-8")
    choices = {("float32", "down", SIZES[0]): (128, 64), ("tf32", "up", (1, 2, 3, 16, 16)): None}
    kernels.write_table(path, "this", choices)
    assert conv4s2.read_table(path.read_text("utf-8")) == {
        ("other", "tf32", "up", (1, 2, 3, 16, 16)): (64, 64),
        ("this", "float32", "down", SIZES[0]): (128, 64),
    }
    assert '"float32 down 2 3 5 16 48": [128, 64]' in path.read_text("utf-8"), "a row, a line"


def test_the_benchmark_needs_a_gpu(monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmarks.kernels", "--device", "cpu"])
    with pytest.raises(UserError, match="benchmarks.kernels measures kernels of a GPU and needs one, got --device cpu"):
        kernels.main()


def test_the_benchmark_measures_the_layers_of_a_dcgan():
    assert kernels.sizes_of(kernels.MEASURED["mnist"]) == [(32, 7, 7, 32, 64)]
    assert kernels.sizes_of(kernels.MEASURED["64"]) == [
        (64, 16, 16, 64, 128), (64, 8, 8, 128, 256), (64, 4, 4, 256, 512),
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------- the compiler


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_tile_compiles_for(arch, double, tmp_path):
    """With nvcc, and without spilling registers."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("there is no nvcc on the PATH")
    backend.get_device("gpu")
    dispatch.load("gpu")
    module = importlib.import_module("nanogan.fast.gpu.conv4s2")

    def compiled(variant):
        (BM, BN), products = variant
        defines = [f"-DBM={BM}", f"-DBN={BN}", f"-DPRODUCTS={products}"]
        command = [nvcc, "-cubin", "-std=c++17", f"-arch={arch}", "-Xptxas", "-v", *defines]
        command += [str(module.CHOSEN.with_name("conv4s2.cu")), "-o", str(tmp_path / f"{BM}x{BN}x{products}.cubin")]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    variants = list(itertools.product(module.TILES, module.PRODUCTS.values()))
    with ThreadPoolExecutor(2) as pool:
        for variant, done in zip(variants, pool.map(compiled, variants), strict=True):
            assert done.returncode == 0, done.stderr
            assert done.stderr.count("0 bytes spill stores") == 4, (variant, done.stderr)
