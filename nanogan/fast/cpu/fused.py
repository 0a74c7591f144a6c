"""Layers that are faster together: batch normalisation and the activation behind it."""

from nanogan import layers
from nanogan.fast.cpu import batchnorm, elementwise


def forward_next(following, x, train):
    """Run BatchNorm and ReLU or LeakyReLU as one, where they come next; see :func:`nanogan.backend.forward_next`.

    Returns None where they do not. Subclasses, and layers whose forward was replaced, are left alone. Each layer's
    cache is for its own backward, as without this.
    """
    if len(following) < 2 or not train or type(following[0]) not in (layers.BatchNorm2d, layers.BatchNorm1d):
        return None
    first, second = following[:2]
    if "forward" in vars(first) or "forward" in vars(second):
        return None
    if type(second) is layers.ReLU:
        negative_slope = 0.0
    elif type(second) is layers.LeakyReLU and 0 <= second.options["negative_slope"] <= 1:
        negative_slope = float(second.options["negative_slope"])
    else:
        return None
    arrays = first.params["weight"], first.params["bias"], first.buffers["running_mean"], first.buffers["running_var"]
    if x.ndim != first.ndim or not batchnorm.serves(x, *arrays):
        return None
    first.buffers["num_batches_tracked"] += 1
    y, cache = batchnorm.batchnorm_forward(
        x, *arrays, momentum=first.momentum, eps=first.eps, negative_slope=negative_slope
    )
    if type(second) is layers.ReLU:
        activation = elementwise.relu_backward, y
    else:
        activation = elementwise.leaky_relu_backward, (y, negative_slope)
    return y, [(batchnorm.batchnorm_backward, cache), activation]
