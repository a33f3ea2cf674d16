"""The video codecs that pixa is measured against, and pixa itself, on clips of planar 4:2:0 frames.

All get the same frames and the same time between key frames, and all give whole files: Matroska, or pixa's own.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import av
import numpy as np

import pixa
from pixa.app.bench import ffmpeg
from pixa.app.bench.codecs import code_sha256, weights_sha256
from pixa.bitstream.headers import VideoHeader
from pixa.errors import UnsupportedInput, UsageError
from pixa.io.video import EXACT, FULL, LIMITED, VideoInput, matrix_of
from pixa.models.registry import find_model, list_models
from pixa.video.reader import Video
from pixa.video.writer import VideoWriter

KEYINT = 64
THREADS = os.cpu_count() or 1


class Clip(NamedTuple):
    """Frames as planes of Y, U and V one below the other, (3/2 H, W) uint8, and what they mean."""

    frames: list[np.ndarray]
    header: VideoHeader

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        rows, columns = self.frames[0].shape
        return rows * 2 // 3, columns


def read_clip(path: Path, frames: int | None = None) -> Clip:
    """The first frames of a video, as 4:2:0, its own samples where it is that.

    Raises:
        UnsupportedInput: no video, or one with odd sides.
    """
    with path.open("rb") as file:
        source = VideoInput(file, audio=False)
        header = source.header
        source.close()
        file.seek(0)
        if source.width % 2 or source.height % 2:
            raise UnsupportedInput(f"{path} has odd sides, which 4:2:0 does not fit")
        with av.open(file) as container:
            decoded = islice(container.decode(video=0), frames)
            planes = [frame.to_ndarray(format="yuv420p", interpolation=EXACT) for frame in decoded]
    rate = header.rate
    return Clip(planes, VideoHeader(*(1 / rate).as_integer_ratio(), *rate.as_integer_ratio(), matrix=header.matrix))


class VideoCodec(Protocol):
    """What the benchmark needs of a codec.

    Attributes:
        description: settings, for tables.
        qualities: a default sweep on the codec's own scale, rising.
    """

    description: str
    qualities: tuple[float, ...]

    @property
    def version(self) -> str:
        """What the bytes depend on besides clip and quality."""

    @property
    def missing(self) -> str | None:
        """What to install before the codec can be used; None when it can."""

    def encode(self, clip: Clip, quality: float) -> bytes: ...

    def decode(self, data: bytes, clip: Clip) -> list[np.ndarray]: ...


@dataclass(frozen=True)
class FfmpegCodec:
    """An encoder of FFmpeg; quality is `lowest` minus its constant rate factor."""

    encoder: str
    description: str
    lowest: int
    options: dict[str, str]
    qualities: tuple[float, ...] = field(default=(12, 18, 24, 30))
    trained = True

    @property
    def version(self) -> str:
        return f"PyAV {av.__version__}, {self.encoder}, {self.options}, keyint {KEYINT}, {THREADS} threads"

    @property
    def missing(self) -> str | None:
        return None if self.encoder in av.codecs_available else f"a PyAV built with {self.encoder}"

    def encode(self, clip: Clip, quality: float) -> bytes:
        file, rate = io.BytesIO(), clip.header.rate
        options = self.options | {"crf": str(round(self.lowest - quality)), "threads": str(THREADS)}
        with av.open(file, "w", format="matroska") as container:
            stream = container.add_stream(self.encoder, rate=rate, options=options)
            stream.height, stream.width = clip.size
            stream.pix_fmt, stream.codec_context.gop_size = "yuv420p", KEYINT
            for number, planes in enumerate(clip.frames):
                frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
                frame.pts, frame.time_base = number, 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return file.getvalue()

    def decode(self, data: bytes, clip: Clip) -> list[np.ndarray]:
        with av.open(io.BytesIO(data)) as container:
            container.streams.video[0].thread_type = "AUTO"
            return [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]


@dataclass(frozen=True)
class SystemCodec(FfmpegCodec):
    """An encoder of the system's ffmpeg that PyAV's lacks; `rate` is the option that takes `lowest` minus quality."""

    rate: str = "crf"

    @property
    def version(self) -> str:
        return f"{ffmpeg.version()}, {self.encoder}, {self.options}, keyint {KEYINT}, {THREADS} threads"

    @property
    def missing(self) -> str | None:
        return ffmpeg.missing("encoders", self.encoder)

    def encode(self, clip: Clip, quality: float) -> bytes:
        options = self.options | {self.rate: str(round(self.lowest - quality)), "threads": str(THREADS)}
        return ffmpeg.encode(clip.frames, str(clip.header.rate), self.encoder, options | {"g": str(KEYINT)})

    def decode(self, data: bytes, clip: Clip) -> list[np.ndarray]:
        return ffmpeg.decode(data, clip.frames)


@dataclass(frozen=True)
class PixaVideoCodec:
    """A pixa model at one effort, conversion from and to 4:2:0 included."""

    model: str
    effort: int = 0
    qualities: tuple[float, ...] = (10, 25, 40, 55, 70)
    missing = None
    trained = True

    @property
    def description(self) -> str:
        keys = f"a key frame in {KEYINT}" if find_model(self.model).key_model else "key frames only"
        return f"pixa, model {self.model}, effort {self.effort}, {keys}"

    @property
    def version(self) -> str:
        entry = find_model(self.model)
        weights = [weights_sha256(find_model(name))[:16] for name in (self.model, entry.key_model) if name]
        return f"pixa {pixa.__version__}, code {code_sha256()[:16]}, {self.model} {weights}, keyint {KEYINT}"

    def encode(self, clip: Clip, quality: float) -> bytes:
        matrix, file = matrix_of(clip.header.matrix, clip.size[0]), io.BytesIO()
        settings = {"quality": quality, "model": self.model, "effort": self.effort, "keyint": KEYINT}
        with VideoWriter(file, header=clip.header, **settings) as writer:
            for planes in clip.frames:
                frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
                writer.write(frame.to_ndarray(format="rgb24", src_colorspace=matrix, interpolation=EXACT, threads=1))
        return file.getvalue()

    def decode(self, data: bytes, clip: Clip) -> list[np.ndarray]:
        colour = {
            "dst_colorspace": matrix_of(clip.header.matrix, clip.size[0]),
            "dst_color_range": FULL if clip.header.full_range else LIMITED,
        }
        settings = {"format": "yuv420p", "interpolation": EXACT, "threads": 1} | colour
        return [av.VideoFrame.from_ndarray(rgb, "rgb24").to_ndarray(**settings) for rgb in Video(io.BytesIO(data))]


def x265(**options: str) -> dict[str, str]:
    """Options of x265, which does not read FFmpeg's own number of threads."""
    given = {"log-level": "none", "pools": str(THREADS)} | options
    return {"preset": "medium", "x265-params": ":".join(f"{name}={value}" for name, value in given.items())}


