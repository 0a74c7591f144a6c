"""Ranks with a GPU each, on the strict double: the numbers of one process on the CPU, and what NCCL is called with."""

from types import SimpleNamespace

import numpy as np
import pytest

from nanogan import dispatch
from nanogan.backend import to_device, to_numpy
from nanogan.errors import UserError
from nanogan.fast import with_activation
from nanogan.ranks import cards
from tests.ranks import test_batchnorm, test_every_game
from tests.ranks.test_every_game import difference, trained
from tests.ranks.threads import play


@pytest.fixture
def without_nccl(double, monkeypatch):
    monkeypatch.setattr(cards, "_nccl", lambda: SimpleNamespace(available=False))
    return double


@pytest.mark.parametrize(
    "name",
    ["DCGAN, hinge, d_steps", "ACGAN", "CycleGAN", "StackGAN, stage I", "semi-supervised GAN, features", "WGAN-GP"],
)
def test_games_on_gpus_do_what_one_process_does(without_nccl, monkeypatch, name):
    numbers, state = trained(name)
    monkeypatch.setattr(test_every_game, "DEVICE", "gpu")
    for of_rank, state_of_rank in play(2, lambda ranks: trained(name, ranks)):
        assert difference(of_rank, numbers) < 1e-9
        for key, array in state.items():
            assert difference(state_of_rank[key], array) < 1e-5, key


@pytest.mark.parametrize("slope", [with_activation.NONE, 0.2])
@pytest.mark.parametrize("shape", test_batchnorm.SHAPES, ids=str)
def test_kernels_of_batchnorm_know_of_the_other_ranks(without_nccl, shape, slope):
    from nanogan.fast.gpu import batchnorm

    arrays = test_batchnorm.arrays_of(shape, np.float64)
    expected = test_batchnorm.ran("book", *arrays)

    def part(ranks):
        own = ranks.own(len(arrays[0]))
        x, dy, *vectors = (to_device(a, "gpu") for a in (arrays[0][own], arrays[1][own], *arrays[2:]))
        assert batchnorm.serves(x, *vectors, ranks=ranks) == (x.size > x.shape[1])
        y, cache = batchnorm.batchnorm_forward(x, *vectors, momentum=0.3, eps=1e-3, ranks=ranks, slope=slope)
        return [to_numpy(a) for a in (y, *batchnorm.batchnorm_backward(dy, cache), *vectors[2:])]

    y, dx, dgamma, dbeta, mean, var = zip(*play(2, part), strict=True)
    got = np.concatenate(y), np.concatenate(dx), sum(dgamma), sum(dbeta), mean[0], var[1]
    if slope != with_activation.NONE:
        plain = expected[0]
        np.testing.assert_allclose(got[0], np.where(plain > 0, plain, slope * plain), rtol=0, atol=1e-11)
        got, expected = got[4:], expected[4:]
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * max(1, np.abs(other).max()))


def test_the_kernels_are_what_computes(without_nccl):
    x = np.random.default_rng(0).standard_normal((4, 3, 6, 6)).astype(np.float32)

    def part(ranks):
        from nanogan.layers import BatchNorm2d

        norm = BatchNorm2d(3).to("gpu")
        norm.ranks = ranks
        with dispatch.watch() as ran:
            norm.forward(to_device(x[ranks.own(4)], "gpu"))
        return ran

    assert all("nanogan.fast.gpu.batchnorm.batchnorm_forward" in ran for ran in play(2, part))


class Calls:
    """CuPy's module of NCCL, as far as it is called: notes what it is given."""

    available = True
    NCCL_SUM, NCCL_FLOAT32, NCCL_FLOAT64, NCCL_INT64, NCCL_UINT8 = "sum", "float32", "float64", "int64", "uint8"

    def __init__(self):
        self.made, self.calls = [], []

    def get_unique_id(self):
        return b"name"

    def NcclCommunicator(self, size, name, rank):
        self.made.append((size, name, rank))
        return SimpleNamespace(
            allReduce=lambda *a: self.calls.append(("allReduce", a)),
            allGather=lambda *a: self.calls.append(("allGather", a)),
            broadcast=lambda *a: self.calls.append(("broadcast", a)),
        )


def test_nccl_is_given_addresses_counts_and_the_current_stream(monkeypatch):
    """The arguments' order is that of cupy_backends.cuda.libs.nccl, CuPy 14.2."""
    nccl = Calls()
    monkeypatch.setattr(cards, "_nccl", lambda: nccl)
    monkeypatch.setattr(cards, "_stream", lambda: 77)

    def array(address, size, name):
        return SimpleNamespace(data=SimpleNamespace(ptr=address), size=size, dtype=np.dtype(name))

    def part(ranks):
        carried = cards.ByNccl(ranks)
        if ranks.leads:
            carried.all_reduce(array(1000, 8, "float32"))
            carried.all_gather(array(2000, 3, "float64"), array(3000, 6, "float64"))
            carried.broadcast(array(4000, 5, "int64"))
            carried.broadcast(array(5000, 2, "bool"))

    play(2, part)
    assert sorted(nccl.made) == [(2, b"name", 0), (2, b"name", 1)]
    assert nccl.calls == [
        ("allReduce", (1000, 1000, 8, "float32", "sum", 77)),
        ("allGather", (2000, 3000, 3, "float64", 77)),
        ("broadcast", (4000, 4000, 5, "int64", 0, 77)),
        ("broadcast", (5000, 5000, 2, "uint8", 0, 77)),
    ]


def test_each_rank_takes_the_card_of_its_number(double, monkeypatch):
    buses = double.cuda.runtime
    monkeypatch.setattr(buses, "deviceGetPCIBusId", lambda index: f"0000:{index}", raising=False)
    assert play(2, lambda ranks: str(cards.device_of_rank(own_number(ranks), "gpu"))) == ["gpu:0", "gpu:1"]
    words = "2 processes expected a GPU each, got 1: start as many processes on a machine as it has GPUs"
    with pytest.raises(UserError, match=words):
        play(2, lambda ranks: cards.device_of_rank(ranks, "gpu:1"))
    with pytest.raises(UserError, match="some processes train on a GPU and others on the CPU"):
        play(2, lambda ranks: cards.device_of_rank(ranks, "gpu" if ranks.leads else "cpu"))
    assert play(2, lambda ranks: str(cards.device_of_rank(ranks, "cpu"))) == ["cpu", "cpu"]


def own_number(ranks):
    ranks.local_rank = ranks.rank
    return ranks
