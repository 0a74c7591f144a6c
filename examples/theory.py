#!/usr/bin/env python3
"""The theory of GANs in one minute: games on densities that are known, so that every claim can be measured.

    python examples/theory.py          about a minute; look at runs/theory

Draws theory.gif: left, data of two Gaussians on a line, G's histogram, D* = p / (p + q), and D; middle and right, a
ring of 8 Gaussians with Adam's beta1 at 0.5 (the DCGAN paper's) and at 0.9, from the same weights. theory.png has the
curves: JSD against the step, with the non-saturating and with the saturating loss; the gradients of both in G while D
wins; the modes of the ring that are drawn. Prints, and writes to numbers.json:

    fixed_*          D trained between two Gaussians that stay: its distance from D*, its loss, and 2 log 2 - 2 JSD
    line_*           JSD at the start and the end, and what as many points of the data itself would have
    gradient_*       norm of G's gradient when D has just learned to tell all apart: saturating, non-saturating
    ring_*           modes drawn at the end, the fewest after the first quarter, points near a mode
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nanogan import backend, cli, images
from nanogan.analysis import theory
from nanogan.disk import writable_folder
from nanogan.images import plots as plot
from nanogan.recipes import experiments

LINE = theory.Mixture(np.array([[-1.2], [1.4]]), np.array([0.4, 0.5]), np.array([0.6, 0.4]))
EDGES = np.linspace(-4, 4, 101)
MIDDLES = ((EDGES[1:] + EDGES[:-1]) / 2)[:, None]
POINTS = 10_000


def main():
    parser = cli.parser(
        "Measure what GAN theory says, on known densities (Goodfellow et al. 2014, sections 3 and 4; beta1: DCGAN "
        "paper, section 4; mode collapse: Metz et al. 2017).",
        out="runs/theory",
    )
    parser.add_argument(
        "--steps", type=cli.at_least(int, 20, high=1_000_000), default=2000, help="of each game, by the generator"
    )
    args = parser.parse_args()
    device = backend.get_device(args.device)
    out = writable_folder(args.out)
    steps = 20 if args.dry_run else args.steps
    common_options = {"seed": args.seed, "device": device}

    numbers = fixed_pair(steps, common_options)
    games, options = {}, {"steps": steps, "every": max(1, steps // 50), **common_options}
    for name, saturating in (("non-saturating", False), ("saturating", True)):
        games[name] = list(
            theory.play(
                LINE,
                look_at=MIDDLES,
                count=POINTS,
                d_steps=3,
                saturating=saturating,
                progress=experiments.progress_bar(f"line, {name}"),
                **options,
            )
        )
    ring = theory.ring(std=0.2)
    for beta in (0.5, 0.9):
        games[f"beta1 {beta}"] = list(
            theory.play(
                ring,
                look_at=np.zeros((1, 2)),
                betas=(beta, 0.999),
                progress=experiments.progress_bar(f"ring, beta1 {beta}"),
                **options,
            )
        )
    slopes = theory.slopes_while_d_wins(
        theory.Mixture(np.array([[4.0]]), np.array([0.5]), np.ones(1)),
        steps=min(500, steps),
        every=min(10, steps // 2),
        **common_options,
    )

    jsd = {name: [distance(moment) for moment in games[name]] for name in ("non-saturating", "saturating")}
    modes = {name: [theory.modes_found(m.points, ring) for m in games[name]] for name in ("beta1 0.5", "beta1 0.9")}
    data = LINE.sample(backend.seeded_rng(args.seed, "data itself"), POINTS)
    numbers |= {
        "line_jsd_start": jsd["non-saturating"][0],
        "line_jsd_end": jsd["non-saturating"][-1],
        "line_jsd_end_saturating": jsd["saturating"][-1],
        "line_jsd_of_data_itself": distance(games["saturating"][0]._replace(points=data)),
        "line_mean_d_error": d_error(games["non-saturating"][-1]),
        "gradient_saturating": float(slopes[1][-1]),
        "gradient_non_saturating": float(slopes[2][-1]),
    }
    for name, found in modes.items():
        late = found[len(found) // 4 :]
        numbers[f"ring_modes_end {name}"] = found[-1][0]
        numbers[f"ring_modes_fewest {name}"] = min(each for each, _ in late)
        numbers[f"ring_points_near_a_mode {name}"] = found[-1][1]

    draw_curves(out / "theory.png", [m.step for m in games["saturating"]], jsd, slopes, modes)
    draw_games(out / "theory.gif", games, ring)
    experiments.write_numbers(out / "numbers.json", numbers)
    print(f"pictures: {out / 'theory.gif'}, {out / 'theory.png'}")


def fixed_pair(steps, options):
    """Compare a D trained between two fixed densities with D*, and its loss with what JSD says."""
    p, q = (theory.Mixture(np.array([[mean]]), np.array([std]), np.ones(1)) for mean, std in ((-0.5, 0.6), (0.7, 0.9)))
    bar = experiments.progress_bar("fixed pair")
    learned, loss = theory.fit_discriminator(p, q, steps=steps, look_at=MIDDLES, progress=bar, **options)
    p, q = (each.density(MIDDLES) for each in (p, q))
    error = np.abs(learned - theory.optimal_discriminator(p, q))
    return {
        "fixed_mean_d_error": float((error * (p + q)).sum() / (p + q).sum()),
        "fixed_d_loss": loss,
        "fixed_2log2_minus_2jsd": 2 * np.log(2) - 2 * theory.jensen_shannon(p / p.sum(), q / q.sum()),
    }


def distance(moment):
    """The JSD of LINE and of the points drawn, both in EDGES' bins."""
    p = LINE.density(MIDDLES)
    return theory.jensen_shannon(p / p.sum(), theory.histogram(moment.points, EDGES))


def d_error(moment):
    """The mean distance of D from D*, where there are points, real or drawn."""
    p = LINE.density(MIDDLES)
    p, q = p / p.sum(), theory.histogram(moment.points, EDGES)
    return float((np.abs(moment.probabilities - theory.optimal_discriminator(p, q)) * (p + q)).sum() / 2)


def draw_games(path, games, ring):
    """Write the three games side by side as an animation."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        frames = []
        for i in range(len(games["saturating"])):
            line = theory.draw_line(games["non-saturating"][i], LINE, EDGES)
            planes = [theory.draw_plane(games[name][i], ring, name) for name in ("beta1 0.5", "beta1 0.9")]
            frames.append(Path(folder, f"{i:03d}.png"))
            images.save_png(frames[-1], np.concatenate([line, *planes], axis=1))
        images.save_gif(path, frames)


def draw_curves(path, steps, jsd, slopes, modes):
    """Write the three panels of curves as a PNG file."""
    sheet = Image.new("RGB", (900, 280), plot.PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    panels = (
        (steps, jsd, "JSD of data and drawn, on the line", (0, 0.7)),
        (
            slopes[0],
            {name: np.log10(np.maximum(slopes[i], 1e-6)) for i, name in ((2, "non-saturating"), (1, "saturating"))},
            "log10 |gradient of G|, while D learns alone",
            (-4, 2),
        ),
        (steps, {name: [found for found, _ in each] for name, each in modes.items()}, "modes drawn, of 8", (0, 8.5)),
    )
    for i, (x, series, title, limits) in enumerate(panels):
        box = (40 + 300 * i, 40, 290 + 300 * i, 250)
        plot.panel(draw, font, box, np.asarray(x, float), list(series.items()), title, limits)
    images.save_png(path, np.asarray(sheet))


if __name__ == "__main__":
    cli.run(main)
