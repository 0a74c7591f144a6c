"""Layers: operations that own their parameters, gradients and buffers, and hold no activations.

    y, cache = layer.forward(x, train=True)
    dx = layer.backward(dy, cache)          # and adds dw into layer.grads

A cache belongs to the caller. So one discriminator can have a real and a fake batch alive at once, and their backwards
may run in either order. It holds parameters by reference: step the optimiser only when no cache is still to be used.

A layer of your own subclasses :class:`Layer`, registers its parameters, and defines the two methods:

    class Scale(Layer):
        def __init__(self):
            super().__init__()
            self.add_param("weight", np.ones((), np.float32))

        def forward(self, x, train=True):
            return self.params["weight"] * x, x

        def backward(self, dy, cache, need_dx=True, need_dw=True):
            x = cache
            self.add_grads(weight=(dy * x).sum() if need_dw else None)
            return self.params["weight"] * dy if need_dx else None

It may use other layers, kept as attributes: ``self.inner = Conv2d(...)``. Their parameters are then its own.
"""

import copy

import numpy as np

from nanogan import init, ops
from nanogan.backend import (
    array_module,
    channels_last,
    copy_into,
    dispatch,
    elementwise,
    forward_next,
    get_device,
    to_device,
)
from nanogan.errors import UserError
from nanogan.flat import Flat
from nanogan.ops._layout import pair


class Layer:
    """What every layer has: ``params``, ``grads`` and ``buffers``, dictionaries of arrays by torch's names.

    ``grads[name]`` has the shape of ``params[name]``. Buffers are saved with the parameters but are not trained
    (BatchNorm's running statistics).
    """

    def __init__(self):
        self.params, self.grads, self.buffers = {}, {}, {}
        self._flat = None

    def add_param(self, name, value):
        """Register a parameter and its gradient, which starts at zero."""
        self.params[name] = value
        self.grads[name] = array_module(value).zeros_like(value)

    def forward(self, x, train=True):
        """Return ``y, cache``. ``train`` says how BatchNorm and Dropout behave; sample with ``train=False``."""
        raise TypeError(f"{type(self).__name__} expected its own forward(x, train) and backward(dy, cache): write both")

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        """Return dx, or None if not ``need_dx``. Add the parameters' gradients into ``grads`` if ``need_dw``."""
        raise TypeError(f"{type(self).__name__} expected its own forward(x, train) and backward(dy, cache): write both")

    def add_grads(self, **gradients):
        """Add each gradient that is not None into ``grads``."""
        elementwise(
            _add, [(self.grads[name], gradient) for name, gradient in gradients.items() if gradient is not None]
        )

    def zero_grad(self):
        """Set all gradients to zero: once per step of the optimiser."""
        if self._flat is not None and self._flat.in_use():
            self._flat.gradients[...] = 0
            return
        elementwise(_zero, [(gradient,) for _, _, gradient in self.named_parameters()])

    # ------------------------------------------------------------------------------------ walking over the network

    def named_layers(self, prefix=""):
        """Yield ``(name, layer)`` for this layer and all below it that own arrays; names are torch's ("main.0").

        Below a layer are the layers that are its attributes, as in torch: ``self.inner = Conv2d(...)``.
        """
        yield prefix, self
        for name, value in vars(self).items():
            if isinstance(value, Layer):
                yield from value.named_layers(join(prefix, name))

    def named_parameters(self):
        """Yield ``(name, parameter, gradient)``; those of a layer that stands in two places once, as in torch."""
        seen = set()
        for prefix, layer in self.named_layers():
            for name, parameter in layer.params.items():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield join(prefix, name), parameter, layer.grads[name]

    def flatten(self):
        """Move all parameters into one array and all gradients into another; return the :class:`nanogan.flat.Flat`.

        The arrays in ``params`` and ``grads`` are then views of these. What an optimiser does on a GPU.
        """
        if self._flat is None or not self._flat.in_use():
            self._flat = Flat(self)
        return self._flat

    def __deepcopy__(self, memo):
        """A copy keeps convolution kernels channels-last; CuPy's own copies are C-ordered."""
        new = memo[id(self)] = object.__new__(type(self))
        vars(new).update(copy.deepcopy(vars(self), memo))
        for arrays in (new.params, new.grads, new.buffers):
            for name, array in arrays.items():
                if array.ndim == 4 and not array.transpose(0, 2, 3, 1).flags.c_contiguous:
                    arrays[name] = memo.setdefault(("channels-last", id(array)), channels_last(array))
        return new

    def parameter_count(self):
        """Number of trained numbers."""
        return sum(parameter.size for _, parameter, _ in self.named_parameters())

    def state_dict(self):
        """Return ``{name: array}`` of all parameters and buffers under torch's names: the arrays, not copies."""
        return {
            join(prefix, name): array
            for prefix, layer in self.named_layers()
            for name, array in (layer.params | layer.buffers).items()
        }

    def load_state_dict(self, state):
        """Copy ``state`` ({name: array}, NumPy or CuPy) into this network's arrays, whose dtype and device stay.

        Raises UserError, before anything is copied, if names or shapes differ, listing what does.
        """
        own = self.state_dict()
        problems = [f"{name} is missing" for name in own if name not in state]
        problems += [f"{name} is unknown here" for name in state if name not in own]
        problems += [
            f"{name} has shape {tuple(state[name].shape)} instead of {own[name].shape}"
            for name in own
            if name in state and tuple(state[name].shape) != own[name].shape
        ]
        if problems:
            more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
            raise UserError(f"these weights belong to another network: {'; '.join(problems[:4])}{more}")
        for name, array in own.items():
            copy_into(array, state[name])

    # ---------------------------------------------------------------------------------------- moving and converting

    def to(self, device):
        """Move all arrays to ``device`` ("cpu", "gpu", "gpu:1") and return the layer. Make optimisers after this."""
        device = get_device(device)
        return self._replace_arrays(lambda array: to_device(array, device))

    def astype(self, dtype):
        """Convert parameters, gradients and floating-point buffers to ``dtype`` and return the layer."""
        return self._replace_arrays(lambda array: array.astype(dtype, copy=False) if array.dtype.kind == "f" else array)

    def _replace_arrays(self, replace):
        for _, layer in self.named_layers():
            for arrays in (layer.params, layer.grads, layer.buffers):
                for name in arrays:
                    arrays[name] = replace(arrays[name])
        return self

    def __repr__(self):
        return f"{type(self).__name__}()"


