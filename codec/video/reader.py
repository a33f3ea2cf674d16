"""The video reader: frames one by one, from any time, out of damaged files too. No PyAV."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from itertools import chain, pairwise
from math import floor
from typing import BinaryIO, NamedTuple, Self

import numpy as np

from pixa.bitstream.packets import KeyFrame
from pixa.errors import Corrupt, UsageError
from pixa.image.decoder import MAX_PIXELS
from pixa.models.registry import find_wire
from pixa.runtime.model import load_model
from pixa.video.file import CodedFrame, VideoFile
from pixa.video.frames import FrameCoder, share_threads

SLACK = 1e-3  # of a unit of the time base, which a time in floating point may be too early


class Frame(NamedTuple):
    """A decoded frame.

    Attributes:
        samples: (H, W, 3) uint8.
        number: its place in the video.
        pts, duration: in units of the time base.
        time: seconds since the first frame of the video.
        repeated: the frame is lost, and this is the one before it.
    """

    samples: np.ndarray
    number: int
    pts: int
    duration: int
    time: float
    repeated: bool = False


class Video(VideoFile):
    """A video file and its frames.

    Iterating gives the frames as arrays (H, W, 3) uint8 from where `seek` has put it; iterate again to start there
    again. With `keep_going`, a lost frame repeats the one before it.

    Args:
        source, max_pixels, keep_going: as `VideoFile`.
        jobs: threads, 0 for all cores.

    Attributes:
        damaged: (first, last) numbers of frames that were found to be lost so far.

    Raises:
        NotPixa, UnsupportedVersion, Corrupt, LimitExceeded, UnsupportedInput: as `VideoFile`.
    """

    def __init__(
        self,
        source: str | os.PathLike | BinaryIO,
        *,
        max_pixels: int = MAX_PIXELS,
        jobs: int = 0,
        keep_going: bool = False,
    ):
        super().__init__(source, max_pixels=max_pixels, keep_going=keep_going)
        self.lanes, self.threads = share_threads(self.width, self.height, jobs, self.reference is not None)
        self.damaged: list[tuple[int, int]] = []
        self.target = self.index.keys[0].pts

    def seek(self, time: float) -> Self:
        """Let iteration begin with the frame that is shown so many seconds after the first. Decodes at most one GOP.

        Raises:
            UsageError: the video does not last that long.
        """
        if not 0 <= time < max(self.duration, 1e-9):
            raise UsageError(f"{time:g} s is outside the video, which lasts {self.duration:g} s")
        self.target = self.index.keys[0].pts + floor(Fraction(time) / self.header.time_base + Fraction(SLACK))
        return self

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame.samples for frame in self.frames())

    def frames(self) -> Iterator[Frame]:
        """The frames from where `seek` has put it, with their numbers and times.

        Raises:
            ModelMissing: the model is not installed.
            Corrupt, UnsupportedVersion: the file is damaged, unless `keep_going`.
        """
        start, queue, coder = self.index.before(self.target), deque(), self.coder()
        play = Playback(self, 0 if self.target <= self.index.keys[0].pts else None)
        with ThreadPoolExecutor(1 if coder.inter else self.lanes) as pool:
            for frame, work, hidden in self.works(start, coder):
                queue.append((frame, pool.submit(work), hidden))
                if len(queue) > self.lanes:
                    yield from play.show(*queue.popleft())
            while queue:
                yield from play.show(*queue.popleft())
        if play.number != self.index.frames:
            if not self.keep_going:
                raise Corrupt("the file is cut: frames are missing at its end")
            yield from play.repeat(self.index.frames, self.index.end)

    def works(self, start: KeyFrame, coder: FrameCoder) -> Iterator[tuple[CodedFrame, Callable[[], np.ndarray], bool]]:
        """(frame, what makes its samples, whether it comes too early to be shown).

        Where frames follow others, their symbols are decoded here, and samples are to be made of them one by one.
        """
        whole = False
        for frame, following in pairwise(chain(self.packets(start), [None])):
            hidden = following is not None and following.pts <= self.target
            whole |= frame.key
            if coder.inter is None:
                if not hidden:
                    yield frame, partial(decoded, coder, frame), False
                continue
            if not whole:
                continue
            try:
                symbols = coder.symbols(frame.tiles, frame.level, frame.key)
            except Corrupt:
                if not self.keep_going:
                    raise
                whole = False
                continue
            yield frame, partial(coder.show, symbols, frame.level, frame.key), hidden

    def coder(self) -> FrameCoder:
        """What decodes the frames from a key frame on."""
        key = load_model(find_wire(self.head.model, self.head.model_hash), self.threads)
        inter = self.reference and load_model(find_wire(self.reference.model, self.reference.model_hash), self.threads)
        return FrameCoder(self.head, key, inter)

    def symbols_sha256(self, progress: Callable[[int, int], None] | None = None) -> str:
        """SHA-256 of every symbol (int16, little-endian, frame by frame, tile by tile): equal on every machine.

        Raises:
            ModelMissing, Corrupt: as `frames`.
        """
        digest, count, coder = hashlib.sha256(), 0, self.coder()
        for frame in self.packets(self.index.keys[0]):
            for tile in coder.symbols(frame.tiles, frame.level, frame.key):
                digest.update(tile.integers())
            count += 1
            if progress:
                progress(count, len(self))
        if count != len(self):
            raise Corrupt("the file is cut: frames are missing at its end")
        return digest.hexdigest()


def decoded(coder: FrameCoder, frame: CodedFrame) -> np.ndarray:
    """The samples of a key frame."""
    return coder.show(coder.symbols(frame.tiles, frame.level, True), frame.level, True)


class Playback:
    """The frames of one way through a video, with those that are lost.

    Attributes:
        number: of the frame that should come next; None where any may.
        shown: the last frame.
    """

    def __init__(self, video: Video, number: int | None):
        self.video, self.number = video, number
        self.shown: Frame | None = None

    def show(self, coded: CodedFrame, future: Future, hidden: bool) -> Iterator[Frame]:
        """A frame that is not hidden, and before it those that are lost."""
        try:
            samples = future.result()
        except Corrupt:
            if not self.video.keep_going:
                raise
            return
        if hidden:
            return
        yield from self.repeat(coded.number, coded.pts)
        self.shown, self.number = self.frame(samples, coded.number, coded.pts, coded.duration), coded.number + 1
        yield self.shown

    def repeat(self, number: int, pts: int) -> Iterator[Frame]:
        """The last frame again in the place of those that are missing before a number, which is shown at a time."""
        missing = 0 if self.number is None else number - self.number
        if missing <= 0:
            return
        self.video.damaged.append((self.number, number - 1))
        if self.shown is None or pts - self.shown.pts <= missing:
            return
        times = [self.shown.pts + (pts - self.shown.pts) * i // (missing + 1) for i in range(1, missing + 1)]
        for i, (time, following) in enumerate(pairwise([*times, pts])):
            yield self.frame(self.shown.samples, self.number + i, time, following - time)._replace(repeated=True)

    def frame(self, samples: np.ndarray, number: int, pts: int, duration: int) -> Frame:
        seconds = (pts - self.video.index.keys[0].pts) * self.video.header.time_base
        return Frame(samples, number, pts, duration, float(seconds))
