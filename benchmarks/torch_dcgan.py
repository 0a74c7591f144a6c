"""pytorch/examples' DCGAN and training step, in torch: the rival of the benchmarks and the oracle of the tests."""

import torch
from torch import nn


class Network(nn.Module):
    """Layers in a row, under the name that pytorch/examples gives them."""

    def __init__(self, modules):
        super().__init__()
        self.main = nn.Sequential(*modules)

    def forward(self, x):
        return self.main(x)


def copy_of(network):
    """The torch network with the same layers, names and parameters as a nanogan DCGAN network (logits, no sigmoid)."""
    modules = []
    for layer in network.layers:
        name = type(layer).__name__
        if name in ("Conv2d", "ConvTranspose2d"):
            first, second, *kernel_size = layer.params["weight"].shape
            channels = (second, first) if name == "Conv2d" else (first, second)
            options = {key: layer.options[key] for key in ("stride", "padding")}
            modules.append(getattr(nn, name)(*channels, tuple(kernel_size), bias=False, **options))
        elif name == "BatchNorm2d":
            modules.append(nn.BatchNorm2d(len(layer.params["weight"])))
        elif name == "LeakyReLU":
            modules.append(nn.LeakyReLU(layer.options["negative_slope"]))
        else:
            modules.append({"ReLU": nn.ReLU, "Tanh": nn.Tanh, "Flatten": nn.Flatten}[name]())
    result = Network(modules)
    state = {name: torch.tensor(array.copy()) for name, array in network.state_dict().items()}
    dtype = state["main.0.weight"].dtype
    result.to(dtype).load_state_dict(state)
    return result


def step(g, d, opt_g, opt_d, real, z, *, freeze_d=False):
    """One step as pytorch/examples' main.py does it, with logits; returns the five numbers of its log line.

    ``freeze_d`` spares torch the weight gradients of D in G's step, which the script computes and throws away.
    """
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
    return [float(value.detach()) for value in (loss_real + loss_fake, loss_g, *probabilities)]
