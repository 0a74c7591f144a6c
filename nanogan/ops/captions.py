"""From the words of a caption to a condition on an image: what StackGAN needs besides layers.

    words (N, T)  ->  embedding (N, T, F)  ->  a GRU or their mean (N, F)  ->  linear, mu and s (N, 2K)
    condition c = mu + exp(s) * noise (N, K)                 beside z in stage I, on every pixel of a map in stage II

**Conditioning augmentation.** Few captions make few points in the space of conditions, with nothing in between. So a
caption gives a normal distribution, N(mu, exp(s)^2), and each sample draws its condition from it; and a loss keeps the
distribution near N(0, 1), or else exp(s) would shrink to 0 and the points would be back:

    KL(N(mu, exp(s)^2) || N(0, 1)) = -s + (exp(2s) + mu^2 - 1) / 2

The noise is drawn outside, so the draw is differentiable: dc/dmu = 1, dc/ds = exp(s) * noise. Nothing follows the
linear layer that makes mu and s: with a ReLU there, exp(s) could not be below 1.

Source: H. Zhang et al., StackGAN, arXiv:1612.03242, section 3.2.
"""

from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.ops.checks import check_dtype, check_input, check_real
from nanogan.ops.examples import Draw, Example, constant, integers, normal
from nanogan.ops.losses import _as_scalar


def mean_words_forward(x, *, words):
    """y[n] = mean of x[n, t] over the t with words[n, t] != 0: the order of the words is lost.

    x (N, T, F), a vector for each word; words (N, T), integers, 0 for no word. The mean of no words is 0. Returns y
    (N, F) and the cache for :func:`mean_words_backward`.
    """
    if x.ndim != 3 or words.shape != x.shape[:2]:
        raise UserError(
            f"mean_words expected vectors (N, T, F) and words (N, T), got shapes {x.shape} and {words.shape}"
        )
    check_dtype("mean_words", x)
    xp = array_module(x)
    share = (words != 0).astype(x.dtype)  # (N, T)
    share /= xp.maximum(share.sum(axis=1, keepdims=True), 1)  # 1 / number of words, or 0
    return (x * share[:, :, None]).sum(axis=1), share


def mean_words_backward(dy, cache):
    """Return dx (N, T, F) for dy (N, F): each word of a caption gets its share of dy, padding gets 0."""
    share = cache
    return dy[:, None, :] * share[:, :, None]


def gaussian_sample_forward(x, *, noise):
    """y = mu + exp(s) * noise, where x (N, 2K) is mu (N, K) and s (N, K) side by side.

    noise (N, K), drawn from N(0, 1), makes y a sample of N(mu, exp(s)^2). Returns y and the cache for
    :func:`gaussian_sample_backward`.
    """
    mu, s = _halves("gaussian_sample", x)
    check_real("gaussian_sample", "noise", noise)
    if noise.shape != mu.shape:
        raise UserError(f"gaussian_sample expected noise of shape {mu.shape}, got {noise.shape}")
    spread = array_module(x).exp(s) * noise.astype(x.dtype, copy=False)  # dy/ds
    return mu + spread, spread


def gaussian_sample_backward(dy, cache):
    """Return dx (N, 2K): dmu = dy and ds = dy * exp(s) * noise."""
    spread = cache
    return array_module(dy).concatenate([dy, dy * spread], axis=1)


def gaussian_kl_forward(x):
    """The KL divergence of N(mu, exp(s)^2) from N(0, 1): the mean of -s + (exp(2s) + mu^2 - 1) / 2.

    x (N, 2K) is mu and s side by side; the mean is over the N samples and the K dimensions. Returns the loss, 0 at
    least, and the cache for :func:`gaussian_kl_backward`.
    """
    mu, s = _halves("gaussian_kl", x)
    if not len(x):
        raise UserError(f"the mean of a loss expected at least one element, got shape {x.shape}")
    excess = array_module(x).expm1(2 * s)  # exp(2s) - 1, precise for a small s
    return (0.5 * (excess + mu * mu) - s).mean(), (mu, excess)


