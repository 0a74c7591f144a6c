#!/usr/bin/env python3
"""Find near-duplicates in a folder of pictures, by the codes of an autoencoder. Nothing in the folder is changed.

    python examples/dedupe.py FOLDER                 list them; look at runs/dedupe/duplicates.png first
    python examples/dedupe.py FOLDER --distance 8    codes may differ in 8 of 128 bits: finds more, also wrong ones
    python examples/dedupe.py                        how good is it? copies planted among built-in faces, 33 s
    python examples/dedupe.py --data FOLDER          the same among your pictures, of which copies go below --out

FOLDER: image files of the usual kinds, in it or below it. Writes duplicates.csv (group, path, width, height, bytes,
bits, levels; in each group the largest picture first) and duplicates.json, the same. ``bits`` are how many of a code's
128 differ from the first one's, ``levels`` how far its pixels at 32 x 32 are, root mean square of 255: 0 is the same
picture, above 30 look before you believe it. Decoded pictures are kept in pictures-32.npy, 3 kB each, for a next run.

Without FOLDER it plants altered copies of known pictures in OUT/planted, searches that folder in the same way, and
tells precision (the share of found pairs that are of one original) and recall (the share of copies that are found with
their original), beside those of other methods: the same network untrained, the signs of 24 principal components, equal
pixels, pixels within so many levels, and those of pictures given the same brightness and contrast.
"""

import contextlib
import csv
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nanogan import backend, cli, images
from nanogan.analysis.measures import codes, neighbours, planted
from nanogan.data import PictureFolder
from nanogan.data.formats.image_files import decode, opened
from nanogan.data.named import is_set, load_pictures
from nanogan.disk import is_ours, replacing, writable_folder
from nanogan.errors import UserError
from nanogan.recipes import experiments
from nanogan.text import quoted

PICTURES, SHARE = 2000, 0.1  # originals; of them, for each kind of copy
DRY_PICTURES, DRY_STEPS = 200, 5
SHOWN_HIGH, TILE = 6, 64  # pictures of a group in duplicates.png, and their pixels
SIZES = {"faces": (64, 3), "mnist": (28, 1), "fashion-mnist": (28, 1), "digits": (28, 1)}  # side, channels
DISTANCES = (1, 2, 4, 6, 8, 12, 16)
LEVELS = (6.0, 12.0)  # thresholds of plain pixel distance
FIELDS = ("group", "path", "width", "height", "bytes", "bits", "levels")


