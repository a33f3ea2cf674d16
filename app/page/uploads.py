"""What people hand in: pictures, .pixa files and zip archives, checked before memory is taken for them."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from pixa.app.bench.codecs import CODECS
from pixa.app.bench.measurements import rgb
from pixa.bitstream.container import MAGIC
from pixa.errors import LimitExceeded, PixaError, UnsupportedInput
from pixa.io.image import load

MAX_PIXELS = 16_000_000
MAX_BYTES = 64 << 20
MAX_FILES = 200
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".jxl", ".bmp", ".tif", ".tiff", ".ppm", ".gif")


class Upload(NamedTuple):
    """A file by name and content."""

    name: str
    data: bytes

    @property
    def is_pixa(self) -> bool:
        return self.data.startswith(MAGIC)


def read_upload(path: str | Path) -> Upload:
    """A file as it was handed in.

    Raises:
        LimitExceeded: it is larger than `MAX_BYTES`.
    """
    path = Path(path)
    check_size(path.name, path.stat().st_size)
    return Upload(path.name, path.read_bytes())


def check_size(name: str, size: int) -> None:
    """Refuses a file by its length.

    Raises:
        LimitExceeded: it is larger than `MAX_BYTES`.
    """
    if size > MAX_BYTES:
        raise LimitExceeded(f"{name} has {size / 2**20:.0f} MiB; this page takes files of up to {MAX_BYTES >> 20} MiB")


def read_samples(upload: Upload, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Samples (H, W, 3) uint8 of a picture, those that `pixa bench` measures.

    Raises:
        UnsupportedInput: no picture, or one that pixa does not take; the message names the file.
        LimitExceeded: more than `max_pixels`, told from the header alone.
    """
    with suppress(ImportError):
        CODECS["jxl"].load()
    width = height = 0
    with suppress(Exception), warnings.catch_warnings():  # what cannot be opened is refused below, in plain words
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(upload.data)) as image:
            width, height = image.size
    if width * height > max_pixels:
        raise LimitExceeded(
            f"{upload.name} has {width * height / 1e6:.0f} megapixels; this page takes up to {max_pixels / 1e6:.0f}. "
            "`pixa encode` on the command line takes larger ones"
        )
    try:
        return rgb(load(upload.data))
    except PixaError as error:
        raise type(error)(f"{upload.name}: {error}") from error


def read_batch(paths: Iterable[str | Path]) -> Iterator[Upload]:
    """Every picture file of a selection; archives are opened, files of other kinds are passed over.

    Raises:
        LimitExceeded: more than `MAX_FILES` pictures, or one larger than `MAX_BYTES`.
        UnsupportedInput: an archive that is broken or encrypted.
    """
    count = 0
    for path in map(Path, paths):
        for upload in read_archive(path) if path.suffix.lower() == ".zip" else read_single(path):
            count += 1
            if count > MAX_FILES:
                raise LimitExceeded(f"there are more than {MAX_FILES} pictures; `pixa encode -r` takes any number")
            yield upload


def read_single(path: Path) -> Iterator[Upload]:
    if path.suffix.lower() in SUFFIXES:
        yield read_upload(path)


def read_archive(path: Path) -> Iterator[Upload]:
    """The picture files of a zip archive, one in memory at a time.

    Raises:
        LimitExceeded: a picture is larger than `MAX_BYTES`, told from the archive's index.
        UnsupportedInput: the archive is broken or encrypted.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = PurePosixPath(entry.filename.replace("\\", "/"))
                if name.suffix.lower() in SUFFIXES and not name.name.startswith(".") and "__MACOSX" not in name.parts:
                    check_size(entry.filename, entry.file_size)
                    yield Upload(entry.filename, archive.read(entry))
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, ValueError) as error:
        if isinstance(error, PixaError):
            raise
        raise UnsupportedInput(f"{path.name} is no zip archive that can be read: {error}") from error
