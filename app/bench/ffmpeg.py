"""The system's ffmpeg, driven by ffmpeg-python, for what PyAV's build lacks: VMAF, and further encoders as anchors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from pixa.errors import PixaError


@cache
def program() -> str | None:
    """The path of ffmpeg: the system's, or that of the package imageio-ffmpeg."""
    if (found := shutil.which("ffmpeg")) or not find_spec("imageio_ffmpeg"):
        return found
    return import_module("imageio_ffmpeg").get_ffmpeg_exe()


@cache
def listed(kind: str) -> frozenset[str]:
    """The names of its "filters" or "encoders"."""
    if program() is None:
        return frozenset()
    told = subprocess.run([program(), "-hide_banner", f"-{kind}"], capture_output=True, text=True, check=False).stdout
    return frozenset(words[1] for words in map(str.split, told.splitlines()) if len(words) > 1)


def missing(kind: str, name: str) -> str | None:
    """What to install before one of its filters or encoders can be used; None when it can."""
    if not find_spec("ffmpeg"):
        return "pip install 'pixa[bench]', for ffmpeg-python"
    return None if name in listed(kind) else f"an ffmpeg with {name} (the package imageio-ffmpeg brings one)"


@cache
def version() -> str:
    """The first line it says of itself."""
    return subprocess.run([program(), "-version"], capture_output=True, text=True, check=True).stdout.partition("\n")[0]


def raw(frames: Sequence[np.ndarray]) -> dict:
    """How ffmpeg is told of planar 4:2:0 frames, each (3/2 H, W) uint8, without a header."""
    rows, columns = frames[0].shape
    return {"format": "rawvideo", "pix_fmt": "yuv420p", "s": f"{columns}x{rows * 2 // 3}"}


def run(stream: object, data: bytes = b"") -> bytes:
    """What a stream of ffmpeg-python gives on standard output.

    Raises:
        PixaError: ffmpeg failed.
    """
    ffmpeg = import_module("ffmpeg")
    quiet = stream.global_args("-hide_banner", "-loglevel", "error")
    try:
        return ffmpeg.run(quiet, cmd=program(), input=data, capture_stdout=True, capture_stderr=True)[0]
    except ffmpeg.Error as error:
        raise PixaError(f"ffmpeg failed: {error.stderr.decode(errors='replace').strip()}") from error


def encode(frames: Sequence[np.ndarray], rate: str, encoder: str, options: dict[str, str]) -> bytes:
    """Frames (3/2 H, W) uint8 as a Matroska file."""
    ffmpeg = import_module("ffmpeg")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mkv"  # written into a pipe, it would lack its length
        source = ffmpeg.input("pipe:", framerate=rate, **raw(frames))
        run(source.output(str(path), vcodec=encoder, **options), b"".join(frame.tobytes() for frame in frames))
        return path.read_bytes()


def decode(data: bytes, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The frames of a file, of the shape of those given."""
    ffmpeg = import_module("ffmpeg")
    every = {"format": "rawvideo", "pix_fmt": "yuv420p", "fps_mode": "passthrough"}
    samples = run(ffmpeg.input("pipe:").output("pipe:", **every), data)
    return list(np.frombuffer(samples, np.uint8).reshape(-1, *frames[0].shape))


def vmaf(original: Sequence[np.ndarray], decoded: Sequence[np.ndarray]) -> float:
    """VMAF, 0 to 100, by the default model of libvmaf, the mean over frames (3/2 H, W) uint8."""
    ffmpeg = import_module("ffmpeg")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("decoded.yuv", "original.yuv")]
        for path, frames in zip(paths, (decoded, original), strict=True):
            path.write_bytes(b"".join(frame.tobytes() for frame in frames))
        inputs = [ffmpeg.input(str(path), **raw(original)) for path in paths]
        log, threads = Path(folder) / "log.json", os.cpu_count() or 1
        graph = ffmpeg.filter(inputs, "libvmaf", log_fmt="json", log_path=str(log), n_threads=threads)
        run(graph.output("-", format="null"))
        return json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"]
