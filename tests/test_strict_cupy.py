"""The stand-in for CuPy refuses what a GPU refuses, and knows only what CuPy has."""

import ctypes
import json
import sys

import ml_dtypes
import numpy as np
import pytest

from nanogan import backend, dispatch
from tests import strict_cupy
from tests.strict_cupy import collect
from tests.strict_cupy.cublas import Library

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
    assert not any(kind.__module__.startswith("tests.strict_cupy.") for kind in kinds)


# --------------------------------------------------------------------------------------------------- raw kernels

KERNELS = r"""
#ifndef EMULATE
#error "only what the double provides is compiled here"
#endif
// extern "C" __global__ void only_in_a_comment(T* x) {}
__device__ __forceinline__ T in_warp(T value) {
    for (int delta = 16; delta > 0; delta /= 2) value += __shfl_down_sync(0xffffffff, value, delta);
    return value;
}
extern "C" __global__ void __launch_bounds__(32 * (WARPS)) total(const T* __restrict__ x, T* y, int n) {
    __shared__ T sums[WARPS];
    T sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    sum = in_warp(sum);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        sum = 0;
        for (int i = 0; i < WARPS; i++) sum += sums[i];
        atomicAdd(y, sum);
    }
}
extern "C" __global__ void lanes(int* y) {
    const int lane = threadIdx.x;
    y[lane] = __shfl_xor_sync(0xffffffff, lane, 5);
    y[32 + lane] = __shfl_up_sync(0xffffffff, lane, 3);
    y[64 + lane] = __shfl_down_sync(0xffffffff, lane, 3, 8);
    y[96 + lane] = __shfl_sync(0xffffffff, lane, 9, 16);
}
extern "C" __global__ void some_wait(T* y) {
    if (threadIdx.x < 5) __syncthreads();
    y[threadIdx.x] = 1;
}
extern "C" __global__ void two_barriers(T* y) {
    if (threadIdx.x < 5)
        __syncthreads();
    else
        __syncthreads();
    y[threadIdx.x] = 1;
}
extern "C" __global__ void tensor(const float* a, const float* b, float* y) {  // y (16, 8) = a (16, 8) b (8, 8)
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    float d[4] = {0, 0, 0, 0};
    unsigned fa[4], fb[2];
    for (int e = 0; e < 4; e++) fa[e] = tf32(a[(g + e % 2 * 8) * 8 + t + e / 2 * 4]);
    for (int e = 0; e < 2; e++) fb[e] = tf32(b[(t + e * 4) * 8 + g]);
    mma(d, fa, fb);
    for (int e = 0; e < 4; e++) y[(g + e / 2 * 8) * 8 + 2 * t + e % 2] = d[e];
}
extern "C" __global__ void copied(const float* x, float* y) {  // three stages, of which all but two have come
    SHARED;
    for (int stage = 0; stage < 3; stage++) {
        copy16(shared + 4 * stage, x + 4 * stage, stage != 1);
        commit();
    }
    wait<1>();
    for (int i = 0; i < 12; i++) y[i] = shared[i];
}
extern "C" __global__ void where(int* y) {
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    y[block * blockDim.x * blockDim.y * blockDim.z + thread] = 100 * block + thread;
}
extern "C" __global__ void reversed(const T* x, T* y) {
    extern __shared__ T buffer[];
    const int i = threadIdx.x, n = blockDim.x;
    buffer[n - 1 - i] = x[i];
    __syncthreads();
    y[i] = buffer[i];
}
extern "C" __global__ void unwritten(T* y) {
    __shared__ T fixed[2][3];
    extern __shared__ T buffer[];
    y[2 * blockIdx.x] = fixed[1][2], y[2 * blockIdx.x + 1] = buffer[0];
    fixed[1][2] = buffer[0] = 7;
}
extern "C" __global__ void beyond(T* y, int i) {
    __shared__ T fixed[4];
    fixed[i] = 0;
    y[0] = fixed[0];
}
extern "C" __global__ void four(T* y, int i) { *(float4*)(y + i) = make_float4(1, 2, 3, 4); }
extern "C" __global__ void moved(const unsigned short* x, unsigned short* y) { y[threadIdx.x] = x[threadIdx.x]; }
extern "C" __global__ void takes(float* f, double* d, long long* n, bool b, double x, long long i, unsigned u) {
    f[0] = b + 10 * x + 100 * i + 1000 * u;
}
__global__ void mangled(T* y) {}
"""


