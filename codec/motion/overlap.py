"""Overlapped block motion compensation: what a vector predicts reaches into the blocks around, and neighbours fade into
each other (Orchard and Sullivan, "Overlapped block motion compensation: an estimation-theoretic approach", 1994).

Between pixels lie the eight taps that H.265 has for luma. Arrays are NumPy's or torch's alike.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from pixa.motion.fields import BLOCK, FADE, UNIT, like, places, typed
from pixa.native import kernels

TAPS = np.float32(
    [
        [0, 0, 0, 64, 0, 0, 0, 0],
        [-1, 4, -10, 58, 17, -5, 1, 0],
        [-1, 4, -11, 40, 40, -11, 4, -1],
        [0, 1, -5, 17, 58, -10, 4, -1],
    ]
)
TAPS /= 64  # weights by phase, a quarter of a pixel each, of the pixels around
REACHED = TAPS.shape[1]  # pixels that a place between pixels is made of
SPAN = BLOCK + FADE  # that a vector predicts
FIRST, LAST = UNIT, 2 * UNIT  # added to the phase for blocks at the near and at the far edge, which nothing fades into


def moved(picture: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """The prediction (16h, 16w, 3) uint8 from the past picture along motion (h, w, 2), as `compensate`, but rounded.

    Its sums are whole numbers of 2**-20 levels, which float64 holds, so that kernels predict the same.
    """
    if native := kernels():
        result = np.empty(picture.shape, np.uint8)
        picture, motion = np.ascontiguousarray(picture), np.ascontiguousarray(motion, np.int32)
        native.compensate(picture, *motion.shape[:2], motion, result)
        return result
    planes = np.moveaxis(picture, 2, 0)[None].astype(np.float64)
    rounded = np.floor(compensate(planes, motion[None])[0] + 0.5).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(rounded, 0, 2))


@cache
def matrices() -> np.ndarray:
    """(16, SPAN, SPAN + 7) float32: from pixels read along one axis to weighted predictions, by phase and
    edge.
    """
    fade, full = (np.arange(FADE) + 0.5) / FADE, np.ones(FADE)
    result = np.zeros((4 * UNIT, SPAN, SPAN + REACHED - 1), np.float32)
    for number, matrix in enumerate(result):
        ends = full if number & FIRST else fade, full if number & LAST else 1 - fade
        for place, weight in enumerate(np.concatenate([ends[0], np.ones(BLOCK - FADE), ends[1]])):
            matrix[place, place : place + REACHED] = weight * TAPS[number % UNIT]
    return result


def compensate(picture, motion):
    """The prediction (B, 3, 16h, 16w) of a picture from the past one (B, 3, 16h, 16w) along motion (B, h, w, 2).

    Both pictures are of one type of floats. What lies beyond the edge is like the edge.
    """
    count, height, width = motion.shape[:3]
    kinds, read = like(matrices(), picture), SPAN + REACHED - 1
    near = places(read, motion) - FADE // 2 - REACHED // 2 + 1
    starts, kernels = [], []
    for axis, size in enumerate((height, width)):
        block = places(size, motion)
        edge = FIRST * (block == 0) + LAST * (block == size - 1)
        shape = (size, 1) if axis == 0 else (size,)
        kernels.append(kinds[motion[..., axis] % UNIT + edge.reshape(shape)])
        index = (BLOCK * block.reshape(shape) + motion[..., axis] // UNIT)[..., None] + near
        starts.append(index.clip(0, BLOCK * size - 1))
    rows, columns = starts
    plane = picture.swapaxes(0, 1).reshape(3, -1)
    batch = BLOCK * height * places(count, motion)[:, None, None, None]
    index = BLOCK * width * (rows + batch)[..., :, None] + columns[..., None, :]
    pixels = plane.take(index, 1) if isinstance(plane, np.ndarray) else plane[:, index]  # (3, B, h, w, read, read)
    parts = kernels[0] @ pixels @ kernels[1].swapaxes(-1, -2)
    total = overlapped(parts.reshape(-1, height, width, SPAN, SPAN))
    inner = (slice(FADE // 2, FADE // 2 + BLOCK * size) for size in (height, width))
    return total[:, *inner].reshape(3, count, BLOCK * height, BLOCK * width).swapaxes(0, 1)


def overlapped(parts):
    """The sum (N, 16h + 16, 16w + 16) of squares (N, h, w, 24, 24), one every 16 pixels; the first is at its corner."""
    count, height, width = parts.shape[:3]
    total = typed(like(np.zeros((count, height + 1, BLOCK, width + 1, BLOCK), np.float32), parts), parts)
    parts = parts.swapaxes(2, 3)
    for down, rows in enumerate((slice(0, BLOCK), slice(BLOCK, SPAN))):
        for across, columns in enumerate((slice(0, BLOCK), slice(BLOCK, SPAN))):
            part = parts[:, :, rows, :, columns]
            total[:, down : down + height, : part.shape[2], across : across + width, : part.shape[4]] += part
    return total.reshape(count, BLOCK * (height + 1), BLOCK * (width + 1))
