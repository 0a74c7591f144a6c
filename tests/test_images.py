"""Grids, PNG, GIF, resizing, the plot of a training: read back and compared pixel by pixel."""

import numpy as np
import pytest
from PIL import Image

from nanogan import backend, images
from nanogan.errors import UserError
from nanogan.images import from_uint8, to_uint8
from nanogan.images import plots as plot


def test_pixels_from_minus_one_to_one():
    x = np.array([-2.0, -1.0, -0.996, 0.0, 1.0, 1.5], np.float32).reshape(1, 1, 2, 3)
    assert images.to_uint8(x).ravel().tolist() == [0, 0, 1, 128, 255, 255]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uint8_becomes_floats_from_minus_one_to_one_with_channels_last(device, dtype, rng):
    pixels = rng.integers(0, 256, (3, 4, 5, 3)).astype(np.uint8)
    pixels[0, 0, 0] = 0, 255, 51
    x = images.from_uint8(backend.to_device(pixels, device), dtype)
    assert x.dtype == dtype
    assert x.shape == (3, 3, 4, 5)
    assert x.transpose(0, 2, 3, 1).flags.c_contiguous
    x = backend.to_numpy(x)
    assert x[0, :, 0, 0] == pytest.approx([-1, 1, -0.6])
    for n, h, w, c in np.ndindex(pixels.shape):
        assert x[n, c, h, w] == pytest.approx(pixels[n, h, w, c] / 127.5 - 1, abs=1e-6)
    np.testing.assert_array_equal(images.to_uint8(x), pixels)


def test_from_uint8_has_channels_last_whatever_the_order_of_its_input(rng):
    pixels = rng.integers(0, 256, (3, 4, 5, 3)).astype(np.uint8)
    x = images.from_uint8(np.asfortranarray(pixels))
    assert x.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(x, images.from_uint8(pixels))


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 3, 4), np.uint8), ((2, 3, 4, 1), np.float64), ((2, 3, 4, 1), np.int8)]
)
def test_from_uint8_says_what_it_expects(shape, dtype):
    pixels = np.zeros(shape, dtype)
    with pytest.raises(UserError, match=r"expected uint8 images \(N, H, W, C\), got"):
        images.from_uint8(pixels)


@pytest.mark.parametrize(
    ("count", "columns", "rows_columns"),
    [(1, None, (1, 1)), (5, None, (2, 3)), (64, None, (8, 8)), (7, 3, (3, 3)), (3, 8, (1, 8))],
)
def test_a_grid_of_any_count(count, columns, rows_columns):
    pictures = np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 1), np.uint8)
    sheet = images.grid(pictures, columns=columns, margin=1, background=200)
    rows, columns = rows_columns
    assert sheet.shape == (1 + rows * 5, 1 + columns * 7, 1)
    for i in range(count):
        top, left = 1 + i // columns * 5, 1 + i % columns * 7
        assert (sheet[top : top + 4, left : left + 6] == i + 1).all()
    assert (sheet == 200).sum() == sheet.size - count * 24


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_pixels(tmp_path, channels, rng):
    pixels = rng.integers(0, 256, (7, 9, channels)).astype(np.uint8)
    images.save_png(tmp_path / "below" / "it.png", pixels)
    with Image.open(tmp_path / "below" / "it.png") as image:
        assert image.mode == {1: "L", 3: "RGB"}[channels]
        np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_a_gif_has_a_frame_for_each_file_or_evenly_spaced_ones(tmp_path):
    paths = []
    for i in range(12):
        paths.append(tmp_path / f"{i}.png")
        images.save_png(paths[-1], np.full((8, 8, 1), 20 * i, np.uint8))
    images.save_gif(tmp_path / "all.gif", paths)
    images.save_gif(tmp_path / "some.gif", paths, max_frames=4)
    for name, shades in (("all.gif", range(0, 240, 20)), ("some.gif", (0, 80, 140, 220))):
        with Image.open(tmp_path / name) as gif:
            found = []
            for i in range(gif.n_frames):
                gif.seek(i)
                found.append(gif.convert("L").getpixel((0, 0)))
        assert found == list(shades)


