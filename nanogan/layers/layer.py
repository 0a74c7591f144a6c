"""What every layer has: parameters, gradients, buffers; how networks are walked over, moved and saved."""

import copy
from collections.abc import Mapping

import numpy as np

from nanogan.backend import array_module, channels_last, copy_into, device_of, get_device, to_device
from nanogan.dispatch import dispatch, elementwise
from nanogan.errors import UserError
from nanogan.layers.flat import Flat
from nanogan.layers.loading import copy_unread, is_unread, problem


class _Read:
    """A property whose name a subclass may use for an attribute of its own, as people's networks do with ``device``."""

    def __init__(self, function):
        self.function, self.__doc__ = function, function.__doc__

    def __get__(self, layer, kind=None):
        return self if layer is None else self.function(layer)


class Layer:
    """What every layer has: ``params``, ``grads`` and ``buffers``, dictionaries of arrays by torch's names.

    ``grads[name]`` has the shape of ``params[name]``. Buffers are saved with the parameters but are not trained
    (BatchNorm's running statistics).
    """

    no_tangent = "it defines none"  # why, for a layer without

    def __init_subclass__(cls, **options):
        """A class that writes its own backward inherits no tangent: another backward's would be wrong for it."""
        super().__init_subclass__(**options)
        if "backward" in vars(cls) and "tangent" not in vars(cls) and cls.tangent is not Layer.tangent:
            cls.tangent, cls.no_tangent = Layer.tangent, "it writes its own backward"

    def __init__(self):
        self.params, self.grads, self.buffers = {}, {}, {}
        self._flat = None

    def add_param(self, name, value):
        """Register a parameter and its gradient, which starts at zero. Raises UserError unless it is of floats."""
        xp = array_module(value)
        if value.dtype.kind != "f":  # integers would make 0 of the weights
            raise UserError(f"{type(self).__name__} expected a floating-point dtype for its {name}, got {value.dtype}")
        self.params[name] = value
        self.grads[name] = xp.zeros_like(value)

    def forward(self, x, train=True):
        """Return ``y, cache``. ``train`` says how BatchNorm and Dropout behave; sample with ``train=False``."""
        raise TypeError(f"{type(self).__name__} expected its own forward(x, train) and backward(dy, cache): write both")

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        """Return dx, or None if not ``need_dx``. Add the parameters' gradients into ``grads`` if ``need_dw``."""
        raise TypeError(f"{type(self).__name__} expected its own forward(x, train) and backward(dy, cache): write both")

    def forward_with(self, following, x, train=True):
        """Return what this layer and the ``following`` one make of x, if a fast path computes both at once, else None.

        ``y, cache, (cache of this one, cache of the following one)``: the first is for this layer's backward, which is
        then that of both.
        """
        return None

    def tangent(self, v, cache):
        """Return how y changes as x moves along v, and the cache of this tangent.

            t, tangent_cache = layer.tangent(v, cache)          t = d/ds y(x + s v)  at s = 0

        ``cache`` is the forward's, v has x's shape, t has y's. A layer that is linear piece by piece has a tangent: t
        is linear in v, and does not change with x until a mask flips. So t has a backward of its own, which is the
        layer's: ``backward(dt, tangent_cache)`` returns dv and adds into ``grads`` how <dt, t> changes with the
        parameters. A bias only moves y as a whole: t does not depend on it, and its gradient is zero.

        v = the gradient of a critic's score makes t the slope of the critic, which a gradient penalty compares with 1:
        see :mod:`nanogan.games.wgan_gp`. Raises UserError if the layer has no tangent.
        """
        raise UserError(
            f"{type(self).__name__} has no tangent, since {self.no_tangent}: for a gradient penalty use layers that "
            "are linear piece by piece, such as Conv2d, Linear, LeakyReLU and ReLU"
        )

    def backward_of(self, cache, dy, need_dx, need_dw, *names):
        """Run the backward that :func:`dispatch` chose, which returns dx and the gradients of ``names``; return dx.

        The gradients are added into ``grads``, by the backward itself if it can.
        """
        backward, cache = cache
        options = {}
        if need_dw and getattr(backward, "adds_gradients", False) and self.params:
            options["into"] = [self.grads.get(name) for name in names]
        dx, *gradients = backward(dy, cache, need_dx=need_dx, need_dw=need_dw, **options)
        self.add_grads(**dict(zip(names, gradients, strict=True)))
        return dx

    def add_grads(self, **gradients):
        """Add each gradient that is not None into ``grads``."""
        elementwise(
            _add, [(self.grads[name], gradient) for name, gradient in gradients.items() if gradient is not None]
        )

    def zero_grad(self):
        """Set all gradients to zero: once per step of the optimiser."""
        elementwise(_zero, [(gradient,) for gradient in self.gradient_arrays()])

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

    def gradient_arrays(self):
        """The arrays that hold the gradients: one for each parameter, or after :meth:`flatten` one for all."""
        if self._flat is not None and self._flat.in_use():
            return [self._flat.gradients]
        return [gradient for _, _, gradient in self.named_parameters()]

    def flatten(self):
        """Move all parameters into one array and all gradients into another; return the :class:`Flat`.

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

        Raises UserError, before anything is copied, if names or shapes differ or a dtype cannot hold the numbers,
        listing what does. ``num_batches_tracked``, which no formula reads, may be missing, unknown or of another kind.
        """
        if not isinstance(state, Mapping):
            raise UserError(f"load_state_dict expected a dictionary {{name: array}}, got {type(state).__name__}")
        own = self.state_dict()
        read = [name for name in own if not is_unread(name)]
        problems = [f"{name} is missing" for name in read if name not in state]
        unknown = [f"{name} is unknown here" for name in state if name not in own and not is_unread(name)]
        wrong = [problem(name, state[name], own[name]) for name in read if name in state]
        problems += unknown + [words for words in wrong if words]
        if problems:
            more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
            way_out = "; nothing else differs: leave that out to load the rest" if problems == unknown else ""
            raise UserError(f"these weights belong to another network: {'; '.join(problems[:4])}{more}{way_out}")
        for name in read:
            copy_into(own[name], state[name])
        for name in own.keys() - read:
            copy_unread(name, own[name], state.get(name))

    # ---------------------------------------------------------------------------------------- moving and converting

    @_Read
    def array_module(self):
        """The library of this network's parameters: ``numpy``, or ``cupy``."""
        return array_module(self._first_parameter())

    @_Read
    def device(self):
        """The :class:`nanogan.backend.Device` that holds this network's parameters."""
        return device_of(self._first_parameter())

    @_Read
    def dtype(self):
        """The dtype of this network's parameters."""
        return self._first_parameter().dtype

    def _first_parameter(self):
        for _, parameter, _ in self.named_parameters():
            return parameter
        raise UserError(f"{type(self).__name__} has no parameters, so it has no device and no dtype")

    def to(self, device):
        """Move all arrays to ``device`` ("cpu", "gpu", "gpu:1") and return the layer. Make optimisers after this.

        Counters (num_batches_tracked) stay on the host: to count on a GPU would take a kernel each.
        """
        device = get_device(device)

        def moved(array):
            return array if array.dtype.kind in "iu" and array.ndim == 0 else to_device(array, device)

        return self._replace_arrays(moved)

    def astype(self, dtype):
        """Convert parameters, gradients and floating-point buffers to ``dtype`` and return the layer.

        Raises UserError unless it is a dtype of floating-point numbers.
        """
        try:
            is_float = np.dtype(dtype).kind == "f"
        except TypeError:
            is_float = False
        if not is_float:
            raise UserError(f"{type(self).__name__}.astype expected a dtype such as 'float32', got {dtype!r}")
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


def same_as_forward(layer, v, cache):
    """The tangent of a linear layer: the layer itself, applied to v."""
    return layer.forward(v)


def same_as_backward(layer, v, cache):
    """The tangent of a layer that multiplies by a mask: v -> mask * v is its backward, dy -> mask * dy."""
    return layer.backward(v, cache), cache


def writes_its_own(layer, base):
    """Whether the layer or its class replaces ``base``'s forward or backward: then no path may compute it unasked."""
    kind = type(layer)
    return kind.forward is not base.forward or kind.backward is not base.backward or replaced(layer)


def replaced(layer):
    """Whether somebody has given this one layer another forward or backward than its class has."""
    return "forward" in vars(layer) or "backward" in vars(layer)


class Plain(Layer):
    """A layer without parameters: one operation and its options.

    A subclass that is linear says ``tangent = same_as_forward``, one whose slope is a mask ``tangent =
    same_as_backward``.
    """

    operation = None  # (forward, backward) of nanogan.ops
    no_tangent = "its slope changes with x"

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
