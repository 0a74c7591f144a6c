"""Any folder of pictures, however large: listed once, decoded when a batch asks for it, or packed for good."""

import bisect
import contextlib
import hashlib
import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from nanogan.disk import replacing
from nanogan.errors import DataNotFound, UserError

SUFFIXES = (b".jpg", b".jpeg", b".png", b".webp", b".bmp", b".gif")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # by content: of Pillow's other readers, some start programs
MAX_PIXELS = 1 << 26  # of a picture, 67 million: 200 MB when decoded; Pillow itself warns from 89 million on
MAX_BYTES = 1 << 29  # of a picture's file
BLOCK = 256  # pictures that are decoded, then written, while packing
TURNED = {  # what undoes the orientation in a picture's EXIF data
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureFolder:
    """The pictures in a folder and all folders below it, as if they were one array, uint8 (N, size, size, channels).

    JPEG, PNG, WebP, BMP and GIF (its first frame), grey, palette, RGBA, 16-bit or CMYK; sorted by path. Hidden files,
    hidden folders and other files are ignored; links are followed, each folder is entered once. A picture is turned
    upright by its EXIF data, cropped to the square in its middle and resized with Pillow's bilinear filter, which
    averages when shrinking. ``channels`` is 3 (RGB) or 1 (grey); what is transparent is laid on ``background``, 0 to
    255 (white if not given).

    ``folder[i]`` is a picture, ``folder[indices]`` (1-D array or slice) a batch (B, size, size, channels). They are
    decoded by then and not kept, in ``workers`` threads (as many as there are cores, 16 at most, if not given).

    If all images lie in class subfolders (photos/cats/1.jpg, photos/dogs/old/2.jpg), ``folder.classes`` is the names of
    those, a tuple, sorted as torchvision's ImageFolder sorts them, and ``folder.labels``, int64 (N,), says for each
    image which of them it lies in, at whatever depth. If any image lies in the folder itself, ``labels`` is None and
    ``classes`` is empty. A subfolder without images is no class.

    An image that cannot be decoded, or has more than MAX_PIXELS pixels, is left out: the next good one of its class, or
    of the folder where there are no classes, stands in its place too (after the last comes the first); so its label
    stays right. In place of a class of which none is good stands the next good image of another: those are named in
    ``folder.lost_classes``, and a Loader with labels refuses them. ``folder.skipped``, {path: reason}, names the images
    met so far that were left out.

    ``cache`` is a file, such as faces-64.npy, from which all is read once :meth:`pack` has written it; beside it,
    faces-64.npy.json tells whether it still fits the folder: if not, the folder is decoded until it is packed again.
    ``progress`` wraps the iteration over the files found while listing (tqdm).

    Raises UserError if there is no such folder or it holds no picture, and, when a batch is asked for, if none is good.
    """

    ndim, dtype = 4, np.dtype(np.uint8)

    def __init__(self, path, *, size, channels=3, background=255, workers=None, cache=None, progress=None):
        if size < 1 or channels not in (1, 3):
            raise UserError(f"expected a size of at least 1 and 1 or 3 channels, got size {size}, {channels} channels")
        if not 0 <= background <= 255:
            raise UserError(f"expected a background from 0 (black) to 255 (white), got {background}")
        if workers is not None and workers < 1:
            raise UserError(f"expected at least 1 worker, got {workers}")
        self.path, self.size, self.channels, self.background = Path(path), size, channels, background
        self.workers = workers or min(16, _usable_cores())
        self.cache = None if cache is None else Path(cache)
        self._bad = {}  # index of a picture, or path of a folder -> why it is left out; only ever added to
        self._pool = self._pool_owner = self._packed = None
        self._names, self._starts, self._fingerprint, runs = self._list(progress or iter)
        self.classes, self.labels, self._class_starts = _classes(runs)
        if self.cache is not None:
            self._open_cache()

    def __len__(self):
        return len(self._starts) - 1

    @property
    def shape(self):
        """(N, size, size, channels)."""
        return len(self), self.size, self.size, self.channels

    @property
    def skipped(self):
        """{path: why this picture, or folder, was left out} of those met so far, in the order of the folder."""
        bad = sorted(self._bad.copy().items(), key=lambda item: (isinstance(item[0], str), item[0]))
        return {self.file(i) if isinstance(i, int) else i: reason for i, reason in bad}

    @property
    def lost_classes(self):
        """{class: why, for one of its images} of classes of which no image can be read, as far as it is known."""
        if not self.classes or not self._bad:
            return {}
        bad = self._bad.copy()
        known = {self.labels[i]: i for i in bad if isinstance(i, int)}  # an unreadable image of each class
        lost = [known[label] for label in sorted(known) if all(i in bad for i in self._class_of(known[label]))]
        return {self.classes[self.labels[i]]: f"{self.file(i)}: {bad[i]}" for i in lost}

    def _class_of(self, index):
        """The range of the images in the class of image ``index``; of all images where there are no classes."""
        if not self.classes:
            return range(len(self))
        at = bisect.bisect(self._class_starts, index)
        return range(self._class_starts[at - 1], self._class_starts[at])

    def __getitem__(self, indices):
        if isinstance(indices, (int, np.integer)):
            return self[np.array([indices])][0]
        if isinstance(indices, slice):
            indices = np.arange(*indices.indices(len(self)))
        indices, N = np.asarray(indices), len(self)
        if indices.ndim != 1 or (len(indices) and indices.dtype.kind not in "iu"):
            raise UserError(f"a folder's index is a number, a slice or a 1-D array of them, got {indices!r}")
        if len(indices) and not -N <= indices.min() <= indices.max() < N:
            raise IndexError(f"index {indices.min()} or {indices.max()} is out of range for {N} pictures")
        indices = indices.astype(np.int64)  # an empty list makes an array of floating-point numbers
        return self._decode(indices) if self._packed is None else self._packed[indices]

    # ------------------------------------------------------------------------------------------------- the listing

    def _list(self, progress):
        """Return all paths, joined, where each starts (N + 1 integers), the fingerprint, and the runs of classes.

        A million paths are one string of bytes and one array, not a million objects; and their classes are runs of
        images, [name, count], since they are listed folder by folder. An image in the folder itself is of class None.
        """
        if not self.path.is_dir():
            found = "a file" if self.path.exists() else "nothing"
            raise UserError(f"expected a folder of pictures, {self.path} is {found}: check the path")
        root, names, starts, digest = os.fsencode(self.path), bytearray(), bytearray(), hashlib.sha256()
        options = (1, self.size, self.channels, self.background, MAX_PIXELS, MAX_BYTES)  # 1: this decoder's version
        digest.update(repr(options).encode())
        runs = []
        for name in progress(self._scan()):
            top, slash, _ = name.partition(b"/")
            if not runs or runs[-1][0] != (top if slash else None):
                runs.append([top if slash else None, 0])
            runs[-1][1] += 1
            starts += len(names).to_bytes(8, "little")
            names += name
            if self.cache is not None:
                with contextlib.suppress(OSError):  # gone meanwhile: decoding will tell
                    status = os.stat(os.path.join(root, name))
                    digest.update(b"%b\0%d %d\0" % (name, status.st_size, status.st_mtime_ns))
        if not starts:
            raise DataNotFound(f"{self.path} holds no picture (.jpg, .png, .webp, .bmp or .gif), itself or below")
        starts += len(names).to_bytes(8, "little")
        return bytes(names), np.frombuffer(bytes(starts), "<i8"), digest.hexdigest(), runs

    def _scan(self):
        """Yield each picture's path below the folder, bytes, sorted. A folder's path ends in a slash."""
        root = os.fsencode(self.path)
        entered, waiting = set(), [b""]  # folders and files to come, the next one last
        while waiting:
            name = waiting.pop()
            if name and not name.endswith(b"/"):
                yield name
                continue
            folder = os.path.join(root, name)
            try:
                status = os.stat(folder)
                if (status.st_dev, status.st_ino) in entered:  # a link to a folder that was there already
                    continue
                entered.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as entries:
                    found = [name + item for item in map(_name_if_wanted, entries) if item]
            except OSError as error:
                if not name:
                    raise UserError(f"{self.path} cannot be read ({error.strerror or error})") from None
                self._bad[os.fsdecode(folder)] = f"the folder cannot be read ({error.strerror or error})"
                continue
            waiting += sorted(found, reverse=True)  # with the slashes: all come out as sorted() would have them

    def file(self, index):
        """The path of picture number ``index``, from 0 on, whether or not it can be read."""
        name = self._names[self._starts[index] : self._starts[index + 1]]
        return os.path.join(self.path, os.fsdecode(name))

    # ------------------------------------------------------------------------------------------------- the pictures

    def _decode(self, indices):
        """Return the pictures at ``indices``, decoded on the workers' threads."""
        pictures = np.empty((len(indices), *self.shape[1:]), np.uint8)

        def work(share):
            for at in share:
                pictures[at] = self._good_one(int(indices[at]))

        workers = min(self.workers, len(indices))
        if workers < 2:
            work(range(len(indices)))
            return pictures
        # Small shares, so that none is waited for long; a picture each would be as many wake-ups of a thread.
        step = max(1, len(indices) // (4 * workers))
        shares = [range(i, min(i + step, len(indices))) for i in range(0, len(indices), step)]
        for _ in self._threads().map(work, shares):
            pass
        return pictures

    def _threads(self):
        if self._pool_owner != os.getpid():  # a forked process has no threads but its first
            self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="nanogan-decode")
            self._pool_owner = os.getpid()
        return self._pool

    def _good_one(self, index):
        """Return the image at ``index``, or the next good one, of its class if there is one.

        Depends on the files alone, not on who came first.
        """
        index %= len(self)
        alike = self._class_of(index)
        for i in itertools.chain(
            range(index, alike.stop), range(alike.start, index), range(alike.stop, len(self)), range(alike.start)
        ):
            if i in self._bad:
                continue
            try:
                return decode(self.file(i), self.size, self.channels, background=self.background)
            except Exception as error:  # Pillow's readers raise many kinds, of which a bad file may cause any
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                self._bad[i] = reason
        path, reason = next(iter(self.skipped.items()))
        raise UserError(f"none of the {len(self)} pictures in {self.path} can be read (for one, {path}: {reason})")

    # ---------------------------------------------------------------------------------------------------- the cache

    def pack(self, progress=None):
        """Decode all pictures into the file ``cache`` and read them from there from now on. Returns the folder itself.

        Does nothing if the cache is whole and fits the folder. ``progress`` wraps the iteration over the pictures
        (tqdm). A pack that is interrupted leaves no cache.
        """
        if self.cache is None:
            raise UserError(f"{self.path} has no cache to pack into: give PictureFolder a cache=FILE")
        if self._packed is not None:
            return self
        note = self._note()
        try:
            with replacing(self.cache) as temporary:
                with open(temporary, "wb") as file:
                    header = {"descr": "|u1", "fortran_order": False, "shape": self.shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    for i in (progress or iter)(range(len(self))):
                        if i % BLOCK == 0:
                            file.write(self._decode(np.arange(i, min(i + BLOCK, len(self)))))
                note.unlink(missing_ok=True)  # until the new one is there, the pictures count for nothing
            bad = {str(i): reason for i, reason in self._bad.items() if isinstance(i, int)}
            with replacing(note) as temporary:
                contents = {"fingerprint": self._fingerprint, "skipped": bad, "within_classes": True}
                temporary.write_text(json.dumps(contents), encoding="utf-8")
        except OSError as error:
            raise UserError(f"the cache {self.cache} cannot be written ({error.strerror or error})") from None
        self._open_cache()
        return self

    def _note(self):
        return self.cache.with_name(self.cache.name + ".json")

    def _open_cache(self):
        """Use the cache if it is whole and was made of these very files, sizes and times; else leave it alone."""
        try:
            note = json.loads(self._note().read_text(encoding="utf-8"))
            if note["fingerprint"] != self._fingerprint:
                return
            bad = {int(i): str(reason) for i, reason in note["skipped"].items()}
            if bad and self.classes and not note.get("within_classes"):  # packed before images stood in for their class
                return
            packed = np.lib.format.open_memmap(self.cache, mode="r")  # np.load would open zip files and pickles too
            if packed.shape == self.shape and packed.dtype == np.uint8 and packed.flags.c_contiguous:
                self._packed = packed
                self._bad.update((i, reason) for i, reason in bad.items() if 0 <= i < len(self))
        except Exception:  # of many kinds, for the many ways in which the two files can be missing or damaged
            return


def _classes(runs):
    """Return the sorted names of the classes, all labels, int64 (N,), and where each run of a class starts, and N.

    ``runs`` are [name of the top folder, in bytes, or None; count]. With a None among them there are no classes.
    """
    if any(name is None for name, _ in runs):
        return (), None, []
    names = sorted(os.fsdecode(name) for name, _ in runs)
    number = {name: i for i, name in enumerate(names)}
    counts = [count for _, count in runs]
    labels = np.repeat([number[os.fsdecode(name)] for name, _ in runs], counts).astype(np.int64)
    return tuple(names), labels, [0, *itertools.accumulate(counts)]


def _usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _name_if_wanted(entry):
    """Return the name of a picture, the name of a folder with a slash, or None for anything else."""
    name = entry.name
    if name.startswith(b"."):
        return None
    try:
        if name.lower().endswith(SUFFIXES) and entry.is_file():
            return name
        return name + b"/" if entry.is_dir() else None
    except OSError:  # a link to itself
        return None


def decode(path, size, channels=3, *, background=255):
    """Return the picture in the file ``path``, uint8 (size, size, channels): upright, cropped to a square, resized.

    Raises ValueError for a file too large, before anything is decoded, and what Pillow raises for one it cannot read.
    """
    if os.path.getsize(path) > MAX_BYTES:
        raise ValueError(f"its file has more than {MAX_BYTES} bytes")
    try:
        image = Image.open(path, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"it has more than {MAX_PIXELS} pixels") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it has more than {MAX_PIXELS} pixels")
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size; twice what is wanted is left for the filter to average.
        image.draft("L" if channels == 1 else "RGB", (2 * size, 2 * size))
        image = upright(image, channels, background=background)
        W, H = image.size
        side = min(W, H)
        left, top = (W - side) // 2, (H - side) // 2
        if W != H:  # before resizing, which would else average pixels from beyond the edge with those inside
            image = image.crop((left, top, left + side, top + side))
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, channels)


def upright(image, channels=3, *, background=255):
    """Return an opened Pillow image as "RGB", or "L" for 1 channel: whole, 8 bits, turned by its EXIF data, opaque."""
    image.load()
    orientation = _orientation(image)
    image = _plain(image, channels, background)
    return image.transpose(TURNED[orientation]) if orientation in TURNED else image


def _orientation(image):
    try:
        return image.getexif().get(0x0112)  # EXIF's tag of that name
    except Exception:  # damaged EXIF data are no reason to lose the picture
        return None


def _plain(image, channels, background):
    """Return the picture as 8-bit "L" or "RGB", without transparency."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode.startswith("I"):  # 16 bits, which convert would clip to 8
        numbers = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((numbers * 255 + 32767) // 65535).astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        below = Image.new("RGBA", image.size, (background, background, background, 255))
        image = Image.alpha_composite(below, image)
    return image if image.mode == mode else image.convert(mode)
