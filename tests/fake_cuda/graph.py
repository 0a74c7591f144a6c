"""Record the step of every game as one CUDA graph: python -m tests.fake_cuda.graph [PRECISION] [RANKS]. Prints JSON.

With 2 RANKS, as one of two, whose sums over both are launches of a kernel in place of NCCL's.

{game: {"told": lines, "plays": what the last step did, "recorded": launches in the graph, "allocations": those while
recording, "replay": {what a replay calls: how often}}}
"""

import json
import sys
from types import SimpleNamespace

import numpy as np

from tests.fake_cuda import driver


def games():
    """Yield (name, class, options, shapes, batch size) of gradcheck's small games, and of the DCGAN at real sizes."""
    from nanogan.games.dcgan import DCGAN
    from nanogan.gradcheck.cases import GAMES

    for name, (game_class, options, shapes) in GAMES.items():
        yield name, game_class, options, shapes, None
    yield "mnist", DCGAN, {"image_size": 28, "width": 32}, {"images": (1, 28, 28)}, 32
    yield "64x64", DCGAN, {"image_size": 64, "width": 64}, {"images": (3, 64, 64)}, 128


class Pair:
    """Rank 0 of two, the other of which has the same arrays."""

    rank, size, leads = 0, 2, True
    cards = SimpleNamespace(recordable=True)

    def own(self, N):
        return slice(0, N // 2)

    def total(self, x):
        x *= 2
        return x

    def mean(self, x):
        self.total(x)
        x *= 0.5
        return x

    def gather(self, x):
        from nanogan.backend import array_module

        return array_module(x).concatenate([x, x])

    def broadcast(self, x):
        return x

    def told(self, thing=None):
        return thing


def recorded(game_class, options, shapes, count, ranks=None):
    """Play six steps; the fourth is recorded, those behind it are replays."""
    from nanogan import backend
    from nanogan.games.game import At
    from nanogan.gradcheck.games import random_batches
    from nanogan.ranks.shards import own_part
    from nanogan.training.graph import Graphed
    from nanogan.training.parallel import join

    game, told = game_class(game_class.Options.of(options), shapes, "gpu", seed=1), []
    if ranks is not None:
        join(game, ranks)
    play = Graphed(game, told.append)
    batches = random_batches(shapes, game.batches, np.random.default_rng(0), "gpu")
    batches = [{k: a.astype(np.float32) if a.dtype.kind == "f" else a for k, a in batch.items()} for batch in batches]
    if ranks is not None:
        batches = [{name: array[: len(array) // 2 * 2] for name, array in batch.items()} for batch in batches]
    if count is not None:
        C, H, W = shapes["images"]
        images = np.random.default_rng(0).random((count, H, W, C), dtype=np.float32).transpose(0, 3, 1, 2)
        batches = [{"images": backend.to_device(images, "gpu")}]
    for step in range(1, 7):
        game.reseed(1, step)
        inputs = game.draw(batches, np.random.default_rng(step), At(step, 1, 10, 10))
        inputs = inputs if ranks is None else own_part(inputs, ranks)
        driver.clear()
        play(inputs)
        if step == 4:
            nodes, allocations = sum(driver.launches(captured=True).values()), driver.allocations(captured=True)
    return {
        "told": told,
        "plays": play.play.__name__,
        "recorded": nodes,
        "allocations": dict(allocations),
        "replay": dict(driver.launches()),
        "waits": dict(driver.device_syncs()),
    }


def main():
    driver.use()
    from nanogan import backend

    precision = sys.argv[1] if len(sys.argv) > 1 else "float32"
    backend.set_matmul_precision(precision)
    ranks = Pair() if sys.argv[2:] == ["2"] else None
    print(json.dumps({name: recorded(*what, ranks) for name, *what in games()}, indent=1))


if __name__ == "__main__":
    main()