@pytest.fixture
def raw(double):
    module = double.RawModule(code=KERNELS, options=("-std=c++17", "-DT=float", "-DWARPS=4"))
    return lambda name: module.get_function(name)


@pytest.mark.parametrize("kind", ["float", "double"])
def test_a_raw_kernel_sums_a_block_with_shuffles_and_a_barrier(double, kind):
    module = double.RawModule(code=KERNELS, options=(f"-DT={kind}", "-DWARPS=4"))
    x = np.random.default_rng(0).standard_normal(1000).astype("float32" if kind == "float" else "float64")
    y = double.zeros((), x.dtype)
    module.get_function("total")((3,), (128,), (double.asarray(x), y, np.int32(1000)))
    np.testing.assert_allclose(y.get(), x.sum(dtype=float), rtol=1e-5)


def test_lanes_of_a_warp_exchange_as_cuda_documents(double, raw):
    y = double.empty((4, 32), np.int32)
    raw("lanes")((1,), (32,), (y,))
    lane = np.arange(32)
    expected = [lane ^ 5, np.where(lane < 3, lane, lane - 3), np.where(lane % 8 < 5, lane + 3, lane)]
    np.testing.assert_array_equal(y.get(), [*expected, lane // 16 * 16 + 9])


def test_tensor_cores_multiply_what_tf32_has_left(double, raw, rng):
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 8), (8, 8)))
    y = double.empty((16, 8), np.float32)
    raw("tensor")((1,), (32,), (double.asarray(a), double.asarray(b), y))
    short = [((x.view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32).astype(float) for x in (a, b)]
    np.testing.assert_allclose(y.get(), short[0] @ short[1], rtol=1e-6, atol=1e-6)
    assert abs(y.get() - a @ b).max() > 1e-5


def test_asynchronous_copies_come_when_they_are_waited_for(double, raw):
    y = double.zeros(12, np.float32)
    raw("copied")((1,), (1,), (double.asarray(X.reshape(-1)), y), shared_mem=48)
    np.testing.assert_array_equal(y.get(), [*X.reshape(-1)[:4], 0, 0, 0, 0, *4 * [np.nan]])


def test_threads_and_blocks_have_three_dimensions(double, raw):
    y = double.empty((2 * 2 * 3, 4 * 2 * 3), np.int32)
    raw("where")((2, 2, 3), (4, 2, 3), (y,))
    np.testing.assert_array_equal(y.get(), 100 * np.arange(12)[:, None] + np.arange(24))


def test_dynamic_shared_memory_is_what_the_launch_asks_for(double, raw):
    x, y = double.asarray(X.reshape(-1)), double.empty(24, np.float32)
    raw("reversed")((1,), (24,), (x, y), shared_mem=96)
    np.testing.assert_array_equal(y.get(), X.reshape(-1)[::-1])
    with pytest.raises(RuntimeError, match="wrote behind the block's dynamic shared memory"):
        raw("reversed")((1,), (24,), (x, y), shared_mem=92)
    kernel = raw("reversed")
    with pytest.raises(ValueError, match="shared memory, of 49152 at most"):
        kernel((1,), (24,), (x, y), shared_mem=50000)
    kernel.max_dynamic_shared_size_bytes = 50000
    kernel((1,), (24,), (x, y), shared_mem=50000)


def test_shared_memory_is_not_what_the_last_block_left(double, raw):
    y = double.zeros(6, np.float32)
    raw("unwritten")((3,), (1,), (y,), shared_mem=4)
    assert np.isnan(y.get()).all()


def test_16_bit_numbers_are_moved_whatever_they_are(double, raw):
    x, y = double.asarray(X.reshape(-1).astype(np.float16)), double.zeros(24, np.float16)
    raw("moved")((1,), (24,), (x, y))
    np.testing.assert_array_equal(y.get(), X.reshape(-1))


@pytest.mark.parametrize(
    ("name", "block", "said"),
    [
        ("some_wait", 64, "deadlock: of 64 threads 5 wait at __syncthreads"),
        ("two_barriers", 64, "deadlock: of 64 threads 64 wait at __syncthreads"),
        ("beyond", 1, "goes beyond an array, to index 4"),
        ("four", 1, "an address that is not aligned"),
    ],
)
def test_a_launch_fails_that_a_gpu_would_hang_or_break_at(double, raw, name, block, said):
    y = double.zeros(64, np.float32)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=f"{name}: .*{said}"):
            raw(name)((1,), (block,), (y, np.int32(4 if name == "beyond" else 1))[: 1 if block > 1 else 2])
        raw("four")((1,), (1,), (y, np.int32(4)))
    assert y.get()[4:8].tolist() == [1, 2, 3, 4]


