"""Headers as lists of declared fields: the one declaration writes, reads, checks and describes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, NamedTuple, Self

from pixa.errors import Corrupt, UnsupportedVersion


class Field(NamedTuple):
    """An unsigned little-endian field: its struct code and the values this version allows.

    A value outside the range means damage (`newer` false) or a file of a newer version (`newer` true).
    """

    name: str
    code: str
    low: int
    high: int
    newer: bool = False


class Record:
    """A payload of fixed size: the fields that a class declares, each an attribute of that name."""

    FIELDS: ClassVar[tuple[Field, ...]]
    LAYOUT: ClassVar[struct.Struct]

    def write(self) -> bytes:
        return self.LAYOUT.pack(*(getattr(self, field.name) for field in self.FIELDS))

    @classmethod
    def values(cls, payload: bytes) -> dict[str, int]:
        """The checked fields of a payload.

        Raises:
            Corrupt: wrong length or a value that no version allows.
            UnsupportedVersion: a reserved value or bit is in use.
        """
        if len(payload) != cls.LAYOUT.size:
            raise Corrupt(f"a header of {len(payload)} bytes instead of {cls.LAYOUT.size}")
        values = dict(zip((field.name for field in cls.FIELDS), cls.LAYOUT.unpack(payload), strict=True))
        for field in cls.FIELDS:
            if not field.low <= values[field.name] <= field.high:
                error = UnsupportedVersion if field.newer else Corrupt
                raise error(f"header field {field.name} = {values[field.name]} is not known to this version")
        return values

    @classmethod
    def read(cls, payload: bytes) -> Self:
        """Parse and check a payload.

        Raises:
            Corrupt, UnsupportedVersion: as `values`.
        """
        return cls(**cls.values(payload))


def layout(fields: tuple[Field, ...]) -> struct.Struct:
    return struct.Struct("<" + "".join(field.code for field in fields))


@dataclass(frozen=True)
class Head(Record):
    """The HEAD chunk of a picture or a video.

    Attributes:
        kind: 0 a still picture, 1 a video.
        width, height: pixels.
        colour: 0 grey, 1 RGB.
        alpha: 1 when an ALPHA chunk follows.
        depth: 0, eight bits a sample; 3, sixteen, in lossless pictures.
        level: quality level, twice the quality.
        model: wire id of the model.
        model_hash: first four bytes, big-endian, of the SHA-256 of what the decoder needs.
        tile_log2: entropy tiles have sides of 2**tile_log2 pixels.
    """

    width: int
    height: int
    colour: int
    alpha: int
    level: int
    model: int
    model_hash: int
    tile_log2: int
    kind: int = 0
    depth: int = 0

    FIELDS: ClassVar = (
        Field("kind", "B", 0, 1, newer=True),
        Field("width", "H", 1, 65535),
        Field("height", "H", 1, 65535),
        Field("flags", "B", 0, 15, newer=True),
        Field("level", "B", 0, 200),
        Field("model", "H", 1, 65535),
        Field("model_hash", "I", 0, 2**32 - 1),
        Field("tile_log2", "B", 8, 12),
    )
    LAYOUT: ClassVar = layout(FIELDS)

    @property
    def flags(self) -> int:
        return self.colour | self.alpha << 1 | self.depth << 2

    @classmethod
    def read(cls, payload: bytes) -> Head:
        values = cls.values(payload)
        flags = values.pop("flags")
        if flags >> 2 not in (0, 3):
            raise UnsupportedVersion(f"depth {flags >> 2} is not known to this version")
        return cls(colour=flags & 1, alpha=flags >> 1 & 1, depth=flags >> 2, **values)


@dataclass(frozen=True)
class ModelReference(Record):
    """The MODEL chunk: the model of the frames that see the ones before them; fields as in HEAD."""

    model: int
    model_hash: int

    FIELDS: ClassVar = (Field("model", "H", 1, 65535), Field("model_hash", "I", 0, 2**32 - 1))
    LAYOUT: ClassVar = layout(FIELDS)


@dataclass(frozen=True)
class VideoHeader(Record):
    """The VIDEO chunk.

    Attributes:
        time_num, time_den: the unit of all times, in seconds.
        rate_num, rate_den: frames a second, as far as there is one rate.
        aspect_num, aspect_den: width of a pixel to its height.
        primaries, transfer, matrix: code points of ITU-T H.273; 2 is unknown. The matrix is that of the source.
        full_range: 1 when the source used the whole range of its samples.
        gop: frames from one key frame to the next, at most.
    """

    time_num: int = 1
    time_den: int = 30
    rate_num: int = 30
    rate_den: int = 1
    aspect_num: int = 1
    aspect_den: int = 1
    primaries: int = 2
    transfer: int = 2
    matrix: int = 2
    full_range: int = 0
    gop: int = 1

    FIELDS: ClassVar = (
        Field("time_num", "I", 1, 2**32 - 1),
        Field("time_den", "I", 1, 2**32 - 1),
        Field("rate_num", "I", 1, 2**32 - 1),
        Field("rate_den", "I", 1, 2**32 - 1),
        Field("aspect_num", "H", 1, 65535),
        Field("aspect_den", "H", 1, 65535),
        Field("primaries", "B", 0, 255),
        Field("transfer", "B", 0, 255),
        Field("matrix", "B", 0, 255),
        Field("full_range", "B", 0, 1),
        Field("gop", "H", 1, 65535),
    )
    LAYOUT: ClassVar = layout(FIELDS)

    @property
    def time_base(self) -> Fraction:
        return Fraction(self.time_num, self.time_den)

    @property
    def rate(self) -> Fraction:
        return Fraction(self.rate_num, self.rate_den)
