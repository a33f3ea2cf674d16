"""`pixa bench --video`: clips x codecs x qualities, measured on real files and decoded frames."""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from pixa.app.bench import Benchmark, spread
from pixa.app.curves import Curve
from pixa.app.measurements import Measurements
from pixa.app.report import TITLES, difference, extent, number, plot, table
from pixa.app.video_codecs import CODECS, KEYINT, THREADS, Clip, VideoCodec, find_codec, read_clip
from pixa.app.video_metrics import METRICS
from pixa.errors import PixaError, UsageError
from pixa.video_commands import VIDEO_SUFFIXES

EPILOG = """\
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
    for group in job.metrics:
        name, metric = METRICS[group]
        row[name] = metric(clip.frames, decoded)
    return row | {"encoding_fps": count / (encoded - start), "decoding_fps": count / (end - encoded)}


def mean_curve(name: str, codec: VideoCodec, rows: Sequence[dict], metrics: Sequence[str], clips: int) -> Curve:
    """Means over clips at every quality that all clips have; None for a metric that one does not have."""
    sweeps = [[row for row in rows if row["quality"] == q] for q in sorted({row["quality"] for row in rows})]
    complete = [sweep for sweep in sweeps if len(sweep) == clips]
    results = {}
    for field in ("bpp", *metrics):
        columns = [[row[field] for row in sweep] for sweep in complete]
        results[field] = [None if None in values else fmean(values) for values in columns]
    return Curve(name, codec.description, results)


def markdown(curves: Sequence[Curve], anchor: Curve, metrics: Sequence[str], rows: Sequence[dict]) -> str:
    """Tables of every curve against the anchor, of every pair, and of frames a second by size of clip."""
    clips = sorted({(row["clip"], row["width"], row["height"], row["frames"]) for row in rows})
    names = ", ".join(f"{name} ({width}x{height}, {frames} frames)" for name, width, height, frames in clips)
    units = ", ".join(" in ".join(TITLES[metric]) for metric in metrics)
    text = (
        f"# Benchmark of videos\n\nMeans over {names}; a rate is the size of the whole file. A key frame at least "
        f"every {KEYINT} frames, {THREADS} threads. BD-rate (PCHIP over log-rate, negative: fewer bits) against "
        f"{anchor.label}; in brackets its overlap ({units}).\n\n"
    )
    text += "VMAF and encoders that PyAV lacks are left out.\n\n"
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


def find_clips(paths: Iterable[Path]) -> list[Path]:
    """`paths`, with the videos in a folder in the place of the folder.

    Raises:
        UsageError: a path does not exist, or there is no video.
    """
    clips = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
        inside = sorted(path.iterdir()) if path.is_dir() else []
        clips += [file for file in inside if file.suffix.lower() in VIDEO_SUFFIXES] if path.is_dir() else [path]
    if not clips:
        raise UsageError("there is no video in the given folders")
    return clips


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
        metrics: keys of `METRICS`.
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
    if points is not None and points < 2:
        raise UsageError(f"a curve needs 2 points, not {points}")
    clips = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in find_clips(paths)}
    present = {}
    for name in codecs:
        codec = find_codec(name)
        if codec.missing:
            print(f"{name} is left out: it needs {codec.missing}", file=sys.stderr)
        else:
            present[name] = codec
    if anchor not in [*present, *(curve.name for curve in published)]:
        raise UsageError(f"the anchor {anchor!r} is not among the measured and published curves")
    names = [METRICS[group][0] for group in metrics]
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
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(field for row in rows for field in row))
        writer.writeheader()
        writer.writerows(rows)
    curves = [
        mean_curve(name, codec, [row for row in rows if row["codec"] == name], names, len(clips))
        for name, codec in present.items()
    ]
    for curve in curves:
        curve.write(folder)
    curves += published
    text = markdown(curves, next(c for c in curves if c.name == anchor), names, rows)
    (folder / "bench.md").write_text(text)
    for metric in names:
        plot(curves, metric, folder)
    return Benchmark(text, measurements.failures)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="pixa bench --video",
        description="Measure codecs on clips: tables with BD-rates, plots, and results in CompressAI's schema.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--video", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("clips", nargs="+", type=Path, help="clips and folders of clips")
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("bench"), help="default: bench")
    parser.add_argument("--codecs", default=",".join(CODECS), help="default: %(default)s; also pixa:MODEL[@EFFORT]")
    parser.add_argument("--metrics", default="psnr", help=f"of {','.join(METRICS)} (default: psnr)")
    parser.add_argument("--anchor", default="x264-zl", help="what BD-rates are against (default: x264-zl)")
    parser.add_argument("--curves", nargs="+", type=Path, default=[], metavar="FILE", help="published curves to add")
    parser.add_argument("--points", type=int, help="qualities of every codec, spread over its sweep (default: all)")
    parser.add_argument("--frames", type=int, help="frames of every clip, from its start (default: all)")
    arguments = parser.parse_args(argv)
    try:
        benchmark = run(
            arguments.clips,
            arguments.codecs.split(","),
            arguments.output_dir,
            metrics=arguments.metrics.split(","),
            anchor=arguments.anchor,
            published=[Curve.read(path) for path in arguments.curves],
            points=arguments.points,
            frames=arguments.frames,
        )
    except (PixaError, OSError) as error:
        print(f"pixa bench: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    print(benchmark.table)
    return 1 if benchmark.failures else 0


if __name__ == "__main__":
    sys.exit(main())
