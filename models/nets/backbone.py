"""What the image models share: transforms, hyper-latents, the vectors of the quality levels, rate and distortion.

             x (3, H, W)                                                x_hat
                |                                                         ^
       g_a: 8x8 DCT-like, blocks, 2x2 Haar-like, block       g_s: blocks, up 2, blocks, up 8
                |                                                         ^
             y (M, H/16, W/16) ----- (y - mean) * gain -> symbols -> symbols * step + mean = y_hat
                |                                            ^
       h_a -> z (N, H/64, W/64) -> h_s (exact) -> features --+-- exact networks: table indexes; float networks: means

`gain`, `step` and the biases depend on the quality level (gain units, Cui et al., CVPR 2021; vectors a level, DCVC-FM,
Li et al., CVPR 2024). What stands between the features and the symbols is the entropy model, which every architecture
builds in its own way: it codes the latents in passes, each of which sees what the ones before it left. No float ever
chooses a table.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixa.bitstream.tables import Tables
from pixa.models.nets.compressai_base import CompressionModel
from pixa.models.nets.exact import ACT_BITS, ACT_MAX, ExactDepthwise, ExactPointwise, LevelInteger
from pixa.models.nets.layers import (
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
from pixa.models.nets.rates import INDEX_UNIT, SCALE_MIN, SCALES, gaussian_bits, rd_lambda, start_tables, z_table

Z_MAX, CONTEXT_MAX = 127, 15
TRANSFORMS = ("g_a", "g_s", "log_gain", "log_step", "vector")  # the parts of a model that are not its entropy model
FLOAT32 = nullcontext()


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


class Synthesis(nn.Module):
    """g_s: y_hat (B, M, H/16, W/16) and a vector of the level -> x_hat (B, 3, H, W) in [0, 1].

    Args:
        planes: of a context of the size of the picture, 0 if there is none.
    """

    def __init__(self, c: int, m: int, n_low: int, n_high: int, hidden: int = 0, planes: int = 0):
        super().__init__()
        self.low = blocks(m, n_low)
        self.up = Up(m, c, 2)
        self.context = Down(planes, c, 8, zero=True) if planes else None
        self.high = blocks(c, n_high, hidden)
        self.head = Up(c, 3, 8)

    def forward(
        self,
        y_hat: Tensor,
        vector: Tensor,
        precision: AbstractContextManager = FLOAT32,
        context: Tensor | None = None,
    ) -> Tensor:
        """`precision` surrounds the trunk at 1/8 resolution; a context (B, planes, H, W) that is not given is zero."""
        high = self.up(self.low(y_hat)) * vector
        if self.context is not None:
            high = high + (self.context.bias[:, None, None] if context is None else self.context(context))
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
class BackboneConfig:
    """Widths: c trunk at 1/8, m latents at 1/16, n hyper-latents at 1/64, f features, k means, hidden scales; of the
    blocks of the synthesis at 1/8 synthesis_hidden, 0 for 2c."""

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
    synthesis_hidden: int = 0

    as_dict = asdict


class Backbone(CompressionModel):
    """An image model but for its entropy model; see the module's diagram.

    Args:
        mixed: run the trunks at 1/8 resolution in bfloat16; latents, entropy model and pixels stay float32.
        planes: of what the synthesis sees beside the latents.
    """

    def __init__(self, config: BackboneConfig, mixed: bool = False, planes: int = 0):
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
        self.g_s = Synthesis(c, m, config.synthesis_low, config.synthesis_high, config.synthesis_hidden, planes)

        step = torch.sqrt(18 / (math.log(2) * rd_lambda(torch.arange(ANCHORS) * float(ANCHOR_STEP)))) / 255
        self.log_gain = LevelVector(-step.log()[:, None].expand(-1, m))
        self.log_step = LevelVector(step.log()[:, None].expand(-1, m))
        self.log_z_gain = LevelVector(torch.zeros(ANCHORS, n))
        self.vector = LevelVector(torch.ones(ANCHORS, c))
        self.z_index = LevelInteger(torch.full((ANCHORS, n), 2.0), 16, 0, SCALES - 1)
        self.set_tables(start_tables())

    @abstractmethod
    def start_scales(self, index: Tensor) -> None:
        """Begin the exact networks with table indexes (ANCHORS, M) by level and channel, whatever the features say."""

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
        chosen = self.arranged(ranked)
        second.weight.copy_(bands[chosen])
        self.g_s.up.pointwise.weight.copy_(bands[chosen].T)
        self.g_s.head.pointwise.weight.copy_(dct.T)
        index = torch.log(variance[chosen].sqrt() * self.log_gain.anchors.exp() / SCALE_MIN) / INDEX_UNIT
        self.start_scales(index.clamp(1, SCALES - 2))

    def arranged(self, ranked: Tensor) -> Tensor:
        """The order of channels (M,) that are given by falling energy: each half gets every second."""
        return torch.cat([ranked[0::2], ranked[1::2]])

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

    @abstractmethod
    def code(self, y: Tensor, z: Tensor, level: Tensor, quantise: Callable[[Tensor], Tensor] = round_ste) -> Coded:
        """What the entropy coder sees of latents y (B, M, h, w) and hyper-latents z (B, N, ceil(h/4), ceil(w/4)).

        Args:
            quantise: what turns latents into symbols; rounding, or a relaxation of it.
        """

    def hyper_features(self, z: Tensor, level: Tensor, quantise: Callable, size: torch.Size) -> tuple:
        """(symbols of z, their Gaussian tables, features (B, F, *size)) of hyper-latents not yet rounded."""
        z_symbols = quantise(z).clamp(-Z_MAX, Z_MAX)
        features = self.h_s(round_ste(z_symbols), self.h_s.z_scale(level), self.h_s.bias(level))
        return z_symbols, self.z_index(level).expand_as(z), features[:, :, : size[0], : size[1]]

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
        return {"x_hat": x_hat} | self.priced(coded, z)

    def priced(self, coded: Coded, z: Tensor) -> dict:
        """What `forward` returns of symbols and their rate."""
        if self.training:
            y_bits = gaussian_bits(coded.residual + torch.rand_like(coded.residual) - 0.5, coded.index)
            z_bits = gaussian_bits(z + torch.rand_like(z) - 0.5, coded.z_index)
        else:
            y_bits = self.table_bits(coded.symbols, coded.index)
            z_bits = self.table_bits(coded.z_symbols, z_table(coded.z_index))
        return {
            "likelihoods": {"y": torch.exp2(-y_bits), "z": torch.exp2(-z_bits)},
            "symbols": {"y": coded.symbols, "z": coded.z_symbols},
            "indexes": {"y": coded.index, "z": z_table(coded.z_index)},
        }


def second_order(y: Tensor) -> Tensor:
    """Mean square of every channel of (B, C, H, W)."""
    return y.pow(2).mean((0, 2, 3))
