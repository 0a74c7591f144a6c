"""Power spectra of waves that are known, and the peaks at a stride's frequencies, by hand and by the definition."""

import numpy as np
import pytest
from scipy.signal.windows import cosine

from nanogan.analysis.inside import spectrum
from nanogan.backend import array_module, to_device, to_numpy
from nanogan.errors import UserError
from nanogan.models import dcgan
from nanogan.ops import bce_with_logits_forward
from tests.helpers import elementwise_gradient


def checkerboard(size, amplitude=1.0):
    """(1, 1, size, size): amplitude * (-1)^(h + w)."""
    h, w = np.indices((size, size))
    return (amplitude * (-1.0) ** (h + w))[None, None]


def by_definition(pictures, window):
    """The formula of power_spectrum's docstring, a product of matrices of exponentials for each picture."""
    N, C, H, W = pictures.shape
    down = np.exp(-2j * np.pi * np.outer(np.arange(H), np.arange(H)) / H)
    across = np.exp(-2j * np.pi * np.outer(np.arange(W), np.arange(W)) / W)
    weights = np.outer(cosine(H) ** 2, cosine(W) ** 2) if window else np.ones((H, W))  # scipy's half sine, squared
    weights = weights / np.sqrt((weights**2).mean())
    powers = []
    for x in pictures.reshape(N * C, H, W):
        x = (x - (weights * x).sum() / weights.sum()) * weights
        powers.append(np.abs(down @ x @ across) ** 2 / (H * W) ** 2)
    return np.mean(powers, axis=0)


@pytest.mark.parametrize("window", [True, False])
def test_the_spectrum_is_its_definition_on_every_device(device, rng, window):
    x = rng.standard_normal((67, 3, 6, 10)).astype(np.float32)  # more than are transformed at once
    found = spectrum.power_spectrum(to_device(x, device), window=window)
    assert (type(found), found.dtype) == (np.ndarray, np.float64)
    np.testing.assert_allclose(found, by_definition(x.astype(np.float64), window), rtol=1e-6, atol=1e-12)


def test_parseval_the_sum_is_the_variance(rng):
    x = rng.uniform(-1, 1, (5, 3, 8, 12)) + np.array([-2.0, 0, 7])[:, None, None]
    found = spectrum.power_spectrum(x, window=False)
    np.testing.assert_allclose(found.sum(), x.var(axis=(2, 3)).mean(), rtol=1e-12)
    assert found[0, 0] < 1e-20
    pixels = rng.integers(0, 256, (4, 8, 12, 3), dtype=np.uint8)  # files have their channels last
    found = spectrum.power_spectrum(pixels, window=False)
    np.testing.assert_allclose(found.sum(), pixels.astype(float).var(axis=(1, 2)).mean(), rtol=1e-12)


def test_a_checkerboard_has_all_its_power_at_one_half():
    x = checkerboard(16, amplitude=0.3)
    found = spectrum.power_spectrum(x, window=False)
    assert found[8, 8] == pytest.approx(0.09)
    assert found.sum() == pytest.approx(0.09)
    found = spectrum.power_spectrum(x)
    assert found[8, 8] == pytest.approx(0.09 * 4 / 9)
    assert (found[7, 8], found[8, 9]) == pytest.approx((0.01, 0.01))  # half of the amplitude in each bin beside it
    assert found[7, 7] == pytest.approx(0.09 / 36)
    assert found.sum() == pytest.approx(0.09)
    stripes = np.broadcast_to((-1.0) ** np.arange(16)[:, None], (1, 1, 16, 16))
    assert spectrum.power_spectrum(stripes, window=False)[8, 0] == pytest.approx(1)
    assert spectrum.power_spectrum(stripes.swapaxes(2, 3), window=False)[0, 8] == pytest.approx(1)
    down, across, both = spectrum.peaks(spectrum.power_spectrum(stripes), spectrum.stride_bins((16, 16), 2))
    assert down > 1e6
    assert (across, both) == pytest.approx((1, 1))  # 0 beside 0


def test_a_wave_has_half_of_its_power_at_its_frequency_and_half_at_minus_that():
    h, w = np.indices((12, 20))
    x = 3 * np.cos(2 * np.pi * (2 * h / 12 + 5 * w / 20) + 0.7)[None, None]
    found = spectrum.power_spectrum(x, window=False)
    assert found[2, 5] == found[-2, -5] == pytest.approx(9 / 4)
    assert found.sum() == pytest.approx(9 / 2)
    found = spectrum.power_spectrum(x)
    assert found[2, 5] == pytest.approx(9 / 4 * 4 / 9)
    assert found[4, 5] < 1e-20  # the window spreads a wave by one bin, no farther


