"""Smooth relatives of ReLU: softplus, ELU, SELU, GELU, SiLU, and the gate GLU.

The slopes of ReLU, tanh and sigmoid follow from y alone (:mod:`nanogan.ops.activations`). Of these functions that holds
for softplus, where y = log(1 + e^x) gives the slope sigmoid(x) = 1 - e^-y. ELU's slope follows from y too, but
alpha * e^x = y + alpha has lost all its digits where y is close to -alpha. SiLU and GELU fall and rise again, so that
two x share a y. So these keep x.

All are written so that no exponent is positive: nothing overflows, however large x is.
"""

import math

from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.ops.activations import stable_sigmoid
from nanogan.ops.checks import check_dtype
from nanogan.ops.examples import Example, normal, off_zero
from nanogan.ops.losses import softplus

# Constants of the SELU paper: with them, layers of normalised inputs and weights have outputs of mean 0 and variance 1.
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848, 1.0507009873554804934


def softplus_forward(x):
    """y = log(1 + e^x), for x of any shape. Returns y and the cache for :func:`softplus_backward`.

    torch's softplus returns x itself above its threshold of 20; here y is exact for every x.
    """
    check_dtype("Softplus", x)
    y = softplus(x)
    return y, y


def softplus_backward(dy, cache):
    """Return dx = dy * (1 - e^-y), as e^y = 1 + e^x makes that sigmoid(x)."""
    y = cache
    return dy * -array_module(y).expm1(-y)  # exact for small y too


def elu_forward(x, *, alpha=1.0):
    """y = x where x > 0, else alpha * (e^x - 1); for x of any shape and alpha >= 0.

    Returns y and the cache for :func:`elu_backward`. Source: D.-A. Clevert et al., arXiv:1511.07289.
    """
    check_dtype("ELU", x)
    if not alpha >= 0:
        raise UserError(f"ELU expected alpha >= 0, got {alpha}")
    xp, alpha = array_module(x), float(alpha)  # a NumPy number would make the result float64
    y = xp.maximum(x, 0) + alpha * xp.expm1(xp.minimum(x, 0))  # one of the two terms is 0
    return y, (x, alpha)


def elu_backward(dy, cache):
    """Return dx = dy where x > 0, else dy * alpha * e^x."""
    x, alpha = cache
    xp = array_module(x)
    return xp.where(x > 0, dy, dy * (alpha * xp.exp(-abs(x))))  # of -|x|, so that nothing overflows


def selu_forward(x):
    """y = SELU_SCALE * elu(x, alpha=SELU_ALPHA), for x of any shape. Returns y and the cache for selu_backward.

    Source: G. Klambauer et al., "Self-Normalizing Neural Networks", arXiv:1706.02515.
    """
    check_dtype("SELU", x)
    y, cache = elu_forward(x, alpha=SELU_ALPHA)
    return SELU_SCALE * y, cache


def selu_backward(dy, cache):
    """Return dx, SELU_SCALE times ELU's."""
    return elu_backward(SELU_SCALE * dy, cache)


def silu_forward(x):
    """y = x * sigmoid(x), also called swish; for x of any shape. Returns y and the cache for :func:`silu_backward`.

    Source: S. Elfwing et al., arXiv:1702.03118; P. Ramachandran et al., arXiv:1710.05941.
    """
    check_dtype("SiLU", x)
    s = stable_sigmoid(x)
    return x * s, (x, s)


def silu_backward(dy, cache):
    """Return dx = dy * s * (1 + x * (1 - s)) with s = sigmoid(x), from (x s)' = s + x s (1 - s).

    1 - s is sigmoid(-x), which has all its digits where s is close to 1.
    """
    x, s = cache
    return dy * (s * (1 + x * stable_sigmoid(-x)))


def gelu_forward(x):
    """y = x * Phi(x), with Phi the normal distribution function; torch's gelu with approximate="none".

        Phi(x) = (1 + erf(x / sqrt 2)) / 2,  the probability that a normal number is below x

    x of any shape. Returns y and the cache for :func:`gelu_backward`.
    Source: D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units", arXiv:1606.08415.
    """
    check_dtype("GELU", x)
    probability = normal_cdf(x)
    return x * probability, (x, probability)


def gelu_backward(dy, cache):
    """Return dx = dy * (Phi(x) + x * phi(x)), with Phi's slope, the density phi."""
    x, probability = cache
    return dy * (probability + x * normal_density(x))


