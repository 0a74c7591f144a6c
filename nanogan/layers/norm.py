"""Batch normalisation."""

import numpy as np

from nanogan import ops
from nanogan.dispatch import dispatch
from nanogan.errors import UserError
from nanogan.layers.layer import Layer
from nanogan.ops.examples import normal


class BatchNorm2d(Layer):
    """Batch normalisation of (N, num_features, H, W), as torch.nn.BatchNorm2d.

    See :func:`nanogan.ops.batchnorm_forward`.

    Parameters: weight (gamma), bias (beta). Buffers: running_mean, running_var, num_batches_tracked.
    """

    ndim = 4
    no_tangent = "it mixes the samples of a batch, so that no sample has a gradient of its own"

    def __init__(self, num_features, *, eps=1e-5, momentum=0.1, dtype=np.float32):
        super().__init__()
        if not (eps > 0 and 0 <= momentum <= 1):
            raise UserError(f"BatchNorm expected eps > 0 and momentum from 0 to 1, got eps={eps}, momentum={momentum}")
        self.eps, self.momentum = eps, momentum
        self.add_param("weight", np.ones(num_features, dtype))
        self.add_param("bias", np.zeros(num_features, dtype))
        self.buffers["running_mean"] = np.zeros(num_features, dtype)
        self.buffers["running_var"] = np.ones(num_features, dtype)
        self.buffers["num_batches_tracked"] = np.zeros((), np.int64)

    def forward(self, x, train=True):
        if x.ndim != self.ndim:
            raise UserError(f"{type(self).__name__} expected {self.ndim} dimensions, got x of shape {x.shape}")
        if train:
            self.buffers["num_batches_tracked"] += 1
        return dispatch(
            ops.batchnorm_forward,
            ops.batchnorm_backward,
            x,
            self.params["weight"],
            self.params["bias"],
            self.buffers["running_mean"],
            self.buffers["running_var"],
            train=train,
            momentum=self.momentum,
            eps=self.eps,
        )

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        backward, cache = cache
        dx, dgamma, dbeta = backward(dy, cache, need_dx=need_dx, need_dw=need_dw)
        self.add_grads(weight=dgamma, bias=dbeta)
        return dx

    def __repr__(self):
        return f"{type(self).__name__}({self.params['weight'].size}, eps={self.eps}, momentum={self.momentum})"


class BatchNorm1d(BatchNorm2d):
    """Batch normalisation of (N, num_features), as torch.nn.BatchNorm1d."""

    ndim = 2


EXAMPLES = {
    "BatchNorm2d": (lambda: BatchNorm2d(3), normal(4, 3, 5, 5)),
    "BatchNorm1d": (lambda: BatchNorm1d(3), normal(8, 3)),
}
