"""The vanilla GAN's and LSGAN's scripts as a user starts them, and the experiment on what they left.

What all training scripts promise is in test_every_game.py.
"""

import json

from tests.examples.starting import run, size_of, succeed

DIGITS = ("--data", "digits", "--dry-run")


def test_two_runs_and_what_is_measured_on_their_networks(tmp_path):
    out = succeed("vanilla_gan.py", *DIGITS, "--hidden", 8, folder=tmp_path)
    assert "digits: 400 images of 28 x 28" in out
    assert "measured after epoch 1: sure " in out
    assert "gradient at G(z): " in out
    succeed("lsgan.py", *DIGITS, "--width", 2, "--judge", "runs/vanilla_gan/judge.safetensors", folder=tmp_path)
    succeed("vanishing_gradients.py", *DIGITS, folder=tmp_path)
    out = tmp_path / "runs/vanishing_gradients"
    assert sorted(path.name for path in out.glob("[!.]*")) == ["gradients.png", "numbers.json"]
    assert size_of(out / "gradients.png") == (890, 600)
    numbers = json.loads((out / "numbers.json").read_text())
    assert (
        numbers["D learns, G untrained, saturating, end"]["D's output"]
        < numbers["D learns, G untrained, saturating, start"]["D's output"]
    )
    assert (
        numbers["G learns, D trained, least squares, end"]["D's output"]
        > numbers["G learns, D trained, least squares, start"]["D's output"]
    )
    assert sum(row["share"] for row in numbers["LSGAN's samples"]) == 1


def test_images_are_generated_by_what_was_trained(tmp_path):
    succeed("vanilla_gan.py", *DIGITS, "--hidden", 8, folder=tmp_path)
    out = succeed("vanilla_gan.py", "--generate", 4, "--out", "images", folder=tmp_path)
    assert "4 images: images/generated.png" in out


def test_a_users_mistake_gets_one_sentence(tmp_path):
    for script, arguments, message in (
        ("vanishing_gradients.py", (), "no checkpoint runs/vanilla_gan/generator.safetensors: train one first (python "
         "examples/vanilla_gan.py), or name one with --vanilla"),
        ("vanishing_gradients.py", ("--steps", "3"), "--steps"),
        ("lsgan.py", ("--image-size", "30"), "of 30 pixels"),
        ("vanilla_gan.py", ("--loss", "hinge"), "argument --loss: invalid choice: 'hinge'"),
        ("vanilla_gan.py", ("--generate", "4"), "there is no checkpoint runs/vanilla_gan/generator.safetensors"),
    ):  # fmt: skip
        code, _, err = run(script, *arguments, folder=tmp_path)
        assert code == 2
        assert message in err
        assert len([line for line in err.splitlines() if "error: " in line]) == 1
