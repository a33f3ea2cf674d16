"""Short clips through pixa and the video codecs of FFmpeg: sizes, bits and PSNR of every frame, one player's file."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixa.app.bench.codecs import search_quality
from pixa.app.bench.metrics import psnr_ycbcr
from pixa.app.page.comparison import CLOCK, Deadline
from pixa.errors import LimitExceeded, UnsupportedInput
from pixa.models.registry import list_models

MAX_FRAMES = 48
MAX_FRAME_PIXELS = 640 * 360
MAX_SOURCE_PIXELS = 3840 * 2160
DIVIDER = 4


class Clip(NamedTuple):
    """Frames (H, W, 3) uint8 of one size, sides even, and how many a second."""

    frames: list[np.ndarray]
    rate: Fraction


class CodedClip(NamedTuple):
    """A clip's file, the bits of every frame in it, and the frames decoded from it; seconds for all of them."""

    data: bytes
    bits: list[int]
    frames: list[np.ndarray]
    encoding_time: float
    decoding_time: float


@dataclass(frozen=True)
class FfmpegCodec:
    """An encoder of FFmpeg; quality is `lowest` minus its CRF."""

    name: str
    title: str
    lowest: int
    options: tuple[tuple[str, str], ...]

    def encode(self, clip: Clip, quality: int) -> bytes:
        """A Matroska file, yuv420p."""
        options = dict(self.options) | {"crf": str(self.lowest - quality)}
        return write_video(clip, self.name, options, "matroska")

    def decode(self, data: bytes) -> list[np.ndarray]:
        import av

        with av.open(io.BytesIO(data)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    def frame_bits(self, data: bytes) -> list[int]:
        """In the order in which frames are shown."""
        import av

        with av.open(io.BytesIO(data)) as container:
            packets = [(packet.pts, packet.size) for packet in container.demux(video=0) if packet.size]
        return [8 * size for _, size in sorted(packets)]


@dataclass(frozen=True)
class PixaVideo:
    """A pixa model on clips; quality as for pictures."""

    model: str

    @property
    def title(self) -> str:
        return f"pixa {self.model}"

    def encode(self, clip: Clip, quality: float) -> bytes:
        from pixa.video.writer import VideoWriter

        file = io.BytesIO()
        with VideoWriter(file, fps=clip.rate, quality=quality, model=self.model) as writer:
            for frame in clip.frames:
                writer.write(frame)
        return file.getvalue()

    def decode(self, data: bytes) -> list[np.ndarray]:
        from pixa.video.reader import Video

        return list(Video(io.BytesIO(data)))

    def frame_bits(self, data: bytes) -> list[int]:
        from pixa.video.reader import Video

        video = Video(io.BytesIO(data))
        return [8 * sum(map(len, frame.tiles)) for frame in video.packets(video.index.keys[0])]


RIVALS = {
    "x264": FfmpegCodec("libx264", "x264, medium", 51, (("preset", "medium"),)),
    "x265": FfmpegCodec(
        "libx265", "x265, medium", 51, (("preset", "medium"), ("x265-params", "log-level=none:info=0"))
    ),
    "svt-av1": FfmpegCodec("libsvtav1", "SVT-AV1, preset 8", 63, (("preset", "8"),)),
}


def list_video_models() -> dict[str, str]:
    """Names to show of the models that take clips, by their own names; those that see past frames come first."""
    models = {entry.name: entry for entry in list_models() if entry.codes_videos}
    ranked = sorted(models.values(), key=lambda entry: not entry.key_model)
    return {entry.name: entry.name if entry.key_model else f"{entry.name}, every frame by itself" for entry in ranked}


def read_clip(path: str | Path) -> Clip:
    """The first `MAX_FRAMES` frames of a video, reduced to at most `MAX_FRAME_PIXELS`.

    Raises:
        UnsupportedInput: no video that FFmpeg reads.
        LimitExceeded: its frames are larger than 4K.
    """
    import av

    frames = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = Fraction(stream.average_rate or 25)
            width, height = stream.width, stream.height
            if width * height > MAX_SOURCE_PIXELS:
                raise LimitExceeded(f"frames of {width} x {height} are larger than 4K: reduce the clip first")
            shrink = min(1.0, (MAX_FRAME_PIXELS / max(width * height, 1)) ** 0.5)
            width, height = (max(int(side * shrink) // 2 * 2, 2) for side in (width, height))
            for frame in container.decode(stream):
                frames.append(frame.to_ndarray(format="rgb24", width=width, height=height))
                if len(frames) == MAX_FRAMES:
                    break
    except (av.FFmpegError, IndexError, ValueError) as error:
        if isinstance(error, LimitExceeded):
            raise
        raise UnsupportedInput(f"{Path(path).name} is no video that can be read: {error}") from error
    if not frames:
        raise UnsupportedInput(f"{Path(path).name} holds no frames")
    return Clip(frames, rate)


def pan(samples: np.ndarray, width: int = 256, height: int = 192, frames: int = 24) -> Clip:
    """A clip that moves over a picture (H, W, 3), for those who have none at hand."""
    room = samples.shape[0] - height, samples.shape[1] - width
    places = [(round(room[0] * t), round(room[1] * t)) for t in np.linspace(0.1, 0.5, frames)]
    return Clip([np.ascontiguousarray(samples[y : y + height, x : x + width]) for y, x in places], Fraction(24))


def write_video(clip: Clip, codec: str, options: dict[str, str], container: str) -> bytes:
    """A file of FFmpeg, yuv420p."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=clip.rate, options=options)
        stream.height, stream.width = clip.frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for samples in clip.frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(samples, format="rgb24")))
        output.mux(stream.encode())
    return file.getvalue()


def code(codec: FfmpegCodec | PixaVideo, clip: Clip, quality: float) -> CodedClip:
    """Encode and decode on the clock."""
    with CLOCK:
        start = time.perf_counter()
        data = codec.encode(clip, quality)
        encoded = time.perf_counter()
        frames = codec.decode(data)
        end = time.perf_counter()
    return CodedClip(data, codec.frame_bits(data), frames, encoded - start, end - encoded)


def within_size(codec: FfmpegCodec, clip: Clip, size: int) -> CodedClip:
    """The best whole CRF whose file has at most so many bytes, or the highest."""
    quality, _ = search_quality(codec, clip, Deadline(len), size, range(codec.lowest + 1))
    return code(codec, clip, quality)


def frame_psnrs(clip: Clip, coded: CodedClip) -> list[float]:
    """PSNR of every frame in dB, Y, Cb and Cr weighted 6:1:1; 100 at most."""
    return [min(psnr_ycbcr(a, b), 100.0) for a, b in zip(clip.frames, coded.frames, strict=True)]


def beside(left: Sequence[np.ndarray], right: Sequence[np.ndarray], rate: Fraction) -> bytes:
    """An MP4 that any browser plays, with both clips in step, almost without loss of its own."""
    bar = np.full((left[0].shape[0], DIVIDER, 3), 255, np.uint8)
    frames = [np.hstack([a, bar, b]) for a, b in zip(left, right, strict=True)]
    return write_video(Clip(frames, rate), "libx264", {"crf": "10", "preset": "veryfast"}, "mp4")


def draw_frames(clip: Clip, coded: dict[str, CodedClip], ink: str = "#7f8894") -> bytes:
    """An SVG of bits and PSNR of every frame of every codec, by its title."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink}):
        figure = Figure(figsize=(9, 5), layout="constrained")
        FigureCanvasAgg(figure)
        upper, lower = figure.subplots(2, 1, sharex=True)
        for title, one in coded.items():
            upper.plot([bits / 1000 for bits in one.bits], "o-", markersize=3, linewidth=1.5, label=title)
            lower.plot(frame_psnrs(clip, one), "o-", markersize=3, linewidth=1.5)
        upper.set_ylabel("kilobits")
        lower.set_ylabel("PSNR YCbCr, dB")
        lower.set_xlabel("frame")
        upper.legend(frameon=False, fontsize="small", ncols=4)
        for axes in (upper, lower):
            axes.grid(alpha=0.25, color=ink)
            axes.set_facecolor("none")
            axes.spines[:].set_color(ink)
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True)
    return file.getvalue()


def summarise(clip: Clip, coded: dict[str, CodedClip]) -> Iterable[tuple[str, ...]]:
    """(codec, bytes, kilobits a second, mean PSNR, frames a second to encode and to decode)."""
    count, seconds = len(clip.frames), float(len(clip.frames) / clip.rate)
    for title, one in coded.items():
        yield (
            title,
            f"{len(one.data):,}",
            f"{8 * len(one.data) / seconds / 1000:.1f}",
            f"{np.mean(frame_psnrs(clip, one)):.3f} dB",
            f"{count / one.encoding_time:.1f}",
            f"{count / one.decoding_time:.1f}",
        )
