#!/usr/bin/env python3
"""Checkerboards: transposed convolution against resize-convolution, in samples and in their power spectra.

    python examples/checkerboard.py                                        some minutes; look at runs/checkerboard
    python examples/checkerboard.py --seeds 3 --kinds deconv resize deconv5
    python examples/checkerboard.py --data mnist --image-size 28 --classifier runs/classifier/classifier.safetensors
    python examples/checkerboard.py --checkpoint runs/mnist_dcgan/generator.safetensors --data mnist
                                                                           measures trained ones, and trains nothing

Trains a generator of each of --kinds with the same seed, pictures, order, z, discriminator and number of steps:

    deconv              the DCGAN of this library: transposed 4x4 convolutions, whose size their stride of 2 divides
    resize              pixels repeated, then a 3x3 convolution
    deconv5, deconv3    transposed 5x5 convolutions, as the DCGAN paper's authors have them, or 3x3: uneven overlaps

Prints peaks: the power at a period of 2, 4, 8 ... pixels above that of the frequencies around it, about 1 where no
stride shows (nanogan/analysis/inside/spectrum.py); of unseen real pictures, of noise, of the generators untrained and
trained, and of the gradients that their discriminators send them. Unseen pictures are a data set's test pictures; a
folder has none, so 2 x --samples are drawn from it at random and not trained on, but with --checkpoint they may be
among those that its generator was trained on. samples.png: a row untrained (with more contrast), the others trained,
one of them larger. spectra.png: the spectra of these, and of the gradients; 0 is in the middle, red frames are round
the period 2, yellow ones round 4. curves.png: the peaks while training.
"""

import copy
import itertools
import time

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nanogan import backend, checkpoint, cli, images, init
from nanogan.analysis.inside import spectrum
from nanogan.analysis.judges.classifier import classify, load_classifier
from nanogan.analysis.measures import scores
from nanogan.data import Loader
from nanogan.data.named import OtherChannels, is_set, load_pictures
from nanogan.disk import writable_folder
from nanogan.errors import TrainingDiverged, UserError
from nanogan.games.drawing import draw_z, sample
from nanogan.images import plots as plot
from nanogan.layers import ConvTranspose2d
from nanogan.models import dcgan
from nanogan.optim import Adam
from nanogan.recipes import experiments, trained
from nanogan.training import adversarial_step

KINDS = ("deconv", "resize", "deconv5", "deconv3")
KERNELS = {"deconv": {"kernel_size": 4, "padding": 1}}  # of transposed convolutions; all have a stride of 2
for size in (5, 3):
    KERNELS[f"deconv{size}"] = {"kernel_size": size, "padding": size // 2, "output_padding": 1}
GREY = ("mnist", "fashion-mnist", "digits")
LATENT = 100
MOMENTS = 24  # times that a generator is looked at while it trains
SETTLING = 40  # batches that give an untrained generator's BatchNorm its statistics
COLUMNS, ROWS = 4, 4  # samples of each generator in the picture
DIRECTIONS = ("down", "across", "both")  # of a pattern of 2 pixels, in the order of spectrum.stride_bins


def main():
    parser = experiments.parser(
        "Compare transposed convolution and resize-convolution: the spectral peaks that a stride leaves in pictures "
        "(A. Odena et al., Deconvolution and Checkerboard Artifacts, Distill 2016).",
        out="runs/checkerboard",
        data="faces",
    )
    count = cli.at_least(int, 1, high=1_000_000)
    parser.add_argument(
        "--checkpoint", nargs="+", type=cli.path, metavar="FILE", help="measure these generators, and train none"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS[:2]), help="that are trained")
    parser.add_argument("--seeds", type=count, default=1, help="trainings of each kind, from --seed on")
    parser.add_argument("--steps", type=count, default=600, help="of each training")
    parser.add_argument("--batch-size", type=cli.at_least(int, 2, high=100_000), default=32, help="pictures a step")
    parser.add_argument("--image-size", type=count, default=32, help="pixels: 28, 32, 64, ...")
    parser.add_argument("--width", type=count, default=16, help="channels of the largest map")
    parser.add_argument("--lr", type=cli.at_least(float, 0, above=True), default=5e-4, help="Adam's")
    parser.add_argument("--samples", type=cli.at_least(int, 16, high=100_000), default=500, help="that are measured")
    parser.add_argument(
        "--classifier", type=cli.path, metavar="FILE", help="of examples/train_classifier.py: for Fréchet distances"
    )
    args = parser.parse_args()
    if args.dry_run:
        args.steps, args.samples, args.batch_size, args.width = 3, min(args.samples, 32), 8, 4

    device = backend.get_device(args.device)
    ready = load_checkpoints(args.checkpoint or [], device)
    args.channels = 1 if args.data in GREY else 3
    if ready:
        args.image_size, args.channels = ready[0][1].image_size, ready[0][1].channels
    dcgan.plan(args.image_size)  # a wrong size is told before anything is read
    classifier = load_classifier(args.classifier).to(device) if args.classifier else None
    if classifier:
        classifier.check(np.empty((0, args.channels, args.image_size, args.image_size)))
    out = writable_folder(args.out)

    unseen, pictures = load(args, trains=not ready)
    reference, real = np.array_split(unseen, 2)
    noise = backend.seeded_rng(args.seed, "pixels").integers(0, 256, real.shape, dtype=np.uint8)
    numbers = {"data": args.data, "image_size": args.image_size, "pictures": len(real)}
    looks = [{"real": (real, spectrum.power_spectrum(real)), "noise": (noise, spectrum.power_spectrum(noise))}]
    if ready:
        names = [name for name, _, _ in ready]
        look_at_checkpoints(ready, args, device, looks[0])
    else:
        names = list(dict.fromkeys(args.kinds))
        curves = train_all(names, pictures, args, device, out, looks, numbers)
        draw_curves(out / "curves.png", curves, spectrum.stride_peaks(looks[0]["real"][1]))
    numbers |= peaks_of(looks)
    if classifier:
        numbers |= distances(classifier, reference, looks)
    draw_samples(out / "samples.png", names, looks[0])
    draw_spectra(out / "spectra.png", names, looks[0])
    experiments.write_numbers(out / "numbers.json", numbers)
    print(f"pictures: {out / 'samples.png'}, {out / 'spectra.png'}" + ("" if ready else f", {out / 'curves.png'}"))
    return 0


