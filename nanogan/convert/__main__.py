"""``python -m nanogan.convert IN OUT``: networks from PyTorch's files to nanogan's safetensors, and back.

    python -m nanogan.convert netG_epoch_24.pth netG.safetensors
    python -m nanogan.convert runs/64/generator.safetensors netG.pth

IN's content says what it is, OUT's ending what is written. A file of torch's is read by
``torch.load(weights_only=True)`` alone, which executes nothing of it, and may hold a state dict or a checkpoint with
one in it. A training checkpoint of nanogan's gives the network that ``--key`` names, as ``--key g`` its generator.
Files of torch's need torch, as nothing else in nanogan does: ``pip install "nanogan[torch]"``.
"""

import argparse

from nanogan import cli
from nanogan.convert.torch_files import convert
from nanogan.text import quoted


def _renaming(text):
    old, equals, new = text.partition("=")
    if not (old.rstrip(".") and equals and new.rstrip(".")):
        raise argparse.ArgumentTypeError(f"expected OLD=NEW, got {text!r}")
    return old, new


def main():
    parser = argparse.ArgumentParser(
        prog="python -m nanogan.convert",
        description="Convert networks from PyTorch's .pth to safetensors, or back. Nothing in a file is executed.",
        allow_abbrev=False,
    )
    parser.add_argument("source", type=cli.path, metavar="IN", help="a .safetensors file, or torch's (.pth, .pt, ...)")
    parser.add_argument("target", type=cli.path, metavar="OUT", help="ends in .safetensors, .pth or .pt")
    parser.add_argument("--key", help="name of the state dict in a checkpoint, as model, models.netG or g")
    parser.add_argument(
        "--rename", metavar="OLD=NEW", type=_renaming, action="append", default=[],
        help="rename a layer or an array; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--drop", metavar="NAME", action="append", default=[],
        help="leave out a layer or an array on which the output does not depend; may be repeated",
    )  # fmt: skip
    args = parser.parse_args()
    for note in convert(args.source, args.target, key=args.key, renames=dict(args.rename), drop=args.drop):
        print(quoted(note))
    return 0


if __name__ == "__main__":
    cli.run(main, alone=True)
