"""A gated recurrent unit: reads a sequence of vectors, one after the other, into a state.

Before the first step the state h is 0. A step goes from h and the vector x to the next state:

    r = sigmoid(x @ W_ir.T + b_ir + h @ W_hr.T + b_hr)            reset gate: how much of the old state n is made from
    z = sigmoid(x @ W_iz.T + b_iz + h @ W_hz.T + b_hz)            update gate: how much of the old state is kept
    n = tanh   (x @ W_in.T + b_in + r * s),    s = h @ W_hn.T + b_hn
    next h = (1 - z) * n + z * h

The three matrices lie one below the other: w_ih = [W_ir, W_iz, W_in] is (3H, C), w_hh = [W_hr, W_hz, W_hn] is (3H, H),
and so do the biases. With from_x = x @ w_ih.T + b_ih and from_h = h @ w_hh.T + b_hh, r and z are made from the first
two thirds of from_x + from_h, and n from the last third of each.

**The backward pass, through time.** It walks over the steps from the last to the first. Let dh be the gradient of the
next h: what the step after this one returned for it, plus dy where this state is a result. The step's lines backwards:

    next h = (1 - z) * n + z * h          dz = dh * (h - n)       dn = dh * (1 - z)       and h gets dh * z
    n = tanh(a),  a = from_x + r * s      da = dn * (1 - n^2)     dr = da * s             ds = da * r
    r and z are sigmoids                  their insides get dr * r * (1 - r) and dz * z * (1 - z)

from_x reaches the loss through the insides of r, z and n, so its gradient is these three side by side; from_h as well,
but that its last third is s, with ds. Both are linear layers, whose gradients are known: h gets dfrom_h @ w_hh as well,
which is the dh of the step before. The weights are the same at every step, so that their gradients are sums over the
steps; once all steps are done, one product each adds them up, dw_ih = dfrom_x.T @ x and dw_hh = dfrom_h.T @ h.

**Padding.** Past a sequence's end, z is set to 1. Then the next h is h, and the backward needs no line for it: 1 - z is
0 in dn and in the slope of z, so nothing reaches the weights, and dh * z passes dh on as it is.

Source: K. Cho et al., arXiv:1406.1078; the reset gate after the product with W_hn, as in torch.nn.GRU.
"""

import numpy as np

from nanogan.backend import array_module, product
from nanogan.errors import UserError
from nanogan.ops.activations import stable_sigmoid
from nanogan.ops.checks import check_input
from nanogan.ops.examples import Example, integers, normal
from nanogan.ops.rows import column_sum


def gru_forward(x, w_ih, w_hh, b_ih, b_hh, *, lengths=None, return_sequences=False):
    """Return the last state (N, H) of each sequence in x (N, T, C), and the cache for :func:`gru_backward`.

    w_ih (3H, C), w_hh (3H, H), b_ih and b_hh (3H,), with torch.nn.GRU's gates in its order: reset, update, new.
    ``lengths``: integers (N,) from 0 to T, the numbers of steps that count; after these a sequence's state stays as it
    is. All T count if not given. ``return_sequences=True``: all states, (N, T, H). Raises UserError for a wrong number
    of features or dimensions, a sequence without steps, another dtype than w_ih's, and lengths that do not fit.
    """
    xp = array_module(x)
    check_input("GRU", x, w_ih, (None, None, w_ih.shape[1]), channel_axis=2)
    _check_lengths(lengths, x)
    (N, T, C), H = x.shape, w_hh.shape[1]
    steps = x.transpose(1, 0, 2).reshape(T * N, C)  # all vectors of the first step, then of the second, ...
    from_x = (product(steps, w_ih.T) + b_ih).reshape(T, N, 3 * H)
    h = xp.zeros((N, H), dtype=x.dtype)
    states, gates = [h], []
    for t in range(T):
        x_r, x_z, x_n = xp.split(from_x[t], 3, axis=1)  # (N, H) each
        h_r, h_z, s = xp.split(product(h, w_hh.T) + b_hh, 3, axis=1)
        r, z = stable_sigmoid(x_r + h_r), stable_sigmoid(x_z + h_z)
        if lengths is not None:
            z = xp.maximum(z, (t >= lengths)[:, None].astype(z.dtype))  # 1 past the end
        n = xp.tanh(x_n + r * s)
        h = (1 - z) * n + z * h
        states.append(h)
        gates.append((r, z, n, s))
    y = xp.stack(states[1:], axis=1) if return_sequences else h
    return y, (steps, states, gates, w_ih, w_hh, return_sequences)