# Chebyshev coefficients of log(erfc(z) * e^(z^2) / t) over u = 4t - 2 in [-2, 2], t = 2 / (2 + z): computed in 50
# digits, and cut where they fall below float64's precision.
ERFC = (
    -1.3026537197817094, 0.64196979235649029, 0.019476473204185837, -0.0095615147868086316, -0.00094659534448203689,
    0.00036683949785276145, 4.2523324806907772e-05, -2.0278578112534243e-05, -1.6242900046470255e-06,
    1.3036558355805232e-06, 1.5626441722066143e-08, -8.5238095914926543e-08, 6.5290544390988515e-09,
    5.0593434955514689e-09, -9.9136415649303309e-10, -2.2736512229318359e-10, 9.6467911020155268e-11,
    2.3940380830391147e-12, -6.8860275264975534e-12, 8.9448792730907257e-13, 3.1309213993429581e-13,
    -1.1270822361367252e-13, 3.8109052551892321e-16, 7.1061976136092370e-15, -1.5230282014571043e-15,
    -9.4574945712912340e-17, 1.2102371892242790e-16,
)  # fmt: skip


def normal_cdf(x):
    """Phi(x), the probability that a normal number is below x, to x's precision.

    Neither NumPy nor CuPy has erf. Phi(-|x|) is erfc(z) / 2 with z = |x| / sqrt 2, and erfc(z) = t * e^(P(u) - z^2)
    with a smooth P, summed up by Clenshaw's recurrence. Source of the form: W. H. Press et al., Numerical Recipes,
    third edition, 6.2.2.
    """
    xp = array_module(x)
    z = xp.minimum(abs(x) * 0.5**0.5, 30)  # beyond, erfc is 0, and z^2 would overflow
    t = 2 / (2 + z)
    u = 4 * t - 2
    b, b_before = 0.0, 0.0
    for coefficient in ERFC[:0:-1]:
        b, b_before = u * b - b_before + coefficient, b
    tail = 0.5 * t * xp.exp(0.5 * (u * b + ERFC[0]) - b_before - z * z)  # Phi(-|x|)
    return xp.where(x > 0, 1 - tail, tail)


def normal_density(x):
    """phi(x) = e^(-x^2 / 2) / sqrt(2 pi)."""
    xp = array_module(x)
    bounded = xp.minimum(abs(x), 40)  # beyond, phi is 0, and x^2 would overflow
    return xp.exp(-0.5 * bounded * bounded) * (2 * math.pi) ** -0.5


def glu_forward(x, *, dim=-1):
    """y = a * sigmoid(b), where a is the first half of x along ``dim`` and b the second: b opens and closes a's gate.

    x of any shape, of an even size along ``dim``; ``dim=1`` halves the channels of images. torch's default is the last
    dimension. Returns y and the cache for :func:`glu_backward`. Source: Y. Dauphin et al., arXiv:1612.08083.
    """
    check_dtype("GLU", x)
    if not -x.ndim <= dim < x.ndim or x.shape[dim] % 2:
        raise UserError(f"GLU expected an x of an even size along dim={dim}, got shape {x.shape}")
    a, b = array_module(x).split(x, 2, axis=dim)  # views
    s = stable_sigmoid(b)
    return a * s, (x, s, dim)


def glu_backward(dy, cache):
    """Return dx: da = dy * s and db = dy * a * s * (1 - s) with s = sigmoid(b), one after the other along ``dim``."""
    x, s, dim = cache
    xp = array_module(x)
    a, _ = xp.split(x, 2, axis=dim)
    dx = xp.empty_like(x)  # in x's memory order
    da, db = xp.split(dx, 2, axis=dim)  # views
    da[...] = dy * s
    db[...] = da * a * (1 - s)
    return dx


# --------------------------------------------------------------------------- what the gradient checks and the tests try


def _softplus(F, x):
    return F.softplus(x, threshold=40)  # torch's own threshold of 20 is off by e^-20


EXAMPLES = [
    Example(softplus_forward, torch=_softplus, x=normal(3, 4, 5, 2, scale=3.0)),
    Example(elu_forward, x=off_zero(3, 4, 5, 2)),
    Example(elu_forward, x=off_zero(3, 4), alpha=0.3),
    Example(selu_forward, x=off_zero(3, 4, 5, 2)),
    Example(silu_forward, x=normal(3, 4, 5, 2, scale=3.0)),
    Example(gelu_forward, x=normal(3, 4, 5, 2, scale=2.0)),
    Example(glu_forward, x=normal(3, 4, 5, 2)),
    Example(glu_forward, x=normal(3, 6, 4, 5), dim=1),
]
