"""Random inputs of a generator, and the images that it makes of them."""

import numpy as np

from nanogan.backend import array_module, channels_last, to_device
from nanogan.errors import UserError
from nanogan.ranks.shards import Shard

BLOCK = 64  # images whose noise one generator draws


def with_noise(pictures, noise):
    """``pictures`` + ``noise``, or ``pictures`` themselves if it is None."""
    return pictures if noise is None else channels_last(pictures + noise)  # CuPy's sums come in another order


def draw_z(rng, count, latent, kind="normal", device="cpu", dtype=np.float32):
    """Return z (count, latent) on ``device``: "normal" from N(0, 1), "uniform" from U(-1, 1), the paper's.

    Drawn in float32 on the host, so that the values are the same for every device and dtype.
    """
    if kind not in ("normal", "uniform"):
        raise UserError(f'z expected "normal" or "uniform", got {kind!r}')
    if kind == "normal":
        z = rng.standard_normal((count, latent), dtype=np.float32)
    else:
        z = 2 * rng.random((count, latent), dtype=np.float32) - 1
    return to_device(z.astype(dtype, copy=False), device)


def draw_noise(rng, shape, sigma, device="cpu", dtype=np.float32, ranks=None):
    """Return noise from N(0, sigma^2) for images of ``shape`` (N, C, H, W), channels-last, on ``device``.

    ranks: those that share the images; then a Shard of this rank's. More than BLOCK images are drawn in blocks, each by
    a generator of its own, so that a rank draws no more than the blocks that its images are in.
    """
    N, C, H, W = shape
    own = slice(0, N) if ranks is None else ranks.own(N)
    starts = range(0, N, BLOCK)
    generators = [rng] if len(starts) == 1 else rng.spawn(len(starts))
    parts = []
    for start, generator in zip(starts, generators, strict=True):
        size = min(BLOCK, N - start)
        if start < own.stop and own.start < start + size:
            block = generator.standard_normal((size, H, W, C), dtype=np.float32)
            parts.append(block[max(0, own.start - start) : own.stop - start])
    noise = parts[0] if len(parts) == 1 else np.concatenate(parts)
    noise *= sigma
    noise = to_device(noise.astype(dtype, copy=False).transpose(0, 3, 1, 2), device)
    return noise if ranks is None else Shard(noise, ranks)


def sample(g, z, *, batch_size=64):
    """Draw pictures (N, C, H, W), -1 to 1, for z (N, latent), on z's device.

    In eval mode: BatchNorm uses its running statistics, so that a picture depends on its own z alone and not on the
    others of its batch. ``batch_size`` bounds the memory.
    """
    pictures = [g.forward(z[i : i + batch_size], train=False)[0] for i in range(0, len(z), batch_size)]
    return array_module(z).concatenate(pictures)
