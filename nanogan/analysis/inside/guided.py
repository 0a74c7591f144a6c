"""What a discriminator's filters see: the pictures that a feature answers most strongly to, and which pixels made it.

A convolution's feature is one channel of its output; its response at a position is one number there, before BatchNorm
and activation. That number's gradient with respect to the picture says which pixels it hangs on. *Guided*
backpropagation takes more than the gradient away: only what speaks for the response is passed on.
"""

import numpy as np

from nanogan.analysis.networks import first_layers, pictures_for
from nanogan.backend import array_module, to_numpy
from nanogan.errors import UserError
from nanogan.layers import BatchNorm2d, Conv2d, Dropout, LeakyReLU, ReLU, Sigmoid, Tanh
from nanogan.ops.checks import pair

RULES = ("guided", "gradient", "gradient_x_input")


def convolutions(network):
    """The numbers of a Sequential's convolutions, first to last; layers are counted from 0."""
    return [i for i, layer in enumerate(network.layers) if isinstance(layer, Conv2d)]


def strongest(network, layer, pictures, *, features, count=8, batch_size=500, progress=None):
    """Return where ``features`` (F channels of the convolution number ``layer``) answer most strongly.

    pictures: uint8 (N, H, W, C). Of each picture the strongest position counts, so the ``count`` ones of a feature are
    of different pictures. Returns responses (F, count), strongest first; the pictures' indices (F, count); and the
    positions (F, count, 2), row and column of the convolution's output. Eval mode. ``progress`` wraps the batches.
    """
    _check(network, layer, features)
    if not 1 <= count <= len(pictures):
        raise UserError(f"the strongest {count} responses were asked for, but there are {len(pictures)} pictures")
    part = first_layers(network, layer)
    values, indices, places = np.zeros((len(features), 0)), *(np.zeros((len(features), 0), np.int64) for _ in range(2))
    for start in (progress or iter)(range(0, len(pictures), batch_size)):
        y, _ = part.forward(pictures_for(network, pictures[start : start + batch_size]), train=False)
        width = y.shape[3]
        y = y[:, array_module(y).asarray(features)].reshape(len(y), len(features), -1)  # (B, F, OH*OW)
        here = np.arange(start, start + len(y))
        values = np.concatenate([values, to_numpy(y.max(axis=2)).T], axis=1)
        indices = np.concatenate([indices, np.broadcast_to(here, (len(features), len(y)))], axis=1)
        places = np.concatenate([places, to_numpy(y.argmax(axis=2)).T], axis=1)
        best = np.argsort(-values, axis=1, kind="stable")[:, :count]
        values, indices, places = (np.take_along_axis(each, best, axis=1) for each in (values, indices, places))
    return values, indices, np.stack(np.divmod(places, width), axis=2)


def explain(network, layer, x, *, features, positions, rule="guided"):
    """Say for each picture of x (N, C, H, W) how its pixels make a response: an array of x's shape.

    ``features`` (N,) and ``positions`` (N, 2) name the response r: one number of the output of layer number ``layer``.

    - "gradient": dr/dx, K. Simonyan et al., arXiv:1312.6034.
    - "gradient_x_input": x * dr/dx, what each pixel adds to r as long as the network acts as if it were linear.
    - "guided": as the gradient, but backwards through a ReLU or LeakyReLU only what is positive passes, and only where
      the activation is: dx = dy where dy > 0 and y > 0, else 0. J. Springenberg et al., arXiv:1412.6806, section 3.4;
      for LeakyReLU the rule is a choice, which that paper does not know and the DCGAN paper does not tell.

    In eval mode, so that BatchNorm is a fixed function; the network's gradients stay as they are.
    """
    if rule not in RULES:
        raise UserError(f"unknown rule {rule!r}: use one of {', '.join(RULES)}")
    _check(network, layer, features)
    y, steps = x, []
    for one in network.layers[: layer + 1]:
        y, cache = one.forward(y, train=False)
        steps.append((one, cache, y))
    xp = array_module(y)
    dy = xp.zeros_like(y)
    rows, columns = (xp.asarray(each) for each in np.asarray(positions).T)
    dy[xp.arange(len(y)), xp.asarray(features), rows, columns] = 1
    for one, cache, y in reversed(steps):
        if rule == "guided" and isinstance(one, (ReLU, LeakyReLU)):
            dy = dy * ((dy > 0) & (y > 0))
        else:
            dy = one.backward(dy, cache, need_dw=False)
    return x * dy if rule == "gradient_x_input" else dy


