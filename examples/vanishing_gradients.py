#!/usr/bin/env python3
"""Measure G's gradient when D has won, and when G has won, for three losses of G.

    python examples/vanilla_gan.py                 first: G and D with cross entropy, in runs/vanilla_gan
    python examples/lsgan.py                       first: G and D with squared distances, in runs/lsgan
    python examples/vanishing_gradients.py         TIME; look at runs/vanishing_gradients

Draws gradients.png: left, the slope of each loss along D's output; middle, the norm of G's gradient while D learns
alone, G staying as it was trained; right, while G learns alone to raise D's output, D staying. The cross entropies are
measured on the vanilla GAN's networks, least squares on LSGAN's; right, the cross entropy on LSGAN's too.
Prints, and writes to numbers.json, the norms before the first step and after the last one, D's outputs then, and how
LSGAN's own samples lie: their share in each interval of D's score, and the length of an image's gradient there.

I. Goodfellow et al., arXiv:1406.2661, section 3; M. Arjovsky, L. Bottou, arXiv:1701.04862, section 2.2 (D alone);
X. Mao et al., arXiv:1611.04076, section 3 and figure 1 (fakes on the right side).
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nanogan import backend, checkpoint, cli, images
from nanogan.analysis.inside import gradients
from nanogan.data import Loader
from nanogan.data.named import load_pictures
from nanogan.disk import writable_folder
from nanogan.games.drawing import draw_z
from nanogan.images import plots as plot
from nanogan.models import vanilla
from nanogan.optim import Adam
from nanogan.recipes import experiments
from nanogan.recipes.trained import existing

BATCH = 100
EVERY = 10  # steps from one look at the gradients to the next
SCORES = np.linspace(-8, 8, 161)  # of the left panel
EDGES = (-100.0, 0.0, 0.5, 1.0, 1.5, 100.0)  # of LSGAN's scores
WHILE_D = {  # what is shown: the run whose networks learn, the loss of G
    "saturating": ("vanilla", "saturating"),
    "non-saturating": ("vanilla", "non-saturating"),
    "least squares": ("lsgan", "least squares"),
}
WHILE_G = WHILE_D | {"non-sat., LSGAN": ("lsgan", "non-saturating")}


def main():
    parser = experiments.parser(
        "Measure what is left of G's gradient when D has won, and when G has (Goodfellow et al. 2014, section 3; "
        "Arjovsky and Bottou 2017, section 2.2; Mao et al. 2016, section 3).",
        out="runs/vanishing_gradients",
        data="mnist",
    )
    for name, script in (("vanilla", "vanilla_gan"), ("lsgan", "lsgan")):
        parser.add_argument(
            f"--{name}", default=f"runs/{script}", metavar="FOLDER", help=f"a run of examples/{script}.py"
        )
    parser.add_argument(
        "--steps", type=cli.at_least(int, EVERY, high=1_000_000), default=500, help="that one network takes alone"
    )
    args = parser.parse_args()
    args.device = backend.get_device(args.device)
    args.steps = EVERY if args.dry_run else args.steps
    opened = {"vanilla": open_vanilla, "lsgan": open_lsgan}
    pairs = {name: opened[name](getattr(args, name), args.device) for name in opened}
    out = writable_folder(args.out)

    g, d = pairs["lsgan"]
    z = draw_z(backend.seeded_rng(args.seed, "samples"), 2000, g.latent, device=args.device)
    rows = gradients.by_score(g, d, z, EDGES)
    while_d = {name: d_alone(*pair, "bce" if name == "vanilla" else "lsgan", args) for name, pair in pairs.items()}
    pairs = {name: opened[name](getattr(args, name), args.device) for name in opened}  # D as it was trained
    while_g = {name: g_alone(*pair, args) for name, pair in pairs.items()}

    draw(out / "gradients.png", while_d, while_g)
    experiments.write_numbers(
        out / "numbers.json",
        told("D alone", while_d, WHILE_D) | told("G alone", while_g, WHILE_G) | {"LSGAN's samples": rows},
    )
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


def d_alone(g, d, loss, args):
    """Train D alone; return the moments of :mod:`nanogan.analysis.inside.gradients`."""
    count = 4 * BATCH if args.dry_run else None
    pictures, _ = load_pictures(args.data, size=g.image_size, channels=g.channels, count=count, seed=args.seed)
    loader = Loader({"images": pictures}, batch_size=BATCH, seed=args.seed, drop_last=True, device=args.device)
    reals = (batch["images"] for epoch in range(1, args.steps + 1) for batch in loader.epoch(epoch))
    bar = experiments.progress_bar("D alone", args.steps)
    batches = zip(reals, bar(latents(g, args)), strict=False)
    return gradients.while_d_learns(g, d, optimizer(d), batches, first_z(g, args), loss=loss, every=EVERY)


def g_alone(g, d, args):
    """Train G alone to raise D's output; return the moments."""
    zs = experiments.progress_bar("G alone", args.steps)(latents(g, args))
    return gradients.while_g_learns(g, d, optimizer(g), zs, first_z(g, args), every=EVERY)


def optimizer(network):
    return Adam(network, lr=2e-4, betas=(0.5, 0.999))


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


def draw(path, while_d, while_g):
    """Write the three panels as a PNG file."""
    sheet = Image.new("RGB", (1200, 290), plot.PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    slopes = [(name, -slope) for name, slope in gradients.slopes(SCORES).items()]
    plot.panel(pen, font, (40, 40, 350, 260), SCORES, slopes, "-slope of G's loss along D's output", (-4, 4))
    for left, moments, shown, title in ((400, while_d, WHILE_D, "D learns alone"), (770, while_g, WHILE_G, "G learns")):
        steps = np.array([moment.step for moment in moments["lsgan"]], float)
        series = [
            (label, np.log10([max(moment.gradients[loss], 1e-12) for moment in moments[run]]))
            for label, (run, loss) in shown.items()
        ]
        limits = min(values.min() for _, values in series) - 0.2, max(values.max() for _, values in series) + 0.2
        title = f"log10 |gradient of G| while {title}, against its steps"
        plot.panel(pen, font, (left, 40, left + 320, 260), steps, series, title, limits)
    images.save_png(path, np.asarray(sheet))


if __name__ == "__main__":
    cli.run(main)
