"""Hypothesis draws shapes, options and memory layouts; torch and the definitions say what is right.

Every array is drawn with a layout of its own: C order, channels-last, a slice of something larger, reversed, read-only.
HYPOTHESIS_PROFILE=thorough tries ten times as many.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from nanogan import ops
from nanogan.ops.gru import torchs_gru
from tests.helpers import channels_last, naive_conv2d, naive_conv_transpose2d, relative_error

# Rounding of sums of at most 7 * 7 * 3 * 81 terms of both signs, with a margin of about 10.
TOLERANCE = {np.dtype(np.float64): 2e-13, np.dtype(np.float32): 1e-4}

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([np.float64, np.float32])


def every_other(x):
    """The same values, taken out of an array that is twice as large in every direction."""
    large = np.full([2 * n for n in x.shape], np.nan, x.dtype)
    view = large[(slice(1, None, 2),) * x.ndim]
    view[...] = x
    return view


def reversed_in_memory(x):
    """The same values with negative strides."""
    flip = (slice(None, None, -1),) * x.ndim
    return x[flip].copy()[flip]


def batch_innermost(x):
    """The same values with the first axis closest in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)


LAYOUTS = [np.ascontiguousarray, channels_last, every_other, reversed_in_memory, batch_innermost, np.asfortranarray]


@st.composite
def makers(draw):
    """A function that makes normal numbers of a shape, each array with a layout that hypothesis has drawn."""
    rng, dtype = np.random.default_rng(draw(seeds)), draw(dtypes)

    def make(*shape, scale=1.0):
        array = draw(st.sampled_from(LAYOUTS))((scale * rng.standard_normal(shape)).astype(dtype))
        array.setflags(write=draw(st.booleans()))
        return array

    make.dtype, make.rng = np.dtype(dtype), rng
    return make


def check_against_torch(forward, backward, inputs, torchs, dy, options, **needs):
    """Compare y and the gradients of all inputs with torch's; return y."""
    tensors = [None if a is None else torch.tensor(a.copy(), requires_grad=True) for a in inputs]
    expected = torchs(*tensors)
    expected.backward(torch.tensor(dy.copy()))
    before = [None if a is None else a.copy() for a in [*inputs, dy]]

    y, cache = forward(*inputs, **options)
    gradients = backward(dy, cache, **needs)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)

    tolerance = TOLERANCE[dy.dtype]
    assert y.dtype == dy.dtype
    assert relative_error(y, expected.detach().numpy()) < tolerance
    for gradient, tensor, array in zip(gradients, tensors, inputs, strict=True):
        if array is None:
            assert gradient is None
            continue
        assert gradient.dtype == array.dtype
        # errors count beside dy: an element may happen to be a small sum of large terms
        scale = max(float(tensor.grad.abs().max()), float(abs(dy).max()))
        assert gradient.shape == array.shape
        assert float(abs(gradient - tensor.grad.numpy()).max()) < tolerance * scale
    for array, kept in zip([*inputs, dy], before, strict=True):
        assert array is None or np.array_equal(array, kept), "an input was changed"
    return y


@st.composite
def geometries(draw, transposed):
    """Sizes and options of a convolution that torch accepts too."""
    geometry = {"N": draw(st.integers(1, 3)), "C": draw(st.integers(1, 3)), "F": draw(st.integers(1, 4))}
    axes = []
    for _ in range(2):
        kernel, stride = draw(st.integers(1, 7)), draw(st.integers(1, 4))
        padding = draw(st.integers(0, kernel - 1))
        smallest = 1 if transposed else max(1, kernel - 2 * padding)
        size = draw(st.integers(smallest, smallest + 6))
        extra = draw(st.integers(0, stride - 1)) if transposed else 0
        if transposed:
            assume((size - 1) * stride - 2 * padding + kernel + extra >= 1)
        axes.append((size, kernel, stride, padding, extra))
    names = ("size", "kernel", "stride", "padding", "output_padding")
    return geometry | dict(zip(names, zip(*axes, strict=True), strict=True)) | {"bias": draw(st.booleans())}