RIGHT = {"f": np.float32, "d": np.float64, "n": np.int64, "b": np.bool_(1), "x": np.float64(1), "i": np.int64(1)}
RIGHT["u"] = np.uint32(1)


def arguments(double, **others):
    values = {name: double.zeros(2, value) if isinstance(value, type) else value for name, value in RIGHT.items()}
    return tuple({**values, **others}.values())


def test_arguments_of_the_parameters_types_are_taken(double, raw):
    for others in ({}, {"d": None}, {"f": double.zeros((4, 2), np.float32)[::2, 1]}):  # None is a null pointer
        given = arguments(double, **others)
        raw("takes")((1,), (1,), given)
        assert given[0].get().tolist() == [1111, 0]


@pytest.mark.parametrize(
    "slip",
    [
        lambda cp: {"f": cp.zeros(2)},
        lambda cp: {"d": cp.zeros(2, np.float32)},
        lambda cp: {"n": cp.zeros(2, np.int32)},
        lambda cp: {"f": np.zeros(2, np.float32)},
        lambda cp: {"f": np.zeros(1, np.float32)},
        lambda cp: {"f": np.float32(1)},
        lambda cp: {"b": True},
        lambda cp: {"x": 1.0},
        lambda cp: {"x": np.float32(1)},
        lambda cp: {"x": cp.zeros(())},
        lambda cp: {"i": 1},
        lambda cp: {"i": np.int32(1)},
        lambda cp: {"u": np.int32(1)},
        lambda cp: {"more": np.int32(1)},
    ],
)
def test_arguments_of_other_types_are_refused(double, raw, slip):
    with pytest.raises(TypeError):
        raw("takes")((1,), (1,), arguments(double, **slip(double)))


def test_a_launch_takes_only_what_cuda_takes(double, raw):
    y = double.zeros(256, np.float32)
    with pytest.raises(ValueError, match="address that is no multiple of 8"):
        raw("takes")((1,), (1,), arguments(double, d=double.zeros(17, np.uint8)[1:].view(np.float64)))
    with pytest.raises(ValueError, match=r"a block of \(256, 1, 1\) threads, of 128 at most"):
        raw("total")((1,), (256,), (y, y[:1], np.int32(1)))
    for grid, block in [((1, 65536), (1,)), ((1,), (1025,)), ((1,), (1, 1, 65)), ((1,), (64, 32))]:
        with pytest.raises(ValueError, match="at most"):
            raw("some_wait")(grid, block, (y,))
    with pytest.raises(TypeError, match="are tuples"):
        raw("some_wait")(1, (1,), (y,))
    there = backend.get_device("gpu:1").array_module.zeros(2, np.float32)
    backend.get_device("gpu:0")
    with pytest.raises(ValueError, match="an array of device 1 is used while 0 is current"):
        raw("some_wait")((1,), (1,), (there,))


