"""Quality levels of the frames of a video: one for all, or such that a bitrate is met."""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from statistics import fmean

OCTAVE = 45  # levels that double the bits of a frame, on natural pictures
TOP_LEVEL = 200
WINDOW = 2.0  # seconds within which what was spent too much or too little is made good
STEADY = 0.7  # how much of what was known of a kind of frame stays when one more is coded
STRIDE = 10  # levels between frames that follow each other, at most
FIRST_INTER = 0.4  # bits of the other frames to those of a key frame, before the first is coded
KEY_ABOVE = 45  # levels of a key frame above those of its group, all of which follows from it
PATTERN = (8, -8, 0, -8)  # levels above or below from frame to frame: what is coded well serves those behind it


def within(level: float) -> int:
    return round(min(max(level, 0), TOP_LEVEL))


def offset(number: int) -> int:
    """Levels that a frame, `number` after its key frame, lies above those of its group."""
    return PATTERN[number % len(PATTERN)] if number else KEY_ABOVE


class ConstantQuality:
    """The levels of a group about one level; without inter frames that level.

    Args:
        level: of the video.
        gop: frames from one key frame to the next.
    """

    def __init__(self, level: int, gop: int):
        self.first, self.gop = level, gop

    def level(self, number: int) -> int:
        """The level of a frame, `number` after its key frame."""
        return within(self.first + offset(number)) if self.gop > 1 else self.first

    def spent(self, key: bool, level: int, size: int) -> None:
        pass


class ConstantBitrate:
    """Levels such that any two seconds come out near a bitrate, in one pass.

    A frame is taken to cost c * 2**(level / 45) bits, with c learnt of key frames and of the others as they are coded.
    The level is the one at which the frames of the next two seconds are expected to make good what the frames before
    them have spent too much or too little.

    Args:
        frame_bits: bits of a frame on average.
        rate: frames a second.
        gop: frames from one key frame to the next.
        frames: how many there are to come, if known: then their sum comes out, too.
        probe: (level) -> bytes of the first frame.
    """

    def __init__(self, frame_bits: float, rate: float, gop: int, frames: int | None, probe: Callable[[int], int]):
        self.frame_bits, self.gop, self.left = frame_bits, gop, frames
        self.window = max(round(WINDOW * rate), gop, 1)
        self.surplus = 0.0
        self.weight = {True: 1.0, False: 1.0}  # of a kind of frame, to one at the level of its group
        if gop > 1:
            self.weight = {True: 2 ** (KEY_ABOVE / OCTAVE), False: fmean(2 ** (above / OCTAVE) for above in PATTERN)}
        self.first = self.last = TOP_LEVEL // 2
        for _ in range(3):  # the bits of a level are known best near it
            bits = 8 * probe(self.last)
            self.cost = {True: bits / 2 ** (self.last / OCTAVE)}
            self.cost[False] = FIRST_INTER * self.cost[True]
            self.first = self.last = self.wanted(0)

    def wanted(self, number: int) -> int:
        """The level at which the window that begins with a frame, `number` after its key frame, comes out."""
        window = min(self.window, self.left) if self.left else self.window
        keys = (number + window - 1) // self.gop + (number == 0)
        cost = {key: self.weight[key] * self.cost[key] for key in (True, False)}
        at_level_zero = keys * cost[True] + (window - keys) * cost[False]
        budget = max(window * self.frame_bits + self.surplus, window * self.frame_bits / 4)
        return within(OCTAVE * log2(budget / at_level_zero))

    def level(self, number: int) -> int:
        """As that of `ConstantQuality`."""
        self.last = min(max(self.wanted(number), self.last - STRIDE), self.last + STRIDE)
        return within(self.last + offset(number)) if self.gop > 1 else self.last

    def spent(self, key: bool, level: int, size: int) -> None:
        """Learn that a frame of a kind took so many bytes at a level."""
        cost = 8 * size / 2 ** (level / OCTAVE)
        self.cost[key] = STEADY * self.cost[key] + (1 - STEADY) * cost
        self.surplus = min(self.surplus + self.frame_bits - 8 * size, self.window * self.frame_bits)
        if self.left:
            self.left = max(self.left - 1, 1)
