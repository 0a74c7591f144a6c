"""The benchmarks: every contender does the same work or is a line that says why not; a part that hangs is stopped."""

import sys

import numpy as np
import pytest

from benchmarks import epoch, games, gpu_session, operations, quality, step
from benchmarks.clock import Target
from nanogan import backend, dispatch
from nanogan.errors import UserError

TINY = step.TINY["tiny"]
ELSEWHERE = ("CUDA graph", "compiled")  # what a CPU cannot show, and what takes a minute


@pytest.fixture(autouse=True)
def settings_as_they_were(monkeypatch):
    monkeypatch.setattr(dispatch, "FAST", dispatch.FAST)
    yield
    backend.set_matmul_precision("float32")


def test_every_contender_does_the_same_work():
    names = [name for name, form in step.GPU_FORMS.items() if form.how not in ELSEWHERE]
    times, failures, differences = step.measure(TINY, 2, names, forms=step.GPU_FORMS)
    assert set(failures) == {"nanogan, tf32"}, "which only a GPU has"
    assert set(times) == set(names) - {"nanogan, tf32"}
    assert all(len(values) == 2 and min(values) > 0 for values in times.values())
    assert max(max(differences[name]) for name in times if step.GPU_FORMS[name].precision == "float32") < 1e-5
    for name in ("torch channels_last, bf16 autocast", "nanogan, bf16", "nanogan, fp16"):
        assert 1e-5 < differences[name][1] < 0.1, "16 bits are not float32"
    text = "\n".join(step.table("tiny", TINY, step.GPU_FORMS, times, failures, differences, {}))
    assert text.count("does not run: precision tf32 expected a GPU in use") == 1


def test_one_that_does_other_work_or_fails_is_a_line(monkeypatch):
    def shrunk(form, g, d, real, z, target):
        return of_torch(form, g, d, 0.9 * real, z, target)

    of_torch = step.of_torch
    monkeypatch.setattr(step, "of_torch", shrunk)
    times, failures, _ = step.measure(TINY, 1, ["nanogan", "torch eager", "torch channels_last"])
    assert set(times) == {"nanogan"}
    assert "does other work: its losses are" in failures["torch eager"]

    nan = [float("nan")] * 5
    monkeypatch.setattr(step, "of_torch", lambda *arguments: (lambda: None, lambda: [1.4, *nan[1:]]))
    times, failures, _ = step.measure(TINY, 1, ["nanogan", "torch eager"])
    assert "nan off" in failures["torch eager"]

    def broken(*arguments):
        raise RuntimeError("\n\nout of | memory\nand more")

    monkeypatch.setattr(step, "of_torch", broken)
    times, failures, differences = step.measure(TINY, 1, ["nanogan", "torch eager"])
    assert failures == {"torch eager": "RuntimeError: out of / memory"}
    rows = step.table("tiny", TINY, step.CPU_FORMS, times, failures, differences, {"nanogan": "1 / 2"})
    assert "| torch eager | does not run: RuntimeError: out of / memory | | | | | | |" in rows


def test_a_gpu_that_is_lost_is_told(monkeypatch):
    target = Target("cpu")

    def lost(*arguments):
        raise RuntimeError("cudaErrorIllegalAddress")

    monkeypatch.setattr(step, "of_torch", lost)
    monkeypatch.setattr(target, "synchronize", lost)
    with pytest.raises(step.DeviceLost) as caught:
        step.measure(TINY, 1, ["torch eager", "nanogan"], target=target)
    assert caught.value.args == ("torch eager", "RuntimeError: cudaErrorIllegalAddress")


def test_what_does_not_fit_the_time_is_left_out():
    times, failures, _ = step.measure(TINY, 5, ["nanogan", "torch eager"], budget=1e-9)
    assert times == {}
    assert set(failures.values()) == {"left out, for want of time"}


def test_every_operation_runs_and_is_counted(rng):
    target = Target("cpu")
    with step.torch.no_grad():
        rows = list(operations.convolutions(TINY, rng, target))
        for operation in rows:
            operation.ours()
            operation.theirs()
    assert len(rows) == 3 * 3 + 3 * 3
    first = rows[0]
    assert (first.name, first.what) == ("D 1->4 @16->8", "forward")
    assert first.operations == 2 * 8 * (8 * 8) * (4 * 1 * 4 * 4)
    assert first.bytes == 4 * (8 * 1 * 16 * 16 + 8 * 4 * 8 * 8 + 4 * 1 * 4 * 4)
    assert first.least({"copied": first.bytes / 2, "float32": first.operations}, "float32") == 2, "the larger of both"


