"""The conditional DCGAN's script as a user starts it; what all training scripts share is tested with mnist_dcgan.py."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from nanogan import checkpoint
from nanogan.analysis.judges.classifier import Classifier
from nanogan.data import builtin_digits
from nanogan.errors import DataNotFound
from nanogan.models import conditional, dcgan
from nanogan.recipes import datasets
from tests.examples import starting
from tests.examples.sorted_set import COUNT, recorded_steps, start_in, values_of, write_sorted_set
from tests.examples.starting import size_of

TINY = ("--data", "digits", "--width", "2", "--latent", "3")
SORTED = ("--data", "set.npz", "--width", "2", "--latent", "3", "--batch-size", "7")


def run(*arguments, folder):
    return starting.run("conditional_dcgan.py", *arguments, folder=folder)


def succeed(*arguments, folder):
    return starting.succeed("conditional_dcgan.py", *arguments, folder=folder)


@pytest.fixture
def script(monkeypatch, tmp_path):
    return start_in(tmp_path, "conditional_dcgan", monkeypatch)


def class_folders(path):
    """Two classes of 20 images each, dark and bright, as a folder of folders."""
    for name, value in (("dark", 20), ("bright", 220)):
        (path / name).mkdir(parents=True)
        for i in range(20):
            Image.new("L", (28, 28), value + i % 3).save(path / name / f"{i:02}.png")


def test_a_dry_run_leaves_a_run_with_a_row_for_each_class(tmp_path):
    out = succeed(*TINY, "--dry-run", folder=tmp_path)
    left = tmp_path / "runs/conditional_dcgan"
    assert "digits without the sixth that is held out: 128 images of 28 x 28" in out
    assert "[1/1][4/4]  Loss_D: " in out
    assert (left / "report.html").is_file()
    assert size_of(left / "samples/epoch_001_step_000004.png") == (2 + 8 * 30, 2 + 10 * 30)
    with open(left / "log.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    options = json.loads((left / "options.json").read_text())
    assert (options["data"], options["channels"], options["train_on_all"]) == ("digits", 1, False)
    g = checkpoint.load_conditional(left / "generator.safetensors")
    assert (g.latent, g.width, g.image_size, g.classes) == (3, 2, 28, 10)


def test_help_says_that_a_sixth_is_held_out(tmp_path):
    out = " ".join(succeed("--help", folder=tmp_path).split())
    for words in ("a random sixth of it", "is held out", "--networks {dcgan,mlp}", "--resume", "--generate N"):
        assert words in out


def test_images_are_generated_class_by_class(tmp_path):
    """By a generator whose images depend on the label alone: z's weights are 0."""
    g = conditional.generator(classes=3, image_size=8, channels=1, latent=2, width=2, rng=np.random.default_rng(0))
    for _, parameter, _ in g.named_parameters():
        parameter *= 20
    g[0].params["weight"][:2] = 0
    checkpoint.save(tmp_path / "g.safetensors", g)
    out = succeed("--generate", 7, "--checkpoint", "g.safetensors", "--single-files", "--out", "o", folder=tmp_path)
    assert "7 images: o/generated_*.png" in out
    images = [np.asarray(Image.open(tmp_path / f"o/generated_{i:06}.png")) for i in range(1, 8)]
    for i in range(4):
        np.testing.assert_array_equal(images[i], images[i + 3])
    assert len({image.tobytes() for image in images}) == 3