def gaussian_kl_backward(dy, cache):
    """Return dx (N, 2K): dmu = dy * mu / M and ds = dy * (exp(2s) - 1) / M, where M = N * K."""
    mu, excess = cache
    slope = array_module(mu).concatenate([mu, excess], axis=1)
    return slope * (_as_scalar(dy, slope) / mu.size)


def append_maps_forward(x, w):
    """Append the vector w[n] to every pixel of x[n]: y[n, C + k, h, w] = w[n, k].

    x (N, C, H, W), w (N, K). Returns y (N, C + K, H, W) and the cache for :func:`append_maps_backward`.
    """
    check_input("append_maps", x, w, (None, None, None, None))
    N, C, H, W = x.shape
    if w.ndim != 2 or len(w) != N:
        raise UserError(f"append_maps expected a vector for each of {N} maps, got an array of shape {w.shape}")
    y = array_module(x).empty((N, H, W, C + w.shape[1]), x.dtype)
    y[..., :C] = x.transpose(0, 2, 3, 1)
    y[..., C:] = w[:, None, None, :]
    return y.transpose(0, 3, 1, 2), C


def append_maps_backward(dy, cache, need_dx=True, need_dw=True):
    """Return dx (N, C, H, W) and dw (N, K), summed over the pixels; None for what is not needed."""
    C = cache
    dx = dy[:, :C] if need_dx else None
    dw = dy[:, C:].sum(axis=(2, 3)) if need_dw else None
    return dx, dw


def row_dot_forward(x, w):
    """y[n, 0] = sum over k of x[n, k] * w[n, k]: how well two vectors of a sample agree.

    x and w (N, K). Returns y (N, 1) and the cache for :func:`row_dot_backward`.
    """
    check_input("row_dot", x, w, (None, None))
    if x.shape != w.shape:
        raise UserError(f"row_dot expected two arrays of one shape (N, K), got {x.shape} and {w.shape}")
    return (x * w).sum(axis=1, keepdims=True), (x, w)


def row_dot_backward(dy, cache, need_dx=True, need_dw=True):
    """Return dx and dw (N, K) for dy (N, 1): each is dy times the other; None for what is not needed."""
    x, w = cache
    return dy * w if need_dx else None, dy * x if need_dw else None


def _halves(op, x):
    """x (N, 2K) as mu (N, K) and s (N, K)."""
    check_dtype(op, x)
    if x.ndim != 2 or x.shape[1] % 2:
        raise UserError(f"{op} expected mu and s side by side, (N, 2K), got an array of shape {x.shape}")
    K = x.shape[1] // 2
    return x[:, :K], x[:, K:]


# --------------------------------------------------------------------------- what the gradient checks and the tests try


def _of_torch(F, x, words):
    kept = (words != 0).to(x.dtype)[:, :, None]
    return (x * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)


_no_words = Draw((3, 4), lambda rng, shape: rng.integers(0, 3, shape) * [[1], [0], [1]], gradient=False)
_noise = constant(normal(4, 3))

EXAMPLES = [
    Example(mean_words_forward, torch=_of_torch, x=normal(4, 5, 3), words=integers(3, 4, 5)),
    Example(mean_words_forward, torch=_of_torch, x=normal(3, 4, 2), words=_no_words),
    Example(gaussian_sample_forward, torch=lambda F, x, noise: x[:, :3] + x[:, 3:].exp() * noise,
            x=normal(4, 6), noise=_noise),
    Example(gaussian_kl_forward, torch=lambda F, x: (-x[:, 3:] + ((2 * x[:, 3:]).exp() + x[:, :3] ** 2 - 1) / 2).mean(),
            x=normal(4, 6)),
    Example(append_maps_forward,
            torch=lambda F, x, w: F.pad(x, (0, 0, 0, 0, 0, 6)) + F.pad(w[:, :, None, None], (0, 0, 0, 0, 3, 0)),
            x=normal(2, 3, 4, 5), w=normal(2, 6)),
    Example(row_dot_forward, torch=lambda F, x, w: (x * w).sum(dim=1, keepdim=True), x=normal(4, 3), w=normal(4, 3)),
]  # fmt: skip
