"""The loop and the log: what each step is given, what is written when, and when training stops."""

import csv
import errno
import shutil

import numpy as np
import pytest
import safetensors.numpy

from nanogan import checkpoint, images
from nanogan.data import Loader
from nanogan.disk import MARK
from nanogan.errors import TrainingDiverged
from nanogan.training import LAST, Run, StepResult, earlier, log, saving, train
from tests.games.playing import recorded


@pytest.fixture
def setup(tmp_path):
    """A run of 2 epochs of 3 steps whose steps are only recorded; ``run(results, **options)`` starts it."""
    pictures = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)
    loader = Loader(pictures, batch_size=3)
    game = recorded(loader)

    def run(result=lambda step: StepResult(*np.float32([1, 2, 3, 4, 5])), *, epochs=2, max_steps=None, **options):
        game.result = result
        return train(game, loader, Run(tmp_path / "run", **options), epochs=epochs, seed=1, max_steps=max_steps)

    return run, game.seen, game.g, game.d, tmp_path / "run"


COLUMNS = ("epoch", "step", "loss_d", "loss_g", "d_real", "d_fake_before", "d_fake_after", "seconds")


def samples(out):
    return sorted(path.name for path in (out / "samples").iterdir())


def test_every_step_gets_its_own_batch_and_fresh_noise_of_its_length(setup):
    run, seen, *_ = setup
    assert run() is True
    seen = [(step["reals"][0], step["zs"][0]) for step in seen]
    assert [(len(real), z.shape) for real, z in seen] == [(n, (n, 3)) for n in (3, 3, 2, 3, 3, 2)]
    noise = np.concatenate([z for _, z in seen])
    assert len(np.unique(noise)) == noise.size, "no z is used twice"
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 1
    assert noise.min() < 0 < noise.max()
    first, second = (np.concatenate([real for real, _ in seen[i : i + 3]]) for i in (0, 3))
    np.testing.assert_array_equal(np.sort(first, axis=0), np.sort(second, axis=0))
    assert (first != second).any()


def test_random_numbers_depend_on_the_seed_and_the_step_alone(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)
    loader, zs = Loader(pictures, batch_size=3), {}
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        game = recorded(loader)
        np.random.default_rng().standard_normal(5)
        train(game, loader, Run(tmp_path / name), epochs=1, seed=seed)
        zs[name] = [step["zs"][0] for step in game.seen]
    for one, again, other in zip(*zs.values(), strict=True):
        np.testing.assert_array_equal(one, again)
        assert (one != other).all()


def test_samples_are_drawn_each_epoch_and_every_n_steps(setup):
    run, _, _, _, out = setup
    run(sample_every=2)
    steps = [(1, 2), (1, 3), (2, 4), (2, 6)]
    assert samples(out) == [f"epoch_{epoch:03d}_step_{step:06d}.png" for epoch, step in steps]


def test_max_steps_ends_the_run_early_with_everything_saved(setup):
    run, seen, _, _, out = setup
    assert run(max_steps=2) is True
    assert len(seen) == 2
    assert samples(out) == ["epoch_001_step_000002.png"]
    for name in set(earlier.PRODUCTS) - {
        "options.json",
        "skipped.txt",
        "measures.csv",
        "judge.safetensors",
        "captions.txt",
    }:
        assert (out / name).stat().st_size > 0, name


def test_lines_are_printed_first_last_and_every_n_steps(setup, capsys):
    run, *_ = setup
    run(log_every=4)
    lines = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["[1/2][1/3]", "[2/2][1/3]", "[2/2][3/3]"]


