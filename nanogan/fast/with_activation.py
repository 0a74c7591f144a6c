"""BatchNorm and the ReLU or LeakyReLU behind it as one operation, on a device whose BatchNorm takes the slope.

What either device's fast path shares: see :func:`nanogan.dispatch.dispatch_both` for what a pair takes and returns.
"""

from nanogan import ops
from nanogan.dispatch import register
from nanogan.ops import activations

NONE = 1.0  # the slope of no activation


def slope_of(negative_slope=0.01):
    """LeakyReLU's option."""
    return float(negative_slope)


def alone(cache):
    """The cache of the normalisation without what follows it."""
    *before, _, shape = cache
    return (*before, NONE, shape)


def register_pairs(kind, forward, backward, serves):
    """Register BatchNorm with each activation for a kind of device; return relu_forward and leaky_relu_forward.

    ``forward``, ``backward``, ``serves``: BatchNorm's, of x (N, C, H, W) or (N, C). The forward takes ``slope`` besides
    its options, 0 for ReLU, NONE for no activation, and its cache ends in the slope and x's shape.
    """

    def relu_forward(norm, activation):
        """BatchNorm, then :func:`nanogan.ops.relu_forward`. Returns y, a cache, and each one's backward and cache.

        norm: the arguments and the options of the first; activation: the options of the second.
        """
        arguments, options = norm
        y, cache = forward(*arguments, **options, slope=0.0)
        return y, cache, ((backward, alone(cache)), (activations.relu_backward, y))

    def leaky_relu_forward(norm, activation):
        """The same with :func:`nanogan.ops.leaky_relu_forward`."""
        (arguments, options), slope = norm, slope_of(**activation)
        y, cache = forward(*arguments, **options, slope=slope)
        return y, cache, ((backward, alone(cache)), (activations.leaky_relu_backward, (y, slope)))

    def serves_relu(norm, activation):
        """Whether the normalisation is one that the path serves."""
        arguments, options = norm
        return serves(*arguments, **options)

    def serves_leaky_relu(norm, activation):
        """The same, and the slope one that the activation takes."""
        return serves_relu(norm, activation) and 0 <= slope_of(**activation) <= 1

    pairs = (
        (ops.relu_forward, relu_forward, serves_relu),
        (ops.leaky_relu_forward, leaky_relu_forward, serves_leaky_relu),
    )
    for activation, both, serves_both in pairs:
        both.__module__, both.__qualname__ = forward.__module__, both.__name__  # the device's, for those who watch
        register(kind, (ops.batchnorm_forward, activation), both, backward, serves=serves_both)
    return relu_forward, leaky_relu_forward
