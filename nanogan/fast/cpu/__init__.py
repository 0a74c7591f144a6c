"""Fast paths for the CPU, in NumPy: threads over chunks that stay in cache, and Winograd's convolution.

``PATHS`` maps the forward of an operation to what may be used instead: (serves, forward, backward), the first that
serves the arguments. :mod:`fused` runs layers together, and :mod:`elementwise` the optimisers' updates.
"""

from nanogan import ops
from nanogan.fast.cpu import batchnorm, chunked, elementwise, winograd

PATHS = {
    ops.conv2d_forward: [
        (winograd.serves_conv2d, winograd.conv2d_forward, winograd.conv2d_backward),
        (chunked.serves_conv2d, chunked.conv2d_forward, chunked.conv2d_backward),
    ],
    ops.conv_transpose2d_forward: [
        (winograd.serves_conv_transpose2d, winograd.conv_transpose2d_forward, winograd.conv_transpose2d_backward),
        (chunked.serves_conv_transpose2d, chunked.conv_transpose2d_forward, chunked.conv_transpose2d_backward),
    ],
    ops.batchnorm_forward: [(batchnorm.serves, batchnorm.batchnorm_forward, batchnorm.batchnorm_backward)],
    ops.relu_forward: [(elementwise.serves, elementwise.relu_forward, elementwise.relu_backward)],
    ops.leaky_relu_forward: [(elementwise.serves, elementwise.leaky_relu_forward, elementwise.leaky_relu_backward)],
    ops.tanh_forward: [(elementwise.serves, elementwise.tanh_forward, elementwise.tanh_backward)],
}
