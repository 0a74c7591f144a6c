#!/usr/bin/env python3
"""Train a DCGAN on a folder of pictures of your own.

    python examples/folder_dcgan.py photos                           train; look at runs/folder_dcgan/report.html
    python examples/folder_dcgan.py photos --cache photos-64.npy     decode each picture once, for all epochs and runs
    python examples/folder_dcgan.py cifar-10-binary.tar.gz --image-size 32            or SVHN's train_32x32.mat
    python examples/folder_dcgan.py --resume                         go on after Ctrl-C, a crash, a power cut
    python examples/folder_dcgan.py --generate 64 --out pictures     draw, with runs/folder_dcgan/generator.safetensors

The paper's 64 x 64 colour network at pytorch/examples' width. JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF and PPM, in the
folder or in folders below it; each is turned upright, cropped to the square in its middle and resized. What cannot be
read is counted and named; results of nanogan are never read as data. Some hundred images of one kind are the least
that it learns anything from, and then it learns them by heart; ten thousand are good. Times are in the README. Prints
pytorch/examples' log line every --log-every steps.
"""

from nanogan import cli, recipes
from nanogan.data import PictureFolder, named


def load_data(args):
    """Return the folder's name and its pictures, uint8 (N, size, size, channels), decoded when they are needed."""
    count = recipes.pictures_needed(args)
    if named.is_set(args.path):
        progress = recipes.progress_bar("resizing")
        options = {"size": args.image_size, "channels": args.channels, "count": count, "progress": progress}
        return args.path, named.load_pictures(args.path, **options)[0]
    pictures = PictureFolder(
        args.path,
        size=args.image_size,
        channels=args.channels,
        background=args.background,
        workers=args.workers,
        cache=None if args.dry_run else args.cache,
        progress=recipes.progress_bar("listing"),
    )
    if args.cache is not None and not args.dry_run:
        pictures.pack(progress=recipes.progress_bar("decoding"))
    return args.path, pictures if count is None else pictures[:count]


def main():
    parser = recipes.parser(
        "Train a DCGAN (Radford 2015, arXiv:1511.06434, section 3) on a folder of images, or generate with a trained "
        "one.",
        out="runs/folder_dcgan",
        image_size=64,
        epochs=25,
        batch_size=64,
        width=64,
        lr=2e-4,
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "path",
        type=cli.path,
        metavar="PATH",
        nargs="?",
        help="the folder; CIFAR-10's or SVHN's own file; with --resume the run's",
    )
    data.add_argument("--channels", type=int, choices=(1, 3), default=3, help="3 for colour, 1 for grey")
    data.add_argument(
        "--background",
        type=cli.at_least(int, 0, high=255),
        default=255,
        metavar="GREY",
        help="what shows through transparent pictures, 0 (black) to 255 (white)",
    )
    data.add_argument("--workers", type=cli.at_least(int, 1, high=256), help="threads that decode; as many as cores")
    data.add_argument(
        "--cache", type=cli.path, metavar="FILE.npy", help="pack the decoded pictures into this file, once, and read it"
    )

    def check(args):
        if args.path is None and args.resume is None and args.generate is None:
            parser.error("name the folder of pictures: folder_dcgan.py PATH")
        if args.cache is not None and not args.cache.endswith(".npy"):
            parser.error(f"--cache expected a file that ends in .npy, got {args.cache}")

    return recipes.run(parser, load_data, fixed=("channels", "background"), check=check)


if __name__ == "__main__":
    cli.run(main)
