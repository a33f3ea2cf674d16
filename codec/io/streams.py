"""What is to be read, a file or standard input, and whether it is a video, told by its first bytes or its name."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pixa.bitstream.container import PREFIX, check_prefix
from pixa.bitstream.packets import is_video
from pixa.image.decoder import Decoder
from pixa.io.files import STANDARD
from pixa.video.file import VideoFile

VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts"),
    *(".mts", ".mpg", ".mpeg", ".wmv", ".flv", ".y4m"),
}
MAGICS = (b"YUV4MPEG2", b"\x1aE\xdf\xa3")  # y4m, Matroska: videos that may come through a pipe
BEGIN = 9  # bytes that tell what a file is


class PrefixedReader(io.RawIOBase):
    """A stream whose first bytes are known already."""

    def __init__(self, begin: bytes, rest: BinaryIO):
        self.begin, self.rest = begin, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        data = self.begin[: len(buffer)] or self.rest.read(len(buffer))
        self.begin = self.begin[len(data) :]
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def opened(source: str) -> Iterator[tuple[BinaryIO, bool]]:
    """A pixa file, or standard input by way of a temporary one, and whether it begins as a video.

    Raises:
        OSError: it cannot be read.
    """
    if source != STANDARD:
        with open(source, "rb") as file:
            video = is_video(file.read(BEGIN))
            file.seek(0)
            yield file, video
        return
    begin = sys.stdin.buffer.read(BEGIN)
    if not is_video(begin):
        yield PrefixedReader(begin, sys.stdin.buffer), False
        return
    with tempfile.TemporaryFile() as file:
        file.write(begin)
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.seek(0)
        yield file, True


@contextmanager
def opened_input(source: str) -> Iterator[tuple[BinaryIO, bool]]:
    """A file to encode, or standard input, and whether it is a video.

    Raises:
        OSError: it cannot be read.
    """
    if source == STANDARD:
        begin = sys.stdin.buffer.read(BEGIN)
        yield PrefixedReader(begin, sys.stdin.buffer), begin.startswith(MAGICS)
        return
    with open(source, "rb") as file:
        yield file, Path(source).suffix.lower() in VIDEO_SUFFIXES


def read_facts(source: str) -> tuple[dict, bool]:
    """What the headers of a pixa file say, and whether it is a video.

    Raises:
        PixaError: by name what is wrong with it.
    """
    with opened(source) as (file, video):
        return (VideoFile(file) if video else Decoder(read_whole(file))).info(), video


def read_whole(file: BinaryIO) -> bytes:
    """A pixa file; anything else is refused by its first bytes.

    Raises:
        NotPixa, UnsupportedVersion, Corrupt: as `container.check_prefix`.
    """
    prefix = file.read(len(PREFIX))
    check_prefix(prefix)
    return prefix + file.read()
