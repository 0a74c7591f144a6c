"""What an optimiser does to one parameter, in place. Every element is on its own.

``parameter`` and ``gradient`` are of one shape, and so are the arrays that the optimiser keeps for each parameter. The
gradient stays as it is. Weight decay adds the gradient of weight_decay/2 * |parameter|^2. Parameters are float32 or
float64: in float16 a small step would leave them as they are, and Adam's squares would be 0.
"""

from nanogan.backend import array_module
from nanogan.ops.checks import check_dtype
from nanogan.ops.examples import UpdateExample


def sgd_update(parameter, gradient, velocity, *, lr, momentum=0.0, weight_decay=0.0):
    """Stochastic gradient descent with momentum, as torch.optim.SGD.

    velocity = momentum * velocity + gradient        parameter -= lr * velocity
    """
    check_dtype("SGD", parameter, half=False)
    if weight_decay:
        gradient = gradient + weight_decay * parameter
    velocity *= momentum
    velocity += gradient
    parameter -= lr * velocity


def adam_update(parameter, gradient, m, v, *, step, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Adam's update number ``step``, from 1, as torch.optim.Adam.

        m = beta1 * m + (1 - beta1) * gradient              mean of the gradient
        v = beta2 * v + (1 - beta2) * gradient^2            mean of its square
        m' = m / (1 - beta1^step),  v' = v / (1 - beta2^step)        both start at 0: this makes up for it
        parameter -= lr * m' / (sqrt(v') + eps)

    Source: D. Kingma, J. Ba, arXiv:1412.6980, algorithm 1.
    """
    check_dtype("Adam", parameter, half=False)
    xp = array_module(parameter)
    beta1, beta2 = betas
    if weight_decay:
        gradient = gradient + weight_decay * parameter
    m *= beta1
    m += (1 - beta1) * gradient
    v *= beta2
    v += (1 - beta2) * gradient * gradient
    m_scale = 1 / (1 - beta1**step)
    v_scale = 1 / (1 - beta2**step)
    root = xp.sqrt(v)
    root *= v_scale**0.5  # sqrt(v'), with one pass over the array for the square root and the correction
    root += eps
    parameter -= (lr * m_scale) * m / root


def move_average(average, newest, *, beta):
    """Exponential moving average: average = beta * average + (1 - beta) * newest. ``newest`` stays as it is."""
    check_dtype("Ema", average, half=False)
    average *= beta
    average += (1 - beta) * newest


def rmsprop_update(parameter, gradient, v, velocity, *, lr, alpha=0.99, eps=1e-8, momentum=0.0, weight_decay=0.0):
    """RMSprop, as torch.optim.RMSprop: every element's step is divided by the usual size of its gradient.

        v = alpha * v + (1 - alpha) * gradient^2            mean of its square, from 0 and not corrected for that
        velocity = momentum * velocity + gradient / (sqrt(v) + eps)
        parameter -= lr * velocity

    Source: T. Tieleman, G. Hinton, Neural Networks for Machine Learning, lecture 6.5 (2012).
    """
    check_dtype("RMSprop", parameter, half=False)
    xp = array_module(parameter)
    if weight_decay:
        gradient = gradient + weight_decay * parameter
    v *= alpha
    v += (1 - alpha) * gradient * gradient
    velocity *= momentum
    velocity += gradient / (xp.sqrt(v) + eps)
    parameter -= lr * velocity


# --------------------------------------------------------------------------- what the gradient checks and the tests try

EXAMPLES = [
    UpdateExample(sgd_update, torch="SGD", lr=0.1),
    UpdateExample(sgd_update, torch="SGD", lr=0.05, momentum=0.9),
    UpdateExample(sgd_update, torch="SGD", lr=0.05, momentum=0.5, weight_decay=0.1),
    UpdateExample(adam_update, torch="Adam", lr=1e-2),
    UpdateExample(adam_update, torch="Adam", lr=2e-2, betas=(0.5, 0.999)),
    UpdateExample(adam_update, torch="Adam", lr=1e-2, betas=(0.9, 0.99), eps=1e-3, weight_decay=0.1),
    UpdateExample(rmsprop_update, torch="RMSprop", lr=1e-3),
    UpdateExample(rmsprop_update, torch="RMSprop", lr=1e-2, alpha=0.9, eps=1e-3, momentum=0.5, weight_decay=0.1),
]
