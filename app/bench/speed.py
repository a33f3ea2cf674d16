"""How long pixa takes next to AVIF and CompressAI's models, in one run, and how much memory large pictures need."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
from PIL import AvifImagePlugin

from pixa.app.bench.codecs import CODECS, Codec, PixaCodec, find_codec, search_quality
from pixa.app.bench.costs import peak_memory
from pixa.app.bench.measurements import read_picture, time_coding
from pixa.app.bench.metrics import psnr_rgb
from pixa.errors import PixaError, UsageError

LARGE = {"12 megapixels": (3000, 4000), "48 megapixels": (6000, 8000)}
COMPRESSAI_QUALITY = 4


def find_rivals(samples: np.ndarray, pixa: PixaCodec, quality: float, models: Sequence[str]) -> list[tuple]:
    """(name, codec, quality) of AVIF at the highest PSNR not above pixa's, and of CompressAI's models.

    A model is called MODEL or MODEL@QUALITY; without a quality it is the fourth.

    All are limited to the threads of `pixa`.

    Raises:
        UsageError: Pillow cannot write AVIF, CompressAI is not installed or has no such model.
    """
    avif = CODECS["avif"]
    if avif.missing:
        raise UsageError(f"the comparison needs {avif.missing}")
    AvifImagePlugin.DEFAULT_MAX_THREADS = pixa.threads
    reached = psnr_rgb(samples, pixa.decode(pixa.encode(samples, quality)))
    psnr_of = lambda data: psnr_rgb(samples, avif.decode(data))
    avif_quality, _ = search_quality(avif, samples, psnr_of, reached, range(101))
    rivals = [("AVIF speed 6", avif, avif_quality)]
    for model in models:
        name = model if "@" in model else f"{model}@{COMPRESSAI_QUALITY}"
        codec = find_codec(f"compressai:{name}")
        codec.limit_threads(pixa.threads or os.cpu_count())
        codec.decode(codec.encode(samples, codec.quality))
        rivals.append((name if codec.trained else f"{name} untrained", codec, codec.quality))
    return rivals


def compare(
    samples: np.ndarray, contestants: Sequence[tuple[str, Codec, float]], repetitions: int
) -> tuple[str, np.ndarray]:
    """A table of bytes, PSNR and median times, and the times in milliseconds: encoding and decoding of each contestant.

    They take turns, so that what else the machine does falls on all. An untrained network has neither bytes nor PSNR.
    """
    turns = [[time_coding(codec, samples, quality) for _, codec, quality in contestants] for _ in range(repetitions)]
    lines = [f"{'':30}{'quality':>9}{'bytes':>9}{'PSNR dB':>9}{'encode ms':>11}{'decode ms':>11}"]
    times = []
    for (name, codec, quality), codings in zip(contestants, zip(*turns, strict=True), strict=True):
        times.append([1000 * median(coding[field] for coding in codings) for field in (2, 3)])
        size, psnr = f"{len(codings[0].data):,}", f"{psnr_rgb(samples, codings[0].decoded):.2f}"
        if not codec.trained:
            size = psnr = "-"
        lines.append(f"{name:30}{quality:>9g}{size:>9}{psnr:>9}{times[-1][0]:>11.1f}{times[-1][1]:>11.1f}")
    return "\n".join(lines), np.array(times)


def ratios(names: Sequence[str], times: np.ndarray) -> str:
    """The times (contestants, 2) of all but the first in those of the first."""
    pairs = zip(names[1:], times[1:] / times[0], strict=True)
    return "\n".join(f"{f'{name} / {names[0]}':57}{e:>10.2f}x{d:>10.2f}x" for name, (e, d) in pairs)


def memory(picture: Path, codec: PixaCodec, quality: float) -> str:
    """A table of the peak memory of encoding and decoding large pictures."""
    lines = [f"{'peak memory, MiB':30}{'encode':>9}{'decode':>9}"]
    for name, shape in LARGE.items():
        peaks = peak_memory(codec, picture, quality, shape)
        lines.append(f"{name:30}{peaks.encoding:>9.0f}{peaks.decoding:>9.0f}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pixa.app.bench.speed", description=__doc__)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("-q", "--quality", type=float, default=60.0, help="of pixa, 0 to 100 (default: 60)")
    parser.add_argument("-m", "--model", default="fast", help="default: fast")
    parser.add_argument("-e", "--effort", type=int, default=0, help="of pixa, 0 to 9 (default: 0)")
    parser.add_argument("-r", "--repetitions", type=int, default=9, help="default: 9")
    parser.add_argument("--threads", type=int, default=2, help="of all codecs (default: 2)")
    parser.add_argument("--compressai", nargs="+", default=[], metavar="MODEL[@QUALITY]", help="also CompressAI's")
    parser.add_argument("--memory", action="store_true", help="also the peak memory of 12 and 48 megapixels")
    arguments = parser.parse_args(argv)
    pixa = PixaCodec(arguments.model, effort=arguments.effort, threads=arguments.threads)
    try:
        total = 0
        for picture in arguments.pictures:
            samples = read_picture(picture)
            contestants = [(f"pixa {pixa.model}", pixa, arguments.quality)]
            contestants += find_rivals(samples, pixa, arguments.quality, arguments.compressai)
            names = [name for name, *_ in contestants]
            table, times = compare(samples, contestants, arguments.repetitions)
            print(f"{picture.name}, {samples.shape[1]}x{samples.shape[0]}, {arguments.threads} threads each")
            print(table, ratios(names, times), sep="\n", flush=True)
            total += times
        if len(arguments.pictures) > 1:
            print(f"all {len(arguments.pictures)} pictures together", ratios(names, total), sep="\n")
        if arguments.memory:
            print("\n" + memory(arguments.pictures[0], pixa, arguments.quality))
    except PixaError as error:
        print(f"speed: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
