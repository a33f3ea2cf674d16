"""Training pictures: folders and tar packs read into one flat uint8 buffer, random crops made on the device."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff"}


def read_files(paths: list[Path]) -> Iterator[tuple[str, bytes]]:
    """(name, file content) of every picture under the given folders, tar packs and files, in a fixed order."""
    for path in paths:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.suffix.lower() in SUFFIXES:
                    yield str(file), file.read_bytes()
        elif path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    if Path(member.name).suffix.lower() in SUFFIXES:
                        yield f"{path}:{member.name}", tar.extractfile(member).read()
        else:
            yield str(path), path.read_bytes()


def read_picture(item: tuple[str, bytes]) -> np.ndarray | None:
    """(H, W, 3) uint8, or None with a warning on stderr when the file cannot be read."""
    name, content = item
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # any decoder error of any format: count it and go on
        print(f"skipped {name}: {error}", file=sys.stderr)
        return None


class Pictures:
    """Pictures of any sizes in one uint8 buffer on one device.

    Args:
        paths: folders, tar packs or picture files.
        smallest: pictures with a shorter side are left out.

    Attributes:
        skipped: number of files that could not be read or were too small.
    """

    def __init__(self, paths: list[Path], smallest: int):
        with ThreadPoolExecutor() as pool:
            arrays = list(pool.map(read_picture, read_files([Path(p) for p in paths])))
        kept = [a for a in arrays if a is not None and min(a.shape[:2]) >= smallest]
        if not kept:
            raise ValueError(f"no picture of at least {smallest} pixels a side in {', '.join(map(str, paths))}")
        self.skipped = len(arrays) - len(kept)
        self.sizes = torch.tensor([a.shape[:2] for a in kept])
        self.offsets = torch.tensor([0] + [a.size for a in kept]).cumsum(0)
        self.data = torch.from_numpy(np.concatenate([a.reshape(-1) for a in kept]))

    def __len__(self) -> int:
        return len(self.sizes)

    def to(self, device) -> Pictures:
        self.data, self.sizes, self.offsets = (t.to(device) for t in (self.data, self.sizes, self.offsets))
        return self

    def crop(self, index: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
        """Crops (B, 3, size, size) uint8 of pictures index (B,) at rows top (B,) and columns left (B,)."""
        grid = torch.arange(size, device=self.data.device)
        rows = (top[:, None] + grid)[:, :, None]
        columns = (left[:, None] + grid)[:, None, :]
        pixels = self.offsets[index][:, None, None] + (rows * self.sizes[index, 1][:, None, None] + columns) * 3
        channels = torch.arange(3, device=self.data.device)[:, None, None]
        return self.data[pixels[:, None] + channels]

    def centre(self, index: int, size: int) -> Tensor:
        """The central crop of one picture, (1, 3, size, size) float in [0, 1]."""
        corner = (self.sizes[index] - size) // 2
        return self.crop(torch.tensor([index]), corner[:1], corner[1:], size).float() / 255

    def batch(self, count: int, size: int, first: int, halved: float, generator: torch.Generator) -> Tensor:
        """Random crops (count, 3, size, size) in [0, 1] of the pictures from `first` on, mirrored half of the time.

        A share `halved` of the crops is taken at twice the size and averaged 2x2 where the picture is large enough,
        which removes what is left of earlier compression and widens the range of scales.
        """
        device = self.data.device

        def random(n: int = count) -> Tensor:
            return torch.rand(n, generator=generator, device=device)

        index = first + (random() * (len(self) - first)).long()
        large = (random() < halved) & (self.sizes[index].amin(1) >= 2 * size)
        x = torch.empty(count, 3, size, size, device=device)
        for scale, rows in ((1, ~large), (2, large)):
            chosen = index[rows]
            if len(chosen):
                room = self.sizes[chosen] - scale * size + 1
                top = (random(len(chosen)) * room[:, 0]).long()
                left = (random(len(chosen)) * room[:, 1]).long()
                crops = self.crop(chosen, top, left, scale * size).float() / 255
                x[rows] = torch.nn.functional.avg_pool2d(crops, scale) if scale > 1 else crops
        mirrored = random() < 0.5
        x[mirrored] = x[mirrored].flip(3)
        return x
