"""Pillow plugin: `Image.open("x.pixa")` and `image.save("x.pixa", quality=60)`."""

from __future__ import annotations

from typing import BinaryIO

from PIL import Image, ImageFile

from pixa.bitstream.container import MAGIC
from pixa.decoder import Decoder
from pixa.errors import LimitExceeded, NotPixa, PixaError
from pixa.io_image import image_to_picture, metadata_info, picture_to_image

FORMAT = "PIXA"
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


class PixaImageFile(ImageFile.ImageFile):
    """An opened file: size, mode and metadata at once, pixels when they are asked for.

    Damaged files raise OSError, too large ones `DecompressionBombError`, as Pillow's own formats do.
    """

    format = FORMAT
    format_description = "pixa neural image"

    def _open(self) -> None:
        try:
            self._decoder: Decoder | None = Decoder(self.fp.read())
        except NotPixa as error:
            raise SyntaxError(str(error)) from error
        except LimitExceeded as error:
            raise Image.DecompressionBombError(str(error)) from error
        except PixaError as error:
            raise OSError(str(error)) from error
        self._size = self._decoder.width, self._decoder.height
        self._mode = MODES[self._decoder.channels]
        self.info.update(metadata_info(self._decoder.metadata))

    def load(self) -> Image.core.PixelAccess | None:
        if self._decoder is not None:
            try:
                self.im = picture_to_image(self._decoder.picture()).im
            except PixaError as error:
                raise OSError(str(error)) from error
            self._decoder = None
        return super().load()


def _save(image: Image.Image, file: BinaryIO, filename: str | bytes) -> None:
    """Writes an image; keywords of `Image.save`: quality, effort, model, icc_profile, exif, xmp.

    Metadata that is not given comes from `image.info`; give None to leave a kind out.
    """
    from pixa.image import encode_picture

    options = image.encoderinfo
    picture = image_to_picture(image, {**image.info, **options})
    settings = {name: options[name] for name in ("quality", "effort", "model") if name in options}
    file.write(encode_picture(picture, **settings))


def register_pillow() -> None:
    """Teaches Pillow to open and save `.pixa`; calling it again changes nothing."""
    Image.register_open(FORMAT, PixaImageFile, lambda prefix: prefix.startswith(MAGIC))
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, ".pixa")
    Image.register_mime(FORMAT, "image/x-pixa")
