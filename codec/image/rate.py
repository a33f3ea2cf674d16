"""Search for the quality level that meets a size, a rate or a PSNR; analysis runs once."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np

from pixa.errors import UsageError
from pixa.image.picture import SEARCH_STEPS, ImageEncoder, synthesise_windows, thread_pool

LEVELS = range(201)
QUICK = min(SEARCH_STEPS) - 1  # the highest effort whose codings take no search
SIZE_SLOPE, PSNR_SLOPE = 0.0145, 0.075  # of the logarithm of the bytes and of the decibels a level, in photographs
LINES = 6  # guesses by straight lines; what is not found then is halved


def meet_target(
    encoder: ImageEncoder,
    effort: int = 0,
    *,
    bpp: float | None = None,
    target_size: int | None = None,
    psnr: float | None = None,
) -> bytes:
    """The best file within `target_size` bytes or `bpp` bits a pixel, or the smallest of at least `psnr` dB.

    A target out of reach gives the nearest end of the range: quality 0 for a size that is too small, 100 for a PSNR
    that is too high. About four codings of the latents; efforts that search start from the level that effort 6 finds,
    and search about three levels.

    Raises:
        UsageError: not exactly one target, or one that is not positive.
    """
    targets = [value for value in (bpp, target_size, psnr) if value is not None]
    if len(targets) != 1 or not targets[0] > 0:
        raise UsageError("give exactly one of bpp, target_size and psnr, above zero")
    limit = target_size if target_size is not None else (bpp or 0) * encoder.picture.width * encoder.picture.height / 8
    level = None
    for step in sorted({min(effort, QUICK), effort}):
        search = RateSearch(encoder, step)
        level = search.within(limit, start=level) if psnr is None else search.at_least(psnr, start=level)
    return search.file(level)


class RateSearch:
    """The levels of a picture at one effort. What is known of them is kept, so that a further search codes fewer.

    Attributes:
        sizes: natural logarithms of the bytes of files, by level.
        psnrs: in dB, by level.
        files: those made; they may be removed.
    """

    def __init__(self, encoder: ImageEncoder, effort: int = 0):
        self.encoder, self.effort = encoder, effort
        self.sizes: dict[int, float] = {}
        self.psnrs: dict[int, float] = {}
        self.files: dict[int, bytes] = {}

    def within(self, size: float, levels: Sequence[int] = LEVELS, start: int | None = None) -> int:
        """The last of `levels` whose file has at most `size` bytes, or the first of them.

        Args:
            start: the level to look at first.
        """
        first = first_above(math.log(max(size, 1)), self.size, SIZE_SLOPE, levels, self.sizes, start)
        return levels[max(first - 1, 0)]

    def at_least(self, psnr: float, levels: Sequence[int] = LEVELS, start: int | None = None) -> int:
        """The first of `levels` whose picture has at least `psnr` dB, or the last of them."""
        first = first_above(math.nextafter(psnr, 0), self.psnr, PSNR_SLOPE, levels, self.psnrs, start)
        return levels[min(first, len(levels) - 1)]

    def file(self, level: int) -> bytes:
        if level not in self.files:
            self.encode(level)
        return self.files[level]

    def encode(self, level: int) -> np.ndarray:
        """Keep the file of a level; returns its y_hat (C, h, w)."""
        self.files[level], y_hat = self.encoder.encode(level, self.effort)
        self.sizes[level] = math.log(len(self.files[level]))
        return y_hat

    def size(self, level: int) -> float:
        self.encode(level)
        return self.sizes[level]

    def psnr(self, level: int) -> float:
        return peak_snr(self.encoder, self.encode(level), level)


def first_above(
    target: float,
    measure: Callable[[int], float],
    slope: float,
    levels: Sequence[int],
    known: dict[int, float],
    start: int | None = None,
) -> int:
    """Index of the first of rising `levels` that measures above `target`, len(levels) if none does: regula falsi.

    Both that level and the one before it have been measured, so a line that leads astray costs time, not the result.

    Args:
        measure: grows with the level, nearly evenly.
        slope: how much it grows a level, while fewer than two are known.
        known: measures by level; those that are taken are added.
        start: the level to look at first, in the place of the middle.
    """
    for lines in range(len(levels) + 1):
        above = next((i for i, level in enumerate(levels) if known.get(level, -math.inf) > target), len(levels))
        below = max((i for i in range(above) if levels[i] in known), default=-1)
        if above - below == 1:
            break
        guess, start = start, None
        if guess is None:
            guess = guess_level(target, slope, known) if known and lines < LINES else levels[(below + above) // 2]
        level = levels[min(max(bisect_right(levels, guess) - 1, below + 1), above - 1)]
        known[level] = measure(level)
    return above


def guess_level(target: float, slope: float, known: dict[int, float]) -> float:
    """Where the line through the two known points nearest to `target` meets it; it rises by `slope` / 4 or more."""
    (level, value), *second = sorted(known.items(), key=lambda point: abs(point[1] - target))[:2]
    for other, its_value in second:
        slope = max((its_value - value) / (other - level), slope / 4)
    return level + (target - value) / slope


def peak_snr(encoder: ImageEncoder, y_hat: np.ndarray, level: int) -> float:
    """PSNR in dB of the colour samples a decoder will show."""
    colour = encoder.picture.colour
    error = 0.0
    with thread_pool(encoder.nets) as pool:
        for original, shown in synthesise_windows(encoder.nets, y_hat, level, colour, pool):
            error += np.square(original.astype(np.float32) - shown).sum(dtype=np.float64)
    return 10 * np.log10(255**2 * colour.size / max(error, 1e-9))
