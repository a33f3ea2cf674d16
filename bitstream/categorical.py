"""Entropy coding of symbols that each have frequencies of their own: the coder of `pixa.bitstream.entropy`, no tables.

A payload is nothing but 32-bit words. Frequencies are integers of at least 1 that sum to 2**24.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from pixa.bitstream.entropy import SEED, AnsCoder
from pixa.bitstream.tables import TOTAL
from pixa.errors import Corrupt


@cache
def family():
    """constriction's categorical models, which reproduce integer frequencies; see `pixa.bitstream.tables.Tables`."""
    from constriction import stream

    return stream.model.Categorical(perfect=False)


def frequencies(weights: np.ndarray) -> np.ndarray:
    """Frequencies (n, S) in proportion to integer weights (n, S) below 2**32; the first of the largest takes what
    rounding leaves. Integer arithmetic throughout."""
    weights = weights.astype(np.int64)
    symbols = weights.shape[1]
    result = 1 + weights * (TOTAL - symbols) // weights.sum(1, keepdims=True)
    result[np.arange(len(result)), result.argmax(1)] += TOTAL - result.sum(1)
    return result


def encode(groups: list[tuple[np.ndarray, np.ndarray]]) -> bytes:
    """Code groups of (symbols (n,), frequencies (n, S)) of at least one symbol each."""
    coder = AnsCoder(np.array([SEED], np.uint32))
    for symbols, rows in reversed(groups):
        coder.encode_reverse(symbols.astype(np.int32), family(), (rows - 1).astype(np.float64))
    return np.asarray(coder.get_compressed(), dtype="<u4").tobytes()


class Decoder:
    """Reads back the groups of one payload in order; `finish` proves that nothing is left.

    Raises:
        Corrupt: here and in both methods, when the payload contradicts itself.
    """

    def __init__(self, payload: bytes):
        if len(payload) % 4 or not payload:
            raise Corrupt("a tile is no row of words")
        words = np.frombuffer(payload, "<u4").astype(np.uint32)
        if words[-1] == 0:
            raise Corrupt("a tile does not end in a word other than zero")
        self.coder = AnsCoder(words)

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """The next group: frequencies (n, S) -> symbols (n,)."""
        try:
            return self.coder.decode(family(), (rows - 1).astype(np.float64)).astype(np.int64)
        except AssertionError as error:
            raise Corrupt("a tile does not decode") from error

    def finish(self) -> None:
        if self.coder.pos() != (0, SEED):
            raise Corrupt("a tile holds more or less than its symbols, or was made with another model")
