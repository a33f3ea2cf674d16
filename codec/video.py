"""Frames of a video to payloads and back: key frames by an image model, the others by one that sees the past.

A group of pictures (GOP) is a key frame and the frames up to the next; it is closed, so GOPs decode independently. What
later frames see of earlier ones to choose tables are symbols, so that no symbol ever depends on rounding.
"""

from __future__ import annotations

import os

import numpy as np

from pixa.backends import OnnxModel
from pixa.bitstream.headers import Head
from pixa.image import Analysed, latent_size, pixel_slices, synthesised, tile_slices
from pixa.latents import Memory, TileSymbols
from pixa.pixels import Picture

IN_FLIGHT = 1 << 23  # pixels of the frames that are worked on at a time, unless a single one has more


class FrameCoder:
    """The frames of one video, in order; every frame of a GOP must pass once.

    Without an inter model every frame is a key frame, and all methods can run in several threads. `analyse` always can.

    Args:
        head: size and tiles of the frames.
        key: the image model; its transforms serve all frames.
        inter: the model of the frames that are no key frames, if there are such.
        jobs: threads of a frame.

    Attributes:
        past: what is known of the last frames, tile by tile, as `pixa.inter` says.
        shown: the last frame, (H, W, 3) uint8.
    """

    def __init__(self, head: Head, key: OnnxModel, inter: OnnxModel | None = None, jobs: int = 0):
        self.head, self.key, self.inter, self.jobs = head, key, inter, jobs
        self.tiles = list(tile_slices(head, key.coder))
        self.past: list[Memory] = []
        self.shown: np.ndarray | None = None

    def analyse(self, samples: np.ndarray) -> np.ndarray:
        """Samples (H, W, 3) uint8 -> latents (M, h, w)."""
        entry = self.key.entry
        return Analysed(Picture(samples), f"{entry.name}.{entry.tag}", self.jobs).y

    def encode(self, samples: np.ndarray, y: np.ndarray, level: int, key: bool, trade: bool = False) -> list[bytes]:
        """The payloads of the tiles of a frame, given its samples (H, W, 3) and its latents y (M, h, w).

        Args:
            trade: quantise rate-distortion optimally instead of rounding.
        """
        nets = self.key if key else self.inter
        coded = [
            nets.coder.encode_tile(y[:, *tile], level, nets, trade, **seen)
            for tile, seen in zip(self.tiles, self.seen(key, samples), strict=True)
        ]
        payloads = [payload for payload, _ in coded]
        if self.inter:
            self.symbols(payloads, level, key)
            self.show([y_hat for _, y_hat in coded], level)
        return payloads

    def decode(self, payloads: list[bytes], level: int, key: bool) -> np.ndarray:
        """The samples (H, W, 3) uint8 of a frame.

        Raises:
            Corrupt: a payload contradicts itself.
        """
        nets = self.key if key else self.inter
        return self.show([tile.reconstruct(nets) for tile in self.symbols(payloads, level, key)], level)

    def symbols(self, payloads: list[bytes], level: int, key: bool) -> list[TileSymbols]:
        """The integers of a frame, tile by tile.

        Raises:
            Corrupt: a payload contradicts itself.
        """
        nets = self.key if key else self.inter
        symbols = [
            nets.coder.TileSymbols(payload, nets.channels, *(s.stop - s.start for s in tile), level, nets, **seen)
            for payload, tile, seen in zip(payloads, self.tiles, self.seen(key), strict=True)
        ]
        if self.inter:
            before = [np.zeros_like(tile.y) for tile in symbols] if key else [memory["past_1"] for memory in self.past]
            self.past = [{"past_1": tile.y, "past_2": last} for tile, last in zip(symbols, before, strict=True)]
        return symbols

    def show(self, parts: list[np.ndarray], level: int) -> np.ndarray:
        """The samples (H, W, 3) uint8 that latents of the tiles, each (C, h, w), give; the next frame may see them."""
        size = latent_size(self.head.width, self.head.height, self.key.coder)
        y_hat = np.empty((self.key.rebuilt_channels, *size), np.float32)
        for tile, part in zip(self.tiles, parts, strict=True):
            y_hat[:, *tile] = part
        samples = np.empty((self.head.height, self.head.width, 3), np.uint8)
        for target, rgb in synthesised(self.key, y_hat, level, samples):
            target[:] = rgb
        if self.inter:
            self.shown = samples
            for memory, part in zip(self.past, parts, strict=True):
                memory["past_hat_1"] = part[None]
        return samples

    def seen(self, key: bool, samples: np.ndarray | None = None) -> list[dict[str, Memory]]:
        """What each tile of the next frame is told: nothing of a key frame, else the past and, to encode, itself."""
        if key:
            return [{}] * len(self.tiles)
        pictures = {"past_picture": self.shown, "picture": samples}
        padded = {name: self.padded(picture) for name, picture in pictures.items() if picture is not None}
        return [
            {"past": memory | {name: picture[pixel_slices(tile)] for name, picture in padded.items()}}
            for memory, tile in zip(self.past, self.tiles, strict=True)
        ]

    def padded(self, samples: np.ndarray) -> np.ndarray:
        """Samples continued to whole latents as they are at the edge."""
        stride = self.key.coder.STRIDE
        height, width = latent_size(self.head.width, self.head.height, self.key.coder)
        missing = (stride * height - samples.shape[0], stride * width - samples.shape[1])
        return np.pad(samples, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def share_threads(width: int, height: int, jobs: int) -> tuple[int, int]:
    """(frames to work on at a time, threads of each), for so many jobs, 0 for all cores."""
    jobs = jobs or os.cpu_count() or 1
    frames = max(1, min(jobs, IN_FLIGHT // (width * height)))
    return frames, max(1, jobs // frames)
