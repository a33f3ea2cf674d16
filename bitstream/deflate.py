"""Deflated parts: zlib streams (RFC 1950) whose size is known before they are inflated."""

from __future__ import annotations

import zlib

from pixa.bitstream.container import read_varint, write_varint
from pixa.errors import Corrupt, LimitExceeded

MAX_METADATA = 1 << 24


def deflate(data: bytes) -> bytes:
    return zlib.compress(data, 9)


def inflate(stream: bytes, size: int) -> bytes:
    """Exactly `size` bytes; takes no more memory than that, whatever the stream holds.

    Raises:
        Corrupt: the stream is damaged, or holds more or less, or bytes stand behind it.
    """
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(stream, size) if size else b""
        more = inflater.decompress(inflater.unconsumed_tail if size else stream, 1)
    except zlib.error as error:
        raise Corrupt("a deflated part does not inflate") from error
    if len(data) != size or more or not inflater.eof or inflater.unused_data:
        raise Corrupt("a deflated part does not have its size")
    return data


def write_metadata(data: bytes) -> bytes:
    """Size (varint), then the stream.

    Raises:
        LimitExceeded: more than 16 MiB.
    """
    if len(data) > MAX_METADATA:
        raise LimitExceeded(f"{len(data)} bytes of metadata are over the limit of {MAX_METADATA}: leave them out")
    return write_varint(len(data)) + deflate(data)


def read_metadata(payload: bytes) -> bytes:
    """What `write_metadata` was given.

    Raises:
        Corrupt, LimitExceeded: as `inflate`; more than 16 MiB.
    """
    size, start = read_varint(payload, 0)
    if size > MAX_METADATA:
        raise LimitExceeded(f"{size} bytes of metadata are over the limit of {MAX_METADATA}")
    return inflate(payload[start:], size)
