"""Integer probability tables: the only place where probabilities exist.

Table i covers the symbols -limit..limit and one escape, as frequencies of at least 1 that sum to 2**24. Table 0 is
empty: its symbols are zero and cost nothing.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

PRECISION = 24
TOTAL = 1 << PRECISION
MAX_LIMIT = 1023


class Tables:
    """The tables of a model.

    Args:
        limits: (T,) integers, largest symbol magnitude of each table; entry 0 is 0.
        frequencies: (sum of 2*limit + 2 over tables 1..T-1,) integers, the tables one behind the other.
    """

    def __init__(self, limits: np.ndarray, frequencies: np.ndarray):
        self.limits = limits.astype(np.int32)
        sizes = 2 * self.limits[1:] + 2
        self.frequencies = [None, *np.split(frequencies.astype(np.int64), np.cumsum(sizes)[:-1])]

    def check(self) -> None:
        """Prove that the tables are usable.

        Raises:
            ValueError: a limit, a size or a sum is wrong.
        """
        for limit, table in zip(self.limits[1:], self.frequencies[1:], strict=True):
            if not 0 < limit <= MAX_LIMIT or len(table) != 2 * limit + 2:
                raise ValueError("a table does not have its declared size")
            if table.min() < 1 or table.sum() != TOTAL:
                raise ValueError("the frequencies of a table do not sum to 2**24")

    @cached_property
    def categorical(self) -> list:
        """constriction models by table index.

        Its "fast" quantisation gives entry i the frequency floor(p_i) + 1 when the p sum to 2**24 - n, so
        handing it frequency - 1 reproduces the integers above.
        """
        from constriction import stream

        categorical = stream.model.Categorical
        return [None] + [categorical((table - 1).astype(np.float64), perfect=False) for table in self.frequencies[1:]]

    @cached_property
    def flat(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As kernels take them: sums of the frequencies before every entry of a table and at its end, where in these
        each table begins, the limits, and (T, 256) for the first byte of a quantile the entry that it is at or behind.
        """
        edges = [np.append(0, np.cumsum(table)).astype(np.uint32) for table in self.frequencies[1:]]
        offsets = np.cumsum([0, 0, *map(len, edges)])
        bytes_ = np.arange(256) << PRECISION - 8
        starts = [np.zeros(256), *(np.searchsorted(each, bytes_, "right") - 1 for each in edges)]
        return np.concatenate(edges), offsets, self.limits, np.stack(starts).astype(np.uint16)

    @cached_property
    def costs(self) -> np.ndarray:
        """(T, MAX_LIMIT + 2) float32: bits of a magnitude under a table; an escape counts two bytes of its own."""
        costs = np.zeros((len(self.limits), MAX_LIMIT + 2), np.float32)
        for row, limit, table in zip(costs[1:], self.limits[1:], self.frequencies[1:], strict=True):
            bits = PRECISION - np.log2(table)
            row[: limit + 1], row[limit + 1 :] = bits[limit:-1], bits[-1] + 16
        return costs

    def cost(self, symbols: np.ndarray, indexes: np.ndarray) -> np.ndarray:
        """Ideal code length in bits of every symbol under its table, both arrays of one shape."""
        magnitude = np.minimum(np.abs(symbols), MAX_LIMIT + 1).astype(np.intp)
        return self.costs[indexes, magnitude]


def gaussian_tables(scales: np.ndarray) -> Tables:
    """Tables of zero-mean Gaussians integrated over unit bins; entry 0 of `scales` only marks the empty table."""
    from math import erfc, sqrt

    limits, tables = [0], []
    for scale in scales[1:]:
        limit = int(min(MAX_LIMIT, np.ceil(5 * scale) + 1))
        upper = np.array([0.5 * erfc((k - 0.5) / scale * sqrt(0.5)) for k in range(limit + 2)])
        mass = upper[:-1] - upper[1:]
        mass[0] = 1 - 2 * upper[1]
        limits.append(limit)
        tables.append(integer_frequencies(np.concatenate([mass[:0:-1], mass, [2 * upper[-1]]])))
    return Tables(np.array(limits), np.concatenate(tables))


def integer_frequencies(mass: np.ndarray) -> np.ndarray:
    """Frequencies of at least 1 summing to 2**24, in proportion to `mass`; the largest takes what rounding leaves."""
    frequencies = np.maximum(1, np.floor(mass / mass.sum() * TOTAL)).astype(np.int64)
    frequencies[np.argmax(frequencies)] += TOTAL - frequencies.sum()
    return frequencies
