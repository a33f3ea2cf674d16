"""Headers as lists of declared fields: the one declaration writes, reads, checks and describes."""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from typing import ClassVar, NamedTuple

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


@dataclass(frozen=True)
class Head:
    """The HEAD chunk of an image.

    Attributes:
        kind: 0, a still picture.
        width, height: pixels.
        colour: 0 grey, 1 RGB.
        alpha: 1 when an ALPHA chunk follows.
        depth: 0, eight bits a sample.
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
        Field("kind", "B", 0, 0, newer=True),
        Field("width", "H", 1, 65535),
        Field("height", "H", 1, 65535),
        Field("flags", "B", 0, 3, newer=True),
        Field("level", "B", 0, 200),
        Field("model", "H", 1, 65535),
        Field("model_hash", "I", 0, 2**32 - 1),
        Field("tile_log2", "B", 8, 12),
    )
    LAYOUT: ClassVar = struct.Struct("<" + "".join(field.code for field in FIELDS))

    def write(self) -> bytes:
        values = asdict(self) | {"flags": self.colour | self.alpha << 1 | self.depth << 2}
        return self.LAYOUT.pack(*(values[field.name] for field in self.FIELDS))

    @classmethod
    def read(cls, payload: bytes) -> Head:
        """Parse and check a HEAD payload.

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
        flags = values.pop("flags")
        return cls(colour=flags & 1, alpha=flags >> 1 & 1, depth=flags >> 2, **values)
