"""``python -m nanogan.gradcheck``: check every operation, layer, network and game that has EXAMPLES.

Prints a table. The column "cases" counts shapes, options and modes tried; --verbose names them.
"""

import argparse
import importlib
import importlib.util
import traceback

import numpy as np

from nanogan import cli, ops
from nanogan.backend import device_of, get_device, to_device, to_numpy
from nanogan.errors import UserError
from nanogan.gradcheck import Report, check_layer, check_operation
from nanogan.gradcheck.cases import GAMES, LAYERS, NETWORKS, OPERATIONS
from nanogan.gradcheck.games import check_game
from nanogan.progress import bar, say

TORCH_TOLERANCE = 1e-11  # float64 on both sides, which add up in other orders
DRAWS = 2  # sets of random inputs for each case


def operations(names, device, draws):
    """Yield (name, shapes, report, error against torch or None) for every case of the operations ``names``."""
    functional = torch_functional()
    for case in OPERATIONS:
        if case.op not in names:
            continue
        for draw in range(draws):
            rng = np.random.default_rng(draw)
            inputs = {name: to_device(array, device) for name, array in case.draw(rng).items()}
            positional, _ = case.split(inputs)
            options = lambda case=case, inputs=inputs: case.split(inputs)[1]  # noqa: E731
            report = attempt(
                check_operation,
                *case.pair,
                positional,
                options,
                differentiable=case.differentiable,
                subject=str(case),
                rng=rng,
            )
            error = None if functional is None else attempt(torch_error, case, inputs, functional, rng)
            yield case.op, str(case), report, error


def networks(names, device, draws):
    """Yield (name, shapes, report, None) for the layers and networks ``names``."""
    for name, (make, draw_input) in (LAYERS | NETWORKS).items():
        if name not in names:
            continue
        for draw in range(draws):
            rng = np.random.default_rng(draw)
            x = to_device(draw_input(rng), device)
            for train in (True, False):
                report = attempt(check_layer, make().to(device), x, train=train, rng=rng)
                shape = "x".join(map(str, x.shape))
                yield name, f"{name}, input {shape}, {'train' if train else 'eval'}", report, None


def games(names, device, draws):
    """Yield (name, shapes, report, None) for the games ``names``."""
    for name, (game, options, shapes) in GAMES.items():
        if name not in names:
            continue
        for draw in range(draws):
            report = attempt(check_game, game, options, shapes, device=device, subject=name, seed=1000 * draw)
            yield name, f"{name}, {options}, {shapes}", report, None


def attempt(check, *args, **options):
    """Return the check's result; if the code that is checked raises, a failed Report that says what and where.

    So one broken operation does not cost the rest of the table.
    """
    try:
        return check(*args, **options)
    except Exception as error:
        if isinstance(error, (UserError, AssertionError)) and str(error):
            return Report("", broken=[str(error)])
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error}".rstrip(": ")
        return Report("", broken=[f"{message} ({frame.filename}, line {frame.lineno}, {frame.line})"])


def torch_functional():
    """Return torch.nn.functional where torch is installed, else None. nanogan itself never needs it."""
    if importlib.util.find_spec("torch") is None:
        return None
    return importlib.import_module("torch").nn.functional


def torch_error(case, inputs, functional, rng):
    """Return the worst relative difference of y and of every gradient from torch's, on the same inputs and dy."""
    torch = importlib.import_module("torch")
    positional, named = case.split(inputs)
    forward, backward = case.pair
    y, cache = forward(*(array.copy() for array in positional.values()), **named)
    dy = rng.standard_normal(y.shape)
    gradients = backward(to_device(dy, device_of(y)) if dy.ndim else float(dy), cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)

    tensors = {name: torch.tensor(to_numpy(array)) for name, array in inputs.items()}
    checked = [name for name in case.differentiable if name is not None]
    for name in checked:
        tensors[name].requires_grad_()
    expected = case.expected(functional, tensors)
    expected.backward(torch.tensor(dy))
    pairs = [(y, expected.detach())]
    found = zip(case.differentiable, gradients, strict=False)
    pairs += [(gradient, tensors[name].grad) for name, gradient in found if name is not None]
    return max(relative_error(to_numpy(ours), theirs.numpy()) for ours, theirs in pairs)


