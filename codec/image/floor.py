"""The floor under quality: what a picture's model cannot show is patched.

A model of latents knows photographs; of stripes, noise or letters it may make something else at any quality. So the
encoder looks at what its file shows. Blocks with an error above what the quality promises become patches, and so do
drawn ones that the lossless coder writes for fewer bits; the latents beneath them go on smoothly, which costs next to
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import Chunk, read_file, write_file
from pixa.bitstream.headers import Head
from pixa.coding.lossless.tile import dequantise, quantise
from pixa.image.patches import AREA, BLOCK, Patch, area_place, encode_patch, pixels
from pixa.image.picture import ImageEncoder, decode_latents, shared_windows, synthesise_windows, thread_pool
from pixa.image.windows import pixel_slices

CELL = 16  # pixels a side of what a promise is kept for
DRAWN = 0.5  # of a block's pixels as their left or upper neighbour, from which on the lossless coder is tried
ROUNDS = 3  # of patching and looking, before all is patched

QUALITIES = np.arange(0, 101, 10)
PROMISED = {  # largest mean squared error of a cell and of a block, above those of all photographs of Kodak
    CELL: (4500, 4000, 3500, 1600, 850, 450, 340, 260, 210, 185, 180),
    BLOCK: (2000, 1700, 1350, 800, 420, 185, 110, 82, 70, 65, 62),
}
USUAL = (260, 200, 150, 96, 60, 37, 24, 15, 10, 6, 4)  # mean squared error of photographs, about, and of patches


def promised(level: int, side: int = CELL) -> float:
    """The largest mean squared error of any cell or block at a quality level (0..200)."""
    return float(np.exp(np.interp(level / 2, QUALITIES, np.log(PROMISED[side]))))


def usual(level: int) -> float:
    """The mean squared error that photographs have at a quality level, about."""
    return float(np.exp(np.interp(level / 2, QUALITIES, np.log(USUAL))))


def patch_step(level: int) -> int:
    """The largest odd step whose rounding errors, (step**2 - 1) / 12 in the mean square, are no more than usual."""
    step = int((12 * usual(level) + 1) ** 0.5)
    return step - 1 + step % 2


@dataclass(frozen=True)
class Coding:
    """A file of a picture, and how it differs from it.

    Attributes:
        data: the file.
        errors: mean squared errors of the cells, zero in patched blocks.
        squares: sum over all pixels of their mean squared errors, patches included.
    """

    data: bytes
    errors: np.ndarray
    squares: float

    def cost(self, level: int) -> float:
        """Bits, and what the errors are worth: a bit a pixel where they are as usual."""
        return 8 * len(self.data) + self.squares / usual(level)

    def failing(self, level: int) -> np.ndarray:
        """The blocks that break a promise, or have a cell that does, (rows, columns) bool."""
        cells, counts = BLOCK // CELL, np.ones_like(self.errors)
        means = square_sums(self.errors, cells) / square_sums(counts, cells)
        return (square_sums(self.errors > promised(level), cells) > 0) | (means > promised(level, BLOCK))


def with_floor(encoder: ImageEncoder, data: bytes, y_hat: np.ndarray | None = None, effort: int = 0) -> bytes:
    """The file of a picture, or a better one in which every 16x16 block keeps what the quality promises.

    Args:
        data: a file that `encoder` made.
        y_hat: the latents (C, h, w) that its decoder will see, if they are at hand.
        effort: how it was made.
    """
    head, *rest = read_file(data)
    head = Head.read(head.payload)
    level = head.level
    if y_hat is None:
        tiles = [chunk.payload for chunk in rest if chunk.type == ChunkType.TILE]
        with thread_pool(encoder.nets) as pool:
            y_hat = decode_latents(head, tiles, encoder.nets, pool)
    plain = measured(encoder, level, data, y_hat)
    failing, drawn = plain.failing(level), drawn_blocks(encoder.picture.colour)
    codings = [patched(encoder, level, effort, failing)] if failing.any() else [plain]
    if (drawn & ~failing).any():
        codings.append(patched(encoder, level, effort, failing | drawn))
    return min(codings, key=lambda coding: coding.cost(level)).data


def patched(encoder: ImageEncoder, level: int, effort: int, blocks: np.ndarray) -> Coding:
    """The picture with patches for some blocks (rows, columns), and for those that break the promise then."""
    for rounds in range(1, ROUNDS + 1):
        coding = measured(encoder, level, *encoder.without(blocks, BLOCK).encode(level, effort), blocks)
        failing = coding.failing(level)
        if not failing.any():
            break
        blocks = blocks | failing if rounds < ROUNDS - 1 else np.ones_like(blocks)
    patches = [best_patch(patch, level) for patch in patches_of(encoder.picture.colour, blocks)]
    chunks = [*read_file(coding.data), *(Chunk(ChunkType.PATCH, payload) for payload, _ in patches)]
    return Coding(write_file(chunks), coding.errors, coding.squares + sum(squares for _, squares in patches))


def measured(
    encoder: ImageEncoder, level: int, data: bytes, y_hat: np.ndarray, blocks: np.ndarray | None = None
) -> Coding:
    """Look how what a decoder shows of latents y_hat (C, h, w) differs from the picture, outside of `blocks`."""
    colour, model = encoder.picture.colour, encoder.nets
    errors, squares = np.zeros([-(-side // CELL) for side in colour.shape[:2]]), 0.0
    windows, _ = shared_windows(model, *y_hat.shape[1:])
    with thread_pool(model) as pool:
        shown = synthesise_windows(model, y_hat, level, colour, pool)
        for window, (original, samples) in zip(windows, shown, strict=True):
            rows, columns = pixel_slices(window.inner, model.codec.stride)
            error = mean_square(original, samples)
            if blocks is not None:
                error[pixels(blocks, *colour.shape[:2])[rows, columns]] = 0
            sums, counts = square_sums(error, CELL), square_sums(np.ones_like(error), CELL)
            errors[rows.start // CELL :, columns.start // CELL :][: len(sums), : len(sums[0])] = sums / counts
            squares += float(sums.sum())
    return Coding(data, errors, squares)


def mean_square(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared differences of samples (h, w, C), the mean of each pixel's; plane by plane, which NumPy is quick at."""
    planes = [np.square(np.subtract(a[..., c], b[..., c], dtype=np.float32)) for c in range(a.shape[2])]
    return np.add.reduce(planes) / len(planes)


