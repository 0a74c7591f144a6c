"""Near-copies whose originals are known: a folder of pictures, some of them altered a little and saved again.

What finds near-duplicates is measured on it. Each kind of copy in KINDS is what happens to pictures on their way
through the web: saved again, resized, moved, made brighter. A flipped one is no near-copy for most purposes, and stands
here for what should not be found.
"""

import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from nanogan.data.formats.image_files import opened, upright
from nanogan.errors import UserError

KINDS = ("copied", "recompressed", "resized", "brightened", "shifted", "cropped", "flipped")
QUALITY = 50  # of the JPEG files of "recompressed"; a camera's have 90 or more
SCALE = 0.75  # of the side of "resized"
BRIGHTER = 1.15  # "brightened": levels times this, at most 255
PIXELS = 32  # the side is that many of the pixels that codes are made of: "shifted" moves by one of them
CUT = 0.04  # of the side: what "cropped" loses at each edge
LIST = "planted.txt"  # beside the pictures: the names of those that plant made
HEADING = "made by nanogan, which removes these files when it fills this folder anew:"


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

    The names go to planted.txt, each before its file is made: what an interrupted run leaves, :func:`clear` removes.

    Raises UserError if there are fewer pictures than kinds, ``folder`` is not empty, or a file cannot be read.
    """
    folder = Path(folder)
    each = min(max(1, round(share * len(files))), len(files) // len(KINDS))
    if each < 1:
        raise UserError(f"planting copies expected at least {len(KINDS)} pictures, one for each kind, got {len(files)}")
    for entry in folder.iterdir():
        raise UserError(f"planting copies expected an empty folder, {folder} holds {entry.name}: choose another")
    chosen = rng.permutation(len(files))[: each * len(KINDS)].reshape(len(KINDS), each)
    kind_of = {int(i): kind for kind, row in zip(KINDS, chosen, strict=True) for i in row}
    with open(folder / LIST, "x", encoding="utf-8") as names:
        names.write(f"{HEADING}\n")

        def listed(name):
            names.write(f"{name}\n")
            names.flush()
            return folder / name

        for i, file in enumerate((progress or iter)(files)):
            drawn = isinstance(file, Image.Image)
            original = listed(f"{i:05d}{'.png' if drawn else Path(file).suffix}")
            if drawn:
                file.save(original, compress_level=1)
            else:
                shutil.copyfile(file, original)
            kind = kind_of.get(i)
            if kind == "copied":
                shutil.copyfile(original, listed(f"{i:05d}-{kind}{original.suffix}"))
            elif kind == "recompressed":
                _opened(original).save(listed(f"{i:05d}-{kind}.jpg"), quality=QUALITY)
            elif kind is not None:
                altered(_opened(original), kind).save(listed(f"{i:05d}-{kind}.png"), compress_level=1)
    return dict.fromkeys(KINDS, each)


def clear(folder):
    """Remove from ``folder`` what :func:`plant` made there, by its list.

    Raises UserError, and removes nothing, if the folder holds anything else.
    """
    folder = Path(folder)
    names = _listed(folder / LIST)
    entries = sorted(folder.iterdir())  # only these are removed: a path in the list leads nowhere
    for entry in entries:
        if entry.name not in names or entry.is_dir():
            raise UserError(
                f"{folder} holds {entry.name}, which no earlier run made: choose another --out, or remove it yourself"
            )
    for entry in sorted(entries, key=lambda entry: entry.name == LIST):  # the list last, for what is left if stopped
        entry.unlink()


def _listed(path):
    """The names in a list that :func:`plant` wrote, and its own; none if there is none, or another wrote it."""
    if not path.is_file():
        return set()
    heading, *names = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return {*names, path.name} if heading == HEADING else set()


def _opened(path):
    with opened(path) as image:
        return upright(image, 1 if image.mode == "L" else 3)


def origin(path):
    """The number of a planted picture's original, and its kind, "original" for one that is: 12, "shifted"."""
    number, _, kind = Path(path).stem.partition("-")
    return int(number), kind or "original"
