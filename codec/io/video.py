"""Videos of other formats as input, through PyAV (FFmpeg): frames, timestamps, colour, rotation and audio."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np
from av.container import Flags
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Colorspace, Interpolation

from pixa.bitstream.headers import VideoHeader
from pixa.errors import LimitExceeded, UnsupportedInput, UsageError
from pixa.pixels import MAX_SIDE

EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
HD_LINES = 720  # an untagged video of so many lines is taken for BT.709, of fewer for BT.601
LIMITED, FULL = 1, 2  # FFmpeg's ranges
NO_PROTOCOL = {"protocol_whitelist": "none"}  # a playlist must not make a program open other files
DECODER = {"max_pixels": str(2**28)}
MUXER = {"cluster_time_limit": "1000", "avoid_negative_ts": "disabled"}  # of Matroska: times stay as they are
OWN_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder"}  # of the file that was, not of the clip


def matrix_of(code: int, height: int) -> Colorspace:
    """FFmpeg's matrix of a code point of H.273, or what is usual for that many lines."""
    return MATRICES.get(code, Colorspace.ITU709 if height >= HD_LINES else Colorspace.ITU601)


@contextmanager
def ffmpeg_errors(what: str) -> Iterator[None]:
    """Turn what FFmpeg raises into a named error.

    Raises:
        UnsupportedInput: in its place.
    """
    try:
        yield
    except FFmpegError as error:
        raise UnsupportedInput(f"{what}: {error.strerror}") from error


class VideoInput:
    """A video in a format that FFmpeg reads.

    Iterating gives the frames as (samples (H, W, 3) uint8, upright, pts, duration in units of the time base), and in
    between the pieces of a Matroska file that holds the audio, as bytes. Frames enter by the matrix and range that the
    video tells.

    Args:
        file: a binary file; it need not be seekable.
        start: seconds to leave out; times then count from the first frame that is left.
        duration: seconds to take at most.
        limit: frames to take at most.
        audio: copy the audio.

    Attributes:
        header: time base, rate, pixel aspect and colour.
        width, height: pixels.
        tags: title, artist and the like.
        frames: how many there will be, as far as the file tells; None otherwise.
        notes: what a user should know, such as a track that cannot be copied.

    Raises:
        UnsupportedInput: no video.
        LimitExceeded: a side of more than 65535 pixels.
        UsageError: nothing is left.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        start: float = 0.0,
        duration: float | None = None,
        limit: int | None = None,
        audio: bool = True,
    ):
        self.notes: list[str] = []
        with ffmpeg_errors("cannot read it as a video"):
            self.container = av.open(file, container_options=NO_PROTOCOL)
            if not self.container.streams.video:
                raise UnsupportedInput("it holds no video")
            self.stream = self.container.streams.video[0]
            self.stream.codec_context.options = DECODER
            self.stream.thread_type = "AUTO"
        self.begin = Fraction(self.container.start_time or 0, av.time_base) + Fraction(start)
        self.end = None if duration is None else self.begin + Fraction(duration)
        self.limit, self.cut = limit, start > 0
        self.audio = AudioCopy(self.container.streams.audio if audio else [], self.notes)
        if self.cut:
            with ffmpeg_errors("cannot seek in it"):
                self.container.seek(int(self.begin * av.time_base))
        self.tags = {name: value for name, value in self.container.metadata.items() if name.lower() not in OWN_TAGS}
        self.read = self.decoded()
        first = next(self.read, None)
        if first is None:
            raise UsageError("no frame is left to take") if start else UnsupportedInput("it holds no frame")
        self.describe(first)
        self.first = first
        self.origin = first.pts if self.cut else 0
        self.frames = self.count(start, duration)

    def describe(self, frame: av.VideoFrame) -> None:
        """Take from the first frame what is the same for all."""
        self.turn = orientation(frame)
        aspect = Fraction(self.stream.sample_aspect_ratio or 1)
        self.width, self.height = frame.width, frame.height
        if self.turn[0]:
            self.width, self.height, aspect = self.height, self.width, 1 / (aspect or 1)
        if max(self.width, self.height) > MAX_SIDE:
            raise LimitExceeded(f"{self.width}x{self.height} is outside 1x1 to {MAX_SIDE}x{MAX_SIDE}")
        aspect = aspect if aspect > 0 and max(aspect.as_integer_ratio()) <= 65535 else Fraction(1)
        rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        if frame.format.components[0].bits > 8:
            self.notes.append(f"{frame.format.components[0].bits} bits a sample become 8")
        if frame.interlaced_frame:
            self.notes.append("interlaced frames are coded as they are")
        self.header = VideoHeader(
            *self.stream.time_base.as_integer_ratio(),
            *rate.as_integer_ratio(),
            *aspect.as_integer_ratio(),
            primaries=frame.color_primaries,
            transfer=frame.color_trc,
            matrix=frame.colorspace,
            full_range=int(frame.color_range == FULL or frame.format.name.startswith("yuvj")),
        )

    def count(self, start: float, duration: float | None) -> int | None:
        """Frames to come, as far as can be told."""
        seconds = self.container.duration and self.container.duration / av.time_base - start
        known = [value for value in (seconds, duration) if value]
        frames = [round(min(known) * self.header.rate)] if known else []
        if self.stream.frames and not start and duration is None:
            frames = [self.stream.frames]
        frames += [self.limit] if self.limit else []
        return max(min(frames), 1) if frames else None

    def audio_size(self) -> int:
        """Bytes that the audio takes, at the rates that the input tells."""
        span, size = self.frames / self.header.rate if self.frames else 0, 0
        for stream in self.audio.tracks:
            length = span if stream.duration is None else min(span, stream.duration * stream.time_base)
            size += length * (stream.bit_rate or 0) / 8
        return int(size)

    def decoded(self) -> Iterator[av.VideoFrame]:
        """Frames from the start to the end that was asked for; audio goes to `self.audio` on the way."""
        last = None
        with ffmpeg_errors("cannot decode it"):
            for packet in self.container.demux(self.stream, *self.audio.tracks):
                if packet.stream is not self.stream:
                    if packet.dts is not None and self.within(packet.pts * packet.time_base):
                        self.audio.held.append(packet)
                    continue
                for frame in packet.decode():
                    if frame.pts is None:
                        frame.pts = 0 if last is None else last + 1
                    last = frame.pts
                    time = frame.pts * self.stream.time_base
                    if self.end is not None and time >= self.end:
                        return
                    if not self.cut or time >= self.begin:
                        yield frame

    def within(self, time: Fraction) -> bool:
        return (not self.cut or time >= self.begin) and (self.end is None or time < self.end)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int, int | None] | bytes]:
        frame, taken = self.first, 0
        while frame is not None:
            taken += 1
            following = next(self.read, None) if taken != self.limit else None
            gap = following.pts - frame.pts if following is not None else 0
            duration = gap if gap > 0 else frame.duration or None
            yield self.samples(frame), frame.pts - self.origin, duration
            if piece := self.audio.copy(self.origin * self.stream.time_base):
                yield piece
            frame = following
        if piece := self.audio.close():
            yield piece

    def samples(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) uint8, upright."""
        if frame.colorspace not in MATRICES and not frame.format.is_rgb:
            frame.colorspace = matrix_of(frame.colorspace, frame.height)
        with ffmpeg_errors("cannot convert it to RGB"):
            samples = frame.to_ndarray(format="rgb24", interpolation=EXACT, threads=1)
        transposed, rows, columns = self.turn
        samples = samples.swapaxes(0, 1) if transposed else samples
        return np.ascontiguousarray(samples[::rows, ::columns])

    def close(self) -> None:
        self.container.close()