def relative_error(ours, theirs):
    """The largest difference, as a share of the largest number."""
    scale = np.abs(theirs).max() or 1.0
    return float(np.abs(ours - theirs).max() / scale)


def main():
    known = [*dict.fromkeys(case.op for case in OPERATIONS), *LAYERS, *NETWORKS, *GAMES]
    parser = argparse.ArgumentParser(
        prog="python -m nanogan.gradcheck",
        description="Compare every backward pass with finite differences, and with torch where it is installed; check "
        "that caches are independent, gradients add up, and nothing is changed in place; check a step of every game.",
        allow_abbrev=False,
    )
    parser.add_argument("--op", action="append", metavar="NAME", help="only this operation, layer, network or game; "
                        "may be repeated")  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="every case and array, not only the worst")
    parser.add_argument("--device", default="cpu", help="cpu, gpu, or gpu:N (default: cpu)")
    args = parser.parse_args()
    names = args.op or known
    for name in names:
        if name not in known and f"{name}_forward" in ops.__all__:
            raise UserError(f"{name} has no EXAMPLES: write some at the end of its file, see nanogan.ops.examples")
        if name not in known:
            raise UserError(f"there is no operation, layer or game {name!r}: use one of {', '.join(known)}")
    rows, wrong = check_all(names, get_device(args.device), args.verbose)
    print_table(rows)
    unchecked = sorted({name.removesuffix("_forward") for name in ops.__all__ if name.endswith("_forward")} - {*known})
    if unchecked and not args.op:
        print(f"not checked, as their files have no EXAMPLES of them: {', '.join(unchecked)}")
    print("worst relative errors in float64; differences cannot tell better than about 1e-9")
    for text in wrong:
        print(f"\nWRONG: {text}")
    return 1 if wrong else 0


def check_all(names, device, verbose):
    """Check what is called ``names``; return a row of the table for each, and a text for each failed case."""
    rows, wrong = {}, []
    cases = sum(case.op in names for case in OPERATIONS) * DRAWS
    cases += sum(name in names for name in LAYERS | NETWORKS) * DRAWS * 2 + sum(name in names for name in GAMES) * DRAWS
    results = (item for group in (operations, networks, games) for item in group(names, device, DRAWS))
    for name, label, report, error in bar(results, total=cases, leave=False):
        if isinstance(error, Report):
            report.broken += error.broken
            error = None
        row = rows.setdefault(name, {"cases": 0, "error": 0.0, "torch": None, "passed": True})
        passed = report.passed and (error is None or error <= TORCH_TOLERANCE)
        row["cases"] += 1
        row["error"] = max(row["error"], report.error)
        if error is not None:
            row["torch"] = max(row["torch"] or 0.0, error)
        row["passed"] &= passed
        text = f"{label}\n{report}" + ("" if error is None else f"\n  against torch: {error:.1e}")
        wrong += [] if passed else [text]
        if verbose:
            say(text)
    return rows, wrong


def print_table(rows):
    has_torch = torch_functional() is not None
    wide = 1 + max(24, *map(len, rows))
    print(f"{'':{wide}}{'cases':>6}  {'finite differences':>18}  {'torch' if has_torch else 'no torch here':>13}")
    for name, row in rows.items():
        torch_column = "" if row["torch"] is None else f"{row['torch']:.1e}"
        verdict = "ok" if row["passed"] else "WRONG"
        print(f"{name:{wide}}{row['cases']:>6}  {row['error']:>18.1e}  {torch_column:>13}  {verdict}")


if __name__ == "__main__":
    cli.run(main, alone=True)
