"""Pictures of numbers: where a codec errs, and where the bits of a .pixa file go."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from pixa.coding import latents
from pixa.coding.latents import HYPER, STRIDE, Nets, TileSymbols, magnitude, passes, table_indexes
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
    scale = STRIDE // decoder.nets.coder.STRIDE
    for tile in tile_slices(decoder.head, decoder.nets.coder):
        yield tuple(slice(s.start // scale, -(-s.stop // scale)) for s in tile)


def block_bits(decoder: Decoder) -> np.ndarray:
    """Bits of every block of 16x16 pixels, (rows, columns) float64: the cost of its symbols under their tables.

    A hyper-latent's bits are shared evenly by the blocks it speaks for, and those of a tile of tokens by all its
    blocks. The sum is that of the tiles' payloads to within rounding.

    Raises:
        ModelMissing, Corrupt: as `Decoder.picture`.
    """
    head, nets = decoder.head, decoder.nets
    bits = np.zeros((-(-head.height // STRIDE), -(-head.width // STRIDE)))
    for tile, place in zip(decoder.tiles, tile_places(decoder), strict=True):
        if nets.coder is latents:
            shape = (s.stop - s.start for s in place)
            bits[place] = tile_bits(TileSymbols(tile, nets.channels, *shape, head.level, nets), nets)
        else:
            bits[place] = 8 * len(tile) / bits[place].size
    return bits


def tile_bits(symbols: TileSymbols, nets: Nets) -> np.ndarray:
    """`block_bits` of one tile: the decoder's walk over its passes with the symbols known."""
    height, width = symbols.y.shape[2:]
    z, level = symbols.z.astype(np.float32), symbols.level
    z_index = np.broadcast_to(nets.vector("z_index", level), z.shape).astype(np.uint8)
    hyper = nets.tables.cost(z, z_index).sum((0, 1), dtype=np.float64)
    row, column = np.arange(height) // HYPER, np.arange(width) // HYPER
    shares = np.outer(np.bincount(row), np.bincount(column))
    bits = (hyper / shares)[np.ix_(row, column)]
    memory = {"z": z}
    for p, (channels, mask) in enumerate(passes(nets, height, width)):
        index = table_indexes(p, memory, level, nets, mask, symbols.skip)
        own = symbols.y[:, channels] * mask
        bits += nets.tables.cost(own, index).sum((0, 1), dtype=np.float64)
        memory["magnitude"] = magnitude(own)
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
