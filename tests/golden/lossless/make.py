"""Writes the golden files of the model `lossless`, and the hashes of the samples that a decoder must find in them.

    python tests/golden/lossless/make.py

A file that is there once stays as it is: run this to add one.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import pixa

HERE = Path(__file__).parent


def photo(height: int, width: int) -> np.ndarray:
    with Image.open(HERE.parents[2] / "app" / "samples" / "coffee.png") as image:
        return np.array(image.convert("RGB"))[120 : 120 + height, 240 : 240 + width]


def drawing(height: int, width: int) -> np.ndarray:
    """Words and shapes (height, width, 3) in a few colours."""
    image = Image.new("RGB", (width, height), (250, 248, 240))
    draw = ImageDraw.Draw(image)
    for k in range(6):
        draw.rectangle((9 * k, 7 * k, 9 * k + 20, 7 * k + 11), fill=(40 * k, 200 - 30 * k, 90), outline="black")
        draw.text((4, 10 * k), "every sample", fill=(20, 30, 120))
    return np.array(image)


def blocks() -> np.ndarray:
    """Rectangles (200, 240, 3) of more colours than a palette holds."""
    rng = np.random.default_rng(2)
    return rng.integers(0, 256, (100, 60, 3), np.uint8).repeat(2, 0).repeat(4, 1)


def pictures() -> dict[str, np.ndarray]:
    coffee, words = photo(64, 96), drawing(60, 90)
    rows, columns = np.mgrid[:40, :56]
    ramp = (rows * 900 + columns * 311).astype(np.uint16)
    return {
        "photograph-rgb-96x64": coffee,
        "photograph-grey-alpha-96x64": np.stack(
            [coffee[..., 1], np.repeat(np.arange(64, dtype=np.uint8)[:, None], 96, 1)], 2
        ),
        "photograph-rgb-16bit-48x32": coffee[:32, :48].astype(np.uint16) * 257 + 3 * coffee[:32, 1:49],
        "palette-rgb-90x60": words,
        "palette-grey-1x1": np.full((1, 1), 200, np.uint8),
        "palette-grey-1040x9-tiles": np.tile(np.uint8([0, 255, 255, 0, 255]), (9, 208)),
        "components-rgb-240x200": blocks(),
        "gradient-grey-16bit-56x40": ramp,
        "near-rgb-alpha-48x40": np.concatenate([coffee[:40, :48], coffee[:40, 48:, :1]], 2),
    }


def main() -> None:
    expected = {}
    for name, samples in pictures().items():
        path = HERE / f"{name}.pixa"
        if not path.exists():
            path.write_bytes(pixa.encode(samples, lossless=True, near=3 if name.startswith("near") else 0))
        expected[name] = {"symbols_sha256": pixa.Decoder(path.read_bytes()).symbols_sha256()}
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
