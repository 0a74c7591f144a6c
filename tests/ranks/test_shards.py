"""A batch in parts: the loader's, a step's inputs, what layers draw."""

import re

import numpy as np
import pytest

from nanogan.backend import seeded_rng
from nanogan.data import Loader
from nanogan.errors import UserError
from nanogan.games.drawing import draw_noise
from nanogan.games.game import OfWholeBatch
from nanogan.layers import Conv2d, Sequential
from nanogan.layers.flat import Bucket
from nanogan.optim import Adam
from nanogan.ranks.shards import Shard, own_part
from tests.ranks.threads import play


def loader_of(N=22, batch_size=8, **options):
    rng = np.random.default_rng(0)
    images, others = (rng.integers(0, 256, (n, 4, 4, 1), dtype=np.uint8) for n in (N, N - 5))
    columns = {"images": images, "labels": np.arange(N) % 3, "weights": np.arange(N, dtype=np.float32), "other": others}
    return Loader(columns, batch_size=batch_size, unpaired=("other",), **options)


@pytest.mark.parametrize("size", [2, 4])
def test_the_parts_are_the_batches_of_one_process(size):
    """But for what an epoch's last batch has more than they can share: 6 images are 4 for 4 ranks."""
    whole = list(loader_of().epoch(2))
    parts = play(size, lambda ranks: list(loader_of().shared(ranks).epoch(2)))
    assert all(len(part) == len(whole) == 3 for part in parts)
    for batch, *shards in zip(whole, *parts, strict=True):
        N = len(batch["labels"]) // size * size
        for name in ("images", "other"):
            assert all(len(shard[name]) == N and shard[name].shape == (N, 1, 4, 4) for shard in shards)
            assert np.array_equal(np.concatenate([shard[name].own for shard in shards]), batch[name][:N])
        for name in ("labels", "weights"):
            assert all(np.array_equal(shard[name], batch[name][:N]) for shard in shards)


def test_only_the_own_images_are_made():
    made = []

    class Slow:
        ndim, dtype, shape = 4, np.dtype(np.uint8), (16, 4, 4, 1)

        def __len__(self):
            return 16

        def __getitem__(self, indices):
            made.append(len(indices))
            return np.zeros((len(indices), 4, 4, 1), np.uint8)

    play(2, lambda ranks: list(Loader(Slow(), batch_size=8).shared(ranks).epoch(1)))
    assert made == [4] * 4


@pytest.mark.parametrize(("size", "options", "words"), [
    (3, {}, "3 processes cannot share batches of 8 images equally: use a --batch-size that is a multiple of 3"),
    (4, {"N": 19}, "the last batch of an epoch has 3 of the 19 images, too few for 4 processes: use 3 at most"),
])  # fmt: skip
def test_batches_that_cannot_be_shared_are_refused(size, options, words):
    with pytest.raises(UserError, match=re.escape(words)):
        play(size, lambda ranks: loader_of(**options).shared(ranks))
    play(size, lambda ranks: size == 3 or loader_of(**options, drop_last=True).shared(ranks))


def test_a_loader_that_is_not_shared_stays_as_it_was():
    loader = loader_of()
    play(2, loader.shared)
    assert type(next(loader.epoch(1))["images"]) is np.ndarray


def test_a_step_is_given_the_rows_of_its_own_images():
    real, z, last = np.arange(24.0).reshape(8, 3, 1, 1), np.arange(16).reshape(8, 2), np.arange(4)

    def part(ranks):
        inputs = {
            "real": Shard(real[ranks.own(8)], ranks), "zs": [z, last], "noise": (None, real), "lr": 0.1,
            "of": {"kind": "normal", "count": np.float32(3), "scale": np.array(2.0)},
        }  # fmt: skip
        return own_part(inputs, ranks)

    for rank, got in enumerate(play(2, part)):
        own = slice(4 * rank, 4 * rank + 4)
        assert np.array_equal(got["real"], real[own])
        assert np.array_equal(got["zs"][0], z[own])
        assert np.array_equal(got["zs"][1], last[2 * rank : 2 * rank + 2])
        assert got["noise"][0] is None and np.array_equal(got["noise"][1], real[own])  # noqa: PT018
        assert (got["lr"], got["of"]) == (0.1, {"kind": "normal", "count": 3, "scale": 2.0})


