"""The codecs that pixa is measured against, and pixa itself, behind one table.

Every codec takes an (H, W, 3) uint8 RGB array and a quality on its own scale, higher is better, and gives a whole file.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import PIL
from PIL import Image, features

import pixa
from pixa.errors import UsageError


class Codec(Protocol):
    """What the benchmark needs of a codec.

    Attributes:
        description: settings, for tables.
        qualities: a default sweep over about 0.1 to 2 bits a pixel on the Kodak pictures.
    """

    description: str
    qualities: tuple[float, ...]

    @property
    def version(self) -> str:
        """Everything besides the settings that the bytes depend on."""

    @property
    def missing(self) -> str | None:
        """What to install before the codec can be used; None when it can."""

    def encode(self, samples: np.ndarray, quality: float) -> bytes: ...

    def decode(self, data: bytes) -> np.ndarray: ...


@dataclass(frozen=True)
class PillowCodec:
    """A format that Pillow writes, by itself (`feature`) or through a plugin module (`plugin`, `package`)."""

    format: str
    description: str
    qualities: tuple[float, ...]
    options: Callable[[float], dict]
    feature: str = ""
    plugin: str = ""
    package: str = ""

    @property
    def version(self) -> str:
        library = importlib.metadata.version(self.package) if self.plugin else features.version(self.feature)
        return f"Pillow {PIL.__version__}, {self.package or self.feature} {library}"

    @property
    def missing(self) -> str | None:
        if self.plugin:
            return None if importlib.util.find_spec(self.plugin) else f"pip install {self.package}"
        return None if features.check(self.feature) else f"a Pillow built with {self.feature}"

    def encode(self, samples: np.ndarray, quality: float) -> bytes:
        if self.plugin:
            importlib.import_module(self.plugin)
        file = io.BytesIO()
        Image.fromarray(samples).save(file, self.format, **self.options(quality))
        return file.getvalue()

    def decode(self, data: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(data), formats=[self.format]).convert("RGB"))


@dataclass(frozen=True)
class PixaCodec:
    """A pixa model at one effort."""

    model: str
    effort: int = 0
    qualities: tuple[float, ...] = tuple(range(0, 101, 10))

    @property
    def description(self) -> str:
        return f"pixa, model {self.model}, effort {self.effort}"
