"""Entropy coding of a tile: asymmetric numeral systems (Duda, 2013) through constriction.

A payload is the count of 32-bit words (varint), the words, and the escaped values as zigzag varints. Symbols are coded
in groups; within a group table by table in ascending order, and within a table in the order given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import constriction
import numpy as np

from pixa.bitstream.container import read_varint, write_varint
from pixa.bitstream.tables import Tables
from pixa.errors import Corrupt
from pixa.native import Damaged, Kernels, kernels

AnsCoder = constriction.stream.stack.AnsCoder
SEED = 1  # the coder's state before the first symbol, which a decoder must end on; reading too far would end on 0


class Runs(NamedTuple):
    """The symbols of a group in coding order: table by table, ascending, positions in order; table 0 has none.

    Attributes:
        positions: of all symbols, in the group.
        tables, counts: of every run, the table and the number of symbols.
    """

    positions: np.ndarray
    tables: np.ndarray
    counts: np.ndarray

    def slices(self) -> Iterator[tuple[int, slice]]:
        """Table and place of every run."""
        start = 0
        for table, count in zip(self.tables.tolist(), self.counts.tolist(), strict=True):
            yield table, slice(start, start + count)
            start += count


def by_table(indexes: np.ndarray) -> Runs:
    """The runs of a flat uint8 array of table indexes."""
    coded = np.flatnonzero(indexes != 0)  # of booleans, which numpy finds six times as fast
    used = indexes[coded]
    order = np.argsort(used, kind="stable")
    ends = np.searchsorted(used[order], np.arange(257, dtype=np.uint16))
    counts = np.diff(ends)
    tables = np.flatnonzero(counts)
    return Runs(coded[order], tables, counts[tables])


def encode(groups: list[tuple[np.ndarray, np.ndarray]], tables: Tables) -> bytes:
    """Code groups of (symbols, indexes), flat arrays of whole numbers and of uint8; table 0 takes no symbol."""
    if groups and (native := kernels()):
        return native_encode(native, groups, tables)
    coded, escapes = [], bytearray()
    for symbols, indexes in groups:
        runs = by_table(indexes)
        limits = np.repeat(tables.limits[runs.tables], runs.counts)
        chosen = symbols[runs.positions].astype(np.int32)
        escaped = np.abs(chosen) > limits
        for value in chosen[escaped].tolist():
            escapes += write_varint(value << 1 if value >= 0 else -value << 1 | 1)
        entries = np.where(escaped, 2 * limits + 1, chosen + limits).astype(np.int32)
        coded += [(table, entries[place]) for table, place in runs.slices()]
    coder = AnsCoder(np.array([SEED], np.uint32))
    for table, run in reversed(coded):
        coder.encode_reverse(run, tables.categorical[table])
    words = np.asarray(coder.get_compressed(), dtype="<u4")
    return write_varint(len(words)) + words.tobytes() + bytes(escapes)


def native_encode(native: Kernels, groups: list[tuple[np.ndarray, np.ndarray]], tables: Tables) -> bytes:
    symbols = np.concatenate([group[0].astype(np.int32) for group in groups])
    indexes = np.concatenate([group[1] for group in groups]).astype(np.uint8)
    ends = np.cumsum([len(group[1]) for group in groups])
    words, escapes = np.empty(len(symbols) + 2, np.uint32), np.empty(5 * len(symbols), np.uint8)
    sizes = np.empty(2, np.int64)
    native.encode_symbols(symbols, indexes, ends, *tables.flat, words, escapes, sizes)
    count, escaped = sizes.tolist()
    return write_varint(count) + words[:count].astype("<u4").tobytes() + escapes[:escaped].tobytes()


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
        self.payload, self.tables, self.native = payload, tables, kernels()
        if not self.native:
            self.coder = AnsCoder(words)
            return
        state, left = int(words[-1]), count - 1
        if left:
            state, left = state << 32 | int(words[-2]), left - 1
        self.start, self.place = start, np.array([state, left, self.next_escape], np.uint64)

    def decode(self, indexes: np.ndarray, dtype: type = np.int32) -> np.ndarray:
        """The next group: flat uint8 indexes -> flat symbols of a type that holds them."""
        if self.native:
            symbols = np.empty(len(indexes), np.int32)
            self.call("decode_symbols", np.ascontiguousarray(indexes), symbols)
            return symbols.astype(dtype, copy=False)
        runs = by_table(indexes)
        entries = np.empty(len(runs.positions), np.int32)
        try:
            for table, place in runs.slices():
                entries[place] = self.coder.decode(self.tables.categorical[table], place.stop - place.start)
        except AssertionError as error:
            raise Corrupt("a tile does not decode") from error
        limits = np.repeat(self.tables.limits[runs.tables], runs.counts)
        entries -= limits
        for place in np.flatnonzero(entries > limits):
            entries[place] = self.escape(int(limits[place]))
        symbols = np.zeros(len(indexes), dtype)
        symbols[runs.positions] = entries.astype(dtype)
        return symbols

    def call(self, name: str, *arguments: np.ndarray | float) -> None:
        """A kernel that goes on reading."""
        payload = np.frombuffer(self.payload, np.uint8)
        try:
            getattr(self.native, name)(payload, self.start, self.place, *self.tables.flat, *arguments)
        except Damaged as error:
            raise Corrupt("an escaped value is out of range or cut short") from error

    def escape(self, limit: int) -> int:
        value, self.next_escape = read_varint(self.payload, self.next_escape)
        value = -(value >> 1) if value & 1 else value >> 1
        if not limit < abs(value) <= 32767:
            raise Corrupt("an escaped value is out of range")
        return value

    def finish(self) -> None:
        if self.native:
            state, left, next_escape = self.place.tolist()
        else:
            (left, state), next_escape = self.coder.pos(), self.next_escape
        if (left, state) != (0, SEED) or next_escape != len(self.payload):
            raise Corrupt("a tile holds more or less than its symbols, or was made with other tables")
