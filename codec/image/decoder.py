"""The decoder for embedding: parse and check first, load a model only for pixels. No Pillow, no torch."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING

from pixa.bitstream.chunks import METADATA, ChunkType, check_picture, chunk_name
from pixa.bitstream.container import VERSION, Chunk, read_file, salvage
from pixa.bitstream.deflate import read_metadata
from pixa.bitstream.headers import Head
from pixa.errors import Corrupt, LimitExceeded, UnsupportedInput, UnsupportedVersion, UsageError
from pixa.models.registry import ModelEntry, find_wire, list_models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixa.coding.tile import TileSymbols
    from pixa.image.patches import Patch
    from pixa.image.picture import Progress
    from pixa.pixels import Picture
    from pixa.runtime.model import OnnxModel

MAX_PIXELS = 1 << 28
REDUCTIONS = (1, 2, 4, 8)


class Decoder:
    """A parsed file.

    Args:
        data: the whole file.
        max_pixels: larger pictures are refused before memory is taken for them.
        jobs: threads, 0 for all cores.
        keep_going: take damaged and missing tiles for lost instead of refusing the file.

    Attributes:
        width, height: pixels.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        quality: 0 to 100.
        metadata: any of "icc", "exif", "xmp" -> bytes.
        lost: numbers of the tiles that `picture` had to guess, in ascending order.

    Raises:
        NotPixa, UnsupportedVersion, Corrupt, LimitExceeded: by name what is wrong with the data.
    """

    def __init__(self, data: bytes, *, max_pixels: int = MAX_PIXELS, jobs: int = 0, keep_going: bool = False):
        self.jobs, self.size, self.chunks = jobs, len(data), []
        self.keep_going, self.lost = keep_going, []
        for chunk in salvage(data) if keep_going else read_file(data):
            self.chunks.append(chunk)
            if len(self.chunks) == 1:
                self.head = self.read_head(chunk, max_pixels)
        if not self.chunks:
            raise Corrupt("the file ends before its header")
        if keep_going:
            self.chunks += [Chunk(ChunkType.TILE, b"")] * (self.tiles_announced - len(self.tiles))
        self.check_order()
        self.width, self.height, self.quality = self.head.width, self.head.height, self.head.level / 2
        self.channels = 1 + 2 * self.head.colour + self.head.alpha
        self.metadata = {METADATA[c.type]: read_metadata(c.payload) for c in self.chunks if c.type in METADATA}

    @staticmethod
    def read_head(chunk: Chunk, max_pixels: int) -> Head:
        if chunk.type != ChunkType.HEAD:
            raise Corrupt("the file does not begin with its header")
        head = Head.read(chunk.payload)
        if head.kind:
            raise UnsupportedInput("this is a video: open it with pixa.open_video")
        if head.width * head.height > max_pixels:
            raise LimitExceeded(f"{head.width}x{head.height} is over the limit of {max_pixels} pixels")
        if head.depth and not codes_samples(head):
            raise UnsupportedVersion("16 bits a sample are not known to this version but without loss")
        return head

    def check_order(self) -> None:
        """As `check_picture`; a tile that is missing at the end is told as a cut."""
        kinds, tiles = [chunk.type for chunk in self.chunks], self.tiles_announced
        if kinds.count(ChunkType.TILE) < tiles:
            raise Corrupt(f"the file is cut: {kinds.count(ChunkType.TILE)} of {tiles} tiles are there")
        alpha = 0 if self.lossless else self.head.alpha
        announced = {ChunkType.ALPHA: alpha, ChunkType.TILE: tiles} | ({ChunkType.PATCH: 0} if self.lossless else {})
        check_picture(kinds, announced)

    @property
    def lossless(self) -> bool:
        """Whether tiles hold every sample, alpha included."""
        return codes_samples(self.head)

    @property
    def entry(self) -> ModelEntry:
        """The model that the file names.

        Raises:
            ModelMissing: it is not installed.
        """
        return find_wire(self.head.model, self.head.model_hash)

    @property
    def model(self) -> str:
        """Name of the model, or its number where it is not installed."""
        from pixa.errors import ModelMissing

        try:
            entry = self.entry
        except ModelMissing:
            return f"#{self.head.model}"
        return f"{entry.name}.{entry.tag}"

    def info(self) -> dict:
        """What the headers say, ready for JSON; loads no model."""
        return {
            "format_version": VERSION,
            "width": self.width,
            "height": self.height,
            "channels": self.channels,
            "depth": 16 if self.head.depth else 8,
            "quality": self.quality,
            "lossless": self.lossless,
            "model": self.model,
            "model_hash": f"{self.head.model_hash:08x}",
            "bytes": self.size,
            "bpp": round(8 * self.size / (self.width * self.height), 4),
            "tiles": len(self.tiles),
            "chunks": [{"type": chunk_name(c.type), "bytes": len(c.payload)} for c in self.chunks],
            "metadata": {name: len(value) for name, value in self.metadata.items()},
        }

    @property
    def tiles_announced(self) -> int:
        """How many tiles a picture of this size has."""
        side = 1 << self.head.tile_log2
        return -(-self.head.width // side) * -(-self.head.height // side)

    @property
    def tiles(self) -> list[bytes]:
        return [chunk.payload for chunk in self.chunks if chunk.type == ChunkType.TILE]

    @cached_property
    def nets(self) -> OnnxModel:
        from pixa.runtime.model import load_model

        return load_model(self.entry, self.jobs)

    @cached_property
    def thumbnail(self) -> Decoder | None:
        """The file's picture at 1/8, which is a file itself; None where it carries none.

        Raises:
            PixaError: as `Decoder`; `Corrupt` also where size or channels are others than those of the picture.
        """
        payload = next((chunk.payload for chunk in self.chunks if chunk.type == ChunkType.THUMBNAIL), None)
        if payload is None:
            return None
        small = Decoder(payload, jobs=self.jobs)
        size = -(-self.width // 8), -(-self.height // 8)
        if (small.width, small.height, small.channels) != (*size, self.channels):
            raise Corrupt("the thumbnail is not one of this picture")
        return small

    def picture(self, progress: Progress | None = None, reduce: int = 1) -> Picture:
        """The picture. With `keep_going`, lost tiles show what their surroundings suggest.

        Args:
            reduce: 2, 4 or 8 for a picture at 1/2, 1/4 or 1/8, sides rounded up, which is faster; at 1/8 it is the
                thumbnail where the file carries one.

        Raises:
            ModelMissing: the model is not installed.
            Corrupt: a tile or the alpha plane contradicts itself, or no tile is left.
            UsageError: another reduction.
        """
        if reduce not in REDUCTIONS:
            raise UsageError(f"pictures are reduced by 1, 2, 4 or 8, not {reduce}")
        if reduce == 8 and self.thumbnail:
            picture = self.thumbnail.picture(progress)
            picture.metadata = self.metadata
            return picture
        import numpy as np

        from pixa.image.lossless import decode_lossless
        from pixa.image.picture import decode_alpha, decode_samples
        from pixa.image.reduced import average, decode_reduced
        from pixa.pixels import Picture

        alpha = [
            decode_alpha(chunk.payload, self.height, self.width)[:, :, None]
            for chunk in self.chunks
            if chunk.type == ChunkType.ALPHA
        ]
        self.lost = []
        lost = self.lost if self.keep_going else None
        if self.lossless:
            samples = decode_lossless(self.head, self.tiles, self.entry, self.jobs, progress, lost)
            samples = average(samples, reduce) if reduce > 1 else samples
        elif reduce == 1:
            samples = decode_samples(self.head, self.tiles, self.nets, progress, lost)
        else:
            samples = decode_reduced(self.head, self.tiles, self.nets, reduce, progress, lost)
            alpha = [average(plane, reduce) for plane in alpha]
        for patch in self.patches():
            patch.paste(samples, self.head, reduce)
        return Picture(np.concatenate([samples, *alpha], 2) if alpha else samples, self.metadata)

    def symbols_sha256(self, progress: Progress | None = None) -> str:
        """SHA-256 of every symbol (int16, little-endian, tile by tile), without loss of the samples: equal on every
        machine.

        Raises:
            ModelMissing, Corrupt: as `picture`.
        """
        if self.lossless:
            return hashlib.sha256(self.picture(progress).samples.astype("<u2").tobytes()).hexdigest()
        digest = hashlib.sha256()
        for done, (_, symbols) in enumerate(self.symbols()):
            digest.update(symbols.integers())
            if progress:
                progress(done + 1, len(self.tiles))
        for patch in self.patches():
            digest.update(patch.samples.astype("<i2").tobytes())
        return digest.hexdigest()

    def patches(self) -> Iterator[Patch]:
        """What is laid over the samples that the model shows; without damaged ones with `keep_going`.

        Raises:
            ModelMissing, Corrupt: as `picture`.
        """
        from pixa.image.patches import decode_patch

        last = -1
        for chunk in self.chunks:
            if chunk.type == ChunkType.PATCH:
                try:
                    patch = decode_patch(chunk.payload, self.head, last)
                except Corrupt:
                    if not self.keep_going:
                        raise
                else:
                    last = patch.area
                    yield patch

    def symbols(self) -> Iterator[tuple[tuple[slice, slice], TileSymbols]]:
        """The place of every tile, in rows and columns of what is coded, and its symbols.

        Raises:
            ModelMissing, Corrupt: as `picture`.
        """
        from pixa.image.picture import tile_shape, tile_slices

        codec = self.nets.codec
        for tile, place in zip(self.tiles, tile_slices(self.head, codec), strict=True):
            yield place, codec.decode(tile, tile_shape(codec.channels, place), self.head.level)


def codes_samples(head: Head) -> bool:
    """Whether the model that a header names is one of lossless tiles."""
    return any(entry.wire_id == head.model and "lossless" in entry.can for entry in list_models())
