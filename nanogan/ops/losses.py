"""Losses: one number for a batch, and its gradient.

Every forward takes ``reduction="mean"`` (over all elements) or ``"sum"`` and returns one number of the input's dtype:
NumPy's scalar, or on a GPU a 0-dimensional array, so that the device need not be waited for. Every backward takes dy,
the gradient of the loss itself: 1.0 where training starts, a weight where several losses are added.

Targets are an array of the input's shape, or one number for the whole batch.
"""

import contextlib
from numbers import Real

from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.ops.activations import stable_sigmoid
from nanogan.ops.checks import check_classes, check_dtype, check_real
from nanogan.ops.examples import Example, constant, integers, normal, off_kinks, off_zero, positive, probabilities

REAL, FAKE = 1.0, 0.0  # the targets of a discriminator


def bce_forward(p, target, *, weight=None, reduction="mean"):
    """Binary cross entropy of probabilities, as torch.nn.functional.binary_cross_entropy.

        loss = mean of  -weight * (target * log p + (1 - target) * log(1 - p)),   each log at least -100

    p of any shape, 0 <= p <= 1 (outside, the logarithm is NaN); ``weight`` broadcasts to p. Returns the loss and the
    cache for :func:`bce_backward`. After a sigmoid, :func:`bce_with_logits_forward` on its input is exact where this
    one is clamped.
    """
    xp = array_module(p)
    target, weight = _check_target("bce", p, target), _check_weight("bce", p, weight)
    with _quiet(xp):  # log 0 is -inf, which the clamp makes -100
        log_p, log_q = xp.maximum(xp.log(p), -100), xp.maximum(xp.log(1 - p), -100)
    losses = -(target * log_p + (1 - target) * log_q)
    return _reduce(losses, weight, reduction), (p, target, weight, reduction)


def bce_backward(dy, cache):
    """Return dp = dy * weight * (p - target) / (p (1 - p)) / M, with p (1 - p) at least 1e-12 as in torch.

    In float16 it is at least 2^-15.
    """
    p, target, weight, reduction = cache
    xp = array_module(p)
    least = 2**-15 if p.dtype == "float16" else 1e-12  # float16 makes 0 of 1e-12, and 0 / 0 is NaN
    return _expand(dy, (p - target) / xp.maximum(p * (1 - p), least), weight, reduction)


def bce_with_logits_forward(logits, target, *, weight=None, pos_weight=None, reduction="mean"):
    """Binary cross entropy of sigmoid(logits), without the overflow, as torch's binary_cross_entropy_with_logits.

        loss = mean of  weight * (pos_weight * target * softplus(-x) + (1 - target) * softplus(x))

    where softplus(-x) = -log sigmoid(x) and softplus(x) = -log(1 - sigmoid(x)), finite for every finite logit x. An
    infinite one costs 0 if the target is 1 (inf) or 0 (-inf), else inf; torch's is NaN there. The logits may have any
    shape, to which ``weight`` and ``pos_weight`` broadcast. Returns the loss and the cache for
    :func:`bce_with_logits_backward`.
    """
    target = _check_target("bce_with_logits", logits, target)
    for_real = target if pos_weight is None else _check_weight("bce_with_logits", logits, pos_weight) * target
    weight = _check_weight("bce_with_logits", logits, weight)
    losses = weighted(for_real, softplus(-logits)) + weighted(1 - target, softplus(logits))
    return _reduce(losses, weight, reduction), (logits, target, for_real, weight, reduction)


def bce_with_logits_backward(dy, cache):
    """Return dlogits = dy * weight * ((1 - target) * sigmoid(x) - pos_weight * target * sigmoid(-x)) / M.

    Without pos_weight that is (sigmoid(x) - target) / M, what D believes less what is true. Written as here no digit is
    lost where the two are close.
    """
    logits, target, for_real, weight, reduction = cache
    slope = (1 - target) * stable_sigmoid(logits) - for_real * stable_sigmoid(-logits)
    return _expand(dy, slope, weight, reduction)