def test_brightness_leaves_no_trace_and_edges_little(rng):
    x = rng.standard_normal((3, 2, 16, 16))
    brighter = spectrum.power_spectrum(x + np.array([50.0, -20])[:, None, None])
    np.testing.assert_allclose(brighter, spectrum.power_spectrum(x), rtol=1e-9, atol=1e-12)
    ramp = np.broadcast_to(np.linspace(-1, 1, 32)[:, None], (1, 1, 32, 32))  # its ends do not fit together
    seen, unseen = (spectrum.power_spectrum(ramp, window=window)[16, 0] for window in (False, True))
    assert unseen < 1e-4 * seen


def test_peaks_of_noise_are_1_and_a_checkerboard_in_it_has_the_height_that_its_amplitude_gives(rng):
    """Noise of variance 1 has 1 / 32^2 in each bin, a checkerboard of amplitude a adds 4/9 a^2 to one."""
    x = rng.standard_normal((2000, 1, 32, 32))
    noise = spectrum.power_spectrum(x)
    flat = noise[3:-3, 3:-3] * 32 * 32
    np.testing.assert_allclose(flat.mean(), 1, atol=0.01)
    every = np.array([(u, v) for u in range(5, 28) for v in range(5, 28)])
    ratios = spectrum.peaks(noise, every)
    np.testing.assert_allclose(ratios.mean(), 1, atol=0.003)
    assert np.abs(ratios - 1).max() < 5 * np.sqrt(1.1 / 2000)
    assert set(spectrum.stride_peaks(noise)) == {2, 4, 8}
    np.testing.assert_allclose(list(spectrum.stride_peaks(noise).values()), 1, atol=0.1)
    seen = spectrum.power_spectrum(x + checkerboard(32, 0.1))
    _, _, both = spectrum.peaks(seen, spectrum.stride_bins(seen.shape, 2))
    assert both == pytest.approx(1 + 4 / 9 * 0.01 * 1024, rel=0.1)


def test_peaks_by_hand():
    power = np.ones((8, 8))
    power[4, 4] = 6
    power[2, 3] = np.e**16  # one of the 16 bins at a distance of 2: e times their geometric mean
    power[3, 4] = power[5, 5] = 1e6  # at a distance of 1: where the window spreads the wave
    power[1, 4] = 1e6  # at a distance of 3
    assert spectrum.peaks(power, np.array([(4, 4)]))[0] == pytest.approx(6 / np.e, rel=1e-3)
    power = np.ones((8, 8))
    power[0, 0], power[6, 7] = 5, np.e**8  # (-2, -1): the spectrum goes on at the other side
    assert spectrum.peaks(power, np.array([(0, 0)]))[0] == pytest.approx(5 / np.e**0.5, rel=1e-3)
    power = np.ones((16, 16))  # periods 2 and 4: the geometric mean over their bins
    power[8, 0], power[0, 8] = 8, 64
    assert spectrum.stride_peaks(power)[2] == pytest.approx(8)
    assert spectrum.stride_peaks(power)[4] == pytest.approx(1)
    assert spectrum.stride_peaks(np.zeros((16, 16))) == pytest.approx({2: 1, 4: 1})


def test_where_strides_show():
    assert spectrum.periods(32, 32) == [2, 4, 8]
    assert spectrum.periods(28, 28) == [2, 4]  # 7 * 2 * 2
    assert spectrum.periods(64, 24) == [2, 4]
    assert spectrum.periods(7, 8) == []
    assert spectrum.stride_bins((32, 28), 2).tolist() == [[16, 0], [0, 14], [16, 14]]  # down, across, both
    found = [tuple(each) for each in spectrum.stride_bins((32, 32), 4)]
    assert sorted(found) == [(0, 8), (8, 0), (8, 8), (8, 16), (8, 24), (16, 8)]
    for u, v in found:  # with (-u, -v) they are all multiples of 1/4 but those of 1/2
        found = [*found, (-u % 32, -v % 32)]
    assert set(found) == {(u, v) for u in (0, 8, 16, 24) for v in (0, 8, 16, 24) if u % 16 or v % 16}
    with pytest.raises(UserError, match=r"a spectrum of 28 x 28 shows periods of \[2, 4\] pixels, not 8"):
        spectrum.stride_bins((28, 28), 8)