@pytest.mark.parametrize("name", ["mangled", "only_in_a_comment", "nowhere"])
def test_a_kernel_has_the_name_that_its_source_gives_it(raw, name):
    with pytest.raises(RuntimeError, match="CUDA_ERROR_NOT_FOUND"):
        raw(name)


def test_what_does_not_compile_says_why(double):
    with pytest.raises(RuntimeError, match="'nonsense' was not declared|nonsense.* was not declared"):
        double.RawModule(code='extern "C" __global__ void k(int* x) { nonsense(x); }').get_function("k")
    with pytest.raises(TypeError):
        double.RawModule(code="", options=["-std=c++17"])


# ------------------------------------------------------------------------------------------------ streams and graphs


@pytest.fixture
def captured(double):
    """``captured(work)``: a graph of what ``work`` does on its stream, in a pool of its own, which it keeps."""

    def capture(work):
        stream, pool = double.cuda.Stream(non_blocking=True), double.cuda.MemoryPool()
        with stream, double.cuda.using_allocator(pool.malloc):
            stream.begin_capture()
            try:
                result = work()
            finally:
                graph = stream.end_capture()
        pools.append(pool)
        return graph, result

    pools = []
    return capture


def test_a_stream_is_current_inside_with(double):
    stream, null = double.cuda.Stream(), double.cuda.get_current_stream()
    assert null is double.cuda.Stream.null
    with stream:
        assert double.cuda.get_current_stream() is stream
        with double.cuda.Stream() as inner:
            assert double.cuda.get_current_stream() is inner
        assert double.cuda.get_current_stream() is stream
    assert double.cuda.get_current_stream() is null
    with pytest.raises(RuntimeError, match="does not match with the current device"), double.cuda.Device(1), stream:
        pass


def test_a_pool_counts_bytes(double):
    pool = double.cuda.MemoryPool()
    with double.cuda.using_allocator(pool.malloc):
        x = double.zeros(100, np.float32)
        y = x[:10]
        x + 1
    double.zeros(1000)
    assert (pool.used_bytes(), pool.total_bytes()) == (512, 1024)
    del x
    assert pool.used_bytes() == 512, "a view keeps it"
    del y
    assert pool.used_bytes() == 0
    pool.free_all_blocks()
    assert pool.total_bytes() == 0


def test_a_replayed_graph_is_three_eager_updates(double, captured):
    def update(parameter, gradient, mean):
        scaled = gradient * rate["lr"]
        parameter -= scaled
        parameter.T[0] = parameter[1].sum()
        double.maximum(parameter, 0.5, out=parameter)
        mean[...] = mean * 0.9 + parameter.mean() * 0.1
        mean += gradient.astype(np.float64).max()
        double.add.at(parameter, double.asarray(1), double.asarray(2.0, dtype=np.float32))

    def arrays():
        return [double.asarray(a) for a in (X[0], X[1], np.ones((), np.float32))]

    rate = {"lr": 0.25}
    eager, replayed = arrays(), arrays()
    before = [array.get() for array in replayed]
    graph, _ = captured(lambda: update(*replayed))
    for array, value in zip(replayed, before, strict=True):
        np.testing.assert_array_equal(array.get(), value, err_msg="nothing runs while it is recorded")
    for _ in range(3):
        update(*eager)
        graph.launch()
        eager[1] *= -0.5
        replayed[1] *= -0.5  # what a replay reads is what is there then
    for array, expected in zip(replayed, eager, strict=True):
        np.testing.assert_array_equal(array.get(), expected.get())
    rate["lr"] = 1000.0
    graph.launch()
    assert abs(replayed[0].get()).max() < 1000, "a Python number is recorded with the graph"