def weighted(weight, losses):
    """weight * losses, where a weight of 0 leaves nothing, even of an infinite loss: 0 * inf would be NaN."""
    xp = array_module(losses)
    return weight * xp.where(xp.isinf(losses) & (weight == 0), 0, losses)


def softplus(x):
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), which does not overflow."""
    xp = array_module(x)
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-abs(x)))


def mse_forward(x, target, *, reduction="mean"):
    """loss = mean of (x - target)^2, x of any shape. Returns the loss and the cache for :func:`mse_backward`."""
    difference = x - _check_target("mse", x, target)
    return _reduce(difference * difference, None, reduction), (difference, reduction)


def mse_backward(dy, cache):
    """Return dx = dy * 2 (x - target) / M."""
    difference, reduction = cache
    return _expand(dy, 2 * difference, None, reduction)


def hinge_forward(x, target, *, reduction="mean"):
    """The hinge loss of a discriminator's scores: x is to be above 1 where the target is 1, below -1 where it is 0.

        loss = mean of max(0, 1 - s x),  where s = 2 target - 1 is 1 for a target of 1 and -1 for a target of 0

    x of any shape. A score that is far enough on its side costs nothing and teaches nothing. Returns the loss and the
    cache for :func:`hinge_backward`. Source: J. H. Lim, J. C. Ye, arXiv:1705.02894; T. Miyato et al.,
    arXiv:1802.05957, equations 16 and 17.
    """
    s = 2 * _check_target("hinge", x, target) - 1
    losses = array_module(x).maximum(1 - weighted(s, x), 0)
    return _reduce(losses, None, reduction), (losses, s, reduction)


def hinge_backward(dy, cache):
    """Return dx = dy * -s / M where the loss is above 0, else 0."""
    losses, s, reduction = cache
    return _expand(dy, -s * (losses > 0).astype(losses.dtype), None, reduction)


def score_forward(x, target, *, reduction="mean"):
    """loss = mean of -s x, where s = 2 target - 1: pushes scores up without bound for target 1, down for 0.

    x of any shape. What a generator minimises beside a discriminator with the hinge loss, and both sides of a
    Wasserstein GAN, whose critic takes 1 for real images and 0 for generated ones. Returns the loss and the cache for
    :func:`score_backward`. Source: as for :func:`hinge_forward`; M. Arjovsky et al., arXiv:1701.07875, algorithm 1.
    """
    slope = array_module(x).zeros_like(x)
    slope += 1 - 2 * _check_target("score", x, target)
    return _reduce(weighted(slope, x), None, reduction), (slope, reduction)


def score_backward(dy, cache):
    """Return dx = dy * -s / M."""
    slope, reduction = cache
    return _expand(dy, slope, None, reduction)


def saturating_bce_forward(logits, target, *, reduction="mean"):
    """What the generator minimises in the minimax game: the other side's binary cross entropy, with a minus.

        loss = mean of  target * log(1 - p) + (1 - target) * log p,   p = sigmoid(logits)

    For a target of 1 that is log(1 - p), which falls as D takes a drawn picture for real. Logits of any shape. Returns
    the loss and the cache for :func:`saturating_bce_backward`.
    Source: I. Goodfellow et al., arXiv:1406.2661, equation 1.
    """
    loss, cache = bce_with_logits_forward(
        logits, 1 - _check_target("saturating_bce", logits, target), reduction=reduction
    )
    return -loss, cache


def saturating_bce_backward(dy, cache):
    """Return dlogits; for a target of 1 that is -dy * p / M: next to nothing where D is sure that it is drawn."""
    return -bce_with_logits_backward(dy, cache)


def l1_forward(x, target, *, reduction="mean"):
    """loss = mean of |x - target|, x of any shape. Returns the loss and the cache for :func:`l1_backward`."""
    difference = x - _check_target("l1", x, target)
    return _reduce(abs(difference), None, reduction), (difference, reduction)


def l1_backward(dy, cache):
    """Return dx = dy * sign(x - target) / M; 0 where they are equal."""
    difference, reduction = cache
    return _expand(dy, array_module(difference).sign(difference), None, reduction)


def cross_entropy_forward(logits, labels, *, weight=None, label_smoothing=0.0, reduction="mean"):
    """Softmax cross entropy, as torch.nn.functional.cross_entropy on class numbers.

        log p = logits - log sum e^logits        q = (1 - label_smoothing) * onehot(labels) + label_smoothing / K
        loss = sum over n, k of  -weight[k] * q[n, k] * log p[n, k]  / sum over n of weight[labels[n]]

    logits (N, K); labels (N,), integers from 0 to K - 1; weight (K,) or None for ones. ``reduction="sum"`` leaves the
    division out. A logit may be -inf, p = 0: a class that is ruled out, which costs inf where its q is above 0, else
    nothing. A row with inf, or of -inf alone, has no p: NaN, as in torch. Returns the loss and the cache for
    :func:`cross_entropy_backward`.
    Raises UserError for wrong shapes and dtypes and, but on a GPU, for labels outside that range.
    """
    xp = array_module(logits)
    check_dtype("cross_entropy", logits)
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise UserError(
            f"cross_entropy expected logits (N, K) and labels (N,), got shapes {logits.shape} and {labels.shape}"
        )
    N, K = logits.shape
    if not N and reduction == "mean":
        raise UserError(f"the mean of a loss expected at least one element, got shape {logits.shape}")
    check_classes("cross_entropy", labels, K)

    shifted = logits - logits.max(axis=1, keepdims=True)  # the largest is 0, so that exp cannot overflow
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))  # (N, K)
    onehot = labels[:, None] == xp.arange(K)  # (N, K)
    label_smoothing = float(label_smoothing)
    wq = (1 - label_smoothing) * onehot.astype(logits.dtype) + label_smoothing / K
    divisor = N
    if weight is not None:
        check_real("cross_entropy", "weight", weight)
        weight = weight.astype(logits.dtype, copy=False)
        wq *= weight
        divisor = weight[labels].sum()
    if reduction == "mean":
        wq /= divisor
    return -weighted(wq, log_p).sum(), (log_p, wq)


def cross_entropy_backward(dy, cache):
    """Return dlogits (N, K) = dy * (p * sum over k of wq - wq), where wq is weight * q (over the divisor).

    log p[k] = logits[k] - log sum e^logits, and the slope of that logarithm along logits[j] is p[j].
    """
    log_p, wq = cache
    p = array_module(log_p).exp(log_p)
    return _as_scalar(dy, p) * (p * wq.sum(axis=1, keepdims=True) - wq)


def mean_probability_forward(logits):
    """mean of sigmoid(logits), logits of any shape: how real a discriminator finds a batch, from 0 to 1.

    Returns the mean, a number as the losses are, and the cache for :func:`mean_probability_backward`.
    """
    check_dtype("mean_probability", logits)
    return _reduce(stable_sigmoid(logits), None, "mean"), logits


def mean_probability_backward(dy, cache):
    """Return dlogits = dy * p * (1 - p) / M, where p = sigmoid(logits)."""
    logits = cache
    return _expand(dy, stable_sigmoid(logits) * stable_sigmoid(-logits), None, "mean")


# -------------------------------------------------------------------------------------------------- shared by them


def _check_target(op, x, target):
    """Return ``target`` as a number, or as an array of x's shape and dtype."""
    check_dtype(op, x)
    if isinstance(target, Real):
        return float(target)
    check_real(op, "target", target)
    if target.shape != x.shape:
        raise UserError(f"{op} expected a target of the input's shape {x.shape}, got {target.shape}")
    return target.astype(x.dtype, copy=False)


