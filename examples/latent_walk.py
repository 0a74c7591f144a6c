#!/usr/bin/env python3
"""Walk through the latent space of a trained generator: pictures between pictures (section 6.1 of the paper, figure 4).

    python examples/mnist_dcgan.py                                   train one first
    python examples/latent_walk.py                                   about 10 s; look at runs/latent_walk
    python examples/latent_walk.py --checkpoint runs/mine/generator.safetensors --data mnist

Writes, for straight lines and for great circles, walk_*.png (a row for each leg, its two random z at the ends),
plane_*.png (what lies between four z) and walk_*.gif, which returns to where it began. Prints, and writes to
numbers.json, the largest step between neighbouring frames against the median, and what halving the steps makes of the
largest: 0.5 of it if the way is smooth, all of it (1.0) if the generator jumps. The same numbers for a generator that
can draw nothing but the pictures of --data (the nearest one to each frame) show what jumping looks like.
"""

import tempfile
from pathlib import Path

import numpy as np

from nanogan import backend, checkpoint, cli, images
from nanogan.analysis.latent import walk
from nanogan.data.named import load_pictures
from nanogan.disk import writable_folder
from nanogan.games.drawing import draw_z, sample
from nanogan.recipes import experiments
from nanogan.recipes.trained import existing

KNOWN = 10_000  # pictures that the generator by heart knows
NUMBERS = 40_000_000  # and at most so many numbers in them, for the memory's sake


def main():
    parser = experiments.parser(
        "Walk between random z of a trained generator (the DCGAN paper, section 6.1, figure 4).",
        out="runs/latent_walk",
        checkpoint="runs/mnist_dcgan/generator.safetensors",
    )
    count = cli.at_least(int, 2, high=1000)
    parser.add_argument("--points", type=count, default=9, help="random z; a leg goes from each to the next")
    parser.add_argument("--steps", type=count, default=10, help="steps of each leg")
    parser.add_argument("--path", choices=(*walk.PATHS, "both"), default="both", help="straight lines, great circles")
    args = parser.parse_args()
    device = backend.get_device(args.device)
    g = checkpoint.load_generator(existing(args.checkpoint, "generator", flag="--checkpoint")).to(device)
    points, steps, known_count = (3, 4, 50) if args.dry_run else (args.points, args.steps, KNOWN)
    known_count = max(1, min(known_count, NUMBERS // (g.channels * g.image_size**2)))
    known, _ = load_pictures(
        args.data,
        size=g.image_size,
        channels=g.channels,
        count=known_count,
        seed=args.seed,
        progress=experiments.progress_bar("pictures"),
    )
    known = images.from_uint8(backend.to_device(known, device))
    out = writable_folder(args.out)

    rng = backend.seeded_rng(args.seed, "walk")
    corners = draw_z(rng, points, g.latent, device=device)
    numbers = {"legs": points, "steps": steps}
    for path in walk.PATHS if args.path == "both" else (args.path,):
        z = walk.legs(corners, 2 * steps, path=path)  # (legs, 2 steps + 1, latent)
        frames = draw(g, z, f"drawing, {path}")
        seen = frames[:, ::2]  # (legs, steps + 1, C, H, W)
        images.save_grid(out / f"walk_{path}.png", flat(seen), columns=steps + 1)
        if points >= 4:
            around = walk.plane(corners[:4], min(steps + 1, 16), path=path)
            images.save_grid(out / f"plane_{path}.png", flat(draw(g, around, "plane")), columns=around.shape[1])
        save_gif(out / f"walk_{path}.gif", flat(seen[:, :-1]))

        middle = z[:, steps]
        numbers[f"{path}_length_of_z_midway"] = float(np.sqrt((backend.to_numpy(middle) ** 2).sum(axis=1)).mean())
        remembered = walk.by_heart(flat(frames), known, progress=experiments.progress_bar("by heart"))
        for name, pictures in ((path, frames), (f"{path}_by_heart", remembered.reshape(frames.shape))):
            numbers |= {f"{name}_{key}": value for key, value in walk.smoothness(pictures).items()}
    experiments.write_numbers(out / "numbers.json", numbers)
    print(f"pictures: {out}/walk_*.png, walk_*.gif" + (", plane_*.png" if points >= 4 else ""))


def draw(g, z, label):
    """Return the pictures of z (A, B, latent), (A, B, C, H, W)."""
    pictures = [sample(g, row) for row in experiments.progress_bar(label)(z)]
    return backend.array_module(z).stack(pictures)


def flat(pictures):
    """(A, B, C, H, W) -> (A*B, C, H, W)."""
    return pictures.reshape(-1, *pictures.shape[2:])


def save_gif(path, pictures):
    """Write pictures (N, C, H, W) as an animation, each pixel four times as large up to 128 pixels."""
    pictures = images.to_uint8(pictures)
    times = max(1, 128 // pictures.shape[1])
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{i:06d}.png") for i in range(len(pictures))]
        for each, picture in zip(paths, pictures, strict=True):
            images.save_png(each, picture.repeat(times, axis=0).repeat(times, axis=1))
        images.save_gif(path, paths, max_frames=len(paths))


if __name__ == "__main__":
    cli.run(main)
