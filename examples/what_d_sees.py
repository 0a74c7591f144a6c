#!/usr/bin/env python3
"""What a discriminator's filters see, beside those of an untrained one: guided backpropagation, the paper's figure 5.

    python examples/mnist_dcgan.py                             train one first
    python examples/what_d_sees.py                             about 15 s; look at runs/what_d_sees/guided.png
    python examples/what_d_sees.py --convolution 1 --features 0 1 2 3
    python examples/what_d_sees.py --data digits               for a network that was trained on the built-in digits

For each feature: the --strongest pictures that it answers most strongly to, cut to what it sees of them, and below each
the pixels that speak for the response (white) or against it (black). Left the trained discriminator, right an untrained
one. gradient.png and gradient_x_input.png show the same with the plain gradient. Prints how smooth the maps are (noise
0, strokes more); how like the picture; how much alike those of one feature are, and of different ones; and how much of
a map remains when all weights are replaced by random ones.
"""

import numpy as np

from nanogan import backend, cli, images
from nanogan.analysis.inside import guided
from nanogan.analysis.networks import pictures_for
from nanogan.data.named import load_pictures
from nanogan.disk import writable_folder
from nanogan.errors import UserError
from nanogan.models import dcgan
from nanogan.recipes import experiments, trained

GAP = 12  # pixels between trained and untrained
SMALLEST = 40  # pixels that a crop has at least when it is drawn


def main():
    parser = experiments.parser(
        "Show what features of the discriminator respond to, by guided backpropagation. The paper's section 6.2 "
        "(visualizing the discriminator features), figure 5.",
        out="runs/what_d_sees",
        data="mnist",
        checkpoint="runs/mnist_dcgan/discriminator.safetensors",
    )
    count = cli.at_least(int, 1, high=1_000_000)
    parser.add_argument("--convolution", type=count, help="counted from 1 (default: the last before the logit's)")
    parser.add_argument("--features", type=cli.at_least(int, 0), nargs="+", default=list(range(6)), help="its channels")
    parser.add_argument("--strongest", type=count, default=8, help="pictures for each feature")
    parser.add_argument("--pictures", type=count, default=10_000, help="that are looked through")
    args = parser.parse_args()

    device = backend.get_device(args.device)
    d = trained.discriminator(args.checkpoint).to(device)
    found = guided.convolutions(d)
    number = args.convolution or max(1, len(found) - 1)
    if number > len(found):
        raise UserError(f"--convolution expected a number from 1 to {len(found)}, got {number}")
    layer = found[number - 1]
    out = writable_folder(args.out)
    wanted = 40 if args.dry_run else args.pictures
    pictures, _ = load_pictures(
        args.data,
        size=d.image_size,
        channels=d.channels,
        count=wanted,
        seed=args.seed,
        progress=experiments.progress_bar("reading"),
    )

    rng = backend.seeded_rng(args.seed, "untrained")
    shape = {"image_size": d.image_size, "channels": d.channels, "width": d.width}
    untrained = dcgan.discriminator(**shape, rng=rng).to(device)
    for start in range(0, min(len(pictures), 3000), 100):  # BatchNorm's statistics, which training would have left
        untrained.forward(pictures_for(untrained, pictures[start : start + 100]), train=True)

    numbers = {"convolution": number, "features": args.features, "pictures": len(pictures)}
    field = guided.receptive_field(d, layer)
    numbers["receptive_field"] = [int(n) for n in field[0]]
    sheets = {rule: [] for rule in guided.RULES}
    for name, network in (("trained", d), ("untrained", untrained)):
        _, indices, positions = guided.strongest(
            network,
            layer,
            pictures,
            features=args.features,
            count=min(args.strongest, len(pictures)),
            progress=experiments.progress_bar(f"responses of the {name} one"),
        )
        F, K = indices.shape
        chosen, places = pictures[indices.ravel()], positions.reshape(-1, 2)
        asked = {"features": np.repeat(args.features, K), "positions": places}
        cut = guided.crops(chosen, places, field)
        for rule in guided.RULES:
            maps = cropped_maps(network, layer, chosen, asked, rule, field)
            sheets[rule].append(sheet(cut, guided.shades(maps), F, K))
            same, other = guided.agreement(maps.reshape(F, K, *maps.shape[1:]))
            numbers[f"{rule}_{name}_smoothness"] = guided.smoothness(maps)
            numbers[f"{rule}_{name}_like_the_picture"] = float(guided.correlation(maps, cut).mean())
            numbers[f"{rule}_{name}_alike_within_a_feature"] = same
            numbers[f"{rule}_{name}_alike_between_features"] = other
            if name == "trained":  # the same pictures, features and positions, explained by random weights
                random_maps = cropped_maps(untrained, layer, chosen, asked, rule, field)
                remains = np.abs(guided.correlation(np.abs(maps), np.abs(random_maps)))
                numbers[f"{rule}_remains_with_random_weights"] = float(remains.mean())
        same, other = guided.agreement(cut.reshape(F, K, *cut.shape[1:]))
        numbers[f"pictures_{name}_alike_within_a_feature"] = same
        numbers[f"pictures_{name}_alike_between_features"] = other

    for rule, (left, right) in sheets.items():
        gap = np.full((left.shape[0], GAP, left.shape[2]), 255, np.uint8)
        images.save_png(out / f"{rule}.png", np.concatenate([left, gap, right], axis=1))
    experiments.write_numbers(out / "numbers.json", numbers)
    print(f"pictures: {', '.join(str(out / f'{rule}.png') for rule in guided.RULES)}")
    return 0


def cropped_maps(network, layer, pictures, asked, rule, field):
    """What :func:`guided.explain` says, cut to what each response sees: (N, h, w, C)."""
    maps = guided.explain(network, layer, pictures_for(network, pictures), rule=rule, **asked)
    return guided.crops(backend.to_numpy(maps).transpose(0, 2, 3, 1), asked["positions"], field)


def sheet(cut, maps, F, K):
    """A row of pictures and a row of maps for each of F features, uint8 (H, W, C)."""
    maps = images.to_uint8(maps.transpose(0, 3, 1, 2))
    rows = np.stack([cut.reshape(F, K, *cut.shape[1:]), maps.reshape(F, K, *maps.shape[1:])], axis=1)
    larger = -(-SMALLEST // cut.shape[2])
    tiles = rows.reshape(-1, *cut.shape[1:]).repeat(larger, axis=1).repeat(larger, axis=2)
    return images.grid(tiles, columns=K)


if __name__ == "__main__":
    cli.run(main)
