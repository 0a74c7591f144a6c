"""One step of learning from examples with known answers, for classifiers and autoencoders."""


def supervised_step(network, optimizer, x, target, loss_forward, loss_backward):
    """Update ``network`` once so that its output for ``x`` comes nearer to ``target``; return the loss before it.

    ``loss_forward`` and ``loss_backward`` are a pair of :mod:`nanogan.ops`, such as ``cross_entropy_forward`` and
    ``cross_entropy_backward``; the loss is a 0-dimensional array that stays on the network's device. Train mode. The
    backward starts from ``optimizer.dloss``, which is 1 unless the optimiser scales losses.
    """
    network.zero_grad()
    y, cache = network.forward(x, train=True)
    loss, loss_cache = loss_forward(y, target)
    network.backward(loss_backward(optimizer.dloss, loss_cache), cache, need_dx=False)
    optimizer.step()
    return loss