@given(geometries(transposed=False), makers())
def test_conv2d(g, make):
    x, w = make(g["N"], g["C"], *g["size"]), make(g["F"], g["C"], *g["kernel"])
    b = make(g["F"]) if g["bias"] else None
    options = {"stride": g["stride"], "padding": g["padding"]}
    sizes = zip(g["size"], g["kernel"], g["stride"], g["padding"], strict=True)
    dy = make(g["N"], g["F"], *((s + 2 * p - k) // t + 1 for s, k, t, p in sizes))
    y = check_against_torch(
        ops.conv2d_forward, ops.conv2d_backward, [x, w, b], lambda *a: F.conv2d(*a, **options), dy, options
    )
    definition = naive_conv2d(x, w, np.zeros(g["F"], x.dtype) if b is None else b, g["stride"], g["padding"])
    assert relative_error(y, definition) < TOLERANCE[y.dtype]


@given(geometries(transposed=True), makers())
def test_conv_transpose2d(g, make):
    x, w = make(g["N"], g["C"], *g["size"]), make(g["C"], g["F"], *g["kernel"])
    b = make(g["F"]) if g["bias"] else None
    options = {name: g[name] for name in ("stride", "padding", "output_padding")}
    sizes = zip(*(g[name] for name in ("size", "kernel", "stride", "padding", "output_padding")), strict=True)
    dy = make(g["N"], g["F"], *((s - 1) * t - 2 * p + k + a for s, k, t, p, a in sizes))
    y = check_against_torch(
        ops.conv_transpose2d_forward,
        ops.conv_transpose2d_backward,
        [x, w, b],
        lambda *a: F.conv_transpose2d(*a, **options),
        dy,
        options,
    )
    b = np.zeros(g["F"], x.dtype) if b is None else b
    definition = naive_conv_transpose2d(x, w, b, *(g[name] for name in ("stride", "padding", "output_padding")))
    # a scale of 1 beside y's own: an output may consist of a few small products alone
    assert np.abs(y - definition).max() < TOLERANCE[y.dtype] * max(1, np.abs(definition).max())


@given(geometries(transposed=False), makers())
def test_the_transposed_convolution_is_the_adjoint(g, make):
    """<conv(x), y> = <x, conv_transpose(y)>, where output_padding makes up for what the stride rounded off."""
    x, w = (make(*shape).astype(np.float64) for shape in ((g["N"], g["C"], *g["size"]), (g["F"], g["C"], *g["kernel"])))
    options = {"stride": g["stride"], "padding": g["padding"]}
    conv_x, _ = ops.conv2d_forward(x, w, **options)
    y = make.rng.standard_normal(conv_x.shape)
    sizes = zip(g["size"], g["kernel"], g["stride"], g["padding"], strict=True)
    lost = tuple((s + 2 * p - k) % t for s, k, t, p in sizes)
    back, _ = ops.conv_transpose2d_forward(y, w, output_padding=lost, **options)
    assert back.shape == x.shape
    scale = np.linalg.norm(conv_x) * np.linalg.norm(y) + 1
    assert abs(np.vdot(conv_x, y) - np.vdot(x, back)) < 1e-13 * scale


@given(makers(), *[st.integers(1, 9)] * 3, st.booleans())
def test_linear(make, N, C, K, bias):
    inputs = [make(N, C), make(K, C), make(K) if bias else None]
    check_against_torch(ops.linear_forward, ops.linear_backward, inputs, F.linear, make(N, K), {})


shapes = st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple)
ELEMENTWISE = {
    "relu": (F.relu, {}),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), {"negative_slope": 0.2}),
    "tanh": (torch.tanh, {}),
    "sigmoid": (torch.sigmoid, {}),
    "softplus": (lambda x: F.softplus(x, threshold=40), {}),
    "elu": (lambda x: F.elu(x, 0.3), {"alpha": 0.3}),
    "selu": (F.selu, {}),
    "silu": (F.silu, {}),
    "gelu": (lambda x: x * torch.erfc(-x / 2**0.5) / 2, {}),  # F.gelu's 1 + erf loses digits where x is far below 0
}


