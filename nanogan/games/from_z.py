"""What games share whose G is given z and nothing else: the same 64 z for all sample grids, and ``--generate``."""

from nanogan.games.drawing import draw_z, sample
from nanogan.games.game import Game

SHOWN = 64  # samples in a grid


class FromZ(Game):
    """A base without a step: its options have ``latent``, and perhaps ``z``, what z is drawn from."""

    def draw_z(self, rng, count):
        """Return z (count, latent) on the game's device."""
        return draw_z(rng, count, self.options.latent, _kind(self.options), self.device, self.dtype)

    @property
    def shown_g(self):
        """The generator whose samples are shown."""
        return self.g

    def fixed(self, batches, rng):
        return self.draw_z(rng, SHOWN)

    def sample(self, z):
        return sample(self.shown_g, z)

    @classmethod
    def generate(cls, network, count, options, rng, device):
        return sample(network, draw_z(rng, count, network.latent, _kind(options), device))


def _kind(options):
    return getattr(options, "z", "normal")
