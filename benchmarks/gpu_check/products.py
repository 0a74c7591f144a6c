"""Matrix products against float64: each precision, transposed factors, adding to what is there."""

import functools

import numpy as np

from benchmarks.gpu_check.compare import (
    EXACT,
    SIXTEEN_BITS,
    TF32,
    Worst,
    allowed,
    error,
    on_a_cpu,
    precisions,
    products_in,
    readable,
)
from nanogan import backend
from nanogan.backend import cublas, to_device, to_numpy

PRODUCTS = [(1, 1, 1), (3, 5, 7), (64, 48, 80), (1, 100, 512), (512, 1, 3), (4096, 1024, 129), (100, 2048, 64)]


def products(device):
    """Ask for each way of a product, in each precision."""
    if device.kind == "gpu":
        yield "cuBLAS is called directly", lambda: (cublas.available(device.array_module), "by ctypes")
        for dtype in ("float64", "float32", "float16", "bfloat16"):
            yield f"cuBLAS, {dtype}", functools.partial(direct_products, device, dtype)
        yield "cuBLAS, tf32", functools.partial(direct_products, device, "float32", tf32=True)
    for precision in precisions(device):
        yield f"product and add_product, {precision}", functools.partial(products_of_nanogan, device, precision)


def direct_products(device, dtype, tf32=False):
    xp, worst, rng = device.array_module, Worst(), np.random.default_rng(1)
    kind = backend.precision._bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    out_type = np.float64 if dtype == "float64" else np.float32
    tolerance = TF32 if tf32 else SIXTEEN_BITS if kind.itemsize == 2 else EXACT[np.dtype(out_type).name]
    for M, K, N in PRODUCTS:
        for transposed in ((False, False), (True, False), (False, True), (True, True)):
            factors, exact = [], []
            for shape, swap in zip(((M, K), (K, N)), transposed, strict=True):
                x = to_device(rng.standard_normal(shape[::-1] if swap else shape), device).astype(kind)
                factors.append(x.T if swap else x)
                exact.append(to_numpy(factors[-1].astype(np.float64)))
            expected = exact[0] @ exact[1]
            out = xp.full((M, N), np.nan, out_type)
            cublas.product(*factors, out=out, tf32=tf32)
            worst.add(f"{M} x {K} x {N}, transposed: {transposed}", error(out, expected), tolerance)
            before = rng.standard_normal((M, N)).astype(out_type)
            out = to_device(before, device).copy()
            cublas.product(*factors, out=out, add=True, tf32=tf32)
            worst.add(f"{M} x {K} x {N}, added", error(out, before + expected), tolerance)
    wide = to_device(rng.standard_normal((40, 64)), device).astype(kind)
    rows = wide[:, 8:40]  # with gaps between the rows
    exact = to_numpy(rows.astype(np.float64))
    out = xp.full((40, 40), np.nan, out_type)
    worst.add("rows with gaps", error(cublas.product(rows, rows.T, out=out, tf32=tf32), exact @ exact.T), tolerance)
    return True, worst.answer()


def products_of_nanogan(device, precision):
    worst, rng = Worst(), np.random.default_rng(2)
    for M, K, N in PRODUCTS:
        a, b, before = (rng.standard_normal(s, dtype=np.float32) for s in ((M, K), (K, N), (M, N)))
        exact = a.astype(np.float64) @ b
        with products_in(on_a_cpu(precision)), readable():
            tolerance = allowed(error(backend.product(a, b), exact), "float32", precision)
        with products_in(precision):
            there = [to_device(x, device) for x in (a, b)]
            out = to_device(before.copy(), device)
            worst.add(f"{M} x {K} x {N}", error(backend.product(*there), exact), tolerance)
            backend.precision.add_product(out, *there)
            worst.add(f"{M} x {K} x {N}, added", error(out, before + exact), tolerance)
    return True, worst.answer()
