"""What the other tests rely on: a program run in this process finds and leaves what it would in one of its own."""

import json
import os
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

from nanogan import backend
from tests import starting

LOOK = """
import json, os, signal, sys, warnings
import numpy as np
from nanogan import backend, cli, dispatch

if __name__ == "__main__":
    json.dump(
        {
            "arguments": sys.argv,
            "start": sys.orig_argv,
            "again": cli.command("--resume", "a b"),
            "path": sys.path[0],
            "folder": os.getcwd(),
            "file": __file__,
            "variable": os.environ["VARIABLE"],
            "input": sys.stdin.read(),
            "terminals": [sys.stdout.isatty(), sys.stderr.isatty()],
            "encodings": [sys.stdout.encoding, sys.stderr.encoding],
            "main": sys.modules["__main__"].json.__name__,
            "precision": backend.matmul_precision(),
            "fast": dispatch.FAST,
            "errors": np.geterr(),
        },
        sys.stdout,
    )
    print("é: to be read", file=sys.stderr)
"""


@pytest.fixture
def script(tmp_path):
    """A function that writes a script beside others, and returns its path."""

    def script(text):
        (tmp_path / "scripts").mkdir(exist_ok=True)
        path = tmp_path / "scripts" / "script.py"
        path.write_text(text, encoding="utf-8")
        return path

    return script


def both(program, *arguments, **options):
    """What ``program`` returns and prints here, and in a process of its own."""
    here = starting.run(program, *arguments, **options)
    with starting.process(program, *arguments, **options) as there:
        out, err = there.communicate(timeout=60)
    return (here.returncode, here.stdout, here.stderr), (there.returncode, out, err)


def test_a_script_finds_what_it_finds_in_a_process_of_its_own(script, tmp_path):
    """Also where this process is set otherwise."""
    backend.set_matmul_precision("bf16")
    try:
        with np.errstate(all="raise"):
            here, there = both(script(LOOK), "--epochs", 3, folder=tmp_path, VARIABLE="set", PYTHONIOENCODING="utf-8")
        assert backend.matmul_precision() == "bf16"
    finally:
        backend.set_matmul_precision("float32")
    assert json.loads(here[1]) == json.loads(there[1])
    assert here[1:] == there[1:]
    assert json.loads(here[1])["arguments"][1:] == ["--epochs", "3"]


@pytest.mark.parametrize(
    "end",
    [
        "",
        "raise SystemExit",
        "raise SystemExit(3)",
        "raise SystemExit('a sentence')",
        "raise SystemExit(True)",
    ],
)
def test_the_exit_status_is_the_same(script, end):
    here, there = both(script(f"print('begun', flush=True)\n{end}"))
    assert here == there


def commands():
    """The modules and packages of nanogan that ``python -m`` starts."""
    package = starting.ROOT / "nanogan"
    for path in [*package.glob("*.py"), *package.glob("*/__main__.py")]:
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8"):
            yield f"nanogan.{path.parent.name if path.stem == '__main__' else path.stem}"


@pytest.mark.parametrize("command", sorted(commands()))
def test_a_command_is_the_same(command, tmp_path):
    """Its help, and not a word on standard error: a process warns of a module that ``import nanogan`` imports too."""
    here, there = both(command, "--help", folder=tmp_path)
    assert here == there
    assert here[0] == 0
    assert here[2] == ""


def test_everything_is_put_back(script, tmp_path, monkeypatch):
    monkeypatch.setenv("KEPT", "yes")

    def state():
        return (
            [sys.argv, sys.orig_argv, list(sys.path), sys.stdin, sys.stdout, sys.stderr, sys.modules["__main__"]],
            [dict(os.environ), os.getcwd(), np.geterr(), backend.matmul_precision(), list(warnings.filters)],
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        )

    before = state()
    changes = script(
        "import os, signal, sys, warnings\n"
        "import numpy as np\n"
        "from nanogan import backend\n"
        "np.seterr(all='raise'); backend.set_matmul_precision('bf16'); warnings.simplefilter('ignore')\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)\n"
        "os.environ['NEW'] = '1'; del os.environ['KEPT']; os.chdir('/')\n"
        "sys.argv.append('more'); sys.path.insert(0, '/'); sys.stdout.reconfigure(line_buffering=True)\n"
        "raise SystemExit(1)\n"
    )
    assert starting.run(changes, folder=tmp_path).returncode == 1
    assert state() == before


def test_a_traceback_is_raised(script):
    with pytest.raises(ZeroDivisionError):
        starting.run(script("1 / 0"))
    assert starting.run(script("print(2)")).stdout == "2\n", "and what follows is not harmed"


@pytest.mark.skipif(os.name == "nt", reason="no shell's background there")
def test_the_tests_pass_as_a_background_job_of_a_shell():
    """One that presses Ctrl-C in its own process, in a session of pytest that was started with Ctrl-C ignored."""
    test = "tests/examples/test_one_nn.py::test_ctrl_c_while_the_baseline_trains_leaves_no_table"
    with starting.ctrl_c():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
        result = subprocess.run(command, cwd=starting.ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout


def test_ctrl_c_reaches_a_process_where_it_is_ignored_here(script):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        path = script("import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)")
        with starting.process(path) as process:
            assert process.communicate(timeout=60)[0] == "True\n"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        with starting.ctrl_c(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