def orientation(frame: av.VideoFrame) -> tuple[bool, int, int]:
    """(transpose, step of the rows, step of the columns) that put a frame upright, from its display matrix."""
    data = frame.side_data.get(SideData.DISPLAYMATRIX)
    if data is None:
        return False, 1, 1
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    sign = lambda value: -1 if value < 0 else 1
    return (True, sign(b), sign(c)) if abs(b) > abs(a) else (False, sign(d), sign(a))


class Collected:
    """A file that keeps what is written until it is taken."""

    def __init__(self):
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self.parts)
        self.parts.clear()
        return data


class AudioCopy:
    """Packets of audio, copied untouched into a Matroska file that comes piece by piece.

    Args:
        streams: the tracks; one that Matroska cannot hold is left out.
        notes: gets a line for each of those.

    Attributes:
        held: packets that have come and are not copied yet.
    """

    def __init__(self, streams: list[av.AudioStream], notes: list[str]):
        self.sink, self.held, self.tracks = Collected(), [], {}
        self.container = av.open(self.sink, "w", format="matroska", options=MUXER)
        self.container.flags |= Flags.bitexact.value
        for stream in streams:
            try:
                self.tracks[stream] = self.container.add_stream_from_template(stream)
                self.tracks[stream].metadata.update(stream.metadata)
            except (FFmpegError, ValueError) as error:
                notes.append(f"audio track {stream.index} is left out: {error}")

    def copy(self, origin: Fraction) -> bytes:
        """Copy what is held, its times counted from an origin in seconds; the bytes that are ready."""
        for packet in self.held:
            passed = round(origin / packet.time_base)
            packet.pts, packet.dts = packet.pts - passed, packet.dts - passed
            packet.stream = self.tracks[packet.stream]
            self.container.mux(packet)
        self.held.clear()
        return self.sink.take()

    def close(self) -> bytes:
        """The last bytes."""
        if self.tracks:
            self.container.close()
        return self.sink.take()
