"""A classifier of a picture's attributes: it reads drawn pictures where nobody wants to label them by hand."""

import numpy as np

from nanogan.backend import array_module, get_device, seeded_rng, to_device, to_numpy
from nanogan.data.sets.faces import ATTRIBUTES, builtin_faces
from nanogan.errors import UserError
from nanogan.images import from_uint8
from nanogan.layers import BatchNorm2d, Conv2d, Flatten, LeakyReLU, Linear, Sequential
from nanogan.ops import bce_with_logits_backward, bce_with_logits_forward
from nanogan.optim import Adam, supervised_step

NOISE = 0.1  # added to the pictures in training (they go from -1 to 1): what a GAN draws is never as clean as the data


def classifier(*, image_size, channels, count, width=16, rng=None):
    """Return a network, pictures (N, channels, image_size, image_size) -> logits (N, count), above 0 for "has it".

    Three convolutions of stride 2 with BatchNorm, and a linear layer. ``image_size`` is a multiple of 8.
    """
    if image_size % 8:
        raise UserError(
            f"the classifier halves pictures three times: their size expected a multiple of 8, got {image_size}"
        )
    rng = rng or np.random.default_rng()
    layers = []
    for inputs, outputs in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1, rng=rng)]
        layers += [BatchNorm2d(outputs), LeakyReLU(negative_slope=0.2)]
    return Sequential(*layers, Flatten(), Linear(4 * width * (image_size // 8) ** 2, count, rng=rng))


def fit(pictures, labels, *, epochs=2, batch_size=64, lr=1e-3, seed=0, device="cpu", progress=None):
    """Train and return a :func:`classifier` of ``labels`` on ``device``.

    pictures uint8 (N, S, S, C); labels (N, K) of zeros and ones, or bool. The loss is the binary cross entropy of each
    label on its own. ``progress`` wraps the iteration over steps (tqdm).
    """
    if len(pictures) != len(labels) or len(pictures) < batch_size:
        raise UserError(
            f"a classifier expected labels for each picture, and at least {batch_size} of them, got {len(pictures)} "
            f"pictures and {len(labels)} labels"
        )
    device = get_device(device)
    N, S, _, C = pictures.shape
    weights, noise = seeded_rng(seed, "classifier"), seeded_rng(seed, "classifier's noise")
    network = classifier(image_size=S, channels=C, count=labels.shape[1], rng=weights).to(device)
    optimizer = Adam(network, lr=lr)
    batches = [order[i : i + batch_size] for order in _orders(N, epochs, seed) for i in range(0, N, batch_size)]
    for batch in (progress or iter)(batches):
        x = as_network_input(pictures[batch])
        x = to_device(x + NOISE * noise.standard_normal(x.shape, dtype=np.float32), device)
        target = to_device(labels[batch].astype(np.float32), device)
        supervised_step(network, optimizer, x, target, bce_with_logits_forward, bce_with_logits_backward)
    return network


def fit_to_faces(size, *, train, test, seed=0, device="cpu", drawing=None, progress=None):
    """Train a classifier of the built-in faces' attributes; return it and its accuracy for each attribute, (K,).

    It learns from ``train`` faces of ``size`` x ``size`` pixels; the accuracy is that on ``test`` others. ``drawing``
    wraps the faces that are drawn, ``progress`` the steps of training (tqdm).
    """
    faces, values = builtin_faces(train + test, size=size, seed=seed + 1, progress=drawing)
    truth = np.stack([values[name] for name in ATTRIBUTES], axis=1)
    network = fit(faces[:train], truth[:train], seed=seed, device=device, progress=progress)
    unseen = to_device(as_network_input(faces[train:]), device)
    return network, (has(network, unseen) == truth[train:]).mean(axis=0)


def _orders(N, epochs, seed):
    """An order of the pictures for each epoch."""
    rng = seeded_rng(seed, "classifier's order")
    return [rng.permutation(N) for _ in range(epochs)]


def as_network_input(pictures):
    """uint8 (N, H, W, C) -> float32 (N, C, H, W) from -1 to 1."""
    return from_uint8(pictures)


def has(network, pictures, *, batch_size=256):
    """Return what the classifier sees in pictures (N, C, H, W), -1 to 1, on its device: bool NumPy (N, K)."""
    xp = array_module(pictures)
    logits = [
        network.forward(pictures[i : i + batch_size], train=False)[0] for i in range(0, len(pictures), batch_size)
    ]
    return to_numpy(xp.concatenate(logits)) > 0