@pytest.mark.parametrize("name", ELEMENTWISE)
@given(makers(), shapes, st.sampled_from([1e-3, 1.0, 30.0]))
def test_elementwise(name, make, shape, scale):
    torchs, options = ELEMENTWISE[name]
    forward, backward = getattr(ops, f"{name}_forward"), getattr(ops, f"{name}_backward")
    check_against_torch(forward, backward, [make(*shape, scale=scale)], torchs, make(*shape), options)


@given(makers(), st.data(), st.booleans(), st.sampled_from([1e-5, 1e-3, 0.5]), st.sampled_from([0.0, 0.1, 1.0]))
def test_batchnorm(make, data, train, eps, momentum):
    N, C = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    shape = (N, C, *data.draw(st.sampled_from([(), (1, 1), (1, 3), (4, 4), (5, 2)])))
    assume(not train or np.prod(shape) // C > 1)
    x, gamma, beta, dy = make(*shape), make(C), make(C), make(*shape)
    # A channel of few, close values has a slope of 1 / its spread, and no implementation has digits left.
    assume(not train or float(x.std(axis=tuple(i for i in range(x.ndim) if i != 1)).min()) > 0.1)
    mean, var = make(C).copy(), abs(make(C)) + 0.5
    theirs = torch.tensor(mean), torch.tensor(var)
    running = mean.copy(), var.copy()

    def forward(x, gamma, beta):
        return ops.batchnorm_forward(x, gamma, beta, *running, train=train, momentum=momentum, eps=eps)

    def torchs(x, gamma, beta):
        return F.batch_norm(x, *theirs, gamma, beta, train, momentum, eps)

    check_against_torch(forward, ops.batchnorm_backward, [x, gamma, beta], torchs, dy, {})
    for ours, expected in zip(running, theirs, strict=True):
        assert ours.dtype == x.dtype
        np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=TOLERANCE[x.dtype] * 10)


@given(makers(), st.data(), *[st.booleans()] * 2, st.sampled_from([1e-5, 1e-3, 0.5]))
def test_instancenorm(make, data, scaled, shifted, eps):
    N, C = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    H, W = data.draw(st.sampled_from([(1, 2), (3, 1), (4, 4), (5, 2), (7, 9)]))
    x, dy = make(N, C, H, W), make(N, C, H, W)
    assume(float(x.std(axis=(2, 3)).min()) > 0.1)  # as in test_batchnorm
    inputs = [x, make(C) if scaled else None, make(C) if shifted else None]
    torchs = lambda x, gamma, beta: F.instance_norm(x, weight=gamma, bias=beta, eps=eps)  # noqa: E731
    check_against_torch(ops.instancenorm_forward, ops.instancenorm_backward, inputs, torchs, dy, {"eps": eps})


@given(makers(), st.data(), *[st.booleans()] * 2, st.sampled_from([1e-5, 1e-3, 0.5]))
def test_layernorm(make, data, scaled, shifted, eps):
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=5)))
    last = shape[data.draw(st.integers(1, len(shape) - 1)) :]
    assume(np.prod(last) > 1)
    x, dy = make(*shape), make(*shape)
    assume(float(x.reshape(-1, np.prod(last)).std(axis=1).min()) > 0.1)  # as in test_batchnorm
    inputs = [x, make(*last) if scaled else None, make(*last) if shifted else None]
    torchs = lambda x, gamma, beta: F.layer_norm(x, last, gamma, beta, eps)  # noqa: E731
    options = {"normalized_shape": last[0] if len(last) == 1 else last, "eps": eps}
    check_against_torch(ops.layernorm_forward, ops.layernorm_backward, inputs, torchs, dy, options)


@given(makers(), st.data())
def test_glu(make, data):
    half = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    dim = data.draw(st.integers(-len(half), len(half) - 1))
    shape = [*half]
    shape[dim] *= 2
    inputs, dy = [make(*shape, scale=data.draw(st.sampled_from([1e-3, 1.0, 30.0])))], make(*half)
    check_against_torch(ops.glu_forward, ops.glu_backward, inputs, lambda x: F.glu(x, dim), dy, {"dim": dim})


