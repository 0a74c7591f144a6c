"""Real ranks, started by mpiexec on however many cores there are, interrupted and killed as a user does it."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nanogan import checkpoint, training
from nanogan.ranks import launch
from tests import starting
from tests.starting import EXAMPLES, ROOT

pytest.importorskip("mpi4py", reason='needs pip install ".[mpi]"')
MPIEXEC = shutil.which("mpiexec", path=os.path.dirname(sys.executable)) or shutil.which("mpiexec")
pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")
TINY = "--image-size=8", "--channels=1", "--width=2", "--batch-size=16", "--out=run"
ENDS = 60  # seconds in which everything here has ended, or hangs


@pytest.fixture
def images(tmp_path):
    """A folder with images.npz: 128 of 8 x 8 pixels."""
    x = np.random.default_rng(0).integers(0, 256, (128, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x_train=x, y_train=np.arange(128) % 10)
    return tmp_path


def started(size, *words, folder, **environment):
    """Start a command on ``size`` ranks, one thread each."""
    variables = {"PYTHONPATH": str(ROOT), "NANOGAN_THREADS": "1", **environment}
    with starting.ctrl_c():
        return subprocess.Popen(
            [MPIEXEC, "-n", str(size), sys.executable, *map(str, words)],
            cwd=folder,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )


def done(process):
    """Wait until it has ended; return (exit status, standard output, standard error)."""
    try:
        out, err = process.communicate(timeout=ENDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def ran(size, *words, folder, **environment):
    return done(started(size, *words, folder=folder, **environment))


def train(size, *flags, folder, **environment):
    return started(size, EXAMPLES / "folder_dcgan.py", "images.npz", *TINY, *flags, folder=folder, **environment)


def wait_for(path, process):
    """Wait until a file is there."""
    ends = time.monotonic() + ENDS
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < ends
        time.sleep(0.02)


def losses_of(folder):
    rows = (folder / "run" / "log.csv").read_text().splitlines()[1:]
    return np.array([[float(number) for number in row.split(",")[1:-1]] for row in rows])


@pytest.mark.parametrize("size", [2, 4])
def test_a_run_is_that_of_one_process(images, size):
    one = starting.run(EXAMPLES / "folder_dcgan.py", "images.npz", *TINY, "--epochs=1", folder=images)
    assert one.returncode == 0, one.stderr
    expected = losses_of(images)
    code, out, err = done(train(size, "--epochs=1", folder=images))
    assert (code, err) == (0, "")
    assert (
        f"{size} processes, each with {16 // size} of a batch's 16 images and 1 thread; BatchNorm over the whole" in out
    )
    assert out.count("done: run holds report.html") == 1
    assert f"mpiexec -n {size} " in out, "the command that goes on starts as many"
    np.testing.assert_allclose(losses_of(images), expected, rtol=2e-4)
    assert (images / "run" / "previous").exists(), "the run before was moved once, by one of them"


def test_ctrl_c_stops_all_after_the_same_step_and_saves(images):
    process = train(2, "--epochs=5000", "--log-every=1000000", folder=images)
    wait_for(images / "run" / "checkpoints" / "epoch_001.safetensors", process)
    process.send_signal(signal.SIGINT)
    code, out, err = done(process)
    assert code == 130, err
    assert "Traceback" not in err
    assert out.count("stopped: run holds") == 1
    progress = checkpoint.read_training(images / "run" / training.LAST)[0]
    assert len(losses_of(images)) == progress.step
    code, out, err = done(train(2, "--resume", f"--epochs={progress.epoch + 1}", folder=images))
    assert (code, err) == (0, "")
    assert f"resumed at step {progress.step}" in out


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("size", "after"), [(2, 2), (2, 1), (4, 2)])
def test_a_rank_that_is_killed_ends_all_and_the_last_checkpoint_is_whole(images, size, after):
    process = train(size, "--epochs=5000", "--checkpoint-every=0", folder=images)
    wait_for(images / "run" / "checkpoints" / "epoch_001.safetensors", process)
    time.sleep(random.Random(size + after).uniform(0, 0.5))
    ranks = ranks_of(process)
    assert len(ranks) == size
    os.kill(ranks[-1 if size == 2 else 0], signal.SIGKILL)
    code, _, _ = done(process)
    assert code in (9, 137, 255)  # MPICH, Open MPI, Intel MPI
    assert not [pid for pid in ranks if is_running(pid)]
    step = checkpoint.read_training(images / "run" / training.LAST)[0].step
    code, out, err = done(train(after, "--resume", f"--epochs={step // 8 + 2}", folder=images))
    assert (code, err) == (0, "")
    assert f"resumed at step {step}," in out
    if size != after:
        now = "1 process" if after == 1 else f"{after} processes"
        assert f"it was saved by {size} processes, this run has {now}" in out


def ranks_of(process):
    """The processes that mpiexec started, in the order of their ranks."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                variables = dict(
                    line.split(b"=", 1) for line in (folder / "environ").read_bytes().split(b"\0") if b"=" in line
                )
                parents = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                grandparent = int(Path(f"/proc/{parents}/stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if b"PMI_RANK" in variables and grandparent == process.pid:
                found[int(variables[b"PMI_RANK"])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.parametrize(("flags", "code", "words"), [
    (["--nonsense"], 2, "error: unrecognized arguments: --nonsense"),
    (["--batch-size=17"], 2, "error: 2 processes cannot share batches of 17 images equally: use a"),
    (["--generate=4"], 2, "error: --generate takes one process: start it without mpiexec"),
    (["--resume=nothing"], 2, "error: there is no checkpoint nothing to resume"),
    (["--device=gpu:77"], 2, "error: device gpu"),
])  # fmt: skip
def test_mistakes_are_told_once(images, flags, code, words):
    got, out, err = done(train(2, *flags, folder=images))
    assert got == code
    words = "error: " if "gpu" in words else words
    assert err.count(words) == 1
    assert "Traceback" not in err
    assert out == ""


def test_a_full_disk_ends_all_with_one_message(images):
    (images / "script.py").write_text(
        "import resource, runpy, signal, sys\n"
        "from nanogan import cli\n"
        "def main():\n"  # MPI has started: its shared memory may be larger
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        f"    return runpy.run_path({str(EXAMPLES / 'folder_dcgan.py')!r})['main']()\n"
        "cli.run(main)\n",
        encoding="utf-8",
    )
    code, _, err = ran(2, "script.py", "images.npz", *TINY, "--width=8", "--epochs=5", folder=images)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert re.search(r"error: .*could not be written \(File too large\)", err)


def test_what_does_not_train_is_refused(tmp_path):
    code, out, err = ran(2, EXAMPLES / "latent_walk.py", folder=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("latent_walk.py: error: this script runs in one process: start it without mpiexec")
    assert err.count("\n") == 1


@pytest.mark.parametrize(("failing", "told"), [(0, "KeyError: 'a bug'"), (1, "rank 1: Traceback")])
def test_a_rank_that_fails_alone_ends_those_that_wait_for_it(tmp_path, failing, told):
    (tmp_path / "script.py").write_text(
        "from nanogan import cli, ranks\n"
        "def main():\n"
        f"    if ranks.current().rank == {failing}: raise KeyError('a bug')\n"
        "    ranks.current().comm.Barrier()\n"
        "cli.run(main)\n",
        encoding="utf-8",
    )
    code, _, err = ran(2, "script.py", folder=tmp_path)
    assert code == 1
    assert err.count("KeyError: 'a bug'") == 1
    assert told in err


def test_threads_are_shared_out(tmp_path):
    """Threads that wait for cores would be many times slower; what the user sets is left alone."""
    (tmp_path / "script.py").write_text(
        "from nanogan import cli, dispatch, ranks\n"
        "def main():\n"
        "    dispatch.load('cpu')\n"
        "    counts = ranks.current().all_told(dispatch.settings['threads']())\n"
        "    print(*counts)\n"
        "cli.run(main)\n",
        encoding="utf-8",
    )
    unset = dict.fromkeys(launch.THREADS, "")
    half = max(1, len(launch.cores()) // 2)
    assert ran(2, "script.py", folder=tmp_path, **unset) == (0, f"{half} {half}\n", "")
    assert ran(2, "script.py", folder=tmp_path, **unset | {"NANOGAN_THREADS": "3"}) == (0, "3 3\n", "")


def test_the_bits_are_the_same_on_every_rank(tmp_path):
    """Which MPI promises no one: it advises it."""
    (tmp_path / "script.py").write_text(
        "import zlib\n"
        "import numpy as np\n"
        "from nanogan import cli, ranks\n"
        "def main():\n"
        "    together = ranks.current()\n"
        "    for size in (1, 7, 1000, 300_000):\n"
        "        x = np.random.default_rng(together.rank).standard_normal(size, dtype=np.float32)\n"
        "        every = together.all_told(x.copy())\n"
        "        sums = together.all_told(zlib.crc32(together.total(x)))\n"
        "        assert len(set(sums)) == 1, sums\n"
        "        np.testing.assert_allclose(x, np.sum(every, axis=0, dtype=np.float64), atol=1e-5)\n"
        "    whole, factor = np.arange(48.0).reshape(2, 3, 4, 2), sum(range(1, together.size + 1))\n"
        "    for view in (lambda x: x, lambda x: x.transpose(0, 3, 1, 2), lambda x: x[:, ::2], lambda x: x[1].T):\n"
        "        x = view(whole * (together.rank + 1))\n"
        "        assert together.total(x) is x\n"
        "        assert np.array_equal(x, view(whole) * factor)\n"
        "    of_all = together.gather(np.full((2, 3, 4, 5), together.rank))\n"
        "    assert np.array_equal(of_all[:, 0, 0, 0], np.arange(together.size).repeat(2))\n"
        "    assert together.broadcast(np.full(3, together.rank)).sum() == 0\n"
        "cli.run(main)\n",
        encoding="utf-8",
    )
    assert ran(4, "script.py", folder=tmp_path) == (0, "", "")


def test_one_process_imports_no_mpi():
    code = (
        "import sys; from nanogan import cli; cli.run(lambda: print(sorted(n for n in sys.modules if 'mpi4py' in n)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.stdout == b"[]\n"
