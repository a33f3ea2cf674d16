"""`fast`: everything at 1/8 and 1/16 resolution, an exact scale model and float means, one model for all qualities.

             x (3, H, W)                                                x_hat
                |                                                         ^
       g_a: 8x8 DCT-like, blocks, 2x2 Haar-like, block       g_s: blocks, up 2, blocks, up 8
                |                                                         ^
             y (256, H/16, W/16) --- (y - mean) * gain -> symbols -> symbols * step + mean = y_hat
                |                                            ^
       h_a -> z (128, H/64, W/64) -> h_s (exact) -> features +-- scale_a, scale_b (exact): table indexes
                                                             +-- mean_a,  mean_b  (float)

Two passes. Pass A codes channels 0..127 where row + column is even and 128..255 where it is odd; pass B the rest. The
table indexes of B also see the magnitudes of A's symbols, its means see the latents that A rebuilt. The arrangement
follows the checkerboard (He et al., CVPR 2021) and the channel halves on opposite parities of DCVC-RT (Jia et al., CVPR
2025); no float ever chooses a table. `gain`, `step` and the biases depend on the quality level (gain units, Cui et al.,
CVPR 2021; per-level vectors, DCVC-FM, Li et al., CVPR 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixa.bitstream.tables import Tables, gaussian_tables
from pixa.models.compressai_base import CompressionModel
from pixa.models.exact import ACT_BITS, ACT_MAX, ExactDepthwise, ExactPointwise, LevelInteger
from pixa.models.layers import (
    ANCHOR_STEP,
    ANCHORS,
    Block,
    Down,
    LevelVector,
    Pointwise,
    Up,
    blocks,
    colour_dct,
    haar,
    round_ste,
)

SCALE_MIN, SCALE_RATIO, SCALES = 0.11, 1000.0, 64  # standard deviation of table i: 0.11 * 1000**(i/63)
INDEX_UNIT = math.log(SCALE_RATIO) / (SCALES - 1)
Z_MAX, CONTEXT_MAX = 127, 15
LAMBDA_MIN, LAMBDA_RATIO = 0.0008, 400.0
FLOAT32 = nullcontext()


def rd_lambda(level: Tensor) -> Tensor:
    """Weight of 255**2 * MSE against bits per pixel at a quality level: 0.0008 at 0, 0.32 at 200."""
    return LAMBDA_MIN * LAMBDA_RATIO ** (level / ((ANCHORS - 1) * ANCHOR_STEP))


def z_table(index: Tensor) -> Tensor:
    """Tables of hyper-latents: 64..126 for the scales 1..63, and 0 for none."""
    return torch.where(index > 0, index + SCALES - 1, index)


def start_tables() -> Tables:
    """Gaussians: tables 1..63 for latents and, of the same scales, 64..126 for hyper-latents."""
    scales = SCALE_MIN * SCALE_RATIO ** (np.arange(SCALES) / (SCALES - 1))
    return gaussian_tables(np.concatenate([scales, scales[1:]]))


def gaussian_bits(value: Tensor, index: Tensor) -> Tensor:
    """Bits of integers (or noisy integers) under the zero-mean Gaussian of table `index`, element-wise."""
    scale = SCALE_MIN * torch.exp(index * INDEX_UNIT)
    size = value.abs()
    root = math.sqrt(0.5)
    mass = 0.5 * (torch.erfc((size - 0.5) / scale * root) - torch.erfc((size + 0.5) / scale * root))
    return -torch.log2(mass.clamp(min=1e-7))


def pass_mask(height: int, width: int, channels: int, device=None) -> Tensor:
    """(1, channels, height, width) booleans, true for the symbols of pass A."""
    parity = (torch.arange(height, device=device)[:, None] + torch.arange(width, device=device)[None, :]) % 2
    first = torch.arange(channels, device=device)[:, None, None] < channels // 2
    return ((parity == 0) == first)[None]


class HyperSynthesis(nn.Module):
    """Exact h_s: z integers (B, N, h, w) -> features (B, F, 4h, 4w), integers in [0, 255]."""

    def __init__(self, n: int, f: int):
        super().__init__()
        self.z_scale = LevelInteger(torch.ones(ANCHORS, n), 2**ACT_BITS, 1, ACT_MAX)
        self.bias = LevelInteger(torch.zeros(ANCHORS, f), 2**10, -(2**16), 2**16)
        self.up1 = ExactPointwise(n, 4 * f)
        self.mix1 = ExactDepthwise(f)
        self.pw1 = ExactPointwise(f, f)
        self.up2 = ExactPointwise(f, 4 * f)
        self.mix2 = ExactDepthwise(f)
        self.pw2 = ExactPointwise(f, f)

    def forward(self, z: Tensor, z_scale: Tensor, bias: Tensor) -> Tensor:
        x = (z * z_scale).clamp(-ACT_MAX, ACT_MAX)
        x = self.pw1(self.mix1(F.pixel_shuffle(self.up1(x), 2)))
        return self.pw2(self.mix2(F.pixel_shuffle(self.up2(x), 2)), bias)


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


class Synthesis(nn.Module):
    """g_s: y_hat (B, M, H/16, W/16) and a vector of the level -> x_hat (B, 3, H, W) in [0, 1]."""

    def __init__(self, c: int, m: int, n_low: int, n_high: int):
        super().__init__()
        self.low = blocks(m, n_low)
        self.up = Up(m, c, 2)
        self.high = blocks(c, n_high)
        self.head = Up(c, 3, 8)

    def forward(self, y_hat: Tensor, vector: Tensor, precision: AbstractContextManager = FLOAT32) -> Tensor:
        """`precision` surrounds the trunk at 1/8 resolution."""
        high = self.up(self.low(y_hat)) * vector
        with precision:
            high = self.high(high)
        return self.head(high.float()) + 0.5


class Coded(NamedTuple):
    """Latents as the entropy coder sees them: y in shapes (B, M, h, w), z in (B, N, ceil(h/4), ceil(w/4)).

    Attributes:
        residual: what `symbols` was rounded from.
        index, z_index: standard deviations, as numbers of Gaussian tables.
        y_hat: the latents that the decoder rebuilds.
    """

    symbols: Tensor
    residual: Tensor
    index: Tensor
    z_symbols: Tensor
    z_index: Tensor
    y_hat: Tensor


@dataclass(frozen=True)
class FastConfig:
    """Widths: c trunk at 1/8, m latents at 1/16, n hyper-latents at 1/64, f features, k means, hidden scales."""

    c: int = 128
    m: int = 256
    n: int = 128
    f: int = 128
    k: int = 192
    hidden: int = 192
    analysis_high: int = 5
    analysis_low: int = 1
    synthesis_low: int = 2
    synthesis_high: int = 5

    as_dict = asdict


class Fast(CompressionModel):
    """The image model `fast`; see the module's diagram.

    Args:
        mixed: run the trunks at 1/8 resolution in bfloat16; latents, entropy model and pixels stay float32.
    """

    def __init__(self, config: FastConfig = FastConfig(), mixed: bool = False):
        super().__init__()
        self.config, self.mixed = config, mixed
        c, m, n, f = config.c, config.m, config.n, config.f
        self.g_a = nn.Sequential(
            Down(3, c, 8), *blocks(c, config.analysis_high), Down(c, m, 2), *blocks(m, config.analysis_low)
        )
        self.h_a = nn.Sequential(
            Pointwise(m, config.k), Block(config.k), Down(config.k, config.k, 2), Block(config.k), Down(config.k, n, 2)
        )
        self.h_s = HyperSynthesis(n, f)
        self.scale_a = ScaleA(f, config.hidden, m)
        self.scale_b = ScaleB(f, config.hidden, m)
        self.mean_a = MeanA(f, config.k, m)
        self.mean_b = MeanB(config.k, m)
        self.g_s = Synthesis(c, m, config.synthesis_low, config.synthesis_high)

        step = torch.sqrt(18 / (math.log(2) * rd_lambda(torch.arange(ANCHORS) * float(ANCHOR_STEP)))) / 255
        self.log_gain = LevelVector(-step.log()[:, None].expand(-1, m))
        self.log_step = LevelVector(step.log()[:, None].expand(-1, m))
        self.log_z_gain = LevelVector(torch.zeros(ANCHORS, n))
        self.vector = LevelVector(torch.ones(ANCHORS, c))
        self.z_index = LevelInteger(torch.full((ANCHORS, n), 2.0), 16, 0, SCALES - 1)
        self.index_bias_a = LevelInteger(torch.zeros(ANCHORS, m), 2**10, -(2**16), 2**16)
        self.index_bias_b = LevelInteger(torch.zeros(ANCHORS, m), 2**10, -(2**16), 2**16)
        self.set_tables(start_tables())

    def set_tables(self, tables: Tables) -> None:
        """The integer tables that evaluation prices symbols with."""
        self.tables = tables
        self.register_buffer("costs", torch.from_numpy(tables.costs), persistent=False)

    def table_bits(self, symbols: Tensor, table: Tensor) -> Tensor:
        """Bits of symbols under the integer tables, element-wise."""
        magnitude = symbols.abs().clamp(max=self.costs.shape[1] - 1)
        return self.costs[table.long(), magnitude.long()]

    @torch.no_grad()
    def start_from_dct(self, x: Tensor) -> None:
        """Set g_a and g_s to a DCT/Haar transform codec and the tables to its statistics on pictures x (B, 3, H, W)."""
        c, m = self.config.c, self.config.m
        dct, bands = colour_dct(c), haar(c)
        first, second = self.g_a[0], next(layer for layer in self.g_a if isinstance(layer, Down) and layer.k == 2)
        first.weight.copy_(dct)
        variance = second_order(F.conv2d(first(x - 0.5), bands.view(4 * c, c, 2, 2), stride=2))
        ranked = variance.argsort(descending=True)[:m]
        chosen = torch.cat([ranked[0::2], ranked[1::2]])
        second.weight.copy_(bands[chosen])
        self.g_s.up.pointwise.weight.copy_(bands[chosen].T)
        self.g_s.head.pointwise.weight.copy_(dct.T)
        for scale, bias in ((self.scale_a, self.index_bias_a), (self.scale_b, self.index_bias_b)):
            scale.index.weight.mul_(0.1)
            index = torch.log(variance[chosen].sqrt() * self.log_gain.anchors.exp() / SCALE_MIN) / INDEX_UNIT
            bias.anchors.copy_(index.clamp(1, SCALES - 2) / 16)

    def trunk_precision(self, x: Tensor) -> AbstractContextManager:
        """bfloat16 where `mixed` asks for it."""
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed)

    def analyse(self, x: Tensor) -> Tensor:
        """Latents y (B, M, H/16, W/16) of pictures (B, 3, H, W) in [0, 1]."""
        trunk = 1 + self.config.analysis_high
        with self.trunk_precision(x):
            high = self.g_a[:trunk](x - 0.5)
        return self.g_a[trunk:](high.float())

    def hyper(self, y: Tensor, level: Tensor) -> Tensor:
        """Hyper-latents z (B, N, h/4, w/4) of latents (B, M, h, w), not yet rounded; h and w multiples of 4."""
        return self.h_a(y) * self.log_z_gain(level).exp()

    def code(self, y: Tensor, z: Tensor, level: Tensor, quantise: Callable[[Tensor], Tensor] = round_ste) -> Coded:
        """What the entropy coder sees of latents y (B, M, h, w) and hyper-latents z (B, N, ceil(h/4), ceil(w/4)).

        Args:
            quantise: what turns latents into symbols; rounding, or a relaxation of it.
        """
        z_symbols = quantise(z).clamp(-Z_MAX, Z_MAX)
        z_index = self.z_index(level).expand_as(z)
        z_integers = round_ste(z_symbols)
        features = self.h_s(z_integers, self.h_s.z_scale(level), self.h_s.bias(level))[:, :, : y.shape[2], : y.shape[3]]

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

    def forward(self, x: Tensor, level: Tensor) -> dict:
        """Rate and reconstruction as the decoder would see them.

        Args:
            x: (B, 3, H, W) in [0, 1], H and W multiples of 64.
            level: (B,) integers in [0, 200].

        Returns:
            {"x_hat": (B, 3, H, W), "likelihoods": {"y": (B, M, H/16, W/16), "z": (B, N, H/64, W/64)}}. Training adds
            uniform noise inside Gaussian likelihoods; evaluation prices symbols by the integer tables and returns the
            "symbols" and "indexes" of their tables, in the shapes of the likelihoods.
        """
        y = self.analyse(x)
        z = self.hyper(y, level)
        coded = self.code(y, z, level)
        x_hat = self.g_s(coded.y_hat, self.vector(level), self.trunk_precision(x))
        if self.training:
            y_bits = gaussian_bits(coded.residual + torch.rand_like(y) - 0.5, coded.index)
            z_bits = gaussian_bits(z + torch.rand_like(z) - 0.5, coded.z_index)
        else:
            y_bits = self.table_bits(coded.symbols, coded.index)
            z_bits = self.table_bits(coded.z_symbols, z_table(coded.z_index))
        return {
            "x_hat": x_hat,
            "likelihoods": {"y": torch.exp2(-y_bits), "z": torch.exp2(-z_bits)},
            "symbols": {"y": coded.symbols, "z": coded.z_symbols},
            "indexes": {"y": coded.index, "z": z_table(coded.z_index)},
        }


def second_order(y: Tensor) -> Tensor:
    """Mean square of every channel of (B, C, H, W)."""
    return y.pow(2).mean((0, 2, 3))
