"""The faces and the arithmetic as a user starts them."""

import json

import pytest
from PIL import Image

from nanogan import checkpoint
from nanogan.models import dcgan
from tests.examples.starting import run


def test_a_generator_of_faces_is_trained_and_calculated_with(tmp_path):
    code, out, err = run("faces_dcgan.py", "--dry-run", "--width", 4, folder=tmp_path)
    assert code == 0, err
    code, out, err = run("latent_arithmetic.py", "--dry-run", folder=tmp_path)
    assert code == 0, err
    out = tmp_path / "runs/latent_arithmetic"
    numbers = json.loads((out / "numbers.json").read_text())
    assert numbers["classifier_accuracy"] > 0.4
    assert {"smile_success", "smile_random", "mean_of_10_kept"} <= numbers.keys()
    with Image.open(out / "samples.png") as sheet:
        assert sheet.mode == "RGB"


def test_samples_of_ones_own_choice(tmp_path):
    g = dcgan.generator(image_size=16, channels=1, latent=6, width=4)
    checkpoint.save(tmp_path / "g.safetensors", g)
    grey = ("--checkpoint", "g.safetensors", "--out", "out", "--samples", 50)
    code, out, err = run("latent_arithmetic.py", *grey, folder=tmp_path)
    assert code == 0, err
    assert "choose some and add -a, -b and -c" in out
    assert not (tmp_path / "out/arithmetic.png").exists()
    code, out, err = run("latent_arithmetic.py", *grey, "-a", 3, 17, "-b", 4, "-c", 5, 6, 49, folder=tmp_path)
    assert code == 0, err
    with Image.open(tmp_path / "out/arithmetic.png") as sheet:  # 2+1, -, 1+1, +, 3+1, =, nine
        assert sheet.size == (2 + 18 * 21, 2 + 18)
    with Image.open(tmp_path / "out/samples.png") as sheet:
        assert sheet.size == (2 + 10 * 34, 2 + 5 * 47)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (),
            "there is no generator runs/faces_dcgan/generator.safetensors: train one first (python examples/faces_dc",
        ),
        (("-a", 1), "give -a, -b and -c"),
        (("--checkpoint", "g.safetensors", "-a", 1, "-b", 2, "-c", 2000), "from 0 to 1999, got 2000: add --samples"),
    ],
)
def test_mistakes_get_one_sentence(tmp_path, arguments, message):
    checkpoint.save(tmp_path / "g.safetensors", dcgan.generator(image_size=8, channels=1, latent=2, width=2))
    code, out, err = run("latent_arithmetic.py", *arguments, folder=tmp_path)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
