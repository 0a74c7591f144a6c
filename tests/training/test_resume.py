"""A run that was killed goes on as if nothing had happened: every parameter, random number, row and picture."""

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors

from nanogan import checkpoint
from nanogan.backend import seeded_rng
from nanogan.data import Loader
from nanogan.disk import MARK, Lock
from nanogan.errors import UserError
from nanogan.games.dcgan import DCGAN, DCGANOptions
from nanogan.layers import BatchNorm2d, Conv2d, Dropout, Flatten, LeakyReLU, Linear, Sequential
from nanogan.optim import Adam
from nanogan.training import LAST, Run, train
from tests.failing_files import Written

ROOT = Path(__file__).parents[2]
EPOCHS, STEPS = 3, 4  # 14 pictures in batches of 4


class Forgetful(DCGAN):
    """All kinds of state: BatchNorm's buffers, Adam's averages; D draws numbers, for its Dropout."""

    def __init__(self, options, shapes, device="cpu", seed=0):
        super().__init__(options, shapes, device, seed)
        rng = seeded_rng(seed, "D")
        self.d = Sequential(
            Conv2d(1, 4, kernel_size=4, stride=2, padding=1, rng=rng),
            BatchNorm2d(4),
            LeakyReLU(negative_slope=0.2),
            Dropout(p=0.3, rng=np.random.default_rng()),
            Flatten(),
            Linear(64, 1, rng=rng),
        )
        self.opt_d = Adam(self.d, lr=options.lr, betas=(0.5, 0.999))


def weight(game):
    """A metric that goes up and down."""
    return float(np.sin(1e4 * game.g.layers[0].params["weight"].sum()))


RUN = {"sample_every": 3, "checkpoint_minutes": 0, "metric": weight, "measure": None, "keep": 2}


def loader_of(count=14):
    return Loader(seeded_rng(0, "pictures").integers(0, 256, (count, 8, 8, 1)).astype(np.uint8), batch_size=4)


def game_of(seed=0, **options):
    return Forgetful(DCGANOptions(image_size=8, latent=3, width=2, lr=1e-2, **options), loader_of().shapes, seed=seed)


def run(out, *, resume=None, seed=0, epochs=EPOCHS, max_steps=None, **options):
    """Train, or go on from a checkpoint with a game that starts otherwise, and return what train returns."""
    of_the_run = RUN | {name: options.pop(name) for name in list(options) if name in RUN}
    game = game_of(seed if resume is None else 99, **options)
    if resume is not None:
        resume = checkpoint.load_training(resume, game)
    folder = Run(out, options={"a": 1}, **of_the_run)
    return train(game, loader_of(), folder, epochs=epochs, seed=seed, max_steps=max_steps, resume=resume)


def training_in(path):
    """A checkpoint's arrays and its metadata, without the time that was spent."""
    with safetensors.safe_open(path, framework="numpy") as file:
        names = file.keys()
        arrays = {name: file.get_tensor(name) for name in names}
        fields = json.loads(file.metadata()["nanogan_training"])
    assert fields.pop("seconds") > 0
    del fields["checksum"]
    return arrays, fields


def assert_same(out, expected, *, but=()):
    """All that two runs left is the same to the bit, except the clock's readings and the files ``but``."""
    everything = [sorted(str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()) for f in (out, expected)]
    assert set(everything[0]) - set(but) == set(everything[1]) - set(but)
    for name in everything[1]:
        if name in but or name in ("report.html", MARK):  # the clock's time; whether the folder was empty at first
            continue
        if name.startswith("checkpoints"):
            (arrays, fields), (other_arrays, other_fields) = training_in(out / name), training_in(expected / name)
            assert fields == other_fields, name
            assert arrays.keys() == other_arrays.keys()
            for array in arrays:
                assert arrays[array].tobytes() == other_arrays[array].tobytes(), (name, array)
        elif name == "log.csv":
            rows, other_rows = (list(csv.reader((f / name).read_text().splitlines())) for f in (out, expected))
            assert [row[:-1] for row in rows] == [row[:-1] for row in other_rows]
            seconds = [float(row[-1]) for row in rows[1:]]
            assert seconds == sorted(seconds), "the clock goes on"
        else:
            assert (out / name).read_bytes() == (expected / name).read_bytes(), name


# --------------------------------------------------------------------------------------------------------- kill -9