def square_sums(plane: np.ndarray, size: int) -> np.ndarray:
    """Sums over squares of `size` of a plane (h, w), those at its right and lower edges as large as they are."""
    plane = plane.astype(np.float32)
    for axis, side in enumerate(plane.shape):
        plane = np.add.reduceat(plane, np.arange(0, side, size), axis)
    return plane


def drawn_blocks(colour: np.ndarray) -> np.ndarray:
    """The blocks of samples (H, W, C) in which most pixels have the colour of a neighbour."""
    same, planes = np.zeros(colour.shape[:2], bool), np.moveaxis(colour, 2, 0)
    same[1:] = np.logical_and.reduce([plane[1:] == plane[:-1] for plane in planes])
    same[:, 1:] |= np.logical_and.reduce([plane[:, 1:] == plane[:, :-1] for plane in planes])
    return square_sums(same, BLOCK) > DRAWN * square_sums(np.ones_like(same), BLOCK)


def patches_of(colour: np.ndarray, blocks: np.ndarray) -> Iterator[Patch]:
    """The patches of the areas that have such blocks."""
    height, width = colour.shape[:2]
    for area in range(-(-height // AREA) * -(-width // AREA)):
        place = area_place(area, height, width)
        own = blocks[tuple(slice(s.start // BLOCK, -(-s.stop // BLOCK)) for s in place)]
        if own.any():
            yield Patch(area, own, colour[place])


def best_patch(patch: Patch, level: int) -> tuple[bytes, float]:
    """The payload that costs least, and the sum of the squared errors of its pixels."""
    step = patch_step(level)
    exact = encode_patch(patch), 0.0
    if step == 1 or drawn_blocks(patch.samples)[patch.blocks].all():
        return exact
    shown = dequantise(quantise(patch.samples, step), step)
    error = mean_square(patch.samples, shown)
    near = encode_patch(patch, step), float(error[pixels(patch.blocks, *error.shape)].sum())
    return min(exact, near, key=lambda coded: 8 * len(coded[0]) + coded[1] / usual(level))
