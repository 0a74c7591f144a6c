"""A run of several ranks: rank 0's folder is that of one process, and all end together."""

import csv
import re
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from nanogan import checkpoint, dispatch, training
from nanogan.data import Loader
from nanogan.errors import EndedElsewhere, TrainingDiverged, UserError
from nanogan.games.dcgan import DCGAN, DCGANOptions
from nanogan.ranks import Ranks
from nanogan.training import Run, parallel, train
from tests.ranks.threads import Aborted, play

OPTIONS = DCGANOptions(image_size=8, latent=3, width=2, ema=0.9, instance_noise=0.2)


def loader_of(N=20):
    return Loader(np.random.default_rng(0).integers(0, 256, (N, 8, 8, 1), dtype=np.uint8), batch_size=8)


def game_of(seed=0):
    return DCGAN(OPTIONS, {"images": (1, 8, 8)}, "cpu", seed, np.float64)


def trained(out, ranks=None, *, max_steps=None, change=None, resume=None, sync_bn=True, **settings):
    """Train in float64; a follower starts from other weights, which do not count. Returns what train did."""
    game, loader = game_of(0 if ranks is None or ranks.leads else 1), loader_of()
    loader.dtype = np.dtype(np.float64)
    if change is not None:
        change(game, ranks)
    if resume is not None and (ranks is None or ranks.leads):
        resume = checkpoint.load_training(resume, game)
    together = {} if ranks is None else {"ranks": ranks, "sync_bn": sync_bn}
    run = Run(out, **{"sample_every": 3, "checkpoint_minutes": 0, "keep": 0} | settings)
    return train(game, loader, run, epochs=2, max_steps=max_steps, seed=3, resume=resume, **together)


def numbers_of(out):
    with open(out / "log.csv", newline="") as file:
        return np.array([[float(value) for value in row[:-1]] for row in list(csv.reader(file))[1:]])


def states_of(path):
    arrays = checkpoint.read_training(path)[1]
    return {name: array for name, array in arrays.items() if array.dtype.kind == "f"}


def same(one, other, tolerance=1e-6):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("size", [2, 4])
def test_the_folder_is_that_of_one_process(tmp_path, size):
    assert trained(tmp_path / "one")
    assert play(size, lambda ranks: trained(tmp_path / "several", ranks)) == [True] * size
    found = [{path.relative_to(tmp_path / run) for path in (tmp_path / run).rglob("*")} for run in ("one", "several")]
    assert found[0] == found[1]
    np.testing.assert_allclose(numbers_of(tmp_path / "several"), numbers_of(tmp_path / "one"), rtol=2e-7)
    same(*(states_of(tmp_path / run / training.LAST) for run in ("one", "several")))


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (4, 2), (2, 4)])
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path, before, after):
    def part(size, out, **settings):
        return trained(out, **settings) if size == 1 else play(size, lambda ranks: trained(out, ranks, **settings))

    part(1, tmp_path / "whole")
    part(before, tmp_path / "run", max_steps=3)
    part(after, tmp_path / "run", resume=tmp_path / "run" / training.LAST)
    np.testing.assert_allclose(numbers_of(tmp_path / "run"), numbers_of(tmp_path / "whole"), rtol=2e-6)
    same(*(states_of(tmp_path / run / training.LAST) for run in ("whole", "run")))
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(("before", "now", "words"), [
    ({}, {}, None),
    ({"processes": 4, "batchnorm_images": 64}, {"processes": 4, "batchnorm_images": 64}, None),
    ({}, {"processes": 2, "batchnorm_images": 64}, "it was saved by 1 process, this run has 2 processes: the images "
     "and random numbers stay the same, and only the last digits may differ"),
    ({"processes": 4, "batchnorm_images": 16}, {}, "it was saved by 4 processes, this run has 1 process: BatchNorm's "
     "statistics are of 64 images, and were of 16"),
    ({"processes": 2, "left_out": 1}, {"processes": 4, "left_out": 3}, "it was saved by 2 processes, this run has 4 "
     "processes: an epoch's last batch leaves out 3 images, and left out 1"),
])  # fmt: skip
def test_a_resumed_run_says_what_changes(before, now, words):
    assert parallel.other_ranks(before | {"batch_size": 64}, now) == words


