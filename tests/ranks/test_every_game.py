"""The contract of every game on several ranks: the losses and the state of one process with the whole batch."""

import importlib

import numpy as np
import pytest

from nanogan.backend import seeded_rng, to_device, to_numpy
from nanogan.folders import modules_in
from nanogan.games.game import At
from nanogan.games.pool import Pool
from nanogan.ranks.shards import Shard
from nanogan.training import parallel
from nanogan.training.graph import steps_of
from tests.ranks.threads import play

IMAGES, STEPS = 8, 3
DEVICE = "cpu"  # of the ranks
GAMES = {
    name: example for module in modules_in("nanogan.games") for name, example in getattr(module, "EXAMPLES", {}).items()
}


def game_of(name, device):
    """In float64, with larger weights than a DCGAN's first ones, so that a wrong gradient is seen."""
    kind, options, shapes = GAMES[name]
    game, rng = kind(kind.Options.of(options), shapes, device, 5, np.float64), np.random.default_rng(8)
    for network in game.networks().values():
        for _, parameter, _ in network.named_parameters():
            parameter += to_device(rng.normal(0, 0.3, parameter.shape), device)
    return game


def batches_of(name, count, step, device):
    """Batches as the loader makes them."""
    rng, shapes = seeded_rng(6, f"batches of step {step}"), GAMES[name][2]
    return [{column: to_device(_column(shape, rng), device) for column, shape in shapes.items()} for _ in range(count)]


def _column(shape, rng):
    if isinstance(shape, dict):  # captions
        return rng.integers(0, len(shape["words"]), (IMAGES, len(shape["shown"][0])))
    return rng.integers(0, shape, IMAGES) if isinstance(shape, int) else rng.uniform(-1, 1, (IMAGES, *shape))


def trained(name, ranks=None, sync_bn=True):
    """The numbers of each step, and the state after the last."""
    device = "cpu" if ranks is None else DEVICE
    game = game_of(name, device)
    if ranks is not None and not ranks.leads:
        for network in game.networks().values():  # rank 0's count
            for _, parameter, _ in network.named_parameters():
                parameter += 1
    if ranks is None:
        play_step = steps_of(game)
    else:
        parallel.join(game, ranks, sync_bn=sync_bn)
        play_step = parallel.steps_of_rank(game, ranks)
    seen = []
    for step in range(1, STEPS + 1):
        batches = batches_of(name, game.batches, step, device)
        if ranks is not None:
            batches = [
                {column: Shard(x[ranks.own(IMAGES)], ranks) if x.ndim == 4 else x for column, x in batch.items()}
                for batch in batches
            ]
        game.reseed(7, step)
        at = At(step, 1, STEPS, STEPS)
        seen.append([float(number) for number in play_step(game.draw(batches, seeded_rng(7, f"step {step}"), at))])
    return np.array(seen), {name: to_numpy(array).copy() for name, array in flat(game.state_dict())}


def flat(state, prefix=""):
    for name, value in state.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        elif hasattr(value, "shape"):
            yield f"{prefix}{name}", value


def difference(one, other):
    return np.abs(one - other).max() / max(np.abs(other).max(), 1e-12)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", GAMES)
def test_ranks_do_what_one_process_does(name, size):
    numbers, state = trained(name)
    for of_rank, state_of_rank in play(size, lambda ranks: trained(name, ranks)):
        assert difference(of_rank, numbers) < 1e-10
        assert state_of_rank.keys() == state.keys()
        for key, array in state.items():
            # Adam divides by |g|, and where g is all rounding so is its step
            assert difference(state_of_rank[key], array) < 1e-6, key


@pytest.mark.parametrize("name", ["DCGAN", "CycleGAN", "semi-supervised GAN, features"])
def test_ranks_have_the_same_bits(name):
    first, *others = play(4, lambda ranks: trained(name, ranks))
    for numbers, state in others:
        assert np.array_equal(numbers, first[0])
        assert all(np.array_equal(array, first[1][key]) for key, array in state.items())


def test_statistics_of_each_ranks_own_images_are_another_game():
    """So the test above would notice a BatchNorm that is not told of the others."""
    numbers, _ = trained("DCGAN")
    (own, state), (_, other) = play(2, lambda ranks: trained("DCGAN", ranks, sync_bn=False))
    assert difference(own, numbers) > 1e-4
    running = [key for key in state if "running_" in key]
    assert running
    assert not any(np.array_equal(state[key], other[key]) for key in running)
    assert all(np.array_equal(state[key], other[key]) for key in state if "running_" not in key)


def test_a_pool_takes_the_fakes_of_all_ranks_in_their_order():
    rng, shape = np.random.default_rng(0), (2, 3, 3)
    fakes = rng.standard_normal((5, 4, *shape))
    one = Pool(6, shape, dtype=np.float64)
    drawn = [one.draw(rng, 4) for _ in fakes]
    expected = [one.swap(x, d) for x, d in zip(fakes, drawn, strict=True)]

    def swapped(ranks):
        pool, own = Pool(6, shape, dtype=np.float64), ranks.own(4)
        pool.ranks = ranks
        return [pool.swap(x[own], tuple(a[own] for a in d)) for x, d in zip(fakes, drawn, strict=True)], pool

    parts = play(2, swapped)
    for step, whole in enumerate(expected):
        assert np.array_equal(np.concatenate([seen[step] for seen, _ in parts]), whole)
    assert all(np.array_equal(pool.images, one.images) for _, pool in parts)


def test_every_module_of_games_is_tried():
    assert len({game for game, *_ in GAMES.values()}) >= 12
    assert importlib.import_module("nanogan.games.cyclegan").CycleGAN in {game for game, *_ in GAMES.values()}
