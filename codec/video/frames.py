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
from pixa.coding.inter import Bypass
from pixa.coding.latents import Memory, TileSymbols
from pixa.image.picture import analysed, helpers, latent_size, pixel_slices, synthesised, tile_slices
from pixa.runtime.model import OnnxModel

IN_FLIGHT = 1 << 23  # pixels of the frames that are worked on at a time, unless a single one has more


class Coded(NamedTuple):
    """A frame as an encoder has coded it: what `encode_tile` returns of every tile."""

    key: bool
    level: int
    tiles: list[tuple[bytes, np.ndarray, np.ndarray, Bypass | None, np.ndarray | None]]

    @property
    def payloads(self) -> list[bytes]:
        return [tile[0] for tile in self.tiles]

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
        past: symbols of the last frames, tile by tile, as `pixa.coding.inter` says.
        shown: latents and samples of the last frame that was shown, likewise.
    """

    def __init__(self, head: Head, key: OnnxModel, inter: OnnxModel | None = None):
        self.head, self.key, self.inter = head, key, inter
        self.tiles = list(tile_slices(head, key.coder))
        self.past: list[Memory] = []
        self.shown: list[Memory] = []

    def nets(self, key: bool) -> OnnxModel:
        return self.key if key else self.inter

    def analyse(self, samples: np.ndarray, key: bool) -> np.ndarray:
        """Samples (H, W, 3) uint8 -> latents (M, h, w)."""
        return analysed(self.nets(key), samples)

    def code(self, samples: np.ndarray, y: np.ndarray, level: int, key: bool, trade: bool = False) -> Coded:
        """Code a frame of samples (H, W, 3) and latents y (M, h, w).

        Args:
            trade: quantise rate-distortion optimally instead of rounding.
        """
        nets = self.nets(key)
        told = [{}] * len(self.tiles)
        if not key:
            picture = self.padded(samples)
            parts = zip(self.past, self.shown, self.tiles, strict=True)
            told = [{"past": past | shown | {"picture": picture[pixel_slices(tile)]}} for past, shown, tile in parts]
        tiles = [
            nets.coder.encode_tile(y[:, *tile], level, nets, trade, **seen)
            for tile, seen in zip(self.tiles, told, strict=True)
        ]
        return Coded(key, level, tiles)

    def keep(self, coded: Coded) -> None:
        """Let the next frames follow this one."""
        if self.inter:
            _, y_hat, symbols, bypasses, fields = zip(*coded.tiles, strict=True)
            self.remember([y[None] for y in symbols], fields, coded.key)
            self.rebuild(y_hat, bypasses, coded.level, coded.key)

    def symbols(self, payloads: list[bytes], level: int, key: bool) -> list[TileSymbols]:
        """The integers of a frame, tile by tile.

        Raises:
            Corrupt: a payload contradicts itself.
        """
        nets = self.nets(key)
        told = [{}] * len(self.tiles) if key else [{"past": dict(past)} for past in self.past]
        symbols = [
            nets.coder.TileSymbols(payload, nets.channels, *(s.stop - s.start for s in tile), level, nets, **seen)
            for payload, tile, seen in zip(payloads, self.tiles, told, strict=True)
        ]
        if self.inter:
            self.remember([tile.y for tile in symbols], [tile.motion for tile in symbols], key)
        return symbols

    def show(self, symbols: list[TileSymbols], level: int, key: bool) -> np.ndarray:
        """The samples (H, W, 3) uint8 of a frame of such integers; the frame before must have been shown."""
        if not key:
            for tile, shown in zip(symbols, self.shown, strict=True):
                tile.past |= shown
        y_hat = [tile.reconstruct(self.nets(key)) for tile in symbols]
        return self.rebuild(y_hat, [tile.bypass for tile in symbols], level, key)

    def remember(self, symbols: list[np.ndarray], fields: Sequence[np.ndarray | None], key: bool) -> None:
        """Note the symbols of the tiles, each (1, M, h, w), and their motion, which key frames have none of."""
        if key:
            before = [np.zeros_like(y) for y in symbols]
            fields = [np.zeros((*y.shape[2:], 2), np.int32) for y in symbols]
        else:
            before = [memory["past_1"] for memory in self.past]
        self.past = [
            {"past_1": y, "past_2": last, "past_field": field}
            for y, last, field in zip(symbols, before, fields, strict=True)
        ]

    def rebuild(
        self, parts: Sequence[np.ndarray], bypasses: Sequence[Bypass | None], level: int, key: bool
    ) -> np.ndarray:
        """The samples (H, W, 3) uint8 of latents of the tiles, each (C, h, w), and of what these take over from the
        past; the next frame may see them.
        """
        if not all(bypasses):
            samples = self.synthesise(parts, level, key)
        elif all(bypass.skip.all() for bypass in bypasses):
            samples = np.empty((self.head.height, self.head.width, 3), np.uint8)
            for tile, bypass in zip(self.tiles, bypasses, strict=True):
                target = samples[pixel_slices(tile)]
                target[:] = bypass.moved[: target.shape[0], : target.shape[1]]
        else:
            samples = self.follow(parts, bypasses, level)
        if self.inter:
            picture = self.padded(samples)
            self.shown = [
                {"past_hat_1": part[None], "past_picture": picture[pixel_slices(tile)]}
                for part, tile in zip(parts, self.tiles, strict=True)
            ]
        return samples

    def follow(self, parts: Sequence[np.ndarray], bypasses: Sequence[Bypass], level: int) -> np.ndarray:
        """The samples (H, W, 3) uint8 of a frame that takes over something from the past."""
        kind = np.float32 if self.inter.planes else np.uint8
        taken = self.synthesise([bypass.predicted for bypass in bypasses], level, False, kind).astype(np.float32)
        stride, (height, width) = self.key.coder.STRIDE, latent_size(self.head.width, self.head.height, self.key.coder)
        context = np.zeros((self.inter.planes, stride * height, stride * width), np.float32)
        for tile, bypass in zip(self.tiles, bypasses, strict=True):
            place = pixel_slices(tile)
            taken[place] = bypass.taken(taken[place])
            if self.inter.planes:
                target = context[:, *place][:, : taken[place].shape[0], : taken[place].shape[1]]
                target[:] = bypass.context(taken[place])
        taken += self.synthesise(parts, level, False, kind, context)
        return np.rint(taken).clip(0, 255).astype(np.uint8)

    def synthesise(
        self,
        parts: Sequence[np.ndarray],
        level: int,
        key: bool,
        kind: type = np.uint8,
        context: np.ndarray | None = None,
    ) -> np.ndarray:
        """The samples (H, W, 3) that latents of the tiles, each (C, h, w), show; float32 and with a context (planes,
        16h, 16w) of models that know of such.
        """
        nets, size = self.nets(key), latent_size(self.head.width, self.head.height, self.key.coder)
        y_hat = np.empty((nets.rebuilt_channels, *size), np.float32)
        for tile, part in zip(self.tiles, parts, strict=True):
            y_hat[:, *tile] = part
        samples = np.empty((self.head.height, self.head.width, 3), kind)
        with helpers(nets) as pool:
            for target, rgb in synthesised(nets, y_hat, level, samples, pool, context=context):
                target[:] = rgb
        return samples

    def padded(self, samples: np.ndarray) -> np.ndarray:
        """Samples continued to whole latents as they are at the edge."""
        stride = self.key.coder.STRIDE
        height, width = latent_size(self.head.width, self.head.height, self.key.coder)
        missing = (stride * height - samples.shape[0], stride * width - samples.shape[1])
        return np.pad(samples, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def share_threads(width: int, height: int, jobs: int, chained: bool) -> tuple[int, int]:
    """(frames to work on at a time, threads of each), for so many jobs, 0 for all cores.

    Args:
        chained: frames follow others, so that most of the work on them is done in turn.
    """
    jobs = jobs or os.cpu_count() or 1
    frames = max(1, min(jobs, 2 if chained else jobs, IN_FLIGHT // (width * height)))
    return frames, jobs if chained else max(1, jobs // frames)
