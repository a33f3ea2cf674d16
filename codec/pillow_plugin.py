"""Pillow plugin: `Image.open("x.pixa")` and `image.save("x.pixa", quality=60)`, pictures, animations and videos.

Importing this module is enough; `pixa.register_pillow()` says the same in words. Other programs that read and write
through Pillow, such as imageio, can then do so, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

from PIL import Image, ImageFile

from pixa.bitstream.container import MAGIC, PREFIX
from pixa.bitstream.deflate import read_metadata
from pixa.bitstream.packets import KeyFrame, is_video
from pixa.errors import Corrupt, LimitExceeded, NotPixa, PixaError, UnsupportedInput, UsageError
from pixa.image.decoder import METADATA, REDUCTIONS, Decoder
from pixa.io.image import image_to_picture, metadata_info, picture_to_image
from pixa.models.registry import find_wire
from pixa.pixels import Picture
from pixa.video.file import CodedFrame, VideoFile

FORMAT = "PIXA"
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
PICTURE_SETTINGS = ("quality", "effort", "model", "tune", "lossless", "near", "floor", "thumbnail")


@contextmanager
def as_oserror() -> Iterator[None]:
    """Raises what Pillow's own formats do; wrong options stay a ValueError."""
    try:
        yield
    except UsageError:
        raise
    except PixaError as error:
        raise OSError(str(error)) from error


class Still:
    """A file of one picture, as `PixaImageFile` sees it."""

    frames = 1

    def __init__(self, file: BinaryIO):
        self.decoder = Decoder(file.read())
        self.size, self.mode = (self.decoder.width, self.decoder.height), MODES[self.decoder.channels]
        if self.decoder.head.depth:
            if self.decoder.channels > 1:
                raise UnsupportedInput("Pillow has no images of 16 bits a sample but grey ones")
            self.mode = "I;16"
        self.info = metadata_info(self.decoder.metadata)

    def told(self, number: int) -> dict[str, Any]:
        return {}

    def picture(self, number: int, reduce: int) -> Picture:
        return self.decoder.picture(reduce=reduce)

    def check(self) -> None:
        """All checksums are compared when the file is parsed."""


class Moving:
    """A video file, as `PixaImageFile` sees it; no model is loaded before a frame is asked for."""

    mode = "RGB"

    def __init__(self, file: BinaryIO):
        self.file, self.video = file, VideoFile(file)
        self.size, self.frames = (self.video.width, self.video.height), len(self.video)
        self.info = metadata_info(dict(self.metadata()))
        if re.fullmatch("[0-9]{1,9}", loop := self.video.tags.get("loop", "")):
            self.info["loop"] = int(loop)
        self.playing, self.next = None, 0
        self.check = self.video.check

    def metadata(self) -> Iterator[tuple[str, bytes]]:
        place = len(PREFIX)
        while place < self.video.begin:
            (kind, payload), place = self.video.chunks.chunk(place)
            if kind in METADATA:
                yield METADATA[kind], read_metadata(payload)

    def key(self, number: int) -> KeyFrame:
        """The last key frame up to a frame."""
        return next(key for key in reversed(self.video.index.keys) if key.number <= number)

    def coded(self, number: int) -> CodedFrame:
        """A frame still coded, from its key frame on."""
        for frame in self.video.packets(self.key(number)):
            if frame.number == number:
                return frame
        raise Corrupt("the file is cut: frames are missing at its end")

    def milliseconds(self, pts: int) -> int:
        return round(1000 * pts * self.video.header.time_base)

    def told(self, number: int) -> dict[str, Any]:
        """When a frame is shown and how long, in milliseconds."""
        frame = self.coded(number)
        begin = frame.pts - self.video.index.keys[0].pts
        start, end = self.milliseconds(begin), self.milliseconds(begin + frame.duration)
        return {"timestamp": start, "duration": end - start}

    def picture(self, number: int, reduce: int) -> Picture:
        from pixa.image.reduced import average, decode_reduced

        frame = self.coded(number)
        if reduce > 1 and frame.key:
            from pixa.runtime.model import load_model

            head = replace(self.video.head, level=frame.level)
            nets = load_model(find_wire(head.model, head.model_hash))
            return Picture(decode_reduced(head, frame.tiles, nets, reduce))
        samples = self.samples(number)
        return Picture(average(samples, reduce) if reduce > 1 else samples)

    def samples(self, number: int) -> Any:
        """A frame decoded, going on from the last one where that is nearer than a key frame."""
        from pixa.video.reader import Video

        key = self.key(number)
        if self.playing is None or not key.number <= self.next <= number:
            start = (key.pts - self.video.index.keys[0].pts) * self.video.header.time_base
            self.playing = Video(self.file).seek(start).frames()
        for frame in self.playing:
            self.next = frame.number + 1
            if frame.number == number:
                return frame.samples
        raise Corrupt("the file is cut: frames are missing at its end")


