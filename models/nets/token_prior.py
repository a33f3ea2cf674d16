"""The entropy model of tokens, in integers: probabilities of a token from the tokens that the decoder already has.

Grids are coded coarse to fine, a grid in four passes over the positions of every 2x2 square. A network sees the 3x3
neighbours that earlier passes left and features of the coarser grids and of the map, and gives a logit for every group
of codes, then, knowing the group, for every member. Every sum is exact (`pixa.models.nets.exact`), and logits become
frequencies by a table and an integer division, so no float chooses a probability. Coding a grid in few passes with
context on all sides follows the checkerboard (He et al., CVPR 2021); coding a token in two digits makes its 1024
alternatives two times 32.

Units: logits are sixteenths of a nat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixa.models.nets.exact import ACT_BITS, ACT_MAX, Exact, ExactPointwise
from pixa.models.nets.layers import LEVELS, round_ste

PASSES = ((0, 0), (1, 1), (0, 1), (1, 0))  # (row, column) in a 2x2 square
LEVEL_BUCKETS = 8
START_LOGIT = 8.0


def bucket(level: Tensor) -> Tensor:
    """Which of the tables of the map a quality level uses."""
    return level * LEVEL_BUCKETS // LEVELS


class Digits(nn.Module):
    """The networks of one grid.

    Attributes:
        code_embedding, group_embedding: what tokens, (K, E), and nested ones, (groups, E), look like to neighbours.
        known_group: (groups, H), what knowing the group adds to the sums of the member's hidden layer.
    """

    def __init__(self, groups: int, e: int, f: int, hidden: int):
        super().__init__()
        self.code_embedding = nn.Parameter(4 + torch.randn(groups * groups, e))
        self.group_embedding = nn.Parameter(4 + torch.randn(groups, e))
        self.enter = ExactPointwise(9 * e + f, hidden)
        self.mix = ExactPointwise(hidden, hidden)
        self.group = ExactPointwise(hidden, groups)
        self.known_group = nn.Parameter(torch.zeros(groups, hidden))
        self.inner = ExactPointwise(hidden, hidden)
        self.member = ExactPointwise(hidden, groups)
        for logits in (self.group, self.member):
            nn.init.constant_(logits.bias, START_LOGIT)
            with torch.no_grad():
                logits.weight.mul_(0.2)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Integers (K, E) of codes and (groups, E) of nested tokens."""
        return tuple(
            round_ste(table * 2**ACT_BITS).clamp(0, ACT_MAX) for table in (self.code_embedding, self.group_embedding)
        )

    def group_bias(self) -> Tensor:
        """Integers (groups, H) that join the sum of `inner`."""
        return round_ste(self.known_group * self.inner.bias_unit).clamp(-(2**16), 2**16)

    def looks(self) -> Tensor:
        """Integers (K + 1 + groups, E): of codes, of nothing, of nested tokens."""
        codes, groups = self.embeddings()
        return torch.cat([codes, torch.zeros_like(codes[:1]), groups])


class Pass(NamedTuple):
    """One pass over a grid: its n tokens, picture by picture in raster order.

    Attributes:
        own: where they are in (B, h, w).
        group, member: (n,), their digits.
        group_logits, member_logits: (n, groups) integers.
    """

    grid: int
    own: tuple[Tensor, Tensor, Tensor]
    group: Tensor
    group_logits: Tensor
    member: Tensor
    member_logits: Tensor


