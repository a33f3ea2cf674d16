"""A tile's tokens to bytes and back: quantisation, the map of regions, the entropy model.

Encoder and decoder walk the same way. Probabilities come from integers alone: the sums of the entropy model's layers
are exact in float32 (`pixa.models.nets.token_prior`), and a table and an integer division make frequencies of
its logits.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

import numpy as np

from pixa.bitstream import categorical
from pixa.coding.tile import CodedTile, Reconstruction, RefFrame, TileContext, TileInput

STRIDE = 8  # pixels a latent position
ALIGN = 4  # latent positions a region
SPLITS = (4, 2, 1)  # latent positions a token, of every grid
TOKENS = (1, 5, 21)  # of a region refined to each grid
PASSES = ((0, 0), (1, 1), (0, 1), (1, 0))  # (row, column) in a 2x2 square
NOTHING = 3  # the neighbour of a region at the edge of the tile
SMALL_TILES = 100  # the first level whose tiles are the smallest
CHUNK = 8192  # vectors compared with all codes at a time


class TokenModel(Protocol):
    """A loaded model.

    Attributes:
        channels: dimensions d of a code.
        arrays: see FORMAT.md, annex A.
        integers: what arithmetic the exact layers are done in.
        prior: its entropy model.
    """

    channels: int
    arrays: dict[str, np.ndarray]
    integers: type
    prior: Prior


Take = Callable[[int, np.ndarray, np.ndarray, np.ndarray, bool], np.ndarray]


def regions(plane: np.ndarray, k: int) -> np.ndarray:
    """(C, k*h, k*w) -> (h*w, C*k*k), what each square of k by k holds."""
    c, height, width = plane.shape
    squares = plane.reshape(c, height // k, k, width // k, k)
    return squares.transpose(1, 3, 0, 2, 4).reshape(-1, c * k * k)


def plane(vectors: np.ndarray, k: int, height: int, width: int) -> np.ndarray:
    """The reverse of `regions`, to (C, k*height, k*width)."""
    squares = vectors.reshape(height, width, -1, k, k)
    return np.ascontiguousarray(squares.transpose(2, 0, 3, 1, 4)).reshape(-1, k * height, k * width)


def spread(flags: np.ndarray, times: int) -> np.ndarray:
    """(h, w) -> (times*h, times*w)."""
    return flags.repeat(times, 0).repeat(times, 1)


def is_nested(model: TokenModel, level: int) -> bool:
    return bool(model.arrays["nested"][level])


def codes(model: TokenModel, level: int) -> np.ndarray:
    """What the tokens of the three grids stand for, (3, K, d)."""
    return model.arrays["centroids" if is_nested(model, level) else "codes"]


def nearest(vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Indexes (n,) of the codes (K, d) nearest to vectors (n, d)."""
    half = 0.5 * np.square(codes).sum(1)
    parts = [(half - vectors[i : i + CHUNK] @ codes.T).argmin(1) for i in range(0, len(vectors), CHUNK)]
    return np.concatenate(parts)


def down(model: TokenModel, grid: int, rest: np.ndarray) -> np.ndarray:
    """What a grid must code of latents (d, h, w): vectors (tokens, d)."""
    k = SPLITS[grid]
    vectors = regions(rest, k)
    return vectors if k == 1 else vectors @ model.arrays[f"down{k}_weight"].T + model.arrays[f"down{k}_bias"]


def up(model: TokenModel, grid: int, vectors: np.ndarray, height: int, width: int) -> np.ndarray:
    """What vectors (height*width, d) of a grid stand for, in latents."""
    k = SPLITS[grid]
    if k > 1:
        vectors = vectors @ model.arrays[f"up{k}_weight"].T + model.arrays[f"up{k}_bias"]
    return plane(vectors, k, height, width)


def choose(y: np.ndarray, level: int, model: TokenModel) -> tuple[np.ndarray, list[np.ndarray]]:
    """The map (h, w) of regions and the tokens of the three grids of latents y (d, 4h, 4w).

    A region is refined while squared error + trade * tokens falls.
    """
    rest, index, errors = y, [], []
    height, width = y.shape[1] // ALIGN, y.shape[2] // ALIGN
    for grid, alphabet in enumerate(codes(model, level)):
        size = height << grid, width << grid
        chosen = nearest(down(model, grid, rest), alphabet)
        rest = rest - up(model, grid, alphabet[chosen], *size)
        index.append(chosen.reshape(size))
        errors.append(np.square(regions(rest, ALIGN)).sum(1).reshape(height, width))
    cost = np.stack(errors) + model.arrays["trade"][level] * np.array(TOKENS, np.float32)[:, None, None]
    return cost.argmin(0), index


