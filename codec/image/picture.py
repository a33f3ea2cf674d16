"""Still pictures: samples -> windows -> latents -> tiles -> file, and back.

Analysis and synthesis run window by window with a halo as wide as their reach, so the result equals that of the whole
picture and memory stays bounded. Entropy tiles are independent of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from importlib import import_module

import numpy as np

from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import Chunk, read_varint, write_file, write_varint
from pixa.bitstream.deflate import deflate, inflate, write_metadata
from pixa.bitstream.headers import Head
from pixa.coding.tile import TileCodec, TileInput
from pixa.errors import Corrupt, UnsupportedInput, UsageError
from pixa.image.conceal import fill
from pixa.image.windows import Window, pixel_slices, window_slices
from pixa.models.registry import find_model
from pixa.pixels import Picture
from pixa.runtime.model import OnnxModel, load_model

WINDOW = 128  # latent positions a side, at most
THIN = 8  # halos that a window of a thread of its own is to be wide
SEARCH = "pixa.models.training.anneal"  # not imported with the others: it loads torch
SEARCH_STEPS = {7: 60, 8: 120, 9: 320}  # by effort
SPARSE_LEVEL = 40  # up to this one so few symbols are coded that trading each for bits takes no time

Progress = Callable[[int, int], None]


def encode_picture(
    picture: Picture,
    quality: float = 60.0,
    *,
    model: str = "fast",
    tune: str | None = None,
    effort: int = 0,
    jobs: int = 0,
    progress: Progress | None = None,
) -> bytes:
    """Compress a picture to the bytes of a file.

    Args:
        quality: 0 smallest to 100 best, in steps of one half.
        model: `name` or `name.tag`.
        tune: "eye" or "psnr", what the model was trained for; None for the newest.
        effort: 0 rounds the latents above quality 20, 1 to 6 quantise all rate-distortion optimally, 7 to 9 search them
            with torch for longer and longer.
        jobs: threads, 0 for all cores.
        progress: called with (windows or search steps done, how many in all).

    Raises:
        UsageError: quality or effort out of range, a tune that the model does not have, or a search without torch.
        ModelMissing: the model is not installed.
    """
    return ImageEncoder(picture, model, jobs, progress, tune).encode(level_of(quality), effort)[0]


def level_of(quality: float) -> int:
    """The quality level (0..200) of a quality (0..100).

    Raises:
        UsageError: outside that range.
    """
    if not 0 <= quality <= 100:
        raise UsageError(f"quality {quality} is outside 0 to 100")
    return round(2 * quality)


def decode_samples(
    head: Head,
    tiles: Sequence[bytes],
    nets: OnnxModel,
    progress: Progress | None = None,
    lost: list[int] | None = None,
) -> np.ndarray:
    """Colour samples (H, W, 1 or 3) uint8 of an image's tiles.

    Args:
        lost: takes the numbers of tiles that contradict themselves, whose latents are then guessed.

    Raises:
        Corrupt: a tile contradicts itself and `lost` is None, or no tile is left.
    """
    with thread_pool(nets) as pool:
        y_hat = decode_latents(head, tiles, nets, pool, lost)
        samples = np.empty((head.height, head.width, 3 if head.colour else 1), np.uint8)
        for target, rgb in synthesise_windows(nets, y_hat, head.level, samples, pool, progress):
            target[:] = rgb
    return samples


def thread_pool(nets: OnnxModel) -> ThreadPoolExecutor:
    """Threads beside the one that asks for them."""
    return ThreadPoolExecutor(max(1, nets.cores - 1))


def decode_latents(
    head: Head,
    tiles: Sequence[bytes],
    nets: OnnxModel,
    pool: ThreadPoolExecutor,
    lost: list[int] | None = None,
    channels: int | None = None,
) -> np.ndarray:
    """Latents y_hat (C, h, w) of an image's tiles, or the first channels of them.

    `pool` is that of `thread_pool`, `lost` and errors are those of `decode_samples`.
    """
    codec = nets.codec
    size = latent_size(head.width, head.height, codec)
    y_hat = np.zeros((channels or codec.y_hat_channels, *size), np.float32)
    known = np.zeros(y_hat.shape[1:], bool)
    ahead = pool if nets.cores > 1 else None
    for number, (tile, place) in enumerate(zip(tiles, tile_slices(head, codec), strict=True)):
        try:
            symbols = codec.decode(tile, tile_shape(channels or codec.channels, place), head.level, pool=ahead)
        except Corrupt:
            if lost is None:
                raise
            lost.append(number)
        else:
            part, known[place] = codec.reconstruct(symbols).y_hat, True
            if part.shape == y_hat.shape:
                y_hat = part
            else:
                y_hat[:, *place] = part
    if not known.any():
        raise Corrupt("no tile of the picture is left")
    return y_hat if known.all() else fill(y_hat, known)


def synthesise_windows(
    nets: OnnxModel,
    y_hat: np.ndarray,
    level: int,
    samples: np.ndarray,
    pool: ThreadPoolExecutor,
    progress: Progress | None = None,
    context: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The windows of samples (H, W, 1 or 3), each with what latents y_hat (C, h, w) show there, of the same shape; a
    context (planes, 16h, 16w) for models that know of such.
    """
    windows, at_a_time = shared_windows(nets, *y_hat.shape[1:])
    stride = nets.codec.stride

    def show(window: Window) -> np.ndarray:
        _, outer, core = window
        part = np.ascontiguousarray(y_hat[:, *outer])
        seen = {} if context is None else {"context": np.ascontiguousarray(context[:, *pixel_slices(outer, stride)])}
        return nets.synthesis(part, level, single_thread=at_a_time > 1, **seen)[pixel_slices(core, stride)]

    others = []
    for done, window in enumerate(windows):
        if done % at_a_time:
            rgb = others.pop(0).result()
        else:
            others = [pool.submit(show, other) for other in windows[done + 1 : done + at_a_time]]
            rgb = show(window)
        target = samples[pixel_slices(window.inner, stride)]
        rgb = rgb[: target.shape[0], : target.shape[1]]
        yield target, rgb if samples.shape[2] == 3 else np.rint(rgb.mean(2, dtype=np.float32, keepdims=True))
        if progress:
            progress(done + 1, len(windows))


