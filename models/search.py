"""The search of an encoder for motion: a field of vectors as smooth as pays, see `pixa.models.motion`.

It begins with the best whole steps of every block between small pictures, refines them, and then sweeps over the field
again and again: each block considers the vectors around it and such as lie near, and takes the one with the lowest sum
of error and bits. The error is squared, because what is left of it is shown where a block is skipped, and weighed as
the prediction of a block is where it overlaps others (Orchard and Sullivan, 1994). Arrays are NumPy's or torch's alike.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from pixa.models.motion import BLOCK, FADE, RATES, REACH, UNIT, choose, in_blocks, like, median, places, spread_context

WORTH = 0.0625  # sum of squared differences of luma, in squared quantiser steps of the latents, that a bit is worth
COARSE, COARSE_REACH = 4, 8  # the search begins with pictures so much smaller, and goes so far in them
SMOOTH = 8.0  # how much dearer than bits the search takes it to depart from any neighbour, at first
SWEEPS = (4, 3, 2, 1.5, 1, 1)  # then what bits weigh, each block with regard to its neighbours: a field that starts
# smooth and comes loose where that pays ends with fewer bits than one that starts with the best vector of every block
DEPARTURE, DISTANCE = np.log2((1 + RATES) / (1 - RATES)), -np.log2(RATES)  # bits: -log2 of a table's mass at d steps
DEAREST = 9.0  # bits that a component of a vector is taken to cost at most
AROUND = np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)])
SPAN = BLOCK + FADE  # pixels a side that a vector predicts


class Patches:
    """The squares of a plane (B, H, W) that vectors lead to, and what lies between its pixels: straight lines, and
    beyond the edge all is like the edge.
    """

    def __init__(self, plane, parts: int = UNIT):
        """`parts` of a pixel are told apart: 1 or UNIT."""
        height, width = plane.shape[1:]
        rows, columns = (places(n + 2 * SPAN + 1, plane) - SPAN for n in (height, width))
        planes = plane[:, rows.clip(0, height - 1)][:, None, :, columns.clip(0, width - 1)]
        share = like(np.arange(parts, dtype=np.float32)[:, None, None] / UNIT, plane)
        planes = planes[:, :, :-1] + (planes[:, :, 1:] - planes[:, :, :-1]) * share
        planes = planes[:, :, None, :, :-1] + (planes[:, :, None, :, 1:] - planes[:, :, None, :, :-1]) * share
        self.limits = height + SPAN, width + SPAN
        self.squares = squares(planes.reshape(len(plane), parts**2, *planes.shape[3:]))

    def at(self, motion, row, column):
        """(B, N, 24, 24): blocks at rows and columns (N,), four pixels around them included, along motion (B, N, 2)."""
        part = motion % UNIT
        starts = (
            (BLOCK * block + motion[..., axis] // UNIT + SPAN - FADE // 2).clip(0, self.limits[axis])
            for axis, block in enumerate((row, column))
        )
        return self.squares[places(len(motion), motion)[:, None], UNIT * part[..., 0] + part[..., 1], *starts]


def squares(planes):
    """All squares (B, P, H - 23, W - 23, 24, 24) of planes (B, P, H, W), a view."""
    if isinstance(planes, np.ndarray):
        return np.lib.stride_tricks.sliding_window_view(planes, (SPAN, SPAN), (2, 3))
    return planes.unfold(2, SPAN, 1).unfold(3, SPAN, 1)


def luma(picture):
    """(B, H, W, 3) integers -> (B, H, W) float32."""
    sums = picture[..., 0] + 2 * picture[..., 1] + picture[..., 2]
    return (sums.astype(np.float32) if isinstance(sums, np.ndarray) else sums.float()) / 4


@functools.cache
def window() -> np.ndarray:
    """What the squared differences of a block and its fringe weigh, (24, 24) float32: as its prediction does there."""
    fade = (np.arange(FADE) + 0.5) / FADE
    side = np.concatenate([fade, np.ones(BLOCK - FADE), 1 - fade])
    return np.outer(side, side).astype(np.float32)


def search(picture, past, penalty):
    """A field of vectors (B, h, w, 2) from a picture to the past one, both (B, 16h, 16w, 3) integers.

    Args:
        penalty: how much of the sum of squared differences of a block's luma one bit of motion is worth; a number, or
            (B, 1, 1) of them.
    """
    current, past = luma(picture), luma(past)
    best = coarse(current, past)
    number = places(best.shape[1] * best.shape[2], best)
    places_of = lambda chosen: (slice(None), chosen // best.shape[2], chosen % best.shape[2])
    penalty = penalty + 0 * best[:, :, :, 0]
    everywhere = places_of(number)
    blocks, patches = Patches(current, 1).at(0 * best[everywhere], *everywhere[1:]), Patches(past)
    blocks, weights = blocks.reshape(*best.shape[:3], SPAN, SPAN), like(window().ravel(), current)

    def difference(motion, here, target):
        error = patches.at(motion, *here[1:])
        error -= target
        error *= error
        return error.reshape(*error.shape[:2], -1) @ weights

    def consider(candidates, price: Callable, here: tuple, weight: float = 1) -> None:
        vector, error, worth, target = best[here], cost[here], weight * penalty[here], blocks[here]
        total = error + worth * price(vector)
        for candidate in candidates:
            candidate = candidate.clip(-REACH, REACH)
            other = difference(candidate, here, target)
            dearer = other + worth * price(candidate)
            better = dearer < total
            vector, error = choose(better[..., None], candidate, vector), choose(better, other, error)
            total = choose(better, dearer, total)
        best[here], cost[here] = vector, error

    cost = difference(best[everywhere], everywhere, blocks[everywhere]).reshape(best.shape[:3])
    moves = lambda motion: 0.1 * (abs(motion).sum(2) > 0)
    consider([0 * best[everywhere]], moves, everywhere)
    for step in (2 * UNIT, UNIT, UNIT // 2, UNIT // 4):
        consider([best[everywhere] + way for way in like(step * AROUND, best)], moves, everywhere)
    for sweep, weight in enumerate((SMOOTH, *SWEEPS)):
        for odd in (True, False):
            here = places_of(number[(number // best.shape[2] + number % best.shape[2]) % 2 == odd])
            around = [near[here] for near in neighbours(best)]
            middle = median(*around)
            price = bits(around, middle) if sweep else departure(around)
            near = [middle + way for way in like(AROUND[:4], best)]
            consider([*around, middle, 0 * middle, *near], price, here, weight)
    return best


def departure(around) -> Callable:
    """What vectors (..., 2) cost by how far they lie from all of their neighbours, (...)."""
    log2 = np.log2 if isinstance(around[0], np.ndarray) else lambda x: x.log2()
    return lambda motion: sum(log2(1.0 + abs(motion - near).sum(-1)) for near in around) / len(around)


def bits(around, middle) -> Callable:
    """What vectors (..., 2) take between neighbours whose median is `middle`, (...), by `DEPARTURE` and `DISTANCE`."""
    context = spread_context(*around)
    first, further = (like(constant, 1.0 * middle)[context] for constant in (DEPARTURE, DISTANCE))
    return lambda motion: (first + further * abs(motion - middle)).clip(max=DEAREST).sum(-1)


def coarse(current, past):
    """The best whole steps (B, h, w, 2) at a quarter of the size, each block for itself."""
    small, old = (in_blocks(plane, COARSE).sum((2, 4)) for plane in (current, past))
    count, height, width = small.shape
    side = BLOCK // COARSE
    batch, row, column = (places(n, small) for n in (count, height // side, width // side))
    reach = places(2 * COARSE_REACH + 1, small) - COARSE_REACH
    rows = (places(height, small) + reach[:, None]).clip(0, height - 1)
    columns = (places(width, small) + reach[:, None]).clip(0, width - 1)
    best = cost = None
    for down, moved_rows in zip(reach, rows, strict=True):
        error = abs(old[:, moved_rows][:, :, columns] - small[:, :, None])
        error = error.reshape(count, height // side, side, len(reach), width // side, side).sum((2, 5))
        error = error + (abs(reach)[:, None] + abs(down))
        across = error.argmin(2)
        error = error[batch[:, None, None], row[:, None], across, column]
        if best is None:
            best, cost = across[..., None] * places(2, across), error
        better = error <= cost
        cost = choose(better, error, cost)
        best[..., 0] = choose(better, down, best[..., 0])
        best[..., 1] = choose(better, across - COARSE_REACH, best[..., 1])
    return best * COARSE * UNIT


def neighbours(motion):
    """The four around every vector, those at the edge for themselves."""
    height, width = motion.shape[1:3]
    rows, columns = places(height, motion), places(width, motion)
    shifted = [motion[:, (rows + step).clip(0, height - 1)] for step in (-1, 1)]
    return shifted + [motion[:, :, (columns + step).clip(0, width - 1)] for step in (-1, 1)]
