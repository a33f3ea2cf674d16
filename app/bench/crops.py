"""A page of details at equal size: `python -m pixa.app.bench.crops PICTURE... -o docs/crops` writes a Markdown page and
its pictures, pixa beside the other codecs, each with its best quality within the bytes of pixa's file, or with `--bpp`
within so many bits a pixel."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixa.app.bench.codecs import Codec, find_codec, search_quality
from pixa.app.bench.measurements import read_picture
from pixa.app.bench.metrics import BACKBONE, lpips, psnr_rgb, ssimulacra2
from pixa.errors import PixaError, UsageError

CODECS = ("pixa:vqgan", "pixa:fast", "avif", "webp", "jpeg")
QUALITIES = (50.0, 80.0)
CROP, COLUMNS, EDGE, CAPTION = 256, 3, 8, 40
WEBP = 82  # quality of the sheets, far above what differs between panels
TOLERANCE = 1.02


class Detail(NamedTuple):
    """Where to look, in pixels."""

    left: int
    top: int

    def of(self, samples: np.ndarray) -> np.ndarray:
        return samples[self.top : self.top + CROP, self.left : self.left + CROP]


class Panel(NamedTuple):
    """One codec's picture; `note` says what the reader must know of its size."""

    name: str
    samples: np.ndarray
    size: int
    note: str = ""

    def facts(self, original: np.ndarray) -> list[str]:
        height, width = original.shape[:2]
        near = lpips(original, self.samples) if os.environ.get(BACKBONE) else None
        return [
            self.name,
            f"{self.size:,}{self.note}",
            f"{8 * self.size / (width * height):.3f}",
            f"{psnr_rgb(original, self.samples):.2f}",
            f"{ssimulacra2(original, self.samples):.1f}",
            "" if near is None else f"{near:.3f}",
        ]


def panels(original: np.ndarray, codecs: Sequence[tuple[str, Codec]], limit: float) -> list[Panel]:
    """Every codec's best within `limit` bytes, give or take 2%; one that cannot get so small at its smallest."""
    shown = []
    for name, codec in codecs:
        _, file = search_quality(codec, original, len, TOLERANCE * limit, range(101))
        note = f" ({len(file) / limit:.1f} times)" if len(file) > TOLERANCE * limit else ""
        shown.append(Panel(name, codec.decode(file), len(file), note))
    return shown


def detail_of(samples: np.ndarray, word: str = "") -> Detail:
    """The place `word` names as LEFT,TOP, or the square with the strongest gradients.

    Raises:
        UsageError: there is no such place.
    """
    height, width = samples.shape[:2]
    if word:
        found = re.fullmatch(r"(\d+),(\d+)", word)
        if not found or int(found[1]) + CROP > width or int(found[2]) + CROP > height:
            raise UsageError(f"{word!r} is no LEFT,TOP of a detail of {CROP} pixels in {width}x{height}")
        return Detail(int(found[1]), int(found[2]))
    luma = samples.mean(axis=2, dtype=np.float32)
    gradient = np.abs(np.diff(luma, axis=0))[:, 1:] + np.abs(np.diff(luma, axis=1))[1:]
    step = CROP // 4
    places = [
        Detail(x, y)
        for y in range(0, max(1, height - CROP + 1), step)
        for x in range(0, max(1, width - CROP + 1), step)
    ]
    return max(places, key=lambda place: place.of(gradient).sum())


def sheet(original: np.ndarray, shown: Sequence[Panel], place: Detail) -> Image.Image:
    """The detail of the original and of every panel, pixel by pixel, in rows of `COLUMNS`."""
    cells = [("original", "", original), *((p.name, f"{p.size:,} bytes{p.note}", p.samples) for p in shown)]
    width, height = CROP + EDGE, CAPTION + CROP + EDGE
    result = Image.new("RGB", (EDGE + COLUMNS * width, -(-len(cells) // COLUMNS) * height), "white")
    draw, font = ImageDraw.Draw(result), ImageFont.load_default(size=15)
    for number, (name, size, samples) in enumerate(cells):
        left, top = EDGE + number % COLUMNS * width, number // COLUMNS * height
        draw.text((left, top + 2), f"{name}\n{size}", fill="black", font=font)
        result.paste(Image.fromarray(np.ascontiguousarray(place.of(samples))), (left, top + CAPTION))
    return result


def page(
    pictures: Sequence[str], codecs: Sequence[str], qualities: Sequence[float], rates: Sequence[float], folder: Path
) -> str:
    """The text of the page; its pictures are written into `folder`.

    Args:
        pictures: files, each alone or as FILE@LEFT,TOP with the place of the detail.
        qualities: of the first codec, whose files set the size.
        rates: in bits a pixel, in the place of qualities if there are any.

    Raises:
        UsageError: an unknown codec, one that is not installed, or a place outside the picture.
    """
    known = [(name, find_codec(name)) for name in codecs]
    for name, codec in known:
        if codec.missing:
            raise UsageError(f"{name} needs: {codec.missing}")
    words = " ".join(
        [
            *(Path(picture).name for picture in pictures),
            "--codecs",
            ",".join(codecs),
            "--bpp" if rates else "--qualities",
            ",".join(f"{number:g}" for number in rates or qualities),
        ]
    )
    lines = [
        "# Details at equal size",
        "",
        f"`python -m pixa.app.bench.crops {words}` made this page. Every codec has its best quality within "
        f"{'that rate' if rates else 'the bytes of the file of the first one'}; where it cannot get so small, its "
        "smallest file is shown, and how many times larger it is.",
    ]
    for picture in pictures:
        name, _, word = picture.partition("@")
        original = read_picture(Path(name))
        place = detail_of(original, word)
        for number in rates or qualities:
            size = number * original.shape[0] * original.shape[1] / 8
            shown = panels(original, known, size if rates else len(known[0][1].encode(original, number)))
            file = f"{Path(name).stem}-{place.left}-{place.top}-{'bpp' if rates else 'q'}{number:g}.webp"
            sheet(original, shown, place).save(folder / file, quality=WEBP, method=6)
            at = f"{number:g} bits a pixel" if rates else f"quality {number:g}"
            lines += [
                "",
                f"## {Path(name).stem} at {place.left},{place.top}, {at}",
                "",
                f"![]({folder.name}/{file})",
                "",
            ]
            lines += ["| codec | bytes | bpp | PSNR | SSIMULACRA 2 | LPIPS |", "|---|---|---|---|---|---|"]
            lines += [f"| {' | '.join(panel.facts(original))} |" for panel in shown]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pixa.app.bench.crops", description=__doc__)
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="a file, or FILE@LEFT,TOP to choose the detail")
    parser.add_argument("--codecs", default=",".join(CODECS), help="the first sets the size (%(default)s)")
    parser.add_argument("--qualities", default=",".join(f"{q:g}" for q in QUALITIES), help="of the first (%(default)s)")
    parser.add_argument("--bpp", default="", metavar="RATES", help="bits a pixel for all, in the place of qualities")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/crops"), help="page and folder (%(default)s)")
    args = parser.parse_args(argv)
    try:
        qualities, rates = ([float(word) for word in text.split(",") if word] for text in (args.qualities, args.bpp))
        args.output.mkdir(parents=True, exist_ok=True)
        text = page(args.pictures, args.codecs.split(","), qualities, rates, args.output)
        args.output.with_suffix(".md").write_text(text)
    except (PixaError, OSError, ValueError) as error:
        print(f"crops: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    print(args.output.with_suffix(".md"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
