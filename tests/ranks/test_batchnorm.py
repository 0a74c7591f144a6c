"""BatchNorm over the images of several ranks is BatchNorm of all of them, by the book and by the fast path."""

import numpy as np
import pytest

from nanogan import ops
from nanogan.fast.cpu import batchnorm as fast
from nanogan.layers import BatchNorm2d, LeakyReLU, ReLU, Sequential
from tests.ranks.threads import play

PATHS = {
    "book": (ops.batchnorm_forward, ops.batchnorm_backward),
    "fast": (fast.batchnorm_forward, fast.batchnorm_backward),
}
SHAPES = [(8, 3, 5, 6), (8, 4, 1, 1), (64, 7), (4, 16, 33, 20)]


def arrays_of(shape, dtype, mean=0.0):
    rng, C = np.random.default_rng(1), shape[1]
    x, dy = mean + rng.standard_normal(shape), rng.standard_normal(shape)
    gamma, beta, running_mean = rng.standard_normal((3, C))
    return [a.astype(dtype) for a in (x, dy, gamma, beta, running_mean, rng.uniform(0.5, 2, C))]


def ran(path, x, dy, gamma, beta, running_mean, running_var, **options):
    forward, backward = PATHS[path]
    running = running_mean.copy(), running_var.copy()
    y, cache = forward(x, gamma, beta, *running, train=True, momentum=0.3, eps=1e-3, **options)
    return y, *backward(dy, cache), *running


def on_ranks(size, path, x, dy, *vectors, **options):
    """y, dx of all images; dgamma, dbeta added up; the running statistics, which are the same everywhere."""

    def part(ranks):
        own = ranks.own(len(x))
        return ran(path, x[own], dy[own], *vectors, ranks=ranks, **options)

    y, dx, dgamma, dbeta, *running = zip(*play(size, part), strict=True)
    assert all(np.array_equal(each[0], other) for each in running for other in each)
    return np.concatenate(y), np.concatenate(dx), sum(dgamma), sum(dbeta), running[0][0], running[1][0]


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("path", PATHS)
def test_the_parts_of_a_batch_are_normalised_like_the_whole(path, shape, size):
    arrays = arrays_of(shape, np.float64)
    expected = ran("book", *arrays)
    for got, wanted in zip(on_ranks(size, path, *arrays), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12 * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize(("mean", "spread"), [(30, 0.1), (1000, 0.01), (1e4, 0.1), (1e4, 1)])
@pytest.mark.parametrize("path", PATHS)
def test_a_large_mean_costs_no_digits(path, mean, spread):
    x, *rest = arrays_of((8, 3, 16, 16), np.float32)
    x = (mean + spread * x).astype(np.float32)
    y, dx, *_ = ran("book", *(a.astype(np.float64) for a in (x, *rest)))
    got_y, got_dx, *_ = on_ranks(2, path, x, *rest)
    assert np.abs(got_y - y).max() < 2e-5
    assert np.abs(got_dx - dx).max() < 2e-5 * np.abs(dx).max()


@pytest.mark.parametrize("path", PATHS)
def test_a_rank_with_one_value_of_a_channel_has_those_of_the_others(path):
    arrays = arrays_of((4, 5), np.float64)
    for got, wanted in zip(on_ranks(4, path, *arrays), ran("book", *arrays), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)


def test_two_batches_in_one_pass_keep_their_statistics_apart():
    """D's real and fake batch, one behind the other on each rank: both go round in one call."""
    real, fake = arrays_of((8, 3, 5, 6), np.float64), arrays_of((8, 3, 5, 6), np.float64, mean=3)
    vectors = real[2:]
    first = ran("book", *real[:2], *vectors)
    second = ran("book", *fake[:2], *vectors[:2], *first[-2:])

    def part(ranks):
        own = ranks.own(8)
        x, dy = (np.concatenate([real[i][own], fake[i][own]]) for i in range(2))
        return ran("fast", x, dy, *vectors, ranks=ranks, batches=2)

    y, dx, dgamma, dbeta, mean, var = zip(*play(2, part), strict=True)
    for i, batch in enumerate((first, second)):
        half = slice(4 * i, 4 * (i + 1))
        np.testing.assert_allclose(np.concatenate([each[half] for each in y]), batch[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(np.concatenate([each[half] for each in dx]), batch[1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(sum(dgamma), first[2] + second[2], rtol=1e-12)
    np.testing.assert_allclose(sum(dbeta), first[3] + second[3], rtol=1e-12)
    np.testing.assert_allclose(mean[0], second[4], rtol=1e-12)
    np.testing.assert_allclose(var[0], second[5], rtol=1e-12)


@pytest.mark.parametrize("activation", [ReLU, lambda: LeakyReLU(negative_slope=0.2)])
def test_with_the_activation_behind_it(activation):
    rng = np.random.default_rng(2)
    x, dy = rng.standard_normal((2, 8, 16, 20, 20))

    def ran_layers(x, dy, ranks=None):
        norm = BatchNorm2d(16, dtype=np.float64)
        norm.params["weight"][...] = np.linspace(-1, 2, 16)
        norm.ranks = ranks
        network = Sequential(norm, activation())
        y, cache = network.forward(x)
        return y, network.backward(dy, cache, need_dw=False)

    y, dx = ran_layers(x, dy)
    parts = play(2, lambda ranks: ran_layers(x[ranks.own(8)], dy[ranks.own(8)], ranks))
    for got, wanted in zip(zip(*parts, strict=True), (y, dx), strict=True):
        np.testing.assert_allclose(np.concatenate(got), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("path", PATHS)
def test_what_is_not_needed_is_not_asked_of_the_others(path):
    """need_dx=False takes no sums over ranks, need_dw=False does: all ranks make the same calls."""
    arrays = arrays_of((8, 3, 5, 6), np.float64)
    forward, backward = PATHS[path]

    def calls(ranks):
        own, counted = ranks.own(8), []
        total = ranks.total
        ranks.total = lambda x: counted.append(x.shape) or total(x)
        _, cache = forward(arrays[0][own], *(a.copy() for a in arrays[2:]), ranks=ranks)
        found = [len(counted)]
        for needs in ({"need_dx": False}, {"need_dw": False}, {}):
            backward(arrays[1][own], cache, **needs)
            found.append(len(counted))
        return found

    assert play(2, calls) == [[1, 1, 2, 3]] * 2
