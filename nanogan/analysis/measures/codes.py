"""Near-duplicates by semantic hashing: an autoencoder's code, cut to one bit a unit; equal codes are near-duplicates.

    picture 32 x 32 x 3 -> Linear, 128 -> ReLU -> Dropout -> Linear, 3072 -> the same picture
                                      > 0: a bit each, 16 bytes a picture

The autoencoder is shown pictures with noise and asked for the pictures without, so it has to overlook small changes.
Source: A. Radford, L. Metz, S. Chintala, arXiv:1511.06434, section 4.1, for sizes and method. They publish neither
noise nor dropout nor how pictures are scaled; docs/experiments/dedupe.md tells what the defaults here rest on.

Pictures are uint8 (N, 32, 32, 3), 0 to 255: an array, or what is indexed like one, such as a PictureFolder. Codes are
uint8 (N, 16), eight bits to a byte.
"""

import numpy as np

from nanogan.backend import array_module, seeded_rng, to_device, to_numpy
from nanogan.data import Loader
from nanogan.errors import TrainingDiverged, UserError
from nanogan.layers import Dropout, Linear, ReLU, Sequential
from nanogan.ops import mse_backward, mse_forward
from nanogan.optim import Adam, LinearDecay, supervised_step

SIZE, CHANNELS = 32, 3  # of the pictures that codes are made of
BITS = 128
FLAT = 0.02  # the least contrast that is scaled to 1; a picture of one colour has none
SAMPLE = 5000  # pictures that their mean is taken of
AT_ONCE = 4_000_000  # pairs of codes that are compared


class Autoencoder(Sequential):
    """``inputs`` numbers of a picture -> ``bits`` units, ReLU, dropout -> the numbers again: (N, inputs) both.

    ``mean`` (inputs,), a buffer, is what :func:`prepared` takes from every picture; :func:`fit` sets it.
    """

    def __init__(self, *, inputs=SIZE * SIZE * CHANNELS, bits=BITS, dropout=0.1, rng=None, dtype=np.float32):
        if bits < 8 or bits % 8:
            raise UserError(f"a code expected a number of bits that fills bytes, such as 128, got {bits}")
        rng = rng or np.random.default_rng()
        super().__init__(
            Linear(inputs, bits, rng=rng, dtype=dtype),
            ReLU(),
            Dropout(p=dropout, rng=rng),
            Linear(bits, inputs, rng=rng, dtype=dtype),
        )
        self.buffers["mean"] = np.zeros(inputs, dtype)


def prepared(network, x):
    """(N, C, H, W) of numbers from -1 to 1 -> what ``network`` reads, (N, C*H*W): standardised, less the mean picture.

    Each picture gets mean 0 and standard deviation 1 over all its numbers, so that one that is brighter or has more
    contrast is the same picture. Then most units would still say the same of all pictures, namely what all have in
    common; without the pictures' mean each unit starts by splitting them in halves.
    """
    xp = array_module(x)
    x = x.reshape(len(x), -1)
    x = x - x.mean(axis=1, keepdims=True)
    x /= xp.maximum(xp.sqrt((x * x).mean(axis=1, keepdims=True)), FLAT)
    return x - network.buffers["mean"]


