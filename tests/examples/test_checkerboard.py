"""The checkerboard example as a user starts it: on built-in data, in seconds."""

import importlib.util
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nanogan import checkpoint
from nanogan.analysis.inside import spectrum
from nanogan.analysis.judges.classifier import Classifier
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


def loaded():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("checkerboard", EXAMPLES / "checkerboard.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


def seen_by(monkeypatch, folder, *arguments):
    """Run the example here, and return the pictures that train, that are the reference, and that are measured as real.

    As lists of the values of their first pixels, of data sets whose pictures are each of one value.
    """
    example, seen = loaded(), {}
    train, distances = example.train, example.distances

    def watched_train(g, d, pictures, *rest):
        seen["trained on"] = values(pictures[np.arange(len(pictures))])
        return train(g, d, pictures, *rest)

    def watched_distances(classifier, reference, looks):
        seen["reference"], seen["real"] = values(reference), values(looks[0]["real"][0])
        return distances(classifier, reference, looks)

    def values(pictures):
        return pictures[:, 0, 0, 0].tolist()

    monkeypatch.setattr(example, "train", watched_train)
    monkeypatch.setattr(example, "distances", watched_distances)
    monkeypatch.chdir(folder)
    checkpoint.save("classifier.safetensors", Classifier(image_size=16, channels=3, width=2))
    options = ("--dry-run", "--image-size", "16", "--kinds", "resize", "--classifier", "classifier.safetensors")
    monkeypatch.setattr(sys, "argv", ["checkerboard.py", *options, *arguments])
    assert example.main() == 0
    return seen["trained on"], seen["reference"], seen["real"]


def of_values(values):
    """Grey pictures of 16 x 16 pixels, uint8, each of one value."""
    return np.asarray(values, np.uint8)[:, None, None].repeat(16, axis=1).repeat(16, axis=2)


def test_what_is_measured_was_never_trained_on_and_is_not_its_own_reference(tmp_path, monkeypatch):
    test = np.arange(100, 190)
    arrays = {"x_train": of_values([7] * 170), "y_train": np.zeros(170, int), "x_test": of_values(test)}
    np.savez(tmp_path / "set.npz", **arrays, y_test=np.zeros(90, int))
    trained_on, reference, real = seen_by(monkeypatch, tmp_path, "--data", "set.npz")
    assert set(trained_on) == {7}
    assert (len(set(reference)), len(set(real))) == (32, 32)
    assert set(reference) | set(real) <= set(test.tolist())
    assert not set(reference) & set(real)


def test_unseen_pictures_of_a_folder_are_held_out_of_training(tmp_path, monkeypatch):
    for i, picture in enumerate(of_values(range(100, 150))):
        save_png(tmp_path / "photos" / f"{i}.png", picture[..., None])
    trained_on, reference, real = seen_by(monkeypatch, tmp_path, "--data", "photos", "--samples", "16")
    assert (len(reference), len(real)) == (16, 16)
    assert sorted(trained_on + reference + real) == list(range(100, 150))
    again = seen_by(monkeypatch, tmp_path, "--data", "photos", "--samples", "16")
    assert again == (trained_on, reference, real)
    assert min(reference) < 125 < max(reference)  # from all over the folder, which may be sorted by what is shown


def test_black_pictures_are_measured_and_drawn(tmp_path):
    black = {"x_train": of_values([0] * 20), "y_train": np.zeros(20, int)}
    np.savez(tmp_path / "set.npz", **black, x_test=black["x_train"], y_test=black["y_train"])
    options = ("--dry-run", "--image-size", "16", "--kinds", "resize", "--data", "set.npz")
    code, out, err = run("checkerboard.py", *options, folder=tmp_path)
    assert (code, err) == (0, "")
    assert "real: {'2': 1.0," in out


def test_too_few_or_other_pictures_get_one_sentence_before_anything_is_trained(tmp_path):
    checkpoint.save(tmp_path / "classifier.safetensors", Classifier(image_size=16, channels=3, width=2))
    checkpoint.save(tmp_path / "grey.safetensors", dcgan.generator(image_size=16, channels=1, width=2))
    for count in (1, 3):
        zeros = np.zeros(count, int)
        arrays = {"x_train": of_values([7] * 20), "y_train": np.zeros(20, int), "x_test": of_values(zeros)}
        np.savez(tmp_path / f"{count}.npz", **arrays, y_test=zeros)
    for i in range(39):
        save_png(tmp_path / "photos" / f"{i}.png", np.full((16, 16, 3), i, np.uint8))
    start = ("--dry-run", "--image-size", "16")
    for arguments, told in (
        (("--data", "1.npz"), "1.npz has too few unseen pictures: at least 2 were expected, got 1; half"),
        (
            ("--data", "3.npz", "--classifier", "classifier.safetensors"),
            "3.npz has too few unseen pictures: at least 4 were expected, got 3; half",
        ),
        (
            ("--data", "photos", "--samples", "16"),
            "photos has 39 pictures, but 32 unseen ones (twice --samples) and a batch of 8 to train on were expected: "
            "lower --samples or --batch-size, or give more pictures",
        ),
        (
            ("--checkpoint", "grey.safetensors"),
            "faces have 3 channels, 1 were expected: name pictures of the generator's channels, best those it was "
            "trained on, such as --data mnist",
        ),
    ):
        code, _, err = run("checkerboard.py", *start, *arguments, folder=tmp_path)
        assert code == 2, arguments
        assert told in err
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs" / "checkerboard").glob("[!.]*"))


def test_the_same_seed_gives_the_same_numbers_and_both_kinds_meet_the_same_discriminator():
    example = loaded()
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
