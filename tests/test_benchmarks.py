"""The benchmarks: every contender does the same work or is a line that says why not; a part that hangs is stopped."""

import gc
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch

from benchmarks import (
    contenders,
    epoch,
    games,
    gpu_session,
    networks,
    operations,
    processes,
    quality,
    session_summary,
    step,
)
from benchmarks.clock import Target
from benchmarks.gpu_check import __main__ as gpu_check
from benchmarks.gpu_check import compare, played, questions
from benchmarks.gpu_check import graph as graph_questions
from benchmarks.gpu_check import long as long_questions
from benchmarks.gpu_check import operations as operations_questions
from nanogan import backend, dispatch, ops
from nanogan.errors import UserError
from nanogan.training import graph

TINY = networks.TINY["tiny"]
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
        assert 1e-6 < differences[name][1] < 0.1, "16 bits are not float32"
    _, recorded, _ = step.measure(TINY, 1, ["nanogan CUDA graph, float32"], forms=step.GPU_FORMS)
    assert recorded == {"nanogan CUDA graph, float32": "only a GPU has CUDA graphs"}
    text = "\n".join(step.table("tiny", TINY, step.GPU_FORMS, times, failures, differences, {}))
    assert text.count("does not run: precision tf32 expected a GPU in use") == 1


def test_one_that_does_other_work_or_fails_is_a_line(monkeypatch):
    def shrunk(form, g, d, real, z, target):
        return of_torch(form, g, d, 0.9 * real, z, target)

    of_torch = contenders.of_torch
    monkeypatch.setattr(contenders, "of_torch", shrunk)
    times, failures, _ = step.measure(TINY, 1, ["nanogan", "torch eager", "torch channels_last"])
    assert set(times) == {"nanogan"}
    assert "does other work: its losses are" in failures["torch eager"]

    nan = [float("nan")] * 5
    monkeypatch.setattr(contenders, "of_torch", lambda *arguments: (lambda: None, lambda: [1.4, *nan[1:]]))
    times, failures, _ = step.measure(TINY, 1, ["nanogan", "torch eager"])
    assert "nan off" in failures["torch eager"]

    def broken(*arguments):
        raise RuntimeError("\n\nout of | memory\nand more")

    monkeypatch.setattr(contenders, "of_torch", broken)
    times, failures, differences = step.measure(TINY, 1, ["nanogan", "torch eager"])
    assert failures == {"torch eager": "RuntimeError: out of / memory"}
    rows = step.table("tiny", TINY, step.CPU_FORMS, times, failures, differences, {"nanogan": "1 / 2"})
    assert "| torch eager | does not run: RuntimeError: out of / memory | | | | | | |" in rows


def test_a_gpu_that_is_lost_is_told(monkeypatch):
    target = Target("cpu")

    def lost(*arguments):
        raise RuntimeError("cudaErrorIllegalAddress")

    monkeypatch.setattr(contenders, "of_torch", lost)
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
    with torch.no_grad():
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


def test_a_process_that_cannot_be_killed_is_left_behind(tmp_path, monkeypatch):
    """As one that waits for a driver that hangs."""
    monkeypatch.setattr(processes, "GRACE", 0.2)
    monkeypatch.setattr(processes.os, "killpg", lambda group, number: None)
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: None)
    program, start = (sys.executable, "-c", "import time; time.sleep(4)"), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it still runs
        assert gpu_session.run(gpu_session.Part("stays", program, 1), 0.5, tmp_path) == "out of time"
        with pytest.raises(subprocess.TimeoutExpired):
            processes.printed(program, 0.5)
        assert time.perf_counter() - start < 3
        gc.collect()


def test_time_that_a_part_leaves_goes_to_the_others():
    first, second = (gpu_session.Part(name, (), weight) for name, weight in (("a", 1), ("b", 3)))
    assert gpu_session.limits([first, second], 100) == 25
    assert gpu_session.limits([second], 90) == 90


def test_the_check_comes_first_and_speed_last():
    names = [part.name for part in gpu_session.parts("gpu", False)]
    assert names == ["info", "check", "pytest", "step", "operations", "kernels", "epoch"]
    assert [part.name for part in gpu_session.parts("cpu", True)] == [name for name in names if name != "kernels"]


def test_a_part_that_does_not_exist_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", ["gpu_session", "--out", str(tmp_path / "out"), "--only", "chekc"])
    with pytest.raises(SystemExit):
        gpu_session.main()
    assert "--only expected one of info, check, pytest, " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


STEP_TABLE = """### tiny: 16 x 16, 1 channels, width 4, batch 8

| | ms a step, median | fastest to slowest | images/s | speed, torch's best = 1 | nanogan's | loss off by | mem |
|---|---|---|---|---|---|---|---|
| torch CUDA graph, TF32 | 0.500 | 0.4 to 0.6 | 16000 | 1.00 | 2.00 | 0e+00, 0e+00 | - |
| nanogan CUDA graph, tf32 | 0.250 | 0.2 to 0.3 | 32000 | 2.00 | 1.00 | 1e-07, 1e-07 | - |
| torch compiled, TF32 | does not run: left out, for want of time | | | | | | |
| nanogan, bf16 | does not run: RuntimeError: lost | | | | | | |
"""


