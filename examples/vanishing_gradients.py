#!/usr/bin/env python3
"""Measure G's gradient when D has won, and when G has won, for three losses of G.

    python examples/vanilla_gan.py                 first: G and D with cross entropy, in runs/vanilla_gan
    python examples/lsgan.py                       first: G and D with squared distances, in runs/lsgan
    python examples/vanishing_gradients.py         40 s on two CPU cores; look at runs/vanishing_gradients

Draws gradients.png, four panels: the slope of each loss along D's output; then the norm of G's gradient while D learns
alone, beside a G that is untrained and beside the trained one; and while G learns alone to raise D's output. The cross
entropies are measured on the vanilla GAN's networks, least squares on LSGAN's; last, the cross entropy on LSGAN's too.
Prints, and writes to numbers.json, D's outputs and the norms before the first step and after the last one, and how
LSGAN's own samples lie: their share in each interval of D's score, and the length of an image's gradient there.

I. Goodfellow et al., arXiv:1406.2661, section 3; M. Arjovsky, L. Bottou, arXiv:1701.04862, section 2.2 (D alone);
X. Mao et al., arXiv:1611.04076, section 3 and figure 1 (fakes on the right side).
"""

import copy
import itertools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nanogan import backend, checkpoint, cli, images
from nanogan.analysis.inside import gradients
from nanogan.data import Loader
from nanogan.data.named import load_pictures
from nanogan.disk import writable_folder
from nanogan.games.drawing import draw_z
from nanogan.games.lsgan import LSGAN
from nanogan.games.vanilla import VanillaGAN
from nanogan.images import plots as plot
from nanogan.models import vanilla
from nanogan.optim import Adam
from nanogan.recipes import experiments
from nanogan.recipes.trained import existing

BATCH = 100
EVERY = 10  # steps from one look at the gradients to the next
SCORES = np.linspace(-8, 8, 161)  # of the first panel
SMALLEST = 1e-8  # norm that is drawn
EDGES = (-100.0, 0.0, 0.5, 1.0, 1.5, 100.0)  # of LSGAN's scores
ON_OWN = {  # what is shown: whose networks, and the loss of G
    "saturating": ("vanilla", "saturating"),
    "non-saturating": ("vanilla", "non-saturating"),
    "least squares": ("lsgan", "least squares"),
}


def main():
    parser = experiments.parser(
        "Measure what is left of G's gradient when D has won, and when G has (Goodfellow et al. 2014, section 3; "
        "Arjovsky and Bottou 2017, section 2.2; Mao et al. 2016, section 3).",
        out="runs/vanishing_gradients",
        data="mnist",
    )
    for name, script in (("vanilla", "vanilla_gan"), ("lsgan", "lsgan")):
        parser.add_argument(
            f"--{name}",
            default=f"runs/{script}",
            type=cli.path,
            metavar="FOLDER",
            help=f"a run of examples/{script}.py",
        )
    parser.add_argument(
        "--steps", type=cli.at_least(int, EVERY, high=1_000_000), default=300, help="that one network takes alone"
    )
    args = parser.parse_args()
    args.device = backend.get_device(args.device)
    args.steps = EVERY if args.dry_run else args.steps
    trained = {"vanilla": open_vanilla(args.vanilla, args.device), "lsgan": open_lsgan(args.lsgan, args.device)}
    out = writable_folder(args.out)

    g, d = trained["lsgan"]
    z = draw_z(backend.seeded_rng(args.seed, "samples"), 2000, g.latent, device=args.device)
    rows = gradients.by_score(g, d, z, EDGES)
    new = {"vanilla": new_vanilla(trained["vanilla"][0], args), "lsgan": new_lsgan(g, args)}
    measured = {
        "D learns, G untrained": (d_alone(new, args), ON_OWN),
        "D learns, G trained": (d_alone(copy.deepcopy(trained), args), ON_OWN),
        "G learns, D trained": (g_alone(trained, args), ON_OWN | {"non-sat., LSGAN": ("lsgan", "non-saturating")}),
    }
    draw(out / "gradients.png", measured)
    numbers = {}
    for title, (moments, shown) in measured.items():
        numbers |= told(title, moments, shown)
    experiments.write_numbers(out / "numbers.json", numbers | {"LSGAN's samples": rows})
    print(f"image: {out / 'gradients.png'}")


# -------------------------------------------------------------------------------------------------------- networks


def open_vanilla(folder, device):
    """Return G and D of a run of vanilla_gan.py."""
    load = checkpoint.generator_loader(vanilla, "vanilla GAN generator")
    g = load(existing(Path(folder, "generator.safetensors"), script="vanilla_gan.py", flag="--vanilla"))
    d = vanilla.discriminator(image_size=g.image_size, channels=g.channels, hidden=g.hidden)
    return g.to(device), checkpoint.load(Path(folder, "discriminator.safetensors"), d).to(device)


