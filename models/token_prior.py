"""The entropy model of tokens, in integers: probabilities of a token from the tokens that the decoder already has.

Grids are coded coarse to fine, a grid in four passes over the positions of every 2x2 square. A network sees the 3x3
neighbours that earlier passes left and features of the coarser grids and of the map, and gives a logit for every group
of codes, then, knowing the group, for every member. Every sum is exact (`pixa.models.exact`), and logits become
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

from pixa.models.exact import ACT_BITS, ACT_MAX, ExactPointwise
from pixa.models.layers import LEVELS, round_ste

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

    def seen(self, index: Tensor, used: Tensor, nested: Tensor) -> Tensor:
        """What tokens (B, h, w) look like, (B, E, h, w) integers; zero where there is none."""
        codes, groups = self.embeddings()
        where = nested[:, None, None]
        of_codes = F.embedding(torch.where(where, 0, index), codes)
        of_groups = F.embedding(torch.where(where, index, 0), groups)
        return (torch.where(where[..., None], of_groups, of_codes) * used[..., None]).permute(0, 3, 1, 2)


class Pass(NamedTuple):
    """One pass over a grid.

    Attributes:
        own: (h, w), the positions it codes.
        group, member: (B, h, w), the digits of the tokens.
        group_logits, member_logits: (B, groups, h, w) integers.
    """

    grid: int
    own: Tensor
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
        bits = [self.map_bits(stop, level), 0.0, 0.0, 0.0]
        for p in self.passes(index, used, stop, nested):
            cost = nats(p.group_logits, p.group) + nats(p.member_logits, p.member) * ~nested[:, None, None]
            bits[1 + p.grid] = bits[1 + p.grid] + cost * (p.own & used[p.grid]) / math.log(2)
        return tuple(bits)

    def passes(self, index: list[Tensor], used: list[Tensor], stop: Tensor, nested: Tensor) -> Iterator[Pass]:
        """The passes of all grids, in coding order; arguments as those of `forward`."""
        ones = F.one_hot(stop, 3).permute(0, 3, 1, 2).float() * 2**ACT_BITS
        state = self.top(around(ones))
        for grid, digits in enumerate(self.digits):
            seen = digits.seen(index[grid], used[grid], nested)
            group = torch.where(nested[:, None, None], index[grid], index[grid] // self.groups)
            member = index[grid] % self.groups
            bias = F.embedding(group, digits.group_bias()).permute(0, 3, 1, 2)
            rows, columns = (torch.arange(n, device=seen.device) % 2 for n in seen.shape[2:])
            known = torch.zeros_like(seen[:1, :1])
            for row, column in PASSES:
                own = (rows[:, None] == row) & (columns == column)
                hidden = digits.mix(digits.enter(torch.cat([around(seen * known), state], 1)))
                inner = digits.inner(hidden, bias)
                yield Pass(grid, own, group, digits.group(hidden), member, digits.member(inner))
                known = known + own
            if grid < 2:
                state = F.pixel_shuffle(self.grow[grid](torch.cat([around(seen), state], 1)), 2)

    def map_bits(self, stop: Tensor, level: Tensor) -> Tensor:
        """Bits of the map, (B, h, w), by the regions above and to the left; 3 where there is none."""
        padded = F.pad(stop, (1, 0, 1, 0), value=3)
        above, left = padded[:, :-1, 1:], padded[:, 1:, :-1]
        logits = self.map_logits[bucket(level)[:, None, None], above, left]
        return F.cross_entropy(logits.permute(0, 3, 1, 2), stop, reduction="none") / math.log(2)


def around(x: Tensor) -> Tensor:
    """The 3x3 neighbours of every position, zero outside: (B, C, h, w) -> (B, 9C, h, w), the channel the slower."""
    return F.unfold(x, 3, padding=1).view(len(x), -1, *x.shape[2:])


def nats(logits: Tensor, symbol: Tensor) -> Tensor:
    """What symbols (B, h, w) cost by integer logits (B, n, h, w)."""
    return F.cross_entropy(logits * 2.0**-ACT_BITS, symbol, reduction="none")