def test_kernels_are_recorded(double, captured):
    twice = double.ElementwiseKernel("T x", "T y", "y = 2 * x", "twice")
    four = double.RawModule(code=KERNELS, options=("-DT=float", "-DWARPS=1")).get_function("four")
    x, y, z = double.asarray(X[0]), double.zeros((3, 4), np.float32), double.zeros(8, np.float32)

    def work():
        twice(x, y)
        four((1,), (1,), (z, np.int32(4)))
        return twice(y)

    graph, result = captured(work)
    assert (y.get() == 0).all()
    assert np.isnan(result.get()).all()
    graph.launch()
    np.testing.assert_array_equal(y.get(), 2 * X[0])
    np.testing.assert_array_equal(result.get(), 4 * X[0])
    assert z.get().tolist() == [0, 0, 0, 0, 1, 2, 3, 4]
    assert graph.nodes == ["twice", "four", "twice"]


def test_what_is_captured_has_its_shape_and_dtype_and_nothing_in_it(double, captured):
    x = double.asarray(X)

    def work():
        view = x.transpose(2, 0, 1)[1:]
        return view, x + 1, view.sum(axis=0), (x > 3).any(), double.where(x > 3, x, 0), x[double.asarray(1)], x.ravel()

    graph, (view, *others, flat) = captured(work)
    assert view.base is x
    assert flat.base is x
    expected = [X + 1, X.transpose(2, 0, 1)[1:].sum(axis=0), (X > 3).any(), np.where(X > 3, X, 0), X[1]]
    for result, value in zip(others, expected, strict=True):
        assert (result.shape, result.dtype) == (value.shape, value.dtype)
        assert result.dtype == bool or np.isnan(result.get()).all()
    graph.launch()
    for result, value in zip(others, expected, strict=True):
        np.testing.assert_array_equal(result.get(), value)
    assert graph.nodes == ["add", "sum", "greater", "any", "greater", "where", "fill", "getitem"]


@pytest.mark.parametrize(
    ("slip", "kind"),
    [
        (lambda cp, x: cp.asarray(X), RuntimeError),
        (lambda cp, x: cp.array([1.0, 2.0]), RuntimeError),
        (lambda cp, x: x.set(X), RuntimeError),
        (lambda cp, x: x.get(), RuntimeError),
        (lambda cp, x: x[0, 0, 0].item(), RuntimeError),
        (lambda cp, x: float(x[0, 0, 0]), RuntimeError),
        (lambda cp, x: bool((x > 0).all()), RuntimeError),
        (lambda cp, x: int(x[0, 0, 0]), RuntimeError),
        (lambda cp, x: x.tolist(), RuntimeError),
        (lambda cp, x: x[x > 0], RuntimeError),
        (lambda cp, x: cp.where(x > 0), RuntimeError),
        (lambda cp, x: cp.nonzero(x), RuntimeError),
        (lambda cp, x: x[0] @ x[0].T, NotImplementedError),
        (lambda cp, x: x @ x[0].T, NotImplementedError),
        (lambda cp, x: x[0].dot(x[0].T), NotImplementedError),
        (lambda cp, x: cp.dot(x[0], x[0, 0]), NotImplementedError),
        (lambda cp, x: cp.matmul(x[0], x[0].T), NotImplementedError),
        (lambda cp, x: x.__iadd__(x[0, :2]), ValueError),
        (lambda cp, x: x.__setitem__(0, x[0, :2]), ValueError),
        (lambda cp, x: cp.cuda.get_current_stream().begin_capture(), RuntimeError),
    ],
)
def test_a_capture_refuses_and_goes_on(double, captured, slip, kind):
    x = double.asarray(X)

    def work():
        with pytest.raises(kind):
            slip(double, x)
        x[...] = 5

    graph, _ = captured(work)
    graph.launch()
    assert (x.get() == 5).all()