def test_the_summary_tells_what_failed_and_how_fast_it_is():
    wrong = [f"- WRONG: graph: question {i}: 3 arrays differ" for i in range(40)]
    tables = {
        "check": "\n".join(["- card: H200", "- torch: 2.11", "42 questions: 2 right, 40 wrong, 0 more.", *wrong]),
        "step": f"# One training step\n\n- card: H200\n{STEP_TABLE}" + 4 * f"\n{STEP_TABLE}The fastest of each: it\n",
    }
    tests = "\n".join(
        ["tests/a.py::one PASSED [50%]", "[gw0] [90%] FAILED tests/a.py::two ", "FAILED tests/a.py::two - assert 1"]
    )
    parts = [gpu_session.Part(name, (), 1) for name in ("check", "pytest", "step", "kernels")]
    rows = [(part, status, 3.0, 4.0) for part, status in zip(parts, (1, "out of time", 0, 0), strict=True)]
    lines = session_summary.summary(rows, {"pytest": tests, "kernels": "x\n" * 500}, tables)
    assert len(lines) <= session_summary.LONGEST
    assert "- card: H200" in lines
    assert "| pytest | out of time | 3 | 4 |" in lines
    assert [line for line in lines if "WRONG" in line] == wrong[:3]
    assert "- ... and 37 more in check.md" in lines
    assert lines[lines.index("## pytest") + 2 :][:2] == ["stopped after 3 results", "- tests/a.py::two"]
    assert "| nanogan CUDA graph, tf32 | 0.250 | 2.00 | 1e-07, 1e-07 |" in lines
    assert lines.count("- nanogan, bf16 does not run: RuntimeError: lost") == 2, "of the first two networks"
    assert lines.count("The fastest of each: it") == 4
    assert not any("want of time" in line for line in lines)


# ------------------------------------------------------------------------------------------------------ is it right?


@pytest.mark.parametrize("group", ["products", "operations", "layers"])
def test_every_answer_that_a_cpu_can_give_is_right(group):
    found = list(questions.answers(backend.get_device("cpu"), group))
    assert found
    assert [row for row in found if row[2] is False] == []
    assert any(row[2] for row in found)


@pytest.fixture
def small_gpu(double, monkeypatch):
    """The double, and questions of small sizes."""
    monkeypatch.delitem(compare.SIZES, "64x64")
    monkeypatch.setitem(compare.SIZES, "MNIST default", networks.NETWORKS["mnist"] | {"width": 4, "batch_size": 8})
    monkeypatch.setattr(operations_questions, "MORE", [])
    monkeypatch.setattr(graph_questions, "times_of", lambda played: "not measured")
    monkeypatch.setitem(questions.GROUPS, "long", lambda device: long_questions.long(device, 20))
    return backend.get_device("gpu")


@pytest.mark.parametrize("group", ["operations", "layers", "graph", "long"])
def test_every_answer_that_the_double_gives_is_right(group, small_gpu):
    found = list(questions.answers(small_gpu, group))
    assert len(found) >= 3
    assert [row for row in found if row[2] is False] == []


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda patch: patch.setattr(graph.Changes, "make", lambda self: None), "arrays differ"),
        (lambda patch: patch.setattr(graph.graphs.Recorder, "replay", lambda self: None), "arrays differ"),
        (lambda patch: patch.setattr(graph, "why_not", lambda game, inputs: "planted"), "not recorded: a step cannot"),
    ],
)
def test_a_wrong_replay_is_found(change, wrong, small_gpu, monkeypatch):
    change(monkeypatch)
    _, answer, right = next(questions.answers(small_gpu, "graph"))
    assert right is False
    assert wrong in answer


def test_a_wrong_fast_path_is_found(monkeypatch):
    def slightly_wrong(forward):
        def changed(*args, **options):
            y, cache = forward(*args, **options)
            return 1.001 * y, cache

        return changed

    device = backend.get_device("cpu")
    dispatch.load("cpu")
    path = dispatch._paths["cpu", ops.batchnorm_forward][0]
    wrong = path._replace(forward=slightly_wrong(path.forward))
    monkeypatch.setitem(dispatch._paths, ("cpu", ops.batchnorm_forward), [wrong])
    found = [row for row in questions.answers(device, "operations") if "batchnorm" in row[0]]
    assert len(found) == 2
    assert all(right is False and "worst 1.0e-03 (y of" in answer for _, answer, right in found)


def test_a_question_that_raises_is_an_answer(monkeypatch):
    def two(device):
        yield "first", lambda: 1 / 0
        yield "second", lambda: (True, "fine")

    monkeypatch.setitem(questions.GROUPS, "products", two)
    found = list(questions.answers(None, "products"))
    assert found[0][0] == "first"
    assert found[0][1].startswith("ZeroDivisionError: division by zero (questions.py:")
    assert found[0][2] is False
    assert found[1] == ("second", "fine", True)
    assert list(questions.answers(None, "products", after=1)) == found[1:]