def open_lsgan(folder, device):
    """Return G and D of a run of lsgan.py."""
    paths = [Path(folder, f"{kind}.safetensors") for kind in ("generator", "discriminator")]
    existing(paths[0], script="lsgan.py", flag="--lsgan")
    return checkpoint.load_generator(paths[0]).to(device), checkpoint.load_discriminator(paths[1]).to(device)


def new_vanilla(g, args):
    """Return G and D of the sizes of ``g``, as a run of vanilla_gan.py would start."""
    options = VanillaGAN.Options(image_size=g.image_size, latent=g.latent, hidden=g.hidden)
    game = VanillaGAN(options, {"images": (g.channels, g.image_size, g.image_size)}, args.device, args.seed)
    return game.g, game.d


def new_lsgan(g, args):
    """Return G and D of the sizes of ``g``, as a run of lsgan.py would start."""
    options = LSGAN.Options(image_size=g.image_size, latent=g.latent, width=g.width)
    game = LSGAN(options, {"images": (g.channels, g.image_size, g.image_size)}, args.device, args.seed)
    return game.g, game.d


# --------------------------------------------------------------------------------------------------------- learning


def d_alone(pairs, args):
    """Train the D of each pair alone, with its game's loss; return the moments of each."""
    found = {}
    for name, (g, d) in pairs.items():
        bar = experiments.progress_bar("D alone", args.steps)
        batches = zip(reals(g, args), bar(latents(g, args)), strict=False)
        loss = {"vanilla": "bce", "lsgan": "lsgan"}[name]
        found[name] = gradients.while_d_learns(g, d, optimizer(d), batches, first_z(g, args), loss=loss, every=EVERY)
    return found


def g_alone(pairs, args):
    """Train the G of each pair alone to raise D's output; return the moments of each."""
    found = {}
    for name, (g, d) in pairs.items():
        zs = experiments.progress_bar("G alone", args.steps)(latents(g, args))
        found[name] = gradients.while_g_learns(g, d, optimizer(g), zs, first_z(g, args), every=EVERY)
    return found


def reals(g, args):
    """Yield batches of real images of G's size, as many as are asked for."""
    count = 4 * BATCH if args.dry_run else None
    pictures, _ = load_pictures(args.data, size=g.image_size, channels=g.channels, count=count, seed=args.seed)
    loader = Loader({"images": pictures}, batch_size=BATCH, seed=args.seed, drop_last=True, device=args.device)
    for epoch in itertools.count(1):
        for batch in loader.epoch(epoch):
            yield batch["images"]


def optimizer(network):
    return Adam(network, lr=5e-4, betas=(0.5, 0.999))


def first_z(g, args):
    """The z at which gradients are measured."""
    return draw_z(backend.seeded_rng(args.seed, "z"), 500, g.latent, device=args.device)


def latents(g, args):
    """Yield z of each step."""
    for step in range(1, args.steps + 1):
        yield draw_z(backend.seeded_rng(args.seed, f"step {step}"), BATCH, g.latent, device=args.device)


# --------------------------------------------------------------------------------------------------------- results


def told(title, moments, shown):
    """Numbers of the first and the last moment: D's mean output, and the norm of G's gradient."""
    return {
        f"{title}, {label}, {when}": {"D's output": moment.score, "gradient": moment.gradients[loss]}
        for label, (run, loss) in shown.items()
        for when, moment in (("start", moments[run][0]), ("end", moments[run][-1]))
    }


def draw(path, measured):
    """Write the four panels as a PNG file."""
    sheet = Image.new("RGB", (890, 600), plot.PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    boxes = [(left, top, left + 370, top + 220) for top in (40, 340) for left in (50, 470)]
    slopes = [(name, -slope) for name, slope in gradients.slopes(SCORES).items()]
    plot.panel(pen, font, boxes[0], SCORES, slopes, "minus the slope of G's loss, against D's output", (-4, 4))
    for box, (title, (moments, shown)) in zip(boxes[1:], measured.items(), strict=True):
        steps = np.array([moment.step for moment in moments["lsgan"]], float)
        series = [
            (label, np.log10([max(moment.gradients[loss], SMALLEST) for moment in moments[run]]))
            for label, (run, loss) in shown.items()
        ]
        limits = min(values.min() for _, values in series) - 0.2, max(values.max() for _, values in series) + 0.2
        plot.panel(pen, font, box, steps, series, f"log10 |gradient of G|, against the step: {title}", limits)
    images.save_png(path, np.asarray(sheet))


if __name__ == "__main__":
    cli.run(main)
