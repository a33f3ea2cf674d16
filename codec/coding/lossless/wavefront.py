"""The order in which the pixels of a tile are coded: skewed rows, so that one step codes many pixels at once.

Step t codes the pixels (row y, column t - 2y), one of every row that has such a column: what lies to their left and
above, up to the next column but one, is known by then (a wavefront, as HEVC's wavefront parallel processing does with
blocks). A plane is kept skewed, as an array of (step, row), where a neighbour is at a constant distance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

MARGIN = 8  # rows above and below, half as many steps before and behind as rows of neighbours reach
MARGIN_STEPS = 3 * MARGIN


class Wavefront:
    """The steps over a tile of (height, width) pixels.

    Attributes:
        steps: how many there are.
        shape: of a skewed plane, margins included.
    """

    def __init__(self, height: int, width: int):
        self.height, self.width = height, width
        self.steps = width + 2 * (height - 1)
        self.shape = (self.steps + 2 * MARGIN_STEPS, height + 2 * MARGIN)

    def offsets(self, neighbours: Sequence[tuple[int, int]]) -> np.ndarray:
        """Distances in a flat skewed plane of neighbours at (rows down, columns to the right)."""
        return np.array([(column + 2 * row) * self.shape[1] + row for row, column in neighbours])

    def rows(self, step: int) -> tuple[int, int]:
        """The first row that a step codes and the one behind its last; none where they are equal."""
        first = max(0, (step - self.width + 2) // 2)
        return first, max(first, min(self.height, step // 2 + 1))

    def places(self, step: int) -> np.ndarray:
        """Where the pixels of a step are in a flat skewed plane."""
        first, stop = self.rows(step)
        start = (step + MARGIN_STEPS) * self.shape[1] + MARGIN
        return np.arange(start + first, start + stop)

    def fill(self, plane: np.ndarray, step: int) -> None:
        """Complete a step (of a skewed plane) whose pixels are known: finished rows and the margin above go on as they
        were, rows not begun and the margin below show what the row above them does."""
        first, stop = self.rows(step)
        now, before = plane[step + MARGIN_STEPS], plane[step + MARGIN_STEPS - 1]
        if first == stop:
            now[:] = before
        else:
            now[MARGIN + stop :] = now[MARGIN + stop - 1]
            if first:
                now[: MARGIN + first] = before[: MARGIN + first]
            else:
                now[:MARGIN] = now[MARGIN]

    def fill_behind(self, plane: np.ndarray) -> None:
        """Complete the margin of steps behind the last."""
        plane[-MARGIN_STEPS:] = plane[-MARGIN_STEPS - 1]

    def skew(self, samples: np.ndarray, start: int = 0) -> np.ndarray:
        """A plane of samples (height, width) skewed and complete; before its first step stands `start`."""
        plane = np.full(self.shape, start, samples.dtype)
        y, x = np.indices(samples.shape, sparse=True)
        plane[x + 2 * y + MARGIN_STEPS, y + MARGIN] = samples
        self.complete(plane)
        return plane

    def complete(self, plane: np.ndarray) -> None:
        """Complete a skewed plane whose pixels are all known."""
        for step in range(self.steps):
            self.fill(plane, step)
        self.fill_behind(plane)

    def straighten(self, plane: np.ndarray) -> np.ndarray:
        """The samples (height, width) of a skewed plane."""
        y, x = np.indices((self.height, self.width), sparse=True)
        return plane[x + 2 * y + MARGIN_STEPS, y + MARGIN]

    def all_places(self, chunk: int) -> Iterator[np.ndarray]:
        """The places of all pixels in coding order, some `chunk` at a time."""
        steps = np.repeat(np.arange(self.steps), [np.subtract(*self.rows(t)[::-1]) for t in range(self.steps)])
        rows = np.concatenate([np.arange(*self.rows(step)) for step in range(self.steps)])
        places = (steps + MARGIN_STEPS) * self.shape[1] + rows + MARGIN
        yield from np.array_split(places, -(-len(places) // chunk))