@pytest.mark.parametrize(
    "slip",
    [
        lambda cp, stream, event: stream.synchronize(),
        lambda cp, stream, event: stream.done,
        lambda cp, stream, event: stream.wait_event(event),
    ],
)
def test_what_cuda_refuses_ends_a_capture(double, slip):
    stream, event = double.cuda.Stream(non_blocking=True), double.cuda.get_current_stream().record()
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="cudaErrorStreamCapture"):
            slip(double, stream, event)
        with pytest.raises(RuntimeError, match="invalidated"):
            stream.is_capturing()
        with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
        assert not stream.is_capturing()
        stream.synchronize()
        assert (double.zeros(2) + 1).get().tolist() == [1, 1]


def test_products_that_are_no_cublas_are_captured(double, captured):
    x = double.asarray(X)
    whole = x.astype(np.int64)
    graph, (a, b) = captured(lambda: (x[0, 0] @ x[0, 1], whole[0] @ whole[1].T))
    graph.launch()
    np.testing.assert_array_equal(a.get(), X[0, 0] @ X[0, 1])
    np.testing.assert_array_equal(b.get(), X[0] @ X[1].T)


def test_the_null_stream_neither_captures_nor_runs_beside_a_blocking_capture(double):
    x = double.zeros(3)
    with pytest.raises(RuntimeError, match="cannot capture on the default"):
        double.cuda.get_current_stream().begin_capture()
    stream = double.cuda.Stream()
    stream.begin_capture()
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureImplicit"):
        x += 1
    with pytest.raises(RuntimeError, match="Invalidated"):
        stream.end_capture()
    with pytest.raises(RuntimeError, match="not capturing"):
        stream.end_capture()
    other = double.cuda.Stream(non_blocking=True)
    other.begin_capture()
    x += 1
    assert other.is_capturing()
    other.end_capture()
    assert x.get().tolist() == [1, 1, 1]


def test_a_graphs_memory_is_its_own(double):
    x, stream, pool = double.zeros(3), double.cuda.Stream(non_blocking=True), double.cuda.MemoryPool()
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="must come from a pool that nothing else uses"):
            x + 1
        with double.cuda.using_allocator(pool.malloc):
            y = x + 1
        graph = stream.end_capture()
        with double.cuda.using_allocator(pool.malloc), pytest.raises(RuntimeError, match="belongs to a graph"):
            x + 1
    graph.launch()
    assert y.get().tolist() == [1, 1, 1]
    del pool
    with pytest.raises(RuntimeError, match="the pool is gone"):
        graph.launch()


def test_a_graph_does_not_outlive_its_arrays(double, captured):
    arrays = [double.zeros(3), double.zeros(())]
    graph, _ = captured(lambda: arrays[1].__iadd__(arrays[0][1:].sum()))
    arrays[0] = arrays[0][0]
    graph.launch()
    arrays[0] = None
    with pytest.raises(RuntimeError, match="an array is gone"):
        graph.launch()


def test_it_lists_what_is_launched(double, captured):
    strict_cupy.launches.clear()
    x = double.asarray(X)
    y = x.reshape(6, 4)[1:].T
    z = double.zeros((4, 4), np.float32)
    z += y[:, :4]
    z[0] = 1
    z[1] = z[2]
    double.exp(z @ z).sum()
    (z > 0).astype(np.float32).ravel()
    double.empty(3)
    expected = ["copy", "memset", "add", "fill", "copy", "matmul", "exp", "sum", "greater", "copy"]
    assert strict_cupy.launches == expected
    graph, _ = captured(lambda: z.__imul__(2) + 1)
    assert strict_cupy.launches == expected, "what is recorded is not launched"
    graph.launch()
    assert strict_cupy.launches == [*expected, "graph"]
    assert graph.nodes == ["multiply", "add"]


# ---------------------------------------------------------------------------------------------------------- cuBLAS


