"""Training clips: videos, raw planar files and folders of numbered pictures read into one flat uint8 buffer.

A Vimeo-90k folder is read by its train list; a `.yuv` file tells its size and depth in its name, as those of UVG do.
"""

from __future__ import annotations

import os
import re
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import torch
from av.video.reformatter import Colorspace, Interpolation
from PIL import Image
from torch import Tensor

from pixa.datasets.pictures import SUFFIXES

VIDEOS = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".y4m", ".yuv"}
TRAIN_LISTS = ("sep_trainlist.txt", "tri_trainlist.txt")
UNTAGGED = 2  # AVCOL_SPC_UNSPECIFIED
DECODER = {"max_pixels": str(2**26), "err_detect": "explode"}  # refuse what is huge or damaged, do not guess
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP


def reduced(image: Image.Image, largest: int) -> np.ndarray:
    """(H, W, 3) uint8 of an RGB picture, averaged over areas down to a shorter side of at most `largest` pixels."""
    scale = largest / min(image.size)
    if scale < 1:
        image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BOX)
    return np.asarray(image)


def raw_layout(file: BinaryIO, name: str) -> dict:
    """What PyAV must be told of a raw planar file, from a name such as Beauty_1920x1080_120fps_420_8bit_YUV.yuv.

    Raises:
        ValueError: no size in the name, or one that the length of the file contradicts.
    """
    size = re.search(r"(\d+)x(\d+)", name)
    if not size:
        raise ValueError("its name tells no size such as 1920x1080")
    chroma = re.search(r"_(420|422|444)[_.]", name)
    deep = "10bit" in name
    pixels = f"yuv{chroma[1] if chroma else 420}p{'10le' if deep else ''}"
    planes = av.VideoFormat(pixels, int(size[1]), int(size[2])).components
    step = sum(plane.width * plane.height for plane in planes) * (1 + deep)
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not 0 < step <= length or length % step:
        raise ValueError(f"{length} bytes are not whole frames of {size[0]} {pixels}")
    return {"format": "rawvideo", "options": {"video_size": size[0], "pixel_format": pixels}}


