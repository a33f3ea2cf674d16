"""Frames of a video to payloads and back: key frames by an image model, the others by one that sees the past.

A group of pictures (GOP) is a key frame and the frames up to the next; it is closed, so GOPs decode independently. What
later frames see of earlier ones to choose tables are symbols, so that no symbol ever depends on rounding, and symbols
of a frame can be decoded while those of the frame before are still being made into samples.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pixa.bitstream.headers import Head
from pixa.coding.inter import REACH
from pixa.coding.tile import CodedTile, Reconstruction, RefFrame, TileContext, TileInput, TileSymbols
from pixa.image.picture import (
    WINDOW,
    analyse_windows,
    latent_size,
    pixel_slices,
    synthesise_windows,
    thread_pool,
    tile_shape,
    tile_slices,
)
from pixa.image.windows import window_slices
from pixa.motion.fields import widened
from pixa.native import kernels
from pixa.runtime.model import OnnxModel

IN_FLIGHT = 1 << 23  # pixels of the frames that are worked on at a time, unless a single one has more


class Coded(NamedTuple):
    """A frame as an encoder has coded it."""

    key: bool
    level: int
    tiles: list[CodedTile]

    @property
    def payloads(self) -> list[bytes]:
        return [tile.payload for tile in self.tiles]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(map(len, self.payloads))


class FrameCoder:
    """The frames of one video, in order; every frame of a GOP must pass once.

    To encode, `code` a frame, several ways if need be, and `keep` what is to be written. To decode, `symbols` and then
    `show`; one thread may be ahead with the former. Without an inter model every frame is a key frame, and all methods
    can run in any thread. `analyse` always can.

    Args:
        head: size and tiles of the frames.
        key: the image model of key frames.
        inter: the model of the other frames, if there are such.

    Attributes:
        contexts: what the next frame's symbols are coded with, tile by tile.
        references: the last frame that was shown, tile by tile.
    """

    def __init__(self, head: Head, key: OnnxModel, inter: OnnxModel | None = None):
        self.head, self.key, self.inter = head, key, inter
        self.tiles, self.stride = list(tile_slices(head, key.codec)), key.codec.stride
        self.size = latent_size(head.width, head.height, key.codec)
        self.contexts: list[TileContext] = []
        self.references: list[RefFrame] = []

    def model(self, key: bool) -> OnnxModel:
        return self.key if key else self.inter

    def pixels(self, tile: tuple[slice, slice]) -> tuple[slice, slice]:
        """Rows and columns of pixels of a tile."""
        return pixel_slices(tile, self.stride)

    def analyse(self, samples: np.ndarray, key: bool) -> np.ndarray:
        """Samples (H, W, 3) uint8 -> latents (M, h, w)."""
        return analyse_windows(self.model(key), samples)

    def code(self, samples: np.ndarray, y: np.ndarray, level: int, key: bool, rdoq: bool = False) -> Coded:
        """Code a frame of samples (H, W, 3) and latents y (M, h, w).

        Args:
            rdoq: quantise rate-distortion optimally instead of rounding.
        """
        codec = self.model(key).codec
        if key:
            return Coded(key, level, [codec.encode(TileInput(y[:, *tile], rdoq=rdoq), level) for tile in self.tiles])
        picture, tiles = self.padded(samples), []
        for tile, context, reference in zip(self.tiles, self.contexts, self.references, strict=True):
            given = TileInput(y[:, *tile], picture=picture[self.pixels(tile)], rdoq=rdoq)
            tiles.append(codec.encode(given, level, context, reference))
        return Coded(key, level, tiles)

    def keep(self, coded: Coded) -> None:
        """Let the next frames follow this one."""
        if self.inter:
            self.remember(coded.tiles, coded.key)
            self.rebuild([tile.reconstruction for tile in coded.tiles], coded.level, coded.key)

    def symbols(self, payloads: list[bytes], level: int, key: bool) -> list[TileSymbols]:
        """The integers of a frame, tile by tile.

        Raises:
            Corrupt: a payload contradicts itself.
        """
        codec, contexts = self.model(key).codec, [None] * len(self.tiles) if key else self.contexts
        symbols = [
            codec.decode(payload, tile_shape(codec.channels, tile), level, context)
            for payload, tile, context in zip(payloads, self.tiles, contexts, strict=True)
        ]
        if self.inter:
            self.remember(symbols, key)
        return symbols

    def show(self, symbols: list[TileSymbols], level: int, key: bool) -> np.ndarray:
        """The samples (H, W, 3) uint8 of a frame of such integers; the frame before must have been shown."""
        codec, references = self.model(key).codec, [None] * len(self.tiles) if key else self.references
        return self.rebuild(list(map(codec.reconstruct, symbols, references)), level, key)

    def remember(self, tiles: Sequence[CodedTile | TileSymbols], key: bool) -> None:
        """Note symbols and motion of the tiles of a frame."""
        if key:
            fields = [np.zeros((*tile.y.shape[1:], 2), np.int32) for tile in tiles]
            before = [np.zeros_like(tile.y[None]) for tile in tiles]
        else:
            fields = [tile.motion for tile in tiles]
            before = [context.prev_symbols[0] for context in self.contexts]
        self.contexts = [
            TileContext((tile.y[None], last), field) for tile, last, field in zip(tiles, before, fields, strict=True)
        ]

    def rebuild(self, tiles: Sequence[Reconstruction], level: int, key: bool) -> np.ndarray:
        """The samples (H, W, 3) uint8 of the tiles of a frame; the next frame may see them."""
        carry_overs = [tile.carry_over for tile in tiles]
        if not all(carry_overs):
            samples = self.synthesise([tile.y_hat for tile in tiles], level, key)
        else:
            samples = self.synthesise_inter(tiles, level)
        if self.inter:
            picture = self.padded(samples)
            self.references = [
                RefFrame(part, picture[self.pixels(tile)]) for part, tile in zip(tiles, self.tiles, strict=True)
            ]
        return samples

    def synthesise_inter(self, tiles: Sequence[Reconstruction], level: int) -> np.ndarray:
        """The samples (H, W, 3) uint8 of a frame that takes over something from its reference."""
        height, width = self.size
        moved, skip = np.empty((self.stride * height, self.stride * width, 3), np.uint8), np.empty(self.size, bool)
        for tile, part in zip(self.tiles, tiles, strict=True):
            moved[self.pixels(tile)], skip[tile] = part.carry_over.moved, part.carry_over.skip
        if skip.all():
            return moved[: self.head.height, : self.head.width]
        if kernels():
            return self.show_inter(tiles, level, moved, ~skip)
        whole = [tile.latents(np.ones_like(tile.carry_over.skip)) for tile in tiles]
        carried = self.synthesise([tile.carry_over.predicted.latents for tile in tiles], level, False)
        context = np.zeros((self.inter.planes, *(self.stride * n for n in self.size)), np.float32)
        for place, tile in zip(map(self.pixels, self.tiles), tiles, strict=True):
            carried[place] = tile.carry_over.carried(carried[place])
            target = context[:, *place][:, : carried[place].shape[0], : carried[place].shape[1]]
            target[:] = tile.carry_over.context(carried[place])
        carried += self.synthesise(whole, level, False, context)
        return np.rint(carried).clip(0, 255).astype(np.uint8)

    def show_inter(
        self, tiles: Sequence[Reconstruction], level: int, moved: np.ndarray, coded: np.ndarray
    ) -> np.ndarray:
        """As `synthesise_inter`, of a moved picture (16h, 16w, 3) and where something is coded (h, w); by kernels."""
        near, channels = widened(coded, REACH), self.inter.codec.y_hat_channels
        y_hat, predicted = (np.empty((*self.size, channels), np.float32) for _ in range(2))
        for tile, part in zip(self.tiles, tiles, strict=True):
            here, around = coded[tile], near[tile]
            y_hat[tile][here] = part.y_hat[:, here].T
            predicted[tile][around] = part.carry_over.predicted.at(around)[:, around].T
        samples = np.empty_like(moved)
        for inner, outer, core in window_slices(*self.size, REACH, WINDOW, WINDOW):
            parts = (y_hat[outer], predicted[outer], coded[outer], moved[self.pixels(outer)])
            latents, expected, here, picture = map(np.ascontiguousarray, parts)
            top, left = (s.start for s in self.pixels(outer))
            size = self.head.height - top, self.head.width - left
            shown = self.inter.show(latents, expected, level, here, picture, size)
            samples[self.pixels(inner)] = shown[self.pixels(core)]
        return samples[: self.head.height, : self.head.width]

    def synthesise(
        self, parts: Sequence[np.ndarray], level: int, key: bool, context: np.ndarray | None = None
    ) -> np.ndarray:
        """The samples (H, W, 3) that latents of the tiles, each (C, h, w), show: of key frames uint8, of others
        float32, with a context (planes, 16h, 16w).
        """
        model = self.model(key)
        y_hat = np.empty((model.codec.y_hat_channels, *self.size), np.float32)
        for tile, part in zip(self.tiles, parts, strict=True):
            y_hat[:, *tile] = part
        samples = np.empty((self.head.height, self.head.width, 3), np.uint8 if key else np.float32)
        with thread_pool(model) as pool:
            for target, rgb in synthesise_windows(model, y_hat, level, samples, pool, context=context):
                target[:] = rgb
        return samples

    def padded(self, samples: np.ndarray) -> np.ndarray:
        """Samples continued to whole latents as they are at the edge."""
        missing = [self.stride * n - side for n, side in zip(self.size, samples.shape, strict=False)]
        return np.pad(samples, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def share_threads(width: int, height: int, jobs: int, chained: bool) -> tuple[int, int]:
    """(frames to work on at a time, threads of each), for so many jobs, 0 for all cores.

    Args:
        chained: frames follow others, so that most of the work on them is done in turn.
    """
    jobs = jobs or os.cpu_count() or 1
    frames = max(1, min(jobs, 2 if chained else jobs, IN_FLIGHT // (width * height)))
    return frames, jobs if chained else max(1, jobs // frames)