def _check_weight(op, x, weight):
    """Return ``weight`` in x's dtype; it must broadcast to x's shape. None stays None."""
    if weight is None:
        return None
    check_real(op, "weight", weight)
    sizes = zip(reversed(weight.shape), reversed(x.shape), strict=False)
    if weight.ndim > x.ndim or any(theirs not in (1, ours) for theirs, ours in sizes):
        raise UserError(f"{op} expected a weight that broadcasts to the input's shape {x.shape}, got {weight.shape}")
    return weight.astype(x.dtype, copy=False)


def _as_scalar(dy, x):
    """dy in x's dtype: a plain number, or a 0-dimensional array that may stay on its device."""
    return float(dy) if isinstance(dy, Real) else dy.astype(x.dtype, copy=False)


def _reduce(losses, weight, reduction):
    """Mean or sum of losses * weight."""
    if reduction not in ("mean", "sum"):
        raise UserError(f"reduction expected 'mean' or 'sum', got {reduction!r}")
    if reduction == "mean" and not losses.size:
        raise UserError(f"the mean of a loss expected at least one element, got shape {losses.shape}")
    if weight is not None:
        losses = weighted(weight, losses)
    return losses.mean() if reduction == "mean" else losses.sum()


def _expand(dy, slope, weight, reduction):
    """The gradient of :func:`_reduce`: every element's slope, times its weight, times dy, over the count."""
    if weight is not None:
        slope = slope * weight
    dy = _as_scalar(dy, slope)
    return slope * (dy / slope.size if reduction == "mean" else dy)


