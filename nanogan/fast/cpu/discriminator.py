"""A discriminator on a real and a fake batch in one pass: half as many calls, each of twice as many images.

Layer by layer the two batches are one of twice the size, since a convolution or an activation does the same to every
image. Only BatchNorm looks at other images of the batch: its statistics are those of each half. The halves' gradients
of the weights are then added up by the matrix products themselves.
"""

import numpy as np

from nanogan.dispatch import register
from nanogan.fast.cpu import batchnorm, elementwise, threads
from nanogan.fast.with_activation import NONE, slope_of
from nanogan.layers import losses
from nanogan.layers.activations import LeakyReLU, ReLU, Tanh
from nanogan.layers.affine import Conv2d, Linear
from nanogan.layers.layer import replaced, writes_its_own
from nanogan.layers.norm import BatchNorm2d
from nanogan.layers.sequential import Sequential
from nanogan.layers.shapes import Flatten

LEAST = 16 * 1024  # numbers of a batch: with fewer the book is as fast
LEAST_ALONE = 10 * 1024  # the same with one thread, where longer calls bring no more threads to work
WITH_THE_ONE_BEFORE = "in the cache of the layer before"  # in place of a layer's own cache
EACH_IMAGE = Conv2d, Linear, LeakyReLU, ReLU, Tanh, Flatten  # layers that see one image at a time


def serves(real, fake, d, loss, labels, dloss):
    """Whether d is a Sequential, with that class's methods, of layers known here, and the batches are large."""
    alike = real.shape == fake.shape and real.dtype == fake.dtype and real.dtype in (np.float32, np.float64)
    if (
        not alike
        or real.size < (LEAST if threads.count() > 1 else LEAST_ALONE)
        or real.ndim != 4
        or not isinstance(d, Sequential)
        or writes_its_own(d, Sequential)
    ):
        return False
    norms = [layer for layer in d.layers if type(layer) is BatchNorm2d]
    twice = len({id(layer) for layer in norms}) < len(norms)  # its statistics would be noted in another order
    kinds = BatchNorm2d, *EACH_IMAGE
    return not twice and all(type(layer) in kinds and not replaced(layer) for layer in d.layers)


def discriminate(real, fake, d, loss, labels, dloss):
    """The same as :func:`nanogan.layers.losses.discriminate_by_the_book`."""
    loss_forward, loss_backward = loss
    d._check(real)
    both = np.concatenate([images.transpose(0, 2, 3, 1) for images in (real, fake)]).transpose(0, 3, 1, 2)
    scores, caches = _forward(d, both)
    logits = scores[: len(real)], scores[len(real) :]
    values, loss_caches = zip(*(loss_forward(*each) for each in zip(logits, labels, strict=True)), strict=True)
    dscores = np.concatenate([loss_backward(dloss, cache) for cache in loss_caches])
    del both, scores
    _backward(d, dscores, caches)
    return values, logits


def _forward(d, x):
    """Sequential's forward of two batches, one after the other in x: the result, and caches for its backward."""
    caches = []
    for i, layer in enumerate(d.layers):
        if len(caches) > i:  # the layer before computed this one as well
            continue
        if type(layer) is BatchNorm2d:
            slope, caches_of_next = _slope_after(d.layers[i + 1 :])
            arguments, options = layer._call(x, True)
            x, cache = batchnorm.batchnorm_forward(*arguments, **options, slope=slope, batches=2)
            layer.buffers["num_batches_tracked"] += 2
            caches += [(batchnorm.batchnorm_backward, cache), *caches_of_next]
        else:
            x, cache = layer.forward(x, train=True)
            caches.append(cache)
    return x, caches


def _backward(d, dy, caches):
    """Sequential's backward, which lets go of each cache once it is used: two batches at once need much memory."""
    for i in reversed(range(len(d.layers))):
        cache = caches.pop()
        if cache is WITH_THE_ONE_BEFORE:
            continue
        if cache[0] is elementwise.leaky_relu_backward and dy.strides == cache[1][0].strides:
            dy = elementwise.leaky_relu_backward(dy, cache[1], out=dy)
        else:
            dy = d.layers[i].backward(dy, cache, need_dx=i > 0)


def _slope_after(layers):
    """The slope of the ReLU or LeakyReLU that follows, and its place in the caches; that of no activation, and none."""
    kind = type(layers[0]) if layers else None
    if kind is ReLU:
        return 0.0, [WITH_THE_ONE_BEFORE]
    slope = slope_of(**layers[0].options) if kind is LeakyReLU else NONE
    if 0 <= slope < NONE:
        return slope, [WITH_THE_ONE_BEFORE]
    return NONE, []


register("cpu", losses.discriminate_by_the_book, discriminate, serves=serves)
