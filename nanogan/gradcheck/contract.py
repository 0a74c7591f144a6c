"""What a GAN needs of a layer besides right slopes, each promise checked by breaking the code that relies on it.

The discriminator holds its real and its fake batch at once, so a cache must outlive the next forward. Both batches'
gradients add up. G's step wants D's dx but not its dw. An array that is handed in is still needed elsewhere.
Libraries that keep activations on the layer train a generator with a gradient of zero, and say nothing.
"""

import copy

import numpy as np

from nanogan.backend import array_module, to_numpy

SAME = 1e-9  # relative, in float64: sums may be added up in another order
SAME_FLOAT32 = 1e-4


def layer_promises(layer, x, *, train=True):
    """Return a sentence for each promise that ``layer`` breaks on the input ``x``; the layer itself stays as it is.

    Promises: forward and backward change neither x, dy, cache nor parameters; two forwards and their backwards in
    either order give what each gives alone; gradients add up; need_dx=False and need_dw=False give None and leave the
    rest; float32 stays float32; eval mode changes no buffer.
    """
    rng = np.random.default_rng(1)
    x = x.copy()
    other = array_module(x).asarray(rng.permutation(to_numpy(x).ravel()).reshape(x.shape))  # also right for indices
    before = {name: to_numpy(array).copy() for name, array in (("x", x), *_parameters(layer))}
    broken = []

    one = _fresh(layer)
    y, cache = one.forward(x, train=train)
    dy, other_dy = (array_module(y).asarray(rng.standard_normal(y.shape).astype(y.dtype)) for _ in range(2))
    dy_before = to_numpy(dy).copy()
    first = one.backward(dy, cache)
    dx, once = _copied(first), _gradients(one)
    again = one.backward(dy, cache)
    now = {name: to_numpy(array) for name, array in (("x", x), *_parameters(one))}
    broken += [f"{name} is changed by forward or backward" for name in before if not _equal(now[name], before[name])]
    if not _equal(dy, dy_before):
        broken.append("dy is changed by backward, but the caller may still need it")
    elif not _same(again, dx):
        broken.append("a second backward with the same cache gives another dx: backward changes the cache")
    if not all(_same(gradient, 2 * once[name]) for name, gradient in _gradients(one).items()):
        broken.append("gradients do not add up over two backwards: add into grads (self.add_grads), and zero nothing")
    if broken:  # what follows would only repeat it
        return broken

    # the second batch is smaller and in the other mode, so that a shape or a flag kept on the layer shows, too
    rows = len(x) - 1 if len(x) > (1 if train else 2) else len(x)  # BatchNorm trains on two rows or more
    other, other_dy = other[:rows], other_dy[: rows * len(dy) // max(1, len(x))]
    dx_alone = [dx, None]
    _, cache2 = one.forward(other, train=not train)
    one.zero_grad()
    dx_alone[1] = _copied(one.backward(other_dy, cache2))
    grads_alone = {name: once[name] + gradient for name, gradient in _gradients(one).items()}
    batches, dys = ((x, train), (other, not train)), (dy, other_dy)
    for order in ([0, 1], [1, 0]):
        try:
            dxs, grads = _interleaved(layer, batches, dys, order)
            kept = all(_same(got, expected) for got, expected in zip(dxs, dx_alone, strict=True))
            kept = kept and all(_same(gradient, grads_alone[name]) for name, gradient in grads.items())
        except Exception:  # an array of the other batch's shape does not fit
            kept = False
        if not kept:
            broken.append(
                "a second forward changes what the first one's backward computes: keep activations, shapes and modes "
                "in the cache that forward returns, not on the layer"
            )
            break

    partly = _fresh(layer)
    _, cache = partly.forward(x, train=train)
    if not _same(partly.backward(dy, cache, need_dw=False), dx):
        broken.append("need_dw=False gives another dx")
    if any(gradient.any() for gradient in _gradients(partly).values()):
        broken.append("need_dw=False still adds into grads")
    if partly.backward(dy, cache, need_dx=False) is not None:
        broken.append("need_dx=False still returns dx: return None")
    if not all(_same(gradient, once[name]) for name, gradient in _gradients(partly).items()):
        broken.append("need_dx=False gives other parameter gradients")
    if not _equal(dy, dy_before):
        broken.append("dy is changed by backward with need_dx=False or need_dw=False")

    if x.dtype == np.float64:
        single = _fresh(layer).astype(np.float32)
        y, cache = single.forward(x.astype(np.float32), train=train)
        dx = single.backward(dy.astype(np.float32), cache)
        grads = ((f"the gradient of {name}", gradient) for name, _, gradient in single.named_parameters())
        broken += _not_float32(("y", y), ("dx", dx), *grads)

    still = _fresh(layer)
    state = {name: to_numpy(array).copy() for name, array in still.state_dict().items()}
    still.forward(x, train=False)
    state, now = state | {"x": before["x"]}, still.state_dict() | {"x": x}
    broken += [f"{name} is changed by a forward with train=False" for name in now if not _equal(now[name], state[name])]
    return broken


def _interleaved(layer, batches, dys, order):
    """Two forwards, then their backwards in the given order. Returns [dx of each batch], {name: gradient}."""
    both = _fresh(layer)
    caches = [both.forward(batch, train=mode)[1] for batch, mode in batches]
    dxs = [None, None]
    for i in order:
        dxs[i] = _copied(both.backward(dys[i], caches[i]))
    return dxs, _gradients(both)


def operation_promises(call, gradients, inputs):
    """Return a sentence for each promise that an operation breaks.

    ``call(arrays)`` returns ``y, cache``; ``gradients(dy, cache)`` returns {name: gradient}. Promises: what has a
    gradient is not changed; backward changes neither dy nor cache; another forward in between changes nothing; float32
    stays float32.
    """
    rng = np.random.default_rng(1)
    arrays = {name: array.copy() for name, array in inputs.items()}
    y, cache = call(arrays)
    dy = array_module(y).asarray(rng.standard_normal(y.shape).astype(y.dtype))
    dy_before = to_numpy(dy).copy()
    once = {name: _copied(gradient) for name, gradient in gradients(dy, cache).items()}
    again = gradients(dy, cache)
    broken = [
        f"{name} is changed by forward or backward"
        for name, gradient in once.items()
        if gradient is not None and not _equal(arrays[name], inputs[name])
    ]
    if not _equal(dy, dy_before):
        broken.append("dy is changed by backward, but the caller may still need it")
    elif not all(_same(again[name], gradient) for name, gradient in once.items()):
        broken.append("a second backward with the same cache gives other gradients: backward changes the cache")
    others = {
        name: array_module(a).asarray(rng.permutation(to_numpy(a).ravel()).reshape(a.shape))
        for name, a in inputs.items()
    }
    y, cache = call({name: array.copy() for name, array in inputs.items()})
    call(others)
    if not broken and not all(_same(gradient, once[name]) for name, gradient in gradients(dy, cache).items()):
        broken.append("a second forward changes what the first one's backward computes: pass it on in the cache")
    if y.dtype == np.float64:
        single = {name: a.astype(np.float32) if a.dtype.kind == "f" else a.copy() for name, a in inputs.items()}
        y, cache = call(single)
        found = gradients(dy.astype(np.float32), cache)
        broken += _not_float32(("y", y), *((f"d{name}", gradient) for name, gradient in found.items()))
    return broken


def _fresh(layer):
    """A copy with the layer's parameters, buffers and random state, and with gradients of zero."""
    layer = copy.deepcopy(layer)
    layer.zero_grad()
    return layer


def _parameters(layer):
    return [(name, parameter) for name, parameter, _ in layer.named_parameters()]


def _gradients(layer):
    return {name: to_numpy(gradient).copy() for name, _, gradient in layer.named_parameters()}


def _copied(array):
    return None if array is None else to_numpy(array).copy()


def _equal(one, two):
    return np.array_equal(to_numpy(one), to_numpy(two), equal_nan=True)


def _same(got, expected):
    """Equal but for rounding; both may be None."""
    if got is None or expected is None:
        return got is expected
    got, expected = to_numpy(got), to_numpy(expected)
    close = SAME if expected.dtype == np.float64 else SAME_FLOAT32
    return got.shape == expected.shape and bool((abs(got - expected) <= close * abs(expected).max(initial=0)).all())


def _not_float32(*named):
    return [
        f"{name} is {array.dtype} where everything that goes in is float32"
        for name, array in named
        if array is not None and array.dtype != np.float32
    ]
