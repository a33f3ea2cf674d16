"""A tile's latents to bytes and back: quantisation, the passes, the entropy coder.

Encoder and decoder walk the same way. What chooses tables comes from `Nets.scale`, whose inputs and outputs are
integers; means are float and move pixels only.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from typing import NamedTuple, Protocol

import numpy as np

from pixa.bitstream import entropy
from pixa.bitstream.tables import Tables
from pixa.coding import inter
from pixa.motion import fields as motion

STRIDE = 16  # pixels a latent position
ALIGN = 1  # latent positions that the sides of a picture are a multiple of
HYPER = 4  # latent positions a hyper-latent position
Z_MAX, CONTEXT_MAX, SYMBOL_MAX = 127, 15, 32767
Z_ZONE = 0.1  # how much less than half a hyper-latent of a frame that follows another is rounded away from zero
TRADE_WORTH, INTER_TRADE_WORTH = 5 * motion.STEP_WORTH, 3 * motion.STEP_WORTH

Memory = dict[str, np.ndarray]


class Nets(inter.Predictor, Protocol):
    """The networks and level vectors of a loaded model; arrays are (1, C, h, w) float32 unless said otherwise.

    A `Memory` holds what the passes over a tile know, by the names that the graphs give to their inputs and outputs.

    Attributes:
        passes: (P, M, 4), whether pass p codes channel c at the positions of every 2x2 square, row by row.
    """

    tables: Tables
    passes: np.ndarray

    def vector(self, name: str, level: int) -> np.ndarray:
        """A level's vector, (1, C, 1, 1)."""

    def hyper(self, y: np.ndarray) -> np.ndarray: ...

    def scale(self, p: int, memory: Memory, level: int) -> np.ndarray:
        """Table indexes of the channels of pass p, uint8. The first pass knows "z", the others "magnitude"."""

    def mean(self, p: int, memory: Memory, beside: bool = False) -> np.ndarray:
        """Means of the channels of pass p. All passes but the first know "y_hat".

        Args:
            beside: other work is being done meanwhile.
        """


class Pass(NamedTuple):
    """What one pass codes: a run of channels, and in it the positions where `mask` (1, C, h, w) is true."""

    channels: slice
    mask: np.ndarray


