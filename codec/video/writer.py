"""The video writer: takes frames one by one and holds a few at a time, however many come. No PyAV."""

from __future__ import annotations

import json
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO, Self

import numpy as np

from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import PREFIX, write_chunk
from pixa.bitstream.deflate import write_metadata
from pixa.bitstream.headers import Head, ModelReference, VideoHeader
from pixa.bitstream.packets import Index, KeyFrame, Packet
from pixa.errors import UnsupportedInput, UsageError
from pixa.image.picture import SEARCH_STEPS, level_of
from pixa.models.registry import find_model, list_models
from pixa.pixels import Picture
from pixa.runtime.model import load_model
from pixa.video.frames import Coded, FrameCoder, share_threads
from pixa.video.rate import OCTAVE, ConstantBitrate, ConstantQuality

SEEK = 2  # seconds that a seek decodes at most, unless asked for otherwise
MAX_GOP = 65535
SHORTEST = 8  # frames that a group has at least
DOUBTFUL = 0.75  # of the bytes of the last frame that was coded by itself: one of more is tried likewise


class VideoWriter:
    """Writes frames to a video file as they come.

    Args:
        file: to be written from its present position, never sought in.
        fps: frames a second, the time of frames that come without one.
        header: time base, colour and more, in the place of `fps`.
        quality: 0 to 100, 60 unless a bitrate is given.
        bitrate: bits a second to meet instead.
        frames: how many will come, if known; the bitrate is then met more closely.
        model: `name` or `name.tag` of an image model, for key frames only, or of one that sees past frames; None for
            the newest of these, or the default image model where there is none.
        tune: "eye" or "psnr", what the model was trained for; None for the newest.
        keyint: frames from one key frame to the next, at most; None for those of two seconds. A new scene begins with
            one, too.
        tags: title, artist and the like.
        effort: where all frames are key frames 0 rounds the latents; all else quantises them rate-distortion optimally.
        jobs: threads, 0 for all cores.

    Raises:
        UsageError: a setting out of its range.
        ModelMissing: the model is not installed.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        fps: float | Fraction = 30,
        header: VideoHeader | None = None,
        quality: float | None = None,
        bitrate: float | None = None,
        frames: int | None = None,
        model: str | None = None,
        tune: str | None = None,
        keyint: int | None = None,
        tags: dict[str, str] | None = None,
        effort: int = 0,
        jobs: int = 0,
    ):
        if quality is not None and bitrate is not None:
            raise UsageError("give a quality or a bitrate, not both")
        if bitrate is not None and not bitrate > 0:
            raise UsageError(f"a bitrate of {bitrate} holds nothing")
        header = header or constant_rate(fps)
        keyint = min(max(round(SEEK * header.rate), SHORTEST), MAX_GOP) if keyint is None else keyint
        if not 1 <= keyint <= MAX_GOP:
            raise UsageError(f"{keyint} frames from key to key are not 1 to {MAX_GOP}")
        if effort not in range(min(SEARCH_STEPS)):
            raise UsageError(f"effort {effort} is outside 0 to {min(SEARCH_STEPS) - 1}, which is what videos take")
        self.entry = find_model(model or default_model(), tune)
        self.key_entry = find_model(self.entry.key_model) if self.entry.key_model else self.entry
        if "key frames" not in self.key_entry.can:
            raise UsageError(f"{self.key_entry.name} codes pictures alone")
        self.header = replace(header, gop=keyint if self.entry.key_model else 1)
        self.file, self.tags, self.rdoq, self.jobs = file, tags or {}, effort > 0 or bool(self.entry.key_model), jobs
        self.quality, self.bitrate, self.expected = quality, bitrate, frames
        self.coder: FrameCoder | None = None
        self.pending: deque[tuple[Future, np.ndarray, Packet]] = deque()
        self.early: list[bytes] = []
        self.keys: list[KeyFrame] = []
        self.size = self.frames = self.pts = self.duration = 0
        self.group: Packet | None = None  # the last key frame
        self.alone = 0.0  # bytes of the last frame that was coded by itself, at level 0

    def write(self, samples: np.ndarray, pts: int | None = None, duration: int | None = None) -> None:
        """Add a frame, (H, W) or (H, W, 3) uint8.

        Args:
            pts, duration: in units of the time base; they follow from the frames a second where they are not given. A
                time that is not later than the one before becomes the next possible one.

        Raises:
            UnsupportedInput: no such array, or another size than the frames before.
        """
        colour = Picture(samples).colour
        if colour.dtype != np.uint8:
            raise UnsupportedInput("frames have 8 bits a sample: convert those of 16 first")
        samples = np.repeat(colour, 3, 2) if colour.shape[2] == 1 else colour.copy()
        if duration is None:
            duration = max(round(1 / (self.header.rate * self.header.time_base)), 1)
        if self.coder is None:
            self.pts = pts or 0
            self.begin(samples)
        else:
            self.pts = max(self.pts + self.duration if pts is None else pts, self.pts + 1)
        if samples.shape[:2] != (self.coder.head.height, self.coder.head.width):
            size = f"{samples.shape[1]}x{samples.shape[0]}"
            raise UnsupportedInput(f"frame {self.frames} has another size than those before: {size}")
        self.duration = duration
        level = None if self.coder.inter else self.rate.level(0)
        packet = Packet(True, 0, self.frames, self.pts, duration, [])  # level, tiles and kind are yet to come
        self.pending.append((self.pool.submit(self.work, samples, level), samples, packet))
        self.frames += 1
        while len(self.pending) > self.lanes:
            self.finish()

    def begin(self, samples: np.ndarray) -> None:
        """Write all that stands before the frames."""
        height, width = samples.shape[:2]
        chained = self.header.gop > 1
        self.lanes, threads = share_threads(width, height, self.jobs, chained)
        self.pool = ThreadPoolExecutor(self.lanes)
        inter = load_model(self.entry, threads) if chained else None
        key = load_model(self.key_entry, threads)
        head = Head(
            kind=1,
            width=width,
            height=height,
            colour=1,
            alpha=0,
            level=0,
            model=self.key_entry.wire_id,
            model_hash=int(self.key_entry.hash, 16),
            tile_log2=key.codec.tile_log2(0),
        )
        self.coder = FrameCoder(head, key, inter)
        if self.bitrate is None:
            self.rate = ConstantQuality(level_of(60 if self.quality is None else self.quality), self.header.gop)
        else:
            y, rate = self.coder.analyse(samples, True), float(self.header.rate)
            probe = lambda level: self.coder.code(samples, y, level, True, self.rdoq).size
            self.rate = ConstantBitrate(self.bitrate / rate, rate, self.header.gop, self.expected, probe)
        self.put(PREFIX)
        self.put(write_chunk(ChunkType.HEAD, replace(head, level=self.rate.first).write()))
        if inter:
            reference = ModelReference(self.entry.wire_id, int(self.entry.hash, 16))
            self.put(write_chunk(ChunkType.MODEL, reference.write()))
        self.put(write_chunk(ChunkType.VIDEO, self.header.write()))
        if self.tags:
            text = json.dumps(self.tags, ensure_ascii=False, separators=(",", ":"))
            self.put(write_chunk(ChunkType.TAGS, write_metadata(text.encode())))
        for data in self.early:
            self.audio(data)

    def work(self, samples: np.ndarray, level: int | None) -> np.ndarray | Coded:
        """What of a frame does not depend on others: latents, or all of it where there are only key frames."""
        y = self.coder.analyse(samples, level is not None)
        return y if level is None else self.coder.code(samples, y, level, True, self.rdoq)

    def finish(self) -> None:
        """Write the oldest frame that is worked on."""
        future, samples, packet = self.pending.popleft()
        coded = future.result()
        if self.coder.inter:
            coded = self.follow(samples, coded, packet.number)
            self.coder.keep(coded)
        packet = self.timed(packet._replace(level=coded.level, tiles=coded.payloads), coded.key)
        if packet.key:
            self.keys.append(KeyFrame(self.size, packet.number, packet.pts))
            self.group = packet
        chunk = write_chunk(ChunkType.PACKET, packet.write())
        self.put(chunk)
        self.rate.spent(packet.key, packet.level, len(chunk))

    def follow(self, samples: np.ndarray, y: np.ndarray, number: int) -> Coded:
        """Code a frame, which follows those before unless their group ends or it takes fewer bytes by itself."""
        passed = number - self.group.number if self.group else self.header.gop
        if passed < self.header.gop:
            coded = self.coder.code(samples, y, self.rate.level(passed), False, self.rdoq)
            doubtful = coded.size > DOUBTFUL * self.alone * 2 ** (coded.level / OCTAVE)
            if not doubtful or passed < SHORTEST or coded.size < self.by_itself(samples, coded.level).size:
                return coded
        return self.by_itself(samples, self.rate.level(0))

    def by_itself(self, samples: np.ndarray, level: int) -> Coded:
        """Code a key frame."""
        coded = self.coder.code(samples, self.coder.analyse(samples, True), level, True, self.rdoq)
        self.alone = coded.size / 2 ** (level / OCTAVE)
        return coded

    def timed(self, packet: Packet, key: bool) -> Packet:
        """The packet of a frame, given as a key frame's, with its number and times as they are written."""
        if key:
            return packet
        number, passed = packet.number - self.group.number, packet.pts - self.group.pts
        even = (passed, packet.duration) == (number * self.group.duration, self.group.duration)
        times = (None, None) if even else (passed, packet.duration)
        return Packet(False, packet.level, number, *times, packet.tiles)

    def audio(self, data: bytes) -> None:
        """Add a piece of the Matroska file that holds the audio."""
        if self.coder is None:
            self.early.append(data)
        elif data:
            self.put(write_chunk(ChunkType.AUDIO, data))

    def put(self, data: bytes) -> None:
        self.file.write(data)
        self.size += len(data)

    def close(self) -> None:
        """Write what is left and the index.

        Raises:
            UnsupportedInput: no frame has come.
        """
        if self.coder is None:
            raise UnsupportedInput("a video without a frame")
        while self.pending:
            self.finish()
        self.pool.shutdown()
        index = Index(self.frames, self.pts + self.duration, self.keys)
        self.put(write_chunk(ChunkType.INDEX, index.write()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
        elif self.coder is not None:
            self.pool.shutdown(cancel_futures=True)


def default_model() -> str:
    """The newest model that sees past frames, or else the default image model."""
    return next((f"{entry.name}.{entry.tag}" for entry in reversed(list_models()) if entry.key_model), "fast")


def constant_rate(fps: float | Fraction) -> VideoHeader:
    """The header of a video of so many frames a second.

    Raises:
        UsageError: none or less.
    """
    rate = Fraction(fps).limit_denominator(1001) if fps > 0 else 0
    if not 0 < rate < 2**32:
        raise UsageError(f"{fps} frames a second are none")
    return VideoHeader(rate.denominator, rate.numerator, rate.numerator, rate.denominator)
