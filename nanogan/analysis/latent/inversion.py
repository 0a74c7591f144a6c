"""Which z draws a given picture? Answered by walking down the slope of the error, through the generator, to z.

The generator's backward gives the gradient of its picture with respect to its weights for training, and with respect
to z for this. A picture that was never trained on and can be drawn speaks against memorising, though weakly.
"""

from typing import NamedTuple

import numpy as np

from nanogan.analysis.networks import first_layers, mean_squares
from nanogan.backend import array_module, to_numpy
from nanogan.errors import UserError
from nanogan.layers import Layer
from nanogan.optim import Adam, LinearDecay


class Inversion(NamedTuple):
    """What :func:`invert` found, NumPy arrays; of the restarts of a picture, the one of the smallest loss."""

    z: np.ndarray  # (N, latent)
    pictures: np.ndarray  # (N, C, H, W), G(z)
    errors: np.ndarray  # (N,), the mean of (G(z) - x)^2 over the picture's numbers, which are from -1 to 1
    start_errors: np.ndarray  # (N,), the same of the best random z that a restart began at
    spread: np.ndarray  # (N,), largest less smallest error among the restarts


def invert(
    g, x, *, steps=300, restarts=4, lr=0.1, prior=0.0, d=None, layer=None, feature_weight=1.0, rng=None, progress=None
):
    """Look for the z that generator ``g`` draws the pictures ``x`` (N, C, H, W), -1 to 1, from.

    Every picture gets ``restarts`` random z ~ N(0, 1), all of them in one batch, and Adam lowers

        loss(z) = mean((G(z) - x)^2) + prior * mean(z^2) + feature_weight * mean((F(G(z)) - F(x))^2)

    for ``steps`` steps, its learning rate falling from ``lr`` in a straight line to 0. Each mean is over one picture's
    own numbers, so that no z feels another. F is what discriminator ``d`` has after its layer number ``layer``, counted
    from 0; without ``d`` that term is left out. Both networks run in eval mode, where BatchNorm is a fixed function,
    and are not changed. ``progress`` wraps the steps (tqdm).

    Source: A. Creswell, A. A. Bharath, arXiv:1611.05644, for the batch; Z. Lipton, S. Tripathi, arXiv:1702.04782, for
    gradient descent on z. Returns an :class:`Inversion`; raises UserError for counts and layers that are none.
    """
    if min(steps, restarts, len(x)) < 1:
        raise UserError(
            f"an inversion expected at least one step, restart and picture, got {steps}, {restarts} and {len(x)}"
        )
    features = None if d is None else first_layers(d, layer)
    xp, N = array_module(x), len(x)
    rng = rng or np.random.default_rng()
    start = rng.standard_normal((restarts * N, g.latent)).astype(x.dtype)  # restart 0 of all pictures, then restart 1
    search = Layer()  # what an optimiser changes is a layer's parameter
    search.add_param("z", xp.asarray(start))
    optimizer = Adam(search, lr=lr, betas=(0.9, 0.999))
    schedule = LinearDecay(optimizer, total=steps)
    targets = xp.concatenate([x] * restarts)
    target_features = None if d is None else features.forward(targets, train=False)[0]

    start_errors = None
    for _ in (progress or iter)(range(steps)):
        z = search.params["z"]
        drawn, cache = g.forward(z, train=False)
        if start_errors is None:
            start_errors = to_numpy(mean_squares(drawn - targets))
        ddrawn = _slope(drawn - targets)
        if d is not None:
            seen, seen_cache = features.forward(drawn, train=False)
            dseen = feature_weight * _slope(seen - target_features)
            ddrawn = ddrawn + features.backward(dseen, seen_cache, need_dw=False)
        dz = g.backward(ddrawn, cache, need_dw=False)
        search.zero_grad()
        search.add_grads(z=dz + prior * _slope(z))
        optimizer.step()
        schedule.step()

    z = search.params["z"]
    drawn, _ = g.forward(z, train=False)
    errors = mean_squares(drawn - targets)
    losses = errors + prior * mean_squares(z)
    if d is not None:
        losses = losses + feature_weight * mean_squares(features.forward(drawn, train=False)[0] - target_features)
    errors, losses = (to_numpy(each).reshape(restarts, N) for each in (errors, losses))
    best = losses.argmin(axis=0)
    rows = best * N + np.arange(N)
    return Inversion(
        z=to_numpy(z)[rows],
        pictures=to_numpy(drawn)[rows],
        errors=errors[best, np.arange(N)],
        start_errors=start_errors.reshape(restarts, N).min(axis=0),
        spread=errors.max(axis=0) - errors.min(axis=0),
    )


def _slope(x):
    """The gradient of mean_squares(x) with respect to x: 2 x / M, M the numbers of one picture."""
    return x * (2 * len(x) / x.size)


def ratio(errors, others, *, rng, draws=2000):
    """Return mean(errors) / mean(others), and its [2.5, 97.5] percentiles over resampled pictures (bootstrap)."""
    resampled = [
        array[rng.integers(0, len(array), (draws, len(array)))].mean(axis=1)
        for array in (np.asarray(errors, float), np.asarray(others, float))
    ]
    low, high = np.percentile(resampled[0] / resampled[1], [2.5, 97.5])
    return float(np.mean(errors) / np.mean(others)), [float(low), float(high)]