def test_the_csv_and_the_line_name_their_numbers_rightly(setup, capsys):
    run, _, _, _, out = setup
    result = StepResult(loss_d=0.1, loss_g=0.2, d_real=0.3, d_fake_before=0.4, d_fake_after=0.5)
    run(lambda step: StepResult(*map(np.float32, result)))
    with open(out / "log.csv", newline="") as file:
        row = list(csv.DictReader(file))[-1]
    assert {key: row[key] for key in ("epoch", "step")} == {"epoch": "2", "step": "6"}
    numbers = {key: float(row[key]) for key in ("loss_d", "loss_g", "d_real", "d_fake_before", "d_fake_after")}
    assert numbers == {"loss_d": 0.1, "loss_g": 0.2, "d_real": 0.3, "d_fake_before": 0.4, "d_fake_after": 0.5}
    assert (
        "Loss_D: 0.1000  Loss_G: 0.2000  D(x): 0.3000  D(G(z)): 0.4000 before D's step, 0.5000 after"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("which", ["loss_d", "loss_g"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_at_its_step_and_keeps_the_checkpoint_before(setup, which, value):
    run, seen, _, _, out = setup
    good = StepResult(*np.float32([1, 2, 0.3, 0.4, 0.5]))

    def result(step):
        return good._replace(**{which: np.float32(value)}) if step == 5 else good

    with pytest.raises(TrainingDiverged, match=r"at step 5 \(epoch 2\).*the checkpoint of step 4 is kept"):
        run(result, sample_every=2)
    assert len(seen) == 5
    assert (out / "losses.png").exists()
    assert samples(out)[-1] == "epoch_002_step_000004.png"


@pytest.mark.parametrize("kind", ["params", "buffers"])
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_numbers_that_are_not_finite_are_not_saved(setup, kind, network):
    run, _, g, d, out = setup
    g.layers[1].params["weight"][...] = 1
    layer = {"generator": g.layers[1], "discriminator": next(x for x in d.layers if x.params)}[network]
    if kind == "buffers" and network == "discriminator":
        layer.buffers["extra"] = np.zeros(2, np.float32)  # at 8 pixels D has no BatchNorm

    def result(step):
        if step == 3:
            next(iter(getattr(layer, kind).values()))[...] = np.inf
        return StepResult(*np.float32([1, 2, 0.3, 0.4, 0.5]))

    with pytest.raises(TrainingDiverged, match="after step 3 .* was no longer finite.*the checkpoint of step 2"):
        run(result, sample_every=2)
    for name in ("generator", "discriminator"):
        saved = safetensors.numpy.load_file(out / f"{name}.safetensors")
        assert all(np.isfinite(array).all() for array in saved.values())


def test_an_earlier_run_in_the_same_folder_is_kept_apart(setup):
    run, *_, out = setup
    run(sample_every=1)
    (out / "mine.txt").write_text("not a product of a run")

    def diverge(step):
        return StepResult(*np.float32([np.nan, 2, 3, 4, 5]))

    with pytest.raises(TrainingDiverged, match="no checkpoint was saved yet"):
        run(diverge)
    assert sorted(path.name for path in out.glob("[!.]*")) == [
        "checkpoints",
        "curves.json",
        "log.csv",
        "losses.png",
        "machine.json",
        "mine.txt",
        "previous",
        "real.png",
        "report.html",
        "samples",
    ]
    assert samples(out) == []
    assert len(samples(out / "previous")) == 6
    kept = (out / "previous" / "generator.safetensors").read_bytes()
    run()
    run()
    assert (out / "previous" / "generator.safetensors").read_bytes() == kept, (
        "the generator of these runs never changes"
    )
    assert len(samples(out / "previous")) == 2, "of the run before the last one only"


def test_losses_are_read_in_one_piece_and_keep_their_order(tmp_path):
    """A GPU's numbers are fetched for many steps at once."""
    book = log.Log(tmp_path / "log.csv", StepResult._fields)
    for step in range(1, 4):
        book.add(1, step, StepResult(*(np.float32(10 * step + i) for i in range(5))), 0.5 * step)
    row = book.fetch()
    book.close()
    assert row == dict(zip(COLUMNS, (1, 3, 30, 31, 32, 33, 34, 1.5), strict=True))
    assert list(log.columns(book.rows, COLUMNS)["loss_d"]) == [10, 20, 30]


def test_a_log_on_a_full_disk_keeps_whole_rows_and_catches_up(tmp_path, monkeypatch):
    def note(step):
        book.add(1, step, StepResult(*np.float32([1, 2, 3, 4, 5])), 0.5 * step)
        book.fetch()

    book = log.Log(tmp_path / "log.csv", StepResult._fields)
    note(1)
    book.save()
    before = (tmp_path / "log.csv").read_bytes()
    note(2)
    file, room = book._file, [10]

    class Full:
        def write(self, data):
            if not room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return file.write(data[: room.pop()])

        def __getattr__(self, name):
            return getattr(file, name)

    book._file = Full()
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            book.save()
        assert (tmp_path / "log.csv").read_bytes() == before
    note(3)
    book._file = file
    book.save()
    book.close()
    assert [row[:2] for row in log.read_rows(tmp_path / "log.csv", 9, COLUMNS)] == [(1, 1), (1, 2), (1, 3)]


def test_a_log_that_somebody_removes_is_written_anew(tmp_path):
    book = log.Log(tmp_path / "run/log.csv", StepResult._fields)
    for step in (1, 2):
        book.add(1, step, StepResult(*np.float32([1, 2, 3, 4, 5])), 0.5 * step)
        book.fetch()
        book.save()
        shutil.rmtree(tmp_path / "run")
    book.save()
    book.close()
    assert log.read_rows(tmp_path / "run/log.csv", 9, COLUMNS) == book.rows
    assert len(book.rows) == 2


GOOD = "1,1,1.5,2,3,4,5,0.1"


@pytest.mark.parametrize(
    ("lines", "steps"),
    [
        ([GOOD, "1,2,nan,2,3,4,5,0.1", "2,3,1,2,3,4,5,0.1", "2,4,1,2,3,4,5,0.1"], [1, 2, 3]),
        ([GOOD, "1,2,1,2,3,4,5"], [1]),
        ([GOOD, "1,2,1,2,3,4,5,6,7"], [1]),
        ([GOOD, "1"], [1]),
        ([GOOD, GOOD], [1]),
        ([GOOD, "1,two,1,2,3,4,5,6"], [1]),
        ([GOOD, "1,2,1,2,3,4,5,\0", "\0"], [1]),
        ([GOOD, "1,2,1,2,3,4,5," + "6" * 200_000], [1]),
        ([GOOD, "1," + "2" * 5000 + ",1,2,3,4,5,6"], [1]),
        ([], []),
    ],
    ids=lambda x: str(x)[-20:],
)
def test_the_rows_of_a_damaged_log_are_read_as_far_as_they_go(tmp_path, lines, steps):
    path = tmp_path / "log.csv"
    path.write_text("\n".join([",".join(COLUMNS), *lines]))
    rows = log.read_rows(path, 3, COLUMNS)
    assert [row[1] for row in rows] == steps
    if steps:
        assert rows[0] == (1, 1, 1.5, 2.0, 3.0, 4.0, 5.0, 0.1)
    path.write_text("\n".join(["other,columns", *lines]))
    assert log.read_rows(path, 3, COLUMNS) == []
    path.write_bytes(b"\xff\xfe")
    assert log.read_rows(path, 3, COLUMNS) == []
    assert log.read_rows(tmp_path / "nothing", 3, COLUMNS) == []


# ------------------------------------------------------------------------------------------ files and their failures


def full_disk(monkeypatch, function, full):
    """Let ``function`` of the loop's modules fail, as on a full disk, where ``full(path)``."""
    module, name = {
        "grid": (images, "save_grid"),
        "gif": (images, "save_gif"),
        "network": (checkpoint, "save"),
        "training": (checkpoint, "save_training"),
    }[function]
    original = getattr(module, name)

    def write(path, *arguments, **options):
        if full(str(path)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, *arguments, **options)

    monkeypatch.setattr(module, name, write)


def test_a_full_disk_is_told_as_such(setup, monkeypatch):
    """What is written at the end must not hide the first error behind one of its own."""
    run, _, _, _, out = setup
    full_disk(monkeypatch, "grid", lambda path: "step_000004" in path)
    full_disk(monkeypatch, "gif", lambda path: True)
    with pytest.raises(OSError, match="No space left on device") as caught:
        run(sample_every=1)
    assert samples(out)[-1] == "epoch_001_step_000003.png"
    message = str(caught.value)
    assert f"{out / 'samples/epoch_002_step_000004.png'} could not be written" in message
    assert f"training stopped at step 4; the checkpoint of step 3, {out / LAST}, is whole" in message
    assert checkpoint.read_training(out / LAST)[0].step == 3


def test_a_full_disk_before_the_first_checkpoint(setup, monkeypatch):
    run, _, _, _, out = setup
    full_disk(monkeypatch, "training", lambda path: True)
    with pytest.raises(OSError, match="training stopped at step 3; no checkpoint was saved yet"):
        run()
    assert [path.name for path in out.rglob(".*")] == [MARK], "no temporary file"


@pytest.mark.parametrize("function", ["grid", "network", "training"])
def test_training_goes_on_with_a_full_disk_if_asked_to(setup, monkeypatch, capsys, function):
    run, seen, _, _, out = setup
    full_disk(monkeypatch, function, lambda path: len(seen) in (1, 2, 4))
    assert run(sample_every=1, checkpoint_minutes=0, on_disk_full="continue") is True
    assert len(seen) == 6
    told = [line for line in capsys.readouterr().err.splitlines() if "No space left on device" in line]
    assert len(told) == {"network": 4, "grid": 3, "training": 2}[function], (
        "each file, or folder of them, once until it works again"
    )
    assert all("training goes on; make room on the disk" in line for line in told)
    assert checkpoint.read_training(out / LAST)[0].step == 6
    assert len(samples(out)) == (3 if function == "grid" else 6)


def test_a_disk_that_is_full_at_the_end_stops_all_the_same(setup, monkeypatch):
    run, seen, *_ = setup
    full_disk(monkeypatch, "training", lambda path: len(seen) > 4)
    with pytest.raises(OSError, match="No space left on device.*the checkpoint of step 4"):
        run(checkpoint_minutes=0, on_disk_full="continue")
    assert len(seen) == 6


def test_a_disk_with_room_for_one_more_checkpoint_keeps_the_newest(setup, monkeypatch):
    run, seen, _, _, out = setup

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    def result(step):
        if step == 6:
            monkeypatch.setattr(earlier.shutil, "copyfile", full)
        return StepResult(*np.float32([1, 2, 3, 4, 5]))

    with pytest.raises(OSError, match="training stopped at step 6; the checkpoint of step 6"):
        run(result, checkpoint_minutes=0)
    assert checkpoint.read_training(out / LAST)[0].step == 6
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == [
        "epoch_001.safetensors",
        "last.safetensors",
    ]


def test_the_log_is_on_the_disk_before_the_checkpoint(setup, monkeypatch):
    run, *_ = setup
    done = []
    save_log, save_training = log.Log.save, checkpoint.save_training

    def note_log(book, **options):
        done.append(("log", len(book.rows), options))
        save_log(book, **options)

    def note_training(path, game, progress):
        done.append(("checkpoint", progress.step))
        save_training(path, game, progress)

    monkeypatch.setattr(log.Log, "save", note_log)
    monkeypatch.setattr(checkpoint, "save_training", note_training)
    run(checkpoint_minutes=0)
    saved = [i for i, what in enumerate(done) if what[0] == "checkpoint"]
    assert len(saved) == 6
    for i in saved:
        assert done[i - 1] == ("log", done[i][1], {"durable": True})


def test_other_failures_to_write_stop_in_either_case(setup, monkeypatch):
    run, seen, *_ = setup

    def refuse(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(checkpoint, "save_training", refuse)
    with pytest.raises(OSError, match="last.safetensors could not be written .Permission denied.: training stopped"):
        run(checkpoint_minutes=0, on_disk_full="continue")
    assert len(seen) == 1


def test_a_folder_that_is_removed_during_the_run_is_made_again(setup):
    run, _, _, _, out = setup

    def result(step):
        if step == 4:
            shutil.rmtree(out)
        return StepResult(*np.float32([1, 2, 3, 4, 5]))

    assert run(result, sample_every=1) is True
    assert samples(out) == [f"epoch_002_step_00000{step}.png" for step in (4, 5, 6)]
    assert [row[1] for row in log.read_rows(out / "log.csv", 9, COLUMNS)] == [1, 2, 3, 4, 5, 6]
    for name in ("losses.png", "training.gif", "generator.safetensors", LAST):
        assert (out / name).exists(), name


def test_checkpoints_are_due_by_the_clock_and_take_a_fiftieth_of_it(setup, monkeypatch):
    """A step takes 30 seconds; saving takes 0.1 seconds, then 3.1."""
    run, seen, _, _, out = setup
    clock, cost, saved = [1000.0], [0.1], []
    monkeypatch.setattr(saving.time, "perf_counter", lambda: clock[0])

    def save(path, game, progress):
        saved.append((progress.step, path.name))
        clock[0] += cost[0]

    def result(step):
        clock[0] += 30
        if step == 9:
            cost[0] = 3.1
        return StepResult(*np.float32([1, 2, 3, 4, 5]))

    monkeypatch.setattr(checkpoint, "save_training", save)
    monkeypatch.setattr(earlier.shutil, "copyfile", lambda *paths: None)
    run(result, epochs=8, checkpoint_minutes=1)
    assert [step for step, _ in saved] == [2, 3, 5, 6, 8, 9, 15, 21, 24]  # 9: 155 seconds without another
    assert [step for step, name in saved if name != "last.safetensors"] == [3, 6, 9, 15, 21, 24]
