"""The architectures by key: what trainer, export and restoration need to know of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pixa.models.export import fast_graphs, mlic_graphs, stem_graphs
from pixa.models.export.backbone_graphs import analysis, hyper, synthesis
from pixa.models.export.graph import Network
from pixa.models.nets.backbone import Backbone, BackboneConfig
from pixa.models.nets.fast import Fast, FastConfig
from pixa.models.nets.mlic import Mlic, MlicConfig
from pixa.models.nets.stem import Stem, StemConfig


class Architecture(NamedTuple):
    """One architecture.

    Attributes:
        key: of the architecture.
        name: of the models that it makes.
        scales, means: the networks of the passes, in order.
        passes: (P, M, 2) booleans, whether pass p codes channel c where (row + column) % 2 is 0 and 1; or (P, M, 4),
            the positions of every 2x2 square row by row.
        extras: what else a decoder runs.
        coding, can: of its models, see `pixa.models.registry.ModelEntry`.
    """

    key: str
    name: str
    description: str
    model: type[Backbone]
    config: type[BackboneConfig]
    scales: Callable[[Backbone], list[Network]]
    means: Callable[[Backbone], list[Network]]
    passes: Callable[[Backbone], np.ndarray]
    extras: Callable[[Backbone], list[Network]] = lambda model: []
    coding: str = "latents"
    can: tuple[str, ...] = ("pictures", "key frames", "search", "latents", "bundle")

    @property
    def inter(self) -> bool:
        """Whether it codes inter frames."""
        return "inter frames" in self.can


FAST = Architecture(
    "fast",
    "fast",
    "transforms at 1/8 and 1/16 resolution, exact scales, means in four passes; the default",
    Fast,
    FastConfig,
    fast_graphs.scales,
    fast_graphs.means,
    fast_graphs.passes,
)
MLIC = Architecture(
    "mlic",
    "mlic",
    "deeper transforms, exact scales, means from local, channel and global context of slices; for quality",
    Mlic,
    MlicConfig,
    mlic_graphs.scales,
    mlic_graphs.means,
    mlic_graphs.passes,
)
STEM = Architecture(
    "stem",
    "stem",
    "the frames of a video between key frames: block motion, residual latents, scales that see past symbols",
    Stem,
    StemConfig,
    stem_graphs.scales,
    stem_graphs.means,
    stem_graphs.passes,
    stem_graphs.extras,
    coding="inter",
    can=("inter frames",),
)
ARCHITECTURES = {architecture.key: architecture for architecture in (FAST, MLIC, STEM)}


def architecture_of(model: Backbone) -> Architecture:
    return next(architecture for architecture in ARCHITECTURES.values() if type(model) is architecture.model)


def make(key: str, config: dict, **options) -> Backbone:
    """A model with fresh weights; `options` are those of its class."""
    architecture = ARCHITECTURES[key]
    return architecture.model(architecture.config(**config), **options)


def encoder(model: Backbone) -> list[Network]:
    """What only an encoder runs."""
    return [analysis(model), hyper(model)]


def decoder(model: Backbone) -> list[Network]:
    """What a decoder runs, in the order in which its files are hashed."""
    architecture = architecture_of(model)
    passes = [*architecture.scales(model), *architecture.means(model)]
    return [*passes, synthesis(model), *architecture.extras(model)]