def _add(gradient, more):
    gradient += more


def _zero(gradient):
    gradient[...] = 0


def join(prefix, name):
    """ "main.0" and "weight" -> "main.0.weight"; either may be empty."""
    return ".".join(part for part in (prefix, name) if part)


# ---------------------------------------------------------------------------------------- layers with parameters


class _Affine(Layer):
    """What Conv2d, ConvTranspose2d and Linear share: a weight, perhaps a bias, and one operation with its options."""

    operation = None  # (forward, backward) of nanogan.ops

    def __init__(self, shape, outputs, fan_in, bias, rng, dtype, **options):
        super().__init__()
        if min(shape) < 1:
            raise UserError(f"{type(self).__name__} expected at least one input and one output, got weight {shape}")
        rng = rng or np.random.default_rng()
        self.options = options
        self.add_param("weight", init.kaiming_uniform(rng, shape, fan_in, dtype))
        if bias:
            self.add_param("bias", init.kaiming_uniform(rng, (outputs,), fan_in, dtype))

    def forward(self, x, train=True):
        return dispatch(*self.operation, x, self.params["weight"], self.params.get("bias"), **self.options)

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        backward, cache = cache
        dx, dw, db = backward(dy, cache, need_dx=need_dx, need_dw=need_dw)
        self.add_grads(weight=dw, bias=db)
        return dx

    def __repr__(self):
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        bias = "" if "bias" in self.params else ", bias=False"
        return f"{type(self).__name__}{tuple(self.params['weight'].shape)}{options}{bias}"


class Conv2d(_Affine):
    """Convolution, (N, in_channels, H, W) -> (N, out_channels, OH, OW); see :func:`nanogan.ops.conv2d_forward`.

    Parameters: weight (out_channels, in_channels, KH, KW), bias (out_channels,); drawn from ``rng`` as torch does.
    """

    operation = ops.conv2d_forward, ops.conv2d_backward

    def __init__(
        self, in_channels, out_channels, *, kernel_size, stride=1, padding=0, bias=True, rng=None, dtype=np.float32
    ):
        KH, KW = pair(kernel_size, "kernel_size", least=1)
        shape = (out_channels, in_channels, KH, KW)
        super().__init__(shape, out_channels, in_channels * KH * KW, bias, rng, dtype, stride=stride, padding=padding)


