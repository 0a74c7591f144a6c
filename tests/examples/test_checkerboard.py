"""The checkerboard example as a user starts it: on built-in data, in seconds."""

import importlib.util
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nanogan import checkpoint
from nanogan.analysis import spectrum
from nanogan.analysis.classifier import Classifier
from nanogan.images import save_png
from nanogan.models import dcgan
from tests.examples.starting import EXAMPLES, run

SMALL = ("--dry-run", "--data", "digits", "--image-size", "16")


def test_a_dry_run_trains_and_its_networks_can_be_measured_again(tmp_path):
    classifier = tmp_path / "classifier.safetensors"
    checkpoint.save(classifier, Classifier(image_size=16, channels=1, width=2))
    options = ("--seeds", "2", "--kinds", "resize", "deconv", "--classifier", classifier)
    code, out, err = run("checkerboard.py", *SMALL, *options, folder=tmp_path)
    assert (code, err) == (0, "")
    left = tmp_path / "runs" / "checkerboard"
    numbers = json.loads((left / "numbers.json").read_text())
    assert numbers["deconv untrained"]["2"] > 5 * numbers["noise"]["2"]  # pictures with checkerboards, and without
    assert numbers["resize untrained"]["2"] < 0.6 * numbers["noise"]["2"]
    assert len(numbers["deconv3 untrained"]["2, each seed"]) == 2
    assert "deconv3 trained" not in numbers
    kernels = [numbers[f"{kind} kernels_over_a_pixel"] for kind in ("deconv", "deconv5", "deconv3")]
    assert kernels == [[4, 4], [4, 9], [1, 4]]
    assert set(numbers["resize trained, gradient"]) == {"2", "4", "2 down", "2 across", "2 both", "2, each seed"}
    assert list(numbers["deconv peak_2_at_steps"]) == ["0", "1", "2", "3"]
    assert len(numbers["deconv trained, frechet_distance"]) == 2
    assert 0.1 < numbers["resize processor_ms_per_step"] < 1000
    assert 0.1 < numbers["resize ms_per_step"] < 10_000
    for name in ("samples.png", "spectra.png", "curves.png"):
        with Image.open(left / name) as picture:
            assert min(picture.size) > 200

    again = (left / "resize" / "generator.safetensors", left / "deconv" / "generator.safetensors")
    code, out, err = run("checkerboard.py", *SMALL, "--checkpoint", *again, "--out", "again", folder=tmp_path)
    assert (code, err) == (0, "")
    measured = json.loads((tmp_path / "again" / "numbers.json").read_text())
    first = numbers["resize trained"]["2, each seed"][0]
    assert measured[f"{again[0]} trained"]["2"] == pytest.approx(first, rel=1e-3)
    assert f"{again[1]} untrained, gradient: " in out
    assert not (tmp_path / "again" / "curves.png").exists()


def test_the_same_seed_gives_the_same_numbers_and_both_kinds_meet_the_same_discriminator():
    spec = importlib.util.spec_from_file_location("checkerboard", EXAMPLES / "checkerboard.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    args = SimpleNamespace(image_size=16, channels=1, width=2)
    made = {kind: example.networks(kind, args, 3, "cpu") for kind in example.KINDS}
    discriminators = [d.state_dict() for _, d in made.values()]
    for name, array in discriminators[0].items():
        assert all(other[name].tobytes() == array.tobytes() for other in discriminators)
    kernels = {kind: g.layers[-2].params["weight"].shape[2:] for kind, (g, _) in made.items()}
    assert kernels == {"deconv": (4, 4), "deconv5": (5, 5), "deconv3": (3, 3), "resize": (3, 3)}
    for kind, (g, _) in made.items():
        again, _ = example.networks(kind, args, 3, "cpu")
        assert all(a.tobytes() == again.state_dict()[name].tobytes() for name, a in g.state_dict().items()), kind
        z = np.ones((2, example.LATENT), np.float32)
        assert g.forward(z, train=False)[0].shape == (2, 1, 16, 16)
        for layer in g.layers:  # from N(0, 0.02)
            if "weight" in layer.params and layer.params["weight"].ndim == 4 and layer.params["weight"].size > 500:
                assert layer.params["weight"].std() == pytest.approx(0.02, rel=0.2)
    settled = example.settled(made["deconv"][0], 3, "cpu")
    assert settled[1].buffers["num_batches_tracked"] == example.SETTLING
    assert made["deconv"][0][1].buffers["num_batches_tracked"] == 0
    assert set(spectrum.periods(16, 16)) == {2, 4}


def test_a_folder_and_a_generator_without_its_discriminator(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(20):
        save_png(tmp_path / "photos" / f"{i}.png", rng.integers(0, 256, (20, 16, 3), dtype=np.uint8))
    g = dcgan.generator(image_size=16, channels=3, width=2, latent=5, upsample="resize", rng=rng)
    checkpoint.save(tmp_path / "g.safetensors", g)
    code, out, err = run(
        "checkerboard.py", "--data", "photos", "--checkpoint", "g.safetensors", "--samples", "16", folder=tmp_path
    )
    assert (code, err) == (0, "")
    assert "pictures: 10" in out
    assert "g.safetensors trained: " in out
    assert "gradient" not in out


def test_a_users_mistake_gets_one_sentence(tmp_path):
    for name, size in (("a", 16), ("b", 8)):
        checkpoint.save(tmp_path / f"{name}.safetensors", dcgan.generator(image_size=size, channels=1, width=2))
    checkpoint.save(tmp_path / "classifier.safetensors", Classifier(image_size=8, channels=1, width=2))
    for arguments, told in (
        (("--checkpoint", "none.safetensors"), "there is no checkpoint none.safetensors: train one first"),
        (("--checkpoint", "a.safetensors", "b.safetensors"), "b.safetensors draws 8 x 8 in 1 channels"),
        (("--image-size", "30"), "a DCGAN cannot draw pictures of 30 pixels"),
        (("--classifier", "classifier.safetensors"), "the classifier expected pictures (N, 1, 8, 8)"),
    ):
        code, _, err = run("checkerboard.py", *SMALL, *arguments, folder=tmp_path)
        assert code == 2
        assert told in err
        assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()
