"""Search for the quality level that meets a size, a rate or a PSNR; analysis runs once."""

from __future__ import annotations

from bisect import bisect_left
from functools import cache

import numpy as np

from pixa.errors import UsageError
from pixa.image import SEARCH_STEPS, Analysed, Progress, synthesised
from pixa.pixels import Picture

TOP_LEVEL = 200
QUICK = min(SEARCH_STEPS) - 1  # the highest effort whose codings take no search


def encode_to_target(
    picture: Picture,
    *,
    bpp: float | None = None,
    target_size: int | None = None,
    psnr: float | None = None,
    model: str = "fast",
    effort: int = 0,
    jobs: int = 0,
    progress: Progress | None = None,
) -> bytes:
    """The best file within `target_size` bytes or `bpp` bits a pixel, or the smallest of at least `psnr` dB.

    A target out of reach gives the nearest end of the range: quality 0 for a size that is too small, 100 for a PSNR
    that is too high. One analysis and about eight codings of the latents; efforts that search start from the level that
    effort 6 finds, and search two or three levels.

    Raises:
        UsageError: not exactly one target, or one that is not positive.
    """
    targets = [value for value in (bpp, target_size, psnr) if value is not None]
    if len(targets) != 1 or not targets[0] > 0:
        raise UsageError("give exactly one of bpp, target_size and psnr, above zero")
    analysed = Analysed(picture, model, jobs, progress)
    pixels = picture.width * picture.height
    limit = target_size if target_size is not None else (bpp or 0) * pixels / 8

    files: dict[int, bytes] = {}

    def reached(level: int, effort: int) -> bool:
        """Whether a level is at or past the one sought; keeps its file."""
        files[level], y_hat = analysed.encode(level, effort)
        return peak_snr(analysed, y_hat, level) >= psnr if psnr is not None else len(files[level]) > limit

    quick = min(effort, QUICK)
    first = bisect_left(range(TOP_LEVEL + 1), True, key=lambda level: reached(level, quick))
    if effort > quick:
        files.clear()
        searched = cache(lambda level: reached(level, effort))
        while first <= TOP_LEVEL and not searched(first):
            first += 1
        while first > 0 and searched(first - 1):
            first -= 1
    level = min(first, TOP_LEVEL) if psnr is not None else max(first - 1, 0)
    return files.get(level) or analysed.encode(level, effort)[0]


def peak_snr(analysed: Analysed, y_hat: np.ndarray, level: int) -> float:
    """PSNR in dB of the colour samples a decoder will show."""
    colour = analysed.picture.colour
    error = 0.0
    for original, shown in synthesised(analysed.nets, y_hat, level, colour):
        error += np.square(original.astype(np.float32) - shown).sum(dtype=np.float64)
    return 10 * np.log10(255**2 * colour.size / max(error, 1e-9))