def load(args, *, trains):
    """Return unseen pictures, uint8 (N, S, S, C), two for each of --samples or fewer, and what trains, None if not."""
    count, few = 2 * args.samples, 20 * args.batch_size if args.dry_run else None
    if is_set(args.data):
        unseen, pictures = read(args, "test", count), read(args, "train", few) if trains else None
    else:
        folder = read(args, "train", None)
        if trains and len(folder) < count + args.batch_size:
            raise UserError(
                f"{args.data} has {len(folder)} pictures, but {count} unseen ones (twice --samples) and a batch of "
                f"{args.batch_size} to train on were expected: lower --samples or --batch-size, or give more pictures"
            )
        order = backend.seeded_rng(args.seed, "unseen").permutation(len(folder))
        unseen, pictures = folder[order[:count]], Part(folder, order[count:][:few])
    least = 4 if args.classifier else 2
    if len(unseen) < least:
        raise UserError(
            f"{args.data} has too few unseen pictures: at least {least} were expected, got {len(unseen)}; half of them "
            "are measured, half are the reference of Fréchet distances"
        )
    return unseen, pictures


def read(args, split, count):
    """Return the first pictures, uint8 (N, S, S, C), or all of them if the count is None: of a folder undecoded."""
    options = {"size": args.image_size, "channels": args.channels, "seed": args.seed}
    try:
        return load_pictures(
            args.data, split=split, count=count, progress=experiments.progress_bar("reading"), **options
        )[0]
    except OtherChannels as error:
        raise UserError(
            f"{error}: name pictures of the generator's channels, best those it was trained on, such as --data mnist"
        ) from None


class Part:
    """Some of a folder's pictures, for a Loader: decoded when a batch is asked for."""

    ndim, dtype = 4, np.dtype(np.uint8)

    def __init__(self, folder, numbers):
        self.folder, self.numbers = folder, numbers
        self.shape = (len(numbers), *folder.shape[1:])

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, indices):
        return self.folder[self.numbers[indices]]


# ------------------------------------------------------------------------------------------------------- networks