class PixaImageFile(ImageFile.ImageFile):
    """An opened file: size, mode and metadata at once, pixels when they are asked for.

    A video is a sequence of frames (`n_frames`, `seek`, `tell`), whose `info` tells "timestamp" and "duration" in
    milliseconds. `draft` and `thumbnail` decode a smaller picture. Damaged files raise OSError, too large ones
    `DecompressionBombError`, as Pillow's own formats do.
    """

    format = FORMAT
    format_description = "pixa neural image and video"

    def _open(self) -> None:
        begin = self.fp.read(len(PREFIX) + 3)
        self.fp.seek(0)
        try:
            with as_oserror():
                self._source: Still | Moving | None = (Moving if is_video(begin) else Still)(self.fp)
                self.info.update(self._source.info | self._source.told(0))
        except OSError as error:
            match error.__cause__:
                case NotPixa():
                    raise SyntaxError(str(error)) from error
                case LimitExceeded():
                    raise Image.DecompressionBombError(str(error)) from error
            raise
        self._size, self._mode = self._source.size, self._source.mode
        self.n_frames = self._source.frames
        self.is_animated = self.n_frames > 1
        self._close_exclusive_fp_after_loading = not self.is_animated
        self._frame, self._loaded, self._reduce = 0, None, 1

    def load(self) -> Image.core.PixelAccess | None:
        if self._loaded != self._frame:
            with as_oserror():
                self.im = picture_to_image(self._source.picture(self._frame, self._reduce)).im
            self._loaded = self._frame
            if self._close_exclusive_fp_after_loading:
                self._source = None
                if self._exclusive_fp and self.fp:
                    self.fp.close()
                self.fp = None
        return super().load()

    def seek(self, frame: int) -> None:
        if self._seek_check(frame):
            with as_oserror():
                self.info.update(self._source.told(frame))
            self._frame = frame

    def tell(self) -> int:
        return self._frame

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple] | None:
        """Decode at 1/2, 1/4 or 1/8, as long as that is no smaller than a size; modes stay as they are."""
        if self._loaded is not None or self._reduce > 1 or not size:
            return None
        width, height = self.size
        room = min(width // max(size[0], 1), height // max(size[1], 1))
        self._reduce = max(factor for factor in REDUCTIONS if factor <= max(room, 1))
        self._size = -(-width // self._reduce), -(-height // self._reduce)
        return self.mode, (0, 0, width / self._reduce, height / self._reduce)

    def verify(self) -> None:
        """Compare every checksum of the file, and close it."""
        with as_oserror():
            self._source.check()
        super().verify()


def _save(image: Image.Image, file: BinaryIO, filename: str | bytes) -> None:
    """Writes an image; keywords of `Image.save`: quality, effort, model, tune, lossless, near, floor,
    thumbnail, icc_profile, exif, xmp.

    Metadata that is not given comes from `image.info`; give None to leave a kind out.
    """
    from pixa.image.encoding import Settings, encode_with

    options = image.encoderinfo
    with as_oserror():
        settings = Settings(**{name: options[name] for name in PICTURE_SETTINGS if name in options})
        picture = image_to_picture(image, {**image.info, **options}, deep=settings.lossless)
        file.write(encode_with(picture, settings))


def _save_all(image: Image.Image, file: BinaryIO, filename: str | bytes) -> None:
    """Writes an animation, a video without audio; keywords of `Image.save` beyond those of a picture:

    append_images: images, or sequences of them, that follow.
    duration: milliseconds of every frame or a list of them, otherwise what the frames say of themselves.
    loop: how often it is played, 0 for ever.
    keyint: frames from one key frame to the next, at most.
    """
    options = image.encoderinfo
    sequences = [image, *options.get("append_images", ())]
    if sum(getattr(sequence, "n_frames", 1) for sequence in sequences) == 1:
        return _save(image, file, filename)
    from pixa.io.animation import write_animation

    position = image.tell()
    try:
        with as_oserror():
            write_animation(sequences, {"loop": image.info.get("loop"), **options}, file)
    finally:
        image.seek(position)


def register_pillow() -> None:
    """Teaches Pillow to open and save `.pixa`; calling it again changes nothing."""
    Image.register_open(FORMAT, PixaImageFile, lambda prefix: prefix.startswith(MAGIC))
    Image.register_save(FORMAT, _save)
    Image.register_save_all(FORMAT, _save_all)
    Image.register_extension(FORMAT, ".pixa")
    Image.register_mime(FORMAT, "image/x-pixa")


register_pillow()
