"""ACGAN's discriminator: a DCGAN's with two ends."""

import numpy as np
import pytest

from nanogan.errors import UserError
from nanogan.gradcheck import check_layer
from nanogan.layers import Dropout, LeakyReLU
from nanogan.models import acgan, dcgan

SIZES = {"image_size": 16, "channels": 2, "width": 3}


def test_trunk_and_source_are_the_dcgans_discriminator(rng):
    d = acgan.discriminator(classes=3, rng=np.random.default_rng(0), **SIZES)
    plain = dcgan.discriminator(rng=np.random.default_rng(0), **SIZES)
    x = rng.standard_normal((5, 2, 16, 16), dtype=np.float32)
    h, _ = d.trunk.forward(x, train=False)
    logits, _ = d.source.forward(h)
    np.testing.assert_array_equal(logits, plain.forward(x, train=False)[0])
    scores, _ = d.classes.forward(h)
    assert scores.shape == (5, 3)
    np.testing.assert_array_equal(d.classifier.forward(x, train=False)[0], scores)
    assert d.parameter_count() == plain.parameter_count() + 3 * 6 * 4 * 4


def test_dropout_stands_behind_each_activation_with_zeros_of_its_own():
    d = acgan.discriminator(classes=3, dropout=0.25, rng=np.random.default_rng(0), **SIZES)
    layers = d.trunk.layers
    after = [layers[i + 1] for i, layer in enumerate(layers) if isinstance(layer, LeakyReLU)]
    assert [layer.options["p"] for layer in after] == [0.25, 0.25]
    assert sum(isinstance(layer, Dropout) for layer in layers) == 2


def test_its_weights_start_as_the_papers():
    d = acgan.discriminator(classes=10, image_size=28, channels=1, width=32, rng=np.random.default_rng(0))
    weights = d.classes[0].params["weight"]
    assert weights.shape == (10, 64, 7, 7)
    assert weights.std() == pytest.approx(0.02, rel=0.02)
    assert abs(weights.mean()) < 1e-3


def test_float64_stays_float64_and_gradients_are_the_slopes(rng):
    d = acgan.discriminator(classes=3, dropout=0.0, rng=rng, dtype=np.float64, **SIZES)
    assert {array.dtype for _, array, _ in d.named_parameters()} == {np.dtype(np.float64)}
    check_layer(d.classifier, rng.standard_normal((3, 2, 16, 16))).raise_if_wrong()


@pytest.mark.parametrize(("change", "message"), [({"classes": 0}, "classes"), ({"dropout": 1.5}, "dropout")])
def test_a_callers_mistake_gets_one_sentence(change, message):
    with pytest.raises(UserError, match=f"{message} expected a"):
        acgan.discriminator(**SIZES | {"classes": 3} | change)
