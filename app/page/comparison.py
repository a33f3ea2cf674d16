"""One picture through several codecs: what each makes of it, and one following the other's size or PSNR."""

from __future__ import annotations

import io
import math
import os
import sys
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from threading import Lock

import numpy as np
from PIL import Image

from pixa.app.bench.codecs import CODECS, Codec, PixaCodec, find_codec, search_quality
from pixa.app.bench.measurements import Coding, time_coding
from pixa.app.bench.metrics import METRICS, psnr_rgb
from pixa.errors import LimitExceeded
from pixa.image.picture import ImageEncoder, level_of
from pixa.image.rate import LEVELS, RateSearch
from pixa.pixels import Picture

ORIGINAL = "original"
NAMES = {"jpeg": "JPEG", "webp": "WebP", "avif": "AVIF", "jxl": "JPEG XL"}
SUFFIXES = {"jpeg": ".jpg", "webp": ".webp", "avif": ".avif", "jxl": ".jxl"}
FREE, SAME_SIZE, SAME_PSNR = LOCKS = ("free", "same size", "same PSNR")
QUALITIES = range(101)
WHOLE_LEVELS = LEVELS[::2]  # of pixa, by quality
SEARCH_SECONDS = 60
KEPT_BYTES = 256 << 20
CLOCK = Lock()  # one codec at a time, so that its times mean something


def give_way() -> None:
    """Let other threads go first, where a thread has a priority of its own."""
    if sys.platform == "linux":
        os.nice(19)


BACKGROUND = ThreadPoolExecutor(1, "metrics", give_way)


def list_codecs() -> dict[str, str]:
    """Names to show of the codecs that can be used here, by what `find_codec` knows them as."""
    pixas = {name: f"pixa {name.partition(':')[2]}" for name in CODECS if name.startswith("pixa:")}
    return pixas | {name: title for name, title in NAMES.items() if not CODECS[name].missing}


def suffix_of(codec: str) -> str:
    """That of the files a codec writes."""
    return SUFFIXES.get(codec, ".pixa")


def finite(value: float | None) -> float | None:
    """None for what JSON and curves cannot hold."""
    return value if value is not None and math.isfinite(value) else None


def write_png(samples: np.ndarray) -> bytes:
    """A PNG of (H, W, 3) or (H, W) uint8 samples: exact, and packed for speed."""
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return file.getvalue()


@dataclass
class Result:
    """One codec at one quality.

    Attributes:
        data: the file; that of the upload for the original.
        decoded: (H, W, 3) uint8.
        row: the fields that `pixa bench` writes, as far as they are measured.
    """

    codec: str
    quality: float
    data: bytes
    decoded: np.ndarray
    row: dict[str, float | None] = field(default_factory=dict)

    @cached_property
    def png(self) -> bytes:
        """The decoded picture, exact."""
        return write_png(self.decoded)

    @property
    def nbytes(self) -> int:
        return len(self.data) + 2 * self.decoded.nbytes  # a PNG is no larger


