"""CompressAI's models as codecs, with the trained weights in torch hub's cache or, to measure speed, with none."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from pixa.app.bench.complexity import Complexity, count, torch_counter
from pixa.errors import UsageError
from pixa.models.nets.compressai_base import CompressionModel

# isort: split
from compressai.zoo import image as zoo  # after the line above, which makes it importable

MODELS = tuple(zoo.model_urls)
UNTRAINED_QUALITY = 4
STRIDE = 64
HEADER, LENGTH = struct.Struct("<B4H"), struct.Struct("<I")


@contextmanager
def coding() -> Iterator[None]:
    """No gradients, and denormals flushed: random weights make them, and they slow it down as trained ones do not."""
    torch.set_flush_denormal(True)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_flush_denormal(False)


@dataclass(frozen=True)
class CompressaiCodec:
    """A model trained for mean squared error, at one quality or, for None, at each that has trained weights.

    Nothing is downloaded: without trained weights there is one quality, whose rate and distortion mean nothing.
    A file holds quality, height, width and latent height and width (one byte, four uint16), then every string behind
    its length (uint32), all little-endian.

    Raises:
        UsageError: there is no such model or quality.
    """

    model: str
    quality: int | None = None
    missing = None

    def __post_init__(self):
        if self.model not in MODELS:
            raise UsageError(f"CompressAI has no model {self.model!r}; it has {', '.join(MODELS)}")
        if self.quality not in (None, *zoo.cfgs[self.model]):
            raise UsageError(f"{self.model} has qualities 1 to {max(zoo.cfgs[self.model])}, not {self.quality}")

    @cached_property
    def checkpoints(self) -> dict[int, Path]:
        """The files of trained weights that are there, by quality."""
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        files = {quality: folder / Path(url).name for quality, url in zoo.model_urls[self.model]["mse"].items()}
        wanted = files if self.quality is None else [self.quality]
        return {quality: files[quality] for quality in wanted if files[quality].is_file()}

    @property
    def trained(self) -> bool:
        return bool(self.checkpoints)

    @property
    def qualities(self) -> tuple[int, ...]:
        return tuple(self.checkpoints) or (self.quality or UNTRAINED_QUALITY,)

    @property
    def description(self) -> str:
        return f"CompressAI {self.model}, {'MSE' if self.trained else 'untrained weights'}"

    @property
    def version(self) -> str:
        weights = ", ".join(file.name for file in self.checkpoints.values()) or "untrained weights"
        return f"CompressAI {version('compressai')}, torch {torch.__version__}, {weights}"

    def network(self, quality: int) -> CompressionModel:
        return load_network(self.model, quality, self.checkpoints.get(quality))

    @coding()
    def encode(self, samples: np.ndarray, quality: int) -> bytes:
        height, width = samples.shape[:2]
        x = torch.tensor(samples).permute(2, 0, 1)[None] / 255
        x = F.pad(x, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        coded = self.network(quality).compress(x)
        strings = [LENGTH.pack(len(string)) + string for (string,) in coded["strings"]]
        return HEADER.pack(quality, height, width, *coded["shape"]) + b"".join(strings)

    @coding()
    def decode(self, data: bytes) -> np.ndarray:
        quality, height, width, *shape = HEADER.unpack_from(data)
        strings, position = [], HEADER.size
        while position < len(data):
            (length,) = LENGTH.unpack_from(data, position)
            position += LENGTH.size + length
            strings.append([data[position - length : position]])
        x_hat = self.network(quality).decompress(strings, shape)["x_hat"][0, :, :height, :width]
        return x_hat.permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()

    @staticmethod
    def limit_threads(threads: int) -> None:
        torch.set_num_threads(threads)

    def complexity(self, quality: int) -> Complexity:
        parameters = sum(parameter.numel() for parameter in self.network(quality).parameters())
        return count(self, quality, torch_counter, parameters)


@cache
def load_network(model: str, quality: int, checkpoint: Path | None) -> CompressionModel:
    """A model ready to code; without a checkpoint, its weights are drawn from a fixed seed."""
    if checkpoint:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
        network = zoo.model_architectures[model].from_state_dict(zoo.load_pretrained(weights))
    else:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            network = zoo.model_architectures[model](*zoo.cfgs[model][quality])
    network.update()
    return network.eval().requires_grad_(False)
