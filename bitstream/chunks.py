"""The one table of all chunk types: their numbers and names, and how often each stands in a picture and in a video.

Every parser reads it, and FORMAT.md, section 3, says the same. A new type is a row here, a row there, and its use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from pixa.errors import Corrupt

ANCILLARY = 0x80  # a decoder skips an unknown chunk with this bit and refuses one without it


class Count(NamedTuple):
    """How often a chunk stands in a file; `most` is None where there is no limit."""

    least: int
    most: int | None

    def __contains__(self, number: int) -> bool:
        return self.least <= number and (self.most is None or number <= self.most)


NEVER, ONCE, OPTIONAL, SOME, ANY = Count(0, 0), Count(1, 1), Count(0, 1), Count(1, None), Count(0, None)


class Row(NamedTuple):
    """One chunk type.

    Attributes:
        type: its number, never reused; critical chunks stand in a file in ascending order.
        pictures, videos: how often it stands in such a file.
        metadata: its payload is a deflated text or profile that decoders hand on.
        body: in a video it may stand among the frames, not only before them.
    """

    name: str
    type: int
    pictures: Count
    videos: Count
    metadata: bool = False
    body: bool = False


TABLE = (
    Row("HEAD", 0x01, ONCE, ONCE),
    Row("MODEL", 0x02, NEVER, OPTIONAL),
    Row("ALPHA", 0x03, OPTIONAL, NEVER),
    Row("TILE", 0x04, SOME, NEVER),
    Row("PATCH", 0x05, ANY, NEVER),
    Row("VIDEO", 0x10, NEVER, ONCE),
    Row("PACKET", 0x11, NEVER, SOME, body=True),
    Row("ICC", 0x81, OPTIONAL, OPTIONAL, metadata=True),
    Row("EXIF", 0x82, OPTIONAL, OPTIONAL, metadata=True),
    Row("XMP", 0x83, OPTIONAL, OPTIONAL, metadata=True),
    Row("TAGS", 0x85, NEVER, OPTIONAL),
    Row("THUMBNAIL", 0x86, OPTIONAL, NEVER),
    Row("INDEX", 0x90, NEVER, ONCE, body=True),
    Row("AUDIO", 0x91, NEVER, ANY, body=True),
)
ChunkType = IntEnum("ChunkType", {row.name: row.type for row in TABLE}, module=__name__)
KNOWN = {row.type: row for row in TABLE}
METADATA = {row.type: row.name.lower() for row in TABLE if row.metadata}
VIDEO_BODY = {row.type for row in TABLE if row.body}
NOT_IN_VIDEOS = {row.type for row in TABLE if not row.type & ANCILLARY and row.videos == NEVER}


def is_refused(kind: int) -> bool:
    """Whether a chunk of this type makes a file unreadable: it is critical and unknown."""
    return not kind & ANCILLARY and kind not in KNOWN


def chunk_name(kind: int) -> str:
    return KNOWN[kind].name if kind in KNOWN else f"0x{kind:02x}"


def check_picture(kinds: Sequence[int], announced: Mapping[int, int]) -> None:
    """Check number and order of the chunks of a picture.

    Args:
        kinds: their types, in order.
        announced: how often chunks must stand there by what HEAD says.

    Raises:
        Corrupt: one is missing, one too many or out of place.
    """
    for row in TABLE:
        number, allowed = kinds.count(row.type), row.pictures
        if row.type & ANCILLARY:
            if allowed != NEVER and number not in allowed:
                raise Corrupt("a kind of metadata stands twice in the file")
        elif number not in allowed or number != announced.get(row.type, number):
            raise Corrupt("the file has parts that its header does not announce")
    critical = [kind for kind in kinds if not kind & ANCILLARY]
    if critical != sorted(critical):
        raise Corrupt("the parts of the file are out of order")
