"""The stand-in for CuPy refuses what a GPU refuses, and knows only what CuPy has."""

import json
import sys

import numpy as np
import pytest

from nanogan import backend, dispatch
from tests import strict_cupy
from tests.strict_cupy import collect

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "slip",
    [
        lambda cp, x: np.exp(x),
        lambda cp, x: np.asarray(x),
        lambda cp, x: np.concatenate([x, x]),
        lambda cp, x: x + X,
        lambda cp, x: X * x,
        lambda cp, x: x.__iadd__(X),
        lambda cp, x: x @ X[0].T,
        lambda cp, x: x.__setitem__(..., X),
        lambda cp, x: x.__setitem__(..., [1.0, 2.0, 3.0, 4.0]),
        lambda cp, x: x[np.array([0, 1])],
        lambda cp, x: x[[0, 1]],
        lambda cp, x: cp.maximum(x, X),
        lambda cp, x: cp.stack([x, X]),
        lambda cp, x: cp.where(x > 0, X, 0),
        lambda cp, x: x * np.float64(2),
        lambda cp, x: np.float64(2) * x,
        lambda cp, x: range(x[0, 0, 1]),
        lambda cp, x: {x: 1},
        lambda cp, x: cp.sum(x, where=x > 0),
        lambda cp, x: x.sum(initial=0.0),
        lambda cp, x: cp.maximum(x, 0, where=x > 0),
        lambda cp, x: cp.exp(x, order="K"),
        lambda cp, x: x.set(X.astype(np.float64)),
        lambda cp, x: backend.get_device("gpu:1") and x + x,
    ],
)
def test_it_refuses_what_crosses_between_host_and_device(double, slip):
    x = double.asarray(X)
    with pytest.raises((TypeError, ValueError)):
        slip(double, x)


@pytest.mark.parametrize("name", ["errstate", "float128", "add_reduce", "_core_of_it", "frompyfunc"])
def test_it_has_no_names_that_cupy_has_not(double, name):
    with pytest.raises(AttributeError, match=f"cupy 14.2.0 has no '{name}'"):
        getattr(double, name)
    with pytest.raises(AttributeError, match="no attribute 'itemset'"):
        double.asarray(X).itemset(1)


def test_it_computes_as_numpy_does(double):
    x = double.asarray(X)
    for result, expected in [
        (2 * x - x / 3, 2 * X - X / 3),
        (1 / (x + 1) ** 2, 1 / (X + 1) ** 2),
        (x.transpose(2, 0, 1)[1:, ::2] @ x[0], X.transpose(2, 0, 1)[1:, ::2] @ X[0]),
        (double.where(x > 3, x, 0.5).sum(axis=(0, 2)), np.where(X > 3, X, 0.5).sum(axis=(0, 2))),
        (x[x > 5], X[X > 5]),
        (-abs(x).max(axis=1, keepdims=True), -abs(X).max(axis=1, keepdims=True)),
    ]:
        assert isinstance(result, double.ndarray)
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result.get(), expected)


def test_a_view_shares_memory_and_a_single_element_is_one_too(double):
    x = double.asarray(X)
    first = x[0, 0, 0]
    x.transpose(1, 0, 2)[0] += 100
    assert float(first) == 100
    assert x[1:].base is x
    total = x.sum()
    same = total
    total += 1
    assert float(same) == float(total), "a number on the device changes in place"


def test_elementwise_results_are_c_ordered_as_cupys_are(double):
    x = double.asarray(np.ones((2, 5, 6, 3), np.float32)).transpose(0, 3, 1, 2)
    for result in (x + 1, 2 * x, -x, double.tanh(x), double.maximum(x, 0), x > 0):
        assert result.flags.c_contiguous
    for result in (double.empty_like(x), double.zeros_like(x), x.astype(np.float64)):
        assert result.transpose(0, 2, 3, 1).flags.c_contiguous


def test_memory_that_nothing_wrote_is_not_zero(double):
    assert np.isnan(double.empty((2, 2), np.float32).get()).all()
    assert (double.empty_like(double.zeros(3, np.int64)).get() > 1e15).all()


def test_it_lists_what_crosses(double):
    strict_cupy.transfers.clear()
    x = double.asarray(X)
    float(x.sum())
    bool((x > 0).all())
    x.get()
    assert strict_cupy.transfers == [("to device", X.shape), ("to host", ()), ("to host", ()), ("to host", X.shape)]


def test_its_kernels_are_gone_when_it_is(monkeypatch):
    with pytest.MonkeyPatch.context() as inner:
        strict_cupy.install(inner)
        backend.get_device("gpu")
        dispatch.load("gpu")
        assert "nanogan.fast.gpu.elementwise" in sys.modules
    left = [sys.modules[name] for name in sys.modules if name.startswith("nanogan.fast.gpu")]
    kinds = [type(value) for module in left for value in vars(module).values()]
    assert not any(kind.__module__ == "tests.strict_cupy.kernels" for kind in kinds)


# ------------------------------------------------------------------------------------------------ copies on streams


@pytest.fixture
def copying(double):
    """A stream for copies, pinned memory that holds 1, 2, 3, 4, and an array on the device to copy it to."""
    pinned = sys.modules["cupyx"].empty_pinned(4, np.float32)
    pinned[...] = [1, 2, 3, 4]
    return double, double.cuda.Stream(non_blocking=True), pinned, double.empty(4, np.float32)


def order(double, stream):
    stream.wait_event(double.cuda.get_current_stream().record())


def test_a_copy_is_late_until_something_waits_for_it(copying):
    double, stream, pinned, there = copying
    order(double, stream)
    there.set(pinned, stream=stream)
    assert np.isnan(there.get()).all()
    double.cuda.get_current_stream().wait_event(stream.record())
    assert there.get().tolist() == [1, 2, 3, 4]


def test_a_source_that_is_overwritten_too_early_arrives_wrong(copying):
    double, stream, pinned, there = copying
    order(double, stream)
    there.set(pinned, stream=stream)
    pinned[...] = 0
    stream.synchronize()
    assert there.get().tolist() == [0, 0, 0, 0]


def test_a_source_must_last_until_the_host_knows_that_it_was_read(copying):
    """The device waited, the host did not: the copy may happen after the source was overwritten."""
    double, stream, pinned, there = copying
    order(double, stream)
    there.set(pinned, stream=stream)
    double.cuda.get_current_stream().wait_event(stream.record())
    pinned[...] = 0
    there2 = double.empty(4, np.float32)
    order(double, stream)
    there2.set(pinned, stream=stream)
    assert there.get().tolist() == [0, 0, 0, 0]


def test_a_copy_that_nothing_has_ordered_is_refused(copying):
    _, stream, pinned, there = copying
    with pytest.raises(RuntimeError, match="may run before what used this memory last"):
        there.set(pinned, stream=stream)


# ------------------------------------------------------------------------------------------------------------ names


def test_the_names_are_the_real_cupys():
    """Where CuPy is installed, with or without a GPU; CI's double rests on this list."""
    pytest.importorskip("cupy", reason="CuPy is not installed: the list of its names cannot be compared")
    found = collect.collect()
    if found["version"] != strict_cupy.NAMES["version"]:
        pytest.skip(f"CuPy {found['version']} is installed, the list is of {strict_cupy.NAMES['version']}")
    assert json.loads(collect.lines(found)) == strict_cupy.NAMES
