"""How long pixa takes next to AVIF at equal PSNR and threads, in one run, and how much memory large pictures need."""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from PIL import AvifImagePlugin

from pixa.app.codecs import CODECS, PixaCodec, search_quality
from pixa.app.measurements import read_picture, time_coding
from pixa.app.metrics import psnr_rgb
from pixa.errors import PixaError, UsageError

LARGE = {"12 megapixels": (3000, 4000), "48 megapixels": (6000, 8000)}


def compare(samples: np.ndarray, pixa: PixaCodec, quality: float, repetitions: int) -> str:
    """A table of bytes, PSNR and median times of pixa and of AVIF at the highest PSNR not above pixa's.

    The two take turns, so that what else the machine does falls on both.

    Raises:
        UsageError: Pillow cannot write AVIF.
    """
    avif = CODECS["avif"]
    if avif.missing:
        raise UsageError(f"the comparison needs {avif.missing}")
    AvifImagePlugin.DEFAULT_MAX_THREADS = pixa.threads
    reached = psnr_rgb(samples, pixa.decode(pixa.encode(samples, quality)))
    psnr_of = lambda data: psnr_rgb(samples, avif.decode(data))
    avif_quality, _ = search_quality(avif, samples, psnr_of, reached, range(101))
    contestants = {
        f"pixa {pixa.model} q{quality:g}": (pixa, quality),
        f"AVIF speed 6 q{avif_quality}": (avif, avif_quality),
    }
    codings = {name: [] for name in contestants}
    for _ in range(repetitions):
        for name, (codec, at) in contestants.items():
            codings[name].append(time_coding(codec, samples, at))

    lines = [f"{'':22}{'bytes':>9}{'PSNR dB':>9}{'encode ms':>11}{'decode ms':>11}"]
    times = []
    for name, runs in codings.items():
        encoding, decoding = (1000 * median(run[field] for run in runs) for field in (2, 3))
        times.append((encoding, decoding))
        psnr = psnr_rgb(samples, runs[0].decoded)
        lines.append(f"{name:22}{len(runs[0].data):>9,}{psnr:>9.2f}{encoding:>11.1f}{decoding:>11.1f}")
    ratios = [other / own for own, other in zip(*times, strict=True)]
    lines.append(f"{'AVIF / pixa':40}{ratios[0]:>10.2f}x{ratios[1]:>10.2f}x")
    return "\n".join(lines)


def peak_mebibytes() -> float:
    """The most memory this process ever had, in MiB (`ru_maxrss` counts KiB on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def encode_mosaic(picture: Path, shape: tuple[int, int], codec: PixaCodec, quality: float, output: Path) -> float:
    """Encode a picture repeated to (height, width), save the file, and tell the peak memory in MiB."""
    tile = read_picture(picture)
    rows, columns = (np.arange(size) % period for size, period in zip(shape, tile.shape, strict=False))
    output.write_bytes(codec.encode(tile[rows[:, None], columns], quality))
    return peak_mebibytes()


def decode_file(path: Path, codec: PixaCodec) -> float:
    """Decode a file and tell the peak memory in MiB."""
    codec.decode(path.read_bytes())
    return peak_mebibytes()


def memory(picture: Path, codec: PixaCodec, quality: float) -> str:
    """A table of the peak memory of encoding and decoding large pictures, each in a process of its own.

    To be called before anything large is loaded here: a child starts with its parent's peak on the books.
    """
    lines = [f"{'peak memory, MiB':22}{'encode':>9}{'decode':>9}"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "large.pixa"
        for name, shape in LARGE.items():
            encoding = in_new_process(encode_mosaic, picture, shape, codec, quality, file)
            decoding = in_new_process(decode_file, file, codec)
            lines.append(f"{name:22}{encoding:>9.0f}{decoding:>9.0f}")
    return "\n".join(lines)


def in_new_process(function, *arguments) -> float:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pixa.app.speed", description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("-q", "--quality", type=float, default=60.0, help="of pixa, 0 to 100 (default: 60)")
    parser.add_argument("-m", "--model", default="fast", help="default: fast")
    parser.add_argument("-e", "--effort", type=int, default=0, help="of pixa, 0 to 9 (default: 0)")
    parser.add_argument("-r", "--repetitions", type=int, default=9, help="default: 9")
    parser.add_argument("--threads", type=int, default=2, help="of both codecs (default: 2)")
    parser.add_argument("--memory", action="store_true", help="also the peak memory of 12 and 48 megapixels")
    arguments = parser.parse_args(argv)
    codec = PixaCodec(arguments.model, arguments.effort, arguments.threads)
    try:
        if arguments.memory:
            print(memory(arguments.picture, codec, arguments.quality), end="\n\n")
        samples = read_picture(arguments.picture)
        print(f"{arguments.picture.name}, {samples.shape[1]}x{samples.shape[0]}, {arguments.threads} threads each")
        print(compare(samples, codec, arguments.quality, arguments.repetitions))
    except PixaError as error:
        print(f"speed: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
