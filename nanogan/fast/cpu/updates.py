"""Adam without temporaries: the same numbers in fewer walks over memory, into arrays that are used again.

Where a gradient is 0 for ever, m and v shrink from step to step until they are denormal, where a processor takes up to
a hundred times as long, and where rounding keeps them from reaching 0. Every FLUSH steps what is near that range is set
to 0: it moves no parameter by a digit, since Adam divides m by at least eps.
"""

import numpy as np

from nanogan import ops
from nanogan.dispatch import register
from nanogan.fast.cpu.threads import workspace

LEAST = 16 * 1024  # numbers: with fewer the book is as fast
FLUSH = 128  # steps
MARGIN = 2.0**20  # times the smallest normal number
SAFE = 1e-12  # of an eps


def serves(parameter, gradient, m, v, *, step, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Whether these are large arrays of one dtype."""
    alike = all(array.dtype == parameter.dtype for array in (gradient, m, v))
    return parameter.size >= LEAST and alike and parameter.dtype in (np.float32, np.float64)


def adam_update(parameter, gradient, m, v, *, step, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """The same as :func:`nanogan.ops.adam_update` for four arrays of one shape, but for numbers near the smallest."""
    beta1, beta2 = betas
    m_scale, v_scale = 1 / (1 - beta1**step), 1 / (1 - beta2**step)
    in_order = parameter.flags.c_contiguous
    if weight_decay:
        gradient = gradient + weight_decay * parameter
    room = workspace("adam", parameter.shape, parameter.dtype) if in_order else np.empty_like(parameter)
    m *= beta1
    m += np.multiply(gradient, 1 - beta1, out=room)
    v *= beta2
    np.multiply(gradient, gradient, out=room)
    room *= 1 - beta2
    v += room
    if step % FLUSH == 0 and eps >= SAFE:
        least = MARGIN * np.finfo(m.dtype).tiny
        for array in (m, v):
            array[np.abs(array) < least] = 0
    # lr * m' / (sqrt(v') + eps), numerator and denominator divided by sqrt(v_scale)
    np.sqrt(v, out=room)
    room += eps * v_scale**-0.5
    np.divide(m, room, out=room)
    room *= lr * m_scale * v_scale**-0.5
    parameter -= room


register("cpu", ops.adam_update, adam_update, serves=serves)
