"""Animations: a sequence of Pillow's images to a video file without audio."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageSequence

from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import write_chunk
from pixa.bitstream.deflate import write_metadata
from pixa.bitstream.headers import VideoHeader
from pixa.errors import UnsupportedInput, UsageError
from pixa.io.image import image_to_picture
from pixa.pixels import Picture
from pixa.video.writer import VideoWriter

DURATION = 100  # milliseconds of a frame that says nothing else
SETTINGS = ("quality", "effort", "model", "tune", "keyint")
SRGB = {"primaries": 1, "transfer": 13}  # ITU-T H.273


class AnimationWriter(VideoWriter):
    """A video writer that puts metadata behind the headers."""

    metadata: Mapping[str, bytes] = {}

    def begin(self, samples: np.ndarray) -> None:
        super().begin(samples)
        for name, content in self.metadata.items():
            self.put(write_chunk(ChunkType[name.upper()], write_metadata(content)))


def write_animation(sequences: Iterable[Image.Image], options: Mapping[str, Any], file: BinaryIO) -> None:
    """Write all frames of all images.

    Args:
        options: quality, effort, model, tune, keyint: as `VideoWriter`. duration: milliseconds of every frame or a list
            of them, None for what each says of itself. loop: how often to play, 0 for ever. icc_profile, exif, xmp.

    Raises:
        UsageError: a duration that is none, or too few of them.
        UnsupportedInput: a frame is transparent, or has another size than the first.
        PixaError: as `VideoWriter`.
    """
    frames = timed_frames(sequences, options)
    first = next(frames)
    tags = {} if options.get("loop") is None else {"loop": str(int(options["loop"]))}
    header = VideoHeader(1, 1000, 1000, first[1], **SRGB)
    settings = {name: options[name] for name in SETTINGS if name in options}
    with AnimationWriter(file, header=header, tags=tags, **settings) as writer:
        writer.metadata, pts = first[0].metadata, 0
        for picture, duration in chain([first], frames):
            writer.write(picture.colour, pts, duration)
            pts += duration


def timed_frames(sequences: Iterable[Image.Image], options: Mapping[str, Any]) -> Iterator[tuple[Picture, int]]:
    """Frames without alpha, and their milliseconds; the metadata in the options is that of the first."""
    given = options.get("duration")
    for number, frame in enumerate(frame for sequence in sequences for frame in ImageSequence.Iterator(sequence)):
        picture = image_to_picture(frame, frame.info if number else {**frame.info, **options})
        if picture.alpha is not None and picture.alpha.min() < 255:
            raise UnsupportedInput(f"frame {number} is transparent, which no video can be: paste it on a colour")
        if picture.colour.shape[2] == 1:
            picture.metadata.pop("icc", None)  # frames are written in colour
        if isinstance(given, (list, tuple)):
            if number >= len(given):
                raise UsageError(f"{len(given)} durations are fewer than there are frames")
            duration = given[number]
        else:
            duration = frame.info.get("duration") or DURATION if given is None else given
        if not 0 < duration < 2**31:
            raise UsageError(f"a frame cannot last {duration} ms")
        yield picture, max(round(duration), 1)
