"""pixa: a neural image and video codec whose files decode to the same symbols on every machine.

>>> data = pixa.encode(image, quality=60)
>>> array = pixa.decode(data)
>>> with pixa.open_video("clip.pixa") as video:
...     for frame in video.seek(12.5):
...         ...
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported, which is below here alone

from pixa import errors
from pixa.image.decoder import Decoder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    import numpy as np
    from PIL import Image

    from pixa.video.reader import Video

__all__ = [
    "Decoder",
    "decode",
    "encode",
    "errors",
    "info",
    "open_image",
    "open_video",
    "register_pillow",
    "write_video",
]
__version__ = "0.1.0"


def encode(
    image: np.ndarray | Image.Image,
    quality: float | None = None,
    *,
    bpp: float | None = None,
    target_size: int | None = None,
    psnr: float | None = None,
    model: str = "fast",
    lossless: bool = False,
    near: int = 0,
    tune: str | None = None,
    effort: int = 0,
    floor: bool = True,
    thumbnail: bool = False,
    jobs: int = 0,
) -> bytes:
    """Compress a picture.

    Args:
        image: (H, W), (H, W, 1..4) uint8, without loss also uint16, or a Pillow image, whose ICC profile, EXIF and
            XMP are kept.
        quality: 0 to 100, 60 unless a target is given.
        bpp, target_size, psnr: bits a pixel, bytes, or dB to meet instead of a quality; one at most.
        model: `name` or `name.tag`.
        lossless: give back every sample, hidden ones included; model, tune and effort do not count then.
        near: by how much a sample of a lossless file may differ, at most.
        tune: "eye" or "psnr", what the model was trained for; by default for the eye where it can be.
        effort: 0 rounds the latents above quality 20, 1 to 6 quantise all rate-distortion optimally, 7 to 9 search them
            with torch.
        floor: where the model cannot show a picture as well as the quality promises, code the samples themselves.
        thumbnail: add a picture at 1/8 for those who show many files; not with bpp or target_size.
        jobs: threads, 0 for all cores.

    Raises:
        UnsupportedInput, UsageError, ModelMissing, LimitExceeded: from `pixa.errors`.
    """
    import numpy as np

    from pixa.image.encoding import Settings, encode_with
    from pixa.pixels import Picture

    if isinstance(image, np.ndarray):
        picture = Picture(image)
    elif not hasattr(image, "getexif"):
        raise errors.UnsupportedInput(f"{type(image).__name__} is neither an array nor a Pillow image")
    else:
        from pixa.io.image import image_to_picture

        picture = image_to_picture(image, deep=lossless)
    settings = Settings(quality, bpp, target_size, psnr, model, tune, effort, lossless, near, floor, thumbnail, jobs)
    return encode_with(picture, settings)


def decode(data: bytes, *, reduce: int = 1, jobs: int = 0) -> np.ndarray:
    """The samples of a file, (H, W, C) uint8 with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; uint16 where it
    was made of such.

    Args:
        reduce: 2, 4 or 8 for a picture at 1/2, 1/4 or 1/8, sides rounded up, which is faster.
        jobs: threads, 0 for all cores.

    Raises:
        NotPixa, UnsupportedVersion, Corrupt, ModelMissing, LimitExceeded, UsageError: from `pixa.errors`.
    """
    return Decoder(data, jobs=jobs).picture(reduce=reduce).samples


def open_image(data: bytes, *, reduce: int = 1, jobs: int = 0) -> Image.Image:
    """As `decode`, but a Pillow image with its metadata in `info`."""
    from pixa.io.image import picture_to_image

    return picture_to_image(Decoder(data, jobs=jobs).picture(reduce=reduce))


def info(data: bytes) -> dict:
    """What the headers of a file say, a picture or a video; loads no model.

    Raises:
        NotPixa, UnsupportedVersion, Corrupt, LimitExceeded: from `pixa.errors`.
    """
    from pixa.bitstream.packets import is_video

    if is_video(data):
        from io import BytesIO

        from pixa.video.file import VideoFile

        return VideoFile(BytesIO(data)).info()
    return Decoder(data).info()


def open_video(source: str | os.PathLike | BinaryIO, *, jobs: int = 0, keep_going: bool = False) -> Video:
    """A video file to read frames from, as arrays (H, W, 3) uint8; see `pixa.video.reader.Video`.

    Args:
        source: a path, or a seekable binary file.
        jobs: threads, 0 for all cores.
        keep_going: play damaged and cut files; a lost frame repeats the one before it.

    Raises:
        NotPixa, UnsupportedVersion, Corrupt, LimitExceeded, UnsupportedInput: from `pixa.errors`.
    """
    from pixa.video.reader import Video

    return Video(source, jobs=jobs, keep_going=keep_going)


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], **settings) -> None:
    """Write frames (H, W, 3) uint8 to a video file, whole or not at all.

    `pixa.video.writer.VideoWriter` takes frames one by one, with times of their own, and copied audio.

    Args:
        settings: of `VideoWriter`: fps, quality or bitrate, model, tune, keyint, tags, effort, jobs.

    Raises:
        UnsupportedInput, UsageError, ModelMissing, LimitExceeded: from `pixa.errors`.
    """
    from pixa.io.files import write_whole
    from pixa.video.writer import VideoWriter

    def write(file: BinaryIO) -> None:
        with VideoWriter(file, **settings) as writer:
            for samples in frames:
                writer.write(samples)

    write_whole(path, write)


def register_pillow() -> None:
    """Teach Pillow to open and save `.pixa`."""
    from pixa.pillow_plugin import register_pillow

    register_pillow()
