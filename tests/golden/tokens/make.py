"""Writes the golden files of the model `vqgan`, pictures as tokens, and what a decoder must find in them.

    python tests/golden/tokens/make.py

Run it after the shipped weights have changed, and look at the difference before it is committed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from pixa.image.decoder import Decoder
from pixa.image.picture import encode_picture
from pixa.io.image import picture_to_image
from pixa.pixels import Picture

HERE = Path(__file__).parent


def sample(name: str, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A crop of a bundled photograph, (height, width, 3)."""
    with Image.open(HERE.parents[2] / "app" / "samples" / f"{name}.png") as photo:
        return np.array(photo.convert("RGB"))[top : top + height, left : left + width]


def golden_files() -> dict[str, bytes]:
    """The files, named by colour, size and quality; below 18.5 tokens are nested."""
    coffee, chelsea = sample("coffee", 120, 240, 96, 128), sample("chelsea", 60, 150, 141, 163)
    wide, mask = sample("coffee", 200, 0, 40, 600), np.full((96, 128, 1), 255, np.uint8)
    mask[20:60, 30:90] = 0
    encode = lambda samples, quality: encode_picture(Picture(samples), quality, model="vqgan")
    return {
        "rgb-128x96-q0-nested": encode(coffee, 0),
        "rgb-163x141-q12-nested": encode(chelsea, 12),
        "rgb-128x96-q18.5": encode(coffee, 18.5),
        "rgb-163x141-q50": encode(chelsea, 50),
        "rgb-128x96-q100": encode(coffee, 100),
        "rgb-600x40-q60-tiles": encode(wide, 60),
        "rgba-128x96-q70": encode(np.concatenate([coffee, mask], 2), 70),
        "grey-1x1-q60": encode(np.full((1, 1), 90, np.uint8), 60),
    }


def main() -> None:
    for old in (*HERE.glob("*.pixa"), *HERE.glob("*.png")):
        old.unlink()
    expected = {}
    for name, data in golden_files().items():
        decoder = Decoder(data)
        (HERE / f"{name}.pixa").write_bytes(data)
        picture_to_image(decoder.picture()).save(HERE / f"{name}.png", optimize=True)
        expected[name] = {"symbols_sha256": decoder.symbols_sha256()}
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