def _quiet(xp):
    """NumPy warns of log 0; CuPy has no warnings, and its errstate knows no ``divide``."""
    return xp.errstate(divide="ignore") if xp.__name__ == "numpy" else contextlib.nullcontext()


# --------------------------------------------------------------------------- what the gradient checks and the tests try

_p, _target = probabilities(4, 3), constant(probabilities(4, 3))
_BCE, _BCE_WITH_LOGITS = {"torch": "binary_cross_entropy"}, {"torch": "binary_cross_entropy_with_logits"}

EXAMPLES = [
    Example(bce_forward, **_BCE, p=_p, target=_target),
    Example(bce_forward, **_BCE, p=_p, target=_target, weight=positive(4, 3), reduction="sum"),
    Example(bce_with_logits_forward, **_BCE_WITH_LOGITS, logits=normal(4, 3), target=_target),
    Example(bce_with_logits_forward, **_BCE_WITH_LOGITS, logits=normal(4, 3), target=_target,
            weight=positive(4, 3), pos_weight=positive(3)),
    Example(mse_forward, torch="mse_loss", x=normal(4, 3), target=constant(normal(4, 3))),
    Example(l1_forward, torch=lambda F, x, target: x.abs().mean(), x=off_zero(4, 3), target=0.0),
    Example(l1_forward, torch="l1_loss", x=normal(4, 3), target=constant(normal(4, 3)), reduction="sum"),
    Example(hinge_forward, torch=lambda F, x, target: F.relu(1 - x).mean(), x=off_kinks(4, 3), target=1.0),
    Example(hinge_forward, torch=lambda F, x, target, reduction: F.relu(1 + x).sum(),
            x=off_kinks(4, 3), target=0.0, reduction="sum"),
    Example(hinge_forward, torch=lambda F, x, target: F.relu(1 - (2 * target - 1) * x).mean(),
            x=off_kinks(4, 3), target=integers(2, 4, 3)),
    Example(score_forward, torch=lambda F, x, target: -x.mean(), x=normal(4, 3), target=1.0),
    Example(score_forward, torch=lambda F, x, target, reduction: ((1 - 2 * target) * x).sum(),
            x=normal(4, 3), target=integers(2, 4, 3), reduction="sum"),
    Example(saturating_bce_forward, torch=lambda F, logits, target: F.logsigmoid(-logits).mean(),
            logits=normal(4, 3), target=1.0),
    Example(saturating_bce_forward,
            torch=lambda F, x, target, reduction: (target * F.logsigmoid(-x) + (1 - target) * F.logsigmoid(x)).sum(),
            logits=normal(4, 3), target=_target, reduction="sum"),
    Example(mean_probability_forward, torch=lambda F, logits: logits.sigmoid().mean(), logits=normal(4, 3)),
    Example(cross_entropy_forward, logits=normal(6, 4), labels=integers(4, 6)),
    Example(cross_entropy_forward, logits=normal(6, 4), labels=integers(4, 6), weight=positive(4), label_smoothing=0.1),
    Example(cross_entropy_forward, logits=normal(6, 4), labels=integers(4, 6), weight=positive(4), label_smoothing=0.2,
            reduction="sum"),
]  # fmt: skip
