"""Networks and runs in files: safetensors, which torch opens too and which execute nothing.

    checkpoint.save("generator.safetensors", g)
    g = checkpoint.load_generator("generator.safetensors")
    d = checkpoint.load_discriminator("discriminator.safetensors")

In torch: ``netG.load_state_dict(safetensors.torch.load_file("generator.safetensors"))``.

A training checkpoint is one such file with all that a run's future depends on:

    checkpoint.save_training("last.safetensors", game, progress)
    progress = checkpoint.load_training("last.safetensors", game)
"""

from nanogan.checkpoint.networks import (
    generator_loader,
    load,
    load_conditional,
    load_discriminator,
    load_generator,
    load_translator,
    save,
)
from nanogan.checkpoint.runs import Progress, load_training, read_training, save_training
from nanogan.checkpoint.safetensors_files import KEY, read

__all__ = [
    "KEY",
    "Progress",
    "generator_loader",
    "load",
    "load_conditional",
    "load_discriminator",
    "load_generator",
    "load_training",
    "load_translator",
    "read",
    "read_training",
    "save",
    "save_training",
]
