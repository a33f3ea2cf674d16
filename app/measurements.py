"""Measurements of files that codecs make of pictures.

Each is kept as soon as it is made, under what it depends on, so that an interrupted run resumes and a second one only
adds what is new.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pixa.app.codecs import Codec, find_codec
from pixa.app.metrics import METRICS, Metric
from pixa.errors import UnsupportedInput, UsageError


class Job(NamedTuple):
    """One file to make: `sha256` is of the picture's file, `version` of the codec."""

    sha256: str
    codec: str
    version: str
    quality: float
    path: Path
    metrics: tuple[str, ...]
    processes: int

    @property
    def key(self) -> tuple:
        return self.sha256, self.codec, self.version, self.quality


@lru_cache(maxsize=1)
def read_picture(path: Path) -> np.ndarray:
    """Samples (H, W, 3) uint8 of a picture; alpha is dropped.

    Raises:
        UnsupportedInput: the file is no picture that Pillow can read.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise UnsupportedInput(f"cannot read {path} as a picture: {error}") from error


@cache
def warm_up(name: str, shape: tuple[int, ...]) -> None:
    """Use a codec once on a black picture, so that loading it and its first memory are not part of what is timed."""
    codec = find_codec(name)
    codec.decode(codec.encode(np.zeros(shape, np.uint8), codec.qualities[0]))


class Coding(NamedTuple):
    """A file, the picture decoded from it (H, W, 3), and the seconds both took."""

    data: bytes
    decoded: np.ndarray
    encoding_time: float
    decoding_time: float


def time_coding(codec: Codec, samples: np.ndarray, quality: float) -> Coding:
    """Encode and decode on the clock."""
    start = time.perf_counter()
    data = codec.encode(samples, quality)
    encoded = time.perf_counter()
    decoded = codec.decode(data)
    return Coding(data, decoded, encoded - start, time.perf_counter() - encoded)


def measure(job: Job) -> dict:
    """Make one file and decode it: a row of the table, times in seconds."""
    samples = read_picture(job.path)
    warm_up(job.codec, samples.shape)
    coding = time_coding(find_codec(job.codec), samples, job.quality)
    height, width = samples.shape[:2]
    row = dict(zip(("sha256", "codec", "version", "quality"), job.key, strict=True))
    row |= {"picture": job.path.name, "width": width, "height": height}
    row |= {"bytes": len(coding.data), "bpp": 8 * len(coding.data) / (width * height)}
    row |= {name: metric(samples, coding.decoded) for name, metric in metric_functions(job.metrics).items()}
    times = {"encoding_time": coding.encoding_time, "decoding_time": coding.decoding_time}
    return row | times | {"processes": job.processes}


def metric_functions(groups: Iterable[str]) -> dict[str, Metric]:
    """The functions behind names of metric groups, by their name in the results.

    Raises:
        UsageError: there is no such group.
    """
    unknown = [group for group in groups if group not in METRICS]
    if unknown:
        raise UsageError(f"no metric is called {unknown[0]!r}; there are {', '.join(METRICS)}")
    return {name: function for group in groups for name, function in METRICS[group].items()}


class Measurements:
    """Rows by what they depend on, kept in `measurements.jsonl`: one line a row, the last of a key counts."""

    def __init__(self, folder: Path):
        self.file = folder / "measurements.jsonl"
        self.rows: dict[tuple, dict] = {}
        for line in self.file.read_text().splitlines() if self.file.exists() else ():
            try:
                self.keep(json.loads(line))
            except ValueError:  # the run was killed while it wrote this line
                continue

    def keep(self, row: dict) -> None:
        self.rows[row["sha256"], row["codec"], row["version"], row["quality"]] = row

    def add(self, jobs: Sequence[Job], processes: int) -> None:
        """Measure what is missing of `jobs`."""
        names = [*metric_functions(jobs[0].metrics)]
        missing = [job for job in jobs if not all(name in self.rows.get(job.key, ()) for name in names)]
        start = time.monotonic()
        with self.file.open("a") as file:
            for done, row in enumerate(measure_all(missing, processes), 1):
                self.keep(row)
                file.write("\n" + json.dumps(row))
                file.flush()
                seconds = (time.monotonic() - start) * (len(missing) - done) / done
                show_progress(f"{done}/{len(missing)} measured, {seconds:.0f} s to go")
        show_progress("")
        print(f"{len(missing)} files measured, {len(jobs) - len(missing)} known from before", file=sys.stderr)


def measure_all(jobs: Sequence[Job], processes: int) -> Iterator[dict]:
    """The rows of `jobs`, in any order."""
    if processes == 1:
        yield from map(measure, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(measure, jobs)


def show_progress(text: str) -> None:
    """Replace the last line of a terminal; nothing where stderr is a file."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
