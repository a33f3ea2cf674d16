"""A patch discriminator: which parts of a picture look decoded.

PatchGAN (Isola et al., CVPR 2017) with the hinge loss, as VQGAN uses it (Esser et al., CVPR 2021). Group normalisation
stands in the place of batch normalisation: batches are small, and the averaged model needs no statistics.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Discriminator(nn.Sequential):
    """x (B, 3, H, W) in [0, 1] -> scores (B, 1, H/8 - 2, W/8 - 2), positive where it takes x for a photograph."""

    def __init__(self, width: int = 64):
        widths = (width, 2 * width, 4 * width)
        layers = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for before, after, stride in zip(widths, (*widths[1:], 8 * width), (2, 2, 1), strict=True):
            layers += [nn.Conv2d(before, after, 4, stride, 1, bias=False), nn.GroupNorm(8, after), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x - 1)


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """What the discriminator minimises, of its scores of photographs and of decoded pictures."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