class ConvTranspose2d(_Affine):
    """Transposed convolution, (N, in_channels, H, W) -> (N, out_channels, OH, OW).

    See :func:`nanogan.ops.conv_transpose2d_forward`. Parameters: weight (in_channels, out_channels, KH, KW), bias
    (out_channels,); drawn from ``rng`` as torch does.
    """

    operation = ops.conv_transpose2d_forward, ops.conv_transpose2d_backward

    def __init__(
        self,
        in_channels,
        out_channels,
        *,
        kernel_size,
        stride=1,
        padding=0,
        output_padding=0,
        bias=True,
        rng=None,
        dtype=np.float32,
    ):
        KH, KW = pair(kernel_size, "kernel_size", least=1)
        shape = (in_channels, out_channels, KH, KW)
        options = {"stride": stride, "padding": padding, "output_padding": output_padding}
        # torch counts the fan-in of its transposed convolution along the weight's second axis too
        super().__init__(shape, out_channels, out_channels * KH * KW, bias, rng, dtype, **options)


class Linear(_Affine):
    """Fully connected layer, (N, in_features) -> (N, out_features); see :func:`nanogan.ops.linear_forward`.

    Parameters: weight (out_features, in_features), bias (out_features,); drawn from ``rng`` as torch does.
    """

    operation = ops.linear_forward, ops.linear_backward

    def __init__(self, in_features, out_features, *, bias=True, rng=None, dtype=np.float32):
        super().__init__((out_features, in_features), out_features, in_features, bias, rng, dtype)


class BatchNorm2d(Layer):
    """Batch normalisation of (N, num_features, H, W), as torch.nn.BatchNorm2d.

    See :func:`nanogan.ops.batchnorm_forward`.

    Parameters: weight (gamma), bias (beta). Buffers: running_mean, running_var, num_batches_tracked.
    """

    ndim = 4

    def __init__(self, num_features, *, eps=1e-5, momentum=0.1, dtype=np.float32):
        super().__init__()
        if not (eps > 0 and 0 <= momentum <= 1):
            raise UserError(f"BatchNorm expected eps > 0 and momentum from 0 to 1, got eps={eps}, momentum={momentum}")
        self.eps, self.momentum = eps, momentum
        self.add_param("weight", np.ones(num_features, dtype))
        self.add_param("bias", np.zeros(num_features, dtype))
        self.buffers["running_mean"] = np.zeros(num_features, dtype)
        self.buffers["running_var"] = np.ones(num_features, dtype)
        self.buffers["num_batches_tracked"] = np.zeros((), np.int64)

    def forward(self, x, train=True):
        if x.ndim != self.ndim:
            raise UserError(f"{type(self).__name__} expected {self.ndim} dimensions, got x of shape {x.shape}")
        if train:
            self.buffers["num_batches_tracked"] += 1
        return dispatch(
            ops.batchnorm_forward,
            ops.batchnorm_backward,
            x,
            self.params["weight"],
            self.params["bias"],
            self.buffers["running_mean"],
            self.buffers["running_var"],
            train=train,
            momentum=self.momentum,
            eps=self.eps,
        )

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        backward, cache = cache
        dx, dgamma, dbeta = backward(dy, cache, need_dx=need_dx, need_dw=need_dw)
        self.add_grads(weight=dgamma, bias=dbeta)
        return dx

    def __repr__(self):
        return f"{type(self).__name__}({self.params['weight'].size}, eps={self.eps}, momentum={self.momentum})"


class BatchNorm1d(BatchNorm2d):
    """Batch normalisation of (N, num_features), as torch.nn.BatchNorm1d."""

    ndim = 2


class Embedding(Layer):
    """A table of vectors: whole numbers (...) -> (..., embedding_dim); see :func:`nanogan.ops.embedding_forward`.

    Parameter: weight (num_embeddings, embedding_dim), drawn from N(0, 1) as torch does.
    """

    def __init__(self, num_embeddings, embedding_dim, *, rng=None, dtype=np.float32):
        super().__init__()
        rng = rng or np.random.default_rng()
        self.add_param("weight", rng.standard_normal((num_embeddings, embedding_dim)).astype(dtype))

    def forward(self, x, train=True):
        return dispatch(ops.embedding_forward, ops.embedding_backward, x, self.params["weight"])

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        """Add dw; return None, since whole numbers have no gradient."""
        backward, cache = cache
        _, dw = backward(dy, cache, need_dx=need_dx, need_dw=need_dw)
        self.add_grads(weight=dw)

    def __repr__(self):
        return f"Embedding{self.params['weight'].shape}"