def receptive_field(network, layer):
    """What of the picture a response depends on: size, step and start, each (vertical, horizontal), in pixels.

    The response at (row, column) sees ``size`` pixels from ``start + step * (row, column)`` on; start is negative where
    the convolutions pad. Raises UserError for layers in between that are neither convolutions nor elementwise.
    """
    size, step, start = np.ones(2, int), np.ones(2, int), np.zeros(2, int)
    for one in network.layers[: layer + 1]:
        if isinstance(one, Conv2d):
            start -= step * pair(one.options["padding"], "padding")
            size += step * (np.array(one.params["weight"].shape[2:]) - 1)
            step *= pair(one.options["stride"], "stride")
        elif not isinstance(one, (BatchNorm2d, ReLU, LeakyReLU, Tanh, Sigmoid, Dropout)):
            raise UserError(f"a receptive field expected convolutions and elementwise layers, got {type(one).__name__}")
    return size, step, start


def crops(pictures, positions, field):
    """Cut what each response sees out of pictures (N, H, W, C): (N, h, w, C), h and w at most the field's size.

    ``positions`` (N, 2), ``field`` from :func:`receptive_field`. A field that reaches over the border is moved inside.
    """
    size, step, start = field
    room = np.array(pictures.shape[1:3])
    size = np.minimum(size, room)
    corners = np.clip(start + step * np.asarray(positions), 0, room - size)
    return np.stack([p[t : t + size[0], l : l + size[1]] for p, (t, l) in zip(pictures, corners, strict=True)])


def shades(maps):
    """(N, h, w, C) -> from -1 to 1, each map's largest absolute value 1: 0 is drawn grey, what speaks for it white."""
    largest = np.abs(maps).max(axis=(1, 2, 3), keepdims=True)
    return maps / np.where(largest > 0, largest, 1)


def correlation(a, b):
    """Pearson's correlation of a[i] and b[i] over all but the first axis, (N,); 0 where one of them is constant."""
    a, b = (each.reshape(len(each), -1).astype(float) for each in (a, b))
    a, b = (each - each.mean(axis=1, keepdims=True) for each in (a, b))
    lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1)


def smoothness(maps):
    """The mean correlation of maps (N, h, w, C) with themselves moved by a pixel, down and right: 0 for noise."""
    down = correlation(maps[:, 1:], maps[:, :-1])
    right = correlation(maps[:, :, 1:], maps[:, :, :-1])
    return float((down.mean() + right.mean()) / 2)


def agreement(maps):
    """How alike the maps of one feature are: maps (F, K, ...) -> mean correlation within features, and between them.

    A feature that looks for one thing has maps that resemble each other more than those of other features.
    """
    F, K = maps.shape[:2]
    feature = np.repeat(np.arange(F), K)
    one, other = np.triu_indices(F * K, 1)
    flat = maps.reshape(F * K, -1)
    alike = correlation(flat[one], flat[other])
    same = feature[one] == feature[other]
    return float(alike[same].mean()), float(alike[~same].mean())


def _check(network, layer, features):
    found = convolutions(network)
    if layer not in found:
        raise UserError(f"layer {layer} is no convolution: use one of {', '.join(map(str, found))}")
    channels = network[layer].params["weight"].shape[0]
    if len(features) == 0 or min(features) < 0 or max(features) >= channels:
        raise UserError(f"that convolution has features 0 to {channels - 1}, got {list(map(int, features))[:8]}")