def networks(kind, args, seed, device):
    """Return an untrained generator of this kind and a discriminator, which depends on the seed alone."""
    shape = {"image_size": args.image_size, "channels": args.channels, "width": args.width}
    g_rng, d_rng = (backend.seeded_rng(seed, f"weights of {name}") for name in "GD")
    if kind in dcgan.UPSAMPLES:
        g = dcgan.generator(latent=LATENT, upsample=kind, rng=g_rng, **shape)
    else:
        g = dcgan.generator(latent=LATENT, **shape)
        for i, layer in enumerate(g.layers[1:], 1):  # all that double a map
            if isinstance(layer, ConvTranspose2d):
                inputs, outputs, _, _ = layer.params["weight"].shape
                g.layers[i] = ConvTranspose2d(inputs, outputs, stride=2, bias=False, **KERNELS[kind])
        init.dcgan_(g, g_rng)
    return g.to(device), dcgan.discriminator(rng=d_rng, **shape).to(device)


def settled(g, seed, device):
    """Return a copy of untrained ``g`` whose BatchNorm has seen some batches, as training would have shown it."""
    g = copy.deepcopy(g)
    rng = backend.seeded_rng(seed, "settling")
    for _ in range(SETTLING):
        g.forward(draw_z(rng, 64, g.latent, device=device), train=True)
    return g


def load_checkpoints(paths, device):
    """Return [(name, generator, the discriminator beside it or None)]; a file of a run may hold both."""
    found = []
    for path in paths:
        g = trained.generator(path).to(device)
        try:
            d = trained.discriminator(None, path).to(device)
        except UserError:  # its gradients are then left out
            d = None
        if d and (d.image_size, d.channels) != (g.image_size, g.channels):
            d = None
        found.append((f"{len(found) + 1} {path}" if paths.count(path) > 1 else str(path), g, d))
    sizes = {(g.image_size, g.channels): name for name, g, _ in found}
    if len(sizes) > 1:
        told = [f"{name} draws {size} x {size} in {channels} channels" for (size, channels), name in sizes.items()]
        raise UserError(f"generators of one size and number of channels were expected, but {' and '.join(told)}")
    return found


def look_at(name, g, d, args, seed, device, looks):
    """Note in ``looks``, {name: (pictures, their spectrum)}, what g draws, and the gradients that d sends it."""
    z = draw_z(backend.seeded_rng(seed, "samples"), args.samples, g.latent, device=device)
    drawn = sample(g, z)
    looks[name] = backend.to_numpy(drawn), spectrum.power_spectrum(drawn)
    if d is not None:
        gradient = spectrum.input_gradient(d, drawn, batch_size=args.batch_size)
        looks[f"{name}, gradient"] = backend.to_numpy(gradient), spectrum.power_spectrum(gradient)


def look_at_checkpoints(ready, args, device, looks):
    """Note what the generators draw, and what untrained ones of the same shapes do."""
    for name, g, d in ready:
        look_at(f"{name} trained", g, d, args, args.seed, device, looks)
        shape = {"image_size": g.image_size, "channels": g.channels}
        rng = backend.seeded_rng(args.seed, "weights of G")
        g = dcgan.generator(latent=g.latent, width=g.width, upsample=g.upsample, rng=rng, **shape).to(device)
        if d is not None:
            rng = backend.seeded_rng(args.seed, "weights of D")
            d = dcgan.discriminator(width=d.width, rng=rng, **shape).to(device)
        look_at(f"{name} untrained", settled(g, args.seed, device), d, args, args.seed, device, looks)


# ------------------------------------------------------------------------------------------------------- training


