"""Pictures in files: grids, PNG, animated GIF.

Pictures are arrays (N, C, H, W) of floating-point numbers from -1 to 1, C = 1 (grey) or 3 (RGB), on either device; or
uint8 (N, H, W, C) from 0 to 255.
"""

import numpy as np
from PIL import Image

from nanogan.backend import array_module, to_numpy
from nanogan.disk import replacing
from nanogan.errors import UserError


def to_uint8(pictures):
    """(N, C, H, W) from -1 to 1 -> uint8 (N, H, W, C); values outside are clipped, uint8 is returned as it is."""
    array_module(pictures)
    if pictures.ndim != 4:
        raise UserError(f"expected a batch of pictures (N, C, H, W), got an array of shape {pictures.shape}")
    pictures = to_numpy(pictures)
    if pictures.dtype == np.uint8:
        return pictures
    if pictures.dtype.kind != "f":
        raise UserError(f"expected floats from -1 to 1, or uint8 (N, H, W, C), got {pictures.dtype}")
    if pictures.dtype.itemsize == 2:  # 127.5 times a float16 is off by up to an eighth of a level
        pictures = pictures.astype(np.float32)
    pixels = np.clip(np.rint((pictures + 1) * 127.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def from_uint8(pixels, dtype=np.float32):
    """uint8 (N, H, W, C) -> (N, C, H, W) of ``dtype`` from -1 to 1, channels-last in memory, on the same device.

    Raises UserError for anything but uint8 of 4 dimensions, and for a dtype that is not of floating-point numbers.
    """
    array_module(pixels)
    if pixels.ndim != 4 or pixels.dtype != np.uint8:
        raise UserError(f"expected uint8 images (N, H, W, C), got {pixels.dtype} of shape {pixels.shape}")
    if np.dtype(dtype).kind != "f":
        raise UserError(f"images from -1 to 1 expected a floating-point dtype, got {np.dtype(dtype)}")
    x = pixels.astype(dtype, order="C")  # (N, H, W, C)
    x /= 127.5
    x -= 1
    return x.transpose(0, 3, 1, 2)


def grid(pictures, *, columns=None, margin=2, background=0):
    """Lay N pictures out in rows and return one picture, uint8 (H, W, C). The last row may be short.

    ``columns`` is the square root of N, rounded up, if not given; ``margin`` is in pixels, ``background`` 0 to 255.
    """
    pictures = to_uint8(pictures)
    N, H, W, C = pictures.shape
    if N == 0:
        raise UserError("a grid expected at least one picture, got none")
    columns = columns or int(np.ceil(np.sqrt(N)))
    rows = -(-N // columns)
    sheet = np.full((margin + rows * (H + margin), margin + columns * (W + margin), C), background, np.uint8)
    for i, picture in enumerate(pictures):
        top = margin + i // columns * (H + margin)
        left = margin + i % columns * (W + margin)
        sheet[top : top + H, left : left + W] = picture
    return sheet


def to_pillow(pixels):
    """uint8 (H, W, 1 or 3) -> a Pillow image."""
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise UserError(f"a picture expected 1 or 3 channels, got an array of shape {pixels.shape}")
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def save_png(path, pixels):
    """Write one picture, uint8 (H, W, C), as a PNG file."""
    with replacing(path) as temporary:
        to_pillow(pixels).save(temporary, format="PNG")


def save_grid(path, pictures, **options):
    """Write a :func:`grid` of pictures as a PNG file and return its pixels."""
    pixels = grid(pictures, **options)
    save_png(path, pixels)
    return pixels


def save_gif(path, paths, *, seconds=10.0, max_frames=100):
    """Write the picture files ``paths`` as an animated GIF that runs for about ``seconds`` and rests on the last one.

    Of more than ``max_frames`` files, evenly spaced ones are taken, the first and the last among them.
    """
    if not paths:
        raise UserError("an animation expected at least one picture, got none")
    if len(paths) > max_frames:
        paths = [paths[i] for i in np.linspace(0, len(paths) - 1, max_frames).round().astype(int)]
    frames = []
    for each in paths:
        with Image.open(each) as frame:
            frames.append(frame.convert("L" if frame.mode == "L" else "RGB"))
    each_ms = max(40, min(500, int(seconds * 1000 / len(frames))))
    durations = [each_ms] * (len(frames) - 1) + [each_ms + 1500]
    with replacing(path) as temporary:
        frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True
        )


def resize(pictures, size, *, progress=None):
    """Resize uint8 (N, H, W, C) to (N, size, size, C) with Pillow's bilinear filter, which averages when shrinking.

    ``progress`` wraps the iteration (tqdm). Pictures that have the size are returned as they are.
    """
    N, H, W, C = pictures.shape
    if (H, W) == (size, size):
        return pictures
    result = np.empty((N, size, size, C), np.uint8)
    for i in (progress or iter)(range(N)):
        resized = to_pillow(pictures[i]).resize((size, size), Image.Resampling.BILINEAR)
        result[i] = np.asarray(resized).reshape(size, size, C)
    return result
