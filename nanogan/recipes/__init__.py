"""From a command line to a trained GAN: what the example scripts share. A script names its game and loads its images:

    def load_data(args):
        return "my images", images  # a name to print; uint8 (N, image_size, image_size, C), or {"images": ..., ...}

    def main():
        parser = recipes.parser("Train a DCGAN on my images.", game=DCGAN, out="runs/mine")
        parser.add_argument("--data-dir", ...)
        return recipes.run(parser, load_data)

    cli.run(main)

``parser`` takes other defaults of the game's options by name (``image_size=28``); ``run`` takes ``load``, which opens
the network for ``--generate`` (a DCGAN's ``g`` if not given), names of options that a resumed run may not change
(``fixed``), a ``check`` of the arguments, and ``measure``, for what is measured after each epoch. A game's options are
flags (see :class:`nanogan.games.game.Options`). A script's own arguments are options with a default, or stand by
position and may be left out (nargs="?"): a resumed run takes them from its checkpoint. ``add_data`` and ``load_data``
load a set by its name (MNIST, or built-in digits where there is none), ``add_judge``, ``can_judge`` and ``judge`` a
classifier that judges samples; ``measure_samples`` is the ``measure`` of a game that is asked for nothing, and
``measure_classes`` of one that is asked for a class.
"""

from nanogan.recipes.datasets import DATA_FIXED, add_data, load_data, load_split, load_test
from nanogan.recipes.flags import NO_OPTIONS, images_needed, parser, progress_bar
from nanogan.recipes.generate import generate
from nanogan.recipes.judging import add_judge, can_judge, judge
from nanogan.recipes.quality import measure_classes, measure_samples
from nanogan.recipes.train import run, train
from nanogan.recipes.translation import run_translation

pictures_needed = images_needed  # its name in earlier versions

__all__ = [
    "DATA_FIXED",
    "NO_OPTIONS",
    "add_data",
    "add_judge",
    "can_judge",
    "generate",
    "images_needed",
    "judge",
    "load_data",
    "load_split",
    "load_test",
    "measure_classes",
    "measure_samples",
    "parser",
    "pictures_needed",
    "progress_bar",
    "run",
    "run_translation",
    "train",
]
