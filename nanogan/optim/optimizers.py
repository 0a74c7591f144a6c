"""Optimisers, in PyTorch's formulas. They change a network's parameters in place, from its gradients:

    optimizer = Adam(network, lr=2e-4, betas=(0.5, 0.999))
    network.zero_grad()
    ...  # a backward, which adds into the gradients
    optimizer.step()

An optimiser's state belongs to the device that the network is on when the optimiser is made. On a GPU it moves the
network's parameters side by side (:mod:`nanogan.layers.flat`), so take them from the network after that.
"""

import math
from collections.abc import Mapping

import numpy as np

from nanogan import ops
from nanogan.backend import array_module, copy_into
from nanogan.dispatch import elementwise
from nanogan.errors import UserError
from nanogan.layers import flat
from nanogan.layers.loading import problem
from nanogan.ops.checks import check_dtype
from nanogan.optim.clock import Timed
from nanogan.optim.options import Number, checked_steps, share

INITIAL_SCALE, GROWTH_INTERVAL = 65536.0, 2000  # of loss scaling; torch.amp.GradScaler's
SCALING = ("loss_scale", "good_steps")  # what loss scaling keeps beside the parameters' arrays


class Optimizer(Timed):
    """What the optimisers share: the network, the learning rate ``lr``, and per-parameter state that can be saved.

    **Loss scaling** (``loss_scaling=True``) is for products of 16-bit floating point, whose smallest number is 6e-8:
    slopes of a mean over a batch are often smaller and would become 0. Let the backward start from ``dloss`` rather
    than 1.0; all gradients are then larger by that factor, and :meth:`step` divides them by it. When it was too large,
    and a gradient infinite, the step changes nothing and the factor is halved; after 2,000 good steps it is doubled.
    The rules are torch.amp.GradScaler's, but the device decides and nothing waits for it; so a step that changed
    nothing still counts in Adam's bias correction. Source: P. Micikevicius et al., arXiv:1710.03740, section 3.2.

    **Weight clipping** (``weight_clip=c``): every step ends with all parameters, BatchNorm's too, clipped to -c ... c,
    which keeps the slopes of a WGAN's critic bounded. Source: M. Arjovsky et al., arXiv:1701.07875, algorithm 1.
    """

    slots = ()  # names of the arrays kept for each parameter
    ranks = None  # the processes over which gradients are averaged: see share

    # Checked whenever they are set: opt.lr = np.float32(2e-4) is a Python float, opt.lr = "2e-4" a UserError.
    lr = Number("a learning rate lr >= 0", lambda lr: 0 <= lr < math.inf, on_gpu=True)
    initial_lr = Number("an initial_lr >= 0", lambda lr: 0 <= lr < math.inf)  # what a schedule starts from
    weight_decay = Number("weight_decay >= 0", lambda decay: 0 <= decay < math.inf)
    weight_clip = Number("a weight_clip above 0, or None", lambda clip: clip > 0, or_none=True)

    def __init__(self, network, lr, weight_decay, loss_scaling=False, *, weight_clip=None):
        for _, parameter, _ in network.named_parameters():
            check_dtype(type(self).__name__, parameter, half=False)
        self.network, self.lr, self.weight_decay, self.weight_clip = network, lr, weight_decay, weight_clip
        self.initial_lr = self.lr
        self.start_at(0)
        self._bucket = None  # the gradients that ranks average
        self._flat = network.flatten() if flat.worthwhile(network) else None
        self._flat_slots = [] if self._flat is None else [_zeros_like(self._flat.parameters) for _ in self.slots]
        self.state = {}
        for name, parameter, _ in network.named_parameters():
            for i, slot in enumerate(self.slots):
                self.state[f"{name}.{slot}"] = (
                    _zeros_like(parameter) if self._flat is None else self._flat.view(self._flat_slots[i], name)
                )
        self.dloss = 1.0  # the gradient of the loss, from which a backward starts
        if loss_scaling:
            _, like, _ = next(network.named_parameters())
            xp = array_module(like)
            self.dloss = self.state["loss_scale"] = xp.full((), INITIAL_SCALE, dtype=like.dtype)
            self.state["good_steps"] = xp.zeros((), dtype=like.dtype)  # since the scale changed

    def share(self, ranks):
        """From now on let every step be that of the gradients' mean over ``ranks``, a :class:`nanogan.ranks.Ranks`.

        Each has a network of the same parameters, and calls :meth:`step` at the same time. Gradients lie side by side
        from here on, so that they go round at once: take them from the network after that.
        """
        self.ranks, self._bucket = ranks, self._flat or flat.Bucket(self.network)

    def step(self):
        """Change every parameter once."""
        self.advance()
        groups = self._groups()
        if self.ranks is not None:
            self.ranks.mean(self._bucket.gradients)
        if "loss_scale" in self.state:
            self._scaled_step(groups)
        else:
            update, options = self.rule()
            elementwise(update, groups, **options)
        if self.weight_clip is not None:
            elementwise(_clip, [(parameter,) for parameter, *_ in groups], limit=self.weight_clip)

    def _groups(self):
        """Each parameter, its gradient and its slots; on a GPU all parameters as one."""
        if not all(each.in_use() for each in (self._flat, self._bucket) if each is not None):
            raise UserError(
                f"{type(self).__name__} expected the network's arrays to stay where they are, but they were moved "
                "or converted after it was made: make a new optimiser"
            )
        if self._flat is not None:
            return [(self._flat.parameters, self._flat.gradients, *self._flat_slots)]
        return [
            (parameter, gradient, *(self.state[f"{name}.{slot}"] for slot in self.slots))
            for name, parameter, gradient in self.network.named_parameters()
        ]

    def _scaled_step(self, groups):
        """:meth:`step` with gradients divided by ``dloss``; nothing changes if one of them is not finite."""
        scale, good_steps = self.state["loss_scale"], self.state["good_steps"]
        xp = array_module(scale)
        finite = xp.stack([xp.isfinite(gradient).all() for _, gradient, *_ in groups]).all()
        before = [array.copy() for parameter, _, *slots in groups for array in (parameter, *slots)]
        with np.errstate(invalid="ignore", over="ignore"):  # what comes of infinities is not kept
            for _, gradient, *_ in groups:
                gradient *= 1 / scale
            update, options = self.rule()
            elementwise(update, groups, **options)
        after = [array for parameter, _, *slots in groups for array in (parameter, *slots)]
        for array, kept in zip(after, before, strict=True):
            array[...] = xp.where(finite, array, kept)
        grows = good_steps + 1 >= GROWTH_INTERVAL
        factor = xp.where(finite, xp.where(grows, 2.0, 1.0), 0.5)
        scale *= factor.astype(scale.dtype)
        good_steps += 1
        good_steps *= (finite & ~grows).astype(good_steps.dtype)

    def rule(self):
        """Return the update, a function as those of :mod:`nanogan.ops.updates`, and its options for this step."""
        raise TypeError(f"{type(self).__name__} expected its own rule(), an update and its options: write it")

    def zero_grad(self):
        """Set the network's gradients to zero."""
        self.network.zero_grad()

    def state_dict(self):
        """Return what the next steps depend on besides parameters: ``{"steps", "lr", "initial_lr", "state"}``."""
        return {
            "steps": int(self.steps),
            "lr": _as_python(self.lr),
            "initial_lr": self.initial_lr,
            "state": dict(self.state),
        }

    def load_state_dict(self, saved):
        """Go on from :meth:`state_dict`'s result; the arrays are copied.

        Raises UserError, before anything is changed, if it is of another network or kind of optimiser. What no later
        step reads may be missing or unknown: the buffers of a momentum of 0, the loss scale of who scales no losses.
        """
        kind = type(self).__name__
        if not isinstance(saved, Mapping) or not isinstance(saved.get("state"), Mapping):
            raise UserError(f"{kind} expected what its state_dict() returns, got {type(saved).__name__} without that")
        arrays = saved["state"]
        wanted = [name for name in self.state if name in arrays or not self._is_unread(name)]
        problems = [f"{name} is missing" for name in ("steps", "lr", "initial_lr") if name not in saved]
        problems += [f"{name} is missing" for name in wanted if name not in arrays]
        problems += [f"{name} is unknown here" for name in arrays if name not in self.state and name not in SCALING]
        wrong = [problem(name, arrays[name], self.state[name]) for name in wanted if name in arrays]
        problems += [words for words in wrong if words]
        if problems:
            more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
            raise UserError(f"this state belongs to another {kind} or network: {'; '.join(problems[:4])}{more}")
        steps, lr, initial_lr = checked_steps(kind, saved["steps"]), saved["lr"], saved["initial_lr"]
        initial_lr = type(self).initial_lr.checked(kind, initial_lr)
        self.lr = lr  # the last that may be refused
        self.initial_lr = initial_lr
        self.start_at(steps)
        for name, array in self.state.items():
            if name in arrays:
                copy_into(array, arrays[name])
            else:
                array[...] = 0

    def _is_unread(self, name):
        """Whether a step multiplies the array called ``name`` by 0: the buffer of a momentum of 0."""
        return name.endswith(".momentum_buffer") and getattr(self, "momentum", None) == 0


