"""Building blocks of the transforms: 1x1 convolutions, residual blocks, quality-indexed vectors, DCT and Haar starts.

Everything works at 1/8 resolution and below with 1x1 and depthwise 3x3 convolutions (the DCVC-RT family, Jia et al.,
CVPR 2025), so that a CPU spends its time in matrix products.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 201  # quality levels of the format: level = 2 * quality
ANCHOR_STEP = 25  # one learned vector every 25 levels, straight lines between
ANCHORS = (LEVELS - 1) // ANCHOR_STEP + 1


def round_ste(x: Tensor) -> Tensor:
    """floor(x + 0.5) with the gradient of the identity (straight-through estimator)."""
    return x + (torch.floor(x + 0.5) - x).detach()


class Pointwise(nn.Module):
    """1x1 convolution (B, C_in, H, W) -> (B, C_out, H, W) whose weight is kept as a matrix (C_out, C_in)."""

    def __init__(self, c_in: int, c_out: int, zero: bool = False):
        super().__init__()
        bound = 0.0 if zero else 1 / math.sqrt(c_in)
        self.weight = nn.Parameter(torch.empty(c_out, c_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight[:, :, None, None], self.bias)


class Down(nn.Module):
    """Non-overlapping k x k convolution with stride k: (B, C_in, k*H, k*W) -> (B, C_out, H, W).

    The weight is a matrix (C_out, C_in*k*k), columns ordered as `pixel_unshuffle` orders channels.
    """

    def __init__(self, c_in: int, c_out: int, k: int, zero: bool = False):
        super().__init__()
        bound = 0.0 if zero else 1 / math.sqrt(c_in * k * k)
        self.c_in, self.k = c_in, k
        self.weight = nn.Parameter(torch.empty(c_out, c_in * k * k).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(c_out))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.view(-1, self.c_in, self.k, self.k)
        return F.conv2d(x, weight, self.bias, stride=self.k)


class Up(nn.Module):
    """Sub-pixel up-sampling by k, the mirror of `Down`: (B, C_in, H, W) -> (B, C_out, k*H, k*W)."""

    def __init__(self, c_in: int, c_out: int, k: int):
        super().__init__()
        self.k = k
        self.pointwise = Pointwise(c_in, c_out * k * k)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.pointwise(x), self.k)


class Depthwise(nn.Module):
    """Depthwise 3x3 convolution, zero padding, started as the identity plus a little noise."""

    def __init__(self, c: int):
        super().__init__()
        weight = 0.1 * torch.randn(c, 1, 3, 3) / 3
        weight[:, :, 1, 1] += 1
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(c))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=1, groups=x.shape[1])


class Block(nn.Module):
    """x + W2 relu(W1 dw3x3(x)): depthwise mixing, then a two-layer perceptron; W2 starts at zero."""

    def __init__(self, c: int, hidden: int = 0):
        """`hidden` units, 2c by default."""
        super().__init__()
        self.depthwise = Depthwise(c)
        self.expand = Pointwise(c, hidden or 2 * c)
        self.project = Pointwise(hidden or 2 * c, c, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(F.relu(self.expand(self.depthwise(x))))


def blocks(c: int, n: int, hidden: int = 0) -> nn.Sequential:
    return nn.Sequential(*(Block(c, hidden) for _ in range(n)))


class LevelVector(nn.Module):
    """A channel vector for every quality level, linear between learned anchors.

    Args:
        start: (ANCHORS, C) initial values.
    """

    def __init__(self, start: Tensor):
        super().__init__()
        self.anchors = nn.Parameter(start.clone())

    def forward(self, level: Tensor) -> Tensor:
        """level: (B,) integers in [0, LEVELS) -> (B, C, 1, 1)."""
        position = level.float() / ANCHOR_STEP
        low = position.floor().clamp(max=ANCHORS - 2).long()
        mix = (position - low)[:, None]
        vector = self.anchors[low] * (1 - mix) + self.anchors[low + 1] * mix
        return vector[:, :, None, None]


def dct_matrix(n: int) -> Tensor:
    """Orthonormal DCT-II basis (n, n), a row a frequency."""
    k, i = torch.arange(n)[:, None], torch.arange(n)[None, :]
    basis = torch.cos(math.pi * (2 * i + 1) * k / (2 * n)) * math.sqrt(2 / n)
    basis[0] /= math.sqrt(2)
    return basis


def colour_dct(channels: int, n: int = 8) -> Tensor:
    """First `channels` of the colour-decorrelated 8x8 DCT, an orthonormal matrix (channels, 3*n*n).

    Luma gets every frequency, the two chroma planes share what is left, low frequencies first.
    """
    colour = torch.tensor([[1, 1, 1], [1, 0, -1], [-1, 2, -1]], dtype=torch.float32)
    colour = colour / colour.norm(dim=1, keepdim=True)
    dct = dct_matrix(n)
    basis = torch.einsum("pc,ui,vj->puvcij", colour, dct, dct).reshape(3, n * n, 3 * n * n)
    order = sorted(range(n * n), key=lambda f: (f // n + f % n, f))
    chroma = (channels - n * n) // 2
    rows = [basis[0, f] for f in order] + [basis[p, f] for f in order[:chroma] for p in (1, 2)]
    return torch.stack(rows)


def haar(channels: int) -> Tensor:
    """Orthonormal 2x2 Haar transform of every channel, (4*channels, channels*4), the band the slower index of rows."""
    h = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float32) / 2
    return torch.einsum("bk,cd->bcdk", h, torch.eye(channels)).reshape(4 * channels, 4 * channels)
