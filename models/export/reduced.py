"""The reduced synthesis: one matrix from the latents of a position to its pixels at half the size.

The transforms begin as a DCT and stay close to one, so what a small picture needs of the latents is nearly linear in
them, as a JPEG decoder's reduced inverse DCT is. The matrix is fitted by least squares to what the whole synthesis
shows of random discs that cover each other ("dead leaves", Lee, Mumford and Huang, IJCV 2001), whose edges, gradients
and grain are like those of photographs; so an export needs no data. Sizes of 1/4 and 1/8 are averages of that of 1/2,
but where a model codes some channels before all others, 1/8 takes those alone and lets neighbours tell what they lack.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixa.models.export.architectures import architecture_of
from pixa.models.nets.backbone import Backbone
from pixa.models.nets.layers import LEVELS

FILE = "reduced.npz"
SIDE = 8  # pixels at half the size that a latent position covers, in each direction
PICTURES, SIZE, DISCS = 20, 192, 80
RIDGE = 1e-4  # of the mean energy of a latent


def dead_leaves(rng: np.random.Generator, size: int = SIZE) -> np.ndarray:
    """A picture (size, size, 3) uint8 of ellipses, each with a colour, a gradient and grain of its own."""
    rows, columns = np.mgrid[:size, :size]
    picture = np.broadcast_to(rng.uniform(0, 255, 3), (size, size, 3)).copy()
    for _ in range(DISCS):
        radius = 2 + size / 2 * rng.uniform(0.05, 1) ** 2.5
        (top, left), angle = rng.uniform(-0.1, 1.1, 2) * size, rng.uniform(0, np.pi)
        u = (rows - top) * np.cos(angle) + (columns - left) * np.sin(angle)
        v = (columns - left) * np.cos(angle) - (rows - top) * np.sin(angle)
        inside = u**2 + (v / rng.uniform(0.3, 1)) ** 2 < radius**2
        colour, slope = rng.uniform(0, 255) + rng.normal(0, 40, 3), rng.normal(0, 1, 2)
        shade = slope[0] * u[inside] + slope[1] * v[inside]
        shade += rng.normal(0, rng.choice([0, 4, 12]), shade.shape)
        picture[inside] = colour + shade[:, None]
    return picture.clip(0, 255).astype(np.uint8)


@torch.no_grad()
def fit(model: Backbone) -> dict[str, np.ndarray]:
    """The matrix of a model, over pictures at all levels: "weight" (M, 3, 8, 8) and "bias" (3, 8, 8).

    Where L channels are coded first, also that from them and their neighbours to 1/8 of the size: "first_weight"
    (L, 3, 3, 3, 2, 2) and "first_bias" (3, 2, 2).
    """
    model.eval()
    rng, first = np.random.default_rng(1), coded_first(architecture_of(model).passes(model))
    whole, part = Fit(), Fit()
    for level in np.linspace(0, LEVELS - 1, PICTURES).round():
        x = torch.tensor(dead_leaves(rng)).permute(2, 0, 1)[None] / 255
        levels = torch.tensor([int(level)])
        y = model.analyse(x)
        y_hat = model.code(y, model.hyper(y, levels), levels).y_hat
        shown = model.g_s(y_hat, model.vector(levels)).mul(255).clamp(0, 255)
        whole.add(y_hat, F.pixel_unshuffle(F.avg_pool2d(shown, 2), SIDE))
        if first:
            near = F.unfold(F.pad(y_hat[:, :first], (1, 1, 1, 1), mode="replicate"), 3)
            part.add(near, F.pixel_unshuffle(F.avg_pool2d(shown, 8), SIDE // 4))
    weight, bias = whole.solve()
    arrays = {"weight": weight.reshape(-1, 3, SIDE, SIDE).astype(np.float16), "bias": bias.reshape(3, SIDE, SIDE)}
    if first:
        weight, bias = part.solve()
        arrays |= {"first_weight": weight.reshape(first, 3, 3, 3, 2, 2), "first_bias": bias.reshape(3, 2, 2)}
    return arrays


class Fit:
    """Least squares from latents (1, C, ...) to pixels (1, P, ...), position by position."""

    def __init__(self):
        self.gram = self.product = 0.0

    def add(self, latents: Tensor, pixels: Tensor) -> None:
        x, target = (a[0].flatten(1).double().numpy() for a in (latents, pixels))
        x = np.vstack([x, np.ones_like(x[:1])])
        self.gram, self.product = self.gram + x @ x.T, self.product + x @ target.T

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight (C, P) and bias (P), float32."""
        count = len(self.gram) - 1
        ridge = np.full(count, RIDGE * np.trace(self.gram[:count, :count]) / count)
        solution = np.linalg.lstsq(self.gram + np.diag(np.append(ridge, 0)), self.product, rcond=None)[0]
        return solution[:count].astype(np.float32), solution[count].astype(np.float32)


def coded_first(passes: np.ndarray) -> int:
    """How many channels the first of passes (P, M, places) code whole, before any symbol of the others; 0 for none."""
    done = np.zeros(passes.shape[1:], bool)
    for pattern in passes[:-1]:
        done |= pattern
        if done.any() and (done.all(1) == done.any(1)).all():
            return int(done.all(1).argmin())
    return 0


def write(model: Backbone, folder: Path) -> str:
    """Write the reduced synthesis of a model beside its graphs; returns what the manifest says of it."""
    np.savez_compressed(folder / FILE, **fit(model))
    return hashlib.sha256((folder / FILE).read_bytes()).hexdigest()[:8]
