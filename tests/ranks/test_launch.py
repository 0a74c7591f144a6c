"""What a process makes of what its launcher told it."""

import os
import sys

import pytest

from nanogan import cli, ranks
from nanogan.errors import UserError
from nanogan.ranks import launch

VARIABLES = [name for names in launch.NAMES for name in names]


@pytest.fixture
def told(monkeypatch):
    """A function that sets a launcher's variables, and no others."""

    def tell(**variables):
        for name in (*VARIABLES, *launch.THREADS):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return tell


@pytest.mark.parametrize(("variables", "rank", "size"), [
    ({}, 0, 1),
    ({"PMI_RANK": "3", "PMI_SIZE": "4"}, 3, 4),
    ({"PMI_RANK": "0", "PMI_SIZE": "1"}, 0, 1),
    ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, 1, 2),
    ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8"}, 5, 8),
    ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, 0, 1),  # the batch script itself, before any srun
    ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "PMI_RANK": "5", "PMI_SIZE": "8"}, 5, 8),
    ({"PMI_RANK": "nonsense", "PMI_SIZE": "4"}, 0, 1),
])  # fmt: skip
def test_every_launcher_is_understood(told, variables, rank, size):
    told(**variables)
    assert launch.launched() == (rank, size)


def test_another_mpis_launcher_is_refused():
    """Else each process would think that it is alone, and write the same files."""
    words = r"mpi4py uses Open MPI v5.0.11, which sees 1 of the 4 processes that the launcher started: start with that"
    with pytest.raises(UserError, match=words):
        launch.check(launch.Launched(0, 4), 1, "Open MPI v5.0.11")
    launch.check(launch.Launched(0, 4), 4, "Open MPI v5.0.11")


@pytest.mark.parametrize(("own", "others", "threads"), [
    ({0, 1, 2, 3}, [{0, 1, 2, 3}] * 2, 2),  # all may use all
    ({0, 1, 2, 3}, [{0, 1, 2, 3}] * 8, 1),
    ({2, 3}, [{0, 1}, {2, 3}], 2),  # the launcher gave each its own
    ({2, 3}, [{0, 1}, {0, 1}, {2, 3}, {2, 3}], 1),
])  # fmt: skip
def test_cores_are_shared_by_those_who_may_use_them(told, monkeypatch, own, others, threads):
    told()
    monkeypatch.setattr(launch, "cores", lambda: own)
    monkeypatch.setattr(launch, "_sharing", 1)
    assert launch.core_count() == len(own)
    launch.share_cores(others)
    assert launch.core_count() == threads


def test_the_users_number_of_threads_stays(told):
    told(NANOGAN_THREADS="")
    launch.use_threads(3)
    assert os.environ["NANOGAN_THREADS"] == "3"
    told(NANOGAN_THREADS="", OMP_NUM_THREADS="5")
    launch.use_threads(3)
    assert os.environ["NANOGAN_THREADS"] == ""


@pytest.mark.parametrize(("variables", "words"), [
    ({}, ""),
    ({"PMI_RANK": "0", "PMI_SIZE": "4"}, "mpiexec -n 4 "),
    ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "PMI_RANK": "5", "PMI_SIZE": "8"}, "srun -n 8 "),
])  # fmt: skip
def test_a_command_that_goes_on_starts_as_many(told, variables, words):
    told(**variables)
    assert cli.command("--resume").startswith(f"{words}{cli._start()[0]}")


@pytest.mark.parametrize(("rank", "speaks"), [("0", True), ("1", False)])
def test_the_first_of_several_processes_speaks_for_all(told, monkeypatch, capfd, rank, speaks):
    told(PMI_RANK=rank, PMI_SIZE="2")
    monkeypatch.setattr(ranks, "start", lambda: ranks.ALONE)
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, getattr(sys, stream))  # put back at the end

    def main():
        print("out")
        print("err", file=sys.stderr)
        raise UserError("nobody's mistake")

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    assert out == ("out\n" if speaks else "")
    assert err.startswith("err\n") == err.endswith("error: nobody's mistake\n") == speaks


def test_a_script_that_does_not_train_is_refused(told):
    told(PMI_RANK="0", PMI_SIZE="2")
    with pytest.raises(UserError, match="this script runs in one process: start it without mpiexec"):
        cli.parser("", out="x")
    cli.parser("", out="x", together=True)
    told()
    cli.parser("", out="x")
