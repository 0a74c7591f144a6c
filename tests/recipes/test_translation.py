"""Two domains: which images are in which, what is measured of a translation, and the translation of a folder."""

import argparse
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nanogan import checkpoint, recipes
from nanogan.backend import get_device
from nanogan.data import builtin_digits
from nanogan.errors import UserError
from nanogan.models import cyclegan
from nanogan.recipes import translation


def arguments(tmp_path, **values):
    defaults = {"a": None, "b": None, "pair": "inverted", "data": "digits", "channels": 1, "image_size": 28, "seed": 0}
    defaults |= {"count": 30, "when_begun": []}
    defaults |= {"judge": None, "device": "cpu", "out": str(tmp_path), "dry_run": True, "batch_size": 4, "batches": 1}
    return argparse.Namespace(**defaults | {"translate": None, "checkpoint": None} | values)


def sorted_images(images):
    return sorted(image.tobytes() for image in images)


# --------------------------------------------------------------------------------------------------------- the domains


@pytest.mark.parametrize("pair", translation.PAIRS)
def test_the_second_domain_is_made_of_other_digits(pair, tmp_path):
    name, columns = translation.load_domains(arguments(tmp_path, pair=pair))
    digits, _ = builtin_digits(32, seed=0)
    assert name == f"digits, and {pair} ones"
    assert sorted(columns) == ["a", "b"]
    _, undo = translation.PAIRS[pair]
    a, b = sorted_images(columns["a"]), sorted_images(undo(columns["b"]))
    assert len(a) == len(b) == 16
    assert sorted(a + b) == sorted_images(digits)
    assert a != sorted_images(digits[:16]), "the set may be sorted by class"
    again = translation.load_domains(arguments(tmp_path, pair=pair))[1]
    for name in "ab":
        np.testing.assert_array_equal(columns[name], again[name])


def test_a_domain_has_as_many_digits_as_asked_for(tmp_path):
    _, columns = translation.load_domains(arguments(tmp_path, dry_run=False))
    assert {name: len(column) for name, column in columns.items()} == {"a": 30, "b": 30}


def test_inverted_digits_are_dark_on_bright(tmp_path):
    digits = np.array([0, 255, 100], np.uint8)
    assert translation.inverted(digits, None).tolist() == [255, 0, 155]


def test_coloured_digits_have_one_bright_colour_each_and_many_in_all():
    digits = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 1), dtype=np.uint8)
    digits[:, 0, 0] = 255
    colours = translation.coloured(digits, np.random.default_rng(1))
    assert colours.shape == (300, 4, 4, 3)
    assert colours.dtype == np.uint8
    inks = colours[:, 0, 0].astype(int)  # (300, 3)
    assert (inks.max(axis=1) == 255).all()
    assert (inks.min(axis=1) == 0).all()
    assert all((inks.argmax(axis=1) == channel).sum() > 60 for channel in range(3))
    assert np.ptp(np.sort(inks, axis=1)[:, 1]) > 200
    np.testing.assert_allclose(colours, digits / 255 * inks[:, None, None], atol=1)


def test_folders_are_domains_of_any_sizes_and_numbers(tmp_path):
    for name, count in (("x", 3), ("y", 40)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (30, 20 + i), (i, 0, count)).save(tmp_path / name / f"{i:02}.png")
    folders = {"a": str(tmp_path / "x"), "b": str(tmp_path / "y")}
    name, columns = translation.load_domains(arguments(tmp_path, channels=3, dry_run=False, **folders))
    assert name == f"{folders['a']} and {folders['b']}"
    assert {name: column.shape for name, column in columns.items()} == {"a": (3, 28, 28, 3), "b": (40, 28, 28, 3)}
    assert columns["b"][5][0, 0].tolist() == [5, 0, 40]
    assert translation.measure_translation(arguments(tmp_path, **folders), columns) is None


def test_a_domain_without_images_gets_one_sentence(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="x holds no image that can be read"):
        translation.load_domains(arguments(tmp_path, a=str(tmp_path / "x"), b=str(tmp_path)))
    images = np.zeros((1, 28, 28), np.uint8)
    np.savez(tmp_path / "one.npz", x_train=images, y_train=[0], x_test=images, y_test=[0])
    with pytest.raises(UserError, match="two domains expected at least 2 images, got 1"):
        translation.load_domains(arguments(tmp_path, data=str(tmp_path / "one.npz")))


# -------------------------------------------------------------------------------------------------------- the measures


