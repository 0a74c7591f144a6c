#!/usr/bin/env python3
"""Which modes does a Wasserstein GAN find? A ring of 8 and a grid of 25 Gaussians, gradient penalty beside clipping.

    python examples/wgan_modes.py                     2 minutes; look at runs/wgan_modes
    python examples/wgan_modes.py --seeds 1 --steps 500

Plays six games from the same networks for each seed; weights are clipped to 0.01, the authors' limit, and to 0.1. A
mode is found if it has at least a quarter of its share of the generated points; a point is near if it lies within 3
standard deviations of a mode's middle (98.9% of the data do). Prints both for each game and seed, and writes
numbers.json and wgan_modes.png, the points of the first seed. I. Gulrajani et al., arXiv:1704.00028, section 4.1 and
figure 1; the steps are those of nanogan/games/wgan.py and wgan_gp.py. docs/games/wgan_gp.md shows what came out.
"""

import numpy as np

from nanogan import backend, cli, images
from nanogan.analysis import theory, wasserstein
from nanogan.disk import writable_folder
from nanogan.recipes import experiments

MIXTURES = {"ring": theory.ring(8, std=0.1), "grid": wasserstein.grid(5, std=0.1)}
BOUNDS = {  # how D's slope is bounded
    "penalty": {"bound": "penalty"},
    "clip 0.01": {"bound": "clip", "clip": 0.01},  # the authors' limit
    "clip 0.1": {"bound": "clip", "clip": 0.1},
}
MOMENTS = 20  # of a game at which modes are counted


def main():
    parser = cli.parser(
        "Count the modes of known densities that Wasserstein GANs find, with gradient penalty and with clipped weights "
        "(Gulrajani et al., arXiv:1704.00028, section 4.1).",
        out="runs/wgan_modes",
    )
    parser.add_argument(
        "--steps", type=cli.at_least(int, 10, high=1_000_000), default=2000, help="of each game, by the generator"
    )
    parser.add_argument("--seeds", type=cli.at_least(int, 1, high=100), default=3, help="how many, from --seed on")
    args = parser.parse_args()
    device = backend.get_device(args.device)
    out = writable_folder(args.out)
    steps, seeds = (10, 1) if args.dry_run else (args.steps, args.seeds)

    numbers, rows = {}, []
    for name, mixture in MIXTURES.items():
        rows.append([])
        for title, bound in BOUNDS.items():
            ends = []
            for seed in range(args.seed, args.seed + seeds):
                label = f"{name}, {title}, seed {seed}"
                bar = experiments.progress_bar(label)
                every = max(1, steps // MOMENTS)
                options = {"steps": steps, "every": every, "seed": seed, "device": device, "progress": bar}
                moments = list(wasserstein.play(mixture, **bound, **options))
                ends.append(theory.modes_found(moments[-1].points, mixture))
                numbers |= {f"{label}: {key}": value for key, value in measured(moments, mixture).items()}
                if seed == args.seed:
                    rows[-1].append(theory.draw_plane(moments[-1], mixture, title))
            for key, value in zip(("modes", "near"), np.mean(ends, axis=0), strict=True):
                numbers[f"{name}, {title}, mean: {key}"] = float(value)
    images.save_png(out / "wgan_modes.png", np.concatenate([np.concatenate(row, axis=1) for row in rows]))
    experiments.write_numbers(out / "numbers.json", numbers)
    print(f"image: {out / 'wgan_modes.png'}")


def measured(moments, mixture):
    """The numbers of one game at its end, and the first moment at which all modes were found, if there was one."""
    modes, near = theory.modes_found(moments[-1].points, mixture)
    numbers = {"modes": modes, "near": near}
    steps = [m.step for m in moments if theory.modes_found(m.points, mixture)[0] == len(mixture.means)]
    if steps:
        numbers["all modes at step"] = steps[0]
    if moments[-1].slope is not None:
        numbers["slope"] = moments[-1].slope
    return numbers


if __name__ == "__main__":
    cli.run(main)
