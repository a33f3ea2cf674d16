"""The entropy model of tokens trained alone, on tokens that were computed once."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pixa.models.nets.pyramid import refine
from pixa.models.nets.vqgan import Vqgan


class TokenBits(nn.Module):
    """A model of which the entropy model alone is trained."""

    def __init__(self, model: Vqgan):
        super().__init__()
        self.model = model.requires_grad_(False)
        model.prior.requires_grad_(True)

    def forward(self, index: list[Tensor], errors: Tensor, level: Tensor) -> Tensor:
        """Bits a token, the map's among them, of each picture (B,).

        Args:
            index: tokens (B, h, w) of all regions, coarse to fine.
            errors: of these, see `Layers`.
            level: (B,).
        """
        stop, used = refine(errors, self.model.trade(level, errors))
        bits = self.model.prior(index, used, stop, level, self.model.is_nested(level))
        return sum(b.sum((1, 2)) for b in bits) / sum(u.sum((1, 2)) for u in used)


class KeptTokens:
    """Tokens of n crops (B, 3, H, W) in [0, 1], by grid, and `Layers.errors`: as codes, and nested."""

    @torch.no_grad()
    def __init__(self, model: Vqgan, crops: Iterable[Tensor]):
        found = [], []
        for x in crops:
            f = model.analyse(x)
            for nested, parts in enumerate(found):
                layers = model.pyramid.split(f, torch.full((len(f),), bool(nested), device=f.device))
                parts.append([*(index.short() for index in layers.index), layers.errors])
        self.parts = [tuple(map(torch.cat, zip(*parts, strict=True))) for parts in found]

    def __len__(self) -> int:
        return len(self.parts[0][0])

    def take(self, own: Tensor, nested: Tensor) -> tuple[list[Tensor], Tensor]:
        """(tokens (B, h, w) by grid, errors) of the crops `own` (B,), nested where `nested` (B,) says so."""
        *index, errors = (
            torch.where(nested.view(-1, *[1] * (codes.ndim - 1)), groups[own], codes[own])
            for codes, groups in zip(*self.parts, strict=True)
        )
        return [i.long() for i in index], errors
