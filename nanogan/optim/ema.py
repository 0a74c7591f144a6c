"""The average of a generator's weights over its last steps: what it draws swings less from step to step, and is better.

    ema = Ema(g, beta=0.999)
    ...  # after every opt_g.step():
    ema.update()
    pictures = sample(ema.average, z)

Make it after the optimiser, whose first act on a GPU is to move the network's arrays.
"""

import copy
from collections.abc import Mapping

from nanogan.dispatch import elementwise
from nanogan.errors import UserError
from nanogan.layers import flat
from nanogan.ops.checks import check_dtype
from nanogan.ops.updates import move_average
from nanogan.optim.clock import Timed
from nanogan.optim.options import Number, checked_steps


class Ema(Timed):
    """An exponential moving average of ``network``'s arrays, kept in a network of its own, ``average``.

        average = beta_t * average + (1 - beta_t) * network,    beta_t = min(beta, (1 + t) / (10 + t))

    after t updates. beta from 0, no average at all, to below 1: 0.999 looks back on about 1,000 steps. The smaller
    beta_t of the first updates let go of where the network started, as in TensorFlow's ExponentialMovingAverage with
    num_updates.

    BatchNorm's running statistics are averaged like the parameters, as in ajbrock/BigGAN-PyTorch's utils.py: they
    describe maps that the network's weights gave, so beside averaged weights they are to look back as far. (StyleGAN3
    and torch's AveragedModel copy the newest instead.) Whole numbers (num_batches_tracked) are copied.

    Source: Y. Yazici et al., The Unusual Effectiveness of Averaging in GAN Training, arXiv:1806.04498.
    """

    keeps_time_on_a_gpu = True
    beta = Number("a beta with 0 <= beta < 1", lambda beta: 0 <= beta < 1)  # checked whenever it is set

    def __init__(self, network, *, beta):
        for _, parameter, _ in network.named_parameters():  # (1 - beta) of a float16 is mostly lost
            check_dtype("Ema", parameter, half=False)
        self.network, self.beta = network, beta
        self.start_at(0)  # updates done
        self.average = copy.deepcopy(network)
        if flat.worthwhile(network):
            self.average.flatten()

    def update(self):
        """Move the average towards the network's arrays as they are now."""
        beta = self._next_beta()
        self.advance()
        counts, groups = self._groups()
        for average, newest in counts:
            average[...] = newest
        elementwise(move_average, groups, beta=beta)

    def _next_beta(self):
        """beta_t: a float, or with a clock on the GPU an array there, of the network's dtype."""
        beta = (1 + self.time) / (10 + self.time)
        if self.clock is None:
            return min(self.beta, beta)
        return self.network.array_module.minimum(beta, self.beta).astype(self.network.dtype)

    def state_dict(self):
        """Return what the next updates depend on besides the network: ``{"steps", "average"}``."""
        return {"steps": int(self.steps), "average": self.average.state_dict()}

    def load_state_dict(self, saved):
        """Go on from :meth:`state_dict`'s result; the arrays are copied. Raises UserError if they do not fit."""
        if not isinstance(saved, Mapping) or not saved.keys() >= {"steps", "average"}:
            raise UserError('Ema expected what its state_dict() returns, {"steps": ..., "average": ...}')
        steps = checked_steps("Ema", saved["steps"])
        self.average.load_state_dict(saved["average"])
        self.start_at(steps)

    def _groups(self):
        """Pairs of arrays, the average's and the network's: those to copy and those to average."""
        own, newest = self.average.state_dict(), self.network.state_dict()
        counts = [(own[name], newest[name]) for name in own if own[name].dtype.kind != "f"]
        flats = [network._flat for network in (self.average, self.network)]
        if any(each is None or not each.in_use() for each in flats):
            return counts, [(own[name], newest[name]) for name in own if own[name].dtype.kind == "f"]
        buffers = own.keys() - {name for name, _, _ in self.average.named_parameters()}
        floats = [(own[name], newest[name]) for name in sorted(buffers) if own[name].dtype.kind == "f"]
        return counts, [(flats[0].parameters, flats[1].parameters), *floats]
