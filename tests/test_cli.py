"""Scripts under all kinds of standard streams: a notebook's, closed ones, those of other encodings; paths with ~."""

import argparse
import ast
import contextlib
import errno
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from nanogan import cli, dispatch, info, ops, progress
from nanogan.data import load_mnist
from nanogan.data.sets import download
from nanogan.disk import NotWritten
from nanogan.errors import DataNotFound, UserError
from nanogan.recipes import experiments
from tests import starting
from tests.data.sets.test_mnist import write_set
from tests.starting import EXAMPLES, ROOT

EMPTY = "expected a path or a name, got an empty text: for the working folder write ."
SCRIPT = EXAMPLES / "mnist_dcgan.py"
NAME = "图片\x1b[31m\n" + os.fsdecode(b"\xe9")


class Notebook(io.StringIO):
    """A notebook's standard error: no terminal, no number, no reconfigure."""

    __module__ = "ipykernel.iostream"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def closed(stream):
    stream.close()
    return stream


def finish(main):
    """The exit status of a script that calls ``main``."""
    with pytest.raises(SystemExit) as end:
        cli.run(main)
    return end.value.code


# ------------------------------------------------------------------------------------------------ what ends a script


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a\nb"), r"a\nb: Permission denied"),
        (
            OSError(errno.ENOSPC, "No space left on device"),  # of print, as into /dev/full
            "No space left on device: a file or the standard output could not be read or written",
        ),
        (OSError("x could not be written (a reason)"), "x could not be written (a reason)"),
        (NotWritten("x", OSError(errno.ENOSPC, "Full")), "x could not be written (Full): make room on the disk, or"),
    ],
)
def test_an_error_of_the_system_is_a_sentence_that_names_the_file(monkeypatch, capsys, error, sentence):
    def main():
        raise error

    monkeypatch.setattr(sys, "argv", ["x/script.py"])
    assert finish(main) == 1
    assert capsys.readouterr().err.startswith(f"script.py: error: {sentence}")


def test_a_command_is_headed_by_its_own_name(tmp_path):
    result = starting.run("nanogan.convert", "nowhere.pth", "x.safetensors", folder=tmp_path)
    assert result.stderr.startswith("nanogan.convert: error: there is no file nowhere.pth")


