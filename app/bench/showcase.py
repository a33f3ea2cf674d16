"""One photograph through pixa, JPEG, WebP and AVIF at about the same size: a table, and a picture to look at."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixa.app.bench.codecs import CODECS, Codec, PixaCodec, search_quality
from pixa.app.bench.measurements import read_picture, time_coding
from pixa.app.bench.metrics import psnr_rgb
from pixa.errors import PixaError, UsageError

RIVALS = {"jpeg": "JPEG", "webp": "WebP", "avif": "AVIF"}
REPETITIONS = 3
SIZE_TOLERANCE = 1.02
CROP, ENLARGEMENT = 256, 3
EDGE, CAPTION = 12, 40


class Exhibit(NamedTuple):
    """One codec's result; times in milliseconds, PSNR in dB."""

    name: str
    size: int
    decoded: np.ndarray
    psnr: float
    encode_ms: float
    decode_ms: float

    @property
    def bpp(self) -> float:
        return 8 * self.size / (self.decoded.shape[0] * self.decoded.shape[1])


def find_sample() -> Path:
    """The first bundled photograph.

    Raises:
        UsageError: none is bundled.
    """
    samples = sorted((Path(__file__).parents[1] / "samples").glob("*.png"))
    if not samples:
        raise UsageError("no photograph is bundled: name one")
    return samples[0]


def exhibit(name: str, codec: Codec, samples: np.ndarray, quality: float) -> Exhibit:
    """Encode and decode once to warm up, then on the clock."""
    codec.decode(codec.encode(samples, quality))
    codings = [time_coding(codec, samples, quality) for _ in range(REPETITIONS)]
    data, decoded = codings[0][:2]
    encode_ms, decode_ms = (1000 * median(coding[field] for coding in codings) for field in (2, 3))
    return Exhibit(name, len(data), decoded, psnr_rgb(samples, decoded), encode_ms, decode_ms)


def compare(samples: np.ndarray, quality: float, model: str) -> list[Exhibit]:
    """pixa at `quality`, then the others, each with its best quality that is at most 2% larger than pixa's file."""
    exhibits = [exhibit("pixa", PixaCodec(model), samples, quality)]
    for key, name in RIVALS.items():
        if CODECS[key].missing:
            continue
        best, _ = search_quality(CODECS[key], samples, len, SIZE_TOLERANCE * exhibits[0].size, range(101))
        exhibits.append(exhibit(name, CODECS[key], samples, best))
    return exhibits


def table(exhibits: Sequence[Exhibit]) -> str:
    lines = [f"{'':6}{'bytes':>9}{'bpp':>8}{'PSNR dB':>9}{'encode ms':>11}{'decode ms':>11}"]
    for e in exhibits:
        lines.append(f"{e.name:6}{e.size:>9,}{e.bpp:>8.3f}{e.psnr:>9.2f}{e.encode_ms:>11.0f}{e.decode_ms:>11.0f}")
    return "\n".join(lines)


def busiest_crop(samples: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the square, of those on a half-overlapping grid, with the strongest gradients."""
    height, width = samples.shape[:2]
    side = min(CROP, height, width)
    luma = samples.mean(axis=2, dtype=np.float32)
    gradient = np.abs(np.diff(luma, axis=0))[:, 1:] + np.abs(np.diff(luma, axis=1))[1:]
    corners = [(y, x) for y in range(0, height - side + 1, side // 2) for x in range(0, width - side + 1, side // 2)]
    top, left = max(corners, key=lambda c: gradient[c[0] : c[0] + side, c[1] : c[1] + side].sum())
    return slice(top, top + side), slice(left, left + side)


def side_by_side(samples: np.ndarray, exhibits: Sequence[Exhibit]) -> Image.Image:
    """The original and every decoded picture in a row, a detail of each, enlarged, below."""
    panels = [("original", samples)]
    panels += [(f"{e.name}   {e.size:,} bytes   {e.bpp:.2f} bpp   {e.psnr:.2f} dB", e.decoded) for e in exhibits]
    rows, columns = busiest_crop(samples)
    cell = ENLARGEMENT * CROP
    sheet = Image.new("RGB", (EDGE + len(panels) * (cell + EDGE), CAPTION + 2 * (cell + EDGE)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=20)
    for index, (caption, picture) in enumerate(panels):
        left = EDGE + index * (cell + EDGE)
        draw.text((left, CAPTION // 2), caption, fill="black", font=font, anchor="lm")
        whole = Image.fromarray(picture)
        whole.thumbnail((cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(whole, (left, CAPTION))
        detail = Image.fromarray(picture[rows, columns]).resize((cell, cell), Image.Resampling.NEAREST)
        sheet.paste(detail, (left, CAPTION + whole.height + EDGE))
    return sheet.crop((0, 0, sheet.width, CAPTION + whole.height + EDGE + cell + EDGE))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pixa.app.bench.showcase", description=__doc__)
    parser.add_argument("picture", nargs="?", type=Path, help="a photograph (default: one that comes with pixa)")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo.png"), help="default: demo.png")
    parser.add_argument("-q", "--quality", type=float, default=40.0, help="of pixa, 0 to 100 (default: 40)")
    parser.add_argument("-m", "--model", default="fast", help="default: fast")
    arguments = parser.parse_args(argv)
    try:
        path = arguments.picture or find_sample()
        samples = read_picture(path)
        exhibits = compare(samples, arguments.quality, arguments.model)
        print(f"{path.name}, {samples.shape[1]}x{samples.shape[0]}\n{table(exhibits)}")
        side_by_side(samples, exhibits).save(arguments.output)
    except (PixaError, OSError) as error:
        print(f"showcase: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    print(f"side by side: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
