"""The example's wrong layer is found wrong in both gradients, the mended one right."""

from tests.examples.starting import succeed


def test_it_starts_wrong_and_is_mended(tmp_path):
    out = succeed("gradcheck_your_own_layer.py", "--dry-run", "--out", "here", folder=tmp_path)
    wrong, right = out.split("SharpSoftplus: right")
    assert wrong.startswith("SharpSoftplusWrong: WRONG")
    assert "dx[" in wrong
    assert "a factor of 2 too much?" in wrong  # a = 2
    assert "dsharpness: backward says" in wrong
    assert right.count("right to") == 2
    assert (tmp_path / "here/report.txt").read_text() in out
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
