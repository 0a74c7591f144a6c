#!/usr/bin/env python3
"""Train a StackGAN, which makes an image of a caption in two stages, or ask a trained one.

    python examples/stackgan.py                                      both stages; look at runs/stackgan/report.html
    python examples/stackgan.py --generate 16 --caption "a large red seven on blue" --out seven
    python examples/stackgan.py --resume                             go on after Ctrl-C, in the stage that it was in
    python examples/stackgan.py --stage 2 --out runs/stackgan        stage II anew, on the stage I that is there
    python examples/stackgan.py --data FOLDER                        your own: FOLDER/captions.csv and images
    python examples/stackgan.py --data FOLDER --preset paper --device gpu        larger images and networks

H. Zhang et al., arXiv:1612.03242, section 3. The built-in set are MNIST's digits (or built-in ones, where MNIST is not
available), coloured, with a caption each. Stage I makes images of 16 x 16 pixels, in runs/stackgan/stage1; stage II
takes these and makes 32 x 32 of them, in runs/stackgan. captions.txt there says what each row of a grid of samples was
asked for. After each epoch, a judge that was trained on the real images says how often it finds what a caption names
in the image that was made for it, and, for comparison, what another image's caption names.

captions.csv has the columns file (an image below FOLDER, or below its folder images) and caption; other columns with a
few different values are attributes for the judge. Both stages take 7 minutes on two CPU cores.
"""

import argparse
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from nanogan import checkpoint, cli, images, ranks, recipes, training
from nanogan.analysis.judges.several import train_attribute_judge
from nanogan.backend import seeded_rng, to_device
from nanogan.data.sets.captions import captioned_digits, encode, load_captioned, text_of
from nanogan.disk import Lock, replacing
from nanogan.errors import UserError
from nanogan.games.stackgan import StageOne, StageTwo, images_of
from nanogan.models.stackgan import network_of, stages_of
from nanogan.text import quoted
from nanogan.training.earlier import set_aside

COUNT = 20_000  # digits that are coloured
JUDGE_EPOCHS = 5
JUDGED = 1000  # images that the judge looks at after each epoch
NOT_ATTRIBUTES = ("images", "captions")
FIRST = "stage1"  # the folder of stage I below that of stage II
GAMES = {1: StageOne, 2: StageTwo}
PAPER = {
    "image_size": 128, "latent": 100, "condition": 128, "text_size": 128, "width": 64, "d_width": 64,
    "compare": "concat", "near": 0.0, "lr": 2e-4, "epochs": 600,
}  # fmt: skip
OF_ONE_STAGE = ("stage", "stage1", "out", "resume", *recipes.NO_OPTIONS)  # not taken from stage I by stage II


def load_data(args):
    """Return a name, and images, captions and their attributes, of the size that this stage has."""
    size = GAMES[args.stage].size_of(args)
    if args.data in ("auto", "mnist", "digits"):
        digits = argparse.Namespace(**vars(args) | {"image_size": 28, "channels": 1})
        name, columns = recipes.load_data(digits, recipes.images_needed(args) or COUNT)
        args.data = digits.data  # a resumed run takes the same
        pictures, captions, attributes = captioned_digits(
            columns["images"], columns["labels"], size=args.image_size, seed=args.seed,
            progress=recipes.progress_bar("colouring digits"),
        )  # fmt: skip
        name = f"coloured digits ({name})"
    else:
        pictures, captions, attributes, skipped = load_captioned(
            args.data, size=args.image_size, progress=recipes.progress_bar("reading images")
        )
        name = args.data
        for path, reason in list(skipped.items())[:3]:
            print(quoted(f"left out with its caption: {path} ({reason})"))
    pictures = images.resize(pictures, size, progress=recipes.progress_bar("resizing"))
    return name, {**attributes, "images": pictures, "captions": captions}


