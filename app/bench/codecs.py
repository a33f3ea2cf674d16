"""The codecs that pixa is measured against, and pixa itself, behind one table.

Every codec takes an (H, W, 3) uint8 RGB array and a quality on its own scale, higher is better, and gives a whole file.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import PIL
from PIL import Image, features

import pixa
from pixa.errors import UsageError
from pixa.models.registry import ModelEntry, find_model, list_models

if TYPE_CHECKING:
    from pixa.app.bench.complexity import Complexity


CODING = ("", "bitstream/", "runtime/", "coding/", "image/")  # folders of the package that encode and decode pictures


class Codec(Protocol):
    """What the benchmark needs of a codec.

    Attributes:
        description: settings, for tables.
        qualities: a default sweep over about 0.1 to 2 bits a pixel on the Kodak pictures.
        trained: False for a network with random weights, of which only speed and costs mean something.
    """

    description: str
    qualities: tuple[float, ...]
    trained: bool

    @property
    def version(self) -> str:
        """What the bytes depend on besides picture and quality."""

    @property
    def missing(self) -> str | None:
        """What to install before the codec can be used; None when it can."""

    def encode(self, samples: np.ndarray, quality: float) -> bytes: ...

    def decode(self, data: bytes) -> np.ndarray: ...

    def complexity(self, quality: float) -> Complexity | None:
        """What its networks take; None where there is none."""


def whole_quality(quality: float) -> dict:
    return {"quality": int(quality)}


def bits_per_pixel(quality: float) -> dict:
    return {"quality_layers": [24 / quality]}


@dataclass(frozen=True)
class PillowCodec:
    """A format that Pillow writes, by itself (`feature`) or through a plugin module (`plugin`, `package`).

    Attributes:
        template: the description, with the names of `options` in braces.
        options: arguments of `Image.save` that are always the same.
        quality_option: the argument that carries the quality.
        speed: the option that `NAME@NUMBER` sets, such as "speed" or "effort".
    """

    format: str
    template: str
    qualities: tuple[float, ...]
    options: dict = field(default_factory=dict)
    quality_option: Callable[[float], dict] = whole_quality
    feature: str = ""
    plugin: str = ""
    package: str = ""
    speed: str = ""
    trained = True

    @property
    def description(self) -> str:
        return self.template.format(**self.options)

    def at_speed(self, number: int) -> PillowCodec:
        return replace(self, options=self.options | {self.speed: number})

    @property
    def version(self) -> str:
        library = importlib.metadata.version(self.package) if self.plugin else features.version(self.feature)
        return f"Pillow {PIL.__version__}, {self.package or self.feature} {library}, {self.options}"

    @property
    def missing(self) -> str | None:
        if self.plugin:
            return None if importlib.util.find_spec(self.plugin) else f"pip install {self.package}"
        return None if features.check(self.feature) else f"a Pillow built with {self.feature}"

    def load(self) -> None:
        if self.plugin:
            importlib.import_module(self.plugin)

    def encode(self, samples: np.ndarray, quality: float) -> bytes:
        self.load()
        file = io.BytesIO()
        Image.fromarray(samples).save(file, self.format, **self.options, **self.quality_option(quality))
        return file.getvalue()

    def decode(self, data: bytes) -> np.ndarray:
        self.load()
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def complexity(self, quality: float) -> None:
        return None


@dataclass(frozen=True)
class PixaCodec:
    """A pixa model at one effort, on `threads` threads, 0 for all cores; of several tunes None takes the default."""

    model: str
    tune: str | None = None
    effort: int = 0
    threads: int = 0
    qualities: tuple[float, ...] = tuple(range(0, 101, 10))
    missing = None
    trained = True

    @property
    def description(self) -> str:
        return f"pixa, model {self.model}, tune={self.entry.tune}, effort {self.effort}"

    @property
    def entry(self) -> ModelEntry:
        return find_model(self.model, self.tune)

    @property
    def version(self) -> str:
        weights = weights_sha256(self.entry)[:16]
        return f"pixa {pixa.__version__}, code {code_sha256()[:16]}, {self.model} {weights}"

    def encode(self, samples: np.ndarray, quality: float) -> bytes:
        settings = {"model": self.model, "tune": self.tune, "effort": self.effort, "jobs": self.threads}
        return pixa.encode(samples, quality=quality, **settings)

    def decode(self, data: bytes) -> np.ndarray:
        return pixa.decode(data, jobs=self.threads)

    def complexity(self, quality: float) -> Complexity:
        from pixa.app.bench.complexity import count, onnx_counter

        return count(self, quality, onnx_counter, self.entry.parameters)


@cache
def code_sha256() -> str:
    """SHA-256 over the source of what encodes pictures: a change of the encoder changes the bytes too."""
    package = Path(pixa.__file__).parent
    sources = sorted(path for folder in CODING for path in package.glob(f"{folder}*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


@cache
def weights_sha256(entry: ModelEntry) -> str:
    """SHA-256 over all files of a model, also those of the encoder: they change the bytes within the same format."""
    digest = hashlib.sha256()
    for name in entry.decoder + entry.encoder:
        digest.update((entry.folder / name).read_bytes())
    return digest.hexdigest()


def pixa_codecs() -> dict[str, PixaCodec]:
    """The installed models of pictures, and behind them their other tunes as pixa:MODEL-TUNE."""
    pictures = [entry for entry in list_models() if "pictures" in entry.can]
    codecs = {f"pixa:{entry.name}": PixaCodec(entry.name) for entry in pictures}
    others = [entry for entry in pictures if entry.tune != find_model(entry.name).tune]
    return codecs | {f"pixa:{entry.name}-{entry.tune}": PixaCodec(entry.name, entry.tune) for entry in others}


def avif(tune: str) -> PillowCodec:
    """AVIF of libaom, tuned for the eye (`iq`, what libavif takes by itself for still pictures) or for `psnr`."""
    return PillowCodec(
        format="AVIF",
        template=f"AVIF, speed {{speed}}, 4:4:4, tune={tune}",
        qualities=(2, 8, 14, 20, 27, 34, 41, 48, 55, 62, 69, 76, 83),
        options={"speed": 6, "subsampling": "4:4:4", "codec": "aom", "advanced": {"tune": tune}},
        feature="avif",
        speed="speed",
    )


CODECS: dict[str, Codec] = {
    **pixa_codecs(),
    "jpeg": PillowCodec(
        format="JPEG",
        template="JPEG, 4:2:0, optimised Huffman tables",
        qualities=(4, 7, 11, 16, 23, 32, 42, 54, 66, 76, 84, 89, 92),
        options={"subsampling": "4:2:0", "optimize": True},
        feature="jpg",
    ),
    "jpeg2000": PillowCodec(
        format="JPEG2000",
        template="JPEG 2000, 9/7 wavelet, quality is bits a pixel",
        qualities=(0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.3, 1.7, 2.2),
        options={"quality_mode": "rates", "irreversible": True, "mct": 1},
        quality_option=bits_per_pixel,
        feature="jpg_2000",
    ),
    "webp": PillowCodec(
        format="WEBP",
        template="WebP, method {method}",
        qualities=(0, 1, 3, 7, 13, 22, 34, 48, 62, 74, 80, 85, 90),
        options={"method": 6},
        speed="method",
        feature="webp",
    ),
    "avif": avif("iq"),
    "avif-psnr": avif("psnr"),
    "jxl": PillowCodec(
        format="JXL",
        template="JPEG XL, effort {effort}",
        qualities=(1, 4, 8, 14, 22, 32, 43, 54, 65, 75, 82, 88),
        options={"effort": 7},
        speed="effort",
        plugin="pillow_jxl",
        package="pillow-jxl-plugin",
    ),
}


def find_codec(name: str) -> Codec:
    """The codec called `name`: a key of `CODECS`, for some with "@SPEED", "pixa:MODEL[-TUNE][@EFFORT]" or
    "compressai:MODEL[@QUALITY]".

    Raises:
        UsageError: there is none, or CompressAI is not installed.
        ModelMissing: pixa has no such model.
    """
    if name in CODECS:
        return CODECS[name]
    base, at, number = name.partition("@")
    family, _, model = base.partition(":")
    rival = CODECS.get(base)
    dialled = family in ("pixa", "compressai") or bool(getattr(rival, "speed", ""))
    if not dialled or (at and not number.isdecimal()):
        known = ", ".join([*CODECS, "avif@SPEED", "pixa:MODEL@EFFORT", "compressai:MODEL@QUALITY"])
        raise UsageError(f"no codec is called {name!r}; there are {known}")
    if rival and family != "pixa":
        return rival.at_speed(int(number))
    if family == "pixa":
        model, dash, tune = model.partition("-")
        find_model(model, tune if dash else None)
        return PixaCodec(model, tune if dash else None, int(number or 0))
    if not importlib.util.find_spec("compressai"):
        raise UsageError(f"{name} needs: pip install compressai")
    from pixa.app.bench.compressai_codec import CompressaiCodec

    return CompressaiCodec(model, int(number) if number else None)


def search_quality(
    codec: Codec, samples: np.ndarray, measure: Callable[[bytes], float], limit: float, qualities: Sequence[int]
) -> tuple[int, bytes]:
    """The highest of rising whole `qualities` whose file measures at most `limit`, or the lowest, and that file.

    Args:
        measure: grows with quality, such as the length of the file or its PSNR.
    """
    encode = cache(lambda quality: codec.encode(samples, quality))
    above = bisect_right(qualities, limit, key=lambda quality: measure(encode(quality)))
    quality = qualities[max(above - 1, 0)]
    return quality, encode(quality)
