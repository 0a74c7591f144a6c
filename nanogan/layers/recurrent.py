"""Layers that read sequences."""

import numpy as np

from nanogan import ops
from nanogan.dispatch import dispatch
from nanogan.errors import UserError
from nanogan.layers import init
from nanogan.layers.layer import Layer
from nanogan.ops.examples import normal


class GRU(Layer):
    """A gated recurrent unit: (N, T, input_size) -> its last state (N, hidden_size).

    See :func:`nanogan.ops.gru_forward`. torch.nn.GRU with one layer, one direction and
    ``batch_first=True``: that returns the pair (output, h_n); this layer returns h_n, without its axis of layers, or
    with ``return_sequences=True`` output, all states (N, T, hidden_size).

    Sequences of different lengths are padded at their ends; ``forward(x, train, lengths=lengths)``, integers (N,) from
    0 to T, says how many steps of each count. What stands in the padding then changes nothing and gets a gradient of 0;
    the last state is the one after the last step that counts. (In all states, padding repeats that one; torch's
    ``pad_packed_sequence`` has zeros there.)

    Parameters, with torch's names: weight_ih_l0 (3*hidden_size, input_size), weight_hh_l0 (3*hidden_size, hidden_size),
    bias_ih_l0 and bias_hh_l0 (3*hidden_size,); drawn from ``rng`` as torch does.
    """

    def __init__(self, input_size, hidden_size, *, return_sequences=False, rng=None, dtype=np.float32):
        super().__init__()
        if min(input_size, hidden_size) < 1:
            raise UserError(f"GRU expected sizes of at least 1, got {input_size} and {hidden_size}")
        rng = rng or np.random.default_rng()
        self.return_sequences = return_sequences
        rows = 3 * hidden_size
        shapes = {"weight_ih_l0": (rows, input_size), "weight_hh_l0": (rows, hidden_size)}
        for name, shape in (shapes | {"bias_ih_l0": (rows,), "bias_hh_l0": (rows,)}).items():
            self.add_param(name, init.kaiming_uniform(rng, shape, hidden_size, dtype))

    def forward(self, x, train=True, *, lengths=None):
        return dispatch(
            ops.gru_forward,
            ops.gru_backward,
            x,
            *self.params.values(),
            lengths=lengths,
            return_sequences=self.return_sequences,
        )

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        backward, cache = cache
        dx, *gradients = backward(dy, cache, need_dx=need_dx, need_dw=need_dw)
        self.add_grads(**dict(zip(self.params, gradients, strict=True)))
        return dx

    def __repr__(self):
        rows, input_size = self.params["weight_ih_l0"].shape
        return f"GRU({input_size}, {rows // 3}, return_sequences={self.return_sequences})"


EXAMPLES = {"GRU": (lambda: GRU(3, 4, return_sequences=True, rng=np.random.default_rng(11)), normal(3, 5, 3))}