def test_an_epoch_of_each_loop(rng):
    pictures = rng.integers(0, 256, (20, 16, 16, 1)).astype("uint8")
    for name, make in epoch.contenders(Target("cpu")):
        if "DataLoader" not in name:  # which starts processes
            loop = make(TINY, pictures, Target("cpu"))
            loop.epoch(1)
            for optimizer in loop.optimizers:  # 20 pictures in batches of 8
                steps = getattr(optimizer, "steps", None) or next(iter(optimizer.state.values()))["step"]
                assert steps == 3, name


def test_a_part_of_a_session_that_hangs_is_stopped(tmp_path):
    hangs = gpu_session.Part("hangs", (sys.executable, "-c", "import time; time.sleep(600)"), 1)
    assert gpu_session.run(hangs, 0.5, tmp_path) == "out of time"
    fails = gpu_session.Part("fails", (sys.executable, "-c", "raise SystemExit('{budget} {out}')"), 1)
    assert gpu_session.run(fails, 20, tmp_path) == 1
    assert (tmp_path / "fails.txt").read_text(encoding="utf-8") == f"16 {tmp_path / 'fails.md'}\n"


def test_both_libraries_train_the_same_game(rng):
    pictures = rng.integers(0, 256, (70, 8, 8, 1), dtype=np.uint8)
    options = {"epochs": 2, "shape": {"image_size": 8, "channels": 1, "width": 4}}
    ends = {name: quality.train(name, pictures, 5, **options) for name in ("nanogan", "torch")}
    (ours, our_losses), (theirs, their_losses) = ends.values()
    assert our_losses.shape == (6, 2)  # batches of 32, 32 and 6
    np.testing.assert_allclose(our_losses, their_losses, rtol=1e-3)
    assert quality.steps_that_agree(our_losses, their_losses) == 6
    start, _ = quality.train("nanogan", pictures, 5, max_steps=0, **options)
    for name, array in ours.state_dict().items():
        if name.endswith("weight"):
            moved = np.abs(array - start.state_dict()[name]).max()
            assert np.abs(array - theirs.state_dict()[name]).max() < 0.1 * moved
    assert (quality.train("nanogan", pictures, 6, **options)[1] != our_losses).all(), "another seed, another game"


def test_where_two_runs_part():
    one = np.array([[1, 2], [3, 4], [5, 6.0]])
    assert quality.steps_that_agree(one, one) == 3
    other = np.array([[1, 2], [3, 4.1], [5, 6]])
    assert quality.steps_that_agree(other, one) == 1
    assert quality.steps_that_agree(other, one, tolerance=0.1) == 3


def test_the_table_of_scores_tells_the_difference_in_standard_errors():
    values = {("nanogan", 0): 1.0, ("nanogan", 1): 3.0, ("torch", 0): 4.0, ("torch", 1): 6.0}
    found = {key: dict.fromkeys(quality.SCORES, value) for key, value in values.items()}
    rows = quality.table(found, {0: 7, 1: 9})
    # means 2 and 5; each has a variance of 2, so the difference has a standard error of sqrt(2/2 + 2/2) = 1.414
    assert rows[2] == "| inception_score | nanogan | 1 | 3 | 2 | -3; 2.12 standard errors |"
    assert rows[3] == "|  | torch | 4 | 6 | 5 |  |"
    assert rows[-1] == "First steps whose losses agree to 1%: 7 (seed 0), 9 (seed 1)."


def test_a_games_seeds_are_a_table_of_what_their_last_epochs_measured(tmp_path):
    for seed, last in ((0, 0.5), (3, 0.75)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "measures.csv").write_text(f'epoch,step,seconds,"share, all"\n1,4,1.5,0.25\n2,8,3,{last}\n')
    found = {seed: games.measured(tmp_path / str(seed)) for seed in (0, 3)}
    assert found == {0: {"seconds": 3.0, "share, all": 0.5}, 3: {"seconds": 3.0, "share, all": 0.75}}
    lines = games.table(found).splitlines()
    assert lines[0] == "| | seed 0 | seed 3 | mean | standard deviation |"
    assert lines[3] == "| share, all | 0.5 | 0.75 | 0.625 | 0.18 |"
    with pytest.raises(UserError, match="nothing was measured in"):
        games.measured(tmp_path)
