#!/usr/bin/env python3
"""Train a DCGAN on MNIST, or draw pictures with one that was trained.

    python examples/mnist_dcgan.py                                   train; look at runs/mnist_dcgan
    python examples/mnist_dcgan.py --generate 64 --out pictures      draw, with runs/mnist_dcgan/generator.safetensors
    python examples/mnist_dcgan.py --image-size 64 --width 64 --batch-size 128 --device gpu       a larger network

Prints pytorch/examples' log line every --log-every steps: Loss_D falls and Loss_G rises when the discriminator wins;
D(x) is what it believes of real pictures, D(G(z)) of drawn ones. Times are in the README.
Without MNIST and without a network it trains on built-in digits, and says so.
"""

import sys

import numpy as np
from tqdm import tqdm

from nanogan import __version__, backend, checkpoint, cli, images, training
from nanogan.data import Loader, builtin_digits, load_mnist
from nanogan.errors import DataNotFound
from nanogan.files import writable_folder
from nanogan.models import dcgan
from nanogan.optim import Adam

DRY_STEPS = 4


def parse_arguments():
    parser = cli.parser("Train a DCGAN on MNIST, or draw pictures with a trained one.", out="runs/mnist_dcgan")
    count = cli.at_least(int, 1, high=1_000_000)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        choices=("auto", "mnist", "fashion-mnist", "digits"),
        default="auto",
        help="auto: mnist, or the built-in digits where it is not to be had",
    )
    data.add_argument("--data-dir", metavar="DIR", help="folder with the idx files, gzipped or not")
    data.add_argument("--image-size", type=count, default=28, help="pixels: 28, 32, 64, 128, ...")
    data.add_argument("--drop-last", action="store_true", help="leave out an epoch's last, shorter batch")

    train = parser.add_argument_group("training")
    train.add_argument("--epochs", type=count, default=5, help="rounds through the data")
    train.add_argument("--batch-size", type=count, default=32, help="pictures a step")
    train.add_argument("--latent", type=count, default=100, help="numbers in z")
    train.add_argument("--width", type=count, default=32, help="channels of the largest map (torch's ngf, ndf)")
    train.add_argument(
        "--lr",
        type=cli.at_least(float, 0, above=True),
        default=5e-4,
        help="Adam's; the paper's 2e-4 suits wide networks",
    )
    train.add_argument("--beta1", type=cli.at_least(float, 0, high=0.999), default=0.5, help="Adam's first beta")
    train.add_argument("--log-every", type=count, default=100, metavar="STEPS", help="print a line")
    train.add_argument("--sample-every", type=count, default=200, metavar="STEPS", help="draw and save")

    draw = parser.add_argument_group("drawing")
    draw.add_argument("--generate", type=count, metavar="N", help="draw N pictures with --checkpoint, and do not train")
    draw.add_argument(
        "--checkpoint", metavar="FILE", help="a saved generator (default: runs/mnist_dcgan/generator.safetensors)"
    )
    draw.add_argument("--single-files", action="store_true", help="one file for each picture instead of one grid")
    args = parser.parse_args()
    if args.generate is None and (args.single_files or args.checkpoint is not None):
        parser.error("--single-files and --checkpoint draw with a trained network: add --generate N")
    if args.data == "digits" and args.data_dir is not None:
        parser.error("--data digits is built in: leave --data-dir out, or use --data mnist")
    args.checkpoint = args.checkpoint or "runs/mnist_dcgan/generator.safetensors"
    return args


def load_data(args):
    """Return the name and pictures, uint8 (N, size, size, 1), of the data set asked for."""

    def progress(label):
        return lambda items: tqdm(items, desc=label, leave=False, disable=None)

    count = args.batch_size * DRY_STEPS if args.dry_run else None
    name = "mnist" if args.data == "auto" else args.data
    pictures = None
    if name != "digits":
        try:
            pictures, _ = load_mnist(name, data_dir=args.data_dir)
        except DataNotFound as error:
            if args.data != "auto" or args.data_dir is not None:
                raise
            print(
                "No MNIST here: this run trains on built-in digits. For the real ones go online, or put "
                "train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz into a folder and add --data-dir FOLDER. "
                f"({error})",
                file=sys.stderr,
            )
            name = "digits"
    if pictures is None:
        pictures, _ = builtin_digits(count or 60_000, seed=args.seed, progress=progress("drawing digits"))
    if args.data == "auto" and args.data_dir is not None:
        name = f"idx files in {args.data_dir}"  # MNIST's or another set's: their names are the same
    return name, images.resize(pictures[:count], args.image_size, progress=progress("resizing"))


def train(args):
    device = backend.get_device(args.device)
    dcgan.plan(args.image_size)  # a wrong size is told before anything is read or written
    out = writable_folder(args.out)
    name, pictures = load_data(args)
    loader = Loader(pictures, batch_size=args.batch_size, seed=args.seed, drop_last=args.drop_last, device=device)

    channels = pictures.shape[3]
    rng = backend.seeded_rng(args.seed, "weights")
    shape = {"image_size": args.image_size, "channels": channels, "width": args.width, "rng": rng}
    g = dcgan.generator(latent=args.latent, **shape).to(device)
    d = dcgan.discriminator(**shape).to(device)
    opt_g = Adam(g, lr=args.lr, betas=(args.beta1, 0.999))
    opt_d = Adam(d, lr=args.lr, betas=(args.beta1, 0.999))
    fixed_z = backend.seeded_rng(args.seed, "fixed noise").standard_normal((64, args.latent), dtype=np.float32)

    print(f"{name}: {len(pictures)} pictures of {args.image_size} x {args.image_size}, on {device}")
    print(f"generator: {g.parameter_count():,} parameters; discriminator: {d.parameter_count():,}")

    completed = training.train(
        g,
        d,
        opt_g,
        opt_d,
        loader,
        epochs=1 if args.dry_run else args.epochs,
        out=out,
        noise_rng=backend.seeded_rng(args.seed, "noise"),
        fixed_z=backend.to_device(fixed_z, device),
        device=device,
        log_every=1 if args.dry_run else args.log_every,
        sample_every=args.sample_every,
        max_steps=DRY_STEPS if args.dry_run else None,
        options=vars(args) | {"data": name, "pictures": len(pictures), "nanogan": __version__, "numpy": np.__version__},
    )
    print(
        f"{'done' if completed else 'stopped'}: {out} holds samples/, training.gif, losses.png, generator.safetensors"
    )
    return 0 if completed else 130


def generate(args):
    device = backend.get_device(args.device)
    g = checkpoint.load_generator(args.checkpoint).to(device)
    out = writable_folder(args.out)
    count = min(args.generate, 4) if args.dry_run else args.generate
    rng = backend.seeded_rng(args.seed, "generate")
    z = backend.to_device(rng.standard_normal((count, g.latent), dtype=np.float32), device)
    pictures = images.to_uint8(training.sample(g, z))
    if args.single_files:
        for i, picture in enumerate(tqdm(pictures, desc="writing", leave=False, disable=None), start=1):
            images.save_png(out / f"generated_{i:06d}.png", picture)
        print(f"{count} pictures: {out}/generated_*.png")
    else:
        images.save_grid(out / "generated.png", pictures)
        print(f"{count} pictures: {out}/generated.png")
    return 0


def main():
    args = parse_arguments()
    if args.generate is None:
        return train(args)
    return generate(args)


if __name__ == "__main__":
    cli.run(main)