def translator(function):
    return SimpleNamespace(device=get_device("cpu"), forward=lambda x, train: (function(x), None))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """measure_translation's function for inverted digits, with a judge that learned more than a dry run's."""
    folder = tmp_path_factory.mktemp("measured")
    images, labels = builtin_digits(1500, seed=5)
    recipes.judge(args := arguments(folder, dry_run=False), {"images": images, "labels": labels})
    args.when_begun[0]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(translation, "MEASURED", 60)
        given = arguments(folder, judge=str(folder / "judge.safetensors"), dry_run=False)
        patch.setattr(translation, "IMAGES", 50)
        return translation.measure_translation(given, None)


def test_a_perfect_translation_is_measured_as_perfect(measured):
    numbers = measured(SimpleNamespace(ab=translator(lambda x: -x), ba=translator(lambda x: -x)))
    assert numbers["kept_ab"] > 0.7, "as often as the judge is right"
    assert numbers["kept_ba"] > 0.7
    assert [numbers[name] for name in ("error_ab", "error_ba", "cycle_a", "cycle_b")] == [0, 0, 0, 0]


def test_what_is_wrong_with_a_translation_shows_in_its_own_number(measured):
    """ab mirrors the digits, ba does nothing."""
    numbers = measured(SimpleNamespace(ab=translator(lambda x: -x[:, :, :, ::-1]), ba=translator(lambda x: x)))
    digits = builtin_digits(120, seed=1_000_000)[0] / 127.5 - 1  # the test set, from -1 to 1
    a, b, mirrored = digits[:60], -digits[60:], digits[:, :, ::-1]
    expected = {
        "error_ab": abs(mirrored[:60] - a).mean(),
        "error_ba": abs(b - digits[60:]).mean(),
        "cycle_a": abs(-mirrored[:60] - a).mean(),
        "cycle_b": abs(mirrored[60:] - b).mean(),
    }
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert numbers["kept_ba"] < 0.5, "an inverted digit is no digit to the judge"


def test_without_test_images_or_a_judge_nothing_is_measured(tmp_path, capsys):
    images, labels = builtin_digits(40, seed=0)
    np.savez(tmp_path / "set.npz", x_train=images, y_train=labels)
    assert translation.measure_translation(arguments(tmp_path, data=str(tmp_path / "set.npz")), None) is None
    assert "has no test images: no translation is measured" in capsys.readouterr().out
    assert translation.measure_translation(arguments(tmp_path, image_size=30), None) is None
    assert "a judge needs a size that is a multiple of 4" in capsys.readouterr().out


def test_coloured_digits_are_judged_by_their_brightest_channel(tmp_path, capsys):
    measured = translation.measure_translation(arguments(tmp_path, pair="coloured"), None)
    red = translator(lambda x: np.concatenate([x, 0 * x - 1, 0 * x - 1], axis=1))
    numbers = measured(SimpleNamespace(ab=red, ba=translator(lambda x: x.max(axis=1, keepdims=True))))
    assert [numbers[name] for name in ("error_ab", "error_ba", "cycle_a")] == [0, 0, 0]
    assert numbers["cycle_b"] > 0.05, "red for every colour"
    assert numbers["colour_ab"] == 1
    pink = np.uint8([[[[200, 100, 100], [0, 0, 0]]], [[[100, 0, 100], [0, 0, 0]]]])
    assert translation.saturation(pink) == pytest.approx(1 - 100 / 300)
    assert translation.saturation(0 * pink) == 0


# ------------------------------------------------------------------------------------------------------------ a folder


@pytest.fixture
def trained(tmp_path):
    """A translator's file: grey, 12 pixels."""
    network = cyclegan.generator(image_size=12, in_channels=1, out_channels=1, width=1, blocks=1)
    checkpoint.save(tmp_path / "t.safetensors", network)
    return network


def test_a_folder_is_translated_file_by_file(tmp_path, trained, capsys):
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 12, 12), dtype=np.uint8)
    for name, image in zip(("x.png", "x.bmp", "deep/y.png"), pixels, strict=True):
        Image.fromarray(image).save(photos / name)
    (photos / "broken.png").write_text("nothing")
    given = arguments(tmp_path / "out", translate=str(photos), dry_run=False)
    given.checkpoint = str(tmp_path / "t.safetensors")
    assert translation.translate(given, "nowhere") == 0
    out = capsys.readouterr().out
    assert f"3 images of 12 x 12: {tmp_path / 'out' / 'translated'}" in out
    assert "broken.png could not be read" in out
    expected = translation.translated(trained, pixels[:, :, :, None])
    folder = tmp_path / "out/translated"
    written = sorted(folder.rglob("*.png"))
    assert [str(path.relative_to(folder)) for path in written] == ["deep/y.png", "x.png", "x.png.png"]
    for path, image in zip(written, expected[[2, 1, 0]], strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), image[:, :, 0])
    given.dry_run, given.checkpoint = True, None
    with pytest.raises(UserError, match="there is no checkpoint nowhere: train one first"):
        translation.translate(given, "nowhere")
