"""Near-copies whose originals are known: a folder of pictures, some of them altered a little and saved again.

What finds near-duplicates is measured on it. Each kind of copy in KINDS is what happens to pictures on their way
through the web: saved again, resized, moved, made brighter. A flipped one is no near-copy for most purposes, and stands
here for what should not be found.
"""

import io
import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from nanogan.data.folder import FORMATS, upright
from nanogan.errors import UserError

KINDS = ("copied", "recompressed", "resized", "brightened", "shifted", "cropped", "flipped")
QUALITY = 50  # of the JPEG files of "recompressed"; a camera's have 90 or more
SCALE = 0.75  # of the side of "resized"
BRIGHTER = 1.15  # "brightened": levels times this, at most 255
PIXELS = 32  # the side is that many of the pixels that codes are made of: "shifted" moves by one of them
CUT = 0.04  # of the side: what "cropped" loses at each edge


def altered(image, kind):
    """Return a Pillow image, "L" or "RGB", altered as ``kind`` in KINDS says; "copied" is as it was.

    recompressed    through a JPEG file of quality 50
    resized         to 3/4 of its width and height
    brightened      15% brighter; what was nearly white becomes white
    shifted         to the right by 1/32 of its smaller side; the left edge is repeated
    cropped         4% less at each of its edges
    flipped         left and right exchanged
    """
    W, H = image.size
    if kind == "copied":
        return image
    if kind == "recompressed":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=QUALITY)
        return Image.open(file).convert(image.mode)
    if kind == "resized":
        return image.resize((max(1, round(W * SCALE)), max(1, round(H * SCALE))), Image.Resampling.BILINEAR)
    if kind == "brightened":
        return ImageEnhance.Brightness(image).enhance(BRIGHTER)
    if kind == "shifted":
        step = max(1, round(min(W, H) / PIXELS))
        pixels = np.asarray(image)
        return Image.fromarray(np.concatenate([pixels[:, :1].repeat(step, axis=1), pixels[:, : W - step]], axis=1))
    if kind == "cropped":
        return ImageOps.crop(image, max(1, round(min(W, H) * CUT)))
    if kind == "flipped":
        return ImageOps.mirror(image)
    raise UserError(f"an alteration is one of {', '.join(KINDS)}, got {kind!r}")


def plant(files, folder, *, share=0.1, rng, progress=None):
    """Fill the empty folder ``folder`` with ``files`` and near-copies of some; return how many there are of each kind.

    ``files``: paths of pictures, or Pillow images. Picture 12 becomes 00012.png, or whatever its file's suffix is; its
    copy is 00012-shifted.png. For each of KINDS, ``share`` of the pictures are chosen at random; none for two kinds,
    so that no copy is found by way of another. ``progress`` wraps the pictures (tqdm).

    Raises UserError if there are fewer pictures than kinds, or a file cannot be read.
    """
    folder = Path(folder)
    each = min(max(1, round(share * len(files))), len(files) // len(KINDS))
    if each < 1:
        raise UserError(f"planting copies expected at least {len(KINDS)} pictures, one for each kind, got {len(files)}")
    chosen = rng.permutation(len(files))[: each * len(KINDS)].reshape(len(KINDS), each)
    kind_of = {int(i): kind for kind, row in zip(KINDS, chosen, strict=True) for i in row}
    for i, file in enumerate((progress or iter)(files)):
        original = folder / f"{i:05d}.png"
        if isinstance(file, Image.Image):
            file.save(original, compress_level=1)
        else:
            original = original.with_suffix(Path(file).suffix)
            shutil.copyfile(file, original)
        if i in kind_of:
            kind = kind_of[i]
            copy = original.with_name(f"{i:05d}-{kind}{original.suffix if kind == 'copied' else '.png'}")
            if kind == "copied":
                shutil.copyfile(original, copy)
            elif kind == "recompressed":
                _opened(original).save(copy.with_suffix(".jpg"), quality=QUALITY)
            else:
                altered(_opened(original), kind).save(copy, compress_level=1)
    return dict.fromkeys(KINDS, each)


def _opened(path):
    with Image.open(path, formats=FORMATS) as image:
        return upright(image, 1 if image.mode == "L" else 3)


def is_planted(path):
    """Whether a file has a name that :func:`plant` gives."""
    return re.fullmatch(rf"\d{{5,}}(-({'|'.join(KINDS)}))?\.\w+", Path(path).name) is not None


def origin(path):
    """The number of a planted picture's original, and its kind, "original" for one that is: 12, "shifted"."""
    number, _, kind = Path(path).stem.partition("-")
    return int(number), kind or "original"
