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

from nanogan.data.formats.image_files import MAX_BYTES, MAX_PIXELS, decode
from nanogan.data.formats.listing import Listing
from nanogan.disk import replacing
from nanogan.errors import DataNotFound, UserError
from nanogan.ranks import core_count
from nanogan.text import one_line

MAX_NOTE = 1 << 20  # bytes of a cache's note that are looked at
BLOCK = 256  # images that are decoded, then written, while packing


class PictureFolder:
    """The pictures in a folder and all folders below it, as if they were one array, uint8 (N, size, size, channels).

    JPEG, PNG, WebP, BMP, GIF (its first frame), TIFF, PPM, JPEG 2000 and, where Pillow has it, AVIF; grey, palette,
    RGBA, 16-bit or CMYK; sorted by path. What a file is, its first bytes say, not its name. Hidden files and folders,
    and nanogan's own results, are ignored (see :class:`nanogan.data.formats.listing.Listing`); ``folder.left_out`` says
    what else is there, a list of phrases. An image is turned upright by its EXIF data, cropped to the square in its
    middle and resized with Pillow's bilinear filter, which averages when shrinking. ``channels`` is 3 (RGB) or 1
    (grey); what is transparent is laid on ``background``, 0 to 255 (white if not given).

    ``folder[i]`` is a picture, ``folder[indices]`` (1-D array or slice) a batch (B, size, size, channels). They are
    decoded by then and not kept, in ``workers`` threads (as many as this process has cores, 16 at most, if not given).

    If all images lie in class subfolders (photos/cats/1.jpg, photos/dogs/old/2.jpg), ``folder.classes`` is the names of
    those, a tuple, sorted as torchvision's ImageFolder sorts them, and ``folder.labels``, int64 (N,), says for each
    image which of them it lies in, at whatever depth. If any image lies in the folder itself, ``labels`` is None and
    ``classes`` is empty. A subfolder without images is no class.

    An image that cannot be decoded, or is too large (see :func:`nanogan.data.formats.image_files.decode`), is left out:
    the next good one of its class, or of the folder where there are no classes, stands in its place too (after the last
    comes the first); so its label stays right. In place of a class of which none is good stands the next good image of
    another: those are named in ``folder.lost_classes``, and a Loader with labels refuses them. ``folder.skipped``,
    {path: reason}, names the images met so far that were left out.

    ``cache`` is a file, such as faces-64.npy, from which all is read once :meth:`pack` has written it; beside it,
    faces-64.npy.json tells whether it still fits the folder: if not, the folder is decoded until it is packed again.
    ``progress`` wraps the iteration over the files found while listing (tqdm).

    Raises UserError if there is no such folder or it holds no image, and, when a batch is asked for, if none is good.
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
        self.workers = workers or min(16, core_count())
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
            found = "is a file" if self.path.exists() else "does not exist"
            raise UserError(f"expected a folder of images, {self.path} {found}: check the path")
        root, names, starts, digest = os.fsencode(self.path), bytearray(), bytearray(), hashlib.sha256()
        options = (2, self.size, self.channels, self.background, MAX_PIXELS, MAX_BYTES)  # 2: this decoder's version
        digest.update(repr(options).encode())
        runs, listing = [], Listing(self.path)
        for name in progress(listing):
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
        self._bad.update(listing.unreadable)
        self.left_out = listing.left_out()
        if not starts:
            found = f"; it holds {'; '.join(self.left_out)}" if self.left_out else ""
            raise DataNotFound(
                f"{self.path} holds no image that can be read (such as JPEG or PNG), itself or below{found}"
            )
        starts += len(names).to_bytes(8, "little")
        return bytes(names), np.frombuffer(bytes(starts), "<i8"), digest.hexdigest(), runs

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
                self._bad[i] = one_line(error)
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
        self._check_own_cache()
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

    def _check_own_cache(self):
        """Raise UserError if the cache's two files are others, which no folder was packed into."""
        is_ours = not self.cache.exists() or _is_packed(_opened_array(self.cache))
        with contextlib.suppress(OSError), open(self._note(), "rb") as file:
            is_ours = b'"fingerprint"' in file.read(MAX_NOTE)  # beside a note the array may be half of one
        if not is_ours:
            raise UserError(f"{self.cache} exists and holds no packed images: choose another name for the cache")

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


def _opened_array(path):
    """Return the array in an .npy file, which is mapped and not read; None if it holds none."""
    try:
        return np.lib.format.open_memmap(path, mode="r")  # np.load would open zip files and pickles too
    except Exception:  # of many kinds, for the many ways in which a file can be damaged
        return None


def _is_packed(array):
    return array is not None and array.ndim == 4 and array.dtype == np.uint8 and array.shape[3] in (1, 3)
