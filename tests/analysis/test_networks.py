"""Images brought to a network's dtype and device, and its first layers."""

import numpy as np
import pytest

from nanogan.analysis.networks import first_layers, mean_squares, pictures_for
from nanogan.backend import to_numpy
from nanogan.errors import UserError
from nanogan.layers import Linear, ReLU, Sequential, Tanh
from nanogan.models import dcgan


def test_pictures_for_a_network(device):
    g = dcgan.generator(image_size=8, channels=3, latent=2, width=2).to(device)
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    pixels[0, 1, 2] = 0, 51, 255
    x = to_numpy(pictures_for(g, pixels))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[0, :, 1, 2], [-1, -0.6, 1], atol=1e-6)


def test_first_layers_end_with_the_one_that_was_asked_for():
    network = Sequential(Linear(2, 2), ReLU(), Tanh())
    assert first_layers(network, 1).layers == network.layers[:2]
    for layer in (-1, 3, None):
        with pytest.raises(UserError, match=f"features expected a layer from 0 to 2, got {layer}"):
            first_layers(network, layer)


def test_mean_squares_of_float16_do_not_overflow():
    np.testing.assert_array_equal(mean_squares(np.array([[300, 400], [3, 4]], np.float16)), [125_000, 12.5])
