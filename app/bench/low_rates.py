"""What codecs make of pictures at their lowest rates: `python -m pixa.app.bench.low_rates PICTURE... -o DIR`.

Writes plots and measurements as `pixa bench` does, and prints tables of each metric at equal rates; `pixa bench` itself
begins where the other codecs are useful, at 0.1 bits a pixel.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pixa.app.bench.codecs import find_codec
from pixa.app.bench.curves import Curve
from pixa.app.bench.measurements import Job, Measurements, measure, metric_functions
from pixa.app.bench.metrics import BACKBONE
from pixa.app.bench.pictures import SUFFIXES, find_files, mean_curve
from pixa.app.bench.report import TITLES, plot, table
from pixa.errors import PixaError

SWEEPS = {
    "pixa:vqgan": (0, 10, 20, 35, 50, 65, 80, 100),
    "pixa:fast": (0, 10, 25),
    "avif": (0, 10, 25),
    "webp": (0, 4, 12),
    "jpeg": (1, 5, 10),
    "jxl": (0, 6, 16),
}
RATES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)


def at(curve: Curve, metric: str, rate: float) -> float | None:
    """A metric of a curve at a rate, on straight lines over log-rate between its points; None outside of them."""
    rates = curve.results["bpp"]
    if not rates or not rates[0] <= rate <= rates[-1]:
        return None
    return float(np.interp(np.log(rate), np.log(rates), curve.results[metric]))


def measured(paths: Iterable[Path], folder: Path, processes: int) -> tuple[list[Curve], list[str]]:
    """Mean curves of all codecs that are installed, and the metrics they have.

    Raises:
        UsageError: a path does not exist.
        UnsupportedInput: a file that is no picture.
    """
    pictures = find_files(paths, SUFFIXES, "picture")
    groups = ("psnr", "ssimulacra2", *(["lpips"] if os.environ.get(BACKBONE) else []))
    names = [*metric_functions(groups)]
    codecs = {name: codec for name in SWEEPS if not (codec := find_codec(name)).missing}
    jobs = [
        Job(sha256, name, codec.version, quality, path, groups, processes)
        for name, codec in codecs.items()
        for sha256, path in pictures.items()
        for quality in SWEEPS[name]
    ]
    folder.mkdir(parents=True, exist_ok=True)
    measurements = Measurements(folder)
    measurements.add("files", jobs, measure, names, processes)
    rows = measurements.find(jobs, names)
    own = {name: [row for row in rows if row["codec"] == name] for name in codecs}
    return [mean_curve(name, codec, own[name], names, len(pictures)) for name, codec in codecs.items()], names


def report(curves: Sequence[Curve], metric: str) -> str:
    """Each codec at equal rates, and at its own lowest beside the first."""
    first, *others = curves
    shown = lambda value: "" if value is None else f"{value:.3f}" if metric == "lpips" else f"{value:.1f}"
    text = f"\n## {TITLES[metric][0]} at equal rates, bits a pixel\n\n"
    text += table(
        ["codec", *(f"{rate:g}" for rate in RATES)],
        [[curve.name, *(shown(at(curve, metric, rate)) for rate in RATES)] for curve in curves],
    )
    text += f"\n## {TITLES[metric][0]} of the smallest files\n\n"
    rows = []
    for curve in others:
        rate, value = curve.results["bpp"][0], curve.results[metric][0]
        rows.append([curve.name, f"{rate:.3f}", shown(value), shown(at(first, metric, rate))])
    return text + table(["codec", "bits a pixel", metric, f"{first.name} at that rate"], rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pixa.app.bench.low_rates", description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="pictures and folders of pictures")
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("low_rates"), help="default: low_rates")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="pictures at a time")
    args = parser.parse_args(argv)
    try:
        curves, metrics = measured(args.pictures, args.output_dir, args.jobs)
    except (PixaError, OSError) as error:
        print(f"low_rates: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    for metric in metrics:
        plot(curves, metric, args.output_dir)
        print(report(curves, metric))
    return 0


if __name__ == "__main__":
    sys.exit(main())
