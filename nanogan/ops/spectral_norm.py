"""Spectral normalisation: a weight divided by its largest singular value, so that, as a matrix, it stretches no vector.

Seen as a matrix W with one row per output channel, a weight stretches a vector v of length 1 to the length |W v|. The
largest that this can be is W's largest singular value sigma. It is u^T W v for the two unit vectors that belong to it,
and these are found by power iteration: u <- W v and v <- W^T u, each scaled to length 1. Since a weight moves little
from step to step of training, one round for each forward pass is enough when u and v are kept. A convolution's kernel
is such a matrix for one position of the kernel; positions overlap, so the layer may still stretch an image.

    sigma = u^T W v        y = W / sigma

**The backward pass.** W reaches y twice, as the numerator and through sigma. u and v count as constants, so sigma's
slope is d sigma / dW[i, j] = u[i] * v[j], and

    dW = dy / sigma - sum(dy * W) / sigma^2 * u v^T  =  (dy - sum(dy * y) * u v^T) / sigma

In words: a W that grows along u v^T grows sigma as well, and the quotient undoes it. That u and v may count as
constants is no approximation where they are exact: they are the unit vectors that make u^T W v largest, so a small turn
of them changes nothing of first order.

Source: T. Miyato et al., Spectral Normalization for Generative Adversarial Networks, arXiv:1802.05957; as in
torch.nn.utils.parametrizations.spectral_norm.
"""

from nanogan.backend import array_module, channels_last
from nanogan.ops.checks import check_dtype
from nanogan.ops.examples import Example, constant, positive


def spectral_norm_forward(w, u, v, *, dim=0):
    """y = w / sigma, sigma = u^T W v, for w of any shape, u (F,) and v (size of w / F,), where F = w.shape[dim].

    dim: the axis of output channels, W's rows: 0, or 1 for a transposed convolution. W's columns are w's other axes in
    their order. u and v: from :func:`power_iteration`. Returns y and the cache for :func:`spectral_norm_backward`.
    """
    check_dtype("SpectralNorm", w, half=False)
    sigma = u @ (matrix(w, dim) @ v)
    y = channels_last(w / sigma)
    return y, (y, u, v, sigma, dim)


def spectral_norm_backward(dy, cache):
    """Return dw = (dy - sum(dy * y) * u v^T) / sigma, of w's shape."""
    y, u, v, sigma, dim = cache
    xp = array_module(dy)
    dy_rows, y_rows = matrix(dy, dim), matrix(y, dim)  # (F, size / F)
    drows = (dy_rows - (dy_rows * y_rows).sum() * xp.outer(u, v)) / sigma
    return from_matrix(drows, y.shape, dim)


def power_iteration(w, u, v, *, dim=0, n_power_iterations=1, eps=1e-12):
    """Return u and v, nearer to the vectors of w's largest singular value, as new arrays. eps: the least length."""
    check_dtype("SpectralNorm", w, half=False)
    rows = matrix(w, dim)
    for _ in range(n_power_iterations):
        u = unit(rows @ v, eps)
        v = unit(u @ rows, eps)
    return u, v


def matrix(w, dim):
    """w with its axis ``dim`` as rows: (F, size / F). C-ordered, so that no sum's last digit hangs on w's order."""
    xp = array_module(w)
    return xp.ascontiguousarray(xp.moveaxis(w, dim, 0)).reshape(w.shape[dim], -1)


def from_matrix(rows, shape, dim):
    """The inverse of :func:`matrix`: an array of ``shape``, channels-last in memory."""
    others = shape[:dim] + shape[dim + 1 :]
    return channels_last(array_module(rows).moveaxis(rows.reshape(shape[dim], *others), 0, dim))


def unit(x, eps=1e-12):
    """x / |x|."""
    xp = array_module(x)
    return x / xp.maximum(xp.sqrt((x * x).sum()), eps)


# --------------------------------------------------------------------------- what the gradient checks and the tests try


def _torch(F, w, u, v, dim=0):
    return w / (u @ (w.movedim(dim, 0).flatten(1) @ v))


def example(*shape, **options):
    """An Example for a weight of this shape; all positive, so that sigma is not near 0."""
    F, size = shape[options.get("dim", 0)], 1
    for n in shape:
        size *= n
    inputs = {"w": positive(*shape), "u": constant(positive(F)), "v": constant(positive(size // F))}
    return Example(spectral_norm_forward, torch=_torch, **inputs, **options)


EXAMPLES = [example(4, 3, 2, 3), example(3, 4, 2, 3, dim=1), example(5, 3)]
