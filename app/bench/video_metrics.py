"""How near decoded clips are to their originals: every metric takes two lists of 4:2:0 frames, (3/2 H, W) uint8."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from statistics import fmean
from typing import NamedTuple

import av
import numpy as np

from pixa.app.bench import ffmpeg
from pixa.app.bench.metrics import MS_SSIM_SIDE, decibels, ms_ssim

Planes = Sequence[np.ndarray]
BEST = 100.0  # dB, of a frame without an error
MS_SSIM_EVERY = 4  # frames: it is slow, and neighbours are alike


def planes(frame: np.ndarray) -> Iterator[np.ndarray]:
    """Y, U and V of a frame, flat."""
    luma = frame.shape[0] * 2 // 3 * frame.shape[1]
    flat = frame.reshape(-1)
    yield flat[:luma]
    yield flat[luma : luma * 5 // 4]
    yield flat[luma * 5 // 4 :]


def weighted(y: float, u: float, v: float) -> float:
    """The 6:1:1 mean that is usual in JVET reports."""
    return (6 * y + u + v) / 8


def psnr_yuv(original: Planes, decoded: Planes) -> float:
    """PSNR in dB, Y, U and V weighted 6:1:1, the mean over frames."""
    values = []
    for one, other in zip(original, decoded, strict=True):
        errors = [np.subtract(a, b, dtype=np.int32) for a, b in zip(planes(one), planes(other), strict=True)]
        values.append(weighted(*(min(decibels(float(np.mean(np.square(e)))), BEST) for e in errors)))
    return fmean(values)


def ms_ssim_y(original: Planes, decoded: Planes) -> float | None:
    """Multi-scale SSIM of Y, 0 to 1, the mean over every fourth frame; None with a side under 176 pixels."""
    rows, columns = original[0].shape[0] * 2 // 3, original[0].shape[1]
    if min(rows, columns) < MS_SSIM_SIDE:
        return None
    pairs = list(zip(original, decoded, strict=True))[::MS_SSIM_EVERY]
    return fmean(ms_ssim(one[:rows, :, None], other[:rows, :, None]) for one, other in pairs)


def xpsnr(original: Planes, decoded: Planes) -> float:
    """XPSNR in dB (Helmrich et al., ICASSP 2020) by FFmpeg's filter, weighted 6:1:1, the mean over frames."""
    rows, columns = original[0].shape
    graph = av.filter.Graph()
    source = {"width": columns, "height": rows * 2 // 3, "format": av.VideoFormat("yuv420p")}
    inputs = [graph.add_buffer(**source, time_base=Fraction(1, 25)) for _ in range(2)]
    compare, sink = graph.add("xpsnr"), graph.add("buffersink")
    for number, buffer in enumerate(inputs):
        buffer.link_to(compare, 0, number)
    compare.link_to(sink)
    graph.configure()
    values = []
    for number, pair in enumerate(zip(decoded, original, strict=True)):
        for buffer, samples in zip(inputs, pair, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(samples), "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            buffer.push(frame)
        told = sink.pull().metadata
        of = [float(told[f"lavfi.xpsnr.xpsnr.{plane}"]) for plane in "yuv"]
        values.append(weighted(*(min(value, BEST) if math.isfinite(value) else BEST for value in of)))
    return fmean(values)


class Metric(NamedTuple):
    """A metric.

    Attributes:
        name: of its column.
        measure: of two lists of frames, the originals first; None where it does not apply.
        missing: what to install before it can be used; None when it can.
    """

    name: str
    measure: Callable[[Planes, Planes], float | None]
    missing: Callable[[], str | None] = lambda: None


METRICS = {
    "psnr": Metric("psnr-yuv", psnr_yuv),
    "ms-ssim": Metric("ms-ssim-y", ms_ssim_y),
    "xpsnr": Metric("xpsnr-yuv", xpsnr),
    "vmaf": Metric("vmaf", ffmpeg.vmaf, lambda: ffmpeg.missing("filters", "libvmaf")),
}