def passes(nets: Nets, height: int, width: int) -> Iterator[Pass]:
    """The passes over a tile of (height, width) latents."""
    squares = -(-height // 2), -(-width // 2)
    for pattern in nets.passes:
        own = np.flatnonzero(pattern.any(1))
        channels = slice(own[0], own[-1] + 1)
        mask = np.tile(pattern[channels].reshape(1, -1, 2, 2), (1, 1, *squares))
        yield Pass(channels, mask[:, :, :height, :width])


def round_half_up(x: np.ndarray, limit: int) -> np.ndarray:
    return np.clip(np.floor(x + 0.5), -limit, limit)


def optimise(
    symbols: np.ndarray, residual: np.ndarray, index: np.ndarray, tables: Tables, worth: float = TRADE_WORTH
) -> np.ndarray:
    """Rate-distortion optimised quantisation: move a symbol one towards zero where the bits saved outweigh the error.

    The trade-off needs no lambda: a step D that is optimal for its lambda makes one squared step worth 6 / ln 2 bits,
    because D**2 / 12 grows as fast as the rate of a uniform quantiser falls (Sullivan and Wiegand, 1998). A symbol is
    also what its neighbours are predicted from, which this does not weigh: five times that worth saves the most bits
    at equal PSNR on held-out pictures, three times on frames that follow others.
    """
    coded = symbols != 0
    larger, index, residual = symbols[coded], index[coded], residual[coded]
    smaller = larger - np.sign(larger)
    saved = tables.cost(larger, index) - tables.cost(smaller, index)
    error = np.square(smaller - residual) - np.square(larger - residual)
    traded = symbols.copy()
    traded[coded] = np.where(worth * error < saved, smaller, larger)
    return traded


def encode_tile(
    y: np.ndarray,
    level: int,
    nets: Nets,
    trade: bool = False,
    z: np.ndarray | None = None,
    past: inter.Past | None = None,
) -> tuple[bytes, np.ndarray, np.ndarray, inter.Bypass | None, np.ndarray | None]:
    """Code latents y (M, h, w); returns the payload, and as the decoder will see them y_hat (M, h, w), the symbols,
    what the tile takes over from the past, and its motion (h, w, 2).

    Args:
        trade: quantise rate-distortion optimally instead of rounding.
        z: hyper-latents (N, ceil(h/4), ceil(w/4)), not yet rounded, in the place of those of the model.
        past: what the tile follows, see `pixa.coding.inter`; None in a picture.
    """
    y = y[None]
    gain, step = nets.vector("gain", level), nets.vector("step", level)
    known, groups, skip, field = {}, [], None, None
    if past is not None:
        y, gain = y * gain * step, 1 / step
        known, field, skip = inter.find(y, past, step, level, nets)
        known |= seen(past)
        groups = inter.write(field, skip, past, level, nets)
        y = (y - known["predicted"]) * ~skip
    _, channels, height, width = y.shape
    if z is None:
        padding = ((0, 0), (0, 0), (0, -height % HYPER), (0, -width % HYPER))
        z = nets.hyper(np.pad(y, padding, mode="edge")) * nets.vector("z_gain", level)
    z = z.reshape(1, -1, -(-height // HYPER), -(-width // HYPER))
    z_index = z_table_indexes(level, nets, z.shape, skip)
    z = round_half_up(z, Z_MAX) if past is None else np.sign(z) * round_half_up(np.abs(z) - Z_ZONE, Z_MAX)
    z *= z_index > 0

    memory = {"z": z} | known
    groups.append((z.ravel(), z_index.ravel()))
    y_hat, coded = np.zeros_like(y), np.zeros_like(y)
    for p, (channels, mask) in enumerate(passes(nets, height, width)):
        index = table_indexes(p, memory, level, nets, mask, skip)
        mean = nets.mean(p, memory)
        residual = (y[:, channels] - mean) * gain[:, channels]
        symbols = round_half_up(residual, SYMBOL_MAX) * (index > 0)
        if trade:
            worth = TRADE_WORTH if past is None else INTER_TRADE_WORTH
            symbols = optimise(symbols, residual, index, nets.tables, worth)
        rebuilt = inter.kept(symbols * step[:, channels] + mean, known, skip, channels)
        memory |= {"magnitude": magnitude(symbols), "y_hat": rebuilt * mask}
        y_hat[:, channels] += memory["y_hat"]
        coded[:, channels] += symbols
        groups.append((symbols.ravel(), index.ravel()))
    payload, y_hat = entropy.encode(groups, nets.tables), inter.followed(y_hat, known, skip)
    return payload, y_hat[0], coded[0], inter.bypass(known, skip, level, nets), field


class TileSymbols:
    """The integers of one tile, decoded without a float: hyper-latents, all passes, and what they made known.

    Attributes:
        motion: (h, w, 2), of a tile that follows another; None in a picture.
        skip: (h, w) bool, likewise, where no latents are coded.
        bypass: what it takes over from the past, once it is reconstructed.
    """

    def __init__(
        self,
        payload: bytes,
        channels: int,
        height: int,
        width: int,
        level: int,
        nets: Nets,
        past: inter.Past | None = None,
        ahead: Executor | None = None,
    ):
        """Decode a payload for latents (channels, height, width).

        Args:
            channels: if less than all, the passes from the first on that codes others are left undecoded.
            past: what the tile follows, see `pixa.coding.inter`; its symbols here, the rest to reconstruct.
            ahead: one thread that computes the means of a picture's tile, which `reconstruct` needs, while the next
                symbols are being decoded.

        Raises:
            Corrupt: the payload contradicts itself.
        """
        decoder, self.past = entropy.Decoder(payload, nets.tables), past
        self.motion = self.skip = self.bypass = None
        if past is not None:
            self.motion, self.skip = inter.read(decoder, past, level, nets)
        shape = (1, nets.vector("z_index", level).shape[1], -(-height // HYPER), -(-width // HYPER))
        z_index = z_table_indexes(level, nets, shape, self.skip)
        z = decoder.decode(z_index.ravel()).reshape(shape).clip(-Z_MAX, Z_MAX)
        self.memory = {"z": z.astype(np.float32)} | ({} if past is None else seen(past))
        self.shape = (1, channels, height, width)
        self.z, self.level, self.passes, self.symbols, self.means = z, level, [], [], []
        for p, coded in enumerate(passes(nets, height, width)):
            if coded.channels.stop > channels:
                break
            self.passes.append(coded)
            if ahead and p and past is None:
                self.means.append(ahead.submit(self.mean_ahead, p, dict(self.memory), nets))
            index = table_indexes(p, self.memory, level, nets, coded.mask, self.skip)
            if ahead and not p and past is None:  # the first mean needs the features that its tables are made of
                self.means.append(ahead.submit(self.mean_ahead, p, dict(self.memory), nets))
            symbols = decoder.decode(index.ravel(), np.float32).reshape(index.shape)
            self.memory["magnitude"] = magnitude(symbols)
            self.symbols.append(symbols)
        if len(self.passes) == len(nets.passes):
            decoder.finish()

    def mean_ahead(self, p: int, memory: Memory, nets: Nets) -> tuple[np.ndarray, Memory]:
        """Means of pass p of a picture's tile, and what is known then; the symbols of the passes before it are."""
        if p > 0:
            mean, known = self.means[p - 1].result()
            memory = known | memory | {"y_hat": self.rebuilt(p - 1, mean, nets, {})}
        return nets.mean(p, memory, beside=True), memory

    @property
    def y(self) -> np.ndarray:
        """Symbols (1, channels, h, w), float32."""
        y = np.zeros(self.shape, np.float32)
        for (channels, _), symbols in zip(self.passes, self.symbols, strict=True):
            y[:, channels] += symbols
        return y

    def rebuilt(self, p: int, mean: np.ndarray, nets: Nets, known: Memory) -> np.ndarray:
        """What pass p makes known of y_hat, or of its residual in a tile that follows another."""
        channels, mask = self.passes[p]
        rebuilt = self.symbols[p] * nets.vector("step", self.level)[:, channels]
        rebuilt += mean
        rebuilt = inter.kept(rebuilt, known, self.skip, channels)
        rebuilt *= mask
        return rebuilt

    def reconstruct(self, nets: Nets) -> np.ndarray:
        """y_hat (M, h, w)."""
        if self.means:
            y_hat = self.y
            y_hat *= nets.vector("step", self.level)[:, : y_hat.shape[1]]
            for (channels, mask), ahead in zip(self.passes, self.means, strict=True):
                mean, _ = ahead.result()
                y_hat[:, channels] += np.multiply(mean, mask, out=mean)
            return y_hat[0]
        known = {} if self.past is None else inter.expected(self.past, self.motion, self.level, nets)
        memory, y_hat = self.memory | known, np.zeros(self.shape, np.float32)
        for p, (channels, _) in enumerate(self.passes):
            memory["y_hat"] = self.rebuilt(p, nets.mean(p, memory), nets, known)
            y_hat[:, channels] += memory["y_hat"]
        y_hat = inter.followed(y_hat, known, self.skip)
        self.bypass = inter.bypass(known, self.skip, self.level, nets)
        return y_hat[0]

    def integers(self) -> bytes:
        """Every symbol as little-endian int16, what a tile that follows another begins with first, then hyper-latents:
        what two decoders must agree on.
        """
        parts = (*(() if self.skip is None else (self.skip, self.motion)), self.z, self.y)
        return b"".join(part.astype("<i2").tobytes() for part in parts)


def z_table_indexes(level: int, nets: Nets, shape: tuple[int, ...], skip: np.ndarray | None) -> np.ndarray:
    """Table indexes of hyper-latents of a shape (1, N, hz, wz), uint8; 0 where all that they cover is skipped."""
    index = np.broadcast_to(nets.vector("z_index", level), shape).astype(np.uint8)
    if skip is None:
        return index
    padding = [(0, size * HYPER - n) for size, n in zip(shape[2:], skip.shape, strict=True)]
    covered = np.pad(skip, padding, constant_values=True).reshape(shape[2], HYPER, shape[3], HYPER)
    return index * ~covered.all((1, 3))


def table_indexes(
    p: int, memory: Memory, level: int, nets: Nets, mask: np.ndarray, skip: np.ndarray | None
) -> np.ndarray:
    """Table indexes of pass p, 0 outside its mask and where the tile is skipped.

    All that the first pass makes of hyper-latents is cut to the tile.
    """
    index = nets.scale(p, memory, level)
    if p == 0:
        height, width = mask.shape[2:]
        cut = lambda a: np.ascontiguousarray(a[:, :, :height, :width])
        index = cut(index)
        memory |= {name: cut(a) for name, a in memory.items() if name not in ("z", "moved")}
    return index * (mask if skip is None else mask & ~skip)


def magnitude(symbols: np.ndarray) -> np.ndarray:
    """What later passes see of symbols when they choose tables."""
    sizes = np.abs(symbols)
    return np.minimum(sizes, CONTEXT_MAX, out=sizes)


def seen(past: inter.Past) -> Memory:
    """What networks that choose tables see of past symbols, with zeros up to whole hyper-latents."""
    height, width = past["past_1"].shape[2:]
    padding = ((0, 0), (0, 0), (0, -height % HYPER), (0, -width % HYPER))
    return {name: np.pad(magnitude(past[name]).astype(np.float32), padding) for name in ("past_1", "past_2")}
