"""Folders of images for the tests."""

import io

from PIL import Image


def painted(path, value, *, size=(8, 8), mode="RGB", **options):
    """Write a picture of one colour; a number paints it grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (value,) * len(mode) if isinstance(value, int) and mode in ("RGB", "LA") else value
    Image.new(mode, size, colour).save(path, **options)
    return path


def numbered(path, count, bad=()):
    """A folder of PNGs; picture i is all i, those of ``bad`` are no pictures."""
    for i in range(count):
        painted(path / f"{i:03d}.png", i)
        if i in bad:
            (path / f"{i:03d}.png").write_bytes(b"no picture")
    return path


def values(pictures):
    return pictures[:, 0, 0, 0].tolist()


def saved(kind, value=0):
    """The bytes of a grey image file."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value,) * 3).save(buffer, kind, **({"quality": 100} if kind == "JPEG" else {}))
    return buffer.getvalue()