def test_resizing_keeps_what_it_shows(rng):
    pictures = np.zeros((2, 28, 28, 1), np.uint8)
    pictures[0, :14] = 255
    pictures[1, :, :14] = 255
    for size in (8, 32, 64):
        resized = images.resize(pictures, size)
        assert resized.shape == (2, size, size, 1)
        assert resized.dtype == np.uint8
        assert resized[0, 0, -1] == resized[1, -1, 0] == 255
        assert resized[0, -1, 0] == resized[1, 0, -1] == 0
    colour = rng.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    assert images.resize(colour, 8) is colour
    assert images.resize(colour, 16).shape == (2, 16, 16, 3)


def test_a_training_plot_shows_its_curves(tmp_path):
    """A curve that rises ends above where it began: look for its colour at both ends."""
    steps = np.arange(1, 501)
    columns = {"step": steps, "loss_d": steps / 500, "loss_g": 1 - steps / 500, "d_real": steps / 500}
    plot.save_training_plot(tmp_path / "losses.png", columns)
    with Image.open(tmp_path / "losses.png") as image:
        pixels = np.asarray(image).astype(int)
    colour = np.array([int(plot.COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)])
    rows, across = np.nonzero((np.abs(pixels[45:290] - colour) < 12).all(axis=2))
    left, right = rows[across < 120].mean(), rows[across > 820].mean()
    assert left > right + 100


def test_a_diverged_runs_plot_still_shows_its_curves(tmp_path):
    """The steps before are drawn as if the run had been stopped there."""
    steps = np.append(np.arange(1, 301), 300)
    whole = {"step": steps, "loss_d": 1 + 0.5 * np.sin(steps / 30), "loss_g": 2 + 0 * steps, "d_real": steps / 900}
    diverged = {name: np.append(values, values[-1]) for name, values in whole.items()}
    for bad in (np.nan, np.inf):
        diverged["loss_d"][-1] = diverged["d_real"][-1] = bad
        diverged["loss_g"] = np.full(302, 2.0)
        plot.save_training_plot(tmp_path / "whole.png", whole)
        plot.save_training_plot(tmp_path / "diverged.png", diverged)
        assert (tmp_path / "diverged.png").read_bytes() == (tmp_path / "whole.png").read_bytes()


def test_nothing_is_drawn_without_a_finite_number(tmp_path):
    for columns in ({"step": [1], "loss_d": [np.nan], "d_real": [np.inf]}, {"epoch": [1], "step": [1], "seconds": [1]}):
        plot.save_training_plot(tmp_path / "nothing.png", columns, {"losses": ("loss_d",)})
    assert list(tmp_path.iterdir()) == []


def test_each_curve_stands_in_its_panel(tmp_path):
    """A column of 0.9 lies high in the second panel, one of 0.1 low."""
    flat = {"step": [1, 2, 3], "loss_d": [1] * 3, "loss_g": [2] * 3, "d_real": [0.9] * 3, "d_fake_before": [0.1] * 3}
    plot.save_training_plot(tmp_path / "losses.png", flat)
    with Image.open(tmp_path / "losses.png") as image:
        column = np.asarray(image)[350:600, 500].astype(int)
    rows = []
    for colour in plot.COLOURS[:2]:
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        rows.append(np.nonzero((np.abs(column - rgb) < 12).all(axis=1))[0].mean() / 250)
    assert rows == pytest.approx([0.1, 0.9], abs=0.02)


def test_there_is_a_panel_for_each_title_as_high_as_the_others(tmp_path):
    """And the one column of the third, at 0.5 of 0 to 1, is drawn halfway up there."""
    columns = {"step": [1, 2, 3], "a": [1] * 3, "b": [2] * 3, "c": [0.5] * 3}
    columns["c"] = [1.0, *[0.5] * 2]
    plot.save_training_plot(tmp_path / "it.png", columns, {"one": ["a"], "two": ["b", "a"], "three": ["c", "gone"]})
    with Image.open(tmp_path / "it.png") as image:
        assert image.size == (900, 950)
        pixels = np.asarray(image).astype(int)
    rgb = np.array([int(plot.COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)])
    rows = np.nonzero((np.abs(pixels[660:910, 879] - rgb) < 12).all(axis=1))[0]
    assert 120 < rows.mean() < 190, "the smoothed curve nears 0.5 at its end"


