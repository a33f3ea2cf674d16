"""What a token costs: `python -m pixa.app.bench.token_costs PICTURE...` compares the bits that a token has by the
entropy model and takes in files with the logarithm of the size of its codebook, with a static table and with zlib."""

from __future__ import annotations

import argparse
import math
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixa.app.bench.measurements import read_picture
from pixa.bitstream.tables import TOTAL
from pixa.coding.tokens import is_nested, spread
from pixa.errors import PixaError, UsageError
from pixa.image.decoder import Decoder
from pixa.image.picture import encode_picture
from pixa.pixels import Picture

GRIDS = ("1/32", "1/16", "1/8")


def tokens_of(decoder: Decoder) -> tuple[list[list[np.ndarray]], np.ndarray]:
    """The tokens of every tile, by grid, and last its map, all flat; and what the entropy model gives the tokens, bits
    by grid."""
    nets, level, found, bits = decoder.nets, decoder.head.level, [], np.zeros(len(GRIDS))
    nested, side = is_nested(nets, level), nets.arrays["known_group"].shape[1]

    for _, symbols in decoder.symbols():

        def take(
            grid: int, rates: np.ndarray, rows: np.ndarray, columns: np.ndarray, member: bool, index=symbols.index
        ):
            tokens = index[grid][rows, columns]
            digits = tokens if nested else tokens % side if member else tokens // side
            bits[grid] += np.log2(TOTAL / rates[np.arange(len(rates)), digits]).sum()
            return digits

        nets.prior.walk(symbols.stop, nested, take)
        grids = [index[spread(symbols.stop >= grid, 1 << grid)] for grid, index in enumerate(symbols.index)]
        found.append([*grids, symbols.stop.ravel()])
    return found, bits


def static_bits(tokens: np.ndarray) -> float:
    """Bits of tokens under the table of their own frequencies, which no decoder would have."""
    counts = np.unique(tokens, return_counts=True)[1]
    return float((counts * np.log2(counts.sum() / counts)).sum())


def zlib_bytes(tiles: Sequence[Sequence[np.ndarray]]) -> int:
    """Of a picture: the maps of its tiles as bytes, then grid by grid the tokens as 16-bit numbers."""
    *grids, stops = map(np.concatenate, zip(*tiles, strict=True))
    return len(zlib.compress(stops.astype(np.uint8).tobytes() + b"".join(g.astype("<u2").tobytes() for g in grids), 9))


def report(paths: Sequence[Path], model: str, quality: float) -> str:
    """A table of bits a token over all pictures.

    Raises:
        UsageError: the model has no tokens.
    """
    tiles, coded, zipped, pixels, modelled = [], 0, 0, 0, np.zeros(len(GRIDS))
    for path in paths:
        samples = read_picture(path)
        decoder = Decoder(encode_picture(Picture(samples), quality, model=model))
        if decoder.nets.entry.coding != "tokens":
            raise UsageError(f"{model} has no tokens")
        found, bits = tokens_of(decoder)
        tiles += found
        modelled += bits
        zipped += zlib_bytes(found)
        coded += sum(map(len, decoder.tiles))
        pixels += samples.shape[0] * samples.shape[1]
    grids = [np.concatenate(parts) for parts in list(zip(*tiles, strict=True))[:3]]
    count = sum(map(len, grids))
    nested = bool(decoder.nets.arrays["nested"][decoder.head.level])
    size = decoder.nets.arrays["centroids" if nested else "codes"].shape[1]
    static = [static_bits(tokens) for tokens in grids]
    costs = {
        f"log2 of {size} codes, the map left out": math.log2(size),
        "a static table, the map left out": sum(static) / count,
        "the entropy model, the map left out": modelled.sum() / count,
        "zlib, level 9": 8 * zipped / count,
        "in the files": 8 * coded / count,
    }
    lines = [f"{len(paths)} pictures, {model}, quality {quality:g}: {count} tokens, {8 * coded / pixels:.4f} bpp"]
    lines += [f"{cost:8.3f} bits a token  {name}" for name, cost in costs.items()]
    for name, tokens, *bits in zip(GRIDS, grids, static, modelled, strict=True):
        table, own = np.array(bits) / max(len(tokens), 1)
        lines.append(
            f"grid {name}: {len(tokens)} tokens, {100 * len(np.unique(tokens)) / size:.0f}% of the codes in use, "
            f"{table:.3f} bits by a static table, {own:.3f} by the entropy model"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pixa.app.bench.token_costs", description=__doc__)
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    parser.add_argument("-m", "--model", default="vqgan", help="%(default)s")
    parser.add_argument("-q", "--quality", type=float, default=60.0, help="%(default)s")
    args = parser.parse_args(argv)
    try:
        print(report(args.pictures, args.model, args.quality))
    except (PixaError, OSError) as error:
        print(f"token_costs: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
