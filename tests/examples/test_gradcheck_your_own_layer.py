"""The example's wrong layer is found wrong in both gradients, the mended one right."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "gradcheck_your_own_layer.py"


def test_it_starts_wrong_and_is_mended(tmp_path):
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--dry-run", "--out", "here"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    wrong, right = result.stdout.split("SharpSoftplus: right")
    assert wrong.startswith("SharpSoftplusWrong: WRONG")
    assert "dx[" in wrong
    assert "a factor of 2 too much?" in wrong  # a = 2
    assert "dsharpness: backward says" in wrong
    assert right.count("right to") == 2
    assert (tmp_path / "here/report.txt").read_text() in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