def main():
    parser = experiments.parser(
        "List near-duplicates in a folder of pictures; without one, measure how well they are found. The paper's "
        "section 4.1 (LSUN). Deletes nothing.",
        out="runs/dedupe",
        data=None,
    )
    count = cli.at_least(int, 1, high=10_000_000)
    parser.add_argument(
        "folder", type=cli.path, metavar="FOLDER", nargs="?", help="whose pictures are compared with each other"
    )
    parser.add_argument(
        "--distance",
        type=cli.at_least(int, 0, high=codes.BITS),
        default=0,
        metavar="BITS",
        help="in which two near-duplicates' codes may differ; 0: equal codes, as in the paper",
    )
    parser.add_argument("--shown", type=count, default=12, help="groups that are printed and drawn")
    parser.add_argument("--steps", type=count, default=400, help="of training")
    parser.add_argument("--noise", type=cli.at_least(float, 0, high=100), default=3.0, help="1: a picture's contrast")
    parser.add_argument("--dropout", type=cli.at_least(float, 0, high=0.95), default=0.1, help="share of code units")
    parser.add_argument("--pictures", type=count, help=f"without FOLDER: originals, at most (default: {PICTURES})")
    parser.add_argument(
        "--share",
        type=cli.at_least(float, 0, above=True, high=1 / len(planted.KINDS)),
        help=f"without FOLDER: of the originals, for each kind of copy (default: {SHARE})",
    )
    args = parser.parse_args()
    if args.folder is not None and args.data is not None:
        parser.error("give FOLDER or --data, not both: without FOLDER it measures, on pictures of --data")
    if args.folder is not None and (args.pictures, args.share) != (None, None):
        parser.error("--pictures and --share are for measuring, without FOLDER: leave them out")
    args.data = args.data or "faces"
    args.pictures, args.share = args.pictures or PICTURES, args.share or SHARE
    if args.dry_run:
        args.pictures, args.steps = min(args.pictures, DRY_PICTURES // 2), min(args.steps, DRY_STEPS)
    device = backend.get_device(args.device)
    return search(args, device) if args.folder is not None else measure(args, device)


# ---------------------------------------------------------------------------------------------- a folder's duplicates


def search(args, device):
    """List what is found in the user's folder."""
    check_outside(args.out, args.folder)
    found = find(args, args.folder, device)
    if args.dry_run and len(found.folder) > DRY_PICTURES:
        print(f"a dry run: only the first {DRY_PICTURES} of {len(found.folder)} pictures were compared")
    rows = describe(found)
    write_list(found.out, rows)
    draw(found.out, rows, args.shown)
    for number, group in enumerate(rows[: args.shown], start=1):
        print(f"group {number}:")
        for row in group[:SHOWN_HIGH]:
            print(f"    {quoted(row['path'])}  {row['width']} x {row['height']}, {row['levels']:.1f} levels")
        if len(group) > SHOWN_HIGH:
            print(f"    and {len(group) - SHOWN_HIGH} more")
    numbers = {"groups": len(rows), "pictures_in_them": sum(map(len, rows)), "largest": max(map(len, rows), default=0)}
    experiments.write_numbers(found.out / "numbers.json", found.numbers | numbers)
    if rows:
        print(f"all groups, the most doubtful first: {found.out / 'duplicates.csv'}, {found.out / 'duplicates.json'}")
        print(f"look before you delete any: {found.out / 'duplicates.png'} (nothing was deleted)")
    else:
        print("no near-duplicates were found; --distance 8 also finds those that are less alike")
    return 0


class Found(NamedTuple):
    """What :func:`find` found."""

    out: Path
    folder: PictureFolder  # which knows the paths
    pixels: object  # uint8 (N, 32, 32, 3): the folder itself, or an array
    network: codes.Autoencoder
    codes: np.ndarray  # uint8 (N, 16)
    bad: set  # indices of pictures that cannot be read
    groups: list
    numbers: dict


def find(args, path, device):
    """Train an autoencoder on the pictures in the folder ``path`` and group them by its codes."""
    cache = None if args.dry_run else Path(args.out) / "pictures-32.npy"
    options = {"size": codes.SIZE, "channels": codes.CHANNELS, "progress": experiments.progress_bar("listing")}
    folder = PictureFolder(path, cache=cache, **options)
    out = writable_folder(args.out)
    pixels = folder[:DRY_PICTURES] if args.dry_run else folder.pack(progress=experiments.progress_bar("decoding"))
    skipped = tell_skipped(folder, out)
    bad = {i for i in range(len(pixels)) if folder.file(i) in skipped} if skipped else set()
    if len(pixels) - len(bad) < 2:
        raise UserError(f"{path} holds one picture that can be read: near-duplicates expected at least two")
    network = codes.Autoencoder(dropout=args.dropout, rng=backend.seeded_rng(args.seed, "autoencoder")).to(device)
    bar = experiments.progress_bar("training", total=args.steps)
    loss = codes.fit(network, pixels, steps=args.steps, noise=args.noise, seed=args.seed, progress=bar)
    code = codes.codes(network, pixels, progress=experiments.progress_bar("codes"))
    groups = codes.groups(code, distance=args.distance, progress=experiments.progress_bar("comparing"))
    numbers = {"pictures": len(pixels) - len(bad), "skipped": len(skipped), "distance": args.distance, "loss": loss}
    return Found(out, folder, pixels, network, code, bad, without(groups, bad), numbers | codes.usage(code))


def without(groups, bad):
    """The groups without pictures that cannot be read, in whose place a neighbour stands."""
    kept = ([i for i in group if i not in bad] for group in groups)
    return [group for group in kept if len(group) > 1]


def check_outside(out, folder):
    """Raise UserError if what is written would come to lie among the pictures that are searched."""
    real_out, real_folder = Path(out).resolve(), Path(folder).resolve()
    is_left_out = not real_out.exists() or is_ours(real_out)  # by PictureFolder
    if real_out == real_folder or (real_folder in real_out.parents and not is_left_out):
        raise UserError(
            f"the output folder {out} lies in {folder}, where its pictures would be taken for yours: "
            "choose one elsewhere with --out"
        )


def tell_skipped(folder, out):
    """Say which pictures cannot be read, and return them; all are listed in skipped.txt."""
    skipped = folder.skipped
    with replacing(out / "skipped.txt") as temporary:
        lines = [f"{quoted(path)}: {reason}\n" for path, reason in skipped.items()]
        temporary.write_text("".join(lines), encoding="utf-8")
    if skipped:
        print(f"{len(skipped)} cannot be read and were left out, see {out / 'skipped.txt'}", file=sys.stderr)
    return skipped


def describe(found):
    """Return a list of dictionaries, FIELDS, for each group: the largest picture first, the most doubtful group first.

    Names of one file (links) are one picture.
    """
    result = []
    for group in experiments.progress_bar("describing")(found.groups):
        files = {}
        for i in group:
            path = found.folder.file(i)
            with contextlib.suppress(OSError):  # gone meanwhile
                status = os.stat(path)
                files.setdefault((status.st_dev, status.st_ino), []).append((os.path.islink(path), path, i))
        rows = []
        for names in files.values():
            _, path, i = min(names)  # a file before a link to it
            with opened(path) as image:
                width, height = image.size
            rows.append({"path": path, "width": width, "height": height, "bytes": os.path.getsize(path), "index": i})
        if len(rows) < 2:
            continue
        rows.sort(key=lambda row: (-row["width"] * row["height"], -row["bytes"], row["path"]))
        indices = np.array([row.pop("index") for row in rows])
        pixels = neighbours.in_pixels(found.pixels[indices])
        bits, levels = codes.hamming(found.codes[indices], found.codes[indices[:1]]), neighbours.rms(pixels, pixels[:1])
        for row, differing, level in zip(rows, bits, levels, strict=True):
            row |= {"bits": int(differing), "levels": round(float(level), 2)}
        result.append(rows)
    result.sort(key=lambda rows: -max(row["levels"] for row in rows))
    return result


def write_list(out, rows):
    """Write all groups to duplicates.csv and duplicates.json."""
    with (
        replacing(out / "duplicates.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for number, group in enumerate(rows, start=1):
            writer.writerows({"group": number, **row} for row in group)
    with replacing(out / "duplicates.json") as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def draw(out, rows, shown):
    """Draw a column of pictures for each group; an old picture is removed where there is none."""
    path = out / "duplicates.png"
    path.unlink(missing_ok=True)
    if not rows:
        return
    rows = rows[:shown]
    high = min(SHOWN_HIGH, max(map(len, rows)))
    blank = np.full((TILE, TILE, 3), 255, np.uint8)
    tiles = [decode(group[i]["path"], TILE) if i < len(group) else blank for i in range(high) for group in rows]
    images.save_grid(path, np.stack(tiles), columns=len(rows), background=255)


# --------------------------------------------------------------------------------------------- the measurement of it


def measure(args, device):
    """Plant copies in a folder, search it, and compare with what is known."""
    originals = load_originals(args)
    out = writable_folder(args.out, results=False)  # find marks it
    folder = writable_folder(out / "planted", results=False)
    planted.clear(folder)
    rng = backend.seeded_rng(args.seed, "planted")
    planted.plant(originals, folder, share=args.share, rng=rng, progress=experiments.progress_bar("planting"))
    found = find(args, folder, device)
    N = len(found.pixels)
    truth = [planted.origin(found.folder.file(i)) for i in range(N)]
    pixels = np.concatenate([found.pixels[i : i + 500] for i in range(0, N, 500)])  # for the methods to compare with

    methods = {}
    untrained = untrained_twin(found.network, seed=args.seed, device=device)
    for name, code in (("trained", found.codes), ("untrained", codes.codes(untrained, pixels))):
        for distance in sorted({0, args.distance, *DISTANCES}):
            bar = experiments.progress_bar(f"{name}, distance {distance}")
            methods[f"{name}, distance {distance}"] = codes.groups(code, distance=distance, progress=bar)
    components = codes.principal(pixels)
    methods["24 components' signs"] = codes.groups(codes.codes(components, pixels))
    methods["equal pixels"] = neighbours.duplicates(pixels)
    for name, compared in (("pixels", pixels), ("same contrast", same_contrast(pixels))):
        for levels in LEVELS:
            bar = experiments.progress_bar(f"{name}, {levels:g} levels")
            methods[f"{name}, {levels:g} levels"] = neighbours.duplicates(compared, threshold=levels, progress=bar)

    scores = {name: score(without(groups, found.bad), truth) for name, groups in methods.items()}
    write_scores(out / "methods.csv", scores)
    rows = describe(found)
    write_list(out, rows)
    draw(out, rows, args.shown)
    asked = scores[f"trained, distance {args.distance}"]
    experiments.write_numbers(out / "numbers.json", {"data": args.data} | found.numbers | asked)
    print(f"all methods: {out / 'methods.csv'}; what was found: {out / 'duplicates.csv'}, {out / 'duplicates.png'}")
    return 0


def untrained_twin(network, *, seed, device):
    """What ``network`` was before its training, but for the pictures' mean, without which most units say one thing."""
    twin = codes.Autoencoder(rng=backend.seeded_rng(seed, "autoencoder")).to(device)
    twin.buffers["mean"][...] = network.buffers["mean"]
    return twin


def load_originals(args):
    """Return the pictures that copies are planted among: paths, or Pillow images."""
    if not is_set(args.data):
        check_outside(args.out, args.data)
        folder = PictureFolder(args.data, size=codes.SIZE, progress=experiments.progress_bar("listing"))
        chosen = np.unique(np.linspace(0, len(folder) - 1, min(args.pictures, len(folder))).astype(int))
        for i in experiments.progress_bar("reading")(range(0, len(chosen), 100)):
            folder[chosen[i : i + 100]]  # what cannot be read is skipped from now on
        paths = [path for path in map(folder.file, chosen) if path not in folder.skipped]
        check_apart(Path(args.out) / "planted", args.data, paths)
        return paths
    size, channels = SIZES.get(args.data, (32, 3))
    options = {"size": size, "channels": channels, "count": args.pictures, "seed": args.seed}
    pictures, _ = load_pictures(args.data, progress=experiments.progress_bar("reading"), **options)
    return [images.to_pillow(picture) for picture in pictures]


def same_contrast(pictures):
    """Pictures whose levels have mean 128 and standard deviation 50 each, as near as 0 to 255 allow."""
    x = neighbours.in_pixels(pictures)
    x -= x.mean(axis=1, keepdims=True)
    x *= 50 / np.maximum(x.std(axis=1, keepdims=True), 1)
    return np.rint(x + 128).clip(0, 255).astype(np.uint8).reshape(pictures.shape)


def check_apart(planted_folder, data, paths):
    """Raise UserError if a folder that is about to be cleared is, holds or lies in ``data``, or holds one of ``paths``.

    Links are followed.
    """
    real, real_data = planted_folder.resolve(), Path(data).resolve()
    if real_data in (real, *real.parents) or any(real in Path(path).resolve().parents for path in [data, *paths]):
        raise UserError(
            f"{planted_folder}, which is cleared for a new run, lies in {data} or holds pictures of it: "
            "choose another --out"
        )


def score(groups, truth):
    """Precision and all that of groups, and the recall of each kind of copy."""
    origins, kinds = zip(*truth, strict=True)
    original = {origin: i for i, (origin, kind) in enumerate(truth) if kind == "original"}
    result = codes.agreement(groups, origins)
    for kind in planted.KINDS:
        copies = [i for i, each in enumerate(kinds) if each == kind]
        if copies:  # a dry run may know none of a kind
            result[f"recall_{kind}"] = codes.recall(groups, [original[origins[i]] for i in copies], copies)
    return result


def write_scores(path, scores):
    """Write a row for each method, and print it."""
    fields = ["method", *next(iter(scores.values()))]
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows({"method": name, **values} for name, values in scores.items())
    short = [field.removeprefix("recall_") for field in fields if field.startswith("recall_")]
    print(f"{'':24}{'precision':>10}" + "".join(f"{name:>13}" for name in short))
    for name, values in scores.items():
        recalls = "".join(f"{values[f'recall_{kind}']:13.2f}" for kind in short)
        print(f"{name:24}{values['precision']:10.3f}{recalls}")


if __name__ == "__main__":
    cli.run(main)
