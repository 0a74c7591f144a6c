"""The images in a folder and all folders below it, and what else is there."""

import fnmatch
import os
import re

from nanogan.data.formats.image_files import FORMATS, SUFFIXES, first_bytes, kind_of
from nanogan.disk import MARK, RESULTS, RUN, results_in
from nanogan.errors import UserError
from nanogan.text import quoted

OTHERS = set(  # files that often lie beside images, in large numbers: these are not opened to see what they are
    (
        b".txt .csv .tsv .json .jsonl .xml .yaml .yml .md .html .htm .log .pdf .py .ipynb .db .ini .part .crdownload "
        b".npy .npz .mat .pt .pth .ckpt .safetensors .pkl .h5 .hdf5 .parquet "
        b".zip .tar .gz .tgz .bz2 .xz .7z .rar .mp4 .mov .avi .mkv .webm .mp3 .wav"
    ).split()
)


class Listing:
    """One walk through a folder: iterating yields each image's path below it, bytes, sorted.

    An image is a file with the suffix of one, or whose first bytes say so, whatever it is called; those with a suffix
    of OTHERS are not opened. Hidden files and folders are ignored; links are followed, each folder is entered once.
    What nanogan itself wrote is not listed (see :func:`nanogan.disk.mark_results`): the folder of a run below the root,
    and a run's images in the root itself.

    After the walk ``unreadable`` is {folder: why}, and :meth:`left_out` says what else there is.
    """

    def __init__(self, path):
        self.path, self.root = path, os.fsencode(path)
        self.unreadable = {}
        self._kinds = {}  # kind of image that cannot be read -> [count, the first one's path]
        self._others, self._suffixes = 0, set()  # files that are no images, and those of OTHERS among their suffixes
        self._results = []  # folders and files of nanogan's own

    def __iter__(self):
        entered, waiting = set(), [b""]  # folders and files to come, the next one last; a folder ends in a slash
        while waiting:
            name = waiting.pop()
            if name and not name.endswith(b"/"):
                yield name
                continue
            folder = os.path.join(self.root, name)
            try:
                status = os.stat(folder)
                if (status.st_dev, status.st_ino) in entered:  # a link to a folder that was there already
                    continue
                entered.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as entries:
                    found = self._wanted(name, list(entries))
            except OSError as error:
                if not name:
                    raise UserError(f"{self.path} cannot be read ({error.strerror or error})") from None
                self.unreadable[os.fsdecode(folder)] = f"the folder cannot be read ({error.strerror or error})"
                continue
            waiting += sorted((name + item for item in found), reverse=True)  # with the slashes: as sorted() has paths

    def _wanted(self, below, entries):
        """The names of images, and of folders with a slash, among the entries of the folder ``below``."""
        names = {entry.name for entry in entries}
        patterns = results_in(os.path.join(self.root, below), names)
        if patterns is None and below:
            self._results.append(below)
            return []
        if patterns is None:  # the root itself is asked for: its results only if there is nothing else
            is_result = _matcher(RESULTS)
            others = [entry for entry in entries if not is_result(entry.name)]
            has_images = any(entry.name.lower().endswith(SUFFIXES) or entry.is_dir() for entry in others)
            patterns = RESULTS if has_images or names >= RUN else ()
        found, is_result = [], _matcher(patterns)
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = entry.name
            if name.startswith(b"."):
                continue
            if is_result(name):
                self._results.append(below + name)
            elif item := self._classified(below, entry):
                found.append(item)
        return found

    def _classified(self, below, entry):
        """The entry's name if it is an image, with a slash if it is a folder; else None, and it is counted."""
        name = entry.name
        try:
            if entry.is_dir():
                return name + b"/"
            if not entry.is_file():
                if entry.is_symlink():
                    self.unreadable[os.fsdecode(entry.path)] = "it is a link that leads nowhere"
                return None
            if name.lower().endswith(SUFFIXES):
                return name
            suffix = os.path.splitext(name)[1].lower()
            kind = None if suffix in OTHERS else kind_of(first_bytes(entry.path), name)
        except OSError as error:  # a link to itself, a file that may not be read
            self.unreadable[os.fsdecode(entry.path)] = f"it cannot be read ({error.strerror or error})"
            return None
        if kind in FORMATS:
            return name
        if kind is not None:
            self._kinds.setdefault(kind, [0, below + name])[0] += 1
        else:
            self._others += 1
            self._suffixes |= {suffix} & OTHERS
        return None

    def left_out(self):
        """Return phrases that say what was found besides the images: "96 HEIC files, which cannot be read ..."."""
        phrases = [
            f"{_counted(count, f'{kind} file')}, which cannot be read ({quoted(os.fsdecode(first))}"
            f"{', ...' if count > 1 else ''}): convert to JPEG or PNG"
            for kind, (count, first) in sorted(self._kinds.items())
        ]
        if self._results:
            names = ", ".join(quoted(os.fsdecode(name)) for name in self._results[:3])
            more = ", ..." if len(self._results) > 3 else ""
            phrases.append(f"results of nanogan ({names}{more}); remove {MARK} from a folder that is your own")
        if self._others:
            suffixes = ", ".join(sorted(map(os.fsdecode, self._suffixes)))
            phrases.append(f"{_counted(self._others, 'other file')}{suffixes and f' ({suffixes})'}")
        return phrases


def _matcher(patterns):
    """Return a function that says whether a name, bytes, is one of ``patterns``."""
    if not patterns:
        return lambda name: False
    match = re.compile("|".join(map(fnmatch.translate, patterns))).match
    return lambda name: match(os.fsdecode(name)) is not None


def _counted(count, noun):
    return f"{count} {noun}{'s' * (count != 1)}"
