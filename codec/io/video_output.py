"""Videos of other formats as output, through PyAV (FFmpeg): frames with their timestamps, colour and copied audio."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import BinaryIO, NamedTuple

import av
from av.error import FFmpegError

from pixa.bitstream.headers import VideoHeader
from pixa.io.video import EXACT, FULL, LIMITED, MATRICES, MUXER, NO_PROTOCOL, ffmpeg_errors, matrix_of
from pixa.video.reader import Frame


class Format(NamedTuple):
    """A format that videos are decoded to: FFmpeg's names of it, of the encoder, of the pixels, and options of both."""

    name: str
    encoder: str
    pixels: str
    odd_pixels: str
    options: dict[str, str]
    muxer: dict[str, str]


H264 = {"crf": "12", "preset": "medium"}
FORMATS = {
    ".mp4": Format("mp4", "libx264", "yuv420p", "yuv444p", H264, {}),
    ".mov": Format("mov", "libx264", "yuv420p", "yuv444p", H264, {}),
    ".mkv": Format("matroska", "ffv1", "bgr0", "bgr0", {"level": "3", "slicecrc": "1"}, MUXER),
    ".y4m": Format("yuv4mpegpipe", "wrapped_avframe", "yuv420p", "yuv420p", {}, {}),
}


class VideoOutput:
    """A video to be written in a format of `FORMATS`.

    Args:
        file: a binary file; mp4 and mov need one that seeks.
        suffix: a key of `FORMATS`.
        width, height: pixels of the frames.
        header: time base, rate, pixel aspect and colour.
        tags: title, artist and the like.
        audio: a Matroska file to copy the audio from, to be read from its start; None for none.
        origin: pts of the frame that shall stand at time 0; 0 keeps times as they are.

    Attributes:
        notes: what a user should know, such as audio that is damaged.

    Raises:
        UnsupportedInput: the format cannot hold this video or its audio.
    """

    def __init__(
        self,
        file: BinaryIO,
        suffix: str,
        width: int,
        height: int,
        header: VideoHeader,
        tags: dict[str, str],
        audio: object | None = None,
        origin: int = 0,
    ):
        self.format, self.header, self.origin = FORMATS[suffix], header, origin
        self.shift, self.notes = origin * header.time_base, []
        self.pixels = self.format.odd_pixels if width % 2 or height % 2 else self.format.pixels
        self.raw = self.format.encoder == "wrapped_avframe"
        with ffmpeg_errors(f"cannot be written as {suffix[1:]}"):
            self.container = av.open(file, "w", format=self.format.name, options=self.format.muxer)
            self.container.metadata.update(tags)
            self.stream = self.container.add_stream(self.format.encoder, rate=header.rate, options=self.format.options)
            self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, self.pixels
            context = self.stream.codec_context
            context.time_base = 1 / header.rate if self.raw else header.time_base
            context.sample_aspect_ratio = Fraction(header.aspect_num, header.aspect_den)
            self.matrix = matrix_of(header.matrix, height)
            if self.pixels.startswith("yuv"):
                context.color_primaries, context.color_trc = header.primaries, header.transfer
                context.colorspace = header.matrix if header.matrix in MATRICES else 2
                context.color_range = FULL if header.full_range else LIMITED
            self.audio = self.open_audio(audio)
        self.count, self.last, self.even = 0, 0, True
        self.step = 1 / (header.rate * header.time_base)

    def open_audio(self, file: object | None) -> Iterator[av.Packet]:
        """The packets of the audio, for which this file gets tracks."""
        self.tracks = {}
        if file is None:
            return iter(())
        try:
            source = av.open(file, format="matroska", container_options=NO_PROTOCOL)
        except FFmpegError as error:
            self.notes.append(f"the audio is damaged and left out: {error.strerror}")
            return iter(())
        for stream in source.streams.audio:
            self.tracks[stream] = self.container.add_stream_from_template(stream)
            self.tracks[stream].metadata.update(stream.metadata)

        def packets() -> Iterator[av.Packet]:
            for packet in whole(source.demux(*self.tracks), self.notes):
                if packet.dts is None:
                    continue
                passed = round(self.shift / packet.time_base)
                packet.pts, packet.dts = packet.pts - passed, packet.dts - passed
                if not passed or packet.pts >= 0:
                    yield packet

        return packets()

    def write(self, frame: Frame) -> None:
        """Add a frame, and the audio up to its time."""
        picture = av.VideoFrame.from_ndarray(frame.samples, "rgb24")
        options = {"format": self.pixels, "interpolation": EXACT, "threads": 1}
        if self.pixels.startswith("yuv"):
            options |= {"dst_colorspace": self.matrix, "dst_color_range": FULL if self.header.full_range else LIMITED}
        with ffmpeg_errors("cannot be written"):
            picture = picture.reformat(**options)
            picture.pts = self.count if self.raw else frame.pts - self.origin
            picture.time_base = self.stream.codec_context.time_base
            if not self.raw:
                picture.duration = frame.duration
            self.even &= not self.count or abs(frame.pts - self.last - self.step) <= 1
            self.count, self.last = self.count + 1, frame.pts
            self.copy_audio((frame.pts - self.origin) * self.header.time_base)
            self.container.mux(self.stream.encode(picture))

    def copy_audio(self, time: Fraction | None) -> None:
        """Copy the packets before a time, or all."""
        for packet in self.audio:
            if time is not None and packet.pts * packet.time_base >= time:
                self.audio = chain([packet], self.audio)
                break
            packet.stream = self.tracks[packet.stream]
            self.container.mux(packet)

    def close(self, end: Fraction | None = None) -> None:
        """Write what is left, audio up to a time if one is given."""
        with ffmpeg_errors("cannot be written"):
            self.container.mux(self.stream.encode(None))
            self.copy_audio(end)
            if self.raw and not self.even:
                self.notes.append(f"its times vary, which y4m cannot tell: every frame lasts 1/{self.header.rate} s")
            self.container.close()


def whole(packets: Iterator[av.Packet], notes: list[str]) -> Iterator[av.Packet]:
    """The packets up to damage, which is noted."""
    try:
        yield from packets
    except FFmpegError as error:
        notes.append(f"the audio is damaged from some place on: {error.strerror}")
