"""Fast paths for a GPU: elementwise work in the order of memory, several steps in one kernel.

Launching a kernel costs a GPU a few microseconds, and each walks over memory once; so fewer kernels are faster. And
neighbouring threads must read neighbouring numbers: CuPy goes through a channels-last batch channel by channel, C
numbers apart, and returns it in another order. Here each batch is seen as the (N, H, W, C) array that it is in memory.

Each file registers what it serves (:mod:`nanogan.dispatch`). Written for CuPy's ElementwiseKernel: a line of C++ each,
which the tests also compile and run on the CPU.
"""