def child(out, kill_at, half):
    """Train or go on below ``out``; be killed at the operation on files number ``kill_at``, or in its middle."""
    out, operations = Path(out), itertools.count(1)

    def killed(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(event, arguments):
        is_ours = event.split(".")[0] in ("open", "os", "shutil") and str(out) in str(arguments)
        if is_ours and next(operations) == kill_at:
            print("killed at", event, flush=True)
            killed()

    def write(file, data):
        if next(operations) == kill_at:
            file.write(data[: len(data) // 2])
            file.flush()
            print("killed at half a file", flush=True)
            killed()
        file.write(data)

    last = out / "checkpoints/last.safetensors"
    resume = last if last.exists() else None
    if half:
        checkpoint.safetensors_files.open = lambda *arguments: Written(open(*arguments), write)
    else:
        sys.addaudithook(hook)
    run(out, resume=resume)
    print("completed", next(operations), flush=True)


def start_child(out, kill_at=0, half=False):
    program = f"from tests.training.test_resume import child; child({str(out)!r}, {kill_at}, {half})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode in (0, -signal.SIGKILL), result.stderr
    return result.returncode, result.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, and the numbers of its operations on files and of its checkpoints' writes."""
    folder = tmp_path_factory.mktemp("whole")
    counts = {}
    for half in (False, True):
        code, line = start_child(folder / f"run{half}", half=half)
        assert code == 0
        counts[half] = int(line.split()[1])
    assert_same(folder / "runFalse", folder / "runTrue")
    return folder / "runFalse", counts


@pytest.mark.skipif(os.name == "nt", reason="Windows has no kill -9")
@pytest.mark.parametrize("half", [False, True], ids=["between", "within"])
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(tmp_path, whole, half):
    """At random moments: between any two operations on files, or with half of a checkpoint written."""
    expected, counts = whole
    rng = np.random.default_rng(int(half))
    seen = []
    for _ in range(4):
        code, line = start_child(tmp_path / "run", int(rng.integers(counts[half] // 3)) + 1, half)
        seen.append(line)
        if code == 0:
            break
    assert sum("killed" in line for line in seen) >= 3, seen
    code, line = start_child(tmp_path / "run")
    assert code == 0
    assert "completed" in line
    assert_same(tmp_path / "run", expected)


OPTIONS = [
    ({}, STEPS),
    ({"loss": "saturating", "label_smoothing": 0.1}, STEPS),
    ({"loss": "lsgan", "ema": 0.9}, STEPS),
    ({"loss": "hinge", "z": "uniform", "upsample": "resize"}, STEPS),
    ({"instance_noise": 0.5}, STEPS),
    ({"lr_decay": "linear"}, STEPS),
    ({"d_steps": 3}, 2),  # 3 batches and 1
    ({"d_steps": 2, "instance_noise": 0.5, "lr_decay": "linear", "ema": 0.6, "loss": "lsgan"}, 2),
]


@pytest.mark.parametrize(("options", "per_epoch"), OPTIONS, ids=str)
def test_a_run_can_be_resumed_at_any_step(tmp_path, options, per_epoch):
    """At every step with the defaults; with options, whose state is the same at each, within and between epochs."""
    run(tmp_path / "whole", sample_every=None, **options)
    for step in (per_epoch - 1, 2 * per_epoch) if options else range(1, EPOCHS * per_epoch):
        out = tmp_path / f"stopped{step}"
        assert run(out, max_steps=step, sample_every=None, **options) is True
        assert training_in(out / LAST)[1]["step"] == step
        assert run(out, resume=out / LAST, sample_every=None, **options) is True
        epoch = (step - 1) // per_epoch + 1
        extra = [] if step % per_epoch == 0 else [f"samples/epoch_{epoch:03d}_step_{step:06d}.png"]
        assert_same(out, tmp_path / "whole", but=["training.gif", *extra])


@pytest.mark.parametrize("options", [options for options, _ in OPTIONS[1:]], ids=str)
def test_each_option_changes_the_run(tmp_path, options):
    """So that the test above has something to compare."""
    run(tmp_path / "plain", epochs=1)
    run(tmp_path / "other", epochs=1, **options)
    plain, other = (checkpoint.read(tmp_path / name / "generator.safetensors") for name in ("plain", "other"))
    assert plain.keys() != other.keys() or any((plain[name] != other[name]).any() for name in plain)


def test_a_longer_run_is_the_same_as_one_that_was_long_from_the_start(tmp_path):
    run(tmp_path / "long")
    run(tmp_path / "short", epochs=2)
    run(tmp_path / "short", resume=tmp_path / "short" / LAST)
    assert_same(tmp_path / "short", tmp_path / "long")


def test_what_came_after_the_checkpoint_is_removed_and_comes_again(tmp_path):
    run(tmp_path / "whole", keep=0)
    run(tmp_path / "again", keep=0)
    first = tmp_path / "again/checkpoints/epoch_001.safetensors"
    run(tmp_path / "again", keep=0, resume=first, epochs=2)
    with open(tmp_path / "again/log.csv", newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 2 * STEPS + 1))
    assert sorted(path.name for path in (tmp_path / "again/checkpoints").iterdir())[1:] == [
        "epoch_001.safetensors",
        "epoch_002.safetensors",
        "last.safetensors",
    ]
    assert max(path.name for path in (tmp_path / "again/samples").iterdir()) == "epoch_002_step_000008.png"
    run(tmp_path / "again", keep=0, resume=tmp_path / "again" / LAST)
    assert_same(tmp_path / "again", tmp_path / "whole")


def test_another_folder_gets_a_branch_and_the_first_run_stays(tmp_path):
    run(tmp_path / "first", keep=0)
    before = {path: path.read_bytes() for path in (tmp_path / "first").rglob("*") if path.is_file()}
    run(tmp_path / "second", keep=0, resume=tmp_path / "first/checkpoints/epoch_001.safetensors")
    assert {path: path.read_bytes() for path in (tmp_path / "first").rglob("*") if path.is_file()} == before
    # the first epoch's own checkpoint, and a best one from then, are left where they were
    but = ["checkpoints/epoch_001.safetensors", "checkpoints/best.safetensors"]
    for name in ("epoch_003", "last"):
        arrays, _ = training_in(tmp_path / f"second/checkpoints/{name}.safetensors")
        for array, values in training_in(tmp_path / f"first/checkpoints/{name}.safetensors")[0].items():
            assert arrays[array].tobytes() == values.tobytes()
    but += [f"checkpoints/{name}.safetensors" for name in ("epoch_002", "epoch_003", "last")]  # they tell best
    assert_same(tmp_path / "second", tmp_path / "first", but=but)


def test_the_run_before_is_not_lost_by_resuming_it(tmp_path):
    """In its own folder it goes on; in the one above, it would have to make room for the run there."""
    run(tmp_path / "run", epochs=2)
    run(tmp_path / "run", epochs=1, seed=1)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="cannot take up the run in .*previous.*use another folder"):
        run(tmp_path / "run", resume=tmp_path / "run/previous" / LAST)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    run(tmp_path / "run/previous", resume=tmp_path / "run/previous" / LAST)
    run(tmp_path / "whole")
    assert_same(tmp_path / "run/previous", tmp_path / "whole")


def test_other_batches_are_refused(tmp_path):
    run(tmp_path / "run", epochs=1)
    game = game_of()
    resume = checkpoint.load_training(tmp_path / "run" / LAST, game)
    with pytest.raises(UserError, match="it had 4 in an epoch, now there are 5; use the same images and batch size"):
        train(game, loader_of(20), Run(tmp_path / "run"), epochs=2, resume=resume)


def test_nothing_left_to_do_leaves_everything(tmp_path):
    run(tmp_path / "run")
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    (tmp_path / "run/training.gif").rename(tmp_path / "run/.training-abcdefgh.gif")  # killed while it was drawn
    for epochs in (3, 2):
        assert run(tmp_path / "run", resume=tmp_path / "run" / LAST, epochs=epochs) is True
        assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files


def test_the_best_epoch_is_kept_and_the_newest_ones(tmp_path):
    values = iter([3.0, 1.0, np.nan, -np.inf, 1.0, 0.5, 0.7])
    run(tmp_path / "run", epochs=5, metric=lambda game: next(values))
    folder = tmp_path / "run/checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.safetensors",
        "epoch_004.safetensors",
        "epoch_005.safetensors",
        "last.safetensors",
    ]
    assert training_in(folder / "best.safetensors")[1]["epoch"] == 2
    assert training_in(folder / "best.safetensors")[1]["best"] == 1.0
    run(tmp_path / "run", epochs=7, metric=lambda game: next(values), resume=tmp_path / "run" / LAST)
    assert training_in(folder / "best.safetensors")[1]["epoch"] == 6
    assert training_in(folder / "last.safetensors")[1]["best"] == 0.5


def test_what_is_measured_after_each_epoch_is_that_of_a_whole_run(tmp_path, capsys):
    def measured(folder):
        with open(folder / "measures.csv", newline="") as file:
            return [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]

    measure = {"measure": lambda game: {"weight": np.float32(weight(game)), "two": 2}}
    run(tmp_path / "whole", keep=0, **measure)
    assert [(row["epoch"], row["step"], row["two"]) for row in measured(tmp_path / "whole")] == [
        ("1", "4", "2.0"),
        ("2", "8", "2.0"),
        ("3", "12", "2.0"),
    ]
    assert len({row["weight"] for row in measured(tmp_path / "whole")}) == 3
    assert "measured after epoch 3: weight " in capsys.readouterr().out
    page = (tmp_path / "whole/report.html").read_text()
    assert '<th scope="row">3</th>' in page
    assert '<th scope="col">weight</th>' in page
    first = tmp_path / "whole/checkpoints/epoch_001.safetensors"
    run(tmp_path / "branch", resume=first, **measure)
    assert measured(tmp_path / "branch") == measured(tmp_path / "whole")
    run(tmp_path / "whole", resume=first, max_steps=6, **measure)
    assert [row["step"] for row in measured(tmp_path / "whole")] == ["4", "6"], "an earlier end is measured too"
    run(tmp_path / "whole", max_steps=4)
    assert not (tmp_path / "whole/measures.csv").exists(), "it belongs to the run before"
    assert (tmp_path / "whole/previous/measures.csv").exists()


def test_a_best_epoch_that_never_was_is_forgotten(tmp_path):
    values = iter([3.0, 1.0, 2.0, 5.0, 4.0])
    run(tmp_path / "run", keep=0, metric=lambda game: next(values))
    folder = tmp_path / "run/checkpoints"
    assert training_in(folder / "best.safetensors")[1]["epoch"] == 2
    run(tmp_path / "run", metric=lambda game: next(values), resume=folder / "epoch_001.safetensors")
    assert training_in(folder / "best.safetensors")[1]["epoch"] == 3
    assert training_in(folder / "last.safetensors")[1]["best"] == 4.0


def test_a_new_run_removes_what_a_killed_one_was_writing(tmp_path):
    left = [tmp_path / "run" / name for name in ("checkpoints/.epoch_001-abcdefgh.safetensors", ".log-12345678.csv")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    run(tmp_path / "run", max_steps=1)
    assert not any(path.exists() for path in left)
    assert not (tmp_path / "run/previous").exists()


def test_damaged_history_is_no_reason_to_stop(tmp_path, capsys):
    """The log and the pictures can be lost; the training cannot."""
    run(tmp_path / "run", epochs=2)
    samples = sorted((tmp_path / "run/samples").iterdir())
    samples[0].write_bytes(samples[0].read_bytes()[:100])
    text = (tmp_path / "run/log.csv").read_text().splitlines()
    (tmp_path / "run/log.csv").write_text("\n".join([*text[:4], "1,4,torn", *text[5:]]))
    (tmp_path / "run/checkpoints/best.safetensors").write_bytes(b"no checkpoint")
    (tmp_path / "run/checkpoints/.last-abcdefgh.safetensors").write_bytes(b"left by a killed run")
    assert run(tmp_path / "run", resume=tmp_path / "run" / LAST) is True
    assert "log up to step 8 is not whole: log.csv starts with 3 rows" in capsys.readouterr().out
    with open(tmp_path / "run/log.csv", newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [1, 2, 3, 9, 10, 11, 12]
    assert not list((tmp_path / "run/checkpoints").glob(".*"))
    run(tmp_path / "whole")
    assert_same(
        tmp_path / "run",
        tmp_path / "whole",
        but=["log.csv", "losses.png", "training.gif", "checkpoints/best.safetensors", f"samples/{samples[0].name}"],
    )


# ------------------------------------------------------------------------------------------- one folder, one run


def test_a_second_run_in_one_process_is_refused_and_the_first_is_unharmed(tmp_path):
    """A run of a library user, who gives no lock: while it measures, another one starts in its folder."""
    refused = []

    def measure(game):
        for resume in (None, tmp_path / "run" / LAST):
            with pytest.raises(UserError, match="run is being written by process .* or choose another folder") as error:
                run(tmp_path / "run", seed=1, resume=resume if resume is None or resume.exists() else None)
            refused.append(error)
        return {"zero": 0}

    run(tmp_path / "run", measure=measure)
    assert len(refused) == 2 * EPOCHS
    run(tmp_path / "whole", measure=lambda game: {"zero": 0})
    assert_same(tmp_path / "run", tmp_path / "whole", but=["measures.csv"])
    run(tmp_path / "run", epochs=1)  # it has ended


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_however_a_run_ends_its_folder_is_free(tmp_path, error):
    def measure(game):
        raise error

    for _ in range(2):
        with pytest.raises(error):
            run(tmp_path / "run", measure=measure)
    with pytest.raises(UserError, match="cannot be resumed with these batches"):  # before its first step
        resume = checkpoint.Progress(step=1, epoch=1, batch=1, steps_per_epoch=5, seconds=1.0)
        train(game_of(), loader_of(), Run(tmp_path / "run"), epochs=1, resume=resume)
    run(tmp_path / "run")
    run(tmp_path / "run", resume=tmp_path / "run" / LAST)  # nothing is left to do
    assert run(tmp_path / "run", epochs=1) is True
    assert not (tmp_path / "run/.lock").exists()


def test_the_run_before_that_goes_on_in_its_folder_is_not_replaced(tmp_path):
    """In run/previous; a third run in the folder above would move the second one there."""
    run(tmp_path / "run", epochs=1)
    run(tmp_path / "run", epochs=1, seed=1)
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with Lock(tmp_path / "run/previous"), pytest.raises(UserError, match="previous is being written by process"):
        run(tmp_path / "run", epochs=1, seed=2)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files


def test_a_dead_runs_lock_file_is_no_file_of_the_run(tmp_path):
    run(tmp_path / "run", epochs=1)
    (tmp_path / "run/.lock").write_text("process 1 on elsewhere since 2020-01-01 00:00")
    run(tmp_path / "run", epochs=1)
    assert not list((tmp_path / "run/previous").rglob(".*"))


@pytest.mark.parametrize("place", ["log.csv", "previous/log.csv", "previous/checkpoints/last.safetensors"])
def test_a_folder_in_a_files_place_is_named_before_anything_is_moved(tmp_path, place):
    run(tmp_path / "run", epochs=1)
    run(tmp_path / "run", epochs=1, seed=1)
    (tmp_path / "run" / place).unlink()
    (tmp_path / "run" / place).mkdir()
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"cannot be kept in .*previous: .*{place} is a folder .* move it away"):
        run(tmp_path / "run", epochs=1)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files


def test_a_file_in_the_place_of_the_folder_for_the_run_before_is_named(tmp_path):
    run(tmp_path / "run", epochs=1)
    (tmp_path / "run/previous").write_text("a diary")
    with pytest.raises(UserError, match="cannot be kept in .*previous: File exists.*move that away"):
        run(tmp_path / "run", epochs=1)


@pytest.mark.parametrize("place", ["samples", "checkpoints"])
def test_a_file_in_a_folders_place_is_named_before_the_first_step(tmp_path, place):
    run(tmp_path / "first")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / place).write_text("a diary")
    for resume in (None, tmp_path / "first/checkpoints/epoch_002.safetensors"):
        with pytest.raises(UserError, match=f"cannot make the folder .*{place} .*: move away what has its name"):
            run(tmp_path / "run", resume=resume)
    assert {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()} == {place, MARK}


def test_a_dry_run_does_not_push_a_run_out_of_previous(tmp_path, capsys):
    """The second of two dry runs in a folder removed the long run that was there before them."""

    def start(**options):
        train(game_of(), loader_of(), Run(tmp_path / "run", options=options), epochs=1)

    start(dry_run=False)
    log = (tmp_path / "run/log.csv").read_bytes()
    start(dry_run=True)
    assert (tmp_path / "run/previous/log.csv").read_bytes() == log
    start(dry_run=True)
    start(dry_run=False)
    assert (tmp_path / "run/previous/log.csv").read_bytes() == log
    assert "the dry run in" in capsys.readouterr().out
    last = (tmp_path / "run/log.csv").read_bytes()
    start(dry_run=True)
    assert (tmp_path / "run/previous/log.csv").read_bytes() == last, "a real run is kept as ever"
    for text in ("[1]", "{", '{"dry_run": 1}', "[" * 100_000):
        (tmp_path / "run/options.json").write_text(text)
        start(dry_run=True)
        assert (tmp_path / "run/previous/options.json").read_text() == text
