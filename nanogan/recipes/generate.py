"""Images of a trained generator."""

from nanogan import backend, checkpoint, images
from nanogan.disk import writable_folder
from nanogan.recipes.flags import progress_bar


def generate(args, game, load=checkpoint.load_generator):
    """Write ``args.generate`` images of the network in ``args.checkpoint`` and return the exit status.

    game: the Game class that trained it. load(path): returns the network, on the CPU.
    """
    device = backend.get_device(args.device)
    network = load(args.checkpoint).to(device)
    out = writable_folder(args.out)
    count = min(args.generate, 4) if args.dry_run else args.generate
    rng = backend.seeded_rng(args.seed, "generate")
    generated = images.to_uint8(game.generate(network, count, args, rng, device))
    if args.single_files:
        for i, image in enumerate(progress_bar("writing")(generated), start=1):
            images.save_png(out / f"generated_{i:06d}.png", image)
        print(f"{count} images: {out}/generated_*.png")
    else:
        columns = getattr(network, "classes", None)  # a column for each class
        images.save_grid(out / "generated.png", generated, columns=columns)
        print(f"{count} images: {out}/generated.png")
    return 0