class TokenPrior(nn.Module):
    """Bits of tokens and of the map.

    Args:
        groups: square root of the number of codes.
        e, f, hidden: widths of a token's looks, of the features of a grid, of the hidden layers.
    """

    def __init__(self, groups: int, e: int, f: int, hidden: int):
        super().__init__()
        self.groups = groups
        self.map_logits = nn.Parameter(torch.zeros(LEVEL_BUCKETS, 4, 4, 3))
        self.top = ExactPointwise(27, f)
        self.digits = nn.ModuleList(Digits(groups, e, f, hidden) for _ in range(3))
        self.grow = nn.ModuleList(ExactPointwise(9 * e + f, 4 * f) for _ in range(2))

    @torch.no_grad()
    def start(self, codebooks: nn.ModuleList) -> None:
        """Let tokens look like the first dimensions of their codes."""
        for digits, codebook in zip(self.digits, codebooks, strict=True):
            for table, codes in (
                (digits.code_embedding, codebook.codes),
                (digits.group_embedding, codebook.centroids),
            ):
                own = codes[:, : table.shape[1]]
                table[:, : own.shape[1]] = 4 + 2 * (own - own.mean(0)) / codebook.codes.std(0)[: own.shape[1]]

    def forward(self, index: list[Tensor], used: list[Tensor], stop: Tensor, level: Tensor, nested: Tensor) -> tuple:
        """Bits (B, h, w) of the map and of the tokens of the three grids.

        Args:
            index: tokens (B, h, w), coarse to fine.
            used: whether there is a token.
            stop: (B, h, w), the last grid of each region.
            level: (B,).
            nested: (B,) booleans, whether tokens name groups.
        """
        bits = [self.map_bits(stop, level), *(torch.zeros(u.shape, device=u.device) for u in used)]
        for p in self.passes(index, used, stop, nested):
            cost = nats(p.group_logits, p.group) + nats(p.member_logits, p.member) * ~nested[p.own[0]]
            bits[1 + p.grid] = bits[1 + p.grid].index_put(p.own, cost / math.log(2))
        return tuple(bits)

    def passes(self, index: list[Tensor], used: list[Tensor], stop: Tensor, nested: Tensor) -> Iterator[Pass]:
        """The passes of all grids, in coding order; arguments as those of `forward`."""
        ones = F.one_hot(F.pad(stop, (1, 1, 1, 1), value=3), 4)[..., :3].float() * 2**ACT_BITS
        everywhere = torch.ones_like(stop).nonzero(as_tuple=True)
        state = rows(self.top, ones[neighbours(everywhere)].transpose(1, 2).flatten(1)).view(*stop.shape, -1)
        for grid, (digits, exists) in enumerate(zip(self.digits, used, strict=True)):
            nothing, flags = self.groups**2, nested[:, None, None]
            names = torch.where(exists, index[grid] + flags * (nothing + 1), nothing)
            group, member = torch.where(flags, index[grid], index[grid] // self.groups), index[grid] % self.groups
            looks, known_group = digits.looks(), digits.group_bias()
            known = torch.full_like(F.pad(names, (1, 1, 1, 1)), nothing)

            def context(own: tuple[Tensor, ...], known=known, looks=looks, state=state) -> Tensor:
                around = F.embedding(known[neighbours(own)], looks).transpose(1, 2).flatten(1)
                return torch.cat([around, pick(state, own)], 1)

            for row, column in PASSES:
                part = torch.zeros_like(exists)
                part[:, row::2, column::2] = exists[:, row::2, column::2]
                own = part.nonzero(as_tuple=True)
                hidden = rows(digits.mix, rows(digits.enter, context(own)))
                inner = rows(digits.inner, hidden, F.embedding(group[own], known_group))
                yield Pass(grid, own, group[own], rows(digits.group, hidden), member[own], rows(digits.member, inner))
                known[:, 1:-1, 1:-1][own] = names[own]
            if grid < 2:
                own = (exists & spread(stop > grid, 2**grid)).nonzero(as_tuple=True)
                finer = rows(self.grow[grid], context(own))
                state = finer.new_zeros(*exists.shape, finer.shape[1]).index_put(own, finer)
                state = F.pixel_shuffle(state.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)

    def map_bits(self, stop: Tensor, level: Tensor) -> Tensor:
        """Bits of the map, (B, h, w), by the regions above and to the left; 3 where there is none."""
        padded = F.pad(stop, (1, 0, 1, 0), value=3)
        above, left = padded[:, :-1, 1:], padded[:, 1:, :-1]
        logits = self.map_logits[bucket(level)[:, None, None], above, left]
        return F.cross_entropy(logits.permute(0, 3, 1, 2), stop, reduction="none") / math.log(2)


def spread(regions: Tensor, times: int) -> Tensor:
    """(B, h, w) -> (B, times*h, times*w)."""
    return regions.repeat_interleave(times, 1).repeat_interleave(times, 2)


def neighbours(own: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Where the 3x3 neighbours of n positions of (B, h, w) are in what is padded by one, (n, 9) each."""
    picture, row, column = (place[:, None] for place in own)
    square = torch.arange(9, device=row.device)
    return picture.expand(-1, 9), row + square // 3, column + square % 3


def pick(x: Tensor, own: tuple[Tensor, ...]) -> Tensor:
    """Rows (n, C) of x (B, h, w, C); unlike indexing, its gradient is quick."""
    picture, row, column = own
    return F.embedding((picture * x.shape[1] + row) * x.shape[2] + column, x.reshape(-1, x.shape[3]))


def rows(layer: Exact, x: Tensor, extra: Tensor | float = 0.0) -> Tensor:
    """An exact layer on rows (n, C); `extra` joins the sums."""
    weight, bias = layer.integers()
    return layer.rescale(F.linear(x, weight, bias) + extra)


def nats(logits: Tensor, symbol: Tensor) -> Tensor:
    """What symbols (n,) cost by integer logits (n, S)."""
    return F.cross_entropy(logits * 2.0**-ACT_BITS, symbol, reduction="none")
