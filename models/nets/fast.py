"""`fast`: a hyperprior with an exact scale model, and a spatial prior of two slices of two passes each.

The slice of the few channels of most energy is coded first: pass A codes one position of every 2x2 square, pass B the
other three, each between positions of A. They hold what a small picture needs, so a thumbnail is shown without the rest
of a tile. Of the other channels pass C codes the first half where row + column is even and the second where it is odd,
and D the rest. Each pass sees what those before it left: exact networks the magnitudes of symbols, float networks what
was rebuilt of the latents.

Slices of uneven width are ELIC's (He et al., CVPR 2022), the checkerboard is He et al.'s (CVPR 2021), its halves of
channels on opposite parities are those of DCVC-RT (Jia et al., CVPR 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixa.models.nets.backbone import CONTEXT_MAX, Backbone, BackboneConfig, Coded
from pixa.models.nets.exact import ACT_BITS, ExactDepthwise, ExactPointwise, LevelInteger
from pixa.models.nets.layers import ANCHORS, Block, Depthwise, Pointwise, round_ste
from pixa.models.nets.rates import SCALES

PASSES = "abcd"


@dataclass(frozen=True)
class FastConfig(BackboneConfig):
    """Widths of `fast`.

    Attributes:
        low: channels of the first slice.
        low_k, low_hidden: what k and hidden are, for the first slice.
    """

    synthesis_low: int = 0
    synthesis_hidden: int = 192
    low: int = 16
    low_k: int = 64
    low_hidden: int = 64


def pass_mask(height: int, width: int, config: FastConfig, device=None) -> Tensor:
    """(4, M, height, width) booleans, true for the symbols of each pass."""
    rows, columns = (torch.arange(size, device=device) % 2 for size in (height, width))
    first = ((rows[:, None] == 0) & (columns == 0)).expand(config.low, -1, -1)
    even = (rows[:, None] == columns).expand(config.m - config.low, -1, -1)
    half = torch.arange(config.low, config.m, device=device) < (config.low + config.m) // 2
    own = even == half[:, None, None]
    no_low, no_rest = torch.zeros_like(first), torch.zeros_like(own)
    low = [torch.cat([mask, no_rest]) for mask in (first, ~first)]
    return torch.stack([*low, *(torch.cat([no_low, mask]) for mask in (own, ~own))])


class Scale(nn.Module):
    """Exact table indexes (B, C, H, W) in [0, 63] from features (B, F, H, W) and contexts."""

    def __init__(self, c_in: int, hidden: int, c: int):
        super().__init__()
        self.hidden = ExactPointwise(c_in, hidden)
        self.index = ExactPointwise(hidden, c, high=SCALES - 1)

    def forward(self, seen: list[Tensor], bias: Tensor) -> Tensor:
        return self.index(self.hidden(torch.cat(seen, 1)), bias)


class ScaleSeeing(Scale):
    """The same, which sees the neighbourhood of min(|symbols|, 15), (B, known, H, W), too."""

    def __init__(self, c_in: int, known: int, hidden: int, c: int):
        super().__init__(c_in + known, hidden, c)
        self.context = ExactDepthwise(known, in_bits=0)


class MeanFirst(nn.Module):
    """Float: features (B, F, H, W) -> state (B, K, H, W) and means (B, C, H, W) of pass A."""

    def __init__(self, f: int, k: int, c: int):
        super().__init__()
        self.enter = Pointwise(f, k)
        self.block = Block(k)
        self.mean = Pointwise(k, c, zero=True)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        state = self.block(self.enter(features * 2.0**-ACT_BITS))
        return state, self.mean(state)


class MeanBetween(nn.Module):
    """Float: the state of A and what it rebuilt (B, C, H, W), zero elsewhere -> means of B.

    Begins as bilinear interpolation: whichever of the other three positions of a square one is at, the weights of its
    neighbours in A add up to one.
    """

    def __init__(self, k: int, c: int):
        super().__init__()
        self.near = Depthwise(c)
        with torch.no_grad():
            self.near.weight.copy_(torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.0, 0.5], [0.25, 0.5, 0.25]]))
        self.enter = Pointwise(c, k)
        self.block = Block(k)
        self.mean = Pointwise(k, c, zero=True)
        self.straight = Pointwise(c, c)
        with torch.no_grad():
            self.straight.weight.copy_(0.7 * torch.eye(c))

    def forward(self, state: Tensor, y_hat: Tensor) -> Tensor:
        near = self.near(y_hat)
        return self.mean(self.block(state + self.enter(near))) + self.straight(near)


class MeanRest(nn.Module):
    """Float: features and the first slice (B, L, H, W) -> state (B, K, H, W) and means (B, C, H, W) of pass C."""

    def __init__(self, f: int, low: int, k: int, c: int):
        super().__init__()
        self.enter = Pointwise(f, k)
        self.low = Pointwise(low, k, zero=True)
        self.block = Block(k)
        self.mean = Pointwise(k, c, zero=True)

    def forward(self, features: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
        state = self.block(self.enter(features * 2.0**-ACT_BITS) + self.low(y_hat))
        return state, self.mean(state)


class MeanLast(nn.Module):
    """Float: the state of C and what it rebuilt (B, C, H, W), zero elsewhere -> means of D."""

    def __init__(self, k: int, c: int):
        super().__init__()
        self.enter = Pointwise(c, k)
        self.block = Block(k)
        self.mean = Pointwise(k, c, zero=True)

    def forward(self, state: Tensor, y_hat: Tensor) -> Tensor:
        return self.mean(self.block(state + self.enter(y_hat)))


class Fast(Backbone):
    """The image model `fast`; see the module."""

    def __init__(self, config: FastConfig = FastConfig(), mixed: bool = False):
        super().__init__(config, mixed)
        f, low, rest = config.f, config.low, config.m - config.low
        self.scale_a = Scale(f, config.low_hidden, low)
        self.scale_b = ScaleSeeing(f, low, config.low_hidden, low)
        self.scale_c = ScaleSeeing(f, low, config.hidden, rest)
        self.scale_d = ScaleSeeing(f + low, rest, config.hidden, rest)
        self.mean_a = MeanFirst(f, config.low_k, low)
        self.mean_b = MeanBetween(config.low_k, low)
        self.mean_c = MeanRest(f, low, config.k, rest)
        self.mean_d = MeanLast(config.k, rest)
        for letter, c in zip(PASSES, (low, low, rest, rest), strict=True):
            bias = LevelInteger(torch.zeros(ANCHORS, c), 2**10, -(2**16), 2**16)
            self.add_module(f"index_bias_{letter}", bias)

    def arranged(self, ranked: Tensor) -> Tensor:
        return torch.cat([ranked[: self.config.low], super().arranged(ranked[self.config.low :])])

    def start_scales(self, index: Tensor) -> None:
        low = self.config.low
        for letter, channels in zip(
            PASSES, (index[:, :low], index[:, :low], index[:, low:], index[:, low:]), strict=True
        ):
            self.get_submodule(f"scale_{letter}").index.weight.mul_(0.1)
            self.get_submodule(f"index_bias_{letter}").anchors.copy_(channels / 16)

    def code(self, y: Tensor, z: Tensor, level: Tensor, quantise: Callable[[Tensor], Tensor] = round_ste) -> Coded:
        z_symbols, z_index, features = self.hyper_features(z, level, quantise, y.shape[2:])
        gain, step = self.log_gain(level).exp(), self.log_step(level).exp()
        low = self.config.low
        masks = pass_mask(*y.shape[2:], self.config, y.device)

        def one(p: int, index: Tensor, mean: Tensor) -> tuple[Tensor, ...]:
            """Symbols of pass p where it codes, what they were rounded from, their tables, what is rebuilt of them."""
            own = slice(0, low) if p < 2 else slice(low, None)
            residual = (y[:, own] - mean) * gain[:, own]
            symbols = quantise(residual) * (masks[p, own] & (index > 0))
            return symbols, residual, index, (symbols * step[:, own] + mean) * masks[p, own]

        magnitude = lambda symbols: round_ste(symbols.detach().abs()).clamp(max=CONTEXT_MAX)
        state, mean = self.mean_a(features)
        a = one(0, self.scale_a([features], self.index_bias_a(level)), mean)
        seen = magnitude(a[0])
        index = self.scale_b([features, self.scale_b.context(seen)], self.index_bias_b(level))
        b = one(1, index, self.mean_b(state, a[3]))

        seen = self.scale_c.context(seen + magnitude(b[0]))
        state, mean = self.mean_c(features, a[3] + b[3])
        c = one(2, self.scale_c([features, seen], self.index_bias_c(level)), mean)
        seen = [features, seen, self.scale_d.context(magnitude(c[0]))]
        d = one(3, self.scale_d(seen, self.index_bias_d(level)), self.mean_d(state, c[3]))

        first = [torch.where(masks[0, :low], *pair) for pair in zip(a, b, strict=True)]
        rest = [torch.where(masks[2, low:], *pair) for pair in zip(c, d, strict=True)]
        symbols, residual, index, y_hat = (torch.cat(parts, 1) for parts in zip(first, rest, strict=True))
        return Coded(symbols, residual, index, z_symbols, z_index, y_hat)