class Subject:
    """A picture to compare codecs on. What was measured of it is kept while there is room.

    Args:
        name: of its file.
        data: the whole file.
        samples: (H, W, 3) uint8.

    Attributes:
        shown: the two sides that were compared last.
    """

    def __init__(self, name: str, data: bytes, samples: np.ndarray):
        self.name, self.samples = name, samples
        self.original = Result(ORIGINAL, 0, data, samples, self.rates(data))
        self.results: OrderedDict[tuple[str, float], Result] = OrderedDict()
        self.searches: dict[PixaCodec, TimedRateSearch] = {}
        self.shown = self.original, self.original

    @property
    def stem(self) -> str:
        return PurePath(self.name).stem

    def rates(self, data: bytes) -> dict[str, float]:
        height, width = self.samples.shape[:2]
        return {"bytes": len(data), "bpp": 8 * len(data) / (width * height)}

    def result(self, codec: str, quality: float) -> Result:
        """What a codec makes of the picture, with size, times and PSNR, each computed as in `pixa bench`.

        Raises:
            PixaError: the codec refuses; other codecs raise anything.
        """
        if codec == ORIGINAL:
            return self.original
        key = codec, quality
        if key not in self.results:
            with CLOCK:
                coding = self.code(find_codec(codec), quality)
            result = Result(codec, quality, coding.data, coding.decoded, self.rates(coding.data))
            result.row |= {"encoding_time": coding.encoding_time, "decoding_time": coding.decoding_time}
            result.row["psnr-rgb"] = finite(psnr_rgb(self.samples, coding.decoded))
            self.results[key] = result
            while len(self.results) > 2 and sum(kept.nbytes for kept in self.results.values()) > KEPT_BYTES:
                self.results.popitem(last=False)
        self.results.move_to_end(key)
        return self.results[key]

    def code(self, codec: Codec, quality: float) -> Coding:
        """A file and what is decoded from it, on the clock."""
        if not isinstance(codec, PixaCodec):
            return time_coding(codec, self.samples, quality)
        search, level = self.search(codec), level_of(quality)
        data = search.file(level)
        search.files.clear()
        start = time.perf_counter()
        decoded = codec.decode(data)
        return Coding(data, decoded, search.times[level], time.perf_counter() - start)

    def search(self, codec: PixaCodec) -> TimedRateSearch:
        """The levels of a pixa model; those of the last two are kept."""
        search = self.searches.pop(codec, None) or TimedRateSearch(self.samples, codec)
        self.searches = dict([*self.searches.items(), (codec, search)][-2:])
        return search

    def measure(self, result: Result, group: str) -> None:
        """Add the metrics of a group of `pixa.app.bench.metrics.METRICS` to a row; None where one does not apply."""
        for name, metric in METRICS[group].items():
            if name not in result.row:
                result.row[name] = finite(metric(self.samples, result.decoded))

    def leave(self) -> None:
        """Show nothing any more, so that nobody measures for those who look at another picture."""
        self.shown = self.original, self.original

    def measure_shown(self, groups: tuple[str, ...]) -> Iterator[tuple[Result, Result]]:
        """The two sides after each of their slow metrics, until others are shown."""
        shown = self.shown
        for group in groups:
            for result in shown:
                if result.codec != ORIGINAL and self.shown is shown:
                    BACKGROUND.submit(self.measure, result, group).result()
                    if self.shown is shown:
                        yield shown

    def follow(self, leader: Result, codec: str, lock: str) -> int:
        """The quality at which `codec` takes at most the leader's bytes, or has at least its PSNR.

        The ends of the range where that cannot be met.

        Raises:
            LimitExceeded: the search took longer than `SEARCH_SECONDS`.
        """
        program = find_codec(codec)
        with CLOCK:
            if lock == SAME_SIZE:
                return self.within_size(program, leader.row["bytes"])
            return self.at_least(program, leader.row.get("psnr-rgb"))

    def within_size(self, codec: Codec, size: int) -> int:
        if isinstance(codec, PixaCodec):
            return self.search(codec).within(size, WHOLE_LEVELS) // 2
        return search_quality(codec, self.samples, Deadline(len), size, QUALITIES)[0]

    def at_least(self, codec: Codec, psnr: float | None) -> int:
        if psnr is None:  # nothing is lost
            return QUALITIES[-1]
        if isinstance(codec, PixaCodec):
            return self.search(codec).at_least(psnr, WHOLE_LEVELS) // 2
        measure = Deadline(lambda data: psnr_rgb(self.samples, codec.decode(data)))
        quality, data = search_quality(codec, self.samples, measure, psnr, QUALITIES)
        return quality if measure(data) >= psnr else min(quality + 1, QUALITIES[-1])


class TimedRateSearch(RateSearch):
    """The levels of a picture (H, W, 3), analysed once for all of them.

    Attributes:
        times: seconds that encoding at a level takes, those of the analysis included.
    """

    def __init__(self, samples: np.ndarray, codec: PixaCodec):
        start = time.perf_counter()
        super().__init__(ImageEncoder(Picture(samples), codec.model, codec.threads, tune=codec.tune), codec.effort)
        self.analysis_time, self.times = time.perf_counter() - start, {}

    def encode(self, level: int) -> np.ndarray:
        start = time.perf_counter()
        y_hat = super().encode(level)
        self.times[level] = self.analysis_time + time.perf_counter() - start
        return y_hat


class Deadline:
    """A measure that refuses to be taken after `SEARCH_SECONDS`."""

    def __init__(self, measure: Callable[[bytes], float]):
        self.measure, self.end = measure, time.monotonic() + SEARCH_SECONDS

    def __call__(self, data: bytes) -> float:
        if time.monotonic() > self.end:
            raise LimitExceeded(f"the search took longer than {SEARCH_SECONDS} seconds: unlock the two sides")
        return self.measure(data)


def compare(
    subject: Subject, left: tuple[str, float], right: tuple[str, float], lock: str = FREE, leader: int = 1
) -> tuple[Result, Result]:
    """Both sides; under a lock the one that does not lead takes the quality that follows the other's size or PSNR.

    Args:
        left, right: codec and quality.
        leader: 0 left, 1 right; the original can only lead.
    """
    sides = [left, right]
    if ORIGINAL in (left[0], right[0]):
        leader = 0 if left[0] == ORIGINAL else 1
    if lock != FREE and sides[leader][0] != ORIGINAL:
        codec = sides[1 - leader][0]
        sides[1 - leader] = codec, subject.follow(subject.result(*sides[leader]), codec, lock)
    subject.shown = subject.result(*sides[0]), subject.result(*sides[1])
    return subject.shown
