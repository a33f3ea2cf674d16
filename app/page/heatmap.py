"""Pictures of numbers: where a codec errs, and where the bits of a .pixa file go."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from pixa.coding.latents import STRIDE
from pixa.image.decoder import Decoder
from pixa.image.picture import tile_slices

ERROR_GAIN = 8


@cache
def palette() -> np.ndarray:
    """(256, 3) uint8, dark to bright, even to the eye: matplotlib's inferno."""
    from matplotlib import colormaps

    return colormaps["inferno"](np.arange(256), bytes=True)[:, :3]


def error_map(original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """(H, W, 3): the largest error of the three channels of every pixel, `ERROR_GAIN` times enlarged, as a colour."""
    error = np.maximum(original, decoded) - np.minimum(original, decoded)
    return palette()[np.minimum(error.max(2).astype(np.uint16) * ERROR_GAIN, 255)]


def tile_places(decoder: Decoder) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of every tile, in blocks of 16x16 pixels."""
    codec = decoder.nets.codec
    for tile in tile_slices(decoder.head, codec):
        yield in_blocks(tile, codec.stride)


def in_blocks(place: tuple[slice, slice], stride: int) -> tuple[slice, slice]:
    """Positions of so many pixels in blocks of 16x16 pixels."""
    return tuple(slice(s.start * stride // STRIDE, -(-s.stop * stride // STRIDE)) for s in place)


def block_bits(decoder: Decoder) -> np.ndarray:
    """Bits of every block of 16x16 pixels, (rows, columns) float64: the cost of its symbols under their tables.

    A hyper-latent's bits are shared evenly by the blocks it speaks for, and those of a tile of tokens by all its
    blocks. The sum is that of the tiles' payloads to within rounding.

    Raises:
        ModelMissing, Corrupt: as `Decoder.picture`.
    """
    head, codec = decoder.head, decoder.nets.codec
    bits = np.zeros((-(-head.height // STRIDE), -(-head.width // STRIDE)))
    for place, symbols in decoder.symbols():
        target = bits[in_blocks(place, codec.stride)]
        found = codec.bits(symbols)
        target[:] = found[: target.shape[0], : target.shape[1]] * (found.size / target.size)
    return bits


def bit_map(bits: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width, 3): blocks coloured by their bits, the brightest for the 99th percentile and above."""
    top = max(np.percentile(bits, 99), 1e-9)
    colours = palette()[np.minimum(255 * bits / top, 255).astype(np.uint8)]
    return np.ascontiguousarray(colours.repeat(STRIDE, 0).repeat(STRIDE, 1)[:height, :width])


def bits_scale(bits: np.ndarray) -> str:
    """What the colours of a `bit_map` mean."""
    top = np.percentile(bits, 99) / STRIDE**2
    return f"black 0, bright {top:.2f} bits a pixel and more; mean {bits.mean() / STRIDE**2:.2f}"
