"""Normalisation: over the batch, and within each image."""

import numpy as np

from nanogan import ops
from nanogan.dispatch import dispatch, dispatch_both
from nanogan.errors import UserError
from nanogan.layers.layer import Layer, Plain, writes_its_own
from nanogan.ops.checks import check_input
from nanogan.ops.examples import normal
from nanogan.ops.layernorm import layernorm_shape


class _Norm(Layer):
    """What all of them share: weight (gamma) and bias (beta), and a backward that adds their gradients."""

    no_tangent = "its slope changes with x"
    normalises = True  # its weight is a gain, which starts around 1: see nanogan.layers.init

    def __init__(self, shape, eps, affine, dtype):
        super().__init__()
        if not eps > 0:
            raise UserError(f"{type(self).__name__} expected eps > 0, got eps={eps}")
        self.eps = eps
        if affine:
            self.add_param("weight", np.ones(shape, dtype))
            self.add_param("bias", np.zeros(shape, dtype))

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        return self.backward_of(cache, dy, need_dx, need_dw, "weight", "bias")


class BatchNorm2d(_Norm):
    """Batch normalisation of (N, num_features, H, W), as torch.nn.BatchNorm2d.

    See :func:`nanogan.ops.batchnorm_forward`.

    Parameters: weight (gamma), bias (beta). Buffers: running_mean, running_var, num_batches_tracked.

    ``ranks``: the processes over whose images the statistics are taken, as torch.nn.SyncBatchNorm does; None: this
    one's.
    """

    ndim = 4
    ranks = None
    no_tangent = "it mixes the samples of a batch, so that no sample has a gradient of its own"

    def __init__(self, num_features, *, eps=1e-5, momentum=0.1, dtype=np.float32):
        if not (eps > 0 and 0 <= momentum <= 1):
            raise UserError(f"BatchNorm expected eps > 0 and momentum from 0 to 1, got eps={eps}, momentum={momentum}")
        super().__init__(num_features, eps, True, dtype)
        self.momentum = momentum
        self.buffers["running_mean"] = np.zeros(num_features, dtype)
        self.buffers["running_var"] = np.ones(num_features, dtype)
        self.buffers["num_batches_tracked"] = np.zeros((), np.int64)

    def forward(self, x, train=True):
        arguments, options = self._call(x, train)
        if train:
            self.buffers["num_batches_tracked"] += 1
        return dispatch(ops.batchnorm_forward, ops.batchnorm_backward, *arguments, **options)

    def forward_with(self, following, x, train=True):
        if not isinstance(following, Plain) or writes_its_own(self, BatchNorm2d) or writes_its_own(following, Plain):
            return None
        both = dispatch_both(ops.batchnorm_forward, following.operation[0], *self._call(x, train), following.options)
        if both is not None and train:
            self.buffers["num_batches_tracked"] += 1
        return both

    def _call(self, x, train):
        """The arguments and the options of the operation."""
        if x.ndim != self.ndim:
            raise UserError(f"{type(self).__name__} expected {self.ndim} dimensions, got x of shape {x.shape}")
        arrays = self.params["weight"], self.params["bias"], self.buffers["running_mean"], self.buffers["running_var"]
        over = {} if self.ranks is None else {"ranks": self.ranks}
        return (x, *arrays), {"train": train, "momentum": self.momentum, "eps": self.eps, **over}

    def __repr__(self):
        return f"{type(self).__name__}({self.params['weight'].size}, eps={self.eps}, momentum={self.momentum})"


class BatchNorm1d(BatchNorm2d):
    """Batch normalisation of (N, num_features), as torch.nn.BatchNorm1d."""

    ndim = 2


class InstanceNorm2d(_Norm):
    """Instance normalisation of (N, num_features, H, W), as torch.nn.InstanceNorm2d without running statistics.

    See :func:`nanogan.ops.instancenorm_forward`. With ``affine=True`` the parameters are weight (gamma) and bias
    (beta); without, which is torch's default, there are none.
    """

    def __init__(self, num_features, *, eps=1e-5, affine=False, dtype=np.float32):
        super().__init__(num_features, eps, affine, dtype)
        self.num_features = num_features

    def forward(self, x, train=True):
        check_input("InstanceNorm2d", x, self.params.get("weight"), (None, self.num_features, None, None))
        return dispatch(
            ops.instancenorm_forward,
            ops.instancenorm_backward,
            x,
            self.params.get("weight"),
            self.params.get("bias"),
            eps=self.eps,
        )

    def __repr__(self):
        affine = ", affine=True" if self.params else ""
        return f"InstanceNorm2d({self.num_features}, eps={self.eps}{affine})"


class LayerNorm(_Norm):
    """Layer normalisation over the last dimensions of (N, ..., *normalized_shape), as torch.nn.LayerNorm.

    See :func:`nanogan.ops.layernorm_forward`. Parameters of ``normalized_shape``: weight (gamma) and bias (beta);
    with ``elementwise_affine=False`` there are none.
    """

    def __init__(self, normalized_shape, *, eps=1e-5, elementwise_affine=True, dtype=np.float32):
        self.normalized_shape = layernorm_shape(normalized_shape)
        super().__init__(self.normalized_shape, eps, elementwise_affine, dtype)

    def forward(self, x, train=True):
        return dispatch(
            ops.layernorm_forward,
            ops.layernorm_backward,
            x,
            self.params.get("weight"),
            self.params.get("bias"),
            normalized_shape=self.normalized_shape,
            eps=self.eps,
        )

    def __repr__(self):
        affine = "" if self.params else ", elementwise_affine=False"
        return f"LayerNorm({self.normalized_shape}, eps={self.eps}{affine})"


EXAMPLES = {
    "BatchNorm2d": (lambda: BatchNorm2d(3), normal(4, 3, 5, 5)),
    "BatchNorm1d": (lambda: BatchNorm1d(3), normal(8, 3)),
    "InstanceNorm2d": (lambda: InstanceNorm2d(3, affine=True), normal(2, 3, 4, 5)),
    "LayerNorm": (lambda: LayerNorm((3, 4, 5)), normal(2, 3, 4, 5)),
}
