"""The files of a model, read and compared with the hashes that name them."""

from __future__ import annotations

import hashlib
import zlib
from io import BytesIO
from zipfile import BadZipFile

import numpy as np

from pixa.bitstream.delta import read_delta
from pixa.errors import ModelMissing
from pixa.models.registry import ModelEntry


def check_files(entry: ModelEntry) -> None:
    """Compare the decoder's files with the hash that names them.

    Raises:
        ModelMissing: a file is missing or altered.
    """
    digest = hashlib.sha256()
    for name in entry.decoder:
        digest.update(read(entry, name))
    if digest.hexdigest()[:8] != entry.hash:
        raise ModelMissing(f"the weights of {entry.name}.{entry.tag} are altered: their hash does not match")


def native_graphs(entry: ModelEntry) -> dict[str, bytes]:
    """The native graphs of a model, by name.

    Raises:
        ModelMissing: as `check_files`.
    """
    if not entry.native:
        return {}
    try:
        with np.load(BytesIO(read(entry, "native.npz")), allow_pickle=False) as arrays:
            graphs = {
                name: read_delta(arrays[f"{name}_runs"], arrays[f"{name}_own"], read(entry, f"{name}.onnx"))
                for name in entry.native
            }
    except (ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        graphs = {}
    if hashlib.sha256(b"".join(graphs.values())).hexdigest()[:8] != entry.native_hash:
        raise ModelMissing(f"the weights of {entry.name}.{entry.tag} are altered: their hash does not match")
    return graphs


def read(entry: ModelEntry, name: str) -> bytes:
    """The content of a file of a model.

    Raises:
        ModelMissing: it is missing.
    """
    path = entry.folder / name
    if not path.is_file():
        raise ModelMissing(f"the weights of {entry.name}.{entry.tag} are incomplete: {name} is missing")
    return path.read_bytes()
