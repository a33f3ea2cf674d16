"""Quality levels of the frames of a video: one for all, or such that a bitrate is met."""

from __future__ import annotations

from collections.abc import Callable
from math import log2

OCTAVE = 45  # levels that double the bits of a frame, on natural pictures
TOP_LEVEL = 200
WINDOW = 2.0  # seconds within which what was spent too much or too little is made good
STEADY = 0.7  # how much of what was known of a kind of frame stays when one more is coded
STRIDE = 6  # levels between frames that follow each other, at most
FIRST_INTER = 0.3  # bits of the other frames to those of a key frame, before the first is coded


class ConstantQuality:
    """One level for all frames."""

    def __init__(self, level: int):
        self.first = level

    def level(self, key: bool) -> int:
        return self.first

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
        self.first = self.last = TOP_LEVEL // 2
        for _ in range(3):  # the bits of a level are known best near it
            bits = 8 * probe(self.last)
            self.cost = {True: bits / 2 ** (self.last / OCTAVE)}
            self.cost[False] = FIRST_INTER * self.cost[True]
            self.first = self.last = self.wanted()

    def wanted(self) -> int:
        """The level at which the window comes out."""
        window = min(self.window, self.left) if self.left else self.window
        keys = window / self.gop
        at_level_zero = keys * self.cost[True] + (window - keys) * self.cost[False]
        budget = max(window * self.frame_bits + self.surplus, window * self.frame_bits / 4)
        return round(min(max(OCTAVE * log2(budget / at_level_zero), 0), TOP_LEVEL))

    def level(self, key: bool) -> int:
        self.last = min(max(self.wanted(), self.last - STRIDE), self.last + STRIDE)
        return self.last

    def spent(self, key: bool, level: int, size: int) -> None:
        """Learn that a frame of a kind took so many bytes at a level."""
        cost = 8 * size / 2 ** (level / OCTAVE)
        self.cost[key] = STEADY * self.cost[key] + (1 - STEADY) * cost
        self.surplus = min(self.surplus + self.frame_bits - 8 * size, self.window * self.frame_bits)
        if self.left:
            self.left = max(self.left - 1, 1)
