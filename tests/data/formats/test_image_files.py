"""How each kind of image file is decoded, and how large one may be."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from nanogan import images
from nanogan.data import PictureFolder
from nanogan.data.formats import image_files
from nanogan.errors import UserError


def decoded(image, size=4, channels=3, *, name="a.png", tmp_path, **options):
    background = options.pop("background", 255)
    image.save(tmp_path / name, **options)
    return image_files.decode(tmp_path / name, size, channels, background=background)


def test_the_square_in_the_middle_is_taken_and_averaged(tmp_path, rng):
    pixels = rng.integers(0, 256, (8, 14, 3)).astype(np.uint8)
    wide, tall = Image.fromarray(pixels), Image.fromarray(pixels.transpose(1, 0, 2).copy())
    np.testing.assert_array_equal(decoded(wide, 8, tmp_path=tmp_path), pixels[:, 3:11])
    np.testing.assert_array_equal(decoded(tall, 8, tmp_path=tmp_path), pixels[:, 3:11].transpose(1, 0, 2))
    same = images.resize(pixels[None, :, 3:11], 4)[0]  # as the library resizes arrays
    np.testing.assert_array_equal(decoded(wide, 4, tmp_path=tmp_path), same)
    assert decoded(wide, 50, tmp_path=tmp_path).shape == (50, 50, 3)
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 200
    small = decoded(Image.fromarray(stripes), 4, tmp_path=tmp_path)
    assert abs(small[:, 1:3].astype(int) - 100).max() <= 2, "a filter that only samples gives 0 or 200"


def test_grey_from_colour_and_colour_from_grey(tmp_path):
    green = Image.new("RGB", (5, 5), (0, 200, 0))
    assert decoded(green, channels=1, tmp_path=tmp_path).shape == (4, 4, 1)
    assert abs(int(decoded(green, channels=1, tmp_path=tmp_path)[0, 0, 0]) - 0.587 * 200) < 1
    as_jpeg = decoded(green, channels=1, tmp_path=tmp_path, name="a.jpg", quality=95)
    assert abs(int(as_jpeg[0, 0, 0]) - 0.587 * 200) < 3
    assert decoded(Image.new("L", (5, 5), 90), tmp_path=tmp_path)[0, 0].tolist() == [90, 90, 90]
    assert decoded(Image.new("1", (5, 5), 1), tmp_path=tmp_path)[0, 0].tolist() == [255, 255, 255]


def with_palette(**info):
    image = Image.new("P", (5, 5), 1)
    image.putpalette([0, 0, 0, 10, 120, 230])
    return image, info


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (Image.new("RGBA", (5, 5), (0, 100, 200, 0)), {}, [255, 255, 255]),
        (Image.new("RGBA", (5, 5), (0, 100, 200, 0)), {"background": 7}, [7, 7, 7]),
        (Image.new("RGBA", (5, 5), (0, 100, 200, 51)), {"background": 100}, [80, 100, 120]),
        (Image.new("LA", (5, 5), (50, 51)), {"background": 100}, [90, 90, 90]),
        (with_palette()[0], {}, [10, 120, 230]),
        (with_palette()[0], {"transparency": 1}, [255, 255, 255]),
        (with_palette()[0], {"transparency": bytes([0, 51]), "background": 0}, [2, 24, 46]),
        (Image.new("RGB", (5, 5), (1, 2, 3)), {"transparency": (1, 2, 3)}, [255, 255, 255]),
        (Image.new("L", (5, 5), 9), {"transparency": 9}, [255, 255, 255]),
        (
            Image.new("RGBA", (5, 5), (0, 100, 200, 51)),
            {"background": 100, "name": "a.webp", "lossless": True},
            [80, 100, 120],
        ),
        (with_palette()[0], {"name": "a.gif"}, [10, 120, 230]),
        (with_palette()[0], {"name": "a.bmp"}, [10, 120, 230]),
        (with_palette()[0], {"name": "a.gif", "transparency": 1}, [255, 255, 255]),
    ],
)
def test_transparency_and_palettes(tmp_path, image, options, expected):
    got = decoded(image, tmp_path=tmp_path, **options)
    np.testing.assert_allclose(got.reshape(-1, 3), [expected] * 16, atol=1)
    grey = decoded(image, channels=1, tmp_path=tmp_path, **options)
    np.testing.assert_allclose(grey, np.dot(expected, [0.299, 0.587, 0.114]), atol=1.5)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, channels):
    numbers = np.array([[0, 128, 257, 5000], [32768, 40000, 65000, 65535]] * 2, np.uint16)
    got = decoded(Image.fromarray(numbers), channels=channels, tmp_path=tmp_path)
    np.testing.assert_array_equal(got, np.repeat(np.rint(numbers / 257)[..., None], channels, 2))


def test_CMYK_and_the_first_frame_of_an_animation(tmp_path):
    got = decoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), tmp_path=tmp_path, name="a.jpg")
    np.testing.assert_allclose(got[0, 0], [0, 255, 255], atol=3)
    frames = [Image.new("RGB", (5, 5), (value, 0, 0)) for value in (200, 100, 50)]
    for name in ("a.gif", "a.webp", "a.png"):
        options = {"lossless": True} if name == "a.webp" else {}
        got = decoded(frames[0], tmp_path=tmp_path, name=name, save_all=True, append_images=frames[1:], **options)
        assert got[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.avif"])
def test_EXIF_turns_pictures_upright(tmp_path, orientation, name):
    """Corners of four colours, stored as a camera that was held so would have; the crop is made after the turn."""
    if name == "a.avif" and "AVIF" not in image_files.FORMATS:
        pytest.skip("Pillow reads no AVIF here")
    upright = np.zeros((48, 32, 3), np.uint8)
    upright[:24, :16], upright[:24, 16:] = (250, 0, 0), (0, 250, 0)
    upright[24:, :16], upright[24:, 16:] = (0, 0, 250), (250, 250, 250)
    stored = {  # EXIF 2.3, tag 274: where row 0 and column 0 of what is stored belong
        1: upright,
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.transpose(1, 0, 2),  # left, top
        6: upright[:, ::-1].transpose(1, 0, 2),  # right, top: row 0 is the right side
        7: upright[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
        8: upright[::-1].transpose(1, 0, 2),  # left, bottom
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    got = decoded(Image.fromarray(np.ascontiguousarray(stored)), 8, tmp_path=tmp_path, name=name, exif=exif)
    for (i, j), corner in {(0, 0): (0, 0), (0, 7): (0, 31), (7, 0): (47, 0), (7, 7): (47, 31)}.items():
        np.testing.assert_allclose(got[i, j], upright[corner], atol=12)


def test_large_JPEGs_are_decoded_smaller_but_look_the_same(tmp_path, rng):
    smooth = Image.fromarray(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8)).resize((640, 480), 2)
    smooth.save(tmp_path / "a.jpg", quality=95)
    seen = []
    original = Image.Image.resize
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", lambda self, *a, **k: seen.append(self.size) or original(self, *a, **k))
        got = image_files.decode(tmp_path / "a.jpg", 32)
    assert seen == [(120, 120)], "a quarter of 640 x 480, cropped: 1/8 would be less than twice what is wanted"
    whole = np.asarray(smooth)[None, :, 80:560]
    np.testing.assert_allclose(got, images.resize(np.ascontiguousarray(whole), 32)[0], atol=8)


# ------------------------------------------------------------------------------------------------------ large ones


def test_a_large_JPEG_is_decoded_small(tmp_path, monkeypatch):
    """Phones make 100 million pixels and more; here the limits are a thousandth, the ways the same."""
    monkeypatch.setattr(image_files, "MAX_PIXELS", 67_000)
    monkeypatch.setattr(image_files, "MAX_JPEG", 268_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_000)  # Pillow's own limit: beyond twice that it raises
    for name, size, options in (
        ("a.jpg", (400, 300), {}),  # 12000 x 9000
        ("b.jpg", (516, 387), {}),  # 200 million: Pillow would refuse to open it
        ("c.jpg", (400, 300), {"progressive": True}),  # all of it would be in memory
        ("d.jpg", (600, 450), {}),  # too many however small it is decoded
        ("e.png", (400, 300), {}),
    ):
        image = Image.new("L", size, 40)
        image.paste(200, (size[0] // 4, size[1] // 4, 3 * size[0] // 4, 3 * size[1] // 4))
        image.save(tmp_path / name, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        pictures = PictureFolder(tmp_path, size=8, workers=1)
        seen = pictures[:]
    for shown in seen:
        np.testing.assert_allclose(shown[[0, 0, 7, 7], [0, 7, 0, 7], 0], 40, atol=9)
        np.testing.assert_allclose(shown[3:5, 3:5, 0], 200, atol=9)
    left_out = {os.path.basename(path): reason for path, reason in pictures.skipped.items()}
    assert left_out == dict.fromkeys(["c.jpg", "d.jpg", "e.png"], "it has more than 67000 pixels")
    large = PictureFolder(tmp_path, size=300, workers=1)  # 1/8 or 1/2 would be less than twice what is wanted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(UserError, match="none of the 5"):
            large[:]


def test_a_JPEG_of_several_scans_is_decoded_whole_so_it_counts_whole(tmp_path, monkeypatch):
    """Progressive or not, if its colours come one after the other, all of it must be in memory."""
    Image.new("RGB", (400, 300), (90, 120, 30)).save(tmp_path / "a.jpg", quality=90)
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    at = data.index(b"\xff\xda") + 4
    assert data[at] == 3
    assert image_files._is_one_scan(tmp_path / "a.jpg")
    data[at] = 1
    (tmp_path / "b.jpg").write_bytes(data)
    assert not image_files._is_one_scan(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").write_bytes(data[:30])
    assert not image_files._is_one_scan(tmp_path / "c.jpg")
