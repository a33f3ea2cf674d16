"""`mlic`: the transforms of `fast` made deeper, and a multi-reference entropy model over slices of the latents.

The latents (M, h, w) are coded in slices of channels, every slice in two passes: its anchors, where row + column is
even, then the rest. A state (K, h, w) walks through the passes and takes in what each leaves behind:

    features (F, h, w) -> enter ----------------------> state -> means of the anchors of slice 0
        hyper_global: linear attention of the state to itself, so that the first slice also sees the whole tile
    anchors of slice i (C_i, h, w) -> local + intra --> state -> means of the rest of slice i
        local: attention to the 12 anchors of a 5x5 window, with a bias for each relative place
        intra: linear attention over the whole tile, its values the anchors
    slice i (C_i, h, w) -> channel + inter, reweight -> state -> means of the anchors of slice i + 1
        channel: a matrix over the channels of the slice; inter: linear attention, its values the slice
        reweight: a gate for each channel of the state, from its means over the tile

The arrangement is that of MLIC and MLIC++ (Jiang et al., "MLIC: multi-reference entropy model for learned image
compression", ACM MM 2023; "MLIC++: linear complexity multi-reference entropy modeling for learned image compression",
ACM TOMM), of which the second makes global attention linear; token-mixing blocks in the transforms, context for the
first slice and channel reweighting follow MLICv2 (Jiang et al., 2025). The checkerboard is He et al.'s (CVPR 2021),
slices of growing width are ELIC's (He et al., CVPR 2022).

Departures: no float may choose a table, so attention refines means alone and the table indexes come from an exact
recurrent network that sees the magnitudes of the symbols. One state takes the place of a network for each slice that
concatenates all contexts, gates act on it and not on the slice, and queries and keys of the global attention come from
it and not from the slice before. There is no rotary embedding. One model serves all rates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from string import ascii_lowercase

import torch
from torch import Tensor, nn

from pixa.models.attention import ChannelContext, ChannelGate, GlobalAttention, LocalAttention
from pixa.models.backbone import CONTEXT_MAX, Backbone, BackboneConfig, Coded
from pixa.models.exact import ACT_BITS, ExactDepthwise, ExactPointwise, LevelInteger
from pixa.models.layers import ANCHORS, Block, Pointwise, round_ste
from pixa.models.rates import SCALES

CONTEXTS = ("hyper_global", "local", "intra", "channel", "inter", "reweight")


@dataclass(frozen=True)
class MlicConfig(BackboneConfig):
    """Widths of `mlic`, and switches: a kind of context that is False is not built.

    Attributes:
        slices: channels of each slice, M in all.
        attention: channels of queries, keys and values, a multiple of heads.
        window: side of the local attention, odd.

    Raises:
        ValueError: the slices do not add up to M.
    """

    analysis_high: int = 8
    analysis_low: int = 2
    synthesis_low: int = 4
    synthesis_high: int = 8
    slices: tuple[int, ...] = (32, 32, 64, 128)
    attention: int = 64
    heads: int = 4
    window: int = 5
    hyper_global: bool = True
    local: bool = True
    intra: bool = True
    channel: bool = True
    inter: bool = True
    reweight: bool = True

    def __post_init__(self):
        object.__setattr__(self, "slices", tuple(self.slices))
        if sum(self.slices) != self.m:
            raise ValueError(f"the slices {self.slices} do not add up to {self.m} channels")

    @property
    def passes(self) -> list[tuple[str, slice]]:
        """Letter and channels of every pass; even ones code anchors, odd ones the rest of the same channels."""
        ends = list(accumulate(self.slices))
        channels = [slice(end - width, end) for end, width in zip(ends, self.slices, strict=True) for _ in range(2)]
        return list(zip(ascii_lowercase, channels, strict=False))


class ScaleFirst(nn.Module):
    """Exact: features (B, F, h, w) -> hidden (B, H, h, w) in [0, 255] and table indexes (B, C, h, w) in [0, 63]."""

    def __init__(self, f: int, hidden: int, c: int):
        super().__init__()
        self.hidden = ExactPointwise(f, hidden)
        self.index = ExactPointwise(hidden, c, high=SCALES - 1)

    def forward(self, features: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(features)
        return hidden, self.index(hidden, bias)


class ScaleNext(nn.Module):
    """Exact: the same from features, hidden so far, and min(|symbols|, 15) of the pass before, (B, known, h, w)."""

    def __init__(self, f: int, hidden: int, known: int, c: int):
        super().__init__()
        self.context = ExactDepthwise(known, in_bits=0)
        self.hidden = ExactPointwise(f + hidden + known, hidden)
        self.index = ExactPointwise(hidden, c, high=SCALES - 1)

    def forward(self, features: Tensor, hidden: Tensor, magnitude: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(torch.cat([features, hidden, self.context(magnitude)], 1))
        return hidden, self.index(hidden, bias)


class Mean(nn.Module):
    """Float: state (B, K, h, w) and what is known (B, C', h, w) -> state (B, K, h, w) and means (B, C, h, w)."""

    def __init__(self, contexts: nn.ModuleDict, gate: nn.Module, k: int, c: int):
        super().__init__()
        self.contexts, self.gate = contexts, gate
        self.block = Block(k)
        self.mean = Pointwise(k, c, zero=True)

    def forward(self, state: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        state = self.gate(state + sum(context(state, known) for context in self.contexts.values()))
        state = self.block(state)
        return state, self.mean(state)


class Mlic(Backbone):
    """The image model `mlic`; see the module. The networks of a pass are called scale_a, mean_a, scale_b and so on."""

    def __init__(self, config: MlicConfig = MlicConfig(), mixed: bool = False):
        super().__init__(config, mixed)
        self.enter = Pointwise(config.f, config.k)
        known = config.k
        for p, (letter, channels) in enumerate(config.passes):
            own = channels.stop - channels.start
            scale = ScaleNext(config.f, config.hidden, known, own) if p else ScaleFirst(config.f, config.hidden, own)
            gate = ChannelGate(config.k) if p and p % 2 == 0 and config.reweight else nn.Identity()
            self.add_module(f"scale_{letter}", scale)
            self.add_module(f"mean_{letter}", Mean(self.contexts(p, known), gate, config.k, own))
            bias = LevelInteger(torch.zeros(ANCHORS, own), 2**10, -(2**16), 2**16)
            self.add_module(f"index_bias_{letter}", bias)
            known = own

    def contexts(self, p: int, known: int) -> nn.ModuleDict:
        """The kinds of context of pass p, which sees `known` channels."""
        k, width, heads = self.config.k, self.config.attention, self.config.heads
        makers = {
            "hyper_global": lambda: GlobalAttention(k, known, width, heads),
            "local": lambda: LocalAttention(k, known, width, heads, self.config.window),
            "intra": lambda: GlobalAttention(k, known, width, heads),
            "channel": lambda: ChannelContext(k, known),
            "inter": lambda: GlobalAttention(k, known, width, heads),
        }
        kinds = ("local", "intra") if p % 2 else ("channel", "inter") if p else ("hyper_global",)
        return nn.ModuleDict({kind: makers[kind]() for kind in kinds if getattr(self.config, kind)})

    def start_scales(self, index: Tensor) -> None:
        for letter, channels in self.config.passes:
            self.get_submodule(f"scale_{letter}").index.weight.mul_(0.1)
            self.get_submodule(f"index_bias_{letter}").anchors.copy_(index[:, channels] / 16)

    def first_state(self, features: Tensor) -> Tensor:
        """(B, F, h, w) -> (B, K, h, w)."""
        return self.enter(features * 2.0**-ACT_BITS)

    def code(self, y: Tensor, z: Tensor, level: Tensor, quantise: Callable[[Tensor], Tensor] = round_ste) -> Coded:
        z_symbols, z_index, features = self.hyper_features(z, level, quantise, y.shape[2:])
        gain, step = self.log_gain(level).exp(), self.log_step(level).exp()
        rows, columns = (torch.arange(size, device=y.device) for size in y.shape[2:])
        parity = (rows[:, None] + columns) % 2

        coded, state, memory = [], self.first_state(features), (features,)
        known = state
        for p, (letter, own) in enumerate(self.config.passes):
            scale, network, bias = (self.get_submodule(f"{name}_{letter}") for name in ("scale", "mean", "index_bias"))
            hidden, index = scale(*memory, bias(level))
            state, mean = network(state, known)
            mask = parity == p % 2
            residual = (y[:, own] - mean) * gain[:, own]
            symbols = quantise(residual) * (mask & (index > 0))
            y_hat = (symbols * step[:, own] + mean) * mask
            known = known + y_hat if p % 2 else y_hat
            memory = features, hidden, round_ste(symbols.detach().abs()).clamp(max=CONTEXT_MAX)
            coded.append((symbols, residual, index, y_hat))

        woven = [
            torch.cat([torch.where(parity == 0, a, b) for a, b in zip(parts[0::2], parts[1::2], strict=True)], 1)
            for parts in zip(*coded, strict=True)
        ]
        symbols, residual, index, y_hat = woven
        return Coded(symbols, residual, index, z_symbols, z_index, y_hat)