@given(makers(), st.data())
def test_reflection_pad2d(make, data):
    N, C, H, W = (data.draw(st.integers(1, high)) for high in (3, 3, 6, 6))
    padding = tuple(data.draw(st.integers(0, size - 1)) for size in (W, W, H, H))
    torchs = lambda x: F.pad(x, padding, mode="reflect")  # noqa: E731
    dy = make(N, C, padding[2] + H + padding[3], padding[0] + W + padding[1])
    pair = ops.reflection_pad2d_forward, ops.reflection_pad2d_backward
    check_against_torch(*pair, [make(N, C, H, W)], torchs, dy, {"padding": padding})


@given(makers(), st.data())
def test_zero_pad2d(make, data):
    N, C, H, W = (data.draw(st.integers(1, 4)) for _ in range(4))
    padding = tuple(data.draw(st.integers(0, 5)) for _ in range(4))
    dy = make(N, C, padding[2] + H + padding[3], padding[0] + W + padding[1])
    pair = ops.zero_pad2d_forward, ops.zero_pad2d_backward
    check_against_torch(*pair, [make(N, C, H, W)], lambda x: F.pad(x, padding), dy, {"padding": padding})


@given(makers(), st.data(), st.sampled_from(["max", "avg"]))
def test_max_pool2d_and_avg_pool2d(make, data, kind):
    kernel = data.draw(st.tuples(*[st.integers(1, 5)] * 2))
    stride = data.draw(st.tuples(*[st.integers(1, 4)] * 2))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    size = tuple(max(1, k - 2 * p) + data.draw(st.integers(0, 6)) for k, p in zip(kernel, padding, strict=True))
    N, C = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    OH, OW = ((s + 2 * p - k) // t + 1 for s, k, t, p in zip(size, kernel, stride, padding, strict=True))
    options = {"kernel_size": kernel, "stride": stride, "padding": padding}
    inputs, dy = [make(N, C, *size)], make(N, C, OH, OW)
    torchs = lambda x: getattr(F, f"{kind}_pool2d")(x, kernel, stride, padding)  # noqa: E731
    pair = getattr(ops, f"{kind}_pool2d_forward"), getattr(ops, f"{kind}_pool2d_backward")
    check_against_torch(*pair, inputs, torchs, dy, options)


@given(makers(), *[st.integers(1, 3)] * 2, *[st.tuples(*[st.integers(1, 9)] * 2)] * 2)
def test_adaptive_avg_pool2d(make, N, C, size, output_size):
    torchs = lambda x: F.adaptive_avg_pool2d(x, output_size)  # noqa: E731
    pair = ops.adaptive_avg_pool2d_forward, ops.adaptive_avg_pool2d_backward
    options = {"output_size": output_size}
    check_against_torch(*pair, [make(N, C, *size)], torchs, make(N, C, *output_size), options)


@given(makers(), *[st.integers(1, 4)] * 4, st.integers(1, 4))
def test_upsample(make, N, C, H, W, s):
    torchs = lambda x: F.interpolate(x, scale_factor=s)  # noqa: E731
    options, dy = {"scale_factor": s}, make(N, C, H * s, W * s)
    check_against_torch(ops.upsample_forward, ops.upsample_backward, [make(N, C, H, W)], torchs, dy, options)


@given(makers(), *[st.integers(1, 5)] * 4)
def test_flatten_and_reshape(make, N, C, H, W):
    torchs = lambda x: x.flatten(1)  # noqa: E731
    check_against_torch(ops.flatten_forward, ops.flatten_backward, [make(N, C, H, W)], torchs, make(N, C * H * W), {})
    torchs = lambda x: x.reshape(N, W, C, H)  # noqa: E731
    inputs, dy = [make(N, C, H, W)], make(N, W, C, H)
    check_against_torch(ops.reshape_forward, ops.reshape_backward, inputs, torchs, dy, {"shape": (W, C, H)})


LOSSES = {
    "bce_with_logits": (F.binary_cross_entropy_with_logits, lambda make, x: x, lambda make, x: sigmoid(make(*x.shape))),
    "bce": (F.binary_cross_entropy, lambda make, x: sigmoid(x), lambda make, x: sigmoid(make(*x.shape))),
    "mse": (F.mse_loss, lambda make, x: x, lambda make, x: make(*x.shape)),
    "l1": (F.l1_loss, lambda make, x: x, lambda make, x: make(*x.shape)),
    "hinge": (
        lambda x, t, reduction: getattr(F.relu(1 - (2 * t - 1) * x), reduction)(),
        lambda make, x: x,
        lambda make, x: sigmoid(make(*x.shape)),
    ),
    "score": (
        lambda x, t, reduction: getattr((1 - 2 * t) * x, reduction)(),
        lambda make, x: x,
        lambda make, x: sigmoid(make(*x.shape)),
    ),
    "saturating_bce": (
        lambda x, t, reduction: -F.binary_cross_entropy_with_logits(x, 1 - t, reduction=reduction),
        lambda make, x: x,
        lambda make, x: sigmoid(make(*x.shape)),
    ),
}


def sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -5, 5)))


