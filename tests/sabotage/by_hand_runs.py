"""Mistakes in what surrounds a step: the game's draw, the loop, checkpoints."""

from tests.sabotage.mistake import mistake

RUNS = [
    mistake("draw: noise does not fall", "dcgan:DCGAN.draw", "max(0.0, 1 - at.done)", "1.0"),
    mistake("draw: the learning rate does not fall", "game:lr_factor", "options.lr_decay == 'linear'", "False"),
    mistake("draw: z is drawn once for all batches", "dcgan:DCGAN.draw",
            "[self.draw_z(rng, len(real)) for real in reals]",
            "[self.draw_z(rng, len(real)) for real in reals[:1]] * len(reals)"),
    mistake("step: the learning rate of the options, not of the step", "dcgan:DCGAN.step",
            "self.opt_g.lr, self.opt_d.lr = lr, d_lr", "pass"),
    mistake("step: D's extra batches are left out", "dcgan:DCGAN.step", "for real, z, noise in earlier:\n"
            "    discriminator_step(self.g, self.d, self.opt_d, real, z, noise=noise, **how)", "pass"),
    mistake("game: the raw generator is shown and saved", "dcgan:DCGAN.averaged_g",
            "self.g if self.ema is None else self.ema.average", "self.g"),
    mistake("loop: a step's random numbers do not depend on the step", "loop:train",
            "seeded_rng(seed, f'step {at.step}')", "seeded_rng(seed, 'step')"),
    mistake("loop: a step's random numbers do not depend on the seed", "loop:train",
            "seeded_rng(seed, f'step {at.step}')", "seeded_rng(0, f'step {at.step}')"),
    mistake("loop: Dropout goes on where it was", "loop:train", "game.reseed(seed, at.step)", "pass"),
    mistake("loop: a resumed run starts its epoch anew", "loop:Plan.steps",
            "min(done * self.batches, len(loader))", "0"),
    mistake("loop: an epoch's last, shorter group is left out", "loop:Plan.__init__",
            "self.steps_per_epoch = -(-len(loader) // batches)", "self.steps_per_epoch = len(loader) // batches"),
    mistake("run: what came after the checkpoint stays", "earlier:_cut_back", "step > resume.step", "False"),
    mistake("run: a run that went wrong is saved", "run:check_finite", "not finite.all()", "False"),
    mistake("checkpoint: the average starts its steps anew", "Ema.load_state_dict",
            "self.start_at(steps)", "self.start_at(0)"),
    mistake("checkpoint: the raw generator is opened", "networks:_of_a_run",
            "average or below(f'{kind[0]}.', state)", "below(f'{kind[0]}.', state)"),
    mistake("checkpoint: an older format's average is not found", "networks:_of_a_run",
            "below('ema.average.', state) or below('ema.', state)", "below('ema.average.', state)"),
    mistake("checkpoint: numbers of any size are taken", "runs:_wrong_number",
            "type(value) is int and low <= value <= MAX_COUNT", "type(value) is int"),
    mistake("game: another game's state is loaded as far as it goes", "game:Game.load_state_dict",
            "state.keys() != members.keys()", "False"),
]  # fmt: skip
