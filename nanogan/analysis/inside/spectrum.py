"""Checkerboards in numbers: the power spectrum of pictures, and how far it rises where a stride of 2 leaves its mark.

    spectrum = power_spectrum(pictures)      (H, W): how much of the pictures' variance each frequency carries
    stride_peaks(spectrum)                   {2: 1.0, 4: 1.1, ...}: about 1 where no stride shows

A layer that doubles a map treats its even and its odd pixels differently. What then repeats every 2 pixels of that map
has the frequency 1/2, in cycles per pixel, and every 2^k pixels of the picture, 1/2^k, after k - 1 further doublings.
The power there is compared with its neighbourhood, not with the whole: sharp pictures have high frequencies too, but
no reason to prefer exactly 1/2.

Source: A. Odena et al., Deconvolution and Checkerboard Artifacts, Distill 2016, doi:10.23915/distill.00003, which
measures no spectra. For generators' spectra: R. Durall et al., arXiv:2003.01826; J. Frank et al., arXiv:2003.08685.
"""

import copy

import numpy as np

from nanogan.backend import array_module, to_numpy
from nanogan.errors import UserError
from nanogan.ops import bce_with_logits_backward, bce_with_logits_forward, conv_transpose2d_forward
from nanogan.ops.losses import REAL

RING = 2  # bins from a frequency to its neighbourhood; the window spreads a wave over the bins at distance 1
ROUNDING = 1e-12  # of all power: less is taken for rounding errors
BATCH = 64  # pictures that are transformed at once


def power_spectrum(pictures, *, window=True):
    """Return the mean power spectrum of pictures, float64 NumPy (H, W).

    pictures: uint8 (N, H, W, C), or numbers (N, C, H, W) on either device; gradients will do too. Entry [u, v] belongs
    to u / H cycles per pixel downwards and v / W to the right, as in numpy.fft.fft2:

        P[u, v] = mean over n, c of |sum over h, w of (x[n,c,h,w] - mean) exp(-2 pi i (u h / H + v w / W))|^2 / (H W)^2

    so that without a window the sum of P is the pictures' variance, each about the mean of its own channel (Parseval).

    A Fourier transform takes a picture for one tile of an endless wall, and sees the jumps at the tiles' edges as high
    frequencies, straight up and straight across, where two of the three checkerboards are looked for. So pictures are
    multiplied by a Hann window, sin^2(pi (h + 1/2) / H) sin^2(pi (w + 1/2) / W), made to have a mean square of 1; the
    mean is then the one under the window. It spreads a wave over the neighbouring bins: 4/9 of its power stay.

    Raises UserError for arrays of another kind.
    """
    if pictures.ndim != 4 or 0 in pictures.shape:
        raise UserError(
            f"a spectrum expected at least one picture (N, C, H, W), got an array of shape {pictures.shape}"
        )
    if pictures.dtype == np.uint8:
        pictures = pictures.transpose(0, 3, 1, 2)
    N, C, H, W = pictures.shape
    weights = np.outer(_hann(H), _hann(W)) if window else np.ones((H, W))
    total = np.zeros((H, W))
    for i in range(0, N, BATCH):
        x = to_numpy(pictures[i : i + BATCH]).astype(np.float64)
        mean = (x * weights).mean(axis=(2, 3), keepdims=True) / weights.mean()
        total += (np.abs(np.fft.fft2((x - mean) * weights)) ** 2).sum(axis=(0, 1))
    return total / (N * C * (H * W) ** 2)


def _hann(size):
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    return window / np.sqrt((window**2).mean())


def periods(height, width):
    """The strides' periods that pictures of this size have room for, in pixels: 32, 32 -> [2, 4, 8].

    A period divides both sides, and occurs at least 4 times. The bins of :func:`stride_bins`, of all periods, are then
    4 or more apart, and as far from 0: none lies in the ring round another (see :func:`peaks`), but rings may overlap,
    as those of the periods 4 and 8 do in 32 x 32.
    """
    found, period = [], 2
    while height % period == width % period == 0 and min(height, width) >= 4 * period:
        found.append(period)
        period *= 2
    return found