def test_images_are_trained_on_under_their_own_labels_and_a_sixth_is_not(script, monkeypatch, tmp_path):
    labels = write_sorted_set(tmp_path / "set.npz")
    steps = recorded_steps(monkeypatch)
    script.start(*SORTED, "--epochs", 2)
    seen = [set(), set()]
    for i, inputs in enumerate(steps):
        numbers = values_of(inputs["real"]) // 2
        assert inputs["labels"].tolist() == labels[numbers].tolist()
        assert inputs["z"].shape == (len(numbers), 3)
        seen[i // 3] |= set(numbers.tolist())
    assert len(steps) == 6
    assert seen[0] == seen[1]
    assert len(seen[0]) == 20
    assert len(set(labels[sorted(seen[0])])) > 7, "a set sorted by class is mixed first"
    steps.clear()
    script.start(*SORTED, "--epochs", 1, "--train-on-all", "--out", "all")
    assert {i for inputs in steps for i in (values_of(inputs["real"]) // 2).tolist()} == set(range(COUNT))


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    write_sorted_set(tmp_path / "set.npz")
    succeed(*SORTED, "--epochs", 2, "--out", "whole", folder=tmp_path)
    succeed(*SORTED, "--epochs", 1, "--out", "run", folder=tmp_path)
    succeed("--resume", "run", "--epochs", 2, folder=tmp_path)
    for name in ("generator", "discriminator"):
        whole, run_ = ((tmp_path / each / f"{name}.safetensors").read_bytes() for each in ("whole", "run"))
        assert whole == run_
    code, _, err = run("--resume", "run", "--epochs", 3, "--train-on-all", folder=tmp_path)
    assert code == 2
    assert "--train-on-all contradicts run/checkpoints/last.safetensors, whose run has none" in err


def test_the_best_epoch_is_found_by_generated_images(tmp_path):
    checkpoint.save(tmp_path / "c.safetensors", Classifier(width=2, rng=np.random.default_rng(0)))
    out = succeed(*TINY, "--dry-run", "--best-by", "c.safetensors", folder=tmp_path)
    assert "metric after epoch 1: " in out
    assert (tmp_path / "runs/conditional_dcgan/checkpoints/best.safetensors").is_file()


def test_the_folders_of_a_folder_are_its_classes(tmp_path):
    class_folders(tmp_path / "my images")
    out = succeed(
        *("--data", "my images", "--image-size", 16, "--width", 2, "--latent", 3, "--batch-size", 4, "--dry-run"),
        folder=tmp_path,
    )
    assert "my images: 40 images of 16 x 16" in out
    left = tmp_path / "runs/conditional_dcgan"
    assert checkpoint.load_conditional(left / "generator.safetensors").classes == 2
    assert size_of(left / "samples/epoch_001_step_000004.png") == (2 + 8 * 18, 2 + 2 * 18)


def test_other_labels_for_the_same_images_are_not_resumed_with(tmp_path):
    class_folders(tmp_path / "photos")
    options = ("--image-size", 8, "--width", 2, "--latent", 3, "--batch-size", 8)
    succeed("--data", "photos", *options, "--epochs", 1, folder=tmp_path)
    (tmp_path / "photos/dark/19.png").rename(tmp_path / "photos/dark/a.png")
    (tmp_path / "photos/dark/a.png").rename(tmp_path / "photos/bright/00-.png")
    code, _, err = run("--resume", "--epochs", 2, folder=tmp_path)
    assert code == 2
    assert "was trained with other labels than photos has now" in err


@pytest.mark.parametrize("change", [{"image_size": 20_000}, {"latent": 900}, {"networks": "mlp"}])
def test_nothing_is_built_that_the_file_does_not_hold(tmp_path, change):
    """Of a checkpoint whose options were changed, checksum and all."""
    networks = "dcgan" if "networks" in change else "mlp"
    succeed(*TINY, "--networks", networks, "--dry-run", folder=tmp_path)
    path = tmp_path / "runs/conditional_dcgan/checkpoints/last.safetensors"
    progress, arrays, numbers = checkpoint.read_training(path)

    class Forged:
        def state_dict(self):
            return {**arrays, **numbers}

    progress.options |= change
    checkpoint.save_training(path, Forged(), progress)
    code, _, err = run("--resume", folder=tmp_path)
    assert code == 2
    assert "cannot be resumed from: it" in err
    assert err.count("\n") == 1


def test_without_mnist_it_trains_on_digits_and_says_so(script, monkeypatch, tmp_path, capsys):
    asked = []

    def load(name, *, count, **options):
        asked.append(name)
        if name == "mnist":
            raise DataNotFound("mnist could not be downloaded")
        return builtin_digits(count)

    monkeypatch.setattr(datasets, "load_pictures", load)
    script.start("--width", 2, "--dry-run")
    out, err = capsys.readouterr()
    assert asked == ["mnist", "digits"]
    assert "could not be downloaded: this run trains on built-in digits." in err
    assert "digits without the sixth that is held out" in out
    options = json.loads((tmp_path / "runs/conditional_dcgan/options.json").read_text())
    assert options["data"] == "digits", "a resumed run takes the same"
    with pytest.raises(DataNotFound, match="could not be downloaded"):
        script.start("--data", "mnist", "--width", 2, "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "flat"), "a conditional GAN expected images with labels, got images alone: use a data set with"),
        (("--data", "nowhere"), "nowhere"),
        (("--data", "cifar.npz"), "the images of cifar.npz have 3 channels, 1 were expected: add --channels 3"),
        (("--data", "digits", "--image-size", "30"), "a DCGAN cannot draw pictures of 30 pixels"),
        (("--data", "set.npz", "--batch-size", "21"), "a batch of 21 was asked for, but there are 20"),
        (("--channels", "2"), "argument --channels: invalid choice: 2"),
        (("--generate", "4"), "there is no checkpoint runs/conditional_dcgan/generator.safetensors"),
        (("--generate", "4", "--checkpoint", "plain.safetensors"), "is not a conditional DCGAN generator of nanogan's"),
    ],
)
def test_a_users_mistake_gets_one_sentence(tmp_path, arguments, message):
    (tmp_path / "flat").mkdir()
    for i in range(40):
        Image.new("L", (28, 28), i).save(tmp_path / f"flat/{i}.png")
    colour, labels = np.zeros((40, 28, 28, 3), np.uint8), np.zeros(40, np.uint8)
    np.savez(tmp_path / "cifar.npz", x_train=colour, y_train=labels, x_test=colour, y_test=labels)
    write_sorted_set(tmp_path / "set.npz")
    plain = dcgan.generator(image_size=16, channels=1, width=2, rng=np.random.default_rng(0))
    checkpoint.save(tmp_path / "plain.safetensors", plain)
    code, _, err = run("--dry-run", *arguments, folder=tmp_path)
    assert code == 2
    assert message in err
    assert len([line for line in err.splitlines() if "error: " in line]) == 1
