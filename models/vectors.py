"""The network that tells where a vector of motion is expected, and how surely.

Small, and of integers alone so that it may choose tables: `pixa.models.exact` has its units; no sum reaches 2**24, so
NumPy runs it exactly. It is asked of rows and of columns by turns and sees, all less the middle of the neighbours and
in steps that grow with the size: the neighbours, where the frame before had them and the vector itself, by how much
they have changed, how large the other component of all this is, how active the latents are, and the vector's row.

It says a mean, in sixteenths of a step, and a scale. The whole part of the mean shifts what is coded; the table is that
of the scale and of how far from whole the mean is, mirrored where it is below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pixa.bitstream.tables import Tables, integer_frequencies
from pixa.models.motion import FIRST_TABLE, FLAG_CONTEXTS, REACH, Group, median, motion_tables, order

LAYERS = ("first", "second", "mean", "scale")
RESCALE = {"first": 5, "second": 6, "mean": 6, "scale": 6}  # bits by which sums are shifted down
INPUTS = 34
INPUT_BITS, INPUT_MAX = 3, 127
MEANS, MEAN_MAX = 16, 2047  # parts of a step, and the largest number of them
NEAR = (2, 5)  # parts from a whole step: the upper ends of the kinds of tables but the last
KINDS = len(NEAR) + 1
SCALES = 24
SMALLEST, LARGEST = 0.12, 60.0  # scales of Laplace distributions that tables start with
FLOOR = 1e-4  # probability of what these do not expect, falling off with the distance
LIMIT = REACH - 1  # of these tables
DISTANCES = (1, 2, 4, 8)  # to the neighbours, that are told apart; further ones are taken for 8
NARROW = 4 * REACH  # what is told is between these


def octaves(n: int) -> int:
    """Eight times the logarithm to the base two of n + 1, straight between powers of two."""
    exponent = (n + 1).bit_length() - 1
    return 8 * exponent + ((n + 1) << 3 >> exponent) - 8


SIZES = np.array([octaves(n) for n in range(NARROW + 1)])
STEPS = np.concatenate([-SIZES[:0:-1], SIZES])  # of -NARROW to NARROW


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
    """What the network is told of the vectors of a group.

    Attributes:
        middle: of the neighbours, (n, 2).
        inputs: (INPUTS, n, 2), the last of which is to be filled in for columns.
    """

    def __init__(self, group: Group, field: np.ndarray, past: Past):
        """`field` (h, w, 2) holds the groups before."""
        count = len(group.place[0])
        if group.distance:
            known, before = group.known(field), group.known(past.field)
            self.middle = median(*known)
            known, before = known - self.middle, before - self.middle
        else:
            self.middle, known, before = np.zeros((1, 2), int), *(np.zeros((4, 1, 2), int),) * 2
        own = (past.field[group.place] - self.middle)[None]
        middle = self.middle[None]
        signed = np.concatenate([known, own, before, own - before, known - before, -middle])
        sizes = np.abs(np.concatenate([known, own, middle]))[..., ::-1]
        at = np.zeros((INPUTS - len(signed) - len(sizes), count, 2), int)
        at[0] = 16 * past.skip[group.place][:, None]
        at[1] = SIZES[past.activity[group.place].astype(int).clip(max=NARROW)][:, None]
        at[2] = past.level // 8
        if group.distance:
            at[3 + DISTANCES.index(min(group.distance, DISTANCES[-1]))] = 16
        at[7] = 16 * group.straight
        at[8, :, 1] = 16
        told = STEPS[np.concatenate([signed, sizes]).clip(-NARROW, NARROW) + NARROW]
        self.inputs = np.concatenate([told, at]).clip(-INPUT_MAX, INPUT_MAX)

    def of(self, component: int, rows: np.ndarray | None = None) -> np.ndarray:
        """Inputs (n, INPUTS) of a component, with the rows (n,) of the vectors for columns."""
        if component:
            self.inputs[-1, :, 1] = SIZES[np.abs(rows - self.middle[:, 0]).clip(max=NARROW)]
        return self.inputs[:, :, component].T


class VectorNet:
    """The network, from the integers of its layers; weights (C_out, C_in)."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.layers = {
            name: (
                arrays[f"vectors_{name}_weight"].T.astype(np.float32),
                arrays[f"vectors_{name}_bias"].astype(np.float32),
            )
            for name in LAYERS
        }

    def layer(self, name: str, x: np.ndarray, low: int, high: int) -> np.ndarray:
        weight, bias = self.layers[name]
        return np.floor((x @ weight + bias) * np.float32(2.0 ** -RESCALE[name]) + np.float32(0.5)).clip(low, high)

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
    kind = np.searchsorted(NEAR, np.abs(beside))
    return Expected(middle + shift, np.where(beside < 0, -1, 1), (FIRST_TABLE + KINDS * scale + kind).astype(np.uint8))


def vector_tables() -> Tables:
    """The tables of motion of a model with such a network: those of vectors by scale and kind, then those of flags."""
    steps, masses = np.arange(-LIMIT, LIMIT + 1), []
    for scale in np.geomspace(SMALLEST, LARGEST, SCALES):
        for beside in (1, 4, 7):
            edges = (np.append(steps, LIMIT + 1) - 0.5 - beside / MEANS) / scale
            below = np.where(edges < 0, 0.5 * np.exp(np.minimum(edges, 0)), 1 - 0.5 * np.exp(-np.maximum(edges, 0)))
            masses.append(np.append(np.diff(below) + FLOOR / (1 + np.abs(steps)), FLOOR))
    flags = motion_tables().frequencies[-FLAG_CONTEXTS:]
    limits = [0] + [LIMIT] * len(masses) + [1] * FLAG_CONTEXTS
    return Tables(np.array(limits), np.concatenate([*map(integer_frequencies, masses), *flags]))


def coded(field: np.ndarray, past: Past, net: VectorNet) -> list[tuple[np.ndarray, np.ndarray]]:
    """The (symbols, tables) of a field (h, w, 2) of vectors."""
    groups = []
    for group in order(*field.shape[:2]):
        told, vectors = Told(group, field, past), field[group.place]
        for component, rows in enumerate((None, vectors[:, 0])):
            expected = net.expected(told, component, rows)
            groups.append((expected.symbols(vectors[:, component]), expected.tables))
    return groups


def decoded(decode: Callable[[np.ndarray], np.ndarray], past: Past, net: VectorNet) -> np.ndarray:
    """The field (h, w, 2), int32, whose symbols `decode` gives for their tables."""
    field = np.zeros((*past.skip.shape, 2), np.int32)
    for group in order(*past.skip.shape):
        told, rows = Told(group, field, past), None
        for component in range(2):
            expected = net.expected(told, component, rows)
            rows = expected.vectors(decode(expected.tables))
            field[(*group.place, component)] = rows
    return field
