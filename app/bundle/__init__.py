"""The decoder in a folder of its own, for machines and programs without pixa: `pixa export-decoder`.

`decoder.py` is the program in that folder; pixa itself never imports it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from pixa.errors import PixaError, UsageError
from pixa.image.decoder import Decoder
from pixa.image.picture import encode_picture
from pixa.models.registry import ModelEntry, find_model
from pixa.pixels import Picture

FOR_DECODERS = ("name", "tag", "wire_id", "hash", "description", "synthesis_halo", "decoder")
GOLDEN = (slice(40, 340), slice(150, 371))  # rows and columns of a bundled photograph, neither of whole latents


def export_decoder(folder: Path, model: str = "fast") -> ModelEntry:
    """Write a folder that decodes pictures of a model with numpy, onnxruntime and constriction alone.

    It holds decoder.py, FORMAT.md, the model's files as its manifest names them, and a golden file for the self-test.

    Args:
        folder: must not exist yet, or be empty.
        model: `name` or `name.tag`.

    Raises:
        UsageError: the model codes no pictures, or codes them as tokens.
        ModelMissing: it is not installed.
        PixaError: the folder holds something, or cannot be written.
    """
    entry = find_model(model)
    if "bundle" not in entry.can:
        raise UsageError(f"{entry.name} codes {entry.coding}: the decoder in a folder is for pictures of latents")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise PixaError(f"{folder} exists and is no empty folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pixa-", dir=folder.parent) as temporary:
            whole = Path(temporary) / "decoder"
            write(whole, entry)
            if folder.exists():
                folder.rmdir()
            whole.rename(folder)
    except OSError as error:
        raise PixaError(f"cannot write {folder}: {error.strerror or error}") from error
    return entry


def write(folder: Path, entry: ModelEntry) -> None:
    weights = folder / entry.folder.name
    weights.mkdir(parents=True)
    for name in entry.decoder:
        shutil.copyfile(entry.folder / name, weights / name)
    facts = asdict(entry)
    write_json(folder / "manifest.json", {"models": [{name: facts[name] for name in FOR_DECODERS}]})
    (folder / "decoder.py").write_bytes(files("pixa.app.bundle").joinpath("decoder.py").read_bytes())
    (folder / "FORMAT.md").write_bytes(files("pixa.bitstream").joinpath("FORMAT.md").read_bytes())

    with Image.open(str(files("pixa.app").joinpath("samples", "coffee.png"))) as photo:
        samples = np.array(photo.convert("RGB"))[GOLDEN]
    data = encode_picture(Picture(samples), model=f"{entry.name}.{entry.tag}")
    decoder = Decoder(data)
    (folder / "golden.pixa").write_bytes(data)
    write_json(folder / "golden.json", {"symbols_sha256": decoder.symbols_sha256()})
    np.save(folder / "golden.npy", decoder.picture().samples)


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="pixa export-decoder",
        description="Write a folder that decodes .pixa pictures without pixa: one Python file to read beside "
        "FORMAT.md, the model, and a self-test. It needs numpy, onnxruntime and constriction.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="must not exist yet, or be empty")
    parser.add_argument("-m", "--model", default="fast", help="see `pixa models` (fast)")
    arguments = parser.parse_args(argv)
    entry = export_decoder(arguments.folder, arguments.model)
    program = arguments.folder / "decoder.py"
    print(f"{arguments.folder}: decodes {entry.name}.{entry.tag}; try: python {program} --self-test", file=sys.stderr)
    return 0
