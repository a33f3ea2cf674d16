"""The decoder in a folder of its own, for machines and programs without pixa: `pixa export-decoder`.

`decoder.py` is the program in that folder; pixa itself never imports it.
"""

from __future__ import annotations

import argparse
import json
import re
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
from pixa.models.registry import ModelEntry, find_model, list_models
from pixa.pixels import Picture

FOR_DECODERS = ("name", "tag", "wire_id", "hash", "description", "synthesis_halo", "coding", "decoder")
LOSSLESS = {  # packages of pixa and their modules that decode samples, with NumPy and constriction alone
    "pixa": ("errors",),
    "pixa.bitstream": ("categorical", "chunks", "container", "deflate", "entropy", "tables"),
    "pixa.coding.lossless": ("drawings", "photographs", "symbols", "tile", "wavefront"),
}
NATIVE = '''"""Stands in the place of pixa's kernels, which are not here."""


class Kernels: ...


class Damaged(Exception): ...


def kernels() -> None: ...
'''
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
    entries = [entry, *(entry for entry in list_models() if "lossless" in entry.can)]
    for model in entries:
        (folder / model.folder.name).mkdir(parents=True)
        for name in model.decoder:
            shutil.copyfile(model.folder / name, folder / model.folder.name / name)
    facts = [{name: asdict(model)[name] for name in FOR_DECODERS} for model in entries]
    write_json(folder / "manifest.json", {"models": facts})
    write_lossless(folder / "lossless")
    (folder / "decoder.py").write_bytes(files("pixa.app.bundle").joinpath("decoder.py").read_bytes())
    (folder / "FORMAT.md").write_bytes(files("pixa.bitstream").joinpath("FORMAT.md").read_bytes())

    with Image.open(str(files("pixa.app").joinpath("samples", "coffee.png"))) as photo:
        samples = np.array(photo.convert("RGB"))[GOLDEN]
    data = encode_picture(Picture(samples), model=f"{entry.name}.{entry.tag}")
    decoder = Decoder(data)
    (folder / "golden.pixa").write_bytes(data)
    write_json(folder / "golden.json", {"symbols_sha256": decoder.symbols_sha256()})
    np.save(folder / "golden.npy", decoder.picture().samples)


def write_lossless(folder: Path) -> None:
    """The modules of LOSSLESS as one package."""
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Modules of pixa that decode samples."""\n')
    (folder / "native.py").write_text(NATIVE)
    for package, names in LOSSLESS.items():
        for name in names:
            source = files(package).joinpath(f"{name}.py").read_text(encoding="utf-8")
            source = re.sub(r"(?<=from )pixa(\.bitstream|\.coding\.lossless)?(?=[. ])", "lossless", source)
            (folder / f"{name}.py").write_text(source, encoding="utf-8")


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
