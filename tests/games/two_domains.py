"""For the tests of games of two domains."""

import torch


def load_into(module, network):
    """Copy weights and biases into a torch module; in both they stand in the network's order, whatever their names."""
    ours = [parameter for _, parameter, _ in network.named_parameters()]
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), ours, strict=True):
            parameter.copy_(torch.tensor(array))


def gradients_for(game, inputs, factors):
    """{parameter: its gradient over the factor} of a step that changes nothing, each optimiser with its ``dloss``."""
    optimizers = game.optimizers()
    for optimizer, factor in zip(optimizers.values(), factors, strict=True):
        optimizer.dloss, optimizer.step = factor, lambda: None
    game.step(**inputs)
    return {
        f"{name}: {key}": gradient / optimizer.dloss
        for name, optimizer in optimizers.items()
        for key, _, gradient in optimizer.network.named_parameters()
    }
