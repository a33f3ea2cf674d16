"""Patches: blocks of a lossy picture that the lossless coder codes, laid over what the model shows of them."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from pixa.bitstream.container import read_varint, write_varint
from pixa.bitstream.headers import Head
from pixa.coding.lossless.tile import decode_tile, encode_tile
from pixa.errors import Corrupt
from pixa.image.lossless import load
from pixa.image.reduced import average
from pixa.models.registry import find_model, find_wire

AREA, BLOCK = 1024, 64  # pixels a side, of what one patch belongs to and of what it is made of
MODEL = struct.Struct("<HI")  # wire id and hash


class Patch(NamedTuple):
    """Blocks of an area and their samples.

    Attributes:
        area: its number, in raster order.
        blocks: (rows, columns) bool, those that are patched.
        samples: (h, w, 1 or 3) uint8 of the area, of which those in other blocks mean nothing.
    """

    area: int
    blocks: np.ndarray
    samples: np.ndarray

    def paste(self, picture: np.ndarray, head: Head, factor: int = 1) -> None:
        """Lay the patch over a picture that is shown at 1/`factor`."""
        samples = average(self.samples, factor) if factor > 1 else self.samples
        whole = area_place(self.area, head.height, head.width)
        place = tuple(slice(s.start // factor, -(-s.stop // factor)) for s in whole)
        mask = pixels(self.blocks, *samples.shape[:2], BLOCK // factor)
        picture[place][mask] = samples[mask]


def area_place(area: int, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of an area of a picture."""
    row, column = divmod(area, -(-width // AREA))
    return tuple(
        slice(AREA * n, min(AREA * (n + 1), size)) for n, size in zip((row, column), (height, width), strict=True)
    )


def pixels(blocks: np.ndarray, height: int, width: int, side: int = BLOCK) -> np.ndarray:
    """Of blocks (rows, columns) the pixels (height, width)."""
    return blocks.repeat(side, 0).repeat(side, 1)[:height, :width]


def kept(blocks: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of an area that have a patched block: the others are left out of what is coded."""
    return tuple(np.flatnonzero(blocks.any(axis).repeat(BLOCK)[:size]) for axis, size in ((1, height), (0, width)))


def encode_patch(patch: Patch, step: int = 1) -> bytes:
    """The payload of a PATCH chunk, whose samples are multiples of `step`."""
    entry = find_model("lossless")
    rows, columns = kept(patch.blocks, *patch.samples.shape[:2])
    canvas = patch.samples[np.ix_(rows, columns)]
    mask = pixels(patch.blocks, *patch.samples.shape[:2])[np.ix_(rows, columns)]
    colours, counts = np.unique(canvas[mask], axis=0, return_counts=True)
    canvas[~mask] = colours[counts.argmax()]
    model, blocks = MODEL.pack(entry.wire_id, int(entry.hash, 16)), np.packbits(patch.blocks).tobytes()
    return write_varint(patch.area) + model + blocks + encode_tile(canvas, load(entry), step)


def decode_patch(payload: bytes, head: Head, last: int = -1) -> Patch:
    """The patch of a payload, of an area behind the `last` one.

    Raises:
        Corrupt: it contradicts itself or the picture's header.
        ModelMissing: the lossless model that it names is not installed.
    """
    area, start = read_varint(payload, 0)
    if not last < area < -(-head.width // AREA) * -(-head.height // AREA):
        raise Corrupt("a patch is out of order or outside the picture")
    shape = tuple(s.stop - s.start for s in area_place(area, head.height, head.width))
    size = tuple(-(-side // BLOCK) for side in shape)
    end = start + MODEL.size + -(-size[0] * size[1] // 8)
    if len(payload) < end:
        raise Corrupt("a patch is shorter than its header")
    bits = np.unpackbits(np.frombuffer(payload[start + MODEL.size : end], np.uint8)).astype(bool)
    blocks = bits[: size[0] * size[1]].reshape(size)
    if not blocks.any() or bits[size[0] * size[1] :].any():
        raise Corrupt("a patch has no blocks, or some that its area has not")
    wire_id, number = MODEL.unpack_from(payload, start)
    entry = find_wire(wire_id, number)
    if "lossless" not in entry.can:
        raise Corrupt("a patch names a model that is not lossless")
    rows, columns = kept(blocks, *shape)
    samples = np.zeros((*shape, 1 + 2 * head.colour), np.uint8)
    canvas = decode_tile(payload[end:], (len(rows), len(columns), samples.shape[2]), np.uint8, load(entry))
    samples[np.ix_(rows, columns)] = canvas
    return Patch(area, blocks, samples)
