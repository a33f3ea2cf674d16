"""Drawn pictures for training: `python -m pixa.datasets.drawn FOLDER --count N` writes them as PNG.

Interfaces, text, charts, line art, pixel art, patterns, gradients and flat areas in any colours: what photographs do
not prepare a model for.
"""

from __future__ import annotations

import argparse
import random
import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 512
Colour = tuple[int, int, int]
PURE: list[Colour] = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)]


def colour(rng: random.Random) -> Colour:
    """Often black, white, grey or pure, as programs and fonts have it; otherwise any."""
    kind = rng.random()
    if kind < 0.3:
        return rng.choice([(0, 0, 0), (255, 255, 255), (255, 255, 255)])
    if kind < 0.5:
        return (rng.randrange(256),) * 3
    if kind < 0.65:
        return rng.choice(PURE)
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def words(rng: random.Random, count: int) -> str:
    letters = string.ascii_lowercase * 3 + string.ascii_uppercase + string.digits
    return " ".join("".join(rng.choices(letters, k=rng.randint(1, 9))) for _ in range(count))


def text(rng: random.Random) -> Image.Image:
    """Lines of words in one size on a plain ground."""
    image = Image.new("RGB", (SIDE, SIDE), colour(rng))
    draw, ink, top = ImageDraw.Draw(image), colour(rng), 4
    while top < SIDE:
        size = rng.choice([10, 11, 12, 13, 14, 16, 20, 28, 44])
        draw.text((rng.randint(0, 30), top), words(rng, 16), ink, ImageFont.load_default(size))
        top += round(1.3 * size)
    return image


def interface(rng: random.Random) -> Image.Image:
    """Rectangles with rims and labels, some rounded."""
    image = Image.new("RGB", (SIDE, SIDE), colour(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(5, 60)):
        left, top = rng.randrange(SIDE), rng.randrange(SIDE)
        box = [left, top, left + rng.randint(8, 240), top + rng.randint(8, 120)]
        rim = {"outline": colour(rng), "width": rng.randint(1, 3)} if rng.random() < 0.5 else {}
        draw.rounded_rectangle(box, rng.choice([0, 0, 4, 9]), colour(rng), **rim)
        draw.text((left + 5, top + 3), words(rng, 2), colour(rng), ImageFont.load_default(rng.choice([11, 13, 16])))
    return image


def lines(rng: random.Random) -> Image.Image:
    """Curves, lines and discs, as in charts and maps."""
    image = Image.new("RGB", (SIDE, SIDE), colour(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(4, 30)):
        x, y = rng.randrange(SIDE), rng.randrange(SIDE)
        points = [(x, y)]
        for _ in range(rng.randint(1, 25)):
            points.append((points[-1][0] + rng.randint(-50, 50), points[-1][1] + rng.randint(-50, 50)))
        draw.line(points, colour(rng), rng.randint(1, 5))
        radius = rng.randint(2, 40)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], colour(rng) if rng.random() < 0.5 else None)
    return image


def pattern(rng: random.Random) -> Image.Image:
    """Stripes or checks of a few pixels in two colours, straight or slanted."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    size, kind = rng.randint(1, 24), rng.randrange(4)
    phase = [rows // size, columns // size, rows // size + columns // size, (rows + columns) // size][kind] % 2
    return Image.fromarray(np.array([colour(rng), colour(rng)], np.uint8)[phase])


def gradient(rng: random.Random) -> Image.Image:
    """From one colour to another, straight across."""
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    share = np.clip(rng.random() * rows + rng.random() * columns, 0, 1)[..., None]
    first, second = np.array(colour(rng)), np.array(colour(rng))
    return Image.fromarray((first + share * (second - first)).round().astype(np.uint8))


def pixel_art(rng: random.Random) -> Image.Image:
    """A few colours in cells of several pixels."""
    palette = np.array([colour(rng) for _ in range(rng.randint(2, 16))], np.uint8)
    scale = rng.choice([2, 4, 8, 16])
    cells = np.random.default_rng(rng.randrange(2**32)).integers(len(palette), size=(SIDE // scale, SIDE // scale))
    return Image.fromarray(palette[cells]).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def flat(rng: random.Random) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), colour(rng))


KINDS: tuple[Callable[[random.Random], Image.Image], ...] = (
    text,
    interface,
    interface,
    text,
    lines,
    pattern,
    gradient,
    pixel_art,
    flat,
    flat,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.count):
        KINDS[number % len(KINDS)](rng).save(arguments.folder / f"{number:04}.png")


if __name__ == "__main__":
    main()