def test_files_hold_the_mean_of_the_ranks_own_statistics_and_training_does_not(tmp_path):
    """So when a checkpoint happens to be written changes nothing."""
    own = {}

    def change(game, ranks):
        step = game.step

        def noted(**inputs):
            seen = step(**inputs)
            own[ranks.rank] = game.g.state_dict()["main.1.running_mean"].copy()
            return seen

        game.step = noted

    often = {"change": change, "sync_bn": False}
    play(2, lambda ranks: trained(tmp_path / "often", ranks, **often))
    of_two = [own[0], own[1]]
    assert not np.array_equal(*of_two)
    saved = states_of(tmp_path / "often" / training.LAST)["g.main.1.running_mean"]
    np.testing.assert_allclose(saved, np.mean(of_two, axis=0), rtol=1e-12)
    play(2, lambda ranks: trained(tmp_path / "rarely", ranks, sample_every=None, checkpoint_minutes=9, **often))
    assert np.array_equal([own[0], own[1]], of_two)


def each(ranks, function):
    """What a rank raised."""
    try:
        function(ranks)
    except Exception as error:
        return error
    return None


def test_what_fails_on_rank_0_ends_all(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training.saving.checkpoint, "save_training", full)
    first, *others = play(4, lambda ranks: each(ranks, lambda ranks: trained(tmp_path, ranks)))
    assert re.search(r"could not be written \(No space left on device\): training stopped at step 1", str(first))
    assert all(isinstance(error, EndedElsewhere) for error in others)


def test_a_loss_that_is_not_finite_ends_all_and_no_step_is_left_out_of_the_log(tmp_path):
    def change(game, ranks):
        step = game.step

        def wrong(**inputs):
            seen = step(**inputs)
            return seen._replace(loss_d=np.float64("nan")) if game.opt_g.steps == 2 and ranks.rank == 1 else seen

        game.step = wrong

    first, *others = play(2, lambda ranks: each(ranks, lambda ranks: trained(tmp_path, ranks, change=change)))
    assert isinstance(first, TrainingDiverged)
    assert "at step 2" in str(first)
    assert all(isinstance(error, EndedElsewhere) for error in others)


def test_parameters_that_are_not_alike_are_noticed(tmp_path):
    def change(game, ranks):
        step = game.step

        def wrong(**inputs):
            seen = step(**inputs)
            if game.opt_g.steps == 2 and ranks.rank == 1:
                game.d.params_of_first = next(game.d.named_parameters())[1]
                game.d.params_of_first.flat[0] += 1e-3
            return seen

        game.step = wrong

    first, other = play(2, lambda ranks: each(ranks, lambda ranks: trained(tmp_path, ranks, change=change)))
    assert isinstance(first, TrainingDiverged)
    assert "after step 2 the parameters of rank 1 were not those of rank 0" in str(first)
    assert "the checkpoint of step 1" in str(first)
    assert isinstance(other, EndedElsewhere)


def test_one_rank_that_is_told_to_stop_stops_all(tmp_path, monkeypatch):
    steps = []

    def is_last(self, at, stop, usual=parallel.Led.is_last):
        steps.append((self.ranks.rank, at.step))
        return usual(self, at, lambda: self.ranks.rank == 1 and at.step == 3)

    monkeypatch.setattr(parallel.Led, "is_last", is_last)
    assert play(2, lambda ranks: trained(tmp_path, ranks)) == [False, False]
    assert sorted(steps) == [(rank, step) for rank in (0, 1) for step in (1, 2, 3)]
    assert checkpoint.read_training(tmp_path / training.LAST)[0].step == 3


@pytest.fixture
def leaving(monkeypatch):
    """A function of {rank: (exit status, words, by itself)}: what two ranks say, and how they end.

    A rank that is not named never leaves.
    """
    monkeypatch.setattr("nanogan.ranks.ranks.PATIENCE", 0.05)

    def leave(how):
        def part(ranks):
            said = []
            if ranks.rank not in how:
                return said, None
            code, words, by_itself = how[ranks.rank]
            try:
                ranks.leave(code, words and (lambda: said.append(words)), by_itself=by_itself)
            except (SystemExit, Aborted) as end:
                return said, (type(end).__name__, end.args[0])

        return play(2, part)

    return leave