@pytest.mark.parametrize("name", LOSSES)
@given(makers(), shapes, st.sampled_from(["mean", "sum"]))
def test_losses(name, make, shape, reduction):
    torchs, to_input, to_target = LOSSES[name]
    x = make(*shape, scale=3.0)
    x, target = to_input(make, x), to_target(make, x)
    dy = np.asarray(make.rng.standard_normal(), x.dtype)
    forward, backward = getattr(ops, f"{name}_forward"), getattr(ops, f"{name}_backward")
    check_against_torch(
        lambda x: forward(x, target, reduction=reduction),
        backward,
        [x],
        lambda x: torchs(x, torch.tensor(target.copy()), reduction=reduction),
        dy,
        {},
    )


@given(makers(), st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.0, 0.1]), st.sampled_from(["mean", "sum"]))
def test_cross_entropy(make, N, K, label_smoothing, reduction):
    labels = make.rng.integers(0, K, N)
    options = {"label_smoothing": label_smoothing, "reduction": reduction}
    check_against_torch(
        lambda logits: ops.cross_entropy_forward(logits, labels, **options),
        ops.cross_entropy_backward,
        [make(N, K, scale=3.0)],
        lambda logits: F.cross_entropy(logits, torch.tensor(labels), **options),
        np.asarray(make.rng.standard_normal(), make.dtype),
        {},
    )


@given(makers(), st.integers(1, 5), st.integers(1, 4), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_embedding(make, K, width, shape):
    indices, w, dy = make.rng.integers(0, K, shape), make(K, width), make(*shape, width)
    check_against_torch(
        lambda w: ops.embedding_forward(indices, w),
        lambda dy, cache: ops.embedding_backward(dy, cache)[1],
        [w],
        lambda w: F.embedding(torch.tensor(indices), w),
        dy,
        {},
    )


@given(makers(), *[st.integers(1, 5)] * 3, st.integers(1, 4))
def test_mean_words(make, N, T, width, vocabulary):
    words = make.rng.integers(0, vocabulary, (N, T))
    kept = torch.tensor((words != 0).astype(make.dtype))[:, :, None]
    torchs = lambda x: (x * kept).sum(1) / kept.sum(1).clamp(min=1)  # noqa: E731
    inputs, dy = [make(N, T, width)], make(N, width)
    check_against_torch(ops.mean_words_forward, ops.mean_words_backward, inputs, torchs, dy, {"words": words})


@given(makers(), st.integers(1, 5), st.integers(1, 4))
def test_gaussian_sample(make, N, K):
    noise = make(N, K)
    torchs = lambda x: x[:, :K] + x[:, K:].exp() * torch.tensor(noise.copy())  # noqa: E731
    inputs, dy = [make(N, 2 * K)], make(N, K)
    check_against_torch(ops.gaussian_sample_forward, ops.gaussian_sample_backward, inputs, torchs, dy, {"noise": noise})


@given(makers(), st.integers(1, 5), st.integers(1, 4))
def test_gaussian_kl(make, N, K):
    def torchs(x):
        own = torch.distributions.Normal(x[:, :K], x[:, K:].exp())
        return torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).mean()

    dy = np.asarray(make.rng.standard_normal(), make.dtype)
    check_against_torch(ops.gaussian_kl_forward, ops.gaussian_kl_backward, [make(N, 2 * K)], torchs, dy, {})