def _as_python(lr):
    """A learning rate, perhaps an array on a GPU, as a float: 2e-4 and not float32's 0.00019999999494757503."""
    number = float(lr)
    return number if isinstance(lr, float) or lr.dtype == np.float64 else float(f"{number:.7g}")


def _zeros_like(array):
    return array_module(array).zeros_like(array)


def _clip(parameter, *, limit):
    array_module(parameter).clip(parameter, -limit, limit, out=parameter)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as torch.optim.SGD.

    See :func:`nanogan.ops.sgd_update`.
    """

    keeps_time_on_a_gpu = True
    slots = ("momentum_buffer",)
    momentum = share("momentum")

    def __init__(self, network, *, lr, momentum=0.0, weight_decay=0.0, loss_scaling=False, weight_clip=None):
        self.momentum = momentum
        super().__init__(network, lr, weight_decay, loss_scaling, weight_clip=weight_clip)

    def rule(self):
        return ops.sgd_update, {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}


class Adam(Optimizer):
    """Adam, as torch.optim.Adam; GANs are trained with betas=(0.5, 0.999).

    See :func:`nanogan.ops.adam_update`.
    """

    keeps_time_on_a_gpu = True
    slots = ("exp_avg", "exp_avg_sq")  # torch's names
    eps = Number("eps > 0", lambda eps: 0 < eps < math.inf)

    def __init__(
        self,
        network,
        *,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        loss_scaling=False,
        weight_clip=None,
    ):
        self.betas, self.eps = betas, eps
        super().__init__(network, lr, weight_decay, loss_scaling, weight_clip=weight_clip)

    @property
    def betas(self):
        """beta1 and beta2, two floats from 0 to below 1."""
        return self._betas

    @betas.setter
    def betas(self, betas):
        pair = tuple(betas) if isinstance(betas, (tuple, list)) or getattr(betas, "ndim", 0) == 1 else ()
        if len(pair) != 2:
            raise UserError(f"Adam expected two betas with 0 <= beta < 1, got {betas!r}")
        self._betas = tuple(share("beta").checked("Adam", beta) for beta in pair)

    def rule(self):
        options = {"lr": self.lr, "betas": self.betas, "eps": self.eps, "weight_decay": self.weight_decay}
        return ops.adam_update, {"step": self.time, **options}


class RMSprop(Optimizer):
    """RMSprop, as torch.optim.RMSprop; WGANs with clipped weights are trained with lr=5e-5, weight_clip=0.01.

    See :func:`nanogan.ops.rmsprop_update`.
    """

    keeps_time_on_a_gpu = True
    slots = ("square_avg", "momentum_buffer")  # torch's names
    alpha, momentum = share("alpha"), share("momentum")
    eps = Number("eps > 0", lambda eps: 0 < eps < math.inf)

    def __init__(
        self,
        network,
        *,
        lr=1e-2,
        alpha=0.99,
        eps=1e-8,
        momentum=0.0,
        weight_decay=0.0,
        loss_scaling=False,
        weight_clip=None,
    ):
        self.alpha, self.eps, self.momentum = alpha, eps, momentum
        super().__init__(network, lr, weight_decay, loss_scaling, weight_clip=weight_clip)

    def rule(self):
        options = {"lr": self.lr, "alpha": self.alpha, "eps": self.eps, "momentum": self.momentum}
        return ops.rmsprop_update, options | {"weight_decay": self.weight_decay}
