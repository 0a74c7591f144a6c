"""Activations and the optimisers' updates, each in one kernel over memory."""

import cupy
import numpy as np

from nanogan import ops
from nanogan.dispatch import register, register_walk
from nanogan.ops import activations
from nanogan.ops.updates import move_average as move_average_by_the_book

RELU = cupy.ElementwiseKernel(  # 0 * -inf would be NaN; NaN is not <= 0, and stays NaN
    "T x, T slope", "T y", "y = x > 0 ? x : (slope == 0 && x <= 0 ? T(0) : slope * x)", "nanogan_relu"
)
RELU_BACKWARD = cupy.ElementwiseKernel(
    "T dy, T y, T slope", "T dx", "dx = y > 0 ? dy : slope * dy", "nanogan_relu_backward"
)
TANH_BACKWARD = cupy.ElementwiseKernel("T dy, T y", "T dx", "dx = dy * (1 - y * y)", "nanogan_tanh_backward")
SIGMOID_BACKWARD = cupy.ElementwiseKernel("T dy, T y", "T dx", "dx = dy * (y * (1 - y))", "nanogan_sigmoid_backward")

# The lines of nanogan.ops.adam_update; what depends on the step alone comes as numbers.
ADAM = cupy.ElementwiseKernel(
    "T gradient, T decay, T beta1, T rest1, T beta2, T rest2, T rate, T root_scale, T eps",
    "T parameter, T m, T v",
    """
    const T slope = gradient + decay * parameter;
    m = beta1 * m + rest1 * slope;
    v = beta2 * v + rest2 * slope * slope;
    parameter -= rate * m / (sqrt(v) * root_scale + eps)
    """,
    "nanogan_adam",
)
ADAM_RATES = cupy.ElementwiseKernel(
    "float64 step, T lr, float64 beta1, float64 beta2",
    "T rate, T root_scale",
    "rate = lr / (1 - pow(beta1, step)); root_scale = sqrt(1 / (1 - pow(beta2, step)))",
    "nanogan_adam_rates",
)
EMA = cupy.ElementwiseKernel(
    "T newest, T beta", "T average", "average = beta * average + (1 - beta) * newest", "nanogan_ema"
)


def in_memory(x):
    """(N, C, H, W) -> (N, H, W, C), without gaps if x is channels-last; other arrays as they are. A view."""
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def from_memory(x):
    """The inverse of :func:`in_memory`."""
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x


def serves(x, *, negative_slope=0.0):
    """Whether x is of the numbers that the kernels are written for, and the slope one that the operation takes."""
    return x.dtype in (np.float32, np.float64) and 0 <= negative_slope <= 1


def relu_forward(x):
    """The same as :func:`nanogan.ops.relu_forward`."""
    y = leaky_relu_forward(x, negative_slope=0.0)[0]
    return y, y


def relu_backward(dy, cache):
    """The same as :func:`nanogan.ops.relu_backward`."""
    return leaky_relu_backward(dy, (cache, 0.0))


def leaky_relu_forward(x, *, negative_slope=0.01):
    """The same as :func:`nanogan.ops.leaky_relu_forward`."""
    negative_slope = float(negative_slope)
    y = from_memory(RELU(in_memory(x), negative_slope))
    return y, (y, negative_slope)


def leaky_relu_backward(dy, cache):
    """The same as :func:`nanogan.ops.leaky_relu_backward`."""
    y, negative_slope = cache
    return from_memory(RELU_BACKWARD(in_memory(dy), in_memory(y), negative_slope))


def tanh_forward(x):
    """The same as :func:`nanogan.ops.tanh_forward`."""
    y = from_memory(cupy.tanh(in_memory(x)))
    return y, y


def tanh_backward(dy, cache):
    """The same as :func:`nanogan.ops.tanh_backward`."""
    return from_memory(TANH_BACKWARD(in_memory(dy), in_memory(cache)))


def sigmoid_forward(x):
    """The same as :func:`nanogan.ops.sigmoid_forward`."""
    y = from_memory(activations.stable_sigmoid(in_memory(x)))
    return y, y


def sigmoid_backward(dy, cache):
    """The same as :func:`nanogan.ops.sigmoid_backward`."""
    return from_memory(SIGMOID_BACKWARD(in_memory(dy), in_memory(cache)))


# ------------------------------------------------------------------------------------------------------- optimisers


def adam_serves(parameter, gradient, m, v, **options):
    """Whether the arrays are of one dtype, which the kernel is written for."""
    return parameter.dtype in (np.float32, np.float64) and all(a.dtype == parameter.dtype for a in (gradient, m, v))


def adam_update(parameter, gradient, m, v, *, step, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """The same as :func:`nanogan.ops.adam_update`."""
    beta1, beta2 = betas
    if isinstance(step, cupy.ndarray):  # a clock on the GPU: see nanogan.optim.Optimizer.keep_clock
        lr = lr if isinstance(lr, cupy.ndarray) else cupy.full((), lr, parameter.dtype)
        rate, root_scale = (cupy.empty((), parameter.dtype) for _ in range(2))
        ADAM_RATES(step, lr.astype(parameter.dtype, copy=False), beta1, beta2, rate, root_scale)
    else:
        rate = lr / (1 - beta1**step)
        root_scale = (1 / (1 - beta2**step)) ** 0.5
    ADAM(gradient, weight_decay, beta1, 1 - beta1, beta2, 1 - beta2, rate, root_scale, eps, parameter, m, v)


def average_serves(average, newest, *, beta):
    """Whether the arrays are of one dtype, which the kernel is written for."""
    return average.dtype in (np.float32, np.float64) and newest.dtype == average.dtype


def move_average(average, newest, *, beta):
    """The same as :func:`nanogan.ops.updates.move_average`."""
    EMA(newest, beta, average)


def in_memory_order(update, groups):
    """Call ``update`` for groups of arrays, seen as they lie in memory; see :func:`nanogan.dispatch.elementwise`."""
    for arrays in groups:
        update(*(in_memory(array) for array in arrays))


register("gpu", ops.relu_forward, relu_forward, relu_backward, serves=serves)
register("gpu", ops.leaky_relu_forward, leaky_relu_forward, leaky_relu_backward, serves=serves)
register("gpu", ops.tanh_forward, tanh_forward, tanh_backward, serves=serves)
register("gpu", ops.sigmoid_forward, sigmoid_forward, sigmoid_backward, serves=serves)
register("gpu", ops.adam_update, adam_update, serves=adam_serves)
register("gpu", move_average_by_the_book, move_average, serves=average_serves)
register_walk("gpu", in_memory_order)
