"""A network's parameters side by side in one array, and its gradients in another.

A GPU needs a few microseconds to start a kernel, whatever its size. Adam over the dozens of arrays of a DCGAN takes
longer to start than to run; over one array it starts once.
"""

import numpy as np

from nanogan.backend import array_module

ALIGNMENT = 64  # numbers


class Flat:
    """Moves ``network``'s parameters and gradients into ``parameters`` and ``gradients``, both of shape (size,).

    The arrays in ``layer.params`` and ``layer.grads`` are replaced by views, in torch's shapes and channels-last.
    All parameters must be of one dtype. Each starts at a multiple of ALIGNMENT numbers, as cuBLAS likes it; in the gaps
    are zeros, which stay zeros.
    """

    def __init__(self, network):
        named = list(network.named_parameters())
        owners = [layer for _, layer in network.named_layers()]
        xp = array_module(named[0][1])
        size = sum(_aligned(parameter.size) for _, parameter, _ in named)
        self.parameters = xp.zeros(size, named[0][1].dtype)
        self.gradients = xp.zeros_like(self.parameters)
        self.slices = {}  # name -> (start, stop, shape)
        self._places = []  # (dictionary of a layer, name, view)
        start = 0
        for name, parameter, gradient in named:
            self.slices[name] = start, start + parameter.size, parameter.shape
            views = self.view(self.parameters, name), self.view(self.gradients, name)
            for view, array in zip(views, (parameter, gradient), strict=True):
                view[...] = array
            for layer in owners:  # an array that stands in two places stays one
                for own in [own for own, array in layer.params.items() if array is parameter]:
                    self._places += [(layer.params, own, views[0]), (layer.grads, own, views[1])]
            start += _aligned(parameter.size)
        for arrays, name, view in self._places:
            arrays[name] = view

    def __reduce__(self):
        return type(None), ()  # a copied network has arrays of its own, side by side no more

    def view(self, flat, name):
        """The part of ``flat`` that belongs to the parameter ``name``, in its shape."""
        start, stop, shape = self.slices[name]
        if len(shape) != 4:
            return flat[start:stop].reshape(shape)
        F, C, KH, KW = shape
        return flat[start:stop].reshape(F, KH, KW, C).transpose(0, 3, 1, 2)

    def in_use(self):
        """Whether the network's arrays are still these views: ``to`` and ``astype`` replace them."""
        return all(arrays[name] is view for arrays, name, view in self._places)


class Bucket:
    """Moves the gradients alone of ``network`` into one array, ``gradients`` (size,), where ranks add them up at once.

    The arrays in ``layer.grads`` are replaced by views of their shapes and memory order. All are of one dtype.
    """

    def __init__(self, network):
        named = list(network.named_parameters())
        owners = [layer for _, layer in network.named_layers()]
        xp = array_module(named[0][1])
        self.gradients = xp.zeros(sum(_aligned(gradient.size) for *_, gradient in named), named[0][1].dtype)
        self._places, start = [], 0
        for _, _, gradient in named:
            order = sorted(range(gradient.ndim), key=lambda axis: -gradient.strides[axis])  # as it lies in memory
            lying = self.gradients[start : start + gradient.size].reshape([gradient.shape[axis] for axis in order])
            view = lying.transpose(np.argsort(order))
            view[...] = gradient
            for layer in owners:
                self._places += [(layer, own, view) for own, array in layer.grads.items() if array is gradient]
            start += _aligned(gradient.size)
        for layer, name, view in self._places:
            layer.grads[name] = view

    def in_use(self):
        """Whether the network's gradients are still these views: ``to`` and ``astype`` replace them."""
        return all(layer.grads[name] is view for layer, name, view in self._places)


def _aligned(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def worthwhile(network):
    """Whether ``network`` is on a GPU and its parameters are of one dtype."""
    arrays = [parameter for _, parameter, _ in network.named_parameters()]
    return bool(arrays) and array_module(arrays[0]) is not np and len({array.dtype for array in arrays}) == 1
