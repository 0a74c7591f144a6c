"""Mistakes in what surrounds training: the loop, checkpoints, recipes."""

from tests.sabotage.mistake import mistake

RUNS = [
    mistake("loop: noise does not fall", "loop:train", "max(0.0, 1 - progress.step / planned)", "1.0"),
    mistake("loop: the learning rates do not fall", "loop:train",
            "[LinearDecay(optimizer, total=total) for optimizer, total in totals if lr_decay == 'linear']",
            "[LinearDecay(optimizer, total=total) for optimizer, total in totals if False]"),
    mistake("loop: D's learning rate falls with G's steps", "loop:train", "epochs * len(loader)", "planned"),
    mistake("loop: D's extra batches are left out", "loop:train", "earlier", "earlier[:0]"),
    mistake("loop: the raw generator is saved", "loop:train", "g if ema is None else ema.average", "g"),
    mistake("checkpoint: the average starts its steps anew", "load_training", "ema.steps = rest['ema_steps']",
            "ema.steps = 0"),
    mistake("checkpoint: the raw generator draws", "_load", "average or _below(f'{kind[0]}.', state)",
            "_below(f'{kind[0]}.', state)"),
]  # fmt: skip
