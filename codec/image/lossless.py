"""Lossless pictures: samples -> tiles -> file, and back. No network runs but the small exact one of each tile."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import Chunk, write_file
from pixa.bitstream.deflate import write_metadata
from pixa.bitstream.headers import Head
from pixa.coding.lossless.photographs import Model
from pixa.coding.lossless.tile import decode_tile, encode_tile
from pixa.errors import Corrupt, UsageError
from pixa.image.picture import Progress
from pixa.models.registry import ModelEntry, find_model
from pixa.pixels import Picture
from pixa.runtime.model import check_files

TILE_LOG2 = 10
LEVEL = 200  # what HEAD says of the quality
DEEP = 3  # and of the depth, where samples have 16 bits


@cache
def load(entry: ModelEntry) -> Model:
    """The trained part of a model of lossless tiles.

    Raises:
        ModelMissing: a file is missing or altered.
    """
    check_files(entry)
    with np.load(entry.folder / entry.decoder[0], allow_pickle=False) as arrays:
        return Model(dict(arrays))


def encode_lossless(picture: Picture, *, near: int = 0, jobs: int = 0, progress: Progress | None = None) -> bytes:
    """Compress a picture of 8 or 16 bits a sample to the bytes of a file that gives every sample back.

    Args:
        near: by how much a sample may differ, at most; 0 for not at all.
        jobs: threads, 0 for all cores; each works on a tile.
        progress: called with (tiles done, how many in all).

    Raises:
        UsageError: near is not 0 to a quarter of the samples' range.
        ModelMissing: the model is not installed.
    """
    if not 0 <= near <= np.iinfo(picture.samples.dtype).max // 4:
        raise UsageError(f"samples cannot differ by up to {near}: give 0 to {np.iinfo(picture.samples.dtype).max // 4}")
    entry, step = find_model("lossless"), 2 * near + 1
    head = Head(
        width=picture.width,
        height=picture.height,
        colour=int(picture.colour.shape[2] == 3),
        alpha=int(picture.alpha is not None),
        depth=DEEP * int(picture.samples.dtype == np.uint16),
        level=LEVEL,
        model=entry.wire_id,
        model_hash=int(entry.hash, 16),
        tile_log2=TILE_LOG2,
    )
    chunks = [Chunk(ChunkType.HEAD, head.write())]
    chunks += [Chunk(ChunkType[name.upper()], write_metadata(value)) for name, value in picture.metadata.items()]
    places, model = list(tile_places(head)), load(entry)
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        for done, payload in enumerate(
            pool.map(lambda place: encode_tile(picture.samples[place], model, step), places)
        ):
            chunks.append(Chunk(ChunkType.TILE, payload))
            if progress:
                progress(done + 1, len(places))
    return write_file(chunks)


def decode_lossless(
    head: Head,
    tiles: Sequence[bytes],
    entry: ModelEntry,
    jobs: int = 0,
    progress: Progress | None = None,
    lost: list[int] | None = None,
) -> np.ndarray:
    """Samples (H, W, C) uint8, or uint16 where HEAD says so, alpha included.

    Args:
        lost: takes the numbers of tiles that contradict themselves, which then show the mean of the others.

    Raises:
        Corrupt: a tile contradicts itself and `lost` is None, or no tile is left.
        ModelMissing: as `load`.
    """
    model, dtype = load(entry), np.uint16 if head.depth else np.uint8
    samples = np.zeros((head.height, head.width, 1 + 2 * head.colour + head.alpha), dtype)
    missing, sums = [], []

    def show(tile: bytes, place: tuple[slice, slice]) -> bool:
        target = samples[place]
        try:
            target[:] = decode_tile(tile, target.shape, dtype, model)
        except Corrupt:
            if lost is None:
                raise
            return False
        return True

    places = list(tile_places(head))
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        for number, (place, whole) in enumerate(zip(places, pool.map(show, tiles, places), strict=True)):
            if whole:
                sums.append(samples[place].mean((0, 1)))
            else:
                lost.append(number)
                missing.append(place)
            if progress:
                progress(number + 1, len(places))
    if not sums:
        raise Corrupt("no tile of the picture is left")
    for place in missing:
        samples[place] = np.rint(np.mean(sums, 0))
    return samples


def tile_places(head: Head) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of every tile, row by row."""
    side = 1 << head.tile_log2
    for top in range(0, head.height, side):
        for left in range(0, head.width, side):
            yield slice(top, min(top + side, head.height)), slice(left, min(left + side, head.width))
