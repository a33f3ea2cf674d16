"""Integer layers carried in float32: the part of an entropy model that chooses probability tables.

Every value is an integer and every sum stays below 2**24, so float32 arithmetic is exact in any order, on any machine
(the alternative to integer kernels of Balle et al., "Integer networks for data compression", ICLR 2019). Training sees
the same rounded weights and activations as the decoder, with straight-through gradients.

Units: an activation a stands for a / 16, a weight w for w / 64.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixa.models.nets.layers import LevelVector, round_ste

ACT_BITS, ACT_MAX = 4, 255
WEIGHT_BITS, WEIGHT_MAX = 6, 127
EXACT_LIMIT = 2**24


class Exact(nn.Module):
    """Base of the exact layers: integer weight and bias, power-of-two rescale, clip.

    Args:
        shape: shape of the weight, (C_out, C_in) for 1x1 or (C, 1, 3, 3) for depthwise 3x3.
        in_bits: fraction bits of the input integers.
        low, high: range of the output integers.
    """

    def __init__(self, shape, in_bits: int = ACT_BITS, low: int = 0, high: int = ACT_MAX):
        super().__init__()
        self.shift, self.low, self.high = WEIGHT_BITS + in_bits - ACT_BITS, low, high
        self.bias_unit = 2 ** (WEIGHT_BITS + in_bits)
        fan_in = math.prod(shape[1:])
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-1.5, 1.5) / math.sqrt(fan_in))
        self.bias = nn.Parameter(torch.zeros(shape[0]))

    def integers(self) -> tuple[Tensor, Tensor]:
        """Integer weight and bias as the decoder uses them."""
        weight = round_ste(self.weight * 2**WEIGHT_BITS).clamp(-WEIGHT_MAX, WEIGHT_MAX)
        return weight, round_ste(self.bias * self.bias_unit)

    def bound(self, input_max: int) -> int:
        """Largest magnitude any partial sum can reach for inputs within +-input_max."""
        weight, bias = self.integers()
        return int((weight.abs().flatten(1).sum(1) * input_max + bias.abs()).max())

    def rescale(self, total: Tensor) -> Tensor:
        """total / 2**shift, rounded half up, clipped to the output range."""
        return round_ste(total * 2.0**-self.shift).clamp(self.low, self.high)


class ExactPointwise(Exact):
    """1x1 convolution (B, C_in, H, W) -> (B, C_out, H, W) on integers; `extra` (B, C_out, 1, 1) joins the sum."""

    def __init__(self, c_in: int, c_out: int, **kwargs):
        super().__init__((c_out, c_in), **kwargs)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        weight, bias = self.integers()
        total = F.conv2d(x, weight[:, :, None, None], bias)
        return self.rescale(total if extra is None else total + extra)


class ExactDepthwise(Exact):
    """Depthwise 3x3 convolution on integers, zero padding, started as the identity."""

    def __init__(self, c: int, **kwargs):
        super().__init__((c, 1, 3, 3), **kwargs)
        with torch.no_grad():
            self.weight.mul_(0.2)
            self.weight[:, :, 1, 1] += 1

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.integers()
        return self.rescale(F.conv2d(x, weight, bias, padding=1, groups=x.shape[1]))


class LevelInteger(LevelVector):
    """A `LevelVector` in units of 1/unit, rounded to integers and clipped to [low, high]."""

    def __init__(self, start: Tensor, unit: int, low: int, high: int):
        super().__init__(start)
        self.unit, self.low, self.high = unit, low, high

    def forward(self, level: Tensor) -> Tensor:
        return round_ste(super().forward(level) * self.unit).clamp(self.low, self.high)
