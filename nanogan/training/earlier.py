"""What a run finds in its folder: its own files up to a checkpoint, or those of an earlier run."""

import csv
import re
import shutil
from contextlib import nullcontext, suppress
from pathlib import Path

from PIL import Image

from nanogan import checkpoint
from nanogan.disk import Lock, clear_temporaries, is_ours, replacing
from nanogan.errors import UserError
from nanogan.progress import say
from nanogan.report.what_a_run_left import read_object
from nanogan.training.log import read_rows

PRODUCTS = (
    "options.json",
    "curves.json",
    "real.png",
    "log.csv",
    "measures.csv",
    "losses.png",
    "training.gif",
    "report.html",
    "machine.json",
    "warnings.csv",
    "skipped.txt",
    "generator.safetensors",
    "discriminator.safetensors",
    "judge.safetensors",
    "captions.txt",
)  # and the networks that curves.json names
SERIES = ("samples/epoch_*.png", "checkpoints/*.safetensors")  # products of which there are many
LAST, BEST = (Path("checkpoints", f"{name}.safetensors") for name in ("last", "best"))


def check_own(out, exports, resume=None):
    """Raise UserError if ``out`` holds what a run would replace, and no run left it there.

    exports: names of the files of networks that it will write. A run that goes on in its own folder may.
    """
    if _is_a_run(out) or (resume is not None and same_folder(folder_of(resume), out)):
        return
    networks = [out / name for name in exports if (out / name).exists()]
    folders = [path for path in (out / "samples", out / LAST.parent) if any(path.glob("[!.]*"))]
    if any((out / "previous").glob("[!.]*")) and not _is_a_run(out / "previous"):
        folders.append(out / "previous")
    for path in (*_products(out), *networks, *folders):
        raise UserError(
            f"{path} is there, which no run of nanogan left, and a run would put its own in its place: choose another "
            "folder with --out"
        )


def _is_a_run(out):
    """Whether nanogan made the folder ``out``, or a run began in it."""
    if is_ours(out) or "curves" in read_object(out / "curves.json"):
        return True
    with suppress(OSError), open(out / "log.csv", "rb") as file:
        return file.read(11) == b"epoch,step,"
    return False


def set_aside(out):
    """Move what an earlier run left in ``out`` to ``out``/previous, so that all files in ``out`` are of one run.

    A dry run does not take the place of a whole one there: its files are removed.
    """
    clear_all_temporaries(out)
    earlier = _products(out)
    if not earlier:
        return
    previous = out / "previous"
    cannot, remedy = f"the earlier run in {out} cannot be kept in {previous}", "choose another folder with --out"
    for path in (*earlier, *_products(previous)):
        if path.is_dir():
            raise UserError(f"{cannot}: {path} is a folder where a file was expected; move it away, or {remedy}")
    if _is_dry_run(out) and _products(previous) and not _is_dry_run(previous):
        for path in earlier:
            path.unlink()
        say(f"the dry run in {out} is removed; the run before it stays in {previous}")
        return
    with Lock(previous) if previous.is_dir() else nullcontext():  # it may be going on there
        try:
            _move(earlier, out, previous)
        except OSError as error:
            raise UserError(f"{cannot} ({error.filename}: {error.strerror}): move that away, or {remedy}") from None
    say(f"the earlier run in {out} is kept in {previous}")


