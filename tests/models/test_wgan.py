"""The critic: sizes, shapes, and what it refuses."""

import numpy as np
import pytest

from nanogan.errors import UserError
from nanogan.models import wgan
from tests.test_tangent import torchs_critic


@pytest.mark.parametrize(
    ("image_size", "shapes"),
    [
        (64, [(4, 3, 4, 4), (8, 4, 4, 4), (16, 8, 4, 4), (32, 16, 4, 4), (1, 32 * 16)]),
        (28, [(4, 3, 4, 4), (8, 4, 4, 4), (16, 8, 4, 4), (1, 16 * 9)]),
        (5, [(4, 3, 4, 4), (1, 4 * 4)]),
    ],
)
def test_maps_are_halved_until_4_pixels_are_left(image_size, shapes, rng):
    d = wgan.critic(image_size=image_size, width=4, rng=rng)
    state = d.state_dict()
    assert [array.shape for name, array in state.items() if name.endswith("weight")] == shapes
    assert sum(name.endswith("bias") for name in state) == len(shapes) - 1, "none in the last layer"
    assert d.forward(np.zeros((2, 3, image_size, image_size), np.float32))[0].shape == (2, 1)


def test_scores_are_torchs(rng):
    import torch

    d = wgan.critic(image_size=20, channels=2, width=3, rng=rng, dtype=np.float64)
    x = rng.standard_normal((4, 2, 20, 20))
    np.testing.assert_allclose(d.forward(x)[0], torchs_critic(d)(torch.tensor(x)).detach().numpy(), rtol=1e-12)


def test_a_seed_gives_the_same_critic():
    one, two = (wgan.critic(image_size=8, width=2, rng=np.random.default_rng(4)) for _ in range(2))
    for name, array in one.state_dict().items():
        np.testing.assert_array_equal(array, two.state_dict()[name])


def test_what_it_cannot_read_is_refused():
    with pytest.raises(UserError, match="a critic expected images of at least 5 pixels on a side, got 4"):
        wgan.critic(image_size=4)
    with pytest.raises(UserError, match="width expected a whole number of at least 1, got 0"):
        wgan.critic(image_size=8, width=0)
    d = wgan.critic(image_size=8, channels=1, width=2)
    with pytest.raises(UserError, match=r"the critic expected images of shape \(N, 1, 8, 8\), got \(2, 1, 16, 16\)"):
        d.forward(np.zeros((2, 1, 16, 16), np.float32))
