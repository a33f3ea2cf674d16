"""Motion between pictures: one vector for each block of 16x16 pixels, that is for each latent position.

Vectors are integers in quarters of a pixel, (rows, columns), and point from a block to where the past picture has it.
Arrays are NumPy's or torch's alike. How an encoder finds them is its own affair, `pixa.motion.search`.

A field of vectors is coded from coarse to fine: a vector between known ones is predicted by the middle of its four
neighbours, and `pixa.motion.vectors` says how surely. So a field that moves as one costs next to nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pixa.bitstream.tables import integer_frequencies

BLOCK = 16  # pixels a side
UNIT = 4  # steps a pixel
REACH = 256  # largest component of a vector
SPREADS = (0, 1, 2, 4, 8, 16, 32)  # between neighbours: the upper ends of the contexts but the last
FIRST_CONTEXT = 5  # of the vector that nothing predicts
RATES = np.array([0.08, 0.25, 0.35, 0.45, 0.6, 0.75, 0.85, 0.9], np.float32)  # at which tables fall off, by context
FADE = 8  # pixels on which what two neighbours predict fades into each other
STEP_WORTH = 6 / np.log(
    2
)  # bits that a squared quantiser step of a latent is worth, see `pixa.coding.latents.optimise`
SYMBOL_BITS, BLOCK_BITS = 6.5, 8.0  # that a symbol other than zero takes, and a block of latents beside them
FIRST_TABLE = 127  # of motion, behind those of latents and hyper-latents
ACTIVITIES = (0, 2, 6, 15)  # sums of past symbols at a place: the upper ends of what tells its flag, but the last
FLAG_SHARES = (0.05, 0.05, 0.35, 0.35, 0.4, 0.4)  # of flags not as predicted, by how far neighbours agree
FLAG_CONTEXTS = len(FLAG_SHARES) * (len(ACTIVITIES) + 1)


def places(n: int, like):
    """0 to n - 1, in the library and on the device of `like`."""
    return np.arange(n) if isinstance(like, np.ndarray) else like.new_tensor(range(n)).long()


def like(constant: np.ndarray, array):
    """A constant in the library and on the device of an array of its type."""
    return constant if isinstance(array, np.ndarray) else array.new_tensor(constant)


def typed(x, like):
    """x with the type of the elements of `like`."""
    return x.astype(like.dtype) if isinstance(x, np.ndarray) else x.to(like.dtype)


def in_blocks(plane, size: int):
    """(..., s*h, s*w) -> (..., h, s, w, s)."""
    *batch, height, width = plane.shape
    return plane.reshape(*batch, height // size, size, width // size, size)


def skip(y, instead, step, picture, moved):
    """Where latents y (B, M, h, w) are better left as others than coded, (B, h, w) booleans: see `near`, with its
    pictures, and `worthless`.
    """
    return near(step, picture, moved) | worthless(y, instead, step)


def near(step, picture, moved):
    """Where the moved picture is so near the picture, both (B, 16h, 16w, 3) of one scale with the step, that all of its
    error is worth no more than the least that a block takes, (B, h, w) booleans.
    """
    error = in_blocks(((picture - moved) ** 2).sum(-1), BLOCK).sum((2, 4))
    return STEP_WORTH * error / (step**2).mean((1, 2, 3)).reshape(-1, 1, 1) < BLOCK_BITS


def worthless(y, instead, step):
    """Where latents y (B, M, ...) are better left as others than coded, (B, ...) booleans.

    A symbol that takes a latent from r steps off to |r| - 1 is worth 2|r| - 1 squared steps. Where all that are worth
    more than they take do not pay for the block, it is skipped.
    """
    gain = STEP_WORTH * (2 * abs((y - instead) / step) - 1) - SYMBOL_BITS
    return gain.clip(min=0).sum(1) < BLOCK_BITS


def widened(places: np.ndarray, reach: int) -> np.ndarray:
    """The places (h, w) bool that lie so near to true ones, along both axes."""
    for _ in range(reach):
        rows = places.copy()
        rows[1:] |= places[:-1]
        rows[:-1] |= places[1:]
        places = rows.copy()
        places[:, 1:] |= rows[:, :-1]
        places[:, :-1] |= rows[:, 1:]
    return places


def choose(condition, yes, no):
    """Element-wise, of numbers, for arrays of either library."""
    return condition * yes + ~condition * no


def lowest(a, b):
    return np.minimum(a, b) if isinstance(a, np.ndarray) else a.minimum(b)


def highest(a, b):
    return np.maximum(a, b) if isinstance(a, np.ndarray) else a.maximum(b)


def median(a, b, c, d):
    """The mean of the middle two of four, rounded down."""
    low, high = lowest(lowest(a, b), lowest(c, d)), highest(highest(a, b), highest(c, d))
    return (a + b + c + d - low - high) // 2


def spread_context(*around):
    """The contexts (..., 2) of vectors between such neighbours."""
    spread = functools.reduce(highest, around) - functools.reduce(lowest, around)
    return sum(typed(spread > limit, spread) for limit in SPREADS)


class Group(NamedTuple):
    """Vectors of a field that are coded together.

    Attributes:
        place: their rows and columns, each (n,).
        around: the places (4, n) of their neighbours in a field laid flat; none (0, n) of the first vector.
        distance: of these, in blocks; 0 of the first vector.
        straight: whether they lie in its row and column, or else on diagonals.
    """

    place: tuple[np.ndarray, np.ndarray]
    around: np.ndarray
    distance: int
    straight: bool

    def known(self, field: np.ndarray) -> np.ndarray:
        """The neighbours (4, n, C) in a field (h, w, C)."""
        return field.reshape(-1, field.shape[2])[self.around]


@functools.lru_cache(maxsize=8)
def order(height: int, width: int) -> tuple[Group, ...]:
    """The groups in which a field is coded; a neighbour beyond the edge is the first that there is."""
    start = np.zeros(1, int)
    result, step = [Group((start, start), np.zeros((0, 1), int), 0, False)], 1 << (max(height, width) - 1).bit_length()
    while step > 1:
        half = step // 2
        for top, left, ways in ((half, half, DIAGONAL), (0, half, STRAIGHT), (half, 0, STRAIGHT)):
            grid = np.meshgrid(np.arange(top, height, step), np.arange(left, width, step), indexing="ij")
            rows, columns = (axis.ravel() for axis in grid)
            if len(rows):
                y, x = (axis + half * np.array(ways)[:, [i]] for i, axis in enumerate((rows, columns)))
                inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
                around = y * width + x
                around = np.where(inside, around, around[inside.argmax(0), np.arange(len(rows))])
                result.append(Group((rows, columns), around, half, ways is STRAIGHT))
        step = half
    return tuple(result)


DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
STRAIGHT = ((-1, 0), (0, -1), (0, 1), (1, 0))


def groups(field: np.ndarray) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]]:
    """The groups of a field (h, w, C) with what neighbours say of them.

    Yields:
        ((rows, columns), predictions (n, C), contexts (n, C)) of vectors that must be in `field` before the next group.
    """
    for group in order(*field.shape[:2]):
        if not group.distance:
            yield group.place, np.zeros((1, field.shape[2]), int), np.full((1, field.shape[2]), FIRST_CONTEXT)
            continue
        known = group.known(field)
        yield group.place, median(*known), np.searchsorted(SPREADS, known.max(0) - known.min(0))


def flag_contexts(prediction: np.ndarray, contexts: np.ndarray, activity: np.ndarray) -> np.ndarray:
    """The contexts of flags by what `groups` says of each and by the sum of the past symbols at its place."""
    return len(FLAG_SHARES) * np.searchsorted(ACTIVITIES, activity) + 2 * contexts.clip(max=2) + prediction


def flag_frequencies() -> list[np.ndarray]:
    """The tables that flags start with, by context; flags are 0 as predicted or 1."""
    shares = FLAG_SHARES * (len(ACTIVITIES) + 1)
    return [integer_frequencies(np.array([1e-6, 1 - other, other, 1e-6])) for other in shares]
