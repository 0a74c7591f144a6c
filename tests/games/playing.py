"""Games for tests of the loop: a tiny DCGAN, and one whose steps are only recorded."""

import numpy as np

from nanogan.games.dcgan import DCGAN, DCGANOptions, StepResult

TINY = {"image_size": 8, "latent": 3, "width": 2}


def dcgan_of(loader, *, seed=0, device="cpu", **options):
    """A DCGAN of 8 x 8 pixels for a loader."""
    return DCGAN(DCGANOptions(**TINY | options), loader.shapes, device, seed)


class Recorded(DCGAN):
    """Notes the inputs of each step in ``seen``, and returns ``result(number of the step)``."""

    def __init__(self, *arguments, result, **options):
        super().__init__(*arguments, **options)
        self.seen, self.result = [], result

    def step(self, **inputs) -> StepResult:
        self.seen.append(inputs)
        return self.result(len(self.seen))


def recorded(loader, result=lambda step: StepResult(*np.float32([1, 2, 0.5, 0.5, 0.5])), **options):
    return Recorded(DCGANOptions(**TINY | options), loader.shapes, result=result)
