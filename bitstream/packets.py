"""Video in the container: packets, the index, and a file read chunk by chunk from any place. Bytes only."""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO, NamedTuple

from pixa.bitstream.chunks import ChunkType, is_refused
from pixa.bitstream.container import PREFIX, Chunk, check_prefix, read_varint, write_varint
from pixa.bitstream.headers import Head
from pixa.errors import Corrupt, UnsupportedVersion

KEY, TIMED = 1, 2  # flags of a packet
SMALLEST_PACKET = 9  # bytes of the shortest PACKET chunk
PIECE = 1 << 20  # bytes read at a time, so that no declared length takes memory before it is there
PATIENCE = 64  # a search for the next whole chunk reads at most so many times the file


class Packet(NamedTuple):
    """One coded frame.

    Attributes:
        key: decoding can start here.
        level: quality level of the frame, 0 to 200.
        number: of a key frame, its place in the video; of any other, the frames since its key frame.
        pts: of a key frame, its time in units of the time base; of any other, the time since its key frame, or
            None where it is `number` durations of the key frame.
        duration: in units of the time base, 0 unknown; None with pts: that of the key frame.
        tiles: payloads in raster order.
    """

    key: bool
    level: int
    number: int
    pts: int | None
    duration: int | None
    tiles: list[bytes]

    def write(self) -> bytes:
        timed = not self.key and self.pts is not None
        out = bytes([self.key * KEY | timed * TIMED, self.level]) + write_varint(self.number)
        if self.key:
            out += struct.pack("<q", self.pts) + write_varint(self.duration)
        elif timed:
            out += write_varint(self.pts) + write_varint(self.duration)
        return out + b"".join(write_varint(len(tile)) + tile for tile in self.tiles)

    @classmethod
    def read(cls, payload: bytes, tiles: int) -> Packet:
        """Parse a payload of so many tiles.

        Raises:
            Corrupt: it contradicts itself.
            UnsupportedVersion: a reserved flag is in use.
        """
        if len(payload) < 2 or payload[1] > 200:
            raise Corrupt("a packet does not begin as one")
        flags, level = payload[:2]
        if flags & ~(KEY | TIMED) or flags == KEY | TIMED:
            raise UnsupportedVersion(f"a packet has the flags {flags:#x}: a newer pixa wrote this file")
        number, place = read_varint(payload, 2)
        pts = duration = None
        if flags & KEY:
            if place + 8 > len(payload):
                raise Corrupt("a packet is cut short")
            (pts,) = struct.unpack_from("<q", payload, place)
            duration, place = read_varint(payload, place + 8)
        elif flags & TIMED:
            pts, place = read_varint(payload, place)
            duration, place = read_varint(payload, place)
        parts = []
        for _ in range(tiles):
            length, place = read_varint(payload, place)
            parts.append(payload[place : place + length])
            place += length
        if place != len(payload):
            raise Corrupt("a packet is not as long as its tiles")
        return cls(bool(flags & KEY), level, number, pts, duration, parts)


class KeyFrame(NamedTuple):
    """Where decoding can start: place of the chunk in the file, number of the frame, its time."""

    place: int
    number: int
    pts: int


@dataclass(frozen=True)
class Index:
    """Where a video's key frames are.

    Attributes:
        frames: how many there are in all.
        end: the time when the last one ends.
        keys: in order.
    """

    frames: int
    end: int
    keys: list[KeyFrame]

    HEADER = struct.Struct("<Iq")
    ENTRY = struct.Struct("<QIq")
    LENGTH = struct.Struct("<I")

    def write(self) -> bytes:
        """The payload; it ends in the length of its chunk, so that it can be found from the end of the file."""
        body = self.HEADER.pack(self.frames, self.end) + b"".join(self.ENTRY.pack(*key) for key in self.keys)
        size = len(body) + self.LENGTH.size
        return body + self.LENGTH.pack(1 + len(write_varint(size)) + size + 4)

    @classmethod
    def read(cls, payload: bytes) -> Index:
        """Parse a payload.

        Raises:
            Corrupt: wrong size, or places, numbers and times that do not rise.
        """
        entries = payload[cls.HEADER.size : -cls.LENGTH.size]
        if len(payload) < cls.HEADER.size + cls.LENGTH.size or len(entries) % cls.ENTRY.size:
            raise Corrupt("the index does not have its size")
        frames, end = cls.HEADER.unpack_from(payload)
        keys = [KeyFrame(*entry) for entry in cls.ENTRY.iter_unpack(entries)]
        for before, key in pairwise(keys):
            if not all(one < other for one, other in zip(before, key, strict=True)):
                raise Corrupt("the index is out of order")
        if not keys or keys[0].number or frames <= keys[-1].number or end < keys[-1].pts:
            raise Corrupt("the index contradicts itself")
        return cls(frames, end, keys)

    def before(self, pts: int) -> KeyFrame:
        """The last key frame that is not later than a time; the first one if all are."""
        return self.keys[max(bisect_right(self.keys, pts, key=lambda key: key.pts) - 1, 0)]


