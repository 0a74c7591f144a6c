"""Forward and backward passes, written out. Every operation is a pair of plain functions:

    y, cache = conv2d_forward(x, w, b, stride=2, padding=1)
    dx, dw, db = conv2d_backward(dy, cache, need_dx=True, need_dw=True)

``d<name>`` is the gradient of the loss with respect to ``<name>`` and has its shape. A forward's
last line packs what its backward's first line unpacks. A backward changes neither dy nor the cache; what is not needed
comes back as None. The dtype that goes in comes out. All functions work on NumPy and on CuPy arrays.
"""

from nanogan.ops.activations import (
    dropout_backward,
    dropout_forward,
    leaky_relu_backward,
    leaky_relu_forward,
    relu_backward,
    relu_forward,
    sigmoid_backward,
    sigmoid_forward,
    tanh_backward,
    tanh_forward,
)
from nanogan.ops.batchnorm import batchnorm_backward, batchnorm_forward
from nanogan.ops.conv import (
    conv2d_backward,
    conv2d_forward,
    conv_transpose2d_backward,
    conv_transpose2d_forward,
)
from nanogan.ops.linear import embedding_backward, embedding_forward, linear_backward, linear_forward
from nanogan.ops.losses import (
    bce_backward,
    bce_forward,
    bce_with_logits_backward,
    bce_with_logits_forward,
    cross_entropy_backward,
    cross_entropy_forward,
    hinge_backward,
    hinge_forward,
    l1_backward,
    l1_forward,
    mse_backward,
    mse_forward,
    saturating_bce_backward,
    saturating_bce_forward,
    score_backward,
    score_forward,
)
from nanogan.ops.shapes import (
    flatten_backward,
    flatten_forward,
    max_pool2d_backward,
    max_pool2d_forward,
    reshape_backward,
    reshape_forward,
    upsample_backward,
    upsample_forward,
)
from nanogan.ops.updates import adam_update, sgd_update

__all__ = [name for name in dir() if name.endswith(("_forward", "_backward", "_update"))]
