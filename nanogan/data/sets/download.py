"""Files of data sets: where they are kept on this machine, and how they come here. Checksums are always verified."""

import contextlib
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from nanogan.disk import replacing
from nanogan.errors import DataNotFound, UserError
from nanogan.progress import bar

TIMEOUT = 10  # seconds without an answer


def cache_dir():
    """Return the user's cache folder for nanogan, wherever the system keeps such."""
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "nanogan"
    except RuntimeError:
        raise DataNotFound(
            f"no home folder is known, and so no cache folder {base}/nanogan: set HOME, or set NANOGAN_DATA to the "
            "folder that contains the data set's folder"
        ) from None


def data_dir():
    """Return the folder that NANOGAN_DATA names, in which ``~`` is the home folder; None if it is not set."""
    shared = os.environ.get("NANOGAN_DATA")
    return Path(os.path.expanduser(shared)) if shared else None


def usual_folders(name):
    """Return the folders where data set ``name`` may be: below $NANOGAN_DATA, if that is set, and below the cache."""
    shared, folders = data_dir(), []
    if shared is not None:
        if not shared.is_dir():
            raise UserError(f"NANOGAN_DATA names {shared}, which is no folder: correct it or unset it")
        folders.append(shared / name)
    with contextlib.suppress(DataNotFound):  # without a home folder there is no cache
        cache = cache_dir() / name
        folders += [cache] if os.path.isdir(cache) else []  # False too if this user may not look into it
    return folders


def download_file(name, file, *, mirrors, md5, max_bytes):
    """Return the path of ``file`` in the cache, fetched from the first mirror that delivers it whole.

    ``mirrors`` are addresses to which the file's name is added; ``md5`` is the file's sum, in hexadecimal digits. A
    mirror that sends more than ``max_bytes`` is left.

    Raises DataNotFound, with the failure of each mirror, if none delivers.
    """
    path, failures = cache_dir() / name / file, []
    for mirror in mirrors:
        try:
            with replacing(path) as temporary:
                digest = _fetch(mirror + file, temporary, max_bytes)
                if digest != md5:
                    raise ValueError(f"wrong checksum, MD5 {digest} instead of {md5}")
            return path
        except (OSError, ValueError, http.client.HTTPException) as error:  # urllib's own errors are OSErrors
            reason = str(getattr(error, "reason", None) or error or type(error).__name__)
            failures.append(f"{mirror}: {' '.join(reason.split())[:200]}")
    raise DataNotFound(f"{name} could not be downloaded: {'; '.join(failures)}")


def _fetch(url, path, max_bytes):
    """Write the contents of ``url`` to ``path`` under a progress bar and return their MD5 sum."""
    digest = hashlib.md5(usedforsecurity=False)
    request = urllib.request.Request(url, headers={"User-Agent": "nanogan"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response, open(path, "wb") as file:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        label = url.rsplit("/", 1)[-1]
        with bar(desc=label, total=total, unit="B", unit_scale=True, leave=False) as shown:
            received = 0
            while block := response.read(1 << 16):
                received += len(block)
                if received > max_bytes:
                    raise ValueError(f"more than the {max_bytes} bytes that were expected at most")
                digest.update(block)
                file.write(block)
                shown.update(len(block))
    return digest.hexdigest()