class Cublas:
    """The double's library with a handle, and a product of arrays through it."""

    def __init__(self, double):
        self.double, self.library, self.handle = double, Library(), ctypes.c_void_p()
        self.library.cublasGemmEx.argtypes = None  # as of a function of ctypes
        assert self.library.cublasCreate_v2(ctypes.byref(self.handle)) == 0

    def product(self, a, b, c, m, n, k, *, transa=0, transb=0, ld=(), alpha=1.0, beta=0.0, compute=68, **others):
        lda, ldb, ldc = ld or (k if transa else m, n if transb else k, m)
        types = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
        scalar = others.pop("scalar", ctypes.c_double if compute == 70 else ctypes.c_float)
        pointers = [others.get(name, ctypes.c_void_p(x.data.ptr)) for name, x in zip("ABC", (a, b, c), strict=True)]
        A, B, C = [(pointer, types[str(x.dtype)]) for pointer, x in zip(pointers, (a, b, c), strict=True)]
        alpha, beta, handle = ctypes.byref(scalar(alpha)), ctypes.byref(scalar(beta)), others.get("handle", self.handle)
        sizes = transa, transb, m, n, k
        return self.library.cublasGemmEx(
            handle, *sizes, alpha, *A, lda, *B, ldb, beta, *C, ldc, compute, others.get("algorithm", -1)
        )


@pytest.fixture
def cublas(double):
    return Cublas(double)


def matrices(double, rng, dtype, m, n, k, transa, transb, padding=0):
    """Row-major A, B and C on the device, which are the transposed column-major ones, with ``padding`` in each row."""
    shapes = ((m, k) if transa else (k, m)), ((k, n) if transb else (n, k)), (n, m)
    return [double.asarray(rng.standard_normal((r, c + padding)).astype(dtype)) for r, c in shapes]


@pytest.mark.parametrize("transa", [0, 1])
@pytest.mark.parametrize("transb", [0, 1])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("beta", [0.0, 1.0, 0.5])
def test_cublas_multiplies_column_major_matrices(double, cublas, rng, transa, transb, padding, beta):
    m, n, k = 5, 4, 3
    a, b, c = matrices(double, rng, np.float64, m, n, k, transa, transb, padding)
    before = c.get()
    if beta == 0:
        c[...] = np.nan
    ld = [x.shape[1] for x in (a, b, c)]
    options = {"transa": transa, "transb": transb, "ld": ld, "alpha": 2.0, "beta": beta, "compute": 70}
    assert cublas.product(a, b, c, m, n, k, **options) == 0
    a, b = (x.get()[:, : x.shape[1] - padding] for x in (a, b))
    expected = 2 * (b.T if transb else b) @ (a.T if transa else a) + beta * before[:, :m]
    np.testing.assert_allclose(c.get()[:, :m], expected, rtol=1e-12)
    np.testing.assert_array_equal(c.get()[:, m:], np.nan if beta == 0 else before[:, m:])
    assert strict_cupy.launches.count("gemm") == 1


@pytest.mark.parametrize(
    ("dtype", "into", "compute", "error"),
    [
        ("float32", "float32", 68, 1e-6),
        ("float32", "float32", 77, 1e-3),
        ("float64", "float64", 70, 1e-14),
        ("float16", "float16", 68, 1e-3),
        ("float16", "float32", 68, 1e-6),
        ("bfloat16", "bfloat16", 68, 1e-2),
        ("bfloat16", "float32", 68, 1e-6),
    ],
)
def test_cublas_computes_in_the_types_that_it_has(double, cublas, rng, dtype, into, compute, error):
    dtype, into = (np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name) for name in (dtype, into))
    a, b, c = matrices(double, rng, dtype, 32, 16, 64, 0, 0)
    c = double.empty(c.shape, into)
    assert cublas.product(a, b, c, 32, 16, 64, compute=compute) == 0
    expected = b.get().astype(float) @ a.get().astype(float)
    distance = abs(c.get().astype(float) - expected).max() / abs(expected).max()
    assert distance < error
    assert distance > error / 100 or dtype == np.float64
    if compute == 68 and dtype == np.float32:
        assert cublas.library.cublasSetMathMode(cublas.handle, 3) == 0
        cublas.product(a, b, c, 32, 16, 64)
        assert 1e-5 < abs(c.get() - expected).max() / abs(expected).max() < 1e-3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ld": (4, 3, 5)}, "leading dimension of A is 4, less than its 5 rows"),
        ({"ld": (5, 2, 5)}, "leading dimension of B"),
        ({"ld": (5, 3, 4)}, "leading dimension of C"),
        ({"ld": (6, 3, 5)}, "A: 68 bytes from .* are not in an array"),
        ({"ld": (5, 3, 6)}, "C: .* are not in an array"),
        ({"compute": 70}, "no product of the types"),
        ({"compute": 64}, "compute type 64"),
        ({"algorithm": 3}, "algorithm"),
        ({"handle": ctypes.c_void_p(1)}, "CUBLAS_STATUS_NOT_INITIALIZED"),
        ({"handle": 0}, "CUBLAS_STATUS_NOT_INITIALIZED"),
        ({"scalar": ctypes.c_double}, "alpha and beta are c_float"),
        ({"transa": 3}, "op is 0 or 1"),
        ({"A": X.ctypes.data}, "not in an array on the device"),
    ],
)
def test_cublas_refuses_what_it_would_do_wrong(double, cublas, rng, options, said):
    a, b, c = matrices(double, rng, np.float32, 5, 4, 3, 0, 0)
    with pytest.raises(AssertionError, match=said):
        cublas.product(a, b, c, 5, 4, 3, **options)


