"""Mistakes that only a GPU would show, or its strict double: what crosses between host and device, and kernels."""

from tests.sabotage.mistake import on_gpu

GPU = [
    on_gpu("a NumPy function meets an array on the device", "ops:batchnorm_forward", "inv_std = 1 / xp.sqrt(var + eps)",
           "inv_std = 1 / __import__('numpy').sqrt(var + eps)"),
    on_gpu("col2im adds into memory of the host", "col2im", "xp = array_module(cols)", "import numpy as xp"),
    on_gpu("a name that only NumPy has", "_quiet", "xp.__name__ == 'numpy'", "xp"),
    on_gpu("a step waits for its loss", "games:adversarial_step", "g.zero_grad()", "g.zero_grad()\nfloat(loss_real)"),
    on_gpu("a step fetches a whole batch", "games:adversarial_step", "g.zero_grad()",
           "g.zero_grad()\narray_module(z) is np or fake.get()"),
    on_gpu("the optimiser's state stays on the host", "_zeros_like", "array_module(array).zeros_like(array)",
           "np.zeros(array.shape, array.dtype)"),
    on_gpu("a step of infinite gradients is taken", "Optimizer._scaled_step",
           "array[...] = xp.where(finite, array, kept)", "pass"),
    on_gpu("copies of a network share the flat array's name", "Flat.__reduce__", "(type(None), ())",
           "object.__reduce_ex__(self, 2)"),
    on_gpu("nothing waits for a batch that travels", "copied_ahead", "xp.cuda.get_current_stream().wait_event(copied)",
           "pass"),
    on_gpu("a batch travels into memory that may be in use", "copied_ahead",
           "copies.wait_event(xp.cuda.get_current_stream().record())", ""),
    on_gpu("a loop that is left leaves copies behind", "copied_ahead", "copies.synchronize()", "pass"),
    on_gpu("a batch travels to whatever device is current", "copied_ahead",
           "with here:\n"
           "    there = {name: xp.empty(array.shape, array.dtype) for name, array in columns.items()}\n"
           "    copies.wait_event(xp.cuda.get_current_stream().record())\n"
           "    for name, array in there.items():\n"
           "        array.set(pinned[name], stream=copies)\n"
           "    read[slot] = copies.record()",
           "there = {name: xp.empty(array.shape, array.dtype) for name, array in columns.items()}\n"
           "copies.wait_event(xp.cuda.get_current_stream().record())\n"
           "for name, array in there.items():\n"
           "    array.set(pinned[name], stream=copies)\n"
           "read[slot] = copies.record()"),
    on_gpu("parameters are not aligned", "_aligned", "-(-size // ALIGNMENT) * ALIGNMENT", "size"),
    on_gpu("copies of kernels lose their layout", "Layer.__deepcopy__",
           "arrays[name] = memo.setdefault(('channels-last', id(array)), channels_last(array))",
           "memo.setdefault(('channels-last', id(array)), channels_last(array))"),
    on_gpu("pinned memory is overwritten while it is read", "copied_ahead", "read[slot].synchronize()", "pass"),
    on_gpu("the last batches do not arrive", "copied_ahead",
           "while travelling:\n    yield arrived(*travelling.popleft())", ""),
    on_gpu("TF32 is on by default", "_tell_cublas", "_precision == 'tf32'", "_precision != 'fp16'"),
    on_gpu("bf16 is cut, not rounded", "_rounded", "np.uint32(32767) + (bits >> np.uint32(16) & np.uint32(1))",
           "np.uint32(0)"),
    on_gpu("relu: slope and 1 change places", "RELU", "y = x > 0 ? x : (", "y = x > 0 ? slope * x : ("),
    on_gpu("relu: dx by the sign of dy", "RELU_BACKWARD", "dx = y > 0 ? dy", "dx = dy > 0 ? dy"),
    on_gpu("tanh: the wrong slope", "TANH_BACKWARD", "dx = dy * (1 - y * y)", "dx = dy * (1 - y)"),
    on_gpu("results in CuPy's order", "gpu:tanh_forward", "from_memory(cupy.tanh(in_memory(x)))", "cupy.tanh(x)"),
    on_gpu("adam: v of the gradient, not its square", "ADAM", "rest2 * slope * slope", "rest2 * slope"),
    on_gpu("dx without its mean", "gpu:BACKWARD", "dy - mean_dy - (x", "dy - (x"),
    on_gpu("the mean is rounded to float32", "gpu:batchnorm_forward", "rows[0].copy()", "0 * rows[0]"),
    on_gpu("the variance is the biased one for good", "gpu:batchnorm_forward", "momentum * M / (M - 1)", "momentum"),
    on_gpu("z is taken through the host", "dcgan:Generator.forward", "z.reshape(-1, self.inputs, 1, 1)",
           "(z if type(z) is np.ndarray else __import__('cupy').asarray(z.get())).reshape(-1, self.inputs, 1, 1)"),
    on_gpu("the scale of losses is decided on the host", "Optimizer._scaled_step",
           "factor = xp.where(finite, xp.where(grows, 2.0, 1.0), 0.5)",
           "factor = xp.where(bool(finite), xp.where(grows, 2.0, 1.0), 0.5)"),
    on_gpu("convolution kernels are laid out channels-first", "Flat.view",
           "flat[start:stop].reshape(F, KH, KW, C).transpose(0, 3, 1, 2)", "flat[start:stop].reshape(F, C, KH, KW)"),
    on_gpu("the CPU's fast paths ignore 16 bits", "dispatch:_path",
           "(path.precisions is None or matmul_precision() in path.precisions) and path.serves(*args, **options)",
           "path.serves(*args, **options)"),
    on_gpu("adam: the root is not corrected", "gpu:adam_update", "(1 / (1 - beta2**step)) ** 0.5",
           "1 / (1 - beta2**step)"),
]  # fmt: skip