class ChunkFile:
    """A seekable file of chunks. Every method takes the place to read at, so several readers can share it.

    Raises:
        NotPixa, UnsupportedVersion, Corrupt: as `container.check_prefix`.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        self.size = file.seek(0, 2)
        check_prefix(self.bytes(0, len(PREFIX)))
        self.searched = 0

    def bytes(self, place: int, length: int) -> bytes:
        """What is there of so many bytes."""
        self.file.seek(place)
        parts = []
        while length > 0 and (part := self.file.read(min(length, PIECE))):
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def span(self, place: int) -> tuple[int, int, int]:
        """(type, place of the payload, its length) of the chunk at a place.

        Raises:
            Corrupt: it does not end within the file.
        """
        head = self.bytes(place, 6)
        if not head:
            raise Corrupt("the file is cut")
        length, start = read_varint(head, 1)
        if place + start + length + 4 > self.size:
            raise Corrupt(f"the file is cut: a chunk of {length} bytes runs past its end")
        return head[0], place + start, length

    def chunk(self, place: int, limit: int = 1 << 32) -> tuple[Chunk, int]:
        """The chunk at a place and the place behind it.

        Args:
            limit: bytes of payload that are plausible.

        Raises:
            Corrupt: as `span`; the checksum does not match, or it is longer than the limit.
            UnsupportedVersion: it is critical and its type is unknown.
        """
        kind, start, length = self.span(place)
        if length > limit:
            raise Corrupt(f"a chunk of {length} bytes is longer than it can be")
        data = self.bytes(place, start - place + length + 4)
        if len(data) < 4 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise Corrupt("a checksum does not match: the file is damaged")
        if is_refused(kind):
            raise UnsupportedVersion(f"critical chunk 0x{kind:02x} is unknown: a newer pixa wrote this file")
        return Chunk(kind, data[start - place : -4]), start + length + 4

    def next_packet(self, place: int, limit: int) -> int:
        """The first place from here on with a whole PACKET chunk, or the size of the file: goes on after damage."""
        while place < self.size:
            window = self.bytes(place, PIECE)
            found = window.find(ChunkType.PACKET)
            while found >= 0:
                if self.is_packet(place + found, limit):
                    return place + found
                found = window.find(ChunkType.PACKET, found + 1)
            place += len(window)
        return self.size

    def is_packet(self, place: int, limit: int) -> bool:
        """Whether a whole PACKET chunk stands there; says no once such questions have read too much of the file."""
        try:
            _, start, length = self.span(place)
            begin = self.bytes(start, 2)
            if length < 2 or length > limit or begin[0] > TIMED or begin[1] > 200:
                return False
            self.searched += length
            if self.searched > PATIENCE * self.size + PIECE:
                return False
            self.chunk(place, limit)
        except Corrupt:
            return False
        return True

    def index(self) -> Index:
        """The index at the end of the file.

        Raises:
            Corrupt: there is none, or it is damaged.
        """
        tail = self.bytes(max(self.size - 8, 0), 4)
        place = self.size - int.from_bytes(tail, "little")
        try:
            chunk, end = self.chunk(place if place >= len(PREFIX) else self.size)
        except UnsupportedVersion as error:
            raise Corrupt("the file is cut: its index is missing") from error
        if chunk.type != ChunkType.INDEX or end != self.size:
            raise Corrupt("the file is cut: its index is missing")
        return Index.read(chunk.payload)


class Pieces:
    """The AUDIO chunks of a file as one stream to read from, chunk by chunk as they are needed.

    Args:
        place: where to start looking.
        limit: bytes of a packet, for the search behind damage; 0 refuses damage.
    """

    def __init__(self, chunks: ChunkFile, place: int, limit: int = 0):
        self.pieces = self.walk(chunks, place, limit)
        self.left = b""

    @staticmethod
    def walk(chunks: ChunkFile, place: int, limit: int) -> Iterator[bytes]:
        while place < chunks.size:
            try:
                kind, start, length = chunks.span(place)
                if kind == ChunkType.AUDIO:
                    yield chunks.chunk(place)[0].payload
                place = start + length + 4
            except Corrupt:
                if not limit:
                    raise
                place = chunks.next_packet(place + 1, limit)

    def read(self, size: int) -> bytes:
        """Up to so many bytes, none at the end."""
        while not self.left:
            piece = next(self.pieces, None)
            if piece is None:
                return b""
            self.left = piece
        part, self.left = self.left[:size], self.left[size:]
        return part


def is_video(begin: bytes) -> bool:
    """Whether a pixa file that begins with these eight bytes holds a video."""
    return begin[:8] == PREFIX + bytes([ChunkType.HEAD, Head.LAYOUT.size, 1])