def train_all(names, pictures, args, device, out, looks, numbers):
    """Train generators of ``names`` for every seed; note in ``looks`` what is seen of them, a dictionary for each seed.

    All KINDS are looked at untrained. Notes sizes and times in ``numbers``, saves the first seed's networks of the
    kinds that have a file format, and returns its curves, {kind: [(step, {period: peak}), ...]}.
    """
    looks += [{} for _ in range(1, args.seeds)]
    curves, spent = {}, {}
    for run, kind in itertools.product(range(args.seeds), KINDS):
        seed = args.seed + run
        g, d = networks(kind, args, seed, device)
        look_at(f"{kind} untrained", settled(g, seed, device), d, args, seed, device, looks[run])
        if kind not in names:
            continue
        curve = [(0, spectrum.stride_peaks(looks[run][f"{kind} untrained"][1]))]
        z = draw_z(backend.seeded_rng(seed, "samples"), args.samples, g.latent, device=device)
        bar = experiments.progress_bar(f"{kind} ({names.index(kind) + 1} of {len(names)}), seed {seed}")
        for step, spent[kind, run] in train(g, d, pictures, args, seed, device, bar):
            curve.append((step, spectrum.stride_peaks(spectrum.power_spectrum(sample(g, z)))))
        look_at(f"{kind} trained", g, d, args, seed, device, looks[run])
        if run == 0:
            curves[kind] = curve
            numbers[f"{kind} parameters"] = g.parameter_count()
            if kind in dcgan.UPSAMPLES:
                checkpoint.save(out / kind / "generator.safetensors", g)
                checkpoint.save(out / kind / "discriminator.safetensors", d)
    for kind, kernel in KERNELS.items():  # if all weights were equal, this would be the pattern
        counts = spectrum.overlaps(8, stride=2, **kernel)[4:-4, 4:-4]
        numbers[f"{kind} kernels_over_a_pixel"] = [int(counts.min()), int(counts.max())]
    for kind in names:
        each = 1000 * np.mean([spent[kind, run] for run in range(args.seeds)], axis=0) / args.steps
        numbers |= {f"{kind} ms_per_step": rounded(each[0]), f"{kind} processor_ms_per_step": rounded(each[1])}
    for kind, curve in curves.items():  # a cheaper kind does more steps in the same time
        numbers[f"{kind} peak_2_at_steps"] = {step: rounded(peaks[2]) for step, peaks in curve}
    return curves


