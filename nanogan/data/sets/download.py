"""Files of data sets: where they are kept on this machine, and how they come here. Checksums are always verified."""

import hashlib
import http.client
import os
import socket
import ssl
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from nanogan.disk import NotWritten, replacing, try_folder
from nanogan.errors import DataNotFound, UserError
from nanogan.progress import bar
from nanogan.text import one_line

TIMEOUT = 10  # seconds without an answer
ELSEWHERE = "set XDG_CACHE_HOME to a folder that can be written to, or NANOGAN_DATA to one that holds the data sets"
if os.name == "nt" or sys.platform == "darwin":
    ELSEWHERE = "make it writable, or set NANOGAN_DATA to a folder that holds the data sets"


def cache_dir():
    """Return the user's cache folder for nanogan, wherever the system keeps such.

    Raises DataNotFound if the user has no home folder that it could be in.
    """
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "nanogan"
    except RuntimeError:
        raise DataNotFound(f"no home folder is known, and so no cache folder {base}/nanogan: {ELSEWHERE}") from None


def data_dir():
    """Return the folder that NANOGAN_DATA names, in which ``~`` is the home folder; None if it is not set."""
    shared = os.environ.get("NANOGAN_DATA")
    return Path(os.path.expanduser(shared)) if shared else None


def usual_folders(name):
    """Return the folders where data set ``name`` may be: below $NANOGAN_DATA, if that is set, and below the cache.

    $NANOGAN_DATA may also be the folder of this set itself, and torchvision's folder raw in it.
    """
    shared, folders = data_dir(), []
    if shared is not None:
        if not shared.is_dir():
            raise UserError(f"NANOGAN_DATA names {shared}, which is no folder: correct it or unset it")
        if not _is_readable(shared):
            raise UserError(f"NANOGAN_DATA names {shared}, which this user may not read: correct it or unset it")
        folders += folders_named(shared, name)
        if any(plain(each) == plain(name) for each in Path(os.path.abspath(shared)).parts[-2:]):
            folders.append(shared)
    with suppress(DataNotFound):  # who has no cache, or another user's, may have the data elsewhere
        folders += [cache_dir() / name] if _is_readable(cache_dir() / name) else []
    return folders


def folders_named(folder, name):
    """Return the folders in ``folder`` of a set's name, however it is written: fashion-mnist, FashionMNIST, ...

    Raises UserError for one that may not be read.
    """
    wanted = plain(name)
    try:  # of a million images' names, few begin like a set's
        names = [each for each in os.listdir(folder) if each[:1].lower() == wanted[0] and plain(each) == wanted]
    except OSError:
        return []  # no folder
    names.sort(key=lambda each: (each != name, each))
    found = [Path(folder) / each for each in names if os.path.isdir(os.path.join(folder, each))]
    for each in found:
        if not _is_readable(each):
            raise UserError(f"the folder {each} may not be read by this user: change its permissions")
    return found


def _is_readable(folder):
    return os.access(folder, os.R_OK | os.X_OK)


def plain(name):
    """A name without what differs between ways to write it: fashionmnist for fashion-mnist and FashionMNIST."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def download_file(name, file, *, mirrors, md5, max_bytes):
    """Return the path of ``file`` in the cache, fetched from the first mirror that delivers it whole.

    ``mirrors`` are addresses to which the file's name is added; ``md5`` is the file's sum, in hexadecimal digits. A
    mirror that sends more than ``max_bytes`` is left.

    Raises DataNotFound, with the failure of each mirror, if none delivers; or at once if the file could not be kept.
    """
    path, failures = cache_dir() / name / file, []
    try:  # before anything is downloaded that could not be kept
        try_folder(path.parent)
    except OSError as error:
        raise _not_kept(name, path.parent, error) from None
    for mirror in mirrors:
        try:
            with replacing(path) as temporary:
                digest = _fetch(mirror + file, temporary, max_bytes)
                if digest != md5:
                    raise ValueError(f"wrong checksum, MD5 {digest} instead of {md5}")
            return path
        except NotWritten as error:
            raise _not_kept(name, path.parent, error) from None
        except (OSError, ValueError, http.client.HTTPException) as error:  # urllib's own errors are OSErrors
            failures.append(f"{mirror}: {_reason(error)}")
    raise DataNotFound(
        f"{name} could not be downloaded: {'; '.join(failures)}; go online, or put {file} into {path.parent}"
    )


def _not_kept(name, folder, error):
    return DataNotFound(
        f"{name} was not downloaded, since it cannot be kept in the cache folder {folder} "
        f"({error.strerror or error}): {ELSEWHERE}"
    )


def _reason(error):
    """Why a mirror did not deliver, and what helps, in a few words."""
    cause = getattr(error, "reason", None) or error
    text = one_line(cause)
    if isinstance(error, urllib.error.HTTPError):
        why = {404: "it has no such file", 407: "the proxy asks for a password: put it into https_proxy"}
        return f"HTTP {error.code}, {why.get(error.code, text)}"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted ({text}): check the clock, or name a proxy's own in SSL_CERT_FILE"
    if isinstance(cause, socket.gaierror):
        return f"its name is not known here ({text}): is there a network?"
    proxy = urllib.request.getproxies()
    if isinstance(cause, (ConnectionError, TimeoutError)) and proxy:
        return (
            f"{text}: is the proxy {' or '.join(sorted({_without_password(each) for each in proxy.values()}))} right?"
        )
    return text


def _without_password(address):
    return address.rpartition("@")[2]


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