def test_panels_default_and_named():
    columns = {"epoch": [1], "step": [1], "gap": [3.0], "loss_a": [1.0], "loss": [2.0], "bad": [np.nan], "seconds": [1]}
    by_default = [("losses", ["loss_a", "loss"]), ("other columns", ["gap"])]

    def names(found):
        return [(title, [label for label, _ in series]) for title, series in found]

    assert names(plot.panels(columns)) == by_default
    assert names(plot.panels(columns, {}, {})) == by_default
    assert names(plot.panels(columns, {"x": ["nothing", "bad"]})) == by_default, "no panel would be left"
    assert names(plot.panels(columns, {"x": ("gap", "bad"), "y": ()}, {"gap": "distance"})) == [("x", ["distance"])]
    ((_, ((_, values),)),) = plot.panels(columns, {"x": ["gap"]})
    np.testing.assert_array_equal(values, [3.0])


def test_an_axis_holds_the_curves_and_0_but_not_every_spike():
    curve = np.linspace(1, 2, 1000)
    spiky = curve.copy()
    spiky[500] = 1000
    assert plot.usual_range([curve, spiky]) == (0, pytest.approx(2.1, rel=0.01))
    low, high = plot.usual_range([-curve])  # G's loss in the hinge game
    assert (low, high) == (pytest.approx(-2.1, rel=0.01), 0)
    assert plot.usual_range([0 * curve])[1] > 0


def test_a_plot_of_one_step_and_of_equal_numbers(tmp_path):
    for count in (1, 2):
        columns = {name: [0.0] * count for name in ("loss_d", "loss_g", "d_real", "d_fake_before")}
        plot.save_training_plot(tmp_path / "losses.png", columns | {"step": list(range(1, count + 1))})
        assert (tmp_path / "losses.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: images.grid(np.zeros((0, 1, 4, 4))), "at least one picture, got none"),
        (lambda path: images.grid(np.zeros((1, 4, 4))), r"batch of pictures \(N, C, H, W\)"),
        (lambda path: images.save_png(path, np.zeros((4, 4, 2), np.uint8)), "1 or 3 channels"),
        (lambda path: images.save_gif(path, []), "at least one picture"),
    ],
)
def test_wrong_input_gets_one_sentence(call, message, tmp_path):
    with pytest.raises(UserError, match=message):
        call(tmp_path / "it.png")
    assert list(tmp_path.iterdir()) == []


def test_images_come_back_from_float16_as_they_were():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(to_uint8(from_uint8(pixels, np.float16)), pixels)


def test_float16_images_are_rounded_as_their_values_are(rng):
    """127.5 times a float16 would be off by up to an eighth of a level."""
    x = rng.uniform(-1, 1, (1, 1, 50, 50)).astype(np.float16)
    expected = np.rint((x.astype(np.float64) + 1) * 127.5).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(to_uint8(x), expected)


@pytest.mark.parametrize("dtype", [int, bool, complex, object])
def test_images_of_other_numbers_are_refused_and_not_clipped_to_white(dtype):
    with pytest.raises(UserError, match="expected floats from -1 to 1, or uint8"):
        to_uint8(np.full((1, 1, 2, 2), 200).astype(dtype))
    with pytest.raises(UserError, match="expected a floating-point dtype"):
        from_uint8(np.zeros((1, 2, 2, 1), np.uint8), dtype)


def test_images_that_are_no_array_are_refused():
    for call in (to_uint8, from_uint8):
        with pytest.raises(UserError, match="expected a NumPy or CuPy array, got list"):
            call([[[[0.0]]]])
