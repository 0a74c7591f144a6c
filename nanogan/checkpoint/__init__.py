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
    copy_state,
    generator_loader,
    load,
    load_conditional,
    load_discriminator,
    load_generator,
    load_translator,
    save,
)
from nanogan.checkpoint.recognition import described
from nanogan.checkpoint.runs import Progress, as_json, checked_state, load_training, read_training, save_training
from nanogan.checkpoint.safetensors_files import KEY, check_is_file, read

__all__ = [
    "KEY",
    "Progress",
    "as_json",
    "check_is_file",
    "checked_state",
    "copy_state",
    "described",
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