CODECS: dict[str, VideoCodec] = {
    **{f"pixa:{entry.name}": PixaVideoCodec(entry.name) for entry in list_models() if entry.codes_videos},
    "x264-zl": FfmpegCodec("libx264", "x264 medium, zero-latency", 51, {"preset": "medium", "tune": "zerolatency"}),
    "x264": FfmpegCodec("libx264", "x264 medium, B-frames", 51, {"preset": "medium"}),
    "x265-zl": FfmpegCodec("libx265", "x265 medium, zero-latency", 51, x265() | {"tune": "zerolatency"}),
    "x265": FfmpegCodec("libx265", "x265 medium, B-frames", 51, x265()),
    "svt-av1-ld": FfmpegCodec(
        "libsvtav1",
        "SVT-AV1 preset 8, low delay",
        63,
        {"preset": "8", "svtav1-params": f"pred-struct=1:lp={THREADS}"},
        (8, 18, 28, 38),
    ),
    "svt-av1": FfmpegCodec(
        "libsvtav1", "SVT-AV1 preset 8", 63, {"preset": "8", "svtav1-params": f"lp={THREADS}"}, (8, 18, 28, 38)
    ),
    "vp9": FfmpegCodec(  # in one pass libvpx makes no alternate references, so there is but one kind
        "libvpx-vp9",
        "VP9 good, cpu-used 4, one pass",
        63,
        {"deadline": "good", "cpu-used": "4", "row-mt": "1", "b:v": "0"},
        (8, 18, 28, 38),
    ),
    "vvenc": SystemCodec("libvvenc", "VVenC medium", 63, {"preset": "medium"}, (18, 26, 34, 42), "qp"),
    "aom": SystemCodec("libaom-av1", "libaom AV1, cpu-used 6", 63, {"cpu-used": "6", "b:v": "0"}, (8, 18, 28, 38)),
}


def find_codec(name: str) -> VideoCodec:
    """The codec called `name`: a key of `CODECS` or "pixa:MODEL[@EFFORT]".

    Raises:
        UsageError: there is none.
        ModelMissing: pixa has no such model.
    """
    if name in CODECS:
        return CODECS[name]
    family, _, rest = name.partition(":")
    model, _, effort = rest.partition("@")
    if family != "pixa" or not (effort or "0").isdecimal():
        raise UsageError(f"no video codec is called {name!r}; there are {', '.join([*CODECS, 'pixa:MODEL@EFFORT'])}")
    find_model(model)
    return PixaVideoCodec(model, int(effort or 0))