def rebuild(stop: np.ndarray, index: list[np.ndarray], level: int, model: TokenModel) -> np.ndarray:
    """y_hat (d + 3, 4h, 4w) of a map (h, w) and tokens; where a region has none of a grid, they count for nothing."""
    flags = [spread(stop >= grid, ALIGN)[None].astype(np.float32) for grid in range(3)]
    parts = [
        up(model, grid, alphabet[index[grid].ravel()], *index[grid].shape) * flags[grid]
        for grid, alphabet in enumerate(codes(model, level))
    ]
    sign = np.full_like(flags[0], is_nested(model, level))
    return np.concatenate([sum(parts), *flags[1:], sign])


KINDS = ("code", "group")


class Prior:
    """The exact networks of the entropy model, on rows of integers (positions, channels)."""

    def __init__(self, model: TokenModel):
        arrays, self.real = model.arrays, model.integers
        names = [name.removesuffix("_weight") for name in arrays if arrays[name].dtype == np.int8]
        self.layers = {
            name: (arrays[f"{name}_weight"].T.astype(self.real), arrays[f"{name}_bias"].astype(self.real))
            for name in names
        }
        self.weights = arrays["logit_weights"].astype(np.int64)
        self.looks = [[arrays[f"{kind}_looks"][grid].astype(self.real) for grid in range(3)] for kind in KINDS]
        self.known_group = arrays["known_group"].astype(self.real)

    def layer(self, name: str, x: np.ndarray, extra: np.ndarray | int = 0) -> np.ndarray:
        """(sums + extra) / 64, rounded half up, clipped to [0, 255]."""
        weight, bias = self.layers[name]
        total = x @ weight + bias + extra
        return np.clip(np.floor(total / 64 + 0.5), 0, 255).astype(self.real)

    def frequencies(self, logits: np.ndarray) -> np.ndarray:
        below = logits.max(1, keepdims=True) - logits
        return categorical.frequencies(self.weights[below.astype(np.intp)])

    def walk(self, stop: np.ndarray, nested: bool, take: Take) -> None:
        """All tokens of a tile.

        Args:
            stop: the map (h, w).
            take: (grid, frequencies (n, S), rows (n,), columns (n,), whether they are of members) -> symbols (n,).
        """
        ones = 16 * np.equal.outer(np.arange(3), stop).astype(self.real)
        state = self.layer("top", around(ones))  # (positions, F)
        for grid in range(3):
            height, width = stop.shape[0] << grid, stop.shape[1] << grid
            used, looks = spread(stop >= grid, 1 << grid), self.looks[nested][grid]
            seen = np.zeros((looks.shape[1], height + 2, width + 2), self.real)
            for row, column in PASSES:
                rows, columns = np.nonzero(used[row::2, column::2])
                if not len(rows):
                    continue
                rows, columns = 2 * rows + row, 2 * columns + column
                x = np.concatenate([neighbours(seen, rows, columns), state[rows * width + columns]], 1)
                hidden = self.layer(f"mix{grid}", self.layer(f"enter{grid}", x))
                index = take(grid, self.frequencies(self.layer(f"group{grid}", hidden)), rows, columns, False)
                if not nested:
                    inner = self.layer(f"inner{grid}", hidden, self.known_group[grid][index])
                    rates = self.frequencies(self.layer(f"member{grid}", inner))
                    index = len(self.known_group[grid]) * index + take(grid, rates, rows, columns, True)
                seen[:, rows + 1, columns + 1] = looks[index].T
            if grid < 2:
                finer = self.layer(f"grow{grid}", np.concatenate([around(seen[:, 1:-1, 1:-1]), state], 1))
                state = regions(plane(finer, 2, height, width), 1)


def around(x: np.ndarray) -> np.ndarray:
    """The 3x3 neighbours of every position, zero outside: (C, h, w) -> (h*w, 9C)."""
    rows, columns = (axis.ravel() for axis in np.indices(x.shape[1:]))
    return neighbours(np.pad(x, ((0, 0), (1, 1), (1, 1))), rows, columns)