def test_a_number_that_is_none_is_null_in_the_file(tmp_path, capsys):
    experiments.write_numbers(tmp_path / "numbers.json", {"a": float("nan"), "b": -float("inf"), "c": 1.5, "d": "text"})
    assert json.loads((tmp_path / "numbers.json").read_text()) == {"a": None, "b": None, "c": 1.5, "d": "text"}
    assert "a: nan\nb: -inf\nc: 1.5\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "expected"), [("0", False), ("off", False), ("False", False), ("1", True), ("", True)]
)
def test_fast_paths_are_turned_off_by_any_word_for_it(value, expected):
    program = "from nanogan import dispatch; print(dispatch.FAST)"
    environment = os.environ | {"NANOGAN_FAST": value, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.stdout == f"{expected}\n"


# ------------------------------------------------------------------------------------------------- standard streams


def test_a_script_runs_where_the_output_is_a_string():
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert finish(lambda: print("epoch 1")) is None
    assert out.getvalue() == "epoch 1\n"


def test_a_script_runs_without_standard_streams(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)

    def main():
        print("nobody", file=sys.stdout)
        print("reads", file=sys.stderr, flush=True)
        raise UserError("this")

    assert finish(main) == 2


@pytest.mark.parametrize(
    ("stream", "shown"),
    [
        (Terminal(), True),
        (Notebook(), True),
        (io.StringIO(), False),
        (io.TextIOWrapper(io.BytesIO()), False),
        (None, False),
        (closed(Terminal()), False),
        (closed(Notebook()), False),
    ],
)
def test_progress_is_shown_where_somebody_looks_on(monkeypatch, stream, shown):
    monkeypatch.setattr(sys, "stderr", stream)
    assert sum(progress.bar([1, 2, 3], desc="counting", leave=False)) == 6
    assert progress.is_watched(stream) is shown
    if isinstance(stream, io.StringIO) and not stream.closed:
        assert ("counting:   0%" in stream.getvalue()) is shown


def test_lines_between_bars_go_to_their_own_stream_or_nowhere(monkeypatch, capsys):
    progress.say("to be read")
    progress.warn("to be noticed")
    assert capsys.readouterr() == ("to be read\n", "to be noticed\n")
    monkeypatch.setattr(sys, "stderr", None)
    progress.warn("nobody sees this")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "stdout", None)
    progress.say("nor this")


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_harm_neither_the_run_nor_its_files(tmp_path, closing):
    """The first file that is opened would have the number of the closed stream, and what Ctrl-C says would go there."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os\n"
        "from nanogan import cli, progress\n"
        "from nanogan.training.interrupt import stop_between_steps\n"
        "def main():\n"
        "    file = open('file', 'wb', buffering=0)\n"
        "    with stop_between_steps() as stop:\n"
        "        os.kill(os.getpid(), 2)\n"
        "        print('out'); progress.say('out'); progress.warn('err')\n"
        "        os.write(1, b'out'); os.write(2, b'err')\n"
        "        return 7 if stop() else 1\n"
        "cli.run(main)\n",
        encoding="utf-8",
    )
    with starting.ctrl_c():
        command = f"{shlex.quote(sys.executable)} script.py {closing}"
        done = subprocess.run(command, shell=True, cwd=tmp_path, timeout=60, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (done.returncode, (tmp_path / "file").read_bytes()) == (7, b"")


@pytest.mark.parametrize("encoding", ["cp1252", "cp932", "ascii", "utf-8"])
def test_users_text_is_printed_in_every_encoding(monkeypatch, encoding):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def main():
        print("é 图片 ガン", os.fsdecode(b"\xe9"))
        raise UserError(f"no folder {NAME}")

    assert finish(main) == 2
    out.flush()
    printed = [stream.buffer.getvalue() for stream in (out, err)]
    expected = {"cp1252": b"\xe9", "utf-8": b"\xc3\xa9"}.get(encoding, rb"\xe9")
    assert printed[0].startswith(expected + b" ")
    assert printed[0].endswith(b" \\udce9\n")
    assert printed[1].endswith(b"\\x1b[31m\\n\\udce9\n"), "one line, without what a terminal would obey"
    assert printed[1].count(b"\n") == 1


def test_a_command_prints_a_name_that_the_encoding_lacks(tmp_path):
    (tmp_path / "图片").mkdir()
    (tmp_path / "图片" / "log.csv").write_text("epoch,step,loss_d\n1,1,0.5\n", encoding="utf-8")
    variables = {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    with starting.process("nanogan.report", "图片", folder=tmp_path, **variables) as done:
        out, err = done.communicate(timeout=60)
    assert (done.returncode, out, err) == (0, f"\\u56fe\\u7247{os.sep}report.html\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="a name that other systems refuse")
def test_a_run_on_a_folder_of_any_name_is_told_and_shown(tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (32, 32), (i, i, i)).save(folder / f"{i}.png")
    flags = "--dry-run", "--image-size=32", "--width=2", "--batch-size=2", "--out=run"
    done = starting.run(EXAMPLES / "folder_dcgan.py", NAME, *flags, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "图片\\x1b[31m\\n\\udce9: 4 images of 32 x 32, on cpu"
    assert json.loads((tmp_path / "run" / "options.json").read_text(encoding="utf-8"))["path"] == NAME
    assert "图片" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_nobody_reads_either_stream_any_more(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom nanogan import cli\ndef main():\n    while True: print('a line')\ncli.run(main)\n", "utf-8"
    )
    command = f"({shlex.quote(sys.executable)} script.py; echo $? >status) 2>&1 | head -1"
    subprocess.run(
        command, shell=True, cwd=tmp_path, timeout=60, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert (tmp_path / "status").read_text("utf-8") == "1\n"


# ------------------------------------------------------------------------------------------------ the command line


@pytest.mark.parametrize(
    ("orig_argv", "argv", "expected"),
    [
        (["py", "-u", "a.py", "--x"], ["a.py", "--x"], "py -u a.py --resume"),
        (["py", "a.py"], ["a.py"], "py a.py --resume"),
        (["py", "-m", "pack", "--x"], ["/pack/__main__.py", "--x"], "py -m pack --resume"),
        (["py", "-m", "ipykernel_launcher", "-f", "k.json"], ["a.py"], "python a.py --resume"),
        (["py", "-m", "ipykernel_launcher", "-f", "k.json"], ["a.py", "--out", "b", "--x"], "python a.py --resume"),
    ],
)
def test_the_command_to_go_on_is_one_that_starts_the_script(monkeypatch, orig_argv, argv, expected):
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    monkeypatch.setattr(sys, "argv", argv)
    assert cli.command("--resume") == expected


@pytest.mark.skipif(os.name == "nt", reason="a command of bash")
def test_the_command_to_go_on_names_every_file():
    word = NAME + "'\\ 1"
    done = subprocess.run(["bash", "-c", f"printf '%s|' {cli.command(word)}"], capture_output=True, check=True)
    assert done.stdout.endswith(b"|" + os.fsencode(word) + b"|")
    assert cli.command(word).isprintable()


# ----------------------------------------------------------------------------------------------------------- paths


def test_a_path_starts_at_the_home_folder_where_it_says_so(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    assert cli.path("~/x") == "/home/me/x"
    assert cli.path("~") == "/home/me"
    assert cli.path("./~") == "./~"
    assert cli.path("runs/a~b") == "runs/a~b"
    assert cli.path("mnist") == "mnist"


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_path_is_not_the_working_folder(text):
    with pytest.raises(argparse.ArgumentTypeError, match=EMPTY):
        cli.path(text)


def test_a_home_folder_that_is_not_known_is_no_folder_named_tilde(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda text: text)
    with pytest.raises(argparse.ArgumentTypeError, match="no home folder is known"):
        cli.path("~/x")


PATHS = {
    "FILE",
    "FILE.npy",
    "DIR",
    "FOLDER",
    "PATH",
    "NAME|PATH",
    "NAME|FOLDER",
    "CLASSIFIER",
    "RUN_FOLDER",
    "IN",
    "OUT",
}


@pytest.mark.parametrize("pattern", ["nanogan/**/*.py", "examples/*.py", "benchmarks/**/*.py"])
def test_every_flag_that_takes_a_path_knows_the_home_folder(pattern):
    for file in ROOT.glob(pattern):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call):
                options = {option.arg: ast.unparse(option.value) for option in call.keywords}
                if options.get("metavar", "").strip("'") in PATHS:
                    assert options.get("type", "").endswith("path"), f"{file}, line {call.lineno}"


def test_a_run_below_the_home_folder_is_resumed(tmp_path):
    def run(*arguments):
        home, command = str(tmp_path), ("--dry-run", "--batch-size=8", "--width=4", *arguments)
        done = starting.run(SCRIPT, *command, folder=tmp_path / "here", HOME=home, USERPROFILE=home)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "here").mkdir()
    write_set(tmp_path / "data", 32)
    run("--data-dir=~/data", "--out=~/run")
    assert (tmp_path / "run" / "log.csv").is_file()
    assert "last.safetensors is of a dry run" in run("--resume=~/run")
    assert "last.safetensors is of a dry run" in run("--resume", "--out=~/run", "--data-dir=~/data")
    assert list((tmp_path / "here").iterdir()) == [], "no folder named ~"


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("mnist_dcgan.py", ["--data-dir", "--out", "--resume", "--checkpoint", "--judge", "--best-by"]),
        ("acgan.py", ["--data"]),
        ("cyclegan.py", ["--translate", "--a", "--data"]),
        ("folder_dcgan.py", ["--cache"]),
        ("nearest.py", ["--unseen", "--discriminator", "--data", "--checkpoint"]),
    ],
)
def test_an_empty_path_gets_one_sentence(tmp_path, script, flags):
    for flag in flags:
        done = starting.run(EXAMPLES / script, flag, "", "--dry-run", folder=tmp_path)
        assert done.returncode == 2
        assert done.stderr.endswith(f"argument {flag}: {EMPTY}\n")
        assert list(tmp_path.iterdir()) == []


def test_NANOGAN_DATA_may_start_at_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("NANOGAN_DATA", "~/data")
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    assert download.usual_folders("mnist")[0] == tmp_path / "data" / "mnist"
    assert info.report()["data"]["NANOGAN_DATA"][0] == str(tmp_path / "data")


def test_without_a_home_folder_data_is_still_found_below_NANOGAN_DATA(tmp_path, monkeypatch):
    def unknown(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(DataNotFound, match="no home folder is known"):
        load_mnist()
    assert "no home folder is known" in info.report()["data"]["cache"]
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    assert download.usual_folders("mnist") == [tmp_path / "mnist"]


# ------------------------------------------------------------------------------------------------- another nanogan


def test_a_script_beside_another_nanogan_says_whose_code_runs(tmp_path, capsys, monkeypatch):
    (tmp_path / "nanogan").mkdir()
    (tmp_path / "nanogan" / "__init__.py").touch()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "examples" / "mnist_dcgan.py")])
    assert finish(lambda: 0) == 0
    expected = f"mnist_dcgan.py: nanogan runs from {Path(cli.__file__).parent}, not from {tmp_path / 'nanogan'} beside"
    err = capsys.readouterr().err
    assert err.startswith(expected)
    assert err.endswith(f"pip install -e {tmp_path}\n")
    assert err.count("\n") == 1
    monkeypatch.setattr(sys, "argv", [str(ROOT / "examples" / "mnist_dcgan.py")])
    assert finish(lambda: 0) == 0
    assert capsys.readouterr().err == ""


# -------------------------------------------------------------------------------------------------- what computes


@pytest.mark.parametrize("fast", [True, False])
def test_a_run_says_before_its_first_line_what_fast_paths_compute(tmp_path, fast):
    with mock.patch.object(dispatch, "FAST", fast):
        done = starting.run(SCRIPT, "--data=digits", "--dry-run", "--out=run", folder=tmp_path)
    lines = done.stdout.splitlines()
    if fast:
        rest = "the rest by nanogan/ops (all of it with NANOGAN_FAST=0)"
        names = "conv_transpose2d, batchnorm and relu, tanh, discriminate, conv2d, leaky_relu, adam"
        names += ", batchnorm and leaky_relu"
        assert lines.pop(2) == f"computed by nanogan/fast: {names}; {rest}"
    assert lines[2].startswith("[1/1][1/4]  Loss_D: ")
    assert "computed" not in "".join(lines)


def test_the_books_own_code_is_no_fast_path(rng):
    """nanogan/fast/cpu/small.py runs nanogan.ops: a change there has its effect."""
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 2, 4, 4), (3, 2, 4, 4)))
    with dispatch.watch() as ran:
        dispatch.dispatch(ops.conv2d_forward, ops.conv2d_backward, x, w, stride=2, padding=1)
    assert ran == ["nanogan.fast.cpu.small.conv2d_forward"]
    paths = dispatch.fast_paths("cpu")
    assert ran[0] not in paths
    assert paths["nanogan.fast.cpu.winograd.conv2d_forward"] == "conv2d"


def test_watching_ends_for_the_one_who_stops_watching(rng):
    x = rng.standard_normal((1, 2)).astype(np.float32)
    with dispatch.watch() as outer:
        with dispatch.watch() as inner:  # equal to the outer one so far
            dispatch.dispatch(ops.relu_forward, ops.relu_backward, x)
        dispatch.dispatch(ops.tanh_forward, ops.tanh_backward, x)
    assert inner == outer[:1]
    assert len(outer) == 2


def test_info_names_the_operations_that_have_fast_paths(monkeypatch):
    found = info.report()["settings"]["fast paths"]
    assert found[0] == "on; NANOGAN_FAST=0 leaves all to nanogan/ops"
    names = "adam, batchnorm, batchnorm and leaky_relu, batchnorm and relu, conv2d, conv_transpose2d, discriminate"
    assert f"cpu: {names}, leaky_relu, linear, relu, tanh" in found
    monkeypatch.setattr(dispatch, "FAST", False)
    assert info.report()["settings"]["fast paths"].startswith("off, by")


def test_the_fast_paths_of_a_gpu_are_named_where_it_works(double, tmp_path):
    names = [
        "adam", "batchnorm", "batchnorm and leaky_relu", "batchnorm and relu", "bce_with_logits", "conv2d",
        "conv_transpose2d", "hinge", "l1", "leaky_relu", "linear", "mean_probability", "move_average", "mse", "relu",
        "saturating_bce", "score", "sigmoid", "tanh",
    ]  # fmt: skip
    assert f"gpu: {', '.join(names)}" in info.report()["settings"]["fast paths"]
    flags = "--data=digits", "--dry-run", "--width=4", "--device=gpu", "--out=run"
    done = starting.run(SCRIPT, *flags, folder=tmp_path)
    said = [line for line in done.stdout.splitlines() if line.startswith("computed by ")]
    assert said == [
        "computed by nanogan/fast: conv_transpose2d, batchnorm and relu, tanh, conv2d, leaky_relu, "
        "batchnorm and leaky_relu, bce_with_logits, adam, mean_probability; the rest by nanogan/ops (all of it with "
        "NANOGAN_FAST=0)"
    ]
