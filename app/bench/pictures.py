"""`pixa bench`: pictures x codecs x qualities, measured on real files and decoded pictures."""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from pixa.app.bench.codecs import CODECS, Codec, find_codec
from pixa.app.bench.costs import COSTS, measure_costs
from pixa.app.bench.curves import Curve
from pixa.app.bench.measurements import Failure, Job, Measurements, measure, metric_functions, read_picture
from pixa.app.bench.metrics import METRICS
from pixa.app.bench.report import markdown, plot
from pixa.errors import PixaError, UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm")
TIMES = ("encoding_time", "decoding_time")
EPILOG = """\
more codecs:
  pixa:MODEL[-TUNE][@EFFORT]    a model of `pixa models`, tune eye or psnr, effort 0 to 9
  avif@SPEED, avif-psnr@SPEED   AVIF at speed 0 to 10; likewise jxl@EFFORT and webp@METHOD
  compressai:MODEL[@QUALITY]    CompressAI's, such as mbt2018-mean; trained where torch hub's cache has the weights,
                                otherwise only speed, memory and complexity are told

AVIF is tuned for the eye as libavif does by itself for still pictures (tune=iq), avif-psnr for PSNR: compare each by
what it was tuned for.

Metrics that need more: butteraugli the program butteraugli_main (in Debian of libjxl-devtools); lpips the package
lpips, and in PIXA_LPIPS_BACKBONE the path of an .npz with the weights of SqueezeNet 1.1 under torchvision's names; vgg
in PIXA_VGG_BACKBONE that of VGG-16 under Keras's.

With --video, clips in the place of pictures: see `pixa bench --video --help`.

example: pixa bench kodak/ -o results --codecs pixa:fast,webp,avif --metrics psnr,ms-ssim -j 2
"""


def find_files(paths: Iterable[Path], suffixes: Collection[str], kind: str) -> dict[str, Path]:
    """`paths` by the SHA-256 of their content, with the files of such suffixes in a folder in the place of the folder.

    Raises:
        UsageError: a path does not exist, or there is no file; the message says of which `kind`.
    """
    files = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
        inside = sorted(path.iterdir()) if path.is_dir() else []
        files += [file for file in inside if file.suffix.lower() in suffixes] if path.is_dir() else [path]
    if not files:
        raise UsageError(f"there is no {kind} in the given folders")
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in files}


class Benchmark(NamedTuple):
    """What a run found: the Markdown table, and what could not be measured."""

    table: str
    failures: Sequence[Failure]


def means(rows: Sequence[dict], fields: Iterable[str], files: int) -> dict[str, list[float | None]]:
    """Means over files at every quality that all of them have, the lowest first; None where one lacks a field."""
    sweeps = [[row for row in rows if row["quality"] == q] for q in sorted({row["quality"] for row in rows})]
    complete = [sweep for sweep in sweeps if len(sweep) == files]
    columns = {field: [[row[field] for row in sweep] for sweep in complete] for field in fields}
    return {field: [None if None in values else fmean(values) for values in lists] for field, lists in columns.items()}


def mean_curve(name: str, codec: Codec, rows: Sequence[dict], metrics: Sequence[str], pictures: int) -> Curve:
    """A codec's means over pictures, with what it costs."""
    processes = max((row["processes"] for row in rows), default=1)
    description = codec.description
    if processes > 1:
        description += f" (times not comparable: {processes} processes side by side)"
    results = means(rows, ("bpp", *metrics, *TIMES), pictures)
    costs = {field: row[field] for row in rows for field in COSTS if field in row}
    if processes == 1 and results["bpp"]:
        costs |= {field: fmean(results[field]) for field in TIMES}
    return Curve(name, description, results, costs, trained=codec.trained)


def spread(qualities: Sequence[float], points: int | None) -> Sequence[float]:
    """That many of a sweep's qualities, from the lowest to the highest; all for None.

    Raises:
        UsageError: fewer than two.
    """
    if points is not None and points < 2:
        raise UsageError(f"a curve needs 2 points, not {points}")
    if points is None or points >= len(qualities):
        return qualities
    return [qualities[round(i * (len(qualities) - 1) / (points - 1))] for i in range(points)]


def check_anchor(anchor: str, names: Iterable[str]) -> None:
    """Refuse, before anything is measured, to compare with a curve that will not be there.

    Raises:
        UsageError: no curve has that name.
    """
    if anchor not in names:
        raise UsageError(f"the anchor {anchor!r} is not among the measured and published curves")


def write_results(
    folder: Path, rows: Sequence[dict], curves: Sequence[Curve], metrics: Sequence[str], table: str
) -> None:
    """Write rows.csv, bench.md, NAME.json for a measured curve, and rd-METRIC.png and .svg."""
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(field for row in rows for field in row))
        writer.writeheader()
        writer.writerows(rows)
    for curve in curves:
        if not curve.published:
            curve.write(folder)
    (folder / "bench.md").write_text(table)
    for metric in metrics:
        plot(curves, metric, folder)