def measure(args, columns):
    """Train the judge; return a function of the game that says how often it finds in an image what was asked for."""
    captions = columns["captions"]
    shown = [text_of(numbers, captions.words) for numbers in captions.described()["shown"]]
    args.when_begun.append(lambda: write_captions(Path(args.out) / "captions.txt", shown))
    attributes = {name: values for name, values in columns.items() if name not in NOT_ATTRIBUTES}
    if not attributes:
        print("nothing is measured: captions.csv has no column of attributes")
        return None
    if columns["images"].shape[1] % 4:
        print("nothing is measured: a judge needs a size that is a multiple of 4")
        return None
    if len(captions) < 3:
        print(f"nothing is measured: a judge needs at least 3 images, there are {len(captions)}")
        return None
    order = seeded_rng(args.seed, "judge").permutation(len(captions))
    test, train = np.split(order, [max(1, len(order) // 10)])
    judge = train_attribute_judge(
        columns["images"][train], {name: values[train] for name, values in attributes.items()},
        epochs=1 if args.dry_run else JUDGE_EPOCHS, seed=args.seed, device=args.device,
        progress=recipes.progress_bar("training the judge"),
    )  # fmt: skip
    right = judge.agreement(columns["images"][test], {name: values[test] for name, values in attributes.items()})
    print(f"the judge is right on {told(right)} of {len(test)} real images that it was not trained on")

    chosen = seeded_rng(args.seed, "captions that are asked for").permutation(len(captions))[:JUDGED]
    asked = {name: values[chosen] for name, values in attributes.items()}
    others = {name: np.roll(values, 1) for name, values in asked.items()}  # of another image, in random order

    def measured(game):
        rng = seeded_rng(args.seed, "images that are judged")
        numbers = to_device(captions[chosen].numbers, game.device)
        generated = images_of(game.generator, numbers, rng, game.device)
        found, by_chance = judge.agreement(generated, asked), judge.agreement(generated, others)
        return found | {f"{name}, shuffled": share for name, share in by_chance.items()}

    return measured


def write_captions(path, shown):
    with replacing(path) as temporary:
        temporary.write_text("\n".join(shown) + "\n", encoding="utf-8")


def told(shares):
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


def load_generator(path):
    """Return the generator in a file, of one stage or of both."""
    if not Path(path).exists():
        raise UserError(f"there is no checkpoint {path}: train one with python examples/stackgan.py, or check the path")
    state = checkpoint.read(path)
    try:
        network = network_of(state)
    except UserError as error:
        raise UserError(
            f"{path} cannot be used: {error}; train one with python examples/stackgan.py: the file holds "
            f"{checkpoint.described(state)}"
        ) from None
    stages_of(network)[0].path = path
    if not all(np.isfinite(array).all() for array in network.state_dict().values()):
        raise UserError(f"{path} cannot be used: its weights are not finite numbers")
    return network


def asked(network, caption):
    """Return the generator after what it is asked for was noted in it: a caption, or those that it shows."""
    first = stages_of(network)[0]
    shown = first.buffers["shown"]
    if caption is not None:
        first.buffers["shown"] = encode(caption, first.words, shown.shape[1])[None]
    else:
        network.classes = len(shown)  # a column of the grid for each
        print(
            "asked for, one after the other:", *(quoted(text_of(numbers, first.words)) for numbers in shown), sep="\n  "
        )
    return network


# ------------------------------------------------------------------------------------------------------ two stages


def parser_of(stage):
    """The command line, with the game of this stage."""
    parser = recipes.parser(
        "Train a StackGAN (H. Zhang et al., arXiv:1612.03242, section 3), which makes an image of a caption in two "
        "stages, or ask a trained one.",
        out="runs/stackgan",
        game=GAMES[stage],
        epochs=8,
        batch_size=64,
        presets={
            "paper": ("64 pixels, then 128, the authors' widths and rate; for a GPU and images of your own", PAPER)
        },
    )
    data = parser.add_argument_group("data and stages")
    data.add_argument(
        "--data",
        default="auto",
        type=cli.path,
        metavar="NAME|FOLDER",
        help="mnist or digits: their digits, coloured and captioned; auto: mnist, or built-in digits if it is not on "
        "this machine and could not be downloaded; or a folder with a captions.csv",
    )
    data.add_argument("--stage", type=int, choices=(1, 2), help="train this stage alone; both if not given")
    data.add_argument(
        "--stage1",
        type=cli.path,
        metavar="FILE",
        help="stage I's generator, for --stage 2 (default: DIR/stage1/generator.safetensors)",
    )
    parser.add_argument_group("asking").add_argument(
        "--caption", metavar="TEXT", help="what --generate N asks for; without it, some captions of the data"
    )
    return parser


def main():
    parser = parser_of(2)
    args = parser.parse_args()
    if args.stage1 is not None and args.stage != 2:
        parser.error("--stage1 names what stage II starts from: add --stage 2")
    if args.caption is not None and args.generate is None:
        parser.error("--caption asks a trained network for images: add --generate N")
    if args.generate is not None:
        return recipes.run(parser, load_data, load=lambda path: asked(load_generator(path), args.caption))
    stage, resume, out = where(args, is_elsewhere=args.out != parser.get_default("out"))
    both = stage == 1 and args.stage is None
    aside = out.parent if both and resume is None else None  # of an earlier stage II: --resume would go on with that
    with ExitStack() as held:
        status, options = train(stage, out, resume, stage1=args.stage1, aside=aside, held=held if both else None)
    if status or not both or (out.parent / training.LAST).exists():
        return status
    return train(2, out.parent, stage1=out / "generator.safetensors", defaults=options)[0]


def where(args, is_elsewhere):
    """Return the stage to start with, the checkpoint to go on from or None, and the stage's folder."""
    stage, out = args.stage or 1, Path(args.out)
    if args.resume is None:
        return stage, None, folder_of(stage, out)
    path = out if args.resume is True else Path(args.resume)
    path = path / training.LAST if args.resume is True or path.is_dir() else path
    if args.resume is True and not path.is_file():
        path = out / FIRST / training.LAST  # it was stopped in stage I
    if path.is_file():
        stage = checkpoint.read_training(path)[0].options.get("stage")
        if stage not in GAMES:
            raise UserError(f"{path} is a run of another script")
        if args.stage not in (None, stage):
            raise UserError(f"--stage {args.stage} contradicts {path}, which is of stage {stage}: leave it out")
    in_a_run = path.parent.name == training.LAST.parent.name
    return stage, str(path), path.parent.parent if in_a_run and not is_elsewhere else folder_of(stage, out)


def folder_of(stage, out):
    return out / FIRST if stage == 1 else out


def train(stage, out, resume=None, stage1=None, defaults=None, aside=None, held=None):
    """Train a stage in the folder ``out``; return the exit status and the options that it had.

    stage1: the file of stage I's generator, for stage II. defaults: options that replace those of the parser. aside: a
    folder whose earlier run is moved away when this one begins. held: keeps the folder above ``out`` for stage II.
    """
    parser, seen = parser_of(stage), []
    parser.set_defaults(**defaults or {})

    def check(args):
        args.stage, args.out, args.resume = stage, str(out), resume
        seen.append(args)  # which a checkpoint and the data that are found complete

    def load(args):
        if held is not None and ranks.current().leads:  # the first of several processes writes
            held.enter_context(Lock(out.parent))
        loaded = load_data(args)
        if aside is not None:
            args.when_begun.append(lambda: set_aside(aside))
        return loaded

    if stage == 2 and resume is None:
        network = load_generator(stage1 or out / FIRST / "generator.safetensors")
        parser.game = StageTwo.after(stages_of(network)[0])
    status = recipes.run(parser, load, fixed=("data", "stage"), check=check, measure=measure)
    options = {name: value for name, value in vars(seen[0]).items() if name not in OF_ONE_STAGE}
    if stage == 2 and status == 0 and not options["dry_run"]:
        caption = (Path(out) / "captions.txt").read_text(encoding="utf-8").splitlines()[0]
        weights = Path(out) / "generator.safetensors"
        print(
            f"ask it: {cli.command('--generate', 16, '--caption', caption, '--checkpoint', weights, '--out', 'asked')}"
        )
    return status, options


if __name__ == "__main__":
    cli.run(main)
