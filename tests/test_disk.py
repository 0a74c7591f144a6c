"""Files that cannot be written get a sentence; a folder has one writer at a time."""

import errno
import multiprocessing
import os
import signal
import ssl
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from nanogan import disk
from nanogan.disk import Lock, NotWritten, replacing
from nanogan.errors import UserError

ROOT = Path(__file__).parents[1]
HOLDER = "import sys, time; from nanogan.disk import Lock; held = Lock(sys.argv[1]); print('held', flush=True); "


def holder(folder, then="time.sleep(60)"):
    """Start a process that has ``folder`` and then does what ``then`` says."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER + then, str(folder)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_that_another_process_has_is_refused_until_that_is_killed(tmp_path):
    process = holder(tmp_path)
    try:
        with pytest.raises(UserError) as caught:
            Lock(tmp_path)
        assert f"{tmp_path} is being written by process {process.pid} on " in str(caught.value)
        assert "wait until it ends, stop it, or choose another folder with --out" in str(caught.value)
    finally:
        process.kill()  # no chance to clean up
        process.communicate()
    assert (tmp_path / ".lock").exists(), "what a killed process leaves"
    with Lock(tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / ".lock").read_text(), "not the dead one's name"
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_no_lock_keeps_nobody_out(tmp_path):
    (tmp_path / ".lock").write_text("process 1 on elsewhere since 2020-01-01 00:00")
    with Lock(tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / ".lock").read_text()
        with pytest.raises(UserError):
            Lock(tmp_path)


def test_one_process_has_a_folder_once_in_any_thread(tmp_path):
    refused = []

    def second():
        try:
            Lock(tmp_path)
        except UserError as error:
            refused.append(str(error))

    with Lock(tmp_path):
        second()
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 2
    assert f"process {os.getpid()} on " in refused[0]
    with Lock(tmp_path) as lock:
        lock.release()
        with Lock(tmp_path):
            lock.release()  # the second time it is another's
            second()
    assert len(refused) == 3


def test_a_failure_releases_it(tmp_path):
    with pytest.raises(ZeroDivisionError), Lock(tmp_path):
        raise ZeroDivisionError
    with Lock(tmp_path):
        pass


def test_another_folder_is_another_lock(tmp_path):
    (tmp_path / "previous").mkdir()
    with Lock(tmp_path), Lock(tmp_path / "previous"):
        assert [(folder / ".lock").is_file() for folder in (tmp_path, tmp_path / "previous")] == [True, True]
        for folder in (tmp_path, tmp_path / "previous"):
            with pytest.raises(UserError):
                Lock(folder)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_forked_child_does_not_keep_it_alive(tmp_path):
    """Killed, its parent cannot release anything: the child, which lives on, has a copy of the open file."""
    then = "import os; os.fork() or print(os.getpid(), flush=True); time.sleep(60)"  # the child says that it is there
    process = holder(tmp_path, then)
    child = int(process.stdout.readline())
    try:
        with pytest.raises(UserError, match=f"process {process.pid}"):
            Lock(tmp_path)
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        with Lock(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_forked_child_that_ends_leaves_it_to_its_parent(tmp_path):
    with Lock(tmp_path) as lock:
        child = multiprocessing.get_context("fork").Process(target=lock.release)
        child.start()
        child.join()
        assert child.exitcode == 0
        with pytest.raises(UserError, match="is being written by"):
            Lock(tmp_path)


def test_a_lock_file_that_its_last_holder_removed_is_not_taken_for_the_folders(tmp_path, monkeypatch):
    """Opened before it was removed, locked afterwards: a third process would lock the new file."""
    first = Lock(tmp_path)
    lock = disk._lock

    def late(handle):
        monkeypatch.setattr(disk, "_lock", lock)
        first.release()
        return lock(handle)

    monkeypatch.setattr(disk, "_lock", late)
    with Lock(tmp_path), pytest.raises(UserError, match="is being written by"):
        Lock(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_a_lock_file_that_somebody_removed_is_not_the_next_ones(tmp_path):
    first = Lock(tmp_path)
    (tmp_path / ".lock").unlink()
    with Lock(tmp_path):
        first.release()  # its own file is gone
        with pytest.raises(UserError, match="is being written by"):
            Lock(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows locks otherwise")
def test_another_users_lock_file_can_be_locked_too(tmp_path, monkeypatch):
    """In a folder of a group: it can be read alone."""
    (tmp_path / ".lock").write_text("process 1 on elsewhere since 2020-01-01 00:00")
    opened = os.open

    def open_(path, flags, *mode):
        if flags & os.O_RDWR and str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *mode)

    monkeypatch.setattr(disk.os, "open", open_)
    with Lock(tmp_path), pytest.raises(UserError, match="is being written by"):
        Lock(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows locks otherwise")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_work_goes_on(tmp_path, monkeypatch, number):
    asked = []

    def flock(handle, options):
        asked.append(options)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk.fcntl, "flock", flock)
    with Lock(tmp_path), Lock(tmp_path):
        assert len(asked) == 2, "both tried, and both go on"


def test_a_folder_in_the_locks_place_is_no_reason_to_stop(tmp_path):
    (tmp_path / ".lock").mkdir()
    with Lock(tmp_path):
        pass
    assert os.listdir(tmp_path) == [".lock"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_no_link_is_followed(tmp_path):
    (tmp_path / "letter").write_text("dear")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").symlink_to(tmp_path / "letter")
    with Lock(tmp_path / "run"):
        pass
    assert (tmp_path / "letter").read_text() == "dear"


@pytest.mark.parametrize("text", ["", "process 7 on a\nb", "\x1b[31m" * 40, "process 7"])
def test_what_a_lock_file_says_is_not_trusted(tmp_path, text):
    with Lock(tmp_path):
        (tmp_path / ".lock").write_text(text)
        with pytest.raises(UserError, match="is being written by another process: wait"):
            Lock(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="there is a real one")
def test_the_byte_that_windows_locks_lies_behind_the_text(tmp_path, monkeypatch):
    """A locked byte cannot be read there, so that nobody could be named."""
    locked = []

    def locking(handle, mode, count):
        if locked:
            raise PermissionError(errno.EACCES, "Permission denied")
        locked.append((os.lseek(handle, 0, os.SEEK_CUR), mode, count))

    monkeypatch.setattr(disk, "msvcrt", types.SimpleNamespace(LK_NBLCK=2, locking=locking), raising=False)
    monkeypatch.setattr(disk, "WINDOWS", True)
    lock = Lock(tmp_path)
    with pytest.raises(UserError, match=f"process {os.getpid()} on "):
        Lock(tmp_path)
    lock.release()
    ((at, mode, count),) = locked
    assert (mode, count) == (2, 1)
    assert at >= 1000
    assert list(tmp_path.glob(".*")) == []


# ------------------------------------------------------------------------------------------- what cannot be written


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room on the disk"),
        (errno.EDQUOT, "make room on the disk"),
        (errno.EROFS, "choose a place that can be written to"),
        (errno.EACCES, "choose a place that can be written to"),
        (errno.EIO, "check the path and the disk"),
    ],
)
def test_a_failed_write_names_the_file_and_what_to_do(tmp_path, number, advice):
    """Writing to an open file fails without a name: a bare [Errno 28] was all that a user saw."""
    reason = os.strerror(number)
    with pytest.raises(NotWritten) as caught, replacing(tmp_path / "log.csv"):
        raise OSError(number, reason)
    assert str(caught.value).startswith(f"{tmp_path / 'log.csv'} could not be written ({reason}): {advice}")
    assert (caught.value.errno, caught.value.strerror) == (number, reason)
    assert os.listdir(tmp_path) == []


def test_what_is_in_the_way_of_a_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/inside").touch()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    for path in (Path("folder"), Path("file/log.csv"), Path("file/a/b/log.csv"), tmp_path / "file/log.csv"):
        with pytest.raises(NotWritten) as caught, replacing(path) as temporary:
            temporary.write_text("new")
        assert str(caught.value).startswith(f"{path} could not be written (")
        assert "move away what has its name or that of its folder" in str(caught.value)
        assert "Errno" not in str(caught.value)


def test_a_network_that_fails_and_another_file_that_is_missing_are_not_the_files_fault(tmp_path):
    other = tmp_path / "other/source"
    for error in (
        ConnectionResetError(errno.ECONNRESET, "reset by peer"),
        TimeoutError("timed out"),
        ssl.SSLError(1, "record layer failure"),  # the number of EPERM
        FileNotFoundError(errno.ENOENT, "No such file or directory", str(other)),
        NotWritten(other, OSError(errno.ENOSPC, "No space left on device")),
        OSError("cannot write mode F as PNG"),
    ):
        with pytest.raises(type(error)) as caught, replacing(tmp_path / "file"):
            raise error
        assert caught.value is error
