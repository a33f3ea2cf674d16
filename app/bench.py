"""`pixa bench`: pictures x codecs x qualities, measured on real files and decoded pictures."""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from pixa.app.codecs import CODECS, find_codec
from pixa.app.measurements import Job, Measurements, metric_functions
from pixa.app.metrics import METRICS
from pixa.app.report import Curve, markdown, plot
from pixa.errors import PixaError, UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm")


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """`paths`, with the pictures in a folder in the place of the folder.

    Raises:
        UsageError: a path does not exist, or there is no picture.
    """
    pictures = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
        if path.is_dir():
            pictures += sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        else:
            pictures.append(path)
    if not pictures:
        raise UsageError("there is no picture in the given folders")
    return pictures


def mean_curve(name: str, rows: Sequence[dict], metrics: Iterable[str]) -> Curve:
    """Means over pictures at every quality, None for a metric that a picture does not have."""
    processes = max(row["processes"] for row in rows)
    description = find_codec(name).description
    if processes > 1:
        description += f" (times not comparable: {processes} processes side by side)"
    results = {}
    for field in ("bpp", *metrics, "encoding_time", "decoding_time"):
        sweeps = {}
        for row in rows:
            sweeps.setdefault(row["quality"], []).append(row[field])
        results[field] = [
            float(np.mean(values)) if all(v is not None and math.isfinite(v) for v in values) else None
            for values in sweeps.values()
        ]
    return Curve(name, description, results, timed=processes == 1)


def run(
    paths: Iterable[Path],
    codecs: Sequence[str],
    folder: Path,
    *,
    metrics: Sequence[str] = ("psnr",),
    anchor: str = "webp",
    published: Sequence[Curve] = (),
    processes: int = 1,
) -> str:
    """Measure, and write to `folder`: NAME.json a codec, rows.csv, bench.md, and rd-METRIC.png and .svg.

    Args:
        paths: pictures and folders of pictures.
        codecs: names as `find_codec` knows them; one that is not installed is left out with a line on stderr.
        metrics: groups of metrics, keys of `pixa.app.metrics.METRICS`.
        anchor: a codec or published curve that the table compares with.
        published: curves to add to table and plots.
        processes: pictures measured at a time; times mean something only with 1.

    Returns:
        The Markdown table.

    Raises:
        UsageError: an unknown codec, metric or anchor, a path that does not exist, an extra that is not installed.
        UnsupportedInput: a file that is no picture.
    """
    if not (find_spec("scipy") and find_spec("matplotlib")):
        raise UsageError("the benchmark needs: pip install 'pixa[bench]'")
    pictures = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in find_pictures(paths)}
    for name in codecs:
        if find_codec(name).missing:
            print(f"{name} is left out: it needs {find_codec(name).missing}", file=sys.stderr)
    versions = {name: find_codec(name).version for name in codecs if not find_codec(name).missing}
    names = [*metric_functions(metrics)]
    if processes < 1:
        raise UsageError(f"{processes} processes cannot measure anything")
    if anchor not in [*versions, *(curve.name for curve in published)]:
        raise UsageError(f"the anchor {anchor!r} is neither measured nor published")
    jobs = [
        Job(sha256, name, version, quality, path, tuple(metrics), processes)
        for name, version in versions.items()
        for sha256, path in pictures.items()
        for quality in find_codec(name).qualities
    ]
    folder.mkdir(parents=True, exist_ok=True)
    measurements = Measurements(folder)
    measurements.add(jobs, processes)
    rows = [measurements.rows[job.key] for job in jobs]

    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    curves = [mean_curve(name, [row for row in rows if row["codec"] == name], names) for name in versions]
    for curve in curves:
        curve.write(folder)
    curves += published
    table = markdown(curves, next(c for c in curves if c.name == anchor), names, len(pictures))
    (folder / "bench.md").write_text(table)
    for metric in names:
        plot(curves, metric, folder)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="pixa bench",
        description="Measure codecs on pictures: tables with BD-rates, plots, and results in CompressAI's schema.",
        epilog="example: pixa bench kodak/ -o results --codecs pixa:fast,webp,avif -j 2",
    )
    parser.add_argument("pictures", nargs="+", type=Path, help="pictures and folders of pictures")
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("bench"), help="default: bench")
    parser.add_argument("--codecs", default=",".join(CODECS), help="of %(default)s, pixa:MODEL@EFFORT (default: all)")
    parser.add_argument("--metrics", default="psnr", help=f"of {','.join(METRICS)} (default: psnr)")
    parser.add_argument("--anchor", default="webp", help="what BD-rates are against (default: webp)")
    parser.add_argument("--curves", nargs="+", type=Path, default=[], metavar="FILE", help="published curves to add")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="pictures at a time; times count only with 1")
    arguments = parser.parse_args(argv)
    try:
        table = run(
            arguments.pictures,
            arguments.codecs.split(","),
            arguments.output_dir,
            metrics=arguments.metrics.split(","),
            anchor=arguments.anchor,
            published=[Curve.read(path) for path in arguments.curves],
            processes=arguments.jobs,
        )
    except (PixaError, OSError) as error:
        print(f"pixa bench: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
