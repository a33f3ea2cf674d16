"""Parts of a picture that are computed one by one, with a halo as wide as networks look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Window(NamedTuple):
    """A part of a picture in latent rows and columns: itself, the same with its halo, and where it lies in that."""

    inner: tuple[slice, slice]
    outer: tuple[slice, slice]
    core: tuple[slice, slice]


def window_slices(height: int, width: int, halo: int, rows: int, columns: int) -> Iterator[Window]:
    """Windows of so many rows and columns of latents."""
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            inner, outer, core = [], [], []
            for start, size, side in ((top, height, rows), (left, width, columns)):
                stop = min(start + side, size)
                low, high = max(0, start - halo), min(size, stop + halo)
                inner.append(slice(start, stop))
                outer.append(slice(low, high))
                core.append(slice(start - low, stop - low))
            yield Window(tuple(inner), tuple(outer), tuple(core))


def pixel_slices(latent: tuple[slice, slice], stride: int = 16) -> tuple[slice, slice]:
    """Latent slices in pixels."""
    return tuple(slice(s.start * stride, s.stop * stride) for s in latent)