def gru_backward(dy, cache, need_dx=True, need_dw=True):
    """Return dx (N, T, C), dw_ih, dw_hh, db_ih, db_hh for dy of y's shape; None for what is not needed."""
    steps, states, gates, w_ih, w_hh, return_sequences = cache
    xp = array_module(dy)
    T, N, H = len(gates), len(dy), w_hh.shape[1]
    dfrom_x, dfrom_h = [None] * T, [None] * T
    dh = xp.zeros((N, H), dtype=dy.dtype) if return_sequences else dy  # of the last state; more below
    for t in reversed(range(T)):
        if return_sequences:
            dh = dh + dy[:, t]
        h, (r, z, n, s) = states[t], gates[t]  # h is the state before the step
        dz = dh * (h - n)
        da = dh * (1 - z) * (1 - n * n)
        dr = da * s
        inside_r, inside_z = dr * r * (1 - r), dz * z * (1 - z)
        dfrom_x[t] = xp.concatenate([inside_r, inside_z, da], axis=1)  # (N, 3H)
        dfrom_h[t] = xp.concatenate([inside_r, inside_z, da * r], axis=1)
        dh = dh * z + product(dfrom_h[t], w_hh)

    dx = dw_ih = dw_hh = db_ih = db_hh = None
    dfrom_x, dfrom_h = xp.concatenate(dfrom_x), xp.concatenate(dfrom_h)  # (T*N, 3H)
    if need_dx:
        dx = product(dfrom_x, w_ih).reshape(T, N, w_ih.shape[1]).transpose(1, 0, 2)  # (N, T, C)
    if need_dw:
        dw_ih, db_ih = product(dfrom_x.T, steps), column_sum(dfrom_x)
        dw_hh, db_hh = product(dfrom_h.T, xp.concatenate(states[:-1])), column_sum(dfrom_h)
    return dx, dw_ih, dw_hh, db_ih, db_hh


def _check_lengths(lengths, x):
    """Raise UserError unless x has at least one step and ``lengths`` is None or N integers from 0 to T beside x.

    The range is checked in NumPy arrays alone, as in :func:`nanogan.ops.checks.check_classes`.
    """
    xp, (N, T) = array_module(x), x.shape[:2]
    if T < 1:
        raise UserError(f"GRU expected sequences of at least one step, got x of shape {x.shape}")
    if lengths is None:
        return
    expected = f"GRU expected lengths, {N} integers from 0 to {T} in a {xp.__name__} array"
    if array_module(lengths) is not xp:
        raise UserError(f"{expected}, as x is, got {array_module(lengths).__name__}'s: use nanogan.backend.to_device")
    if lengths.shape != (N,) or lengths.dtype.kind not in "iu":
        raise UserError(f"{expected}, got {lengths.dtype} of shape {lengths.shape}")
    if xp is np and N and not (lengths.min() >= 0 and lengths.max() <= T):
        raise UserError(f"{expected}, got {lengths.min()} to {lengths.max()}")


# --------------------------------------------------------------------------- what the gradient checks and the tests try


def example(**arguments):
    """An Example for 4 sequences of 5 vectors of 2 numbers, and a state of 3."""
    inputs = {"x": normal(4, 5, 2), "w_ih": normal(9, 2), "w_hh": normal(9, 3), "b_ih": normal(9), "b_hh": normal(9)}
    return Example(gru_forward, torch=torchs_gru, **inputs, **arguments)


def torchs_gru(F, x, w_ih, w_hh, b_ih, b_hh, lengths=None, return_sequences=False):
    """torch's GRU on tensors; F is torch.nn.functional. Past a sequence's end, its last state once more."""
    torch = F.torch
    N, T, H = *x.shape[:2], w_hh.shape[1]
    start = x.new_zeros(1, N, H)
    states, _ = torch.gru(x, start, (w_ih, w_hh, b_ih, b_hh), True, 1, 0.0, False, False, True)
    states = torch.cat([start.transpose(0, 1), states], dim=1)  # (N, T + 1, H): number t is the state after t steps
    done = torch.arange(1, T + 1).expand(N, T)
    if lengths is not None:
        done = done.minimum(lengths[:, None])
    states = states.gather(1, done[:, :, None].expand(N, T, H))
    return states if return_sequences else states[:, -1]


EXAMPLES = [
    example(),
    example(return_sequences=True),
    example(lengths=integers(6, 4)),
    example(lengths=integers(6, 4), return_sequences=True),
]
