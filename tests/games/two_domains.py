"""For the tests of games of two domains: the weights of a network of ours in a torch module."""

import torch


def load_into(module, network):
    """Copy weights and biases; in both they stand in the network's order, whatever their names."""
    ours = [parameter for _, parameter, _ in network.named_parameters()]
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), ours, strict=True):
            parameter.copy_(torch.tensor(array))
