"""What a mistake is: a place in nanogan and what is changed there."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from tests.sabotage import trees


@dataclass(frozen=True)
class Mistake:
    """``change`` takes the tree of the function (or constant) called ``where`` and returns another; see trees.find."""

    title: str
    where: str
    change: Callable
    on_gpu: bool = False  # only a GPU, or its strict double, would show it
    about: str = ""  # tests with this word in their names are tried first

    @functools.cached_property
    def place(self):
        return trees.find(self.where)

    @functools.cached_property
    def node(self):
        """The tree with the mistake. Raises NotFound, by name, if what it changes is not there."""
        try:
            return self.change(self.place.node)
        except trees.NotFound as error:
            raise trees.NotFound(f"{self.title} ({self.where}): {error}") from None


def mistake(title, where, *texts, on_gpu=False):
    """A mistake by hand. texts: old code, new code, old, new, ...; each old stands in ``where`` exactly once."""

    def change(node):
        for old, new in zip(texts[::2], texts[1::2], strict=True):
            node = trees.changed(node, old, new)
        return node

    return Mistake(title, where, change, on_gpu)


def on_gpu(title, where, *texts):
    """A mistake that only a GPU would show, or its strict double."""
    return mistake(f"gpu: {title}", where, *texts, on_gpu=True)


READ = "(FOLDER / file).read_text(encoding='utf-8')"  # in nanogan/fast/gpu/sources.py
ABOUT = {
    "windows.cu": "conv",
    "losses.cu": "loss",
}  # a word in the names of tests of a file, if it is another than its name


def in_kernel(title, file, old, new):
    """A mistake in a CUDA file of nanogan/fast/gpu, in which ``old`` stands exactly once."""

    def change(node):
        count = (trees.ROOT / "nanogan" / "fast" / "gpu" / file).read_text(encoding="utf-8").count(old)
        if count != 1:
            raise trees.NotFound(f"{file} holds {old!r} {count} times instead of once")
        return trees.changed(node, READ, f"{READ}.replace({old!r}, {new!r})")

    return Mistake(
        f"gpu: {file}: {title}", "sources:kernel", change, on_gpu=True, about=ABOUT.get(file, file.removesuffix(".cu"))
    )