# ------------------------------------------------------------------------------------- layers without parameters


class _Plain(Layer):
    """A layer without parameters: one operation and its options."""

    operation = None  # (forward, backward) of nanogan.ops

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, x, train=True):
        return dispatch(*self.operation, x, **self.options)

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        if not need_dx:
            return None
        backward, cache = cache
        return backward(dy, cache)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self.options.items())})"


class ReLU(_Plain):
    """max(x, 0)."""

    operation = ops.relu_forward, ops.relu_backward


class LeakyReLU(_Plain):
    """x where x > 0, else negative_slope * x. The default is torch's 0.01; DCGANs use 0.2."""

    operation = ops.leaky_relu_forward, ops.leaky_relu_backward

    def __init__(self, *, negative_slope=0.01):
        super().__init__(negative_slope=negative_slope)


class Tanh(_Plain):
    """tanh(x), from -1 to 1 like the pictures."""

    operation = ops.tanh_forward, ops.tanh_backward


class Sigmoid(_Plain):
    """1 / (1 + e^-x)."""

    operation = ops.sigmoid_forward, ops.sigmoid_backward


class Dropout(_Plain):
    """Zero each element with probability p in train mode. ``rng`` draws the zeros; its state is part of a run's."""

    operation = ops.dropout_forward, ops.dropout_backward

    def __init__(self, *, p=0.5, rng=None):
        super().__init__(p=p)
        self.rng = rng or np.random.default_rng()

    def forward(self, x, train=True):
        return dispatch(*self.operation, x, rng=self.rng, train=train, **self.options)


class Upsample(_Plain):
    """Repeat every pixel: (N, C, H, W) -> (N, C, H*scale_factor, W*scale_factor)."""

    operation = ops.upsample_forward, ops.upsample_backward

    def __init__(self, *, scale_factor=2):
        super().__init__(scale_factor=scale_factor)


class MaxPool2d(_Plain):
    """The largest value of each window; the stride is kernel_size if not given."""

    operation = ops.max_pool2d_forward, ops.max_pool2d_backward

    def __init__(self, *, kernel_size, stride=None, padding=0):
        super().__init__(kernel_size=kernel_size, stride=stride, padding=padding)


class Flatten(_Plain):
    """(N, C, H, W) -> (N, C*H*W)."""

    operation = ops.flatten_forward, ops.flatten_backward


class Reshape(_Plain):
    """(N, ...) -> (N, *shape): ``Reshape(128, 7, 7)`` or ``Reshape((128, 7, 7))``."""

    operation = ops.reshape_forward, ops.reshape_backward

    def __init__(self, *shape):
        super().__init__(shape=tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)


# ------------------------------------------------------------------------------------------------------ containers


class Sequential(Layer):
    """Layers one after the other. The cache is the list of the layers' caches.

    ``prefix`` stands before the layers' numbers in the names of their arrays: with ``prefix="main"`` they are those of
    pytorch/examples' DCGAN, "main.0.weight". Index and slice it like a list: ``network[3]``.
    """

    def __init__(self, *layers, prefix=""):
        super().__init__()
        self.layers, self.prefix = list(layers), prefix

    def forward(self, x, train=True):
        caches = []
        while len(caches) < len(self.layers):
            x, some = forward_next(self.layers[len(caches) :], x, train)
            caches += some
        return x, caches

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        for i in reversed(range(len(self.layers))):
            dy = self.layers[i].backward(dy, cache[i], need_dx=need_dx or i > 0, need_dw=need_dw)
        return dy if need_dx else None

    def named_layers(self, prefix=""):
        for name, layer in super().named_layers(prefix):
            if layer is not self or self.params or self.buffers:
                yield name, layer
        for i, layer in enumerate(self.layers):
            yield from layer.named_layers(join(join(prefix, self.prefix), str(i)))

    def __len__(self):
        return len(self.layers)

    def __getitem__(self, i):
        return Sequential(*self.layers[i]) if isinstance(i, slice) else self.layers[i]

    def __repr__(self):
        lines = "\n".join(f"  {i}: {layer!r}".replace("\n", "\n  ") for i, layer in enumerate(self.layers))
        return f"{type(self).__name__}(\n{lines}\n)"


__all__ = [
    name
    for name, value in dict(globals()).items()
    if isinstance(value, type) and issubclass(value, Layer) and name[0] != "_"
]