def run(
    paths: Iterable[Path],
    codecs: Sequence[str],
    folder: Path,
    *,
    metrics: Sequence[str] = ("psnr",),
    anchor: str = "webp",
    published: Sequence[Curve] = (),
    points: int | None = None,
    processes: int = 1,
) -> Benchmark:
    """Measure, and write to `folder`: NAME.json a codec, rows.csv, bench.md, and rd-METRIC.png and .svg.

    A codec that fails on a picture is named on stderr, and that quality is left out of its curve.

    Args:
        paths: pictures and folders of pictures.
        codecs: names as `find_codec` knows them; one that is not installed is left out with a line on stderr.
        metrics: groups of metrics, keys of `pixa.app.bench.metrics.METRICS`.
        anchor: a codec or published curve that the table compares with.
        published: curves to add to table and plots.
        points: qualities of every codec, spread over its sweep; None for all.
        processes: pictures measured at a time; times mean something only with 1.

    Raises:
        UsageError: an unknown codec, metric or anchor, a path that does not exist, an extra that is not installed.
        UnsupportedInput: a file that is no picture.
    """
    if not all(find_spec(package) for package in ("matplotlib", "onnx", "scipy", "tqdm")):
        raise UsageError("the benchmark needs: pip install 'pixa[bench]'")
    if processes < 1:
        raise UsageError(f"{processes} processes cannot measure anything")
    pictures = find_files(paths, SUFFIXES, "picture")
    known = {name: find_codec(name) for name in codecs}
    for name, codec in known.items():
        if codec.missing:
            print(f"{name} is left out: it needs {codec.missing}", file=sys.stderr)
    present = {name: codec for name, codec in known.items() if not codec.missing}
    names = [*metric_functions(metrics)]
    check_anchor(anchor, [*(n for n, codec in present.items() if codec.trained), *(curve.name for curve in published)])
    sweeps = {name: spread(codec.qualities, points) for name, codec in present.items()}
    jobs = [
        Job(sha256, name, codec.version, quality, path, tuple(metrics), processes)
        for name, codec in present.items()
        for sha256, path in pictures.items()
        for quality in sweeps[name]
    ]
    largest = max(pictures.values(), key=lambda path: read_picture(path).size)
    middle = {name: sweep[len(sweep) // 2] for name, sweep in sweeps.items()}
    costly = [job for job in jobs if (job.path, job.quality) == (largest, middle[job.codec])]
    folder.mkdir(parents=True, exist_ok=True)
    measurements = Measurements(folder)
    measurements.add("files", jobs, measure, names, processes)
    measurements.add("memory and complexity", costly, measure_costs, COSTS)
    rows = measurements.find(jobs, names)
    curves = [
        mean_curve(name, codec, [row for row in rows if row["codec"] == name], names, len(pictures))
        for name, codec in present.items()
    ]
    curves += published
    table = markdown(curves, next(c for c in curves if c.name == anchor), names, len(pictures))
    write_results(folder, rows, curves, names, table)
    return Benchmark(table, measurements.failures)


def build_parser(kind: str, codecs: str, metrics: Iterable[str], anchor: str, **texts: str) -> argparse.ArgumentParser:
    """The options that benchmarks of all kinds of files have.

    Args:
        kind: of files, in the plural.
        codecs, anchor: those taken by default.
        metrics: all there are.
        texts: program, description and epilog.
    """
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, **texts)
    parser.add_argument("files", nargs="+", type=Path, metavar=kind, help=f"{kind} and folders of {kind}")
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("bench"), help="default: bench")
    parser.add_argument("--codecs", default=codecs, help="default: %(default)s; more below")
    parser.add_argument("--metrics", default="psnr", help=f"of {','.join(metrics)} (default: psnr)")
    parser.add_argument("--anchor", default=anchor, help="what BD-rates are against (default: %(default)s)")
    parser.add_argument("--curves", nargs="+", type=Path, default=[], metavar="FILE", help="published curves to add")
    parser.add_argument("--points", type=int, help="qualities of every codec, spread over its sweep (default: all)")
    return parser


def conclude(run: Callable[..., Benchmark], arguments: argparse.Namespace, **settings) -> int:
    """Run a benchmark as the options of `build_parser` say and print its table; returns the exit code.

    Args:
        settings: further arguments of `run`.
    """
    try:
        benchmark = run(
            arguments.files,
            arguments.codecs.split(","),
            arguments.output_dir,
            metrics=arguments.metrics.split(","),
            anchor=arguments.anchor,
            published=[Curve.read(path) for path in arguments.curves],
            points=arguments.points,
            **settings,
        )
    except (PixaError, OSError) as error:
        print(f"pixa bench: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    print(benchmark.table)
    return 1 if benchmark.failures else 0


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if "--video" in argv:
        try:
            from pixa.app.bench.videos import main as main_of_videos
        except ImportError as error:
            print(f"pixa bench: videos need PyAV ({error}): pip install 'pixa[bench,video]'", file=sys.stderr)
            return 1
        return main_of_videos(argv)
    parser = build_parser(
        "pictures",
        ",".join(CODECS),
        METRICS,
        "webp",
        prog="pixa bench",
        description="Measure codecs on pictures: tables with BD-rates, plots, and results in CompressAI's schema.",
        epilog=EPILOG,
    )
    parser.add_argument("-j", "--jobs", type=int, default=1, help="pictures at a time; times count only with 1")
    arguments = parser.parse_args(argv)
    return conclude(run, arguments, processes=arguments.jobs)


if __name__ == "__main__":
    sys.exit(main())
