"""Symbols of one payload in the order of coding, each with its own probability: what writes and what reads them.

Both have the same methods, which take what is to be written (nothing when reading) and return the symbols, so that one
walk over the pixels serves both ways. Frequencies are integers of at least 1 that sum to 2**24.
"""

from __future__ import annotations

import numpy as np

from pixa.bitstream.categorical import Decoder, encode, frequencies
from pixa.bitstream.tables import TOTAL


class Writer:
    """Collects symbols; `payload` codes them, the last first."""

    def __init__(self):
        self.groups: list[tuple[np.ndarray, np.ndarray]] = []

    def decide(self, chances: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Decisions (n,) that are 1 with chances (n,) in 1/65536."""
        self.groups.append((bits, binary(chances)))
        return bits

    def choose(self, weights: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """Symbols (n,) with frequencies in proportion to integer weights, (n, S), or (1, S) for all of them."""
        rows = frequencies(weights)
        self.groups.append((symbols, np.broadcast_to(rows, (len(symbols), rows.shape[1]))))
        return symbols

    def payload(self) -> bytes:
        return encode(self.groups)


class Reader:
    """Reads what a `Writer` wrote, of a payload.

    Raises:
        Corrupt: here and in all methods, when the payload contradicts itself.
    """

    def __init__(self, payload: bytes):
        self.decoder = Decoder(payload)
        self.finish = self.decoder.finish

    def decide(self, chances: np.ndarray, bits: None = None) -> np.ndarray:
        return self.decoder.decode(binary(chances))

    def choose(self, weights: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """As that of `Writer`, of whose symbols only the number counts."""
        rows = frequencies(weights)
        return self.decoder.decode(np.broadcast_to(rows, (len(symbols), rows.shape[1])))


def binary(chances: np.ndarray) -> np.ndarray:
    """Frequencies (n, 2) of decisions."""
    ones = chances << 8
    return np.stack([TOTAL - ones, ones], 1)
