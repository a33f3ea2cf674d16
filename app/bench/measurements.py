"""Measurements of files that codecs make of pictures.

Each is kept as soon as it is made, under what it depends on, so that an interrupted run resumes and a second one only
adds what is new.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixa.app.bench.codecs import Codec, find_codec
from pixa.app.bench.metrics import METRICS, Metric
from pixa.errors import PixaError, UnsupportedInput, UsageError
from pixa.io.image import load
from pixa.pixels import Picture


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
    def row(self) -> dict:
        """The beginning of a row: what a measurement depends on."""
        return {"sha256": self.sha256, "codec": self.codec, "version": self.version, "quality": self.quality}


class Failure(NamedTuple):
    """A job that a codec could not do."""

    job: Job
    error: str

    def __str__(self) -> str:
        return f"{self.job.codec} failed on {self.job.path.name} at quality {self.job.quality:g}: {self.error}"


@lru_cache(maxsize=1)
def read_picture(path: Path) -> np.ndarray:
    """Samples (H, W, 3) uint8 of a picture, as `rgb` gives them.

    Raises:
        UnsupportedInput, LimitExceeded: as `pixa.io.image.load`, with the name of the file.
    """
    try:
        return rgb(load(path))
    except PixaError as error:
        raise type(error)(f"{path}: {error}") from error
    except OSError as error:
        raise UnsupportedInput(f"{path} cannot be read: {error.strerror}") from error


def rgb(picture: Picture) -> np.ndarray:
    """Samples (H, W, 3) uint8 to measure codecs on: upright as pictures are, grey thrice, without alpha."""
    colour = picture.colour
    return np.ascontiguousarray(np.repeat(colour, 3, 2) if colour.shape[2] == 1 else colour)


@cache
def warm_up(name: str, shape: tuple[int, ...]) -> None:
    """Use a codec on black pictures, so that loading it and its first memory are no part of what is timed."""
    codec, black = find_codec(name), np.zeros(shape, np.uint8)
    for quality in codec.qualities:
        with suppress(Exception):  # it fails again, and is reported, where it is measured
            codec.decode(codec.encode(black if quality == codec.qualities[0] else black[:64, :64], quality))


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
    """Make one file and decode it: size, metrics, and times in seconds."""
    samples = read_picture(job.path)
    warm_up(job.codec, samples.shape)
    coding = time_coding(find_codec(job.codec), samples, job.quality)
    height, width = samples.shape[:2]
    row = job.row | {"picture": job.path.name, "width": width, "height": height}
    row |= {"bytes": len(coding.data), "bpp": 8 * len(coding.data) / (width * height)}
    for name, metric in metric_functions(job.metrics).items():
        value = metric(samples, coding.decoded)
        row[name] = value if value is not None and math.isfinite(value) else None
    times = {"encoding_time": coding.encoding_time, "decoding_time": coding.decoding_time}
    return row | times | {"processes": job.processes}


def attempt(function: Callable[[Job], dict], job: Job) -> dict | Failure:
    """What a function measures of a job, or why a codec could not do it: their libraries raise anything."""
    try:
        return function(job)
    except UsageError:
        raise
    except Exception as error:
        return Failure(job, " ".join(f"{type(error).__name__}: {error}".split()))


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
    """Rows by what they depend on, kept in `measurements.jsonl`: a line a measurement, the last of a field counts.

    A changed metric is not noticed: delete the file then.

    Attributes:
        failures: what could not be measured; the next run tries it again.
    """

    def __init__(self, folder: Path):
        self.file = folder / "measurements.jsonl"
        self.rows: dict[tuple, dict] = {}
        self.failures: list[Failure] = []
        for line in self.file.read_text().splitlines() if self.file.exists() else ():
            with suppress(ValueError):  # the run was killed while it wrote this line
                self.keep(json.loads(line))

    def keep(self, row: dict) -> None:
        key = row["sha256"], row["codec"], row["version"], row["quality"]
        self.rows[key] = self.rows.get(key, {}) | row

    def find(self, jobs: Iterable[Job], fields: Sequence[str]) -> list[dict]:
        """The rows of those jobs of which all `fields` are measured."""
        rows = (self.rows.get(tuple(job.row.values()), {}) for job in jobs)
        return [row for row in rows if all(field in row for field in fields)]

    def add(
        self,
        title: str,
        jobs: Sequence[Job],
        function: Callable[[Job], dict],
        fields: Sequence[str],
        processes: int = 1,
    ) -> None:
        """Measure those jobs that lack one of the `fields`, with a progress bar where stderr is a terminal.

        Raises:
            UsageError: a metric needs what is not installed, or a codec refuses its settings.
        """
        from tqdm import tqdm

        missing = [job for job in jobs if not self.find([job], fields)]
        results = run_all(partial(attempt, function), missing, processes)
        progress = tqdm(results, title, total=len(missing), leave=False, disable=None)
        with self.file.open("a") as file, progress:
            for result in progress:
                if isinstance(result, Failure):
                    self.failures.append(result)
                    progress.write(str(result), file=sys.stderr)
                else:
                    self.keep(result)
                    file.write("\n" + json.dumps(result, allow_nan=False))
                    file.flush()
        measured = len(self.find(jobs, fields))
        print(
            f"{title}: {measured} of {len(jobs)} measured, {len(jobs) - len(missing)} of them before", file=sys.stderr
        )


def run_all(function: Callable[[Job], dict | Failure], jobs: Sequence[Job], processes: int) -> Iterator[dict | Failure]:
    """What a function gives for each job, in any order."""
    if processes == 1:
        yield from map(function, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes, share_cores, (processes,)) as pool:
        yield from pool.imap_unordered(function, jobs)


def share_cores(processes: int) -> None:
    """Leave cores to the other processes: many threads that wait for each other are slower than one."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // processes)))
