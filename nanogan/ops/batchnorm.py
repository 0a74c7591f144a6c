"""Batch normalisation over the rows of a matrix: one column per channel, one row per pixel.

In train mode every channel is shifted and scaled to mean 0 and variance 1 over the batch,

    mean = sum x / M        var = sum (x - mean)^2 / M        xhat = (x - mean) / sqrt(var + eps)
    y = gamma * xhat + beta

**The backward pass.** dgamma = sum dy * xhat and dbeta = sum dy, over the rows. For dx, note that
x[i] reaches the loss along three ways: through its own xhat[i], and through mean and var into all of xhat. Writing out
d xhat[j] / d x[i] = (delta_ij - 1/M - xhat[i]*xhat[j] / M) / sqrt(var + eps) and summing over j,

    dx = gamma / sqrt(var + eps) * (dy - mean(dy) - xhat * mean(dy * xhat))

In words: dx is dy with its mean and its part along xhat taken out, because the normalisation would undo a change of x
in those two directions. (So dy = ones gives dx = 0 whatever the code computes: check with a random dy.)

In eval mode mean and var are constants, the running statistics, and dx = gamma / sqrt(var + eps) * dy.

**On several ranks** (:mod:`nanogan.ranks`), each of which has its share of the batch's rows, the formulas stay: sums
over the rows become sums over the rows of all ranks, and M counts them all. In the forward these are sum x and sum x^2,
taken around a number K that all ranks know, lest digits be lost:

    mean = K + S1 / M        var = S2 / M - (S1 / M)^2        S1 = sum of x - K, S2 = sum of (x - K)^2, over all ranks

In the backward, x[i] of one rank reaches the loss through xhat[j] of all ranks. Of the sum over j above, the first term
is the rank's own, and the other two are made of P = sum dy and Q = sum dy * xhat, over the rows of all ranks:

    dx = gamma / sqrt(var + eps) * (dy - P / M - xhat * Q / M)

So 2 C numbers go round in each direction. dgamma and dbeta stay the sums over the rank's own rows, as the gradients of
all other parameters do: the ranks' gradients are averaged where an optimiser takes its step.

Source: S. Ioffe, C. Szegedy, "Batch Normalization", arXiv:1502.03167; running statistics as in torch.nn.BatchNorm2d.
"""

from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.ops.checks import check_input
from nanogan.ops.examples import Example, constant, normal, positive
from nanogan.ops.rows import column_sum, from_rows, to_rows


def batchnorm_forward(x, gamma, beta, running_mean, running_var, *, train=True, momentum=0.1, eps=1e-5, ranks=None):
    """Normalise each channel of x (N, C, H, W) or (N, C); gamma, beta, running_mean and running_var are (C,).

    In train mode the running statistics are updated in place, the one side effect in ``nanogan.ops``:

        running = (1 - momentum) * running + momentum * batch's, with the unbiased variance, sum (x - mean)^2 / (M - 1)

    ranks: those that share the batch, each with a part of one size, if the statistics are to be those of all of it.

    Returns y of x's shape and the cache for :func:`batchnorm_backward`.
    Raises UserError for a wrong number of channels or dimensions, another dtype than gamma's, one value per channel.
    """
    xp = array_module(x)
    check_input("BatchNorm", x, gamma, (None, len(gamma), None, None)[: 2 if x.ndim == 2 else 4], half=False)
    momentum, eps = float(momentum), float(eps)  # NumPy numbers would make the results float64
    rows = to_rows(x)  # (M, C), M = N*H*W
    M = len(rows)

    if train:
        if M < 2 and ranks is None:
            raise UserError(f"BatchNorm expected more than one value per channel to train, got x of shape {x.shape}")
        mean = column_sum(rows) / M  # (C,)
        centred = rows - mean  # (M, C)
        # A mean rounded to float32 is off by up to 1e-7 of itself, which matters where the mean is large beside the
        # spread; what is left of it in ``centred`` is small, and so is known precisely.
        rest = column_sum(centred) / M
        centred -= rest
        var = column_sum(centred * centred) / M  # (C,)
        if ranks is None:
            mean += rest
        else:  # ``mean`` and ``var`` so far are those of this rank's rows
            own = mean.astype("float64") + rest
            mean, var, M = moments_of_all(ranks, own, var, M, near=running_mean)
            centred += (own - mean).astype(x.dtype)
            mean, var = mean.astype(x.dtype), var.astype(x.dtype)
        running_mean *= 1 - momentum
        running_mean += momentum * mean
        running_var *= 1 - momentum
        running_var += momentum * M / (M - 1) * var
    else:
        centred = rows - running_mean
        var = running_var

    inv_std = 1 / xp.sqrt(var + eps)  # (C,)
    centred *= inv_std
    xhat = centred  # (M, C)
    y = gamma * xhat
    y += beta
    return _like(y, x), (xhat, inv_std, gamma, train, ranks)


