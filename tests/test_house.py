"""The house: which part of nanogan may import which, so that arrows go one way and nothing runs in a circle."""

import ast
import itertools
from pathlib import Path

import pytest

import nanogan

ROOT = Path(nanogan.__file__).parent
BASE = {"errors", "folders", "progress", "text", "version"}
# part: what it may import besides itself and BASE. A new arrow needs a reason, and may not run back up.
MAY_IMPORT = {
    "errors": set(),
    "folders": set(),
    "progress": set(),
    "text": set(),
    "version": set(),
    "disk": set(),
    "backend": set(),
    "ranks": {"backend"},
    "cli": {"ranks"},
    "ops": {"backend"},
    "dispatch": {"backend"},
    "layers": {"ops", "dispatch", "backend"},
    "optim": {"layers", "ops", "dispatch", "backend"},
    "fast": {"layers", "ops", "dispatch", "backend"},
    "models": {"layers", "ops", "backend"},
    "games": {"models", "optim", "layers", "ops", "ranks", "backend"},
    "images": {"backend", "disk"},
    "data": {"images", "ranks", "backend", "disk"},
    "checkpoint": {"models", "optim", "layers", "backend", "disk"},
    "report": {"images", "disk", "cli"},
    "info": {"data", "dispatch", "ranks", "backend", "cli"},
    "training": {
        *("games", "checkpoint", "report", "info", "data", "images", "optim", "layers", "dispatch", "ranks"),
        *("backend", "disk"),
    },
    "analysis": {"games", "checkpoint", "data", "images", "models", "optim", "layers", "ops", "backend", "disk"},
    "gradcheck": {"games", "models", "optim", "layers", "ops", "backend", "cli"},
    "convert": {"checkpoint", "disk", "cli"},
    "recipes": {
        *("training", "analysis", "games", "checkpoint", "data", "images", "models", "optim", "layers", "backend"),
        *("ranks", "disk", "cli"),
    },
}
OF_BACKEND = {
    "array_module",
    "channels_last",
    "copy_into",
    "to_numpy",
    "seeded_rng",
    "narrow",
    "product",
}  # for the book


def modules():
    """{name: path} of all modules of nanogan."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(text):
    """Yield (module, name or None) of every import in a module's text, those inside functions too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            first = node.args[0]
            parts = first.values if isinstance(first, ast.JoinedStr) else [first]
            if isinstance(parts[0], ast.Constant):
                yield parts[0].value.rstrip("."), None


MODULES = modules()
IMPORTS = {
    name: {
        f"{module}.{what}" if f"{module}.{what}" in MODULES else module
        for module, what in imports_of(path.read_text(encoding="utf-8"))
        if module.split(".")[0] == "nanogan"
    }
    for name, path in MODULES.items()
}


def part_of(module):
    return module.split(".")[1] if "." in module else None


def test_the_table_has_no_circle_and_names_every_part():
    order = []
    while len(order) < len(MAY_IMPORT):
        ready = [part for part in MAY_IMPORT if part not in order and MAY_IMPORT[part] <= set(order)]
        assert ready, f"a circle among {set(MAY_IMPORT) - set(order)}"
        order += ready
    assert {part_of(module) for module in MODULES if part_of(module)} - BASE <= MAY_IMPORT.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module):
    part = part_of(module)
    if part is None:  # nanogan itself offers everything
        return
    allowed = MAY_IMPORT[part] | BASE | {part}
    if module == "nanogan.dispatch":
        allowed = allowed | {"fast"}  # the registry loads what registers itself
    wrong = {arrow for arrow in IMPORTS[module] if part_of(arrow) not in allowed}
    assert not wrong, f"{module} imports {wrong}, but {part} may import {sorted(allowed)} alone"


def test_the_book_knows_arrays_and_precision_alone():
    for module, path in MODULES.items():
        if part_of(module) == "ops":
            for source, name in imports_of(path.read_text(encoding="utf-8")):
                if source.startswith("nanogan.backend"):
                    assert name in OF_BACKEND, f"{module} imports {name} from {source}"


def test_no_modules_import_each_other_in_a_circle():
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}

    def reached(start):
        seen, waiting = set(), [start]
        while waiting:
            for arrow in IMPORTS[waiting.pop()]:
                # a package's own __init__ offers what its modules define: they may not import it, but it them
                if arrow not in seen and arrow in MODULES:
                    seen.add(arrow)
                    waiting.append(arrow)
        return seen

    circle = sorted(module for module in MODULES if module in reached(module))
    assert not circle, f"in a circle: {circle}"
    assert packages


def test_the_loop_is_read_in_a_minute():
    """No long functions where a run is put together."""
    for part, path in itertools.product(("training", "recipes", "games"), ROOT.rglob("*.py")):
        if part in path.relative_to(ROOT).parts[:1]:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno < 60, f"{path}: {node.name} has 60 lines or more"


def test_import_nanogan_leaves_the_process_as_it_was():
    """No fast path is loaded, no CuPy, no torch: what tunes the process comes with the first operation."""
    import subprocess
    import sys

    program = "import sys, nanogan; print([m for m in sys.modules if m.startswith(('nanogan.fast', 'cupy', 'torch'))])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
