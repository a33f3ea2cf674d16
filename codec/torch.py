"""Learning on compressed data: `.pixa` pictures as tensors, whole or only as far as the entropy decoder.

>>> dataset = pixa.torch.PixaDataset("packed", "latents", transform=crop)
>>> for y_hat in torch.utils.data.DataLoader(dataset, batch_size=16, num_workers=2):
...     ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from pixa.errors import Corrupt, LimitExceeded, NotPixa, PixaError, UnsupportedInput, UsageError
from pixa.image.decoder import MAX_PIXELS, Decoder
from pixa.image.picture import decode_latents, latent_size, thread_pool
from pixa.io.files import list_inputs

CONTENTS = ("pixels", "latents", "symbols")
DAMAGED = (Corrupt, LimitExceeded, NotPixa, UnsupportedInput)  # the file's own fault, not that of the installation


class Symbols(NamedTuple):
    """The integers of a picture: int16 (M, h, w), and the quality level, 0 to 200, that they were coded at."""

    y: Tensor
    level: int


def read_pixels(decoder: Decoder, rgb: bool = True) -> Tensor:
    """The samples, uint8 (C, H, W): `pixa.decode` with the channels first.

    Args:
        rgb: C is 3 of every picture, grey repeated and alpha left out; otherwise 1 to 4, as in the file.
    """
    samples = torch.from_numpy(decoder.picture().samples).permute(2, 0, 1)
    if rgb:
        samples = samples[:3] if len(samples) > 2 else samples[:1].expand(3, -1, -1)
    return samples.contiguous()


def read_latents(decoder: Decoder) -> Tensor:
    """y_hat, float32 (M, h, w) with h = ceil(H / 16) and w = ceil(W / 16): what the synthesis makes pixels of.

    At every quality these are quantised values of the same latents. Means are float: the last bits may differ from
    machine to machine, unlike symbols.
    """
    with thread_pool(decoder.nets) as pool:
        return torch.from_numpy(decode_latents(decoder.head, decoder.tiles, decoder.nets, pool))


def read_symbols(decoder: Decoder) -> Symbols:
    """The symbols that are coded of the latents: (y - mean) / step, rounded. Exact on every machine.

    Raises:
        UsageError: the picture's model has tokens, not latents.
    """
    nets, level = decoder.nets, decoder.head.level
    if "latents" not in nets.entry.can:
        raise UsageError(f"{decoder.model} codes tokens: take its latents")
    y = np.empty((nets.channels, *latent_size(decoder.width, decoder.height, nets.codec)), np.int16)
    for place, symbols in decoder.symbols():
        y[:, *place] = symbols.y
    return Symbols(torch.from_numpy(y), level)


class PixaDataset(Dataset):
    """Pictures by number, for `torch.utils.data.DataLoader`.

    Every process has a model of its own on one thread, so workers are what makes it faster; they may be forked or
    spawned. Pictures differ in size: crop them in `transform`, or load one at a time with `batch_size=None`.

    Args:
        source: a folder, taken with all below it, a picture, or a list of either.
        content: "pixels" (see `read_pixels`), "latents" (`read_latents`) or "symbols" (`read_symbols`). Only pixels
            run the synthesis.
        dtype: a floating type to convert to; pixels then go from 0 to 1.
        rgb: see `read_pixels`.
        transform: applied to every item; to be pickled when workers are spawned.
        on_error: "raise", or "skip": the item of a damaged file is None, which `collate` leaves out of its batch.
        max_pixels: larger pictures are refused before memory is taken for them.

    Attributes:
        paths: str, in the order of the items; those in a folder are sorted.

    Raises:
        PixaError: a folder holds no picture; from items, with the path, by name what is wrong with a file
            (`Corrupt`, `NotPixa`, `UnsupportedVersion`, `ModelMissing`, `LimitExceeded`; `UnsupportedInput` for a
            video).
        UsageError: an unknown content, type or way with errors, or symbols of a model that has none.
        OSError: from items: the file cannot be read.
    """

    def __init__(
        self,
        source: str | os.PathLike | Sequence[str | os.PathLike],
        content: str = "pixels",
        *,
        dtype: torch.dtype | None = None,
        rgb: bool = True,
        transform: Callable[[Any], Any] | None = None,
        on_error: str = "raise",
        max_pixels: int = MAX_PIXELS,
    ):
        if content not in CONTENTS:
            raise UsageError(f"content {content!r} is none of {', '.join(CONTENTS)}")
        if dtype is not None and not dtype.is_floating_point:
            raise UsageError(f"{dtype} is no floating type")
        if on_error not in ("raise", "skip"):
            raise UsageError(f"on_error {on_error!r} is neither raise nor skip")
        sources = [source] if isinstance(source, str | os.PathLike) else source
        self.paths = [path for path, _ in list_inputs(map(os.fspath, sources), True, {".pixa"})]
        self.content, self.dtype, self.rgb, self.transform = content, dtype, rgb, transform
        self.on_error, self.max_pixels = on_error, max_pixels
        self.met = torch.zeros(len(self.paths), dtype=torch.bool).share_memory_()

    @property
    def damaged(self) -> list[str]:
        """The paths that have been skipped so far, by all workers."""
        return [self.paths[i] for i in self.met.nonzero().flatten().tolist()]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Any:
        try:
            item = self.read(self.paths[number])
        except PixaError as error:
            if self.on_error == "raise" or not isinstance(error, DAMAGED):
                raise type(error)(f"{self.paths[number]}: {error}") from error
            self.met[number] = True
            return None
        return self.transform(item) if self.transform else item

    def read(self, path: str) -> Tensor | Symbols:
        """A picture as it is before `transform`."""
        decoder = Decoder(Path(path).read_bytes(), max_pixels=self.max_pixels, jobs=1)
        if self.content == "symbols":
            y, level = read_symbols(decoder)
            return Symbols(y if self.dtype is None else y.to(self.dtype), level)
        item = read_pixels(decoder, self.rgb) if self.content == "pixels" else read_latents(decoder)
        if self.dtype is None:
            return item
        return item.to(self.dtype).div_(255) if self.content == "pixels" else item.to(self.dtype)


def collate(items: list) -> Any:
    """`default_collate` of the items that are not None; None when there is no other."""
    whole = [item for item in items if item is not None]
    return default_collate(whole) if whole else None
