"""Image files: what a file is by its first bytes, and how it becomes a square array of a given size."""

import os

import numpy as np
from PIL import Image, JpegImagePlugin, features

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000") + ("AVIF",) * bool(features.check("avif"))
# of Pillow's other readers, some start programs
SUFFIXES = tuple(  # what the files of these formats are usually called
    b".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .jp2 .j2k".split()
    + [b".avif"] * ("AVIF" in FORMATS)
)
MAX_PIXELS = 1 << 26  # of an image as it is decoded, 67 million: 200 MB; Pillow itself warns from 89 million on
MAX_JPEG = 1 << 28  # pixels of a JPEG that is decoded at 1/2, 1/4 or 1/8 of its size; phones make 200 million
MAX_BYTES = 1 << 29  # of an image's file
START = 64  # bytes that say what a file is
TURNED = {  # what undoes the orientation in an image's EXIF data
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MAGIC = {  # how a file begins: what it is
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "Photoshop",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"<svg": "SVG",
}
BMP_HEADERS = (12, 40, 108, 124)  # sizes of those that a BMP file may have
RAW = tuple(b".dng .nef .cr2 .arw .orf .rw2 .pef .srw".split())  # TIFF files that hold no more than a thumbnail


def kind_of(start, name=b""):
    """Return what an image file is, such as "JPEG", by its first START bytes; None if they are of no image known here.

    Kinds that are not among FORMATS cannot be read. ``name``: the file's, which tells a camera's raw data from a TIFF.
    """
    if name.lower().endswith(RAW):
        return "raw camera"
    for magic, kind in MAGIC.items():
        if start.startswith(magic):
            return kind
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in BMP_HEADERS:
        return "BMP"
    if start[:2] in (b"P4", b"P5", b"P6") and start[2:3].isspace():
        return "PPM"
    if start[4:8] == b"ftyp":  # also a film's: the brands tell
        brands = [start[i : i + 4] for i in range(8, START, 4)]
        if b"avif" in brands:
            return "AVIF"
        if brands[0] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"):
            return "HEIC"
    return None


def first_bytes(path):
    """The first START bytes of a file."""
    with open(path, "rb") as file:
        return file.read(START)


def decode(path, size, channels=3, *, background=255):
    """Return the image in the file ``path``, uint8 (size, size, channels): upright, cropped to a square, resized.

    A JPEG of up to MAX_JPEG pixels is decoded at a fraction of its size, in little memory; what is decoded has at most
    MAX_PIXELS. Raises ValueError, before anything is decoded, for a file that is too large or is no image, and what
    Pillow raises for a damaged one.
    """
    with opened(path) as image:
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size; twice what is wanted is left for the filter to average.
        whole = image.size
        image.draft("L" if channels == 1 else "RGB", (2 * size, 2 * size))
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it has more than {MAX_PIXELS} pixels")
        if whole[0] * whole[1] > MAX_PIXELS and not (whole[0] * whole[1] <= MAX_JPEG and _is_one_scan(path)):
            raise ValueError(f"it has more than {MAX_PIXELS} pixels")
        image = upright(image, channels, background=background)
        W, H = image.size
        side = min(W, H)
        left, top = (W - side) // 2, (H - side) // 2
        if W != H:  # before resizing, which would else average pixels from beyond the edge with those inside
            image = image.crop((left, top, left + side, top + side))
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, channels)


def opened(path):
    """Return the image in the file ``path`` as Pillow opens it, of one of FORMATS, whatever the file's name says.

    Raises ValueError, which says what the file is, if it is another, or has more than MAX_BYTES.
    """
    if os.path.getsize(path) > MAX_BYTES:
        raise ValueError(f"its file has more than {MAX_BYTES} bytes")
    start = first_bytes(path)
    kind = kind_of(start, os.fsencode(path))
    if kind is not None and kind not in FORMATS:
        raise ValueError(f"it is a {kind} file, which cannot be read: convert it to JPEG or PNG")
    try:
        if kind == "JPEG":  # Image.open would refuse those of 179 million pixels before they can be decoded smaller
            return JpegImagePlugin.JpegImageFile(path)
        return Image.open(path, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"it has more than {MAX_PIXELS} pixels") from None
    except (Image.UnidentifiedImageError, SyntaxError):  # the second is a JPEG's own
        what = "it is empty" if not start else "it is no image" if kind is None else f"it is a damaged {kind} file"
        raise ValueError(what) from None


def _is_one_scan(path):
    """Whether a JPEG holds its pixels once, from top to bottom: only then is it decoded without all of it in memory."""
    with open(path, "rb") as file:
        file.seek(2)
        components = 0
        while len(head := file.read(4)) == 4 and head[0] == 0xFF:
            marker, length = head[1], int.from_bytes(head[2:], "big") - 2
            body = file.read(max(length, 0))
            if marker in (0xC0, 0xC1) and len(body) > 5:  # sequential; the others are progressive or rarer still
                components = body[5]
            elif marker == 0xDA:  # the first scan begins: of all components at once?
                return len(body) > 0 and body[0] == components
    return False


def upright(image, channels=3, *, background=255):
    """Return an opened Pillow image as "RGB", or "L" for 1 channel: whole, 8 bits, turned by its EXIF data, opaque."""
    image.load()
    orientation = _orientation(image)
    image = _plain(image, channels, background)
    return image.transpose(TURNED[orientation]) if orientation in TURNED else image


def _orientation(image):
    try:
        return image.getexif().get(0x0112)  # EXIF's tag of that name
    except Exception:  # damaged EXIF data are no reason to lose the image
        return None


def _plain(image, channels, background):
    """Return the image as 8-bit "L" or "RGB", without transparency."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode == "F":
        raise ValueError(
            "it holds floating-point values, of which 0 to 255 cannot be told from 0 to 1: convert it to PNG"
        )
    if image.mode.startswith("I"):  # 16 bits, which convert would clip to 8
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        below = Image.new("RGBA", image.size, (background, background, background, 255))
        image = Image.alpha_composite(below, image)
    return image if image.mode == mode else image.convert(mode)
