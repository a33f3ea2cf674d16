"""Video files as they are parsed: headers, index and coded frames. Loads no model; no numpy, no PyAV."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import BinaryIO, NamedTuple, Self

from pixa.bitstream.chunks import ANCILLARY, NOT_IN_VIDEOS, VIDEO_BODY, ChunkType, chunk_name
from pixa.bitstream.container import PREFIX, VERSION
from pixa.bitstream.deflate import MAX_METADATA, read_metadata
from pixa.bitstream.headers import Head, ModelReference, VideoHeader
from pixa.bitstream.packets import SMALLEST_PACKET, ChunkFile, Index, KeyFrame, Packet, Pieces
from pixa.errors import Corrupt, LimitExceeded, ModelMissing, UnsupportedInput, UnsupportedVersion
from pixa.image.decoder import MAX_PIXELS
from pixa.models.registry import find_wire

DENSEST = 16  # bytes a pixel that no coding of 16-bit symbols reaches


class CodedFrame(NamedTuple):
    """A packet with what it leaves to its key frame: number and times are those in the video."""

    place: int
    key: bool
    level: int
    number: int
    pts: int
    duration: int
    tiles: list[bytes]


class VideoFile:
    """A parsed video file, to be read from any place and closed.

    Args:
        source: a path, or a seekable binary file.
        max_pixels: larger frames are refused before memory is taken for them.
        keep_going: read damaged and cut files, and leave out what is damaged.

    Attributes:
        width, height: pixels.
        header: time base, rate, pixel aspect and colour.
        tags: title, artist and the like.
        index: how many frames there are, and where the key frames stand.
        cut: the file had no whole index, so it was made from what is there.

    Raises:
        NotPixa, UnsupportedVersion, Corrupt, LimitExceeded: by name what is wrong with the file.
        UnsupportedInput: a still picture.
    """

    def __init__(self, source: str | os.PathLike | BinaryIO, *, max_pixels: int = MAX_PIXELS, keep_going: bool = False):
        self.file = source if hasattr(source, "read") else open(source, "rb")  # noqa: SIM115
        self.keep_going, self.cut = keep_going, False
        try:
            self.chunks = ChunkFile(self.file)
            self.read_headers(max_pixels)
            self.width, self.height = self.head.width, self.head.height
            side = 1 << self.head.tile_log2
            self.tiles = -(-self.width // side) * -(-self.height // side)
            self.largest = DENSEST * (self.width + side) * (self.height + side)  # bytes of a packet
            self.most = self.chunks.size // SMALLEST_PACKET  # frames
            self.index = self.find_index()
        except BaseException:
            self.close()
            raise

    def read_headers(self, max_pixels: int) -> None:
        """Everything that stands before the first packet."""
        found, place = {}, len(PREFIX)
        while place < self.chunks.size:
            kind, start, length = self.chunks.span(place)
            if kind in VIDEO_BODY:
                break
            if not found and kind != ChunkType.HEAD:
                raise Corrupt("the file does not begin with its header")
            if any(not kind & ANCILLARY and kind <= other < ANCILLARY for other in found):
                raise Corrupt("the parts of the file are out of order")
            if length > MAX_METADATA:
                raise Corrupt(f"{length} bytes before the first frame are too many")
            try:
                chunk, end = self.chunks.chunk(place)
            except Corrupt:
                if not (kind & ANCILLARY and self.keep_going):
                    raise
                place = start + length + 4
                continue
            found[kind], place = chunk.payload, end
            if kind == ChunkType.HEAD:
                self.head = self.read_head(chunk.payload, max_pixels)
        if ChunkType.VIDEO not in found:
            raise Corrupt("the file is cut: it tells nothing of its frames")
        if not NOT_IN_VIDEOS.isdisjoint(found):
            raise Corrupt("the file has parts that its header does not announce")
        self.header = VideoHeader.read(found[ChunkType.VIDEO])
        self.reference = ModelReference.read(found[ChunkType.MODEL]) if ChunkType.MODEL in found else None
        self.tags = read_tags(found[ChunkType.TAGS]) if ChunkType.TAGS in found else {}
        self.begin = place

    @staticmethod
    def read_head(payload: bytes, max_pixels: int) -> Head:
        head = Head.read(payload)
        if head.kind == 0:
            raise UnsupportedInput("this is a picture, not a video")
        if head.flags != 1:
            raise UnsupportedVersion(f"a video with the flags {head.flags}: a newer pixa wrote this file")
        if head.width * head.height > max_pixels:
            raise LimitExceeded(f"{head.width}x{head.height} is over the limit of {max_pixels} pixels")
        return head

    def find_index(self) -> Index:
        """The index of the file, or, when going on, of the frames that are there.

        Raises:
            Corrupt: there is none, or no frame to start from.
        """
        try:
            index = self.chunks.index()
            if index.frames > self.most:
                raise Corrupt("the index tells more frames than the file can hold")
            return index
        except Corrupt:
            if not self.keep_going:
                raise
        self.cut, keys, frame = True, [], None
        for frame in self.packets(KeyFrame(self.begin, 0, 0)):
            if frame.key:
                keys.append(KeyFrame(frame.place, frame.number, frame.pts))
        if not keys:
            raise Corrupt("the file is cut before its first frame ends")
        return Index(frame.number + 1, frame.pts + frame.duration, keys)

    def __len__(self) -> int:
        return self.index.frames

    @property
    def duration(self) -> float:
        """Seconds."""
        return float((self.index.end - self.index.keys[0].pts) * self.header.time_base)

    def packets(self, start: KeyFrame) -> Iterator[CodedFrame]:
        """The frames from a key frame on, still coded.

        Raises:
            Corrupt, UnsupportedVersion: what is there is damaged, unless `keep_going`.
        """
        place, expected, key, before = start.place, start.number, None, None
        while place < self.chunks.size:
            try:
                kind, begin, length = self.chunks.span(place)
                if kind & ANCILLARY:
                    place = begin + length + 4
                    continue
                chunk, end = self.chunks.chunk(place, self.largest)
                if chunk.type != ChunkType.PACKET:
                    raise Corrupt("the parts of the file are out of order")
                packet = Packet.read(chunk.payload, self.tiles)
                key = packet if packet.key else key
                frame = self.in_place(packet, key, place)
                self.check_order(frame, expected, before)
            except (Corrupt, UnsupportedVersion):
                if not self.keep_going:
                    raise
                key, place = None, self.chunks.next_packet(place + 1, self.largest)
                continue
            yield frame
            place, expected, before = end, frame.number + 1, frame

    def in_place(self, packet: Packet, key: Packet | None, place: int) -> CodedFrame:
        """A packet with its number and times in the video."""
        if packet.key:
            return CodedFrame(place, *packet)
        if key is None or packet.number >= self.header.gop or self.reference is None:
            raise Corrupt("a frame has no key frame before it")
        passed = packet.number * key.duration if packet.pts is None else packet.pts
        duration = key.duration if packet.duration is None else packet.duration
        number, pts = key.number + packet.number, key.pts + passed
        return CodedFrame(place, False, packet.level, number, pts, duration, packet.tiles)

    def check_order(self, frame: CodedFrame, expected: int, before: CodedFrame | None) -> None:
        """Refuse frames that do not follow each other; behind damage a key frame may come later than expected."""
        missing = frame.number - expected
        if missing < 0 or frame.number >= self.most or (before and frame.pts <= before.pts):
            raise Corrupt("the frames are out of order")
        if missing and not (self.keep_going and frame.key):
            raise Corrupt(f"{missing} frames are missing before frame {frame.number}")

    @cached_property
    def has_audio(self) -> bool:
        return bool(self.audio().read(1))

    def audio(self) -> Pieces:
        """The Matroska file that holds the audio, as a stream to read; empty without audio."""
        return Pieces(self.chunks, self.begin, self.largest if self.keep_going else 0)

    def check(self) -> None:
        """Check every chunk of the file.

        Raises:
            Corrupt, UnsupportedVersion: one is damaged or unknown.
        """
        place = len(PREFIX)
        while place < self.chunks.size:
            place = self.chunks.chunk(place)[1]

    def info(self) -> dict:
        """What the headers say, ready for JSON; loads no model."""
        sizes, counts = Counter(), Counter()
        place = len(PREFIX)
        while place < self.chunks.size:
            kind, start, length = self.chunks.span(place)
            sizes[chunk_name(kind)] += length
            counts[chunk_name(kind)] += 1
            place = start + length + 4
        header, reference = self.header, self.reference
        return {
            "format_version": VERSION,
            "width": self.width,
            "height": self.height,
            "frames": len(self),
            "keys": len(self.index.keys),
            "keyint": header.gop,
            "duration": round(self.duration, 6),
            "fps": round(float(header.rate), 4),
            "time_base": str(header.time_base),
            "pixel_aspect": f"{header.aspect_num}:{header.aspect_den}",
            "colour": {
                "primaries": header.primaries,
                "transfer": header.transfer,
                "matrix": header.matrix,
                "range": "full" if header.full_range else "limited",
            },
            "quality": self.head.level / 2,
            "model": model_name(self.head.model, self.head.model_hash),
            "model_hash": f"{self.head.model_hash:08x}",
            "inter_model": model_name(reference.model, reference.model_hash) if reference else None,
            "bytes": self.chunks.size,
            "bitrate": round(8 * self.chunks.size / self.duration) if self.duration else None,
            "audio_bytes": sizes["AUDIO"],
            "tags": self.tags,
            "chunks": [{"type": name, "count": counts[name], "bytes": sizes[name]} for name in sizes],
        }

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_tags(payload: bytes) -> dict[str, str]:
    """The tags of a payload.

    Raises:
        Corrupt: no JSON object of strings.
        LimitExceeded: as `deflate.read_metadata`.
    """
    try:
        tags = json.loads(read_metadata(payload))
    except (ValueError, RecursionError) as error:
        raise Corrupt("the tags are no JSON") from error
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise Corrupt("the tags are no names with texts")
    return tags


def model_name(wire_id: int, model_hash: int) -> str:
    """Name of a model, or its number where it is not installed."""
    try:
        entry = find_wire(wire_id, model_hash)
    except ModelMissing:
        return f"#{wire_id}"
    return f"{entry.name}.{entry.tag}"
