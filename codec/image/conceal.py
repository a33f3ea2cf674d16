"""What a lost tile most likely held: latents that continue those around it smoothly.

Push-pull (Gortler et al., "The Lumigraph", SIGGRAPH 1996): averages of what is known, coarser and coarser until nothing
is missing, then interpolated back into the holes. The decoder paints the picture that belongs to such latents.
"""

from __future__ import annotations

import numpy as np


def fill(planes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Planes (C, h, w) whose holes, where `known` (h, w) is false, are filled from the rest; all zero where nothing is
    known at all."""
    if known.all() or not known.any():
        return planes * known
    height, width = known.shape
    if height == width == 1:
        return planes
    padding = (0, height % 2), (0, width % 2)
    weights = np.pad(known, padding).astype(np.float32)
    padded = np.pad(planes * known, ((0, 0), *padding)).astype(np.float32)
    squares = lambda x: x.reshape(*x.shape[:-2], x.shape[-2] // 2, 2, x.shape[-1] // 2, 2)
    count = squares(weights).sum((1, 3))
    means = squares(padded).sum((2, 4)) / np.maximum(count, 1)
    finer = doubled(fill(means, count > 0))[:, :height, :width]
    return np.where(known, planes, finer)


def doubled(planes: np.ndarray) -> np.ndarray:
    """(C, h, w) -> (C, 2h, 2w), bilinear."""
    for axis in (1, 2):
        last = planes.shape[axis] - 1
        before = planes.take(np.maximum(np.arange(last + 1) - 1, 0), axis)
        behind = planes.take(np.minimum(np.arange(last + 1) + 1, last), axis)
        pairs = np.stack([0.75 * planes + 0.25 * before, 0.75 * planes + 0.25 * behind], axis + 1)
        planes = pairs.reshape(*planes.shape[:axis], 2 * last + 2, *planes.shape[axis + 1 :])
    return planes