def stride_bins(shape, period):
    """The bins (K, 2) of a (H, W) spectrum at which a pattern of ``period`` pixels shows, and none of half of it.

    Multiples of 1 / period in both directions, without those of 2 / period. Of (u, v) and (-u, -v), where real pictures
    have the same power, only one. For a period of 2, in this order: down (H/2, 0), across (0, W/2), both (H/2, W/2).
    """
    if period not in periods(*shape):
        raise UserError(
            f"a spectrum of {shape[0]} x {shape[1]} shows periods of {periods(*shape) or 'no'} pixels, not {period}"
        )
    found = {}
    for b in range(period):
        for a in range(period):
            if (a % 2, b % 2) != (0, 0):
                found.setdefault(min((a, b), (-a % period, -b % period)), None)
    return np.array([(a * shape[0] // period, b * shape[1] // period) for a, b in found])


def peaks(spectrum, bins):
    """Return how far a spectrum (H, W) rises at each of ``bins`` (K, 2) above its neighbourhood: ratios (K,).

    The neighbourhood is the square ring of 16 bins at a distance of RING, and its mean is geometric, since spectra of
    pictures fall by factors. 1 for white noise, about 1 or less for pictures of no grid, and at most 1 / ROUNDING.
    """
    H, W = spectrum.shape
    tiny = max(ROUNDING * spectrum.sum(), np.finfo(float).tiny)
    offsets = np.array(
        [(u, v) for u in range(-RING, RING + 1) for v in range(-RING, RING + 1) if RING in (abs(u), abs(v))]
    )
    rows, columns = (bins[:, None] + offsets).transpose(2, 0, 1)  # (K, 16) each
    around = np.log(spectrum[rows % H, columns % W] + tiny).mean(axis=1)
    return (spectrum[bins[:, 0], bins[:, 1]] + tiny) / np.exp(around)


def stride_peaks(spectrum):
    """Return {period: peak} of a spectrum (H, W): of the last doubling (2 pixels), the one before it (4), and so on.

    Each is the geometric mean of :func:`peaks` over the period's :func:`stride_bins`.
    """
    found = {}
    for period in periods(*spectrum.shape):
        found[period] = float(np.exp(np.log(peaks(spectrum, stride_bins(spectrum.shape, period))).mean()))
    return found


def overlaps(size, *, kernel_size, stride, padding, output_padding=0):
    """How many kernels of a transposed convolution paint each pixel, drawn from ``size`` x ``size`` pixels: (OS, OS).

    Uneven where the stride does not divide the kernel's size: 1, 2, 1, 2, ... in a row for a kernel of 3 and stride 2,
    but 2, 2, 2, ... for a kernel of 4, away from the border. Source: Odena et al., section "Deconvolution & Overlap".
    """
    kernel = np.ones((1, 1, kernel_size, kernel_size))
    options = {"stride": stride, "padding": padding, "output_padding": output_padding}
    y, _ = conv_transpose2d_forward(np.ones((1, 1, size, size)), kernel, None, **options)
    return y[0, 0].round().astype(int)


def input_gradient(d, x, *, batch_size):
    """Return what discriminator ``d`` teaches a generator: its loss's gradient in the pictures x (N, C, H, W).

    The loss is the generator's, the mean of -log D(x) over a batch. It is ``dfake`` of
    :func:`nanogan.games.dcgan_step`: in train mode, where BatchNorm looks at the batch; ``d`` itself stays as
    it is, its running statistics too. Batches are of ``batch_size`` pictures, best as many as in training, or of N if
    that is less; the last one has some of those before it beside its own, so that all are alike. A picture's gradient
    has the batch's size as a divisor.
    The backward of a convolution is a transposed one, with the same stride: Odena et al., section "Artifacts in
    Gradients".
    """
    d = copy.deepcopy(d)
    N, found = len(x), []
    for i in range(0, N, batch_size):
        start = max(0, min(i, N - batch_size))
        logits, cache = d.forward(x[start : start + batch_size], train=True)
        _, loss_cache = bce_with_logits_forward(logits, REAL)
        gradient = d.backward(bce_with_logits_backward(1.0, loss_cache), cache, need_dw=False)
        found.append(gradient[i - start :])
    return array_module(x).concatenate(found)
