"""`mlic`: the transforms of `fast` made deeper, and a multi-reference entropy model over slices of the latents.

The latents (M, h, w) are coded in slices of channels, the strongest first. The first slice and its passes A and B are
those of `fast`: one position of every 2x2 square, then the other three. Of the others every slice has anchors, the
first half of its channels where row + column is even and the second where it is odd, and all anchors are coded before
the rest of any slice. A state (K, h, w) walks through the passes and takes in what each leaves behind:

    features (F, h, w) -> enter_low + hyper_global -> state of the first slice -> means of A -> means of B
        hyper_global: linear attention of the state to itself, so that the first slice also sees the whole tile
    features -> enter --------------------------------------> state
    what came before (C', h, w) -> channel + inter, reweight -> state -> means of the anchors of a slice
        what came before: the first slice, then the anchors of the slice before
    all anchors (M - L, h, w) -> local + intra -------------> state -> means of the rest of the second slice
    the slice before (C', h, w) -> channel + inter, reweight -> state -> means of the rest of the other slices

    channel: a matrix over channels; inter, intra: linear attention over the whole tile, its values what is known
    local: attention to the 12 positions of the other parity of a 5x5 window, with a bias for each relative place
    reweight: a gate for each channel of the state, from its means over the tile

The arrangement is that of MLIC and MLIC++ (Jiang et al., "MLIC: multi-reference entropy model for learned image
compression", ACM MM 2023; "MLIC++: linear complexity multi-reference entropy modeling for learned image compression",
ACM TOMM), of which the second makes global attention linear; token-mixing blocks in the transforms, context for the
first slice and channel reweighting follow MLICv2 (Jiang et al., 2025). The checkerboard is He et al.'s (CVPR 2021),
slices of growing width are ELIC's (He et al., CVPR 2022).

Departures: no float may choose a table, so attention refines means alone and the table indexes come from exact
networks that see the magnitudes of the symbols. All anchors come before the rest, so that `fast` is this model without
its contexts, and a trained one can become it. One state takes the place of a network for each slice that concatenates
all contexts, gates act on it and not on the slice, and queries and keys of the global attention come from it and not
from the slice before. There is no rotary embedding. One model serves all rates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from string import ascii_lowercase
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixa.models.nets.attention import ChannelContext, ChannelGate, GlobalAttention, LocalAttention
from pixa.models.nets.backbone import CONTEXT_MAX, Backbone, BackboneConfig, Coded
from pixa.models.nets.exact import ACT_BITS, LevelInteger
from pixa.models.nets.fast import MeanBetween, Scale, ScaleSeeing
from pixa.models.nets.layers import ANCHORS, Block, Pointwise, round_ste

CONTEXTS = ("hyper_global", "local", "intra", "channel", "inter", "reweight")


class Pass(NamedTuple):
    """What one pass codes and sees.

    Attributes:
        letter: of its networks.
        part: number of the slice that it codes, whole or what an earlier pass left of it.
        known: numbers of the slices whose symbols, as far as they are coded, are news to it.
        seen: letters of earlier scale networks whose contexts its own sees too.
        first: the slice is new.
        turns: all anchors are coded, and the rest of the slices begins.
    """

    letter: str
    part: int
    known: tuple[int, ...]
    seen: str
    first: bool

    @property
    def turns(self) -> bool:
        return self.part == 1 and not self.first


@dataclass(frozen=True)
class MlicConfig(BackboneConfig):
    """Widths of `mlic`, and switches: a kind of context that is False is not built.

    Attributes:
        slices: channels of each slice, M in all; of the second and the following even numbers.
        low_k, low_hidden: what k and hidden are, for the first slice.
        attention: channels of queries, keys and values, a multiple of heads.
        window: side of the local attention, odd.

    Raises:
        ValueError: the slices do not add up to M, or there is but one.
    """

    analysis_high: int = 7
    analysis_low: int = 2
    synthesis_low: int = 1
    synthesis_high: int = 7
    slices: tuple[int, ...] = (16, 48, 80, 112)
    low_k: int = 64
    low_hidden: int = 64
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
        if sum(self.slices) != self.m or len(self.slices) < 2:
            raise ValueError(f"the slices {self.slices} do not add up to {self.m} channels")

    @property
    def channels(self) -> list[slice]:
        """Of every slice."""
        ends = [sum(self.slices[:i]) for i in range(len(self.slices) + 1)]
        return [slice(*pair) for pair in pairwise(ends)]

    @property
    def passes(self) -> list[Pass]:
        count = len(self.slices)
        letters, rest = iter(ascii_lowercase), range(1, count)
        passes = [Pass(next(letters), 0, (), "", True), Pass(next(letters), 0, (0,), "", False)]
        for i in rest:
            passes.append(Pass(next(letters), i, (i - 1,), "".join(p.letter for p in passes[2:]), True))
        low, after = passes[2].letter, len(passes)
        for i in rest:
            seen = low + "".join(p.letter for p in passes[after:])
            passes.append(Pass(next(letters), i, tuple(rest) if i == 1 else (i - 1,), seen, False))
        return passes


def pass_mask(p: Pass, height: int, width: int, config: MlicConfig, device=None) -> Tensor:
    """(C, height, width) booleans, true for the symbols of a pass among the channels of its slice."""
    rows, columns = (torch.arange(size, device=device) % 2 for size in (height, width))
    rows, channels = rows[:, None], torch.arange(config.slices[p.part], device=device)[:, None, None]
    if p.part == 0:
        first = ((rows == 0) & (columns == 0)).expand(len(channels), -1, -1)
    else:
        first = (rows == columns) == (channels < len(channels) // 2)
    return first if p.first else ~first


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
        self.enter_low = Pointwise(config.f, config.low_k)
        self.enter = Pointwise(config.f, config.k)
        known = {p.letter: sum(config.slices[i] for i in p.known) for p in config.passes}
        for p in config.passes:
            own, hidden = config.slices[p.part], config.hidden if p.part else config.low_hidden
            memory = config.f + sum(known[letter] for letter in p.seen)
            scale = ScaleSeeing(memory, known[p.letter], hidden, own) if p.known else Scale(memory, hidden, own)
            self.add_module(f"scale_{p.letter}", scale)
            self.add_module(f"mean_{p.letter}", self.mean_of(p, known[p.letter]))
            bias = LevelInteger(torch.zeros(ANCHORS, own), 2**10, -(2**16), 2**16)
            self.add_module(f"index_bias_{p.letter}", bias)

    def mean_of(self, p: Pass, known: int) -> nn.Module:
        """The network of the means of a pass that is told of `known` channels."""
        config, own = self.config, self.config.slices[p.part]
        if p.part == 0 and not p.first:
            return MeanBetween(config.low_k, own)
        k, width, heads = config.k if p.part else config.low_k, config.attention, config.heads
        makers = {
            "hyper_global": lambda: GlobalAttention(k, k, width, heads),
            "local": lambda: LocalAttention(k, known, width, heads, config.window),
            "intra": lambda: GlobalAttention(k, known, width, heads),
            "channel": lambda: ChannelContext(k, known),
            "inter": lambda: GlobalAttention(k, known, width, heads),
        }
        kinds = ("hyper_global",) if p.part == 0 else ("local", "intra") if p.turns else ("channel", "inter")
        gate = ChannelGate(k) if "channel" in kinds and config.reweight else nn.Identity()
        return Mean(nn.ModuleDict({kind: makers[kind]() for kind in kinds if getattr(config, kind)}), gate, k, own)

    def arranged(self, ranked: Tensor) -> Tensor:
        return torch.cat(
            [ranked[own] if own.start == 0 else super(Mlic, self).arranged(ranked[own]) for own in self.config.channels]
        )

    def start_scales(self, index: Tensor) -> None:
        for p in self.config.passes:
            self.get_submodule(f"scale_{p.letter}").index.weight.mul_(0.1)
            own = index[:, self.config.channels[p.part]]
            self.get_submodule(f"index_bias_{p.letter}").anchors.copy_(own / 16)

    def first_state(self, features: Tensor, enter: Pointwise) -> Tensor:
        """(B, F, h, w) -> (B, K, h, w)."""
        return enter(features * 2.0**-ACT_BITS)

    def code(self, y: Tensor, z: Tensor, level: Tensor, quantise: Callable[[Tensor], Tensor] = round_ste) -> Coded:
        z_symbols, z_index, features = self.hyper_features(z, level, quantise, y.shape[2:])
        gain, step = self.log_gain(level).exp(), self.log_step(level).exp()
        slices: list[Coded | None] = [None] * len(self.config.slices)
        contexts = {}
        low, state = (self.first_state(features, enter) for enter in (self.enter_low, self.enter))
        for p in self.config.passes:
            own, mask = self.config.channels[p.part], pass_mask(p, *y.shape[2:], self.config, y.device)
            scale, network, bias = (
                self.get_submodule(f"{name}_{p.letter}") for name in ("scale", "mean", "index_bias")
            )
            memory = [features, *(contexts[letter] for letter in p.seen)]
            known = state if not p.known else torch.cat([slices[i].y_hat for i in p.known], 1)
            if p.known:
                magnitude = torch.cat([slices[i].symbols for i in p.known], 1).detach().abs()
                contexts[p.letter] = scale.context(round_ste(magnitude).clamp(max=CONTEXT_MAX))
                memory.append(contexts[p.letter])
            index = scale(memory, bias(level))
            if p.part:
                state, mean = network(state, known)
            elif p.first:
                low, mean = network(low, low)
            else:
                mean = network(low, known)
            residual = (y[:, own] - mean) * gain[:, own]
            symbols = quantise(residual) * (mask & (index > 0))
            y_hat = (symbols * step[:, own] + mean) * mask
            before = slices[p.part]
            if before is not None:
                symbols, y_hat = before.symbols + symbols, before.y_hat + y_hat
                residual, index = torch.where(mask, residual, before.residual), torch.where(mask, index, before.index)
            slices[p.part] = Coded(symbols, residual, index, z_symbols, z_index, y_hat)
        symbols, residual, index, _, _, y_hat = (torch.cat(parts, 1) for parts in zip(*slices, strict=True))
        return Coded(symbols, residual, index, z_symbols, z_index, y_hat)