def test_repeated_pixels_have_nothing_at_one_half_whatever_they_are(rng):
    """Two equal pixels cancel there: what resize-convolution starts from has a hole where others have a peak."""
    x = rng.standard_normal((20, 3, 16, 16)).repeat(2, axis=2).repeat(2, axis=3)
    found = spectrum.power_spectrum(x, window=False)
    assert found[16].max() < 1e-20
    assert found[:, 16].max() < 1e-20
    assert spectrum.stride_peaks(spectrum.power_spectrum(x))[2] < 0.3


def test_overlaps_by_hand():
    three = spectrum.overlaps(4, kernel_size=3, stride=2, padding=1, output_padding=1)
    row = [1, 2, 1, 2, 1, 2, 1, 1]
    np.testing.assert_array_equal(three, np.outer(row, row))
    four = spectrum.overlaps(4, kernel_size=4, stride=2, padding=1)
    np.testing.assert_array_equal(four[1:-1, 1:-1], 4)
    five = spectrum.overlaps(4, kernel_size=5, stride=2, padding=2, output_padding=1)
    row = [2, 2, 3, 2, 3, 2, 2, 1]
    np.testing.assert_array_equal(five, np.outer(row, row))


def test_the_gradient_that_a_discriminator_sends_is_that_of_its_loss_and_changes_nothing(rng):
    d = dcgan.discriminator(image_size=16, channels=1, width=2, rng=rng, dtype=np.float64)
    assert any("running_mean" in name for name in d.state_dict())
    for name, parameter, _ in d.named_parameters():
        parameter *= 10 if name.endswith("weight") and parameter.ndim == 4 else 1  # beyond rounding errors
    x = rng.standard_normal((2, 1, 16, 16))
    before = {name: array.copy() for name, array in d.state_dict().items()}
    found = spectrum.input_gradient(d, x, batch_size=2)
    for name, array in d.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert all(not gradient.any() for _, _, gradient in d.named_parameters())

    def loss():
        return bce_with_logits_forward(d.forward(x, train=True)[0], 1.0)[0]

    np.testing.assert_allclose(found, elementwise_gradient(loss, x), atol=1e-8)
    assert np.abs(found).max() > 1e-4


def test_the_gradient_on_every_device(device, rng):
    d = dcgan.discriminator(image_size=16, channels=1, width=2, rng=rng)
    x = rng.standard_normal((4, 1, 16, 16)).astype(np.float32)
    expected = spectrum.input_gradient(d, x, batch_size=4)
    there = to_device(x, device)
    found = spectrum.input_gradient(d.to(device), there, batch_size=4)
    assert array_module(found) is array_module(there)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-4, atol=1e-9)


def test_the_gradient_is_taken_in_batches_of_one_size_with_batchnorm_of_each(rng, monkeypatch):
    """7 pictures in batches of 3: the last one alone is seen beside the two before it, as BatchNorm was trained."""
    d = dcgan.discriminator(image_size=16, channels=1, width=2, rng=rng, dtype=np.float64)
    for name, parameter, _ in d.named_parameters():
        parameter *= 10 if name.endswith("weight") and parameter.ndim == 4 else 1
    x = rng.standard_normal((7, 1, 16, 16)) * np.arange(1, 8)[:, None, None, None]
    whole, sizes = type(d).forward, []

    def forward(self, pictures, **options):
        sizes.append(len(pictures))
        return whole(self, pictures, **options)

    monkeypatch.setattr(type(d), "forward", forward)
    found = spectrum.input_gradient(d, x, batch_size=3)
    assert sizes == [3, 3, 3]
    alone = [spectrum.input_gradient(d, x[list(each)], batch_size=3) for each in ((0, 1, 2), (3, 4, 5), (4, 5, 6))]
    np.testing.assert_allclose(found, np.concatenate([alone[0], alone[1], alone[2][2:]]), rtol=1e-12)
    assert np.abs(found / spectrum.input_gradient(d, x, batch_size=7) - 1).max() > 0.1  # the batch matters
    one = spectrum.input_gradient(d, x[:1], batch_size=3)
    assert one.shape == (1, 1, 16, 16)
    assert np.isfinite(one).all()


@pytest.mark.parametrize("shape", [(3, 8, 8), (0, 1, 8, 8)])
def test_no_pictures_get_one_sentence(shape):
    with pytest.raises(UserError, match="a spectrum expected at least one picture"):
        spectrum.power_spectrum(np.zeros(shape))
