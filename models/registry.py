"""The shipped models, read from weights/manifest.json with the standard library alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

from pixa.errors import ModelMissing, UsageError

TUNES = ("eye", "psnr")  # what quality can mean in training: what people see, or squared error
ABILITIES = (
    "pictures",
    "key frames",  # of videos
    "inter frames",
    "search",  # efforts that search latents with gradients
    "latents",  # its symbols are latents that a network can learn on, and are read by `pixa.torch`
    "lossless",  # pictures of which every sample comes back
    "bundle",  # the decoder in a folder and the one in a browser decode it
)
RETIRED = {  # wire ids that are never used again, with the last commit that reads files of each model
    1: ("fast.1", "628aa45"),
    3: ("stem.1", "628aa45"),
    5: ("vqgan.1", "628aa45"),
    7: ("stem.2", "628aa45"),
    8: ("stem.3", "628aa45"),
    10: ("fast.3", "8c823bf"),
}


@dataclass(frozen=True)
class ModelEntry:
    """Facts of one set of trained weights, `name.tag`.

    Attributes:
        wire_id: number of the architecture and its weights in files, written by hand, never reused.
        hash: first eight hexadecimal digits of the SHA-256 of the decoder's files.
        decoder: the files the decoder needs, in the order they are hashed.
        encoder: the files only the encoder needs.
        analysis_halo, synthesis_halo: latent rows (16 pixels each, 8 for tokens) a window needs beyond its edge.
        key_model: of a model of inter frames, the `name.tag` of the image model of their key frames.
        tune: what its training took for quality, one of TUNES.
        coding: what a tile holds, a module of `pixa.coding`: "latents", "inter", "tokens" or "lossless".
        can: what it is for, of ABILITIES.
        reduced: first eight hexadecimal digits of the SHA-256 of reduced.npz, the synthesis of small pictures, if any.
        native: graphs that native decoders run in another form, see `pixa.models.export.native`; native.npz has them.
        native_hash: first eight hexadecimal digits of the SHA-256 of these.
    """

    name: str
    tag: str
    wire_id: int
    tune: str
    hash: str
    description: str
    decode_kmac_per_pixel: float
    parameters: int
    analysis_halo: int
    synthesis_halo: int
    decoder: tuple[str, ...] = field(repr=False)
    encoder: tuple[str, ...] = field(repr=False)
    coding: str = "latents"
    can: tuple[str, ...] = ()
    key_model: str = ""
    reduced: str = ""
    native: tuple[str, ...] = field(default=(), repr=False)
    native_hash: str = ""

    @property
    def codes_videos(self) -> bool:
        return bool({"key frames", "inter frames"} & set(self.can))

    @property
    def folder(self) -> Path:
        return weights_folder() / f"{self.name}.{self.tag}"


def weights_folder() -> Path:
    return Path(str(files("pixa.weights").joinpath("manifest.json"))).parent


@cache
def list_models() -> tuple[ModelEntry, ...]:
    """Every shipped model, oldest first; of several tags of a name, the last is the default."""
    manifest = json.loads((weights_folder() / "manifest.json").read_text())
    return tuple(
        ModelEntry(**{name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()})
        for entry in manifest["models"]
    )


def find_model(name: str, tune: str | None = None) -> ModelEntry:
    """The newest model called `name` or `name.tag`, of a tune if one is asked for.

    Raises:
        ModelMissing: there is none of that name; the message lists those there are.
        UsageError: there is none of that tune.
    """
    named = [entry for entry in list_models() if name in (entry.name, f"{entry.name}.{entry.tag}")]
    if not named:
        check_retired(name)
        known = ", ".join(f"{entry.name}.{entry.tag}" for entry in list_models())
        raise ModelMissing(f"no model is called {name!r}; installed: {known}")
    tuned = [entry for entry in named if tune in (None, entry.tune)]
    if not tuned:
        raise UsageError(f"the model {name} has no tune {tune!r}")
    return tuned[-1]


def find_wire(wire_id: int, model_hash: int) -> ModelEntry:
    """The model that a file names.

    Raises:
        ModelMissing: the id is unknown or its weights are others than the file was made with.
    """
    for entry in list_models():
        if entry.wire_id == wire_id:
            if int(entry.hash, 16) == model_hash:
                return entry
            raise ModelMissing(f"model {entry.name}.{entry.tag} is installed with other weights than the file needs")
    check_retired(RETIRED[wire_id][0] if wire_id in RETIRED else None)
    raise ModelMissing(f"model number {wire_id} is not installed: a newer pixa may have it")


def check_retired(name: str | None) -> None:
    """Say of a retired model what reads its files.

    Raises:
        ModelMissing: the model `name.tag` is one of them.
    """
    commit = dict(RETIRED.values()).get(name)
    if commit:
        raise ModelMissing(f"the model {name} is retired: commit {commit} of pixa is the last to read its files")