def train(g, d, pictures, args, seed, device, bar):
    """Train, and yield at about MOMENTS steps, at which g may be looked at: steps done, and what they took so far.

    That is a pair of seconds, on the clock and of the processor, which other programs disturb less.
    """
    opt_g, opt_d = (Adam(network, lr=args.lr, betas=(0.5, 0.999)) for network in (g, d))
    loader = Loader(pictures, batch_size=args.batch_size, seed=seed, drop_last=True, device=device)
    batches = (batch["images"] for epoch in itertools.count() for batch in loader.epoch(epoch))
    rng = backend.seeded_rng(seed, "noise")
    every, seconds = -(-args.steps // MOMENTS), np.zeros(2)
    start = now()
    for step in bar(range(1, args.steps + 1)):
        z = draw_z(rng, args.batch_size, LATENT, device=device)
        result = adversarial_step(g, d, opt_g, opt_d, next(batches), z)
        if step % every == 0 or step == args.steps:
            if not np.isfinite(float(result.loss_d + result.loss_g)):
                raise TrainingDiverged(f"a loss is no longer finite at step {step}; try a lower learning rate (--lr)")
            seconds += now() - start
            yield step, seconds
            start = now()


def now():
    return np.array([time.perf_counter(), time.process_time()])


# -------------------------------------------------------------------------------------------------------- numbers


def peaks_of(looks):
    """Return {"deconv trained": {"2": peak, ...}, ...}; of several seeds the geometric mean, and each one's at 2."""
    rows = {}
    for name in looks[0]:
        each = []
        for _, power in (found[name] for found in looks if name in found):
            rises = spectrum.peaks(power, spectrum.stride_bins(power.shape, 2))
            ways = {f"2 {way}": rise for way, rise in zip(DIRECTIONS, rises, strict=True)}
            each.append({str(period): peak for period, peak in spectrum.stride_peaks(power).items()} | ways)
        rows[name] = {key: rounded(np.exp(np.mean([np.log(row[key]) for row in each]))) for key in each[0]}
        if len(each) > 1:
            rows[name]["2, each seed"] = [rounded(row["2"]) for row in each]
    return rows


def distances(classifier, reference, looks):
    """Return {"deconv trained, frechet_distance": one for each seed, ...}: how far pictures are from the reference."""
    real, _ = classify(classifier, reference)
    found = {}
    for seen in looks:
        for name, (pictures, _) in seen.items():
            if "gradient" not in name:
                features, _ = classify(classifier, pictures)
                distance = rounded(scores.frechet_distance(real, features))
                found.setdefault(f"{name}, frechet_distance", []).append(distance)
    return found


def rounded(value):
    return float(f"{value:.4g}")


# -------------------------------------------------------------------------------------------------------- drawing


def draw_samples(path, names, looks):
    """A block for each generator and one for real pictures: a row untrained, rows trained, and one picture larger."""
    blocks = []
    for name in [*names, "real"]:
        shown = images.to_uint8(looks[name if name == "real" else f"{name} trained"][0][: COLUMNS * ROWS])
        if name == "real":
            first = np.full((COLUMNS, *shown.shape[1:]), 255, np.uint8)
        else:  # their contrast is small: each is stretched to its own range
            first = looks[f"{name} untrained"][0][:COLUMNS]
            first = images.to_uint8(first / np.abs(first).max(axis=(1, 2, 3), keepdims=True))
        rows = images.grid(enlarged(np.concatenate([first, shown]), 2), columns=COLUMNS)
        large = images.grid(enlarged(shown[:1], (rows.shape[1] - 4) // shown.shape[2]), columns=1)
        right = rows.shape[1] - large.shape[1]
        blocks.append(np.concatenate([rows, np.pad(large, ((0, 0), (0, right), (0, 0)))]))
    save_labelled(path, [*names, "real"], blocks)


def draw_spectra(path, names, looks):
    """Untrained, trained and gradients below each other: the decibels of each bin about the picture's mean power."""
    blocks = []
    for name in [*names, "real", "noise"]:
        keys = [name] if name in looks else [f"{name} {kind}" for kind in ("untrained", "trained", "trained, gradient")]
        tiles = [tile(looks[key][1]) if key in looks else None for key in keys]
        tiles += [None] * (3 - len(tiles))
        empty = np.full_like(next(each for each in tiles if each is not None), 255)
        blocks.append(images.grid(np.stack([empty if each is None else each for each in tiles]), columns=1))
    save_labelled(path, [*names, "real", "noise"], blocks)


def tile(power):
    """A spectrum as a picture, uint8 (H, W, 3): white is 30 dB above its mean and more, black 30 dB below."""
    zoom = max(1, 200 // power.shape[0])
    level = np.log10(np.maximum(power, 1e-30) / max(power.mean(), 1e-30))
    grey = np.clip(127.5 + 127.5 * level / 3, 0, 255).astype(np.uint8)
    middle = np.pad(np.fft.fftshift(grey), ((0, 1), (0, 1)), mode="wrap")  # from -1/2 to 1/2, both
    sheet = Image.fromarray(middle.repeat(zoom, axis=0).repeat(zoom, axis=1)).convert("RGB")
    draw = ImageDraw.Draw(sheet)
    size = power.shape[0]
    for period, colour in ((4, "#e0b000"), (2, "#e02020")):
        if period in spectrum.periods(*power.shape):
            bins = spectrum.stride_bins(power.shape, period)
            for u, v in {(su * a, sv * b) for a, b in bins for su in (1, -1) for sv in (1, -1)}:
                row, column = (zoom * ((each + size // 2) % size) for each in (u, v))
                draw.rectangle((column - 1, row - 1, column + zoom, row + zoom), outline=colour)
    return np.asarray(sheet)


def enlarged(pictures, factor):
    return pictures.repeat(factor, axis=1).repeat(factor, axis=2)


def save_labelled(path, labels, blocks):
    """Write blocks (H, W, C) of one height beside each other, each below its label."""
    gap, top = 8, 18
    width = sum(block.shape[1] + gap for block in blocks) - gap
    sheet = Image.new("RGB", (width, top + blocks[0].shape[0]), plot.PAPER)
    draw, font, left = ImageDraw.Draw(sheet), ImageFont.load_default(), 0
    for label, block in zip(labels, blocks, strict=True):
        draw.text((left + 2, 3), str(label)[-block.shape[1] // 6 :], plot.INK, font)
        sheet.paste(images.to_pillow(block), (left, top))
        left += block.shape[1] + gap
    images.save_png(path, np.asarray(sheet))


def draw_curves(path, curves, real):
    """A panel for each period: log2 of its peak against the step, beside that of real pictures."""
    shown = list(real)[:3]
    sheet = Image.new("RGB", (40 + 300 * len(shown), 280), plot.PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for i, period in enumerate(shown):
        series = {kind: [np.log2(peaks[period]) for _, peaks in curve] for kind, curve in curves.items()}
        steps = np.array([step for step, _ in next(iter(curves.values()))], float)
        series["real"] = np.full(len(steps), np.log2(real[period]))
        values = np.concatenate([np.asarray(each) for each in series.values()])
        limits = min(-1.0, values.min() - 0.2), max(2.0, values.max() + 0.2)
        box = (40 + 300 * i, 40, 290 + 300 * i, 250)
        title = f"log2 of the peak at a period of {period} pixels"
        plot.panel(draw, font, box, steps, list(series.items()), title, limits)
    images.save_png(path, np.asarray(sheet))


if __name__ == "__main__":
    cli.run(main)
