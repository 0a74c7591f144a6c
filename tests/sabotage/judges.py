"""Which tests are asked about a mistake: those of the part of nanogan that it is in."""

import functools
import re

from tests.sabotage.trees import ROOT, NotFound

# Part of nanogan: test files, the fastest first. A file is found by its name wherever it stands below tests/;
# "models:test_dcgan" is the one below a folder "models". The first line that fits a function's file counts.
JUDGES = {
    "fast.gpu": ["test_gpu"],
    "fast": ["fast:test_cpu_together", "fast:test_cpu"],
    "dispatch": ["test_backend", "fast:test_cpu_together", "fast:test_cpu"],
    "backend": ["test_backend", "fast:test_cpu"],
    "ops.updates": ["test_optim", "test_ema"],
    "ops.batchnorm": ["ops:test_cases", "ops:test_numerics", "ranks:test_batchnorm", "ops:test_properties"],
    "ops": ["ops:test_cases", "ops:test_conv", "ops:test_numerics", "ops:test_properties"],
    "layers.init": ["test_layers", "models:test_dcgan"],
    "layers.losses": ["fast:test_cpu_together", "test_adversarial"],
    "layers.sequential": ["test_layers", "fast:test_cpu_together", "fast:test_cpu"],
    "layers": ["test_layers", "test_optim", "test_tangent"],
    "optim.ema": ["test_ema", "test_checkpoint"],
    "optim": ["test_optim"],
    "games.acgan": ["games:test_acgan", "test_games"],
    "games.conditional": ["games:test_conditional", "test_games"],
    "games.lsgan": ["games:test_lsgan", "test_games"],
    "games.vanilla": ["games:test_vanilla", "test_games"],
    "games.wgan": ["games:test_wgan", "test_games"],
    "games.wgan_gp": ["games:test_wgan_gp", "test_tangent", "test_games"],
    "games.semisupervised": ["games:test_semisupervised", "test_games", "ranks:test_every_game"],
    "games.stackgan": ["games:test_stackgan", "test_games"],
    "games.cyclegan": ["games:test_cyclegan", "test_games"],
    "games.discogan": ["games:test_discogan", "test_games"],
    "games.pool": ["test_pool"],
    "games.translation": ["games:test_cyclegan", "games:test_discogan"],
    "games": ["test_games", "games:test_dcgan", "test_adversarial"],
    "models.acgan": ["models:test_acgan"],
    "models.conditional": ["models:test_conditional"],
    "models.wgan": ["models:test_wgan"],
    "models.vanilla": ["models:test_vanilla", "games:test_vanilla"],
    "models.semisupervised": ["games:test_semisupervised", "examples:test_semisupervised"],
    "models.stackgan": ["models:test_stackgan", "games:test_stackgan"],
    "models.cyclegan": ["models:test_translators", "games:test_cyclegan"],
    "models.discogan": ["models:test_translators", "games:test_discogan"],
    "models": ["models:test_dcgan"],
    "checkpoint": ["test_ema", "test_checkpoint"],
    "training.parallel": ["ranks:test_every_game", "ranks:test_training", "ranks:test_mpiexec"],
    "training": ["test_loop", "training:test_resume"],
    "ranks.cards": ["test_cards"],
    "ranks": [
        "ranks:test_launch",
        "ranks:test_every_game",
        "ranks:test_shards",
        "ranks:test_training",
        "ranks:test_mpiexec",
    ],
}
ON_GPU = {  # the same for mistakes that only a GPU shows, outside fast/gpu
    "backend.arrays": ["test_backend"],
    "backend.cublas": ["test_cublas"],
    "backend.graphs": ["training:test_graph"],
    "backend.pinned": ["test_gpu_path"],
    "backend.precision": ["test_cublas", "test_precision"],
    "layers.norm": ["test_gpu"],
    "training.graph": ["training:test_graph"],
    "layers.flat": ["test_flat"],
    "layers.layer": ["test_flat", "test_gpu"],
    "optim": ["test_precision", "test_flat", "training:test_graph", "test_gpu_path"],
    "": ["test_precision", "test_gpu_path"],
}


def judges(mistake):
    """Return the test files that judge ``mistake``; where JUDGES has no line, those that import its module."""
    place = mistake.place
    if mistake.title.startswith("ranks: "):  # whatever part of nanogan it is in
        names = ("test_cards",) if mistake.on_gpu else ("ranks:test_batchnorm", *JUDGES["ranks"])
        return test_files(*names)
    outside = mistake.on_gpu and "fast" not in place.parts
    for part, names in (ON_GPU if outside else JUDGES).items():
        if not part or place.parts[1 : 1 + part.count(".") + 1] == tuple(part.split(".")):
            return test_files(*names)
    return importers(place.module)


@functools.cache
def test_files(*names):
    """The test files called ``names``; NotFound if there is none, or more than one, of a name."""
    found = []
    for name in names:
        folder, _, stem = name.rpartition(":")
        hits = sorted((ROOT / "tests").rglob(f"{stem}.py"))
        if folder:
            hits = [path for path in hits if folder in path.relative_to(ROOT).parts]
        if len(hits) != 1:
            raise NotFound(f"tests/ has {len(hits)} files {name}: see tests/sabotage/judges.py")
        found += hits
    return found


@functools.cache
def importers(module):
    """The test files that import ``module``, or are called like it; short ones first, and none that starts examples."""
    package, _, name = module.rpartition(".")
    pattern = re.compile(
        rf"from {re.escape(module)} import|import {re.escape(module)}\b|from {re.escape(package)} import .*\b{name}\b"
    )
    files = [path for path in ROOT.glob("tests/**/test_*.py") if "examples" not in path.parts]
    found = [path for path in files if pattern.search(path.read_text(encoding="utf-8"))]
    found = found or [path for path in files if path.stem == f"test_{name}"]
    if not found:
        raise NotFound(f"no test imports {module}: see tests/sabotage/judges.py")
    return sorted(found, key=lambda path: path.stat().st_size)
