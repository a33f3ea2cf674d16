"""Latents at 1/8 as tokens of three grids; each codes what the coarser ones leave (`pixa.models.nets.vqgan`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixa.models.nets.layers import Down, Up
from pixa.models.nets.quantizer import Codebook
from pixa.models.nets.token_prior import spread

GRIDS = (32, 16, 8)  # pixels a token, coarse to fine
TOKENS = (1, 5, 21)  # of a region refined to each grid


class Tokens(NamedTuple):
    """A picture as tokens; the lists run over `GRIDS`.

    Attributes:
        index: (B, h, w) each.
        used: (B, h, w) each, whether there is a token.
        z: (B, d, h, w) each, the vectors that were quantised.
        error: what the codes miss of them, mean square, a scalar with a gradient.
        stop: (B, h32, w32), the last of the grids that a region has.
        y_hat: (B, d + 3, H/8, W/8): the sum of what the tokens say, then ones where there are tokens of 1/16, where
            there are tokens of 1/8, and where tokens are nested.
    """

    index: list[Tensor]
    used: list[Tensor]
    z: list[Tensor]
    error: Tensor
    stop: Tensor
    y_hat: Tensor


class Layers(NamedTuple):
    """Latents as tokens of all regions; the lists run over `GRIDS`.

    Attributes:
        index: (B, h, w) each.
        z: (B, d, h, w) each, the vectors that were quantised.
        missed: (B, h, w) each, what the codes miss of them, mean squares.
        parts: (B, d, 4h, 4w) each, what the tokens say.
        errors: (B, 3, h, w), what is left of a region refined to each grid, without a gradient.
    """

    index: list[Tensor]
    z: list[Tensor]
    missed: list[Tensor]
    parts: list[Tensor]
    errors: Tensor


class Pyramid(nn.Module):
    """The codebooks of the three grids and the linear maps between a grid and f at 1/8."""

    def __init__(self, d: int, groups: int):
        super().__init__()
        self.codebooks = nn.ModuleList(Codebook(groups, d) for _ in GRIDS)
        self.down = nn.ModuleList([Down(d, d, 4), Down(d, d, 2), nn.Identity()])
        self.up = nn.ModuleList([Up(d, d, 4), Up(d, d, 2), nn.Identity()])

    def split(self, f: Tensor, nested: Tensor) -> Layers:
        """f (B, d, 4h, 4w) with tokens in all regions, `nested` (B,) or not."""
        rest, parts, index, z, missed, errors = f, [], [], [], [], []
        for codebook, down, up in zip(self.codebooks, self.down, self.up, strict=True):
            vector = down(rest)
            code, i = codebook(vector, nested)
            part = up(vector + (code - vector).detach())
            rest = rest - part
            parts.append(part)
            index.append(i)
            z.append(vector)
            missed.append((vector - code).square().mean(1))
            errors.append(16 * F.avg_pool2d(rest.detach().square().sum(1, keepdim=True), 4))
        return Layers(index, z, missed, parts, torch.cat(errors, 1))

    def forward(self, f: Tensor, choose: Callable[[Tensor], Tensor], nested: Tensor) -> Tokens:
        """Tokens of f (B, d, 4h, 4w).

        Args:
            choose: `Layers.errors` -> trade (B, 1, 1).
            nested: (B,) booleans.
        """
        index, z, missed, parts, errors = self.split(f, nested)
        stop, used = refine(errors, choose(errors))
        masks = [spread(stop >= grid, 4)[:, None].to(f.dtype) for grid in range(3)]
        sign = nested.to(f.dtype).view(-1, 1, 1, 1).expand_as(masks[0])
        y_hat = sum(part * mask for part, mask in zip(parts, masks, strict=True))
        error = sum((m * u).sum() / u.sum().clamp(min=1) for m, u in zip(missed, used, strict=True))
        return Tokens(index, used, z, error, stop, torch.cat([y_hat, *masks[1:], sign], 1))

    @torch.no_grad()
    def start(self, f: Tensor, maps: bool = True, fresh: bool = True) -> None:
        """Set the maps to principal components of f (B, d, 4h, 4w) and the codebooks to k-means of what they give.

        Args:
            maps: otherwise they stay as they are.
            fresh: otherwise k-means begins at the codes there are.
        """
        rest = f
        for codebook, down, up, k in zip(self.codebooks, self.down, self.up, (4, 2, 1), strict=True):
            d = f.shape[1]
            if maps and k > 1:
                vectors = F.pixel_unshuffle(rest, k).permute(0, 2, 3, 1).reshape(-1, d * k * k)
                _, basis = torch.linalg.eigh((vectors.T @ vectors).double())
                basis = basis[:, -d:].flip(1).T.to(f.dtype)
                down.weight.copy_(basis)
                up.pointwise.weight.copy_(basis.T)
            vector = down(rest)
            codebook.start(vector.permute(0, 2, 3, 1).reshape(-1, d), fresh)
            rest = rest - up(codebook(vector)[0])


def refine(errors: Tensor, trade: Tensor) -> tuple[Tensor, list[Tensor]]:
    """How far regions are refined.

    Args:
        errors: see `Layers`.
        trade: (B, 1, 1).

    Returns:
        (`Tokens.stop`, `Tokens.used`)
    """
    stop = (errors + trade[:, None] * errors.new_tensor(TOKENS).view(1, 3, 1, 1)).argmin(1)
    return stop, [spread(stop >= grid, 2**grid) for grid in range(3)]
