"""What a codec takes besides time: peak memory, multiply-accumulates and parameters, each found in a fresh process."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from pixa.app.bench.codecs import Codec, find_codec
from pixa.app.bench.measurements import Job, read_picture

COSTS = ("encoding_memory", "decoding_memory", "encoding_kmac", "decoding_kmac", "parameters")
Result = TypeVar("Result")


class Peaks(NamedTuple):
    """Most resident memory in MiB, with all that the interpreter and its libraries take."""

    encoding: float
    decoding: float


def measure_costs(job: Job) -> dict:
    """Memory in MiB, thousand multiply-accumulates a pixel, parameters; None for what a classical codec has not."""
    codec = find_codec(job.codec)
    peaks = peak_memory(codec, job.path, job.quality)
    complexity = in_new_process(codec.complexity, job.quality) or (None, None, None)
    return job.row | dict(zip(COSTS, (*peaks, *complexity), strict=True))


def peak_memory(codec: Codec, picture: Path, quality: float, shape: tuple[int, int] | None = None) -> Peaks:
    """The peaks of one picture, repeated to (height, width) where a shape is given."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "encoded"
        encoding = in_new_process(encode_file, codec, picture, quality, shape, file)
        return Peaks(encoding, in_new_process(decode_file, codec, file))


def encode_file(codec: Codec, picture: Path, quality: float, shape: tuple[int, int] | None, output: Path) -> float:
    """Save the file of a picture and tell the peak memory in MiB."""
    samples = read_picture(picture)
    if shape:
        rows, columns = (np.arange(size) % period for size, period in zip(shape, samples.shape, strict=False))
        samples = samples[rows[:, None], columns]
    output.write_bytes(codec.encode(samples, quality))
    return peak_mebibytes()


def decode_file(codec: Codec, path: Path) -> float:
    """Decode a file and tell the peak memory in MiB."""
    codec.decode(path.read_bytes())
    return peak_mebibytes()


def peak_mebibytes() -> float:
    """The most memory this process ever had, in MiB (`ru_maxrss` counts KiB on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_new_process(function: Callable[..., Result], *arguments) -> Result:
    """What a function gives in a process that has done nothing before.

    It is forked from multiprocessing's small server: a spawned one starts with its parent's peak on the books.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
        return pool.submit(function, *arguments).result()