def decoded_frames(file: BinaryIO, name: str, largest: int) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 in order of display, converted by the clip's own matrix and range where it tells them.

    An untagged clip is of limited range and of BT.709 when it is raw or has 720 lines or more, otherwise of BT.601.
    """
    raw = raw_layout(file, name) if name.lower().endswith(".yuv") else {}
    with av.open(file, **raw) as container:
        if not container.streams.video:
            raise ValueError("it holds no video")
        stream = container.streams.video[0]
        stream.codec_context.options = DECODER
        for frame in container.decode(stream):
            if frame.colorspace == UNTAGGED:
                frame.colorspace = Colorspace.ITU709 if raw or frame.height >= 720 else Colorspace.ITU601
            yield reduced(frame.to_image(interpolation=EXACT, threads=1), largest)


def file_frames(path: Path, largest: int) -> Iterator[np.ndarray]:
    """The frames of a file, as `decoded_frames` gives them."""
    with path.open("rb") as file:
        yield from decoded_frames(file, path.name, largest)


def tar_frames(pack: Path, member: tarfile.TarInfo, largest: int) -> Iterator[np.ndarray]:
    """The frames of a file in a tar pack, as `decoded_frames` gives them."""
    with tarfile.open(pack) as tar, tar.extractfile(member) as file:
        yield from decoded_frames(file, Path(member.name).name, largest)


def is_numbered(file: Path) -> bool:
    """Whether a file is a picture whose name ends in a number and that is not hidden."""
    return file.suffix.lower() in SUFFIXES and file.stem[-1:].isdecimal() and file.name[0] != "."


def picture_frames(folder: Path, largest: int) -> Iterator[np.ndarray]:
    """The numbered pictures of a folder, (H, W, 3) uint8, in the order of their numbers."""
    files = [file for file in folder.iterdir() if is_numbered(file)]
    for file in sorted(files, key=lambda file: int(re.search(r"\d+$", file.stem)[0])):
        with Image.open(file) as image:
            yield reduced(image.convert("RGB"), largest)


def clips_below(folder: Path) -> list[Path]:
    """The clips that a train list in the folder names, or else all videos and folders of numbered pictures below it."""
    for name in TRAIN_LISTS:
        if (folder / name).exists():
            return [folder / "sequences" / line for line in (folder / name).read_text().split()]
    files = list(folder.rglob("*"))
    videos = {file for file in files if file.suffix.lower() in VIDEOS and file.name[0] != "."}
    return sorted(videos | {file.parent for file in files if is_numbered(file)})


def read_clip(frames: Iterator[np.ndarray], shortest: int, smallest: int, longest: int) -> np.ndarray | Exception:
    """(T, H, W, 3) uint8, or why the clip cannot be used."""
    try:
        with closing(frames):
            clip = list(islice(frames, longest))
        if len(clip) < shortest:
            raise ValueError(f"{len(clip)} frames, fewer than {shortest}")
        height, width = clip[0].shape[:2]
        if min(height, width) < smallest:
            raise ValueError(f"{width}x{height} pixels, fewer than {smallest} a side")
        return np.stack(clip)
    except Exception as error:  # any error of any decoder: count it and go on
        return error


class Clips:
    """Clips of any sizes in one uint8 buffer on one device.

    Args:
        paths: video files, `.yuv` files, tar packs of these, and folders of these or of numbered pictures.
        shortest: clips of fewer frames are left out.
        smallest: clips with a shorter side in pixels are left out.
        longest: frames read at most from the start of a clip.
        largest: frames with a longer shorter side are averaged down to it.
        count: clips read at most, spread evenly over all that are found.

    Attributes:
        skipped: number of clips that could not be read, or were too short or too small.

    Raises:
        ValueError: no clip to be used.
        OSError: a path that is not there.
    """

    def __init__(
        self,
        paths: list[Path],
        shortest: int,
        smallest: int,
        longest: int = 48,
        largest: int = 512,
        count: int | None = None,
    ):
        self.shortest, self.smallest, self.skipped = shortest, smallest, 0
        found = [clip for path in paths for clip in self.find(Path(path), largest)]
        if count is not None and count < len(found):
            found = [found[i * len(found) // count] for i in range(count)]
        names, frames = [name for name, _ in found], [frames for _, frames in found]
        buffer, sizes = bytearray(), []
        read = partial(read_clip, shortest=shortest, smallest=smallest, longest=longest)
        with ThreadPoolExecutor() as pool:
            for name, clip in zip(names, pool.map(read, frames), strict=True):
                if isinstance(clip, Exception):
                    self.skip(name, clip)
                else:
                    buffer.extend(clip)
                    sizes.append(clip.shape[:3])
        if not sizes:
            there = ", ".join(map(str, paths))
            raise ValueError(f"no clip of at least {shortest} frames and {smallest} pixels a side in {there}")
        self.sizes = torch.tensor(sizes)
        self.offsets = torch.nn.functional.pad(3 * self.sizes.prod(1).cumsum(0), (1, 0))
        self.data = torch.frombuffer(buffer, dtype=torch.uint8)

    def find(self, path: Path, largest: int) -> Iterator[tuple[str, Iterator[np.ndarray]]]:
        """(name, frames to be read) of every clip at a path, in a fixed order."""
        if path.is_dir():
            for clip in clips_below(path):
                yield str(clip), (picture_frames if clip.is_dir() else file_frames)(clip, largest)
        elif path.suffix == ".tar":
            try:
                with tarfile.open(path) as tar:
                    for member in tar:
                        if member.isfile() and Path(member.name).suffix.lower() in VIDEOS:
                            yield f"{path}:{member.name}", tar_frames(path, member, largest)
            except tarfile.TarError as error:
                self.skip(str(path), error)
        else:
            yield str(path.resolve(strict=True)), file_frames(path, largest)

    def skip(self, name: str, reason: Exception) -> None:
        self.skipped += 1
        print(f"skipped {name}: {reason}", file=sys.stderr)

    def __len__(self) -> int:
        return len(self.sizes)

    def to(self, device) -> Clips:
        self.data, self.sizes, self.offsets = (t.to(device) for t in (self.data, self.sizes, self.offsets))
        return self

    def crop(self, index: Tensor, start: Tensor, top: Tensor, left: Tensor, frames: int, size: int) -> Tensor:
        """Crops (B, frames, 3, size, size) uint8 of clips index (B,) at frames, rows and columns start, top, left (B,).

        Raises:
            ValueError: more frames or pixels than every clip is sure to have.
        """
        if frames > self.shortest or size > self.smallest:
            kept = f"clips of at least {self.shortest} frames and {self.smallest} pixels a side"
            raise ValueError(f"{frames} frames of {size}x{size} pixels do not fit {kept}")
        grid = torch.arange(max(frames, size, 3), device=self.data.device)
        height, width = self.sizes[index, 1:].T[:, :, None, None, None, None]
        times = (start[:, None] + grid[:frames])[:, :, None, None, None]
        rows = (top[:, None] + grid[:size])[:, None, None, :, None]
        columns = (left[:, None] + grid[:size])[:, None, None, None, :]
        pixels = (times * height + rows) * width + columns
        return self.data[self.offsets[index][:, None, None, None, None] + 3 * pixels + grid[:3, None, None]]

    def centre(self, index: int, frames: int, size: int) -> Tensor:
        """The middle of one clip in time and space, (1, frames, 3, size, size) float in [0, 1]."""
        room = self.sizes[index] - self.sizes.new_tensor([frames, size, size])
        return self.crop(self.sizes.new_tensor([index]), *(room // 2).split(1), frames, size).float() / 255

    def batch(self, count: int, frames: int, size: int, first: int, generator: torch.Generator) -> Tensor:
        """Random crops (count, frames, 3, size, size) float in [0, 1] of the clips from `first` on.

        Half of them are mirrored, and half run backwards.
        """

        def random() -> Tensor:
            return torch.rand(count, generator=generator, device=self.data.device)

        index = first + (random() * (len(self) - first)).long()
        room = self.sizes[index].T - self.sizes.new_tensor([frames, size, size])[:, None] + 1
        start, top, left = ((random() * places).long() for places in room)
        x = self.crop(index, start, top, left, frames, size).float() / 255
        for axis in (1, 4):
            turned = random() < 0.5
            x[turned] = x[turned].flip(axis)
        return x