def test_an_input_without_a_row_for_each_image_is_refused():
    words = r"the input prior of shape \(3,\) cannot be shared by 2 ranks: an array that draw\(\) returns has a row"
    with pytest.raises(UserError, match=words):
        play(2, lambda ranks: own_part({"prior": np.ones(3)}, ranks))


@pytest.mark.parametrize("compute", [lambda x: x + 1, lambda x: x[:, ::-1], np.abs, lambda x: x.mean()])
def test_draw_cannot_compute_with_images_that_are_not_there(compute):
    with pytest.raises(UserError, match=r"draw\(\) has 2 of 4 images, and cannot compute with them"):
        play(2, lambda ranks: compute(Shard(np.ones((2, 1, 4, 4)), ranks)))


@pytest.mark.parametrize("method", ["random", "standard_normal"])
def test_a_layer_draws_its_part_of_what_one_process_draws(method):
    whole = getattr(seeded_rng(3, "dropout"), method)((8, 2, 5), dtype=np.float32)
    parts = play(
        4, lambda ranks: getattr(OfWholeBatch(seeded_rng(3, "dropout"), ranks), method)((2, 2, 5), dtype=np.float32)
    )
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("N", [8, 64, 256, 260])
def test_a_rank_draws_the_noise_of_its_own_images(N):
    def drawn(ranks=None):
        rng = seeded_rng(3, "noise")
        noises = [draw_noise(rng, (n, 2, 3, 3), 0.5, ranks=ranks) for n in (N, N, 4)]
        return [noise if ranks is None else noise.own for noise in noises]

    whole, parts = drawn(), play(4, drawn)
    for i, noise in enumerate(whole):
        assert np.array_equal(np.concatenate([part[i] for part in parts]), noise)
        assert abs(noise.std() - 0.5) < 0.2
        assert len(np.unique(noise)) > 0.99 * noise.size, "no block is another one's"
    assert not np.array_equal(whole[0], whole[1])


def test_a_rank_draws_no_more_blocks_than_its_images_are_in():
    class Counting(np.random.Generator):
        drawn = []

        def spawn(self, count):
            return [Counting(generator.bit_generator) for generator in super().spawn(count)]

        def standard_normal(self, size, dtype):
            self.drawn.append(size[0])
            return super().standard_normal(size, dtype=dtype)

    play(4, lambda ranks: draw_noise(Counting(seeded_rng(3, "noise").bit_generator), (256, 1, 2, 2), 1.0, ranks=ranks))
    assert Counting.drawn == [64] * 4


def test_what_else_a_layer_draws_is_each_ranks_own():
    drawn = play(4, lambda ranks: OfWholeBatch(seeded_rng(3, "dropout"), ranks).integers(0, 1 << 60, 5).tolist())
    assert len({tuple(numbers) for numbers in drawn}) == 4
    assert len(set(play(4, lambda ranks: OfWholeBatch(seeded_rng(3, "dropout"), ranks).random()))) == 1
    parts = play(2, lambda ranks: OfWholeBatch(seeded_rng(3, "dropout"), ranks).random(3))
    assert np.array_equal(np.concatenate(parts), seeded_rng(3, "dropout").random(6))


def test_a_bucket_holds_all_gradients_as_they_lie():
    rng = np.random.default_rng(4)
    network = Sequential(Conv2d(3, 4, 4, 2, 1, rng=rng), Conv2d(4, 2, 3, rng=rng))
    strides = [gradient.strides for _, _, gradient in network.named_parameters()]
    bucket = Bucket(network)
    assert [gradient.strides for _, _, gradient in network.named_parameters()] == strides
    y, cache = network.forward(rng.standard_normal((2, 3, 12, 12), dtype=np.float32))
    network.backward(rng.standard_normal(y.shape, dtype=np.float32), cache)
    gradients = [gradient.copy() for _, _, gradient in network.named_parameters()]
    assert all(gradient.any() for gradient in gradients)
    bucket.gradients *= 2
    for (_, _, gradient), before in zip(network.named_parameters(), gradients, strict=True):
        assert np.array_equal(gradient, 2 * before)


def test_an_optimiser_of_ranks_notices_gradients_that_moved():
    network = Sequential(Conv2d(1, 1, 3))

    def stepped(ranks):
        optimizer = Adam(network)
        optimizer.share(ranks)
        network.astype(np.float64)
        optimizer.step()

    with pytest.raises(UserError, match="expected the network's arrays to stay where they are"):
        play(1, stepped)