def test_a_group_that_raises_is_an_answer(monkeypatch):
    def breaks(device):
        yield "first", lambda: (None, "fine")
        raise RuntimeError("no module named conv")

    monkeypatch.setitem(questions.GROUPS, "products", breaks)
    for after in range(3):
        *fine, last = questions.answers(None, "products", after)
        assert fine == [("first", "fine", None)][after:]
        assert last[0] == "the questions that follow"
        assert last[1].startswith("RuntimeError: no module named conv (questions.py:")
        assert last[2] is False


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """A function of what a group's process does with question ``i``: it returns the table's rows, and its file."""

    def run(program, seconds=60, patience=None):
        script = tmp_path / "group.py"
        head = "import json, os, sys, time\nafter = int(sys.argv[1])\n"
        fine = "    print(json.dumps([f'question {i}', 'fine', True]), flush=True)\n"
        script.write_text(f"{head}for i in range(after, 4):\n    {program}\n{fine}", encoding="utf-8")
        python = lambda module, *arguments: [sys.executable, script, str(arguments[-1])]  # noqa: E731
        monkeypatch.setattr(processes, "python", python)
        table = gpu_check.Table(["- card: none"], tmp_path / "out.md")
        gpu_check.ask("graph", "cpu", table, time.perf_counter() + seconds, patience=patience)
        return table.rows["graph"], (tmp_path / "out.md").read_text(encoding="utf-8")

    return run


def test_a_process_that_dies_of_a_question_leaves_the_others_answers(asked):
    lost = "print(json.dumps(['question 2', 'lost', False]), flush=True) or sys.exit(3)"
    rows, text = asked(f"i == 1 and os._exit(9); i == 2 and after < 3 and ({lost})")
    assert [(question, right) for question, _, right in rows] == [
        ("question 0", True), ("question 2", False), ("question 2", False), ("question 3", True)
    ]  # fmt: skip
    assert "4 questions: 2 right, 2 wrong, 0 for information." in text
    assert "- WRONG: graph: question 2: its process ended with status 9: no message" in text


def test_a_question_that_hangs_leaves_the_others_answers(asked):
    rows, _ = asked("i == 2 and time.sleep(600)", patience=2)
    assert rows[1:] == [
        ("question 1", "fine", True), ("question 3", "no answer in 2 s", False), ("question 3", "fine", True)
    ]  # fmt: skip
    rows, text = asked("i == 2 and time.sleep(600)", seconds=2)
    assert rows[2:] == [("question 3 and what follows", "out of time", False)]
    assert "2 right, 1 wrong" in text


def test_questions_that_are_not_asked_are_named(asked):
    rows, _ = asked("sys.exit('broken')")
    assert rows[-2:] == [
        ("question 4", "its process ended with status 1: broken", False),
        ("question 5 and what follows", "not asked, after 4 processes", False),
    ]


def test_what_a_library_prints_is_no_answer(asked):
    rows, _ = asked("print('3'); print('[1, 2, 3]'); print('null'); os.write(1, b'\\xff\\n')")
    assert [question for question, *_ in rows] == [f"question {i}" for i in range(4)]


def test_ctrl_c_ends_a_group(asked):
    rows, _ = asked("i == 1 and sys.exit(130)")
    assert [question for question, *_ in rows] == ["question 0"]


def test_a_check_that_is_killed_leaves_no_process_at_the_gpu(tmp_path):
    beats = tmp_path / "beats"
    group = f"import time\nwhile True: open({str(beats)!r}, 'a').write('.'); time.sleep(0.02)"
    check = (
        "import sys, time\n"
        "from benchmarks import processes\n"
        "from benchmarks.gpu_check.__main__ import Table, ask\n"
        f"processes.python = lambda *arguments: [sys.executable, '-c', {group!r}]\n"
        "ask('graph', 'cpu', Table([], None), time.perf_counter() + 60)\n"
    )
    process = processes.start([sys.executable, "-c", check], start_new_session=True)
    try:
        while not beats.exists() and process.poll() is None:
            time.sleep(0.05)
    finally:
        processes.kill(process, session=True)
    time.sleep(0.3)
    size = beats.stat().st_size
    time.sleep(0.3)
    assert beats.stat().st_size == size


def test_states_that_differ_are_told_apart():
    one = {"g": {"w": np.ones((2, 2)), "steps": 3}, "numbers": np.array([1.0])}
    assert played.alike(one, one) == "the same bits"
    near = one | {"numbers": np.array([1 + 1e-7])}
    assert played.alike(near, one) == "1 arrays differ, numbers by 1.0e-07"
    for other in ({"g": {"w": np.ones((2, 2)), "steps": 4}}, {"g": {"w": np.full((2, 2), np.nan), "steps": 3}}):
        with pytest.raises(compare.Wrong):
            played.alike(one | other, one)
    with pytest.raises(compare.Wrong, match="nothing was compared"):
        compare.Worst().answer()


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
