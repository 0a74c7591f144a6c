"""Fast paths for a GPU: elementwise work in the order of memory, several steps in one kernel.

Launching a kernel costs a GPU a few microseconds, and each walks over memory once; so fewer kernels are faster. And
neighbouring threads must read neighbouring numbers: CuPy goes through a channels-last batch channel by channel, C
numbers apart, and returns it in another order. Here each batch is seen as the (N, H, W, C) array that it is in memory.

``PATHS`` maps functions to what may be used instead, as for the CPU. Written for CuPy's ElementwiseKernel: a line of
C++ each, which the tests also compile and run on the CPU.
"""

from nanogan import ops
from nanogan.fast.gpu import batchnorm, elementwise

PATHS = {
    ops.batchnorm_forward: [(batchnorm.serves, batchnorm.batchnorm_forward, batchnorm.batchnorm_backward)],
    ops.relu_forward: [(elementwise.serves, elementwise.relu_forward, elementwise.relu_backward)],
    ops.leaky_relu_forward: [(elementwise.serves, elementwise.leaky_relu_forward, elementwise.leaky_relu_backward)],
    ops.tanh_forward: [(elementwise.serves, elementwise.tanh_forward, elementwise.tanh_backward)],
    ops.sigmoid_forward: [(elementwise.serves, elementwise.sigmoid_forward, elementwise.sigmoid_backward)],
}
