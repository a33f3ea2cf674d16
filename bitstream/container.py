"""The container: magic, version, then chunks that each carry their length and checksum. Bytes only.

file  = magic (4) version (1) chunk*
chunk = type (1) length (varint) payload (length) crc32 (4, of type, length and payload)
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pixa.bitstream.chunks import KNOWN, ChunkType, is_refused
from pixa.errors import Corrupt, NotPixa, UnsupportedVersion

MAGIC = b"\x9dPXA"
VERSION = 1
PREFIX = MAGIC + bytes([VERSION])
MAX_VARINT = 2**32 - 1


class Chunk(NamedTuple):
    """A chunk that passed its checksum; `type` is an int so that unknown ancillary chunks can be listed."""

    type: int
    payload: bytes


def write_varint(value: int) -> bytes:
    """LEB128: seven bits a byte, low bits first, the high bit set on every byte but the last."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """The value at `offset` and the offset behind it.

    Raises:
        Corrupt: it runs past the end, is longer than need be, or exceeds 2**32 - 1.
    """
    value = shift = 0
    while offset < len(data) and shift < 35:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or value > MAX_VARINT:
                raise Corrupt("a length is not in its shortest form")
            return value, offset
        shift += 7
    raise Corrupt("a length is cut short")


def write_chunk(kind: int, payload: bytes) -> bytes:
    body = bytes([kind]) + write_varint(len(payload)) + payload
    return body + struct.pack("<I", zlib.crc32(body))


def read_chunk(data: bytes, offset: int) -> tuple[Chunk, int]:
    """The chunk at `offset` and the offset behind it.

    Raises:
        Corrupt: the chunk is cut or its checksum does not match.
    """
    length, start = read_varint(data, offset + 1)
    end = start + length
    if end + 4 > len(data):
        raise Corrupt(f"the file is cut: a chunk of {length} bytes runs past its end")
    (stored,) = struct.unpack_from("<I", data, end)
    if zlib.crc32(data[offset:end]) != stored:
        raise Corrupt("a checksum does not match: the file is damaged")
    return Chunk(data[offset], data[start:end]), end + 4


def write_file(chunks: Iterable[Chunk]) -> bytes:
    return PREFIX + b"".join(write_chunk(kind, payload) for kind, payload in chunks)


def read_file(data: bytes) -> Iterator[Chunk]:
    """The chunks of a file in order, checked one by one; unknown ancillary chunks included.

    Raises:
        NotPixa: the magic is missing.
        UnsupportedVersion: another version, or a critical chunk of unknown type.
        Corrupt: as `read_chunk`.
    """
    check_prefix(data)
    offset = len(PREFIX)
    while offset < len(data):
        chunk, offset = read_chunk(data, offset)
        yield known(chunk)


def known(chunk: Chunk) -> Chunk:
    """The chunk, if it can be read or skipped.

    Raises:
        UnsupportedVersion: a critical chunk of unknown type.
    """
    if is_refused(chunk.type):
        raise UnsupportedVersion(f"critical chunk 0x{chunk.type:02x} is unknown: a newer pixa wrote this file")
    return chunk


def salvage(data: bytes) -> Iterator[Chunk]:
    """As `read_file`, but a damaged TILE has an empty payload, other damaged chunks are left out, and the file ends
    where it is cut or what comes next is no chunk.

    Raises:
        NotPixa, UnsupportedVersion, Corrupt: magic, version and unknown chunks, as `read_file`.
    """
    check_prefix(data)
    offset = len(PREFIX)
    while offset < len(data):
        try:
            chunk, offset = read_chunk(data, offset)
        except Corrupt:
            try:
                length, start = read_varint(data, offset + 1)
            except Corrupt:
                return
            kind, offset = data[offset], start + length + 4
            if offset > len(data) or kind not in KNOWN:
                return
            if kind != ChunkType.TILE:
                continue
            chunk = Chunk(kind, b"")
        yield known(chunk)


def check_prefix(data: bytes) -> None:
    """Check magic and version.

    Raises:
        NotPixa, UnsupportedVersion, Corrupt: as `read_file`.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise NotPixa("not a pixa file")
    if len(data) < len(PREFIX):
        raise Corrupt("the file ends before its version")
    if data[len(MAGIC)] != VERSION:
        raise UnsupportedVersion(f"format version {data[len(MAGIC)]}: this program reads version {VERSION}")
