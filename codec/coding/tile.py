"""What every coding of tiles offers, whatever tiles hold: latents, residual latents of inter frames, tokens.

A tile is a rectangle of a picture that is coded by itself. A new kind of coding is one more `TileCodec`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np


@dataclass(frozen=True)
class TileInput:
    """What an encoder has of a tile; a codec takes of it what it has a use for.

    Attributes:
        y: what is to be coded, (C, h, w).
        z: hyper-latents (N, ceil(h/4), ceil(w/4)) that a search has found, not rounded.
        picture: samples of the tile's pixels, edges continued to whole positions, (stride*h, stride*w, 3) uint8.
        rdoq: quantise rate-distortion optimally instead of rounding.
    """

    y: np.ndarray
    z: np.ndarray | None = None
    picture: np.ndarray | None = None
    rdoq: bool = False


@dataclass(frozen=True)
class TileContext:
    """What is known of the frames before at the place of a tile of an inter frame, integers alone.

    Attributes:
        prev_symbols: those of the last frame and of the one before, each (1, M, h, w), zeros where there is none.
        prev_motion: motion vectors (h, w, 2) of the last frame, int32, zeros behind a key frame.
    """

    prev_symbols: tuple[np.ndarray, np.ndarray]
    prev_motion: np.ndarray


class Prediction:
    """Latents that a moved picture lets expect, computed where they are asked for.

    Args:
        compute: makes of places (h, w) bool the latents (M, h, w) there, and says at which it has made them.
    """

    def __init__(self, compute: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]):
        self.compute = compute
        self.latents: np.ndarray | None = None
        self.known: np.ndarray | None = None

    def at(self, places: np.ndarray) -> np.ndarray:
        """Latents (M, h, w), to be used at places (h, w) bool alone."""
        if self.latents is None:
            self.latents, self.known = self.compute(places)
        missing = places & ~self.known
        if missing.any():
            latents, known = self.compute(missing)
            self.latents[:, known], self.known = latents[:, known], self.known | known
        return self.latents


class CarryOver(NamedTuple):
    """What a tile of an inter frame takes over from the moved reference picture.

    Attributes:
        moved: the reference picture along the motion of the frame, (16h, 16w, 3) uint8.
        predicted: its latents.
        skip: (h, w) bool, where nothing is coded and all is taken over.
        weight: of `moved` less what `predicted` shows, that is taken over elsewhere.
    """

    moved: np.ndarray
    predicted: Prediction
    skip: np.ndarray
    weight: float

    def carried(self, predicted: np.ndarray) -> np.ndarray:
        """What is taken over, (H, W, 3) float32, sides up to those of `moved`, from what `predicted` shows."""
        height, width = predicted.shape[:2]
        weight = np.where(self.in_pixels(self.skip), np.float32(1), np.float32(self.weight))[:height, :width, None]
        return weight * (self.moved[:height, :width].astype(np.float32) - predicted)

    def context(self, carried: np.ndarray) -> np.ndarray:
        """What a synthesis sees of the reference, (6, H, W) float32: what is taken over, and the moved picture."""
        height, width = carried.shape[:2]
        coded = (~self.in_pixels(self.skip)[:height, :width]).astype(np.float32) / np.float32(255)
        moved = self.moved[:height, :width] - np.float32(127.5)
        return np.stack([plane * coded for planes in (carried, moved) for plane in np.moveaxis(planes, 2, 0)])

    def in_pixels(self, places: np.ndarray) -> np.ndarray:
        """(h, w) -> (16h, 16w)."""
        side = len(self.moved) // len(places)
        return places.repeat(side, 0).repeat(side, 1)


class Reconstruction(NamedTuple):
    """A tile as synthesis needs it.

    Attributes:
        y_hat: (C, h, w), of an inter frame 0 where it is skipped.
        carry_over: what an inter frame takes over.
    """

    y_hat: np.ndarray
    carry_over: CarryOver | None = None

    def latents(self, places: np.ndarray) -> np.ndarray:
        """y_hat (C, h, w), to be used at places (h, w) bool alone."""
        if self.carry_over is None:
            return self.y_hat
        skip = self.carry_over.skip
        return np.where(skip, self.carry_over.predicted.at(places & skip), self.y_hat)


@dataclass(frozen=True)
class RefFrame:
    """The reference frame of an inter frame, the one before it as decoders show it, at the place of a tile.

    Attributes:
        reconstruction: what its samples were made of.
        picture: its samples, edges continued to whole latents, (16h, 16w, 3) uint8.
    """

    reconstruction: Reconstruction
    picture: np.ndarray


class CodedTile(NamedTuple):
    """A tile as an encoder has coded it.

    Attributes:
        payload: the bytes of a TILE chunk.
        y: symbols (M, h, w) that later frames see; None of a coding for pictures alone.
        motion: vectors (h, w, 2) of an inter frame, else None.
        reconstruction: what the decoder will make of it.
    """

    payload: bytes
    y: np.ndarray | None
    motion: np.ndarray | None
    reconstruction: Reconstruction


class TileSymbols(Protocol):
    """The integers of a tile, decoded without a float.

    Attributes:
        y, motion: as those of `CodedTile`.
    """

    y: np.ndarray | None
    motion: np.ndarray | None

    def integers(self) -> bytes:
        """All of them as little-endian int16: what two decoders must agree on."""


class TileCodec(Protocol):
    """How tiles of a model are coded; all methods may run in any thread.

    Attributes:
        stride: pixels a position of what is coded.
        align: positions that the sides of a picture are a multiple of.
        channels: C of what is coded.
        y_hat_channels: C of what is reconstructed.
    """

    stride: int
    align: int
    channels: int
    y_hat_channels: int

    def tile_log2(self, level: int) -> int:
        """Base-2 logarithm of the pixels along a side of a tile."""

    def encode(
        self, tile: TileInput, level: int, context: TileContext | None = None, reference: RefFrame | None = None
    ) -> CodedTile:
        """Code a tile at a quality level; context and reference are those of an inter frame."""

    def decode(
        self,
        payload: bytes,
        shape: tuple[int, int, int],
        level: int,
        context: TileContext | None = None,
        pool: Executor | None = None,
    ) -> TileSymbols:
        """The symbols of a payload.

        Args:
            shape: (C, h, w); with fewer channels than there are, those that are coded first.
            pool: threads to begin the reconstruction on meanwhile.

        Raises:
            Corrupt: the payload contradicts itself.
        """

    def reconstruct(self, symbols: TileSymbols, reference: RefFrame | None = None) -> Reconstruction:
        """What synthesis needs of decoded symbols."""

    def bits(self, symbols: TileSymbols) -> np.ndarray:
        """Where the bits of a tile went: of every square of 16x16 pixels, (rows, columns) float64."""