@given(makers(), *[st.integers(1, 5)] * 2)
def test_row_dot(make, N, K):
    inputs, dy = [make(N, K), make(N, K)], make(N, 1)
    check_against_torch(ops.row_dot_forward, ops.row_dot_backward, inputs, lambda x, w: (x * w).sum(1)[:, None], dy, {})


@given(makers(), *[st.integers(1, 4)] * 5)
def test_append_maps(make, N, C, H, W, K):
    torchs = lambda x, w: torch.cat([x, w[:, :, None, None].expand(N, K, H, W)], dim=1)  # noqa: E731
    inputs, dy = [make(N, C, H, W), make(N, K)], make(N, C + K, H, W)
    check_against_torch(ops.append_maps_forward, ops.append_maps_backward, inputs, torchs, dy, {})


@given(makers(), *(st.integers(1, 4) for _ in range(4)), st.booleans(), st.booleans())
def test_gru(make, N, T, C, H, padded, return_sequences):
    lengths = make.rng.integers(0, T + 1, N) if padded else None
    check_against_torch(
        lambda *a: ops.gru_forward(*a, lengths=lengths, return_sequences=return_sequences),
        ops.gru_backward,
        [make(N, T, C), make(3 * H, C), make(3 * H, H), make(3 * H), make(3 * H)],
        lambda *a: torchs_gru(F, *a, None if lengths is None else torch.tensor(lengths), return_sequences),
        make(*([N, T, H] if return_sequences else [N, H])),
        {},
    )


@given(makers(), st.lists(st.integers(1, 4), min_size=2, max_size=4), st.integers(0, 1))
def test_spectral_norm(make, shape, dim):
    w = make(*shape)
    size = w.size // shape[dim]
    u, s, v = np.linalg.svd(np.moveaxis(w, dim, 0).reshape(-1, size))
    assume(s[0] > 0.1)
    u, v = u[:, 0].copy(), v[0].copy()
    check_against_torch(
        lambda w: ops.spectral_norm_forward(w, u, v, dim=dim),
        ops.spectral_norm_backward,
        [w],
        lambda w: w / (torch.tensor(u) @ (w.movedim(dim, 0).flatten(1) @ torch.tensor(v))),
        make(*shape),
        {},
    )


@given(makers(), *[st.integers(1, 5)] * 2, st.sampled_from([1.0, 300.0]))
def test_logsumexp(make, N, K, scale):
    torchs = lambda x: torch.logsumexp(x, dim=1, keepdim=True)  # noqa: E731
    inputs, dy = [make(N, K, scale=scale)], make(N, 1)
    check_against_torch(ops.logsumexp_forward, ops.logsumexp_backward, inputs, torchs, dy, {})


@given(makers(), *[st.integers(1, 5)] * 3)
def test_feature_matching(make, N, M, F):
    target = make(M, F)
    torchs = lambda x: ((x.mean(0) - torch.tensor(target.copy()).mean(0)) ** 2).mean()  # noqa: E731
    dy = np.asarray(make.rng.standard_normal(), make.dtype)
    forward = lambda x: ops.feature_matching_forward(x, target)  # noqa: E731
    check_against_torch(forward, ops.feature_matching_backward, [make(N, F)], torchs, dy, {})


@given(makers(), *[st.integers(1, 5)] * 2)
def test_mean_probability(make, N, M):
    dy = np.asarray(make.rng.standard_normal(), make.dtype)
    torchs = lambda logits: logits.sigmoid().mean()  # noqa: E731
    check_against_torch(ops.mean_probability_forward, ops.mean_probability_backward, [8 * make(N, M)], torchs, dy, {})


def test_every_operation_but_dropout_has_its_properties():
    """Dropout's zeros and the noise are their own; the cases check both with what was drawn known."""
    here = {name.removeprefix("test_") for name in globals()} | set(ELEMENTWISE) | set(LOSSES) | {"flatten", "reshape"}
    here |= {"max_pool2d", "avg_pool2d"}
    assert {name.removesuffix("_forward") for name in ops.__all__ if name.endswith("_forward")} - here == {
        "dropout",
        "gaussian_noise",
    }