def _move(earlier, out, previous):
    for path in _products(previous):
        path.unlink()
    for path in earlier:
        target = previous / path.relative_to(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def take_up(out, resume, columns):
    """Bring ``out`` to where it was at ``resume``'s step; return the log's rows and the sample grids up to there."""
    source = folder_of(resume)
    same = same_folder(source, out)
    if same_folder(source, out / "previous"):
        raise UserError(f"{out} cannot take up the run in {source}, whose place its own run needs: use another folder")
    if not same:
        set_aside(out)
    if resume.path is not None and not ((out / LAST).exists() and resume.path.samefile(out / LAST)):
        copy(resume.path, out / LAST)  # first of all: from here on the files belong to this checkpoint
    if same:
        _cut_back(out, resume)
    elif source is not None:
        kept = [path for step, path in samples_in(source) if step <= resume.step]
        for path in [*kept, *source.glob("real.png")]:
            copy(path, out / path.relative_to(source), durable=False)
    rows = read_rows(source / "log.csv", resume.step, columns) if source is not None else []
    if len(rows) < resume.step:
        say(f"the log up to step {resume.step} is not whole: log.csv starts with {len(rows)} rows of it")
    return rows, [path for _, path in samples_in(out)]


def _cut_back(out, resume):
    """Remove what came after ``resume``'s step."""
    clear_all_temporaries(out)
    for step, path in samples_in(out):
        if step > resume.step:
            path.unlink()
    for number, path in epochs_in(out / LAST.parent).items():
        if number * resume.steps_per_epoch > resume.step:
            path.unlink()
    with suppress(UserError):  # a damaged one is none
        if checkpoint.read_training(out / BEST)[0].step > resume.step:
            (out / BEST).unlink()


def folder_of(resume):
    """The folder of the run that a checkpoint was loaded from; None if it is not in one."""
    return resume.path.parent.parent if resume.path and resume.path.parent.name == LAST.parent.name else None


def same_folder(one, other):
    return one is not None and one.exists() and other.exists() and one.samefile(other)


def epochs_in(folder):
    """Return {number: path} of a folder's epoch_003.safetensors, ..."""
    found = {path: re.fullmatch(r"epoch_(\d{1,15})\.safetensors", path.name) for path in folder.glob("epoch_*")}
    return {int(match[1]): path for path, match in found.items() if match}


def samples_in(out):
    """Return [(step, path)] of the sample grids that can be opened, in order."""
    found = []
    for path in (out / "samples").glob("epoch_*.png"):
        match = re.fullmatch(r"epoch_\d{1,15}_step_(\d{1,15})\.png", path.name)
        with suppress(OSError, SyntaxError):  # what Pillow raises for damaged files
            if match:
                with Image.open(path) as image:
                    image.verify()
                found.append((int(match[1]), path))
    return sorted(found)


def make_folders(out):
    """Make the folders of a run's files. Raises UserError if something is in the way, hours before the first file."""
    for path in (out / "samples", out / LAST.parent):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the folder {path} ({error.strerror}): move away what has its name, or choose another "
                "output folder with --out"
            ) from None


def copy(path, name, *, durable=True):
    """Copy a file; no link, because overwriting one name would change the other."""
    with replacing(name, durable=durable) as temporary:
        shutil.copyfile(path, temporary)


def clear_all_temporaries(out):
    """Remove what a killed process left half written."""
    for name in (*PRODUCTS, *SERIES, *_exported(out)):
        clear_temporaries(out / name)


def read_warnings(out, step):
    """Return [(step, message)] of warnings.csv up to ``step``; None if there is none yet."""
    try:
        with open(out / "warnings.csv", newline="", encoding="utf-8") as file:
            return [(int(at), message) for at, message in list(csv.reader(file))[1:] if int(at) <= step]
    except (OSError, ValueError):
        return None


def write_warnings(out, told):
    with replacing(out / "warnings.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("step", "message"), *told])


def _products(out):
    """All files of a run that are in ``out``."""
    files = [path for pattern in (*PRODUCTS, *SERIES) for path in out.glob(pattern)]
    files += [out / name for name in _exported(out) if (out / name).is_file()]
    files = [path for path in dict.fromkeys(files) if not path.name.startswith(".")]
    return sorted(files, key=lambda path: path.name == "curves.json")  # last: it says which networks there are


def _exported(out):
    """The files of networks that the run in ``out`` says to have written, plain names of .safetensors files alone."""
    names = read_object(out / "curves.json").get("exports")
    names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return [name for name in names if re.fullmatch(r"\w[\w.-]*\.safetensors", name)]


def _is_dry_run(out):
    return read_object(out / "options.json").get("dry_run") is True
