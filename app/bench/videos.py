"""`pixa bench --video`: clips x codecs x qualities, measured on real files and decoded frames."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from pixa.app.bench.curves import Curve
from pixa.app.bench.measurements import Measurements
from pixa.app.bench.pictures import (
    Benchmark,
    build_parser,
    check_anchor,
    conclude,
    find_files,
    means,
    spread,
    write_results,
)
from pixa.app.bench.report import TITLES, difference, extent, number, table
from pixa.app.bench.video_codecs import CODECS, KEYINT, THREADS, Clip, find_codec, read_clip
from pixa.app.bench.video_metrics import METRICS
from pixa.errors import UsageError
from pixa.io.streams import VIDEO_SUFFIXES

EPILOG = """\
more codecs:
  pixa:MODEL[@EFFORT]           a model of `pixa models`, effort 0 to 9

example: pixa bench --video clips/ -o results --codecs pixa:fast,x264-zl,x265-zl --anchor x264-zl --metrics psnr,xpsnr
"""


class VideoJob(NamedTuple):
    """One file to make: `sha256` is of the clip's file, `version` of the codec and the number of frames."""

    sha256: str
    codec: str
    version: str
    quality: float
    path: Path
    frames: int | None
    metrics: tuple[str, ...]

    @property
    def row(self) -> dict:
        """The beginning of a row: what a measurement depends on."""
        return {"sha256": self.sha256, "codec": self.codec, "version": self.version, "quality": self.quality}


@lru_cache(maxsize=1)
def frames_of(path: Path, frames: int | None) -> Clip:
    return read_clip(path, frames)


def measure(job: VideoJob) -> dict:
    """Make one file and decode it: size, metrics, and frames a second."""
    codec, clip = find_codec(job.codec), frames_of(job.path, job.frames)
    small = Clip([frame[:96, :64].copy() for frame in clip.frames[:2]], clip.header)
    codec.decode(codec.encode(small, job.quality), small)  # loads it before the clock starts
    start = time.perf_counter()
    data = codec.encode(clip, job.quality)
    encoded = time.perf_counter()
    decoded = codec.decode(data, clip)
    end = time.perf_counter()
    (height, width), count = clip.size, len(clip.frames)
    row = job.row | {"clip": job.path.name, "width": width, "height": height, "frames": count, "bytes": len(data)}
    row |= {"bpp": 8 * len(data) / (width * height * count)}
    row |= {"kbps": 8 * len(data) / count * float(clip.header.rate) / 1000}
    for metric in map(METRICS.get, job.metrics):
        row[metric.name] = metric.measure(clip.frames, decoded)
    return row | {"encoding_fps": count / (encoded - start), "decoding_fps": count / (end - encoded)}


def markdown(
    curves: Sequence[Curve], anchor: Curve, metrics: Sequence[str], rows: Sequence[dict], absent: dict[str, str]
) -> str:
    """Tables of every curve against the anchor, of every pair, and of frames a second by size of clip.

    Args:
        absent: what each codec and metric that was asked for and is left out needs.
    """
    clips = sorted({(row["clip"], row["width"], row["height"], row["frames"]) for row in rows})
    names = ", ".join(f"{name} ({width}x{height}, {frames} frames)" for name, width, height, frames in clips)
    units = ", ".join(" in ".join(TITLES[metric]) for metric in metrics)
    text = (
        f"# Benchmark of videos\n\nMeans over {names}; a rate is the size of the whole file. A key frame at least "
        f"every {KEYINT} frames, {THREADS} threads. BD-rate (PCHIP over log-rate, negative: fewer bits) against "
        f"{anchor.label}; in brackets its overlap ({units}).\n\n"
    )
    text += "".join(f"{name} is left out: it needs {need}.\n\n" for name, need in absent.items())
    text += table(
        ["codec", "bits a pixel", *(f"BD-rate {TITLES[metric][0]}" for metric in metrics), "description"],
        [[c.label, extent(c), *(difference(anchor, c, metric) for metric in metrics), c.description] for c in curves],
    )
    sizes = sorted({(row["width"], row["height"]) for row in rows})
    text += "\n## Frames a second, mean over qualities\n\n"
    header = [f"{way} {width}x{height}" for width, height in sizes for way in ("encode", "decode")]
    lines = []
    for curve in curves:
        cells = []
        for width, height in sizes:
            own = [r for r in rows if (r["codec"], r["width"], r["height"]) == (curve.name, width, height)]
            for field in ("encoding_fps", "decoding_fps"):
                cells.append(number(fmean(row[field] for row in own) if own else None, ".1f"))
        lines.append([curve.label, *cells])
    text += table(["codec", *header], lines)
    for metric in metrics:
        text += f"\n## BD-rate of each row against each column, {TITLES[metric][0]}\n\n"
        pairs = [[c.label, *("" if a is c else difference(a, c, metric) for a in curves)] for c in curves]
        text += table(["", *(curve.label for curve in curves)], pairs)
    return text


