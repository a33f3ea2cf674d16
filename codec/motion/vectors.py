"""The network that tells where a vector of motion is expected, and how surely.

Small, and of integers alone so that it may choose tables: `pixa.models.nets.exact` has its units; no sum reaches 2**24,
so NumPy runs it exactly. It is asked of rows and of columns by turns and sees, all less the middle of the neighbours
and in steps that grow with the size: the neighbours, where the frame before had them and the vector itself, by how much
they have changed, how large the other component of all this is, how active the latents are, and the vector's row.

It says a mean, in sixteenths of a step, and a scale. The whole part of the mean shifts what is coded; the table is that
of the scale and of how far from whole the mean is, mirrored where it is below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pixa.bitstream.entropy import Decoder
from pixa.bitstream.tables import Tables, integer_frequencies
from pixa.motion.fields import FIRST_TABLE, FLAG_CONTEXTS, REACH, Group, flag_frequencies, median, order
from pixa.native import kernels

RESCALE = {"first": 5, "second": 6, "mean": 6, "scale": 6}  # bits by which the sums of the layers are shifted down
INPUTS = 34
INPUT_BITS = 3
MEANS, MEAN_MAX = 16, 2047  # parts of a step, and the largest number of them
NEAR = (2, 5)  # parts from a whole step: the upper ends of the kinds of tables but the last
KINDS = len(NEAR) + 1
SCALES = 24
SMALLEST, LARGEST = 0.12, 60.0  # scales of Laplace distributions that tables start with
FLOOR = 1e-4  # probability of what these do not expect, falling off with the distance
LIMIT = REACH - 1  # of these tables
DISTANCES = (1, 2, 4, 8)  # to the neighbours, that are told apart; further ones are taken for 8
LARGEST_STEP = 4 * REACH  # between vectors, more than there is; what is told of activity ends here, too


def octaves(n: int) -> int:
    """Eight times the logarithm to the base two of n + 1, straight between powers of two."""
    exponent = (n + 1).bit_length() - 1
    return 8 * exponent + ((n + 1) << 3 >> exponent) - 8


SIZES = np.array([octaves(n) for n in range(LARGEST_STEP + 1)])
STEPS = np.concatenate([-SIZES[:0:-1], SIZES])  # of -LARGEST_STEP to LARGEST_STEP


class Past(NamedTuple):
    """What is known of a tile before its vectors are.

    Attributes:
        field: the vectors of the frame before, (h, w, 2); zeros behind a key frame.
        skip: (h, w) bool.
        activity: sums (h, w) of the sizes of the past symbols.
        level: of the frame.
    """

    field: np.ndarray
    skip: np.ndarray
    activity: np.ndarray
    level: int

    @property
    def flat(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """As kernels take it."""
        field, activity = (np.ascontiguousarray(each, np.int32) for each in (self.field, self.activity))
        return field, np.ascontiguousarray(self.skip), activity, self.level


class Expected(NamedTuple):
    """What is expected of one component of vectors, each (n,): symbol = sign * (vector - centre)."""

    centre: np.ndarray
    sign: np.ndarray
    tables: np.ndarray

    def symbols(self, vectors: np.ndarray) -> np.ndarray:
        return self.sign * (vectors - self.centre)

    def vectors(self, symbols: np.ndarray) -> np.ndarray:
        return (self.centre + self.sign * symbols).clip(-REACH, REACH)


class Told:
    """What the network is told of vectors that are coded together.

    Args:
        known: their neighbours (4, n, 2).
        before: the vectors of the frame before at the same places.
        own: those of the frame before at the places of the vectors themselves, (n, 2).
        skip, activity: as in `Past`, (n,).
        distance, straight: as in `pixa.motion.fields.Group`; without neighbours the distance is 0.

    Attributes:
        middle: of the neighbours, (n, 2).
        inputs: (INPUTS, n, 2), the last of which is to be filled in for columns.
    """

    def __init__(self, known, before, own, skip, activity, level: int, distance: int, straight: bool):
        self.middle = median(*known)
        known, before, own = known - self.middle, before - self.middle, (own - self.middle)[None]
        middle = self.middle[None]
        signed = np.concatenate([known, own, before, own - before, known - before, -middle])
        sizes = np.abs(np.concatenate([known, own, middle]))[..., ::-1]
        rest = np.zeros((INPUTS - len(signed) - len(sizes), *self.middle.shape), int)
        rest[0], rest[1] = 16 * skip[:, None], SIZES[np.minimum(activity, LARGEST_STEP)][:, None]
        rest[2], rest[7], rest[8, :, 1] = level // 8, 16 * straight, 16
        if distance:
            rest[3 + DISTANCES.index(min(distance, DISTANCES[-1]))] = 16
        self.inputs = np.concatenate([STEPS[np.concatenate([signed, sizes]) + LARGEST_STEP], rest])

    @classmethod
    def of_group(cls, group: Group, field: np.ndarray, past: Past) -> Told:
        """Of a group of a field (h, w, 2) that holds the groups before."""
        at, nothing = group.place, np.zeros((4, 1, 2), int)
        known, before = (group.known(each) if group.distance else nothing for each in (field, past.field))
        return cls(
            known, before, past.field[at], past.skip[at], past.activity[at], past.level, group.distance, group.straight
        )

    def of(self, component: int, rows: np.ndarray | None = None) -> np.ndarray:
        """Inputs (n, INPUTS) of a component, with the rows (n,) of the vectors for columns."""
        if component:
            self.inputs[-1, :, 1] = SIZES[np.abs(rows - self.middle[:, 0])]
        return self.inputs[:, :, component].T


class VectorNet:
    """The network, from the integers of its layers; weights (C_out, C_in).

    Attributes:
        layers: (weight (C_in, C_out), bias (C_out,)) such that floor(x @ weight + bias) is what a layer makes of x.
        flat: all of these one behind the other, and the units of a layer, as kernels take them: whole sixteens.
    """

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.layers = {}
        for name, shift in RESCALE.items():
            weight, bias = (arrays[f"vectors_{name}_{kind}"].T.astype(np.float32) for kind in ("weight", "bias"))
            self.layers[name] = weight * np.float32(2.0**-shift), (bias + 2 ** (shift - 1)) * np.float32(2.0**-shift)
        rest = -self.hidden % 16
        widened = [
            np.pad(part, [(0, rest if n == self.hidden else 0) for n in part.shape])
            for pair in self.layers.values()
            for part in pair
        ]
        self.flat = np.concatenate([part.ravel() for part in widened]), self.hidden + rest

    @property
    def hidden(self) -> int:
        """Units of a hidden layer."""
        return len(self.layers["first"][1])

    def layer(self, name: str, x: np.ndarray, low: int, high: int) -> np.ndarray:
        weight, bias = self.layers[name]
        x = x @ weight
        x += bias
        np.floor(x, out=x)
        np.maximum(x, low, out=x)
        return np.minimum(x, high, out=x)

    def expected(self, told: Told, component: int, rows: np.ndarray | None = None) -> Expected:
        """See `Told.of`."""
        hidden = self.layer("first", told.of(component, rows).astype(np.float32), 0, 255)
        hidden = self.layer("second", hidden, 0, 255)
        mean = self.layer("mean", hidden, -MEAN_MAX, MEAN_MAX)[:, 0].astype(int)
        scale = self.layer("scale", hidden, 0, SCALES - 1)[:, 0].astype(int)
        return placed(mean, scale, told.middle[:, component])


def placed(mean: np.ndarray, scale: np.ndarray, middle: np.ndarray) -> Expected:
    """What a mean (n,) in sixteenths of a step from the middle and a scale (n,) say."""
    shift = (mean + MEANS // 2) // MEANS
    beside = mean - MEANS * shift
    size = np.abs(beside)
    tables = FIRST_TABLE + KINDS * scale + (size > NEAR[0]) + (size > NEAR[1])
    return Expected(middle + shift, 1 - 2 * (beside < 0), tables.astype(np.uint8))


def vector_tables() -> Tables:
    """The tables of motion of a model with such a network: those of vectors by scale and kind, then those of flags."""
    steps, masses = np.arange(-LIMIT, LIMIT + 1), []
    for scale in np.geomspace(SMALLEST, LARGEST, SCALES):
        for beside in (1, 4, 7):
            edges = (np.append(steps, LIMIT + 1) - 0.5 - beside / MEANS) / scale
            below = np.where(edges < 0, 0.5 * np.exp(np.minimum(edges, 0)), 1 - 0.5 * np.exp(-np.maximum(edges, 0)))
            masses.append(np.append(np.diff(below) + FLOOR / (1 + np.abs(steps)), FLOOR))
    limits = [0] + [LIMIT] * len(masses) + [1] * FLAG_CONTEXTS
    return Tables(np.array(limits), np.concatenate([*map(integer_frequencies, masses), *flag_frequencies()]))


def coded(field: np.ndarray, past: Past, net: VectorNet) -> list[tuple[np.ndarray, np.ndarray]]:
    """The (symbols, tables) of a field (h, w, 2) of vectors."""
    groups = []
    if native := kernels():
        symbols, tables = np.empty(field.size, np.int32), np.empty(field.size, np.uint8)
        vectors = np.ascontiguousarray(field, np.int32)
        native.vector_symbols(vectors, *field.shape[:2], *net.flat, *past.flat, symbols, tables)
        ends = np.cumsum([len(group.place[0]) for group in order(*field.shape[:2]) for _ in range(2)])[:-1]
        return list(zip(np.split(symbols, ends), np.split(tables, ends), strict=True))
    for group in order(*field.shape[:2]):
        told, vectors = Told.of_group(group, field, past), field[group.place]
        for component, rows in enumerate((None, vectors[:, 0])):
            expected = net.expected(told, component, rows)
            groups.append((expected.symbols(vectors[:, component]), expected.tables))
    return groups


def decoded(decoder: Decoder, past: Past, net: VectorNet) -> np.ndarray:
    """The field (h, w, 2), int32, that comes next in a payload.

    Raises:
        Corrupt: the payload contradicts itself.
    """
    field = np.zeros((*past.skip.shape, 2), np.int32)
    if decoder.native:
        decoder.call("decode_vectors", field, *past.skip.shape, *net.flat, *past.flat)
        return field
    for group in order(*past.skip.shape):
        told, rows = Told.of_group(group, field, past), None
        for component in range(2):
            expected = net.expected(told, component, rows)
            rows = expected.vectors(decoder.decode(expected.tables))
            field[(*group.place, component)] = rows
    return field


class Prices:
    """Bits of vectors as the network expects them between neighbours in the same row and column, for a search.

    Args:
        before, activity, level: as in `Past`; where the tile is skipped is not known yet, and taken for nowhere.
    """

    def __init__(self, net: VectorNet, tables: Tables, before: np.ndarray, activity: np.ndarray, level: int):
        self.net, self.past = net, Past(before, np.zeros(activity.shape, bool), activity, level)
        own = tables.frequencies[FIRST_TABLE : FIRST_TABLE + KINDS * SCALES]
        self.bits = np.log2(np.float32(2**24) / np.array(own, np.float32))

    def __call__(self, blocks: np.ndarray, around: list, vectors: np.ndarray) -> Callable:
        """Of blocks (K,) of the tile laid flat, with the four vectors (K, 2) around each and those they have now.

        Returns:
            A function of vectors (K, 2), which gives (K,) bits.
        """
        past, (height, width) = self.past, self.past.skip.shape
        row, column = blocks // width, blocks % width
        ways = [((row + way).clip(0, height - 1), column) for way in (-1, 1)]
        ways += [(row, (column + way).clip(0, width - 1)) for way in (-1, 1)]
        before, own = np.stack([past.field[way] for way in ways]), past.field[row, column]
        at = past.skip[row, column], past.activity[row, column]
        told = Told(np.stack(around), before, own, *at, past.level, distance=1, straight=True)
        expected = [self.net.expected(told, component, vectors[:, 0]) for component in range(2)]

        def price(candidates: np.ndarray) -> np.ndarray:
            symbols = (each.symbols(candidates[:, i]).clip(-LIMIT, LIMIT) for i, each in enumerate(expected))
            return sum(self.bits[e.tables - FIRST_TABLE, s + LIMIT] for e, s in zip(expected, symbols, strict=True))

        return price
