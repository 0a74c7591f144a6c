"""StackGAN's networks as torch modules, written from H. Zhang et al., arXiv:1612.03242; names are nanogan's."""

import torch
from torch import nn


class Text(nn.Module):
    def __init__(self, kind, words, size):
        super().__init__()
        self.embedding = nn.Embedding(words, size)
        if kind == "gru":
            self.gru = nn.GRU(size, size, batch_first=True)

    def forward(self, captions):
        vectors, lengths = self.embedding(captions), (captions != 0).sum(dim=1)  # (N, T, E)
        if hasattr(self, "gru"):
            packed = nn.utils.rnn.pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
            return self.gru(packed)[1][0]
        kept = (captions != 0).to(vectors.dtype)[:, :, None]
        return (vectors * kept).sum(dim=1) / lengths[:, None]


class Conditioned(nn.Module):
    def __init__(self, text, words, size, condition):
        super().__init__()
        self.text, self.moments, self.condition = Text(text, words, size), nn.Linear(size, 2 * condition), condition

    def read(self, captions, noise):
        mu, s = self.moments(self.text(captions)).split(self.condition, dim=1)
        own = torch.distributions.Normal(mu, s.exp())
        kl = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).mean()
        return mu + s.exp() * noise, kl


def doubled(wide, narrow):
    return nn.Upsample(scale_factor=2), conv3(wide, narrow), nn.BatchNorm2d(narrow), nn.ReLU()


def conv3(wide, narrow):
    return nn.Conv2d(wide, narrow, 3, padding=1, bias=False)


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def residual(width):
    layers = (conv3(width, width), nn.BatchNorm2d(width), nn.ReLU(), conv3(width, width), nn.BatchNorm2d(width))
    return Residual(*layers), nn.ReLU()


class First(Conditioned):
    def __init__(self, size, channels, latent, width, text, words, text_size, condition):
        super().__init__(text, words, text_size, condition)
        assert size == 8
        self.paint = nn.Sequential(
            nn.Linear(condition + latent, 2 * width * 16, bias=False), nn.Unflatten(1, (2 * width, 4, 4)),
            nn.BatchNorm2d(2 * width), nn.ReLU(), *doubled(2 * width, width), conv3(width, channels), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z, captions, noise):
        c, kl = self.read(captions, noise)
        return self.paint(torch.cat([c, z], dim=1)), kl


class Second(Conditioned):
    def __init__(self, channels, width, text, words, text_size, condition):
        super().__init__(text, words, text_size, condition)
        self.look = nn.Sequential(
            conv3(channels, width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        )  # fmt: skip
        self.paint = nn.Sequential(
            conv3(2 * width + condition, 2 * width), nn.BatchNorm2d(2 * width), nn.ReLU(),
            *residual(2 * width), *residual(2 * width), *doubled(2 * width, width), *doubled(width, width),
            conv3(width, channels), nn.Tanh(),
        )  # fmt: skip

    def forward(self, image, captions, noise):
        c, kl = self.read(captions, noise)
        return self.paint(appended(self.look(image), c)), kl


def appended(maps, vector):
    return torch.cat([maps, vector[:, :, None, None].expand(-1, -1, *maps.shape[2:])], dim=1)


class D(nn.Module):
    def __init__(self, size, channels, width, text, words, text_size, compare):
        super().__init__()
        look = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        while size // 2 > 4:
            look += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2)]
            size, width = size // 2, 2 * width
        self.look, self.text = nn.Sequential(*look), Text(text, words, text_size)
        self.project = nn.Sequential(nn.Linear(text_size, text_size), nn.LeakyReLU(0.2))
        if compare == "projection":
            self.features = nn.Sequential(nn.Flatten(), nn.Linear(width * 16, text_size))
            self.judge = nn.Sequential(nn.Conv2d(width, 1, 4), nn.Flatten())
        else:
            self.judge = nn.Sequential(
                nn.Conv2d(width + text_size, width, 1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.2),
                nn.Conv2d(width, 1, 4, bias=False), nn.Flatten(),
            )  # fmt: skip

    def forward(self, images, captions):
        return self.match(self.look(images), captions)

    def match(self, maps, captions):
        text = self.project(self.text(captions))
        if hasattr(self, "features"):
            return self.judge(maps) + (self.features(maps) * text).sum(dim=1, keepdim=True)
        return self.judge(appended(maps, text))
