"""The search of an encoder for motion: a field of vectors as smooth as pays, see `pixa.motion.fields`.

It begins with the best whole steps of every block between small pictures, refines them, and then sweeps over the field
again and again: each block considers the vectors around it and such as lie near, and takes the one with the lowest sum
of error and bits. The error is squared, because what is left of it is shown where a block is skipped, and weighed as
the prediction of a block is where it overlaps others. The last sweeps know what these others predict (Orchard and
Sullivan, 1994). Arrays are NumPy's or torch's alike.

Samples and errors are integers, so that all kernels find the same vectors: luma in quarters of a level, what lies
between its pixels in 64ths, and squared differences in quarters again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from pixa.motion.fields import (
    BLOCK,
    FADE,
    RATES,
    REACH,
    UNIT,
    choose,
    in_blocks,
    like,
    lowest,
    median,
    places,
    spread_context,
)
from pixa.motion.overlap import REACHED, SPAN, TAPS, overlapped
from pixa.motion.vectors import Prices
from pixa.native import Kernels, kernels

WORTH = 0.0625  # sum of squared differences of luma, in squared quantiser steps of the latents, that a bit is worth
COARSE, COARSE_REACH = 4, 8  # the search begins with pictures so much smaller, and goes so far in them
SMOOTH = 8.0  # how much dearer than bits the search takes it to depart from any neighbour, at first
# Then what bits weigh, each block with regard to its neighbours: a field that starts smooth and comes loose where that
# pays ends with fewer bits than one that starts with the best vector of every block.
SWEEPS = 4.0, 3.0, 2.0, 1.5, 1.0, 1.0
FITS = 3  # sweeps that know what neighbours predict
DEPARTURE, DISTANCE = np.log2((1 + RATES) / (1 - RATES)), -np.log2(RATES)  # bits: -log2 of a table's mass at d steps
TURNS = np.log2(1.0 + np.arange(4 * REACH + 1))  # what it costs to depart from a neighbour by so much
DEAREST = 9.0  # bits that a component of a vector is taken to cost at most
QUARTERS = 4  # of a level, in which luma and its errors are whole
WHITE = 64 * 255  # in the finer units of what lies between pixels
AROUND = np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)])


class Patches:
    """The squares of planes (B, H, W) of quarters of a level that vectors lead to, in 64ths of a level, int32; between
    pixels as `pixa.motion.overlap` has it, with the sums of either direction rounded. Beyond the edge all is like the
    edge.
    """

    def __init__(self, planes, parts: int = UNIT):
        """`parts` of a pixel are told apart: 1 or UNIT."""
        height, width = planes.shape[1:]
        rows, columns = (places(n + 2 * SPAN + REACHED - 1, planes) - SPAN - REACHED // 2 + 1 for n in (height, width))
        planes = planes[:, rows.clip(0, height - 1)][:, None, :, columns.clip(0, width - 1)]
        weights = list(enumerate(like(64 * TAPS[:parts, :, None, None], planes).swapaxes(0, 1)))
        height, width = height + 2 * SPAN, width + 2 * SPAN
        planes = sum(planes[:, :, k : k + height] * weight for k, weight in weights)
        planes = floor((planes + 2) / 4)
        planes = sum(planes[:, :, None, :, k : k + width] * weight for k, weight in weights)
        planes = whole(floor((planes + 32) / 64).clip(0, WHITE))
        self.limits = height - SPAN, width - SPAN
        self.squares = squares(planes.reshape(-1, parts**2, height, width))

    def at(self, number, motion, row, column):
        """(N, 24, 24): blocks at rows and columns of planes of such numbers, four pixels around them included, along
        motion (N, 2); all but that (N,).
        """
        part = motion % UNIT
        starts = (
            (BLOCK * block + motion[:, axis] // UNIT + SPAN - FADE // 2).clip(0, self.limits[axis])
            for axis, block in enumerate((row, column))
        )
        return self.squares[number, UNIT * part[:, 0] + part[:, 1], *starts]


def squares(planes):
    """All squares (B, P, H - 23, W - 23, 24, 24) of planes (B, P, H, W), a view."""
    if isinstance(planes, np.ndarray):
        return np.lib.stride_tricks.sliding_window_view(planes, (SPAN, SPAN), (2, 3))
    return planes.unfold(2, SPAN, 1).unfold(3, SPAN, 1)


def luma(picture):
    """(B, H, W, 3) integers -> (B, H, W) quarters of a level, float32."""
    picture = whole(picture)
    sums = picture[..., 0] + 2 * picture[..., 1] + picture[..., 2]
    return sums.astype(np.float32) if isinstance(sums, np.ndarray) else sums.float()


def whole(x):
    return x.astype(np.int32) if isinstance(x, np.ndarray) else x.int()


def floor(x):
    return np.floor(x) if isinstance(x, np.ndarray) else x.floor()


@functools.cache
def window() -> np.ndarray:
    """What the prediction of a block weighs in it and around it, in 256ths, (24, 24) int32."""
    fade = 2 * np.arange(FADE) + 1
    side = np.concatenate([fade, np.full(BLOCK - FADE, 2 * FADE), fade[::-1]])
    return np.outer(side, side).astype(np.int32)


@functools.cache
def root_window() -> np.ndarray:
    """What a difference weighs before it is squared, so that squares weigh as `window` says; likewise."""
    return np.rint(16 * np.sqrt(window())).astype(np.int32)


def weighed(squares, mask):
    """64ths of a level (..., 24, 24) times 256ths, in quarters of a level."""
    return (squares * mask + 2048) >> 12


class Field:
    """The field on its way; blocks have numbers, N in all.

    Attributes:
        vectors: (N, 2).
        plane, row, column: (N,), where blocks lie.
        goal, mask: what a prediction (24, 24) of a block, times the mask, should be, (N, 24, 24) and (24, 24).
        error: of the vectors, squared quarters of a level (N,).
    """

    def __init__(self, current, past, penalty):
        """Planes (B, H, W) of luma, and what a bit is worth in squared levels (B, 1, 1)."""
        coarsest = coarse(current, past)
        self.shape, self.current, self.patches = coarsest.shape, current, Patches(past)
        self.vectors, self.penalty = coarsest.reshape(-1, 2), (QUARTERS**2 * penalty + 0 * coarsest[..., 0]).reshape(-1)
        _, height, width, _ = self.shape
        number = self.number = places(len(self.vectors), coarsest)
        self.plane, self.row, self.column = number // (height * width), number // width % height, number % width
        self.mask = like(root_window(), coarsest)
        here = Patches(current, 1).at(self.plane, 0 * self.vectors, self.row, self.column)
        self.goal = weighed(here, self.mask)
        self.error = self.errors(self.vectors, number)

    def predictions(self, vectors, blocks):
        """What blocks (K,) with such vectors (K, 2) predict, (K, 24, 24), times the mask."""
        return weighed(self.patches.at(self.plane[blocks], vectors, self.row[blocks], self.column[blocks]), self.mask)

    def errors(self, vectors, blocks):
        """Sums of squared differences (K,) of blocks with such vectors (K, 2)."""
        off = self.predictions(vectors, blocks)
        off -= self.goal[blocks]
        off *= off
        return off.reshape(-1, SPAN**2).sum(1)

    def consider(self, candidates: list, price: Callable, blocks, weight: float = 1) -> None:
        """Give blocks (K,) the best of their own and other vectors, each (K, 2), by error and `weight` times bits."""
        worth, tried = weight * self.penalty[blocks], [self.vectors[blocks]]
        total = self.error[blocks] + worth * price(tried[0])
        for candidate in candidates:
            candidate = candidate.clip(-REACH, REACH)
            new = functools.reduce(lambda a, b: a & b, ((candidate != other).any(-1) for other in tried))
            tried.append(candidate)
            error = self.errors(candidate[new], blocks[new])
            dearer = error + (worth * price(candidate))[new]
            better = dearer < total[new]
            chosen = blocks[new][better]
            self.vectors[chosen], self.error[chosen] = candidate[new][better], error[better]
            total[new] = lowest(total[new], dearer)

    def around(self, blocks) -> list:
        """The four vectors (K, 2) around each block, at the edge its own."""
        _, height, width, _ = self.shape
        field, plane, row, column = (
            self.vectors.reshape(self.shape),
            *(place[blocks] for place in (self.plane, self.row, self.column)),
        )
        rows = [field[plane, (row + way).clip(0, height - 1), column] for way in (-1, 1)]
        return rows + [field[plane, row, (column + way).clip(0, width - 1)] for way in (-1, 1)]

    def refine(self) -> None:
        """Each block by itself."""
        moves = lambda vectors: 0.1 * (abs(vectors).sum(-1) > 0)
        self.consider([0 * self.vectors], moves, self.number)
        for step in (2 * UNIT, UNIT, UNIT // 2, UNIT // 4):
            self.consider([self.vectors + way for way in like(step * AROUND, self.vectors)], moves, self.number)

    def smooth(self, weight: float, prices: Callable, more: list) -> None:
        """Each block with regard to its neighbours, bits by `prices(blocks, around, vectors)`; `more` fields (N, 2) are
        considered, too.
        """
        for odd in (True, False):
            blocks = self.number[(self.row + self.column) % 2 == odd]
            around = self.around(blocks)
            middle = median(*around)
            near = [middle + way for way in like(AROUND[:4], middle)]
            others = [*around, middle, 0 * middle, *near, *(field[blocks] for field in more)]
            self.consider(others, prices(blocks, around, self.vectors[blocks]), blocks, weight)

    def fit(self, prices: Callable, more: list) -> None:
        """Each block with regard to what those around predict where they overlap it; all else as in `smooth`."""
        squares_of = lambda planes, blocks: squares(planes[:, None])[
            self.plane[blocks], 0, BLOCK * self.row[blocks], BLOCK * self.column[blocks]
        ]
        laid = lambda parts: overlapped(parts.reshape(*self.shape[:3], SPAN, SPAN))
        self.mask = like(window(), self.vectors)
        parts = self.predictions(self.vectors, self.number)
        rows, columns = ((places(n + BLOCK, self.vectors) - FADE // 2).clip(0, n - 1) for n in self.current.shape[1:])
        wanted = weighed(laid(0 * parts + self.mask), 16 * whole(self.current[:, rows][:, :, columns]))
        for odd_row, odd_column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            blocks = self.number[(self.row % 2 == odd_row) & (self.column % 2 == odd_column)]
            self.goal[blocks] = squares_of(wanted - laid(parts), blocks) + parts[blocks]
            self.error[blocks] = self.errors(self.vectors[blocks], blocks)
            around = self.around(blocks)
            middle = median(*around)
            near = [vector + way for vector in (middle, self.vectors[blocks]) for way in like(AROUND, middle)]
            others = [*around, middle, 0 * middle, *near, *(field[blocks] for field in more)]
            self.consider(others, prices(blocks, around, self.vectors[blocks]), blocks)
            parts[blocks] = self.predictions(self.vectors[blocks], blocks)


def search(picture, past, penalty, prices: Prices | None = None, before=None):
    """A field of vectors (B, h, w, 2) from a picture to the past one, both (B, 16h, 16w, 3) integers; kernels find it
    between single ones of uint8.

    Args:
        penalty: how much of the sum of squared differences of a block's luma one bit of motion is worth; a number, or
            (B, 1, 1) of them.
        prices: what vectors take, as `pixa.motion.vectors.Prices` tells it, instead of by how far neighbours lie apart.
        before: a field to be considered, the motion of the frame before.
    """
    if getattr(picture, "dtype", None) == np.uint8 and len(picture) == 1 and (native := kernels()):
        return native_search(native, picture[0], past[0], penalty, prices, before)[None]
    field = Field(luma(picture), luma(past), penalty)
    more = [] if before is None else [before.reshape(-1, 2)]
    field.refine()
    field.smooth(SMOOTH, departure, more)
    for weight in SWEEPS:
        field.smooth(weight, bits, more)
    for _ in range(FITS):
        field.fit(prices or bits, more)
    return field.vectors.reshape(field.shape)


def native_search(native: Kernels, picture, past, penalty: float, prices: Prices | None, before) -> np.ndarray:
    """As `search` of single pictures (16h, 16w, 3) uint8; the field (h, w, 2) int32."""
    height, width = (n // BLOCK for n in picture.shape[:2])
    field = np.empty((height, width, 2), np.int32)
    told = None if before is None else np.ascontiguousarray(before[0], np.int32)
    expecting = (None, 0, None, None, 0)
    if prices:
        net, activity = prices.net, np.ascontiguousarray(prices.past.activity, np.int32)
        expecting = *net.flat, prices.bits, activity, prices.past.level
    pictures = map(np.ascontiguousarray, (picture, past))
    mask = (8 * root_window()).astype(np.int16)
    native.search(*pictures, height, width, float(penalty), mask, TURNS, DEPARTURE, DISTANCE, told, *expecting, field)
    return field


def departure(blocks, around, vectors) -> Callable:
    """What vectors (..., 2) cost by how far they lie from all of their neighbours, (...)."""
    turns = like(TURNS, 1.0 * around[0])
    return lambda motion: sum(turns[abs(motion - near).sum(-1)] for near in around) / len(around)


def bits(blocks, around, vectors) -> Callable:
    """What vectors (..., 2) take between such neighbours, (...), by `DEPARTURE` and `DISTANCE`."""
    context, middle = spread_context(*around), median(*around)
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
        error = error + QUARTERS * (abs(reach)[:, None] + abs(down))
        across = error.argmin(2)
        error = error[batch[:, None, None], row[:, None], across, column]
        if best is None:
            best, cost = across[..., None] * places(2, across), error
        better = error <= cost
        cost = choose(better, error, cost)
        best[..., 0] = choose(better, down, best[..., 0])
        best[..., 1] = choose(better, across - COARSE_REACH, best[..., 1])
    return best * COARSE * UNIT
