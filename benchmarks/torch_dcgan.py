"""pytorch/examples' DCGAN and training step, in torch: the rival of the benchmarks and the oracle of the tests.

Written from pytorch/examples' dcgan/main.py, not from nanogan's networks, so that a wrong slope, stride or padding
there does not stand here too. The discriminator gives logits; sizes other than 64 double 4 to 7 pixels as often as they
need.
"""

import torch
from torch import nn


class Network(nn.Module):
    """Layers in a row, under the name that pytorch/examples gives them."""

    def __init__(self, modules):
        super().__init__()
        self.main = nn.Sequential(*modules)

    def forward(self, x):
        return self.main(x)


def generator(*, image_size, channels, latent, width):
    """netG: z (N, latent, 1, 1) -> images."""
    start, maps = _maps(image_size, width)
    modules = [nn.ConvTranspose2d(latent, maps[-1], start, 1, 0, bias=False)]
    for i in reversed(range(len(maps))):
        modules += [nn.BatchNorm2d(maps[i]), nn.ReLU(True)]
        modules += [nn.ConvTranspose2d(maps[i], maps[i - 1] if i else channels, 4, 2, 1, bias=False)]
    return Network([*modules, nn.Tanh()])


def discriminator(*, image_size, channels, width):
    """netD without its sigmoid: images -> logits (N, 1)."""
    start, maps = _maps(image_size, width)
    modules = [nn.Conv2d(channels, maps[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for i in range(1, len(maps)):
        modules += [nn.Conv2d(maps[i - 1], maps[i], 4, 2, 1, bias=False)]
        modules += [nn.BatchNorm2d(maps[i]), nn.LeakyReLU(0.2, inplace=True)]
    return Network([*modules, nn.Conv2d(maps[-1], 1, start, 1, 0, bias=False), nn.Flatten()])


def _maps(image_size, width):
    """The smallest map's size, and the widths from the largest map to the smallest: 64 -> 4, [w, 2w, 4w, 8w]."""
    start, doublings = {8: (4, 1), 16: (4, 2), 28: (7, 2), 32: (4, 3), 64: (4, 4), 128: (4, 5)}[image_size]
    return start, [width * 2**i for i in range(doublings)]


def copy_of(network):
    """The torch network of a nanogan DCGAN network's size, with its parameters and buffers."""
    options = {key: getattr(network, key) for key in ("image_size", "channels", "width")}
    is_generator = hasattr(network, "latent")
    result = generator(latent=network.latent, **options) if is_generator else discriminator(**options)
    state = {name: torch.tensor(array.copy()) for name, array in network.state_dict().items()}
    result.to(state["main.0.weight"].dtype).load_state_dict(state)
    return result


def step(g, d, opt_g, opt_d, real, z, *, freeze_d=False):
    """One step as pytorch/examples' main.py does it, with logits; returns the five numbers of its log line.

    ``freeze_d`` spares torch the weight gradients of D in G's step, which the script computes and throws away.
    """
    results = queued_step(g, d, opt_g, opt_d, real, z, freeze_d=freeze_d)
    return [float(value) for value in results]


def queued_step(g, d, opt_g, opt_d, real, z, *, freeze_d=False):
    """:func:`step` without waiting for its numbers: they are tensors on the networks' device."""
    loss = nn.BCEWithLogitsLoss()
    opt_d.zero_grad()
    real_logits = d(real)
    loss_real = loss(real_logits, torch.ones_like(real_logits))
    loss_real.backward()
    fake = g(z.reshape(len(z), -1, 1, 1))
    fake_logits = d(fake.detach())
    loss_fake = loss(fake_logits, torch.zeros_like(fake_logits))
    loss_fake.backward()
    opt_d.step()

    d.requires_grad_(not freeze_d)
    opt_g.zero_grad()
    new_logits = d(fake)
    loss_g = loss(new_logits, torch.ones_like(new_logits))
    loss_g.backward()
    opt_g.step()
    d.requires_grad_(True)
    probabilities = [torch.sigmoid(logits).mean() for logits in (real_logits, fake_logits, new_logits)]
    return [value.detach() for value in (loss_real + loss_fake, loss_g, *probabilities)]


def set_products(precision):
    """Let torch make products from TF32 factors if ``precision`` is "tf32", and cuDNN choose by trial."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True


class Autocast(nn.Module):
    """A network whose forward computes in 16 bits where torch deems it safe; what it returns is float32."""

    def __init__(self, network, dtype):
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, x):
        with torch.autocast(
            x.device.type, dtype=self.dtype
        ):  # left at once: it keeps casts of weights that will change
            y = self.network(x)
        return y.float()