def fit(network, pictures, *, steps=400, batch_size=64, noise=3.0, lr=1e-3, seed=0, progress=None):
    """Train ``network``, in place, to draw ``pictures`` from noisy ones; return the mean loss of the last steps.

    The loss is the mean squared error, in which 1 is the variance of a picture. ``noise`` is the standard deviation of
    the Gaussian noise that is added, in the same unit. Adam, a learning rate that falls from ``lr`` to 0. Pictures come
    in batches through a Loader, so a folder is never held in memory; of fewer than ``batch_size`` all are a batch.
    ``progress`` wraps the steps (tqdm).

    Raises UserError if there are no pictures, TrainingDiverged if the loss is not finite.
    """
    if not len(pictures) or steps < 1:
        raise UserError(f"training expected at least one picture and one step, got {len(pictures)} and {steps}")
    device = network.device
    network.buffers["mean"][...] = _mean(network, pictures)
    loader = Loader(pictures, batch_size=min(batch_size, len(pictures)), seed=seed, drop_last=True, device=device)
    optimizer = Adam(network, lr=lr)
    schedule = LinearDecay(optimizer, total=steps)
    rng = seeded_rng(seed, "noise of the autoencoder")
    losses = []
    batches = (batch["images"] for number in range(steps) for batch in loader.epoch(number))
    for _, batch in zip((progress or iter)(range(steps)), batches, strict=False):
        x = prepared(network, batch.astype(network.dtype, copy=False))  # (B, inputs)
        drawn = rng.standard_normal(x.shape, dtype=np.float32)
        noisy = x + noise * to_device(drawn, device).astype(x.dtype, copy=False)
        losses.append(supervised_step(network, optimizer, noisy, x, mse_forward, mse_backward))
        schedule.step()
    mean = float(sum(losses[-50:])) / len(losses[-50:])
    if not np.isfinite(mean):
        raise TrainingDiverged("the autoencoder's loss is no longer finite; try a lower learning rate")
    return mean