def run(
    paths: Iterable[Path],
    codecs: Sequence[str],
    folder: Path,
    *,
    metrics: Sequence[str] = ("psnr",),
    anchor: str = "x264-zl",
    published: Sequence[Curve] = (),
    points: int | None = None,
    frames: int | None = None,
) -> Benchmark:
    """Measure, and write to `folder`: NAME.json a codec, rows.csv, bench.md, and rd-METRIC.png and .svg.

    Args:
        paths: clips and folders of clips.
        codecs: names as `find_codec` knows them; one that is not installed is left out with a line on stderr.
        metrics: keys of `METRICS`; likewise.
        anchor: a codec or published curve that the table compares with.
        published: curves to add to table and plots.
        points: qualities of every codec, spread over its sweep; None for all.
        frames: of every clip, from its start; None for all.

    Raises:
        UsageError: an unknown codec, metric or anchor, a path that does not exist, an extra that is not installed.
        UnsupportedInput: a file that is no video.
    """
    if not all(find_spec(package) for package in ("matplotlib", "scipy", "tqdm")):
        raise UsageError("the benchmark needs: pip install 'pixa[bench]'")
    unknown = [group for group in metrics if group not in METRICS]
    if unknown:
        raise UsageError(f"no metric of videos is called {unknown[0]!r}; there are {', '.join(METRICS)}")
    clips = find_files(paths, VIDEO_SUFFIXES, "video")
    asked = {name: find_codec(name) for name in codecs}
    needs = {name: codec.missing for name, codec in asked.items()} | {m: METRICS[m].missing() for m in metrics}
    absent = {name: need for name, need in needs.items() if need}
    for name, need in absent.items():
        print(f"{name} is left out: it needs {need}", file=sys.stderr)
    present = {name: codec for name, codec in asked.items() if name not in absent}
    metrics = [group for group in metrics if group not in absent]
    if not metrics:
        raise UsageError("no metric is left")
    check_anchor(anchor, [*present, *(curve.name for curve in published)])
    names = [METRICS[group].name for group in metrics]
    jobs = [
        VideoJob(sha256, name, f"{codec.version}, {frames} frames", quality, path, frames, tuple(metrics))
        for sha256, path in clips.items()
        for name, codec in present.items()
        for quality in spread(codec.qualities, points)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    measurements = Measurements(folder)
    measurements.add("clips", jobs, measure, names)
    rows = measurements.find(jobs, names)
    curves = [
        Curve(name, codec.description, means([r for r in rows if r["codec"] == name], ("bpp", *names), len(clips)))
        for name, codec in present.items()
    ]
    curves += published
    text = markdown(curves, next(c for c in curves if c.name == anchor), names, rows, absent)
    write_results(folder, rows, curves, names, text)
    return Benchmark(text, measurements.failures)


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser(
        "clips",
        ",".join(CODECS),
        METRICS,
        "x264-zl",
        prog="pixa bench --video",
        description="Measure codecs on clips: tables with BD-rates, plots, and results in CompressAI's schema.",
        epilog=EPILOG,
    )
    parser.add_argument("--video", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, help="frames of every clip, from its start (default: all)")
    arguments = parser.parse_args(argv)
    return conclude(run, arguments, frames=arguments.frames)


if __name__ == "__main__":
    sys.exit(main())