def analyse_windows(nets: OnnxModel, colour: np.ndarray, progress: Progress | None = None) -> np.ndarray:
    """Latents y (C, h, w) of samples (H, W, 3) uint8, window by window."""
    height, width = latent_size(colour.shape[1], colour.shape[0], nets.codec)
    y, stride = np.empty((nets.channels, height, width), np.float32), nets.codec.stride
    windows = list(window_slices(height, width, nets.entry.analysis_halo, WINDOW, WINDOW))
    for done, (inner, outer, core) in enumerate(windows):
        pixels = colour[pixel_slices(outer, stride)]
        missing = [(0, (s.stop - s.start) * stride - n) for s, n in zip(outer, pixels.shape, strict=False)]
        y[:, *inner] = nets.analysis(np.pad(pixels, (*missing, (0, 0)), mode="edge"))[:, *core]
        if progress:
            progress(done + 1, len(windows))
    return y


class ImageEncoder:
    """A picture after analysis: what every quality level shares, so that a search repeats only the cheap part."""

    def __init__(
        self,
        picture: Picture,
        model: str = "fast",
        jobs: int = 0,
        progress: Progress | None = None,
        tune: str | None = None,
    ):
        entry = find_model(model, tune)
        if "lossless" in entry.can:
            raise UsageError("pictures are coded without loss by lossless=True or --lossless, which take no model")
        if "pictures" not in entry.can:
            raise UsageError(f"{entry.name} codes what changes between the frames of a video, not pictures")
        if picture.samples.dtype != np.uint8:
            raise UnsupportedInput("the picture has 16 bits a sample: code it without loss, or convert it to 8 first")
        self.picture, self.jobs, self.progress = picture, jobs, progress
        self.nets = load_model(entry, jobs)
        self.colour = picture.colour if picture.colour.shape[2] == 3 else np.repeat(picture.colour, 3, 2)
        self.y = analyse_windows(self.nets, self.colour, progress)

    def without(self, blocks: np.ndarray, side: int) -> ImageEncoder:
        """An encoder of the same picture whose latents go on smoothly in blocks (rows, columns) of `side` pixels."""
        size, covered = side // self.nets.codec.stride, np.zeros(self.y.shape[1:], bool)
        latents = blocks.repeat(size, 0).repeat(size, 1)[: covered.shape[0], : covered.shape[1]]
        covered[: latents.shape[0], : latents.shape[1]] = latents
        other = copy(self)
        other.y = fill(self.y, ~covered)
        return other

    def encode(self, level: int, effort: int = 0) -> tuple[bytes, np.ndarray]:
        """The file at a quality level, and the latents y_hat (C, h, w) its decoder will see. Tokens are the same at
        every effort.

        Raises:
            UsageError: effort out of range, or a search without torch.
        """
        if effort not in range(10):
            raise UsageError(f"effort {effort} is outside 0 to 9")
        codec, entry = self.nets.codec, self.nets.entry
        head = Head(
            width=self.picture.width,
            height=self.picture.height,
            colour=int(self.picture.colour.shape[2] == 3),
            alpha=int(self.picture.alpha is not None),
            level=level,
            model=entry.wire_id,
            model_hash=int(entry.hash, 16),
            tile_log2=codec.tile_log2(level),
        )
        chunks = [Chunk(ChunkType.HEAD, head.write())]
        chunks += [
            Chunk(ChunkType[name.upper()], write_metadata(value)) for name, value in self.picture.metadata.items()
        ]
        if self.picture.alpha is not None:
            chunks.append(Chunk(ChunkType.ALPHA, encode_alpha(self.picture.alpha)))
        y_hat = np.zeros((codec.y_hat_channels, *self.y.shape[1:]), np.float32)
        y_hat[: len(self.y)] = self.y
        rdoq = effort < min(SEARCH_STEPS) and (effort > 0 or level <= SPARSE_LEVEL)
        search = "search" in entry.can and effort in SEARCH_STEPS
        for tile in tile_slices(head, codec):
            y, z = self.searched(y_hat, tile, level, effort) if search else (self.y[:, *tile], None)
            coded = codec.encode(TileInput(y, z, rdoq=rdoq), level)
            y_hat[:, *tile] = coded.reconstruction.y_hat
            chunks.append(Chunk(ChunkType.TILE, coded.payload))
        return write_file(chunks), y_hat

    def searched(
        self, y_hat: np.ndarray, tile: tuple[slice, slice], level: int, effort: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Better latents and hyper-latents of a tile, with those around it as they stand in y_hat.

        Raises:
            UsageError: torch is not installed.
        """
        try:
            anneal = import_module(SEARCH).anneal
        except ImportError as error:
            raise UsageError(f"effort {effort} needs: pip install 'pixa[train]' ({error})") from error
        halo = self.nets.entry.synthesis_halo
        outer = tuple(slice(max(s.start - halo, 0), s.stop + halo) for s in tile)
        inner = tuple(slice(s.start - o.start, s.stop - o.start) for s, o in zip(tile, outer, strict=True))
        pixels, latents = self.colour[pixel_slices(outer)], np.ascontiguousarray(y_hat[:, *outer])
        steps, entry = SEARCH_STEPS[effort], self.nets.entry
        return anneal(entry.folder, pixels, latents, inner, level, steps, self.jobs, self.progress, tune=entry.tune)


def latent_size(width: int, height: int, codec: TileCodec) -> tuple[int, int]:
    """Rows and columns of the latents of a picture."""
    unit = codec.stride * codec.align
    return -(-height // unit) * codec.align, -(-width // unit) * codec.align


def tile_shape(channels: int, place: tuple[slice, slice]) -> tuple[int, int, int]:
    """(C, h, w) of a tile."""
    rows, columns = place
    return channels, rows.stop - rows.start, columns.stop - columns.start


def tile_slices(head: Head, codec: TileCodec) -> Iterator[tuple[slice, slice]]:
    """Latent rows and columns of every entropy tile, row by row."""
    side = (1 << head.tile_log2) // codec.stride
    height, width = latent_size(head.width, head.height, codec)
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


def shared_windows(nets: OnnxModel, height: int, width: int) -> tuple[list[Window], int]:
    """Windows of nearly equal size for a synthesis, and how many of them to work on at a time, a thread each.

    Threads that work on one window hand each other what they compute, and where their cores have no cache in common
    that takes half as long again. Only where windows would be small next to their halo all work on one.
    """
    at_a_time, halo, unit = nets.cores, nets.entry.synthesis_halo, nets.codec.align
    cuts, longer = [-(-size // WINDOW) for size in (height, width)], int(width > height)
    if (height, width)[longer] < THIN * halo * at_a_time * cuts[longer]:
        at_a_time = 1
    cuts[longer] *= at_a_time
    sides = (unit * -(-size // (unit * n)) for size, n in zip((height, width), cuts, strict=True))
    return list(window_slices(height, width, halo, *sides)), at_a_time


def encode_alpha(alpha: np.ndarray) -> bytes:
    """An alpha plane (H, W) uint8, lossless: each row minus the one above, modulo 256, then deflated."""
    above = np.vstack([np.zeros_like(alpha[:1]), alpha[:-1]])
    stream = deflate((alpha - above).tobytes())
    return write_varint(len(stream)) + stream


def decode_alpha(payload: bytes, height: int, width: int) -> np.ndarray:
    """The alpha plane (height, width) of a payload; takes no more memory than its size.

    Raises:
        Corrupt: it does not hold exactly that many samples.
    """
    length, start = read_varint(payload, 0)
    if start + length != len(payload):
        raise Corrupt("the alpha plane is not as long as it says")
    rows = np.frombuffer(inflate(payload[start:], height * width), np.uint8).reshape(height, width)
    return np.add.accumulate(rows, axis=0, dtype=np.uint8)
