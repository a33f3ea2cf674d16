"""One way from a picture and what is wanted of it to a file, for the API, the command line and the Pillow plugin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import Chunk, read_file, write_file
from pixa.errors import UsageError
from pixa.image.floor import with_floor
from pixa.image.lossless import encode_lossless
from pixa.image.picture import ImageEncoder, Progress, level_of
from pixa.image.rate import meet_target
from pixa.image.reduced import THUMBNAIL, average
from pixa.pixels import Picture

MODEL, QUALITY = "fast", 60.0  # where none is named
THUMBNAIL_QUALITY = 80


@dataclass(frozen=True)
class Settings:
    """What is wanted of a file.

    Attributes:
        quality: 0 smallest to 100 best, in steps of one half; 60 unless a target is given.
        bpp, target_size, psnr: bits a pixel, bytes, or dB to meet instead of a quality; one at most.
        model: `name` or `name.tag`.
        tune: "eye" or "psnr", what the model was trained for; None for the eye where it can be.
        effort: 0 rounds the latents above quality 20, 1 to 6 quantise all rate-distortion optimally, 7 to 9 search them
            with torch for longer and longer.
        lossless: give back every sample; model, tune and effort do not count then.
        near: by how much samples may differ without loss, 0 for not at all.
        floor: patch what the model cannot show; see `pixa.image.floor`.
        thumbnail: add a picture at 1/8 for those who show many files; not with bpp or target_size.
        jobs: threads, 0 for all cores.

    Raises:
        UsageError: they contradict each other.
    """

    quality: float | None = None
    bpp: float | None = None
    target_size: int | None = None
    psnr: float | None = None
    model: str = MODEL
    tune: str | None = None
    effort: int = 0
    lossless: bool = False
    near: int = 0
    floor: bool = True
    thumbnail: bool = False
    jobs: int = 0

    def __post_init__(self):
        if self.thumbnail and (self.bpp, self.target_size) != (None, None):
            raise UsageError("a thumbnail adds to a file: give no bpp or target size")
        if self.lossless and (self.quality, *self.targets.values()) != (None,) * 4:
            raise UsageError("without loss there is no quality or target to give")
        if self.near and not self.lossless:
            raise UsageError("near goes with lossless: it says by how much samples may differ")
        if len(self.wanted) + (self.quality is not None) > 1:
            raise UsageError("give a quality or one target")

    @property
    def targets(self) -> dict[str, float | None]:
        return {"bpp": self.bpp, "target_size": self.target_size, "psnr": self.psnr}

    @property
    def wanted(self) -> dict[str, float]:
        """The target, by its name."""
        return {name: value for name, value in self.targets.items() if value is not None}


def encode_with(picture: Picture, settings: Settings, progress: Progress | None = None) -> bytes:
    """The file of a picture.

    Args:
        progress: called with (steps done, how many in all).

    Raises:
        UsageError: a setting is out of range, the model does not have it, or torch is missing for a search.
        UnsupportedInput: 16 bits a sample with loss.
        ModelMissing: the model is not installed.
    """
    if settings.lossless:
        data = encode_lossless(picture, near=settings.near, jobs=settings.jobs, progress=progress)
    else:
        data = encode_lossy(picture, settings, progress)
    return with_thumbnail(data, picture, settings.jobs) if settings.thumbnail else data


def encode_lossy(picture: Picture, settings: Settings, progress: Progress | None = None) -> bytes:
    encoder = ImageEncoder(picture, settings.model, settings.jobs, progress, settings.tune)
    if settings.wanted:
        data, y_hat = meet_target(encoder, settings.effort, **settings.wanted), None
    else:
        quality = QUALITY if settings.quality is None else settings.quality
        data, y_hat = encoder.encode(level_of(quality), settings.effort)
    if not settings.floor or "latents" not in encoder.nets.entry.can:
        return data
    pixels = picture.width * picture.height
    limit = settings.target_size or (settings.bpp * pixels / 8 if settings.bpp else None)
    better = with_floor(encoder, data, y_hat, settings.effort)
    return better if limit is None or len(better) <= max(limit, len(data)) else data


def with_thumbnail(data: bytes, picture: Picture, jobs: int = 0) -> bytes:
    """The file of a picture with a thumbnail at 1/8 in it, itself a file, which opens faster than the whole."""
    samples = picture.samples if picture.samples.dtype == np.uint8 else (picture.samples >> 8).astype(np.uint8)
    head, *rest = read_file(data)
    small = encode_with(Picture(average(samples, THUMBNAIL)), Settings(quality=THUMBNAIL_QUALITY, jobs=jobs))
    return write_file([head, Chunk(ChunkType.THUMBNAIL, small), *rest])
