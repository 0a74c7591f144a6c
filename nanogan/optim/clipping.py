"""Gradients that are too large, made smaller: between a backward and the optimiser's step.

    network.backward(dloss, cache)
    norm = clip_grad_norm(network, 1.0)
    optimizer.step()

A clipped gradient is no slope: check a game's gradients (``python -m nanogan.gradcheck``) with a limit of infinity.
Weights are clipped by the optimiser that changes them: ``RMSprop(..., weight_clip=0.01)``.
"""

import numpy as np

from nanogan.backend import array_module
from nanogan.ops.checks import check_dtype
from nanogan.optim.options import Number


def clip_grad_norm(network, max_norm):
    """Scale all gradients of ``network`` together, so that their norm is at most ``max_norm``; return it as it was.

        norm = sqrt(sum of gradient^2, over all elements of all parameters)
        gradient *= min(1, max_norm / (norm + 1e-6))

    as torch.nn.utils.clip_grad_norm_. All gradients keep their proportions; ``max_norm=float("inf")`` measures alone.
    The norm is a 0-d array on the network's device; nothing waits for it. Gradients that are not finite do not become
    finite. With loss scaling, all are larger by ``optimizer.dloss``: give ``max_norm * optimizer.dloss``.
    """
    max_norm = _limit("clip_grad_norm", "max_norm", max_norm)
    gradients = network.gradient_arrays()
    check_dtype("clip_grad_norm", gradients[0], half=False)
    xp = array_module(gradients[0])
    with np.errstate(over="ignore", invalid="ignore"):  # of infinite gradients, which loss scaling looks for
        norm = xp.sqrt(xp.stack([(gradient * gradient).sum() for gradient in gradients]).sum())
        factor = xp.minimum(max_norm / (norm + 1e-6), 1)
        for gradient in gradients:
            gradient *= factor
    return norm


def clip_grad_value(network, clip_value):
    """Clip every element of every gradient to -clip_value ... clip_value, as torch.nn.utils.clip_grad_value_.

    This changes the gradient's direction. With loss scaling, give ``clip_value * optimizer.dloss``.
    """
    clip_value = _limit("clip_grad_value", "clip_value", clip_value)
    for gradient in network.gradient_arrays():
        array_module(gradient).clip(gradient, -clip_value, clip_value, out=gradient)


def _limit(function, name, value):
    """``value`` as a float, checked; a 0-d array stays: to look at a GPU's, the host would have to wait."""
    if getattr(value, "shape", None) == () and not isinstance(value, np.generic):
        return value
    return Number(f"a {name} above 0", lambda value: value > 0).checked(function, value)
