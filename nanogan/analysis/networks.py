"""What the experiments do with any network: images brought to it, its first layers, errors for each image."""

from nanogan.backend import to_device
from nanogan.errors import UserError
from nanogan.images import from_uint8
from nanogan.layers import Sequential


def first_layers(network, layer):
    """Return the layers of a Sequential up to number ``layer``, which counts from 0.

    Raises UserError if there is no layer of this number.
    """
    if layer is None or not 0 <= layer < len(network):
        raise UserError(f"features expected a layer from 0 to {len(network) - 1}, got {layer}")
    return Sequential(*network.layers[: layer + 1])


def pictures_for(network, pictures):
    """uint8 (N, H, W, C) -> (N, C, H, W) from -1 to 1, in the dtype and on the device of ``network``'s parameters."""
    return to_device(from_uint8(pictures, network.dtype), network.device)


def mean_squares(x):
    """Return the mean of x^2 over everything but the first axis, (N,); of float16 in float32."""
    x = x.astype("float32") if x.dtype.itemsize == 2 else x
    return (x * x).reshape(len(x), -1).mean(axis=1)