HEARD = 1, None, False  # of another's failure


def test_ranks_that_fail_alike_leave_together_and_the_first_says_why(leaving):
    assert leaving({0: (2, "why", True), 1: (2, "why", True)}) == [
        (["why"], ("SystemExit", 2)),
        ([], ("SystemExit", 2)),
    ]
    assert leaving({0: (0, None, True), 1: (0, None, True)}) == [([], ("SystemExit", 0))] * 2


def test_the_rank_that_failed_says_why_if_the_first_only_heard_of_it(leaving):
    assert leaving({0: HEARD, 1: (2, "no such file", True)}) == [
        ([], ("SystemExit", 2)), (["no such file"], ("SystemExit", 2)),
    ]  # fmt: skip
    assert leaving({0: (0, None, True), 1: (3, "after the end", True)}) == [
        ([], ("SystemExit", 3)), (["after the end"], ("SystemExit", 3)),
    ]  # fmt: skip
    assert leaving({0: (130, None, True), 1: HEARD}) == [([], ("SystemExit", 130))] * 2


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_alone_says_why_and_ends_the_others(leaving, rank):
    assert leaving({rank: (3, "why", True)})[rank] == (["why"], ("Aborted", 3))


def test_a_rank_that_heard_of_a_failure_waits_for_the_one_that_failed(leaving, monkeypatch):
    """Which may have much to save and to draw first."""
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) > 20:
            raise Aborted("it waits")
        time.sleep(seconds)

    monkeypatch.setattr("nanogan.ranks.ranks.time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    assert leaving({1: HEARD})[1] == ([], ("Aborted", "it waits"))
    assert sum(slept) > 2 * 0.05


def test_a_checkpoint_is_due_once_by_the_first_ones_clock(tmp_path, monkeypatch):
    compared, due = [], iter([False, True, False, False, False, False])
    monkeypatch.setattr(Run, "checkpoint_is_due", lambda run: next(due))
    monkeypatch.setattr(parallel.Led, "_compare", lambda led, at: compared.append((led.ranks.rank, at.step)))
    play(2, lambda ranks: trained(tmp_path, ranks))
    assert sorted(compared) == [(rank, step) for rank in (0, 1) for step in (2, 3, 6)]  # 3 and 6 end an epoch


def test_ranks_of_different_settings_are_refused(tmp_path, monkeypatch):
    counts = {}
    monkeypatch.setitem(dispatch.settings, "threads", lambda: counts.setdefault(threading.get_ident(), len(counts) + 1))
    words = "all processes expected the same threads, got . in rank 0 and . in rank 1: give them the same environment"
    with pytest.raises(UserError, match=words):
        play(2, lambda ranks: trained(tmp_path, ranks))


def test_one_rank_of_a_machine_goes_first():
    """It downloads, or writes a cache, that the others read."""
    events = []

    def work(rank):
        events.append((rank, "begins"))
        time.sleep(0.05)
        events.append((rank, "ends"))

    play(3, lambda ranks: ranks.first_on_each_machine(lambda: work(ranks.rank)))
    assert events[:2] == [(0, "begins"), (0, "ends")]
    assert len(events) == 6


def test_what_one_rank_does_alone_fails_for_all(monkeypatch):
    def part(ranks: Ranks):
        assert ranks.led(lambda: 5) == (5 if ranks.leads else None)
        assert ranks.first_on_each_machine(lambda: ranks.rank) == ranks.rank
        error = each(ranks, lambda ranks: ranks.led(lambda: 1 / 0))
        late = each(ranks, lambda ranks: ranks.first_on_each_machine(lambda: 1 // (1 - ranks.rank)))
        return type(error), type(late)

    kinds = play(2, part)
    assert kinds == [(ZeroDivisionError, EndedElsewhere), (EndedElsewhere, ZeroDivisionError)]