def principal(pictures, *, bits=24):
    """Return a network whose code is the signs of the first ``bits`` principal components of ``pictures``.

    To compare with: it is what a linear autoencoder without noise can learn, taken from at most SAMPLE / 5 pictures by
    one singular value decomposition.
    """
    network = Autoencoder(inputs=int(np.prod(pictures.shape[1:])), bits=bits, dropout=0.0)
    mean = _mean(network, pictures)
    network.buffers["mean"][...] = mean
    some = prepared(network, _as_input(pictures[_spread(len(pictures), SAMPLE // 5)], network))
    _, _, directions = np.linalg.svd(some, full_matrices=False)  # rows, by how much they explain
    found = min(bits, len(directions))
    network[0].params["weight"][...] = 0
    network[0].params["weight"][:found] = directions[:found]
    network[0].params["bias"][...] = 0
    return network


def _spread(N, count):
    """At most ``count`` indices below N, evenly spaced."""
    return np.linspace(0, N - 1, min(count, N)).astype(int)


def _mean(network, pictures):
    """The mean of some pictures, standardised, (inputs,)."""
    network.buffers["mean"][...] = 0
    indices = _spread(len(pictures), SAMPLE)
    total = 0
    for i in range(0, len(indices), 500):
        total = total + prepared(network, _as_input(pictures[indices[i : i + 500]], network)).sum(axis=0)
    return total / len(indices)


def _as_input(pictures, network):
    """uint8 (N, H, W, C) -> (N, C, H, W) from -1 to 1, of the network's dtype, on its device."""
    x = to_device(np.ascontiguousarray(pictures), network.device).astype(network.dtype)
    return (x / 127.5 - 1).transpose(0, 3, 1, 2)


def codes(network, pictures, *, batch_size=500, progress=None):
    """Return the code of each of ``pictures``, uint8 (N, bits / 8): which units of the code layer are above 0.

    In eval mode: no noise, no dropout. ``progress`` wraps the batches (tqdm).
    """
    result = np.empty((len(pictures), len(network[0].params["weight"]) // 8), np.uint8)
    for i in (progress or iter)(range(0, len(pictures), batch_size)):
        x = prepared(network, _as_input(pictures[i : i + batch_size], network))
        units, _ = network[:2].forward(x, train=False)  # after the ReLU, (B, bits)
        result[i : i + batch_size] = np.packbits(to_numpy(units) > 0, axis=1)
    return result


def groups(codes, *, distance=0, progress=None):
    """Return groups of pictures whose codes are equal: lists of two or more indices, each in order, by their first.

    Equal codes are found by a dictionary, in linear time. With ``distance``, codes are near that differ in at most so
    many bits, and so are two that are near a third; each distinct code is compared with each, and ``progress`` wraps
    that (tqdm).
    """
    if distance < 0:
        raise UserError(f"groups expected a distance of at least 0 bits, got {distance}")
    group = np.empty(len(codes), np.int64)  # of each picture: one of its group, the same for all of it
    first = {}
    for i, code in enumerate(codes):
        group[i] = first.setdefault(code.tobytes(), i)
    if distance:
        distinct = np.fromiter(first.values(), np.int64, len(first))
        part = np.arange(len(distinct))  # the same of distinct codes
        some = max(1, AT_ONCE // max(1, len(distinct)))
        for start in (progress or iter)(range(0, len(distinct), some)):
            rows = distinct[start : start + some]
            near = hamming(codes[rows][:, None], codes[distinct[start:]][None]) <= distance
            for row in near:
                parts = part[start + np.flatnonzero(row)]  # that this code joins; its own is one of them
                if (parts != parts[0]).any():
                    part[np.isin(part, parts)] = parts[0]
        joined = np.arange(len(codes))
        joined[distinct] = distinct[part]
        group = joined[group]
    found = {}
    for i in np.flatnonzero(np.bincount(group, minlength=1)[group] > 1):
        found.setdefault(group[i], []).append(int(i))
    return list(found.values())


def hamming(a, b):
    """In how many bits codes differ: uint8 (..., bytes) and one that broadcasts with it -> numbers (...)."""
    if a.shape[-1] % 8 == 0:  # 64 bits at once
        a, b = (np.ascontiguousarray(each).view(np.uint64) for each in (a, b))
    return sum(np.bitwise_count(a[..., i] ^ b[..., i]).astype(np.uint16) for i in range(a.shape[-1]))


def usage(codes):
    """How much of a code is used: {"bits_that_vary", "entropy", "distinct"}.

    bits_that_vary: those that are not the same for all. entropy: the sum over all bits of -p log2 p - (1 - p) log2
    (1 - p), p the share of pictures in which the bit is 1: what the code would tell if its bits were independent; they
    are not, so this is the most that it can tell. distinct: the number of different codes.
    """
    ones = np.zeros(8 * codes.shape[1])
    for i in range(0, len(codes), 10_000):
        ones += np.unpackbits(codes[i : i + 10_000], axis=1).sum(axis=0)
    p = ones / len(codes)
    p = p[(p > 0) & (p < 1)]
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)).sum()
    return {
        "bits_that_vary": len(p),
        "entropy": float(entropy),
        "distinct": len(np.unique(codes, axis=0)),
    }


def agreement(groups, origins):
    """Compare ``groups`` with the truth: ``origins`` (N,) tells what each picture was made from.

    Returns {"groups", "pure_groups", "largest", "pairs", "right_pairs", "precision"}: a group is pure if all in it are
    of one origin; two pictures in one group are a pair, right if they are of one origin; precision is the share of
    right pairs, 1 if there are none.
    """
    origins = np.asarray(origins)
    pairs = right = pure = 0
    for group in groups:
        _, counts = np.unique(origins[group], return_counts=True)
        pairs += len(group) * (len(group) - 1) // 2
        right += int((counts * (counts - 1) // 2).sum())
        pure += len(counts) == 1
    return {
        "groups": len(groups),
        "pure_groups": pure,
        "largest": max(map(len, groups), default=0),
        "pairs": pairs,
        "right_pairs": right,
        "precision": right / pairs if pairs else 1.0,
    }


def recall(groups, originals, copies):
    """The share of ``copies`` (M,), indices, that are in a group with their ``originals`` (M,)."""
    group_of = {i: number for number, group in enumerate(groups) for i in group}
    together = [group_of.get(int(i), -1) == group_of.get(int(j), -2) for i, j in zip(originals, copies, strict=True)]
    return sum(together) / len(together)
