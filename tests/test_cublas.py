"""Products by cuBLAS itself: row-major matrices of any layout, and what they are added to.

The double's cuBLAS is column-major and strict (tests/strict_cupy/cublas.py).
"""

import numpy as np
import pytest

from nanogan import backend
from nanogan.backend import cublas
from tests import strict_cupy
from tests.helpers import relative_error

TOLERANCE = {"float32": 1e-6, "float64": 1e-14, "float16": 1e-6}


@pytest.fixture(autouse=True)
def precision_as_it_was():
    yield
    backend.set_matmul_precision("float32")


def layouts(rng, shape, dtype):
    """{name: a matrix of that shape that lies in memory like this}."""
    M, K = shape
    return {
        "rows": rng.standard_normal((M, K)).astype(dtype),
        "columns": rng.standard_normal((K, M)).astype(dtype).T,
        "rows with gaps": rng.standard_normal((M, K + 3)).astype(dtype)[:, 1 : K + 1],
        "columns with gaps": rng.standard_normal((K, M + 2)).astype(dtype)[:, :M].T,
        "every other number": rng.standard_normal((2 * M, 2 * K)).astype(dtype)[::2, ::2],
    }


NAMES = list(layouts(np.random.default_rng(0), (1, 1), np.float32))


def on_gpu(cupy, matrix):
    """A matrix on the device, with the strides of ``matrix``."""
    base = matrix
    while base.base is not None:
        base = base.base
    whole = cupy.asarray(base)
    offset = (matrix.ctypes.data - base.ctypes.data) // base.itemsize
    strides = np.array(matrix.strides) // base.itemsize
    flat = whole.reshape(-1)[offset:]
    return cupy.lib.stride_tricks.as_strided(flat, matrix.shape, tuple(int(s) * base.itemsize for s in strides))


@pytest.mark.parametrize("a", NAMES)
@pytest.mark.parametrize("b", NAMES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("add", [False, True])
def test_matrices_of_any_layout(double, a, b, dtype, add, rng):
    a, b = layouts(rng, (4, 3), dtype)[a], layouts(rng, (3, 5), dtype)[b]
    out = rng.standard_normal((4, 5)).astype("float32" if dtype == "float16" else dtype)
    expected = (out if add else 0) + a.astype(np.float64) @ b.astype(np.float64)
    there = double.asarray(out)
    strict_cupy.launches.clear()
    assert cublas.product(on_gpu(double, a), on_gpu(double, b), out=there, add=add) is there
    assert strict_cupy.launches.count("gemm") == 1
    assert relative_error(there.get(), expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 1), (6, 1, 5), (1, 4, 5), (6, 4, 1), (3, 0, 2), (0, 3, 2)])
@pytest.mark.parametrize("add", [False, True])
def test_matrices_of_one_row_one_column_and_none(double, shape, add, rng):
    M, K, N = shape
    a, b, out = (rng.standard_normal(s) for s in ((M, K), (K, N), (M, N)))
    there = double.asarray(out)
    cublas.product(double.asarray(a), double.asarray(b), out=there, add=add)
    np.testing.assert_allclose(there.get(), (out if add else 0) + a @ b, atol=1e-14)


def test_what_out_held_is_not_read_unless_it_is_added_to(double, rng):
    a, b = rng.standard_normal((4, 3)), rng.standard_normal((3, 5))
    there = double.full((4, 5), np.nan)
    cublas.product(double.asarray(a), double.asarray(b), out=there)
    np.testing.assert_allclose(there.get(), a @ b)


def test_out_may_be_rows_of_a_larger_array(double, rng):
    whole = rng.standard_normal((4, 9))
    a, b, there = rng.standard_normal((4, 3)), rng.standard_normal((3, 5)), double.asarray(whole)
    cublas.product(double.asarray(a), double.asarray(b), out=there[:, 2:7], add=True)
    whole[:, 2:7] += a @ b
    np.testing.assert_allclose(there.get(), whole)


def test_tf32_reads_ten_bits_of_float32_and_of_nothing_else(double, rng):
    for dtype, rounded in (("float32", True), ("float64", False)):
        a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((8, 30), (30, 8)))
        there = double.empty((8, 8), dtype)
        cublas.product(double.asarray(a), double.asarray(b), out=there, tf32=True)
        error = relative_error(there.get(), a.astype(np.float64) @ b.astype(np.float64))
        assert (error > 1e-5) == rounded
        assert error < 2e-3


@pytest.mark.parametrize(
    ("a", "b", "out", "message"),
    [
        ((4, 3), (4, 5), (4, 5), "matrices that fit, got .4, 3. and .4, 5."),
        ((4, 3), (3, 5), (5, 4), "out expected shape .4, 5."),
    ],
)
def test_what_does_not_fit_is_refused(double, a, b, out, message):
    with pytest.raises(AssertionError, match=message):
        cublas.product(double.zeros(a), double.zeros(b), out=double.zeros(out))


def test_out_has_to_be_rows_without_gaps(double):
    with pytest.raises(AssertionError, match="out expected rows without gaps"):
        cublas.product(double.zeros((4, 3)), double.zeros((3, 5)), out=double.zeros((5, 4)).T)


@pytest.mark.parametrize("precision", ["float32", "tf32", "fp16", "bf16"])
def test_products_add_themselves_to_gradients(double, precision, rng):
    """As product() and a sum; where cuBLAS is not found, CuPy's own product serves."""
    backend.get_device("gpu")
    backend.set_matmul_precision(precision)
    a, b, out = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 3), (3, 5), (4, 5)))
    results = []
    for found in (True, False):
        cublas.wanted = found
        try:
            there = double.asarray(out)
            backend.add_product(there, double.asarray(a), double.asarray(b))
            product = backend.product(double.asarray(a), double.asarray(b))
        finally:
            cublas.wanted = True
        assert product.dtype == there.dtype == np.float32
        np.testing.assert_allclose(there.get(), out + product.get(), rtol=1e-6, atol=1e-6)
        results.append(product.get())
    np.testing.assert_allclose(*results, rtol=1e-3 if precision == "tf32" else 1e-5, atol=2e-3)


def test_a_library_that_is_not_there_leaves_products_to_cupy(double, monkeypatch, rng):
    def missing(cupy):
        raise OSError("libcublas.so.13: cannot open shared object file")

    monkeypatch.setattr(cublas, "open_library", missing)
    monkeypatch.setattr(cublas, "_library", None)
    assert not cublas.available(double)
    a, b = rng.standard_normal((4, 3)), rng.standard_normal((3, 5))
    np.testing.assert_allclose(backend.product(double.asarray(a), double.asarray(b)).get(), a @ b)


def test_each_stream_has_a_workspace_of_its_own(double, rng):
    a, out = double.asarray(rng.standard_normal((3, 3))), double.empty((3, 3))
    cublas.product(a, a, out=out)
    stream = double.cuda.Stream(non_blocking=True)
    with stream:
        cublas.product(a, a, out=out)
        cublas.product(a, a, out=out)
    handles = list(cublas._handles.values())
    assert len(handles) == 2
    assert handles[0].workspace.ptr != handles[1].workspace.ptr