def neighbours(padded: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The 3x3 neighbours of n positions in what is padded by one: (C, h + 2, w + 2) -> (n, 9C), the channel slower."""
    found = [padded[:, rows + i, columns + j] for i in range(3) for j in range(3)]
    return np.stack(found).transpose(2, 1, 0).reshape(len(rows), -1)


def map_rates(model: TokenModel, level: int) -> np.ndarray:
    """Frequencies of a region's last grid by those above and to the left, (4, 4, 3)."""
    rates = model.arrays["map_frequencies"].astype(np.int64)
    return rates[level * len(rates) // len(model.arrays["nested"])]


class TokenSymbols:
    """The integers of a tile of tokens.

    Attributes:
        stop: the map (h, w) of regions.
        index: the tokens of the three grids.
        size: bytes of the payload.
        y, motion: None, for no frame follows one of tokens.
    """

    y = motion = None

    def __init__(self, level: int, size: int, stop: np.ndarray, index: list[np.ndarray]):
        self.level, self.size, self.stop, self.index = level, size, stop, index

    def integers(self) -> bytes:
        """The map and every token as little-endian int16, -1 where there is none."""
        planes = [self.stop]
        for grid, index in enumerate(self.index):
            planes.append(np.where(spread(self.stop >= grid, 1 << grid), index, -1))
        return b"".join(plane.astype("<i2").tobytes() for plane in planes)


class TokenCodec:
    """A `TileCodec` of pictures: tokens of three grids."""

    stride, align = STRIDE, ALIGN

    def __init__(self, model: TokenModel):
        self.model, self.channels, self.y_hat_channels = model, model.channels, model.channels + 3

    def tile_log2(self, level: int) -> int:
        """Small tiles, so that losing one loses little, where the 14 bytes of each do not weigh much."""
        return 10 if is_nested(self.model, level) else 9 if level < SMALL_TILES else 8

    def encode(
        self, tile: TileInput, level: int, context: TileContext | None = None, reference: RefFrame | None = None
    ) -> CodedTile:
        model, nested = self.model, is_nested(self.model, level)
        stop, index = choose(tile.y, level, model)
        padded = np.pad(stop, ((1, 0), (1, 0)), constant_values=NOTHING)
        groups = [(stop.ravel(), map_rates(model, level)[padded[:-1, 1:].ravel(), padded[1:, :-1].ravel()])]
        side = model.arrays["known_group"].shape[1]

        def take(grid: int, rates: np.ndarray, rows: np.ndarray, columns: np.ndarray, member: bool) -> np.ndarray:
            symbols = index[grid][rows, columns]
            if not nested:
                symbols = symbols % side if member else symbols // side
            groups.append((symbols, rates))
            return symbols

        model.prior.walk(stop, nested, take)
        reconstruction = Reconstruction(rebuild(stop, index, level, model))
        return CodedTile(categorical.encode(groups), None, None, reconstruction)

    def decode(
        self,
        payload: bytes,
        shape: tuple[int, int, int],
        level: int,
        context: TileContext | None = None,
        pool: Executor | None = None,
    ) -> TokenSymbols:
        decoder, model, nested = categorical.Decoder(payload), self.model, is_nested(self.model, level)
        rates, size = map_rates(model, level), (shape[1] // ALIGN, shape[2] // ALIGN)
        padded = np.full((size[0] + 1, size[1] + 1), NOTHING)
        for row in range(size[0]):
            for column in range(size[1]):
                known = rates[padded[row, column + 1], padded[row + 1, column]]
                padded[row + 1, column + 1] = decoder.decode(known[None])[0]
        stop, side = padded[1:, 1:], model.arrays["known_group"].shape[1]
        index = [np.zeros((size[0] << grid, size[1] << grid), np.int64) for grid in range(3)]

        def take(grid: int, rates: np.ndarray, rows: np.ndarray, columns: np.ndarray, member: bool) -> np.ndarray:
            symbols = decoder.decode(rates)
            index[grid][rows, columns] += symbols if member or nested else side * symbols
            return symbols

        model.prior.walk(stop, nested, take)
        decoder.finish()
        return TokenSymbols(level, len(payload), stop, index)

    def reconstruct(self, symbols: TokenSymbols, reference: RefFrame | None = None) -> Reconstruction:
        return Reconstruction(rebuild(symbols.stop, symbols.index, symbols.level, self.model))

    def bits(self, symbols: TokenSymbols) -> np.ndarray:
        """As `TileCodec.bits`; all squares have the same."""
        height, width = (2 * n for n in symbols.stop.shape)
        return np.full((height, width), 8 * symbols.size / (height * width))