def test_cublas_has_no_product_of_two_types_into_a_third(double, cublas, rng):
    a, b, c = matrices(double, rng, np.float32, 5, 4, 3, 0, 0)
    for types in [(np.float16, np.float32, np.float32), (np.float32, np.float32, np.float16)]:
        with pytest.raises(AssertionError, match="no product of the types"):
            cublas.product(*(x.astype(dtype) for x, dtype in zip((a, b, c), types, strict=True)), 5, 4, 3)


def test_a_handle_is_gone_when_destroyed_and_belongs_to_a_device(double, cublas, rng):
    a, b, c = matrices(double, rng, np.float32, 5, 4, 3, 0, 0)
    with pytest.raises(AssertionError, match="another device"), double.cuda.Device(1):
        cublas.product(a, b, c, 5, 4, 3)
    assert cublas.library.cublasDestroy_v2(cublas.handle) == 0
    with pytest.raises(AssertionError, match="CUBLAS_STATUS_NOT_INITIALIZED"):
        cublas.product(a, b, c, 5, 4, 3)


def test_a_product_is_recorded_where_its_handles_stream_captures(double, cublas, rng):
    a, b, c = matrices(double, rng, np.float32, 5, 4, 3, 0, 0)
    c[...] = 0
    workspace, stream = double.empty(1 << 20, np.uint8), double.cuda.Stream(non_blocking=True)
    library, handle, room = cublas.library, cublas.handle, (workspace.data.ptr, workspace.nbytes)
    with stream:
        with pytest.raises(AssertionError, match="the handle's stream is not the current one"):
            cublas.product(a, b, c, 5, 4, 3)
        library.cublasSetWorkspace_v2(handle, *room)
        library.cublasSetStream_v2(handle, ctypes.c_void_p(stream.ptr))
        with pytest.raises(AssertionError, match="has reset the workspace"):
            cublas.product(a, b, c, 5, 4, 3)
        library.cublasSetStream_v2(handle, stream.ptr)
        stream.begin_capture()
        with pytest.raises(AssertionError, match="needs cublasSetWorkspace"):
            cublas.product(a, b, c, 5, 4, 3)
        library.cublasSetWorkspace_v2(handle, *room)
        cublas.product(a, b, c, 5, 4, 3, beta=1.0)
        graph = stream.end_capture()
        assert (c.get() == 0).all()
        for i in range(3):
            graph.launch()
            np.testing.assert_allclose(c.get(), (i + 1) * b.get() @ a.get(), rtol=1e-5)
        assert graph.nodes == ["gemm"]
        del a
        with pytest.raises(RuntimeError, match="an array is gone"):
            graph.launch()


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