def batchnorm_backward(dy, cache, need_dx=True, need_dw=True):
    """Return dx of dy's shape, dgamma (C,), dbeta (C,); None for what is not needed."""
    xhat, inv_std, gamma, train, ranks = cache
    dy_rows = to_rows(dy)  # (M, C)
    M = len(dy_rows)
    dx = dgamma = dbeta = None

    if need_dw or train:  # in train mode dx needs the two sums as well
        # y = gamma * xhat + beta
        dgamma = column_sum(dy_rows * xhat)  # (C,)
        dbeta = column_sum(dy_rows)  # (C,)
    if need_dx:
        if train:
            # dx = gamma * inv_std * (dy - mean(dy) - xhat * mean(dy * xhat))
            P, Q = dbeta, dgamma
            if ranks is not None:
                P, Q, M = slopes_of_all(ranks, dbeta, dgamma, M)
            dx = xhat * (-Q / M)
            dx += dy_rows
            dx -= P / M
            dx *= gamma * inv_std
        else:
            dx = dy_rows * (gamma * inv_std)
        dx = _like(dx, dy)
    if not need_dw:
        dgamma = dbeta = None
    return dx, dgamma, dbeta


def moments_of_all(ranks, mean, var, M, near):
    """Return mean (C,), variance (C,) and number of the rows of all ranks, from those of this rank's M rows.

    mean: in float64, since a mean rounded to float32 may be off by more than the rows' spread.

    near (C,) is K, the same on all ranks. Around it, sum (x - K) = M (mean - K), and sum (x - K)^2 is
    M (var + (mean - K)^2). In float64, in which little is lost even where K is far from the mean.
    """
    away = mean - near  # (C,)
    sums = ranks.total(array_module(mean).stack([M * away, M * (var + away * away)]))  # (2, C): S1, S2
    M = M * ranks.size
    first, second = sums / M
    return near + first, (second - first * first).clip(0), M


def slopes_of_all(ranks, dbeta, dgamma, M):
    """Return P (C,), Q (C,) and the number of rows of all ranks, from the two sums over this rank's M rows."""
    P, Q = ranks.total(array_module(dbeta).stack([dbeta, dgamma]))
    return P, Q, M * ranks.size


def _like(rows, x):
    """Rows (M, C) in x's shape, (N, C) or (N, C, H, W)."""
    return rows if x.ndim == 2 else from_rows(rows, x.shape[0], x.shape[2], x.shape[3])


# --------------------------------------------------------------------------- what the gradient checks and the tests try


def example(*shape, **options):
    """An Example for x of this shape."""
    C = shape[1]
    inputs = {"x": normal(*shape), "gamma": normal(C), "beta": normal(C)}
    inputs |= {"running_mean": constant(normal(C)), "running_var": constant(positive(C))}
    return Example(batchnorm_forward, torch=_torch, **inputs, **options)


def _torch(F, x, gamma, beta, running_mean, running_var, train, **options):
    return F.batch_norm(x, running_mean.clone(), running_var.clone(), gamma, beta, training=train, **options)


EXAMPLES = [
    example(4, 3, 5, 6, train=True),
    example(4, 3, 5, 6, train=True, momentum=0.3, eps=1e-2),
    example(1, 2, 3, 3, train=True),
    example(7, 3, train=True),
    example(4, 3, 5, 6, train=False),
    example(7, 3, train=False),
]
