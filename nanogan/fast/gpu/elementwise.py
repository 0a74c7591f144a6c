"""Activations and the optimisers' updates, each in one kernel over memory."""

import cupy
import numpy as np

from nanogan.ops import activations
from nanogan.optim import Adam

RELU = cupy.ElementwiseKernel(  # 0 * -inf would be NaN; NaN is not <= 0, and stays NaN
    "T x, T slope", "T y", "y = x > 0 ? x : (slope == 0 && x <= 0 ? T(0) : slope * x)", "nanogan_relu"
)
RELU_BACKWARD = cupy.ElementwiseKernel(
    "T dy, T y, T slope", "T dx", "dx = y > 0 ? dy : slope * dy", "nanogan_relu_backward"
)
TANH_BACKWARD = cupy.ElementwiseKernel("T dy, T y", "T dx", "dx = dy * (1 - y * y)", "nanogan_tanh_backward")
SIGMOID_BACKWARD = cupy.ElementwiseKernel("T dy, T y", "T dx", "dx = dy * (y * (1 - y))", "nanogan_sigmoid_backward")

# The lines of nanogan.optim.Adam._update; what depends on the step alone comes as numbers.
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


def update_all(update, groups):
    """The GPU's :func:`nanogan.backend.elementwise`."""
    if getattr(update, "__func__", None) is Adam._update:
        for parameter, gradient, m, v in groups:
            adam_update(update.__self__, parameter, gradient, m, v)
        return
    for arrays in groups:
        update(*(in_memory(array) for array in arrays))


def adam_update(adam, parameter, gradient, m, v):
    """The same as ``adam._update(parameter, gradient, m, v)``."""
    beta1, beta2 = adam.betas
    rate = adam.lr / (1 - beta1**adam.steps)
    root_scale = (1 / (1 - beta2**adam.steps)) ** 0.5
    numbers = adam.weight_decay, beta1, 1 - beta1, beta2, 1 - beta2, rate, root_scale, adam.eps
    ADAM(in_memory(gradient), *numbers, in_memory(parameter), in_memory(m), in_memory(v))
