"""Entropy coding of a tile: asymmetric numeral systems (Duda, 2013) through constriction.

A payload is the count of 32-bit words (varint), the words, and the escaped values as zigzag varints. Symbols are coded
in groups; within a group table by table in ascending order, and within a table in the order given.
"""

from __future__ import annotations

import constriction
import numpy as np

from pixa.bitstream.container import read_varint, write_varint
from pixa.bitstream.tables import Tables
from pixa.errors import Corrupt

AnsCoder = constriction.stream.stack.AnsCoder
SEED = 1  # the coder's state before the first symbol, which a decoder must end on; reading too far would end on 0


def by_table(indexes: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(table, positions) of a flat uint8 array for every table in use but 0, ascending, positions in order."""
    coded = np.flatnonzero(indexes != 0)
    used = indexes[coded]
    order = coded[np.argsort(used, kind="stable")]
    ends = np.cumsum(np.bincount(used, minlength=1))
    return [(t, order[ends[t - 1] : ends[t]]) for t in range(1, len(ends)) if ends[t] > ends[t - 1]]


def encode(groups: list[tuple[np.ndarray, np.ndarray]], tables: Tables) -> bytes:
    """Code groups of (symbols, indexes), flat arrays of whole numbers and of uint8; table 0 takes no symbol."""
    runs, escapes = [], bytearray()
    for symbols, indexes in groups:
        for table, positions in by_table(indexes):
            limit = tables.limits[table]
            chosen = symbols[positions].astype(np.int32)
            escaped = np.abs(chosen) > limit
            for value in chosen[escaped].tolist():
                escapes += write_varint(value << 1 if value >= 0 else -value << 1 | 1)
            runs.append((table, np.where(escaped, 2 * limit + 1, chosen + limit).astype(np.int32)))
    coder = AnsCoder(np.array([SEED], np.uint32))
    for table, run in reversed(runs):
        coder.encode_reverse(run, tables.categorical[table])
    words = np.asarray(coder.get_compressed(), dtype="<u4")
    return write_varint(len(words)) + words.tobytes() + bytes(escapes)


class Decoder:
    """Reads back the groups of one payload in order; `finish` proves that nothing is left.

    Raises:
        Corrupt: here and in both methods, when the payload contradicts itself.
    """

    def __init__(self, payload: bytes, tables: Tables):
        count, start = read_varint(payload, 0)
        self.next_escape = start + 4 * count
        if self.next_escape > len(payload):
            raise Corrupt("a tile is shorter than it says")
        words = np.frombuffer(payload, "<u4", count, start).astype(np.uint32)
        if not count or words[-1] == 0:
            raise Corrupt("a tile does not end in a word other than zero")
        self.payload, self.tables, self.coder = payload, tables, AnsCoder(words)

    def decode(self, indexes: np.ndarray) -> np.ndarray:
        """The next group: flat uint8 indexes -> flat int32 symbols."""
        symbols = np.zeros(len(indexes), np.int32)
        for table, positions in by_table(indexes):
            limit = int(self.tables.limits[table])
            try:
                run = self.coder.decode(self.tables.categorical[table], len(positions))
            except AssertionError as error:
                raise Corrupt("a tile does not decode") from error
            run = run.astype(np.int32) - limit
            for place in np.flatnonzero(run > limit):
                run[place] = self.escape(limit)
            symbols[positions] = run
        return symbols

    def escape(self, limit: int) -> int:
        value, self.next_escape = read_varint(self.payload, self.next_escape)
        value = -(value >> 1) if value & 1 else value >> 1
        if not limit < abs(value) <= 32767:
            raise Corrupt("an escaped value is out of range")
        return value

    def finish(self) -> None:
        if self.coder.pos() != (0, SEED) or self.next_escape != len(self.payload):
            raise Corrupt("a tile holds more or less than its symbols, or was made with other tables")
