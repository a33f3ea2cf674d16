"""The reduced synthesis: one matrix from the latents of a position to its pixels at half the size.

The transforms begin as a DCT and stay close to one, so what a small picture needs of the latents is nearly linear in
them, as a JPEG decoder's reduced inverse DCT is. The matrix is fitted by least squares to what the whole synthesis
shows of random discs that cover each other ("dead leaves", Lee, Mumford and Huang, IJCV 2001), whose edges, gradients
and grain are like those of photographs; so an export needs no data. Sizes of 1/4 and 1/8 are averages of that of 1/2.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from pixa.models.backbone import Backbone
from pixa.models.layers import LEVELS

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
    """The matrix of a model, over pictures at all levels: "weight" (M, 3, 8, 8) and "bias" (3, 8, 8)."""
    model.eval()
    rng, m = np.random.default_rng(1), model.config.m
    gram, product = np.zeros((m + 1, m + 1)), np.zeros((m + 1, 3 * SIDE**2))
    for level in np.linspace(0, LEVELS - 1, PICTURES).round():
        x = torch.tensor(dead_leaves(rng)).permute(2, 0, 1)[None] / 255
        levels = torch.tensor([int(level)])
        y = model.analyse(x)
        y_hat = model.code(y, model.hyper(y, levels), levels).y_hat
        shown = model.g_s(y_hat, model.vector(levels)).mul(255).clamp(0, 255)
        target = F.pixel_unshuffle(F.avg_pool2d(shown, 2), SIDE)[0].flatten(1).double().numpy()
        latents = y_hat[0].flatten(1).double().numpy()
        latents = np.vstack([latents, np.ones_like(latents[:1])])
        gram += latents @ latents.T
        product += latents @ target.T
    ridge = np.diag(np.append(np.full(m, RIDGE * np.trace(gram[:m, :m]) / m), 0))
    weight = np.linalg.lstsq(gram + ridge, product, rcond=None)[0].astype(np.float32).reshape(m + 1, 3, SIDE, SIDE)
    return {"weight": weight[:m].astype(np.float16), "bias": weight[m]}


def write(model: Backbone, folder: Path) -> str:
    """Write the reduced synthesis of a model beside its graphs; returns what the manifest says of it."""
    np.savez_compressed(folder / FILE, **fit(model))
    return hashlib.sha256((folder / FILE).read_bytes()).hexdigest()[:8]
