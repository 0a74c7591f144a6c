"""Putting mistakes in, and running tests until one fails.

One process imports everything and collects the tests. For each mistake it forks; the child changes the function in its
own memory, runs the tests that judge it, those that are named like the function first, and says which failed. So
neither files nor the parent ever hold a mistake, and none waits for imports. Where the system cannot fork, mistakes are
put in and taken out again one after the other.
"""

import ast
import contextlib
import importlib.machinery
import inspect
import io
import os
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import pytest
import torch

from tests.sabotage.judges import judges
from tests.sabotage.trees import ROOT, code_of, whole_file

LIMIT = 120  # seconds that the tests of one mistake may take: a loop may have lost its end


class Broken(Exception):
    """The tests cannot judge: they fail without a mistake, or cannot run."""


def first_failures(mistakes, *, jobs=None, told=lambda mistake, test: None):
    """Return ``{title: the first test that failed, or None}``; ``told`` hears of each as soon as it is known."""
    runner = _Runner(list(mistakes), jobs or os.cpu_count() or 1, told)
    if not runner.mistakes:
        return {}
    files = sorted({str(path) for mistake in runner.mistakes for path in judges(mistake)})
    options = ["--tb=no", "--rootdir", str(ROOT), "--capture=sys", "-p", "no:cacheprovider", "-m", "not gpu"]
    _warm_up()
    with tempfile.TemporaryDirectory(prefix="nanogan-sabotage-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks beside threads: none of them is at work then
        runner.folder = os.environ["PYTEST_DEBUG_TEMPROOT"] = folder  # where tests write
        with contextlib.redirect_stdout(io.StringIO()) as output:
            pytest.main([*files, *options], plugins=[runner])
        del os.environ["PYTEST_DEBUG_TEMPROOT"]
    if runner.problem or len(runner.found) < len(runner.mistakes):
        raise Broken(runner.problem or output.getvalue())
    return runner.found


def _warm_up():
    """Have torch load here, once for all, what it loads when first used: seconds, for each child."""
    x = torch.ones(1, requires_grad=True)
    x.backward(torch.ones(1))
    torch.optim.SGD([x], 1e-3).step()


class _Runner:
    """A plugin for pytest, which in place of running all tests once runs some of them for every mistake."""

    def __init__(self, mistakes, jobs, told):
        self.mistakes, self.jobs, self.told = mistakes, jobs, told
        self.found, self.problem = {}, None
        self.failed = []  # tests, in a child
        self.running = {}  # process -> mistake

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_runtestloop(self, session):
        if session.testsfailed:
            return None  # a file could not be imported: let pytest say so
        self.files = {}
        for item in session.items:
            self.files.setdefault(item.path, []).append(item)
        try:
            for mistake in self.mistakes:
                self._start(mistake, self._tests_of(mistake))
            while self.running:
                self._wait()
            self._check({item.nodeid: item for item in session.items})
        except Exception:
            self.problem = traceback.format_exc()
        return True

    def _tests_of(self, mistake):
        """The tests to run. Those named like the function come first, then those named like its file.

        Mistakes that any device shows are tried on the CPU alone.
        """
        name = mistake.place.name.split(".")[0]
        for ending in ("_forward", "_backward", "_update", "_step"):
            name = name.removesuffix(ending)
        tests = [
            item
            for path in judges(mistake)
            for item in self.files.get(path, ())
            if mistake.on_gpu or not ("double" in item.nodeid or "double" in item.fixturenames)
        ]
        names = _letters(mistake.about or name), _letters(mistake.place.parts[-1]).rstrip("s")
        return sorted(tests, key=lambda item: [name not in _letters(item.name) for name in names])

    def _check(self, items):
        """A test that fails without a mistake, too, has noticed nothing."""
        noticed = {test for test in self.found.values() if test in items}
        self.failed = []
        outcome = self._run(None, [items[test] for test in sorted(noticed)], first_only=False)
        if outcome:
            self.problem = f"these tests fail without a mistake: {outcome}"

    # ---------------------------------------------------------------------------------------------- one mistake

    def _start(self, mistake, tests):
        if not hasattr(os, "fork"):
            self._tell(mistake, self._run(mistake, tests))
            return
        if len(self.running) == self.jobs:
            self._wait()
        sys.stdout.flush()
        child = os.fork()
        if not child:
            self._be_the_child(mistake, tests)
        self.running[child] = mistake

    def _be_the_child(self, mistake, tests):
        code = 1
        try:
            signal.alarm(LIMIT)
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            outcome = self._run(mistake, tests)
            code = 0
        except BaseException:
            outcome = traceback.format_exc()
        finally:
            self._outcome_of(os.getpid()).write_text(outcome)
            os._exit(code)

    def _outcome_of(self, process):
        return Path(self.folder, f"outcome-{process}")

    def _wait(self):
        child, status = os.wait()
        mistake = self.running.pop(child)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            self._tell(mistake, "no end" if number == signal.SIGALRM else f"the process died of signal {number}")
        elif status:
            raise Broken(f"{mistake.title}: {self._outcome_of(child).read_text()}")
        else:
            self._tell(mistake, self._outcome_of(child).read_text())

    def _tell(self, mistake, test):
        self.found[mistake.title] = test or None
        self.told(mistake, test or None)

    def _run(self, mistake, tests, first_only=True):
        """Run ``tests`` with the mistake; return the name of the first that failed, or all names, or ""."""
        self.failed = []
        with put_in(mistake) if mistake else contextlib.nullcontext():
            for test, following in zip(tests, [*tests[1:], None], strict=False):
                test.config.hook.pytest_runtest_protocol(item=test, nextitem=following)
                if self.failed and first_only:
                    return self.failed[0]
        return " ".join(self.failed)


def _letters(text):
    return "".join(filter(str.isalnum, text)).lower()


# ------------------------------------------------------------------------------------------------ changing nanogan


@contextlib.contextmanager
def put_in(mistake):
    """Change what is imported already, and what is imported meanwhile."""
    place, node = mistake.place, mistake.node
    loader = importlib.machinery.SourceFileLoader
    usual = loader.get_code

    def get_code(self, fullname):
        if Path(self.path) == place.path:
            return compile(whole_file(place, node), self.path, "exec")
        return usual(self, fullname)

    loader.get_code = get_code
    try:
        module = sys.modules.get(place.module)
        with _changed(vars(module), place, node) if module else contextlib.nullcontext():
            yield
    finally:
        loader.get_code = usual


@contextlib.contextmanager
def _changed(names, place, node):
    """Give a function other code: it stays the same function for all who know it. Constants get another value."""
    if isinstance(node, ast.Assign):
        before = names[place.name]
        exec(compile(ast.Module([node], []), str(place.path), "exec"), names)
        try:
            yield
        finally:
            names[place.name] = before
        return
    owner, _, name = place.name.rpartition(".")
    function = vars(names[owner])[name] if owner else names[name]
    function = getattr(function, "fget", None) or getattr(function, "__func__", function)
    function = inspect.unwrap(function)
    before = function.__code__, function.__defaults__, function.__kwdefaults__

    def value(default):
        return eval(compile(ast.Expression(default), str(place.path), "eval"), names)

    after = code_of(place, node), before[1], before[2]
    if ast.dump(node.args) != ast.dump(place.node.args):
        arguments = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        after = (
            after[0],
            tuple(map(value, node.args.defaults)) or None,
            {argument.arg: value(default) for argument, default in arguments if default} or None,
        )
    try:
        function.__code__, function.__defaults__, function.__kwdefaults__ = after
        yield
    finally:
        function.__code__, function.__defaults__, function.__kwdefaults__ = before
