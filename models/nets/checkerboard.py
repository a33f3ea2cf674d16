"""The first image model, fast.1: a hyperprior with an exact scale model and a spatial prior of two passes.

Pass A codes channels 0..127 where row + column is even and 128..255 where it is odd; pass B the rest. The table indexes
of B also see the magnitudes of A's symbols, its means see the latents that A rebuilt. The arrangement follows the
checkerboard (He et al., CVPR 2021) and the channel halves on opposite parities of DCVC-RT (Jia et al., CVPR 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixa.models.nets.backbone import CONTEXT_MAX, Backbone, BackboneConfig, Coded
from pixa.models.nets.exact import ACT_BITS, ExactDepthwise, ExactPointwise, LevelInteger
from pixa.models.nets.layers import ANCHORS, Block, Pointwise, blocks, round_ste
from pixa.models.nets.rates import SCALES


def pass_mask(height: int, width: int, channels: int, device=None) -> Tensor:
    """(1, channels, height, width) booleans, true for the symbols of pass A."""
    parity = (torch.arange(height, device=device)[:, None] + torch.arange(width, device=device)[None, :]) % 2
    first = torch.arange(channels, device=device)[:, None, None] < channels // 2
    return ((parity == 0) == first)[None]


class ScaleA(nn.Module):
    """Exact table indexes of pass A from the features: (B, F, H, W) -> (B, M, H, W) in [0, 63]."""

    def __init__(self, f: int, hidden: int, m: int):
        super().__init__()
        self.hidden = ExactPointwise(f, hidden)
        self.index = ExactPointwise(hidden, m, high=SCALES - 1)

    def forward(self, features: Tensor, bias: Tensor) -> Tensor:
        return self.index(self.hidden(features), bias)


class ScaleB(nn.Module):
    """Exact table indexes of pass B from the features and min(|symbols of A|, 15)."""

    def __init__(self, f: int, hidden: int, m: int):
        super().__init__()
        self.context = ExactDepthwise(m, in_bits=0)
        self.hidden = ExactPointwise(f + m, hidden)
        self.index = ExactPointwise(hidden, m, high=SCALES - 1)

    def forward(self, features: Tensor, magnitude: Tensor, bias: Tensor) -> Tensor:
        joint = torch.cat([features, self.context(magnitude)], 1)
        return self.index(self.hidden(joint), bias)


class MeanA(nn.Module):
    """Float means of pass A: features -> (state (B, K, H, W), means (B, M, H, W))."""

    def __init__(self, f: int, k: int, m: int):
        super().__init__()
        self.enter = Pointwise(f, k)
        self.block = Block(k)
        self.mean = Pointwise(k, m, zero=True)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        state = self.block(self.enter(features * 2.0**-ACT_BITS))
        return state, self.mean(state)


class MeanB(nn.Module):
    """Float means of pass B from the state of A and the latents that A rebuilt (zero elsewhere)."""

    def __init__(self, k: int, m: int):
        super().__init__()
        self.enter = Pointwise(m, k)
        self.blocks = blocks(k, 2)
        self.mean = Pointwise(k, m, zero=True)

    def forward(self, state: Tensor, y_hat_a: Tensor) -> Tensor:
        return self.mean(self.blocks(state + self.enter(y_hat_a)))


@dataclass(frozen=True)
class CheckerboardConfig(BackboneConfig):
    """Widths of the model."""


class Checkerboard(Backbone):
    """The image model; see the module."""

    def __init__(self, config: CheckerboardConfig = CheckerboardConfig(), mixed: bool = False):
        super().__init__(config, mixed)
        m, f = config.m, config.f
        self.scale_a = ScaleA(f, config.hidden, m)
        self.scale_b = ScaleB(f, config.hidden, m)
        self.mean_a = MeanA(f, config.k, m)
        self.mean_b = MeanB(config.k, m)
        self.index_bias_a = LevelInteger(torch.zeros(ANCHORS, m), 2**10, -(2**16), 2**16)
        self.index_bias_b = LevelInteger(torch.zeros(ANCHORS, m), 2**10, -(2**16), 2**16)

    def start_scales(self, index: Tensor) -> None:
        for scale, bias in ((self.scale_a, self.index_bias_a), (self.scale_b, self.index_bias_b)):
            scale.index.weight.mul_(0.1)
            bias.anchors.copy_(index / 16)

    def code(self, y: Tensor, z: Tensor, level: Tensor, quantise: Callable[[Tensor], Tensor] = round_ste) -> Coded:
        z_symbols, z_index, features = self.hyper_features(z, level, quantise, y.shape[2:])
        gain, step = self.log_gain(level).exp(), self.log_step(level).exp()
        in_a = pass_mask(y.shape[2], y.shape[3], y.shape[1], y.device)
        index_a = self.scale_a(features, self.index_bias_a(level))
        state, mean_a = self.mean_a(features)
        symbols_a = quantise((y - mean_a) * gain) * (in_a & (index_a > 0))
        y_hat_a = (symbols_a * step + mean_a) * in_a
        magnitude = round_ste(symbols_a.detach().abs()).clamp(max=CONTEXT_MAX)
        index = torch.where(in_a, index_a, self.scale_b(features, magnitude, self.index_bias_b(level)))
        mean = torch.where(in_a, mean_a, self.mean_b(state, y_hat_a))

        residual = (y - mean) * gain
        symbols = torch.where(in_a, symbols_a, quantise(residual) * (index > 0))
        return Coded(symbols, residual, index, z_symbols, z_index, symbols * step + mean)
