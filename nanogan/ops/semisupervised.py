"""A discriminator of K classes and "fake": one logit for "real", and the mean of features.

**K + 1 classes with K logits.** A softmax over K classes and "fake" has K + 1 logits, but adding the same number to
all of them changes no probability. So the last one can be fixed at 0, and what is left are the logits l (N, K) of the
classes. With Z = e^l[1] + ... + e^l[K] and e^0 = 1 for "fake",

    p(class k) = e^l[k] / (Z + 1)        p(real) = Z / (Z + 1) = sigmoid(log Z)        p(fake) = 1 / (Z + 1)

Hence log Z, :func:`logsumexp_forward`, is the one logit of an ordinary discriminator, and its losses are the binary
cross entropies of the ordinary GAN: -log p(real) = softplus(-log Z) and -log p(fake) = softplus(log Z). And

    -log p(class k) = (log Z - l[k]) + softplus(-log Z) = cross entropy over the K classes - log p(real)

What an image is and whether it is real are two questions to the same K numbers.

Source: T. Salimans et al., arXiv:1606.03498, sections 3.1 and 5; A. Odena, arXiv:1606.01583.
"""

from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.ops.checks import check_dtype, check_real
from nanogan.ops.examples import Example, constant, normal
from nanogan.ops.losses import _as_scalar, _quiet


def logsumexp_forward(logits):
    """y = log(e^l[1] + ... + e^l[K]) for logits l (N, K): y (N, 1), at least the largest logit.

    A row of -inf alone gives -inf, one with inf gives inf; neither has a softmax: their gradient is NaN, as in torch.
    Returns y and the cache for :func:`logsumexp_backward`. Raises UserError for other shapes than (N, K).
    """
    check_dtype("logsumexp", logits)
    if logits.ndim != 2:
        raise UserError(f"logsumexp expected logits (N, K), got shape {logits.shape}")
    xp = array_module(logits)
    largest = logits.max(axis=1, keepdims=True)  # (N, 1); without it every exponent is 0 at most: none overflows
    largest = xp.where(xp.isinf(largest), 0, largest)  # inf - inf is NaN, but e^inf = inf and e^-inf = 0 are right
    with _quiet(xp):  # log 0 = -inf is right as well
        y = largest + xp.log(xp.exp(logits - largest).sum(axis=1, keepdims=True))
    return y, (logits, y)


def logsumexp_backward(dy, cache):
    """Return dlogits (N, K) = dy * softmax(logits): dy/dl[k] = e^l[k] / (e^l[1] + ... + e^l[K]) = e^(l[k] - y)."""
    logits, y = cache
    return dy * array_module(logits).exp(logits - y)


def feature_matching_forward(x, target, *, ranks=None):
    """loss = mean over the F features of (mean of x - mean of target)^2, each mean over a batch.

    x (N, F), target (M, F): features of N generated and of M real images, the latter a constant. A generator that
    minimises it need not win against a discriminator; its images have the real ones' features on average.
    ranks: those that share the batches, each with a part of one size; the means are those over all of them.

    Returns the loss and the cache for :func:`feature_matching_backward`. Raises UserError unless the features are
    equally many.
    Source: T. Salimans et al., arXiv:1606.03498, section 3.1 (there the sum over the features).
    """
    check_dtype("feature_matching", x)
    check_real("feature_matching", "target", target)
    if x.ndim != 2 or target.ndim != 2 or x.shape[1] != target.shape[1]:
        raise UserError(
            f"feature_matching expected features (N, F) and (M, F), got shapes {x.shape} and {target.shape}"
        )
    if not len(x) or not len(target):
        raise UserError(f"feature_matching expected at least one sample in both, got {len(x)} and {len(target)}")
    difference = x.mean(axis=0) - target.astype(x.dtype, copy=False).mean(axis=0)  # (F,)
    if ranks is not None:
        ranks.mean(difference)
    return (difference * difference).mean(), (difference, x.shape)


def feature_matching_backward(dy, cache):
    """Return dx (N, F) = dy * 2 (mean of x - mean of target) / (F N): the same row for every sample."""
    difference, (N, F) = cache
    row = difference * (_as_scalar(dy, difference) * (2 / (F * N)))  # (F,)
    return array_module(row).repeat(row[None], N, axis=0)


# --------------------------------------------------------------------------- what the gradient checks and the tests try

EXAMPLES = [
    Example(logsumexp_forward, torch=lambda F, logits: logits.logsumexp(dim=1, keepdim=True), logits=normal(5, 4)),
    Example(logsumexp_forward, torch=lambda F, logits: logits.logsumexp(dim=1, keepdim=True),
            logits=normal(3, 2, scale=300)),
    Example(feature_matching_forward, torch=lambda F, x, target: F.mse_loss(x.mean(dim=0), target.mean(dim=0)),
            x=normal(5, 4), target=constant(normal(7, 4))),
]  # fmt: skip
