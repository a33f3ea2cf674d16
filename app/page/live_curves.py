"""Rate-distortion curves of one picture, point by point, and what is made of them."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pixa.app.bench.codecs import find_codec
from pixa.app.bench.curves import Curve, bd_rate
from pixa.app.bench.metrics import METRICS
from pixa.app.bench.pictures import mean_curve, spread
from pixa.app.bench.report import TITLES, difference
from pixa.app.page.comparison import ORIGINAL, Result, Subject, list_codecs

LIMIT_SECONDS = 240
COLOURS = ("#10b981", "#f59e0b", "#3b82f6", "#ec4899", "#8b5cf6", "#ef4444", "#14b8a6", "#a3a3a3")
INK = "#7f8894"  # readable on white and on black
GROUPS = {"PSNR": "psnr", "MS-SSIM": "ms-ssim", "SSIMULACRA 2": "ssimulacra2"}
FIRST = {"psnr": "psnr-rgb", "ms-ssim": "ms-ssim-rgb", "ssimulacra2": "ssimulacra2"}


class Step(NamedTuple):
    """How far the measuring is: points done, points in all, and the curves so far."""

    done: int
    total: int
    curves: list[Curve]
    failures: list[str]


def measure_curves(subject: Subject, codecs: Sequence[str], points: int, group: str) -> Iterator[Step]:
    """Curves of a picture, growing by a point of every codec in turn; stops at `LIMIT_SECONDS`.

    A point is a row of `pixa bench`. A codec that fails at a quality is left out there, and said so.

    Args:
        points: qualities of each codec, spread over its sweep.
        group: of `pixa.app.bench.metrics.METRICS`, besides PSNR.
    """
    groups = list(dict.fromkeys(("psnr", group)))
    names = [name for key in groups for name in METRICS[key]]
    sweeps = {name: spread(find_codec(name).qualities, points) for name in codecs}
    jobs = [(name, sweep[i]) for i in range(points) for name, sweep in sweeps.items() if i < len(sweep)]
    rows: dict[str, list[dict]] = {name: [] for name in codecs}
    failures: list[str] = []
    end = time.monotonic() + LIMIT_SECONDS
    for done, (name, quality) in enumerate(jobs, 1):
        try:
            result = subject.result(name, quality)
            for key in groups:
                subject.measure(result, key)
            rows[name].append({"quality": quality, "processes": 1, **result.row})
        except Exception as error:  # the codecs' libraries raise anything
            failures.append(f"{list_codecs()[name]} failed at quality {quality:g}: {error}")
        if time.monotonic() > end:
            failures.append(f"stopped after {LIMIT_SECONDS} seconds: choose fewer codecs or points")
        yield Step(done, len(jobs), [mean_curve(n, find_codec(n), r, names, 1) for n, r in rows.items()], failures)
        if time.monotonic() > end:
            return


def stored_curves() -> list[Curve]:
    """The means over the Kodak pictures that come with pixa, as `pixa bench` wrote them."""
    folder = Path(__file__).parents[1] / "bench" / "kodak"
    return [replace(Curve.read(path), published=False) for path in sorted(folder.glob("*.json"))]


def marks(results: Sequence[Result], metric: str) -> list[tuple[str, float, float]]:
    """(codec, bits a pixel, metric) of what the page shows, as far as it is measured."""
    curves = [
        Curve(result.codec, "", {"bpp": [result.row["bpp"]], metric: [result.row.get(metric)]})
        for result in results
        if result.codec != ORIGINAL
    ]
    return [(curve.name, *map(float, (x[0], y[0]))) for curve in curves for x, y in [curve.points(metric)] if len(x)]


def draw(
    curves: Sequence[Curve],
    metric: str,
    points: Sequence[tuple[str, float, float]] = (),
    title: str = "",
    *,
    format: str = "svg",
    transparent: bool = True,
) -> bytes:
    """The plot as a file of matplotlib's `format`; published curves are dashed, `points` ringed.

    Args:
        points: what `marks` gives.
        transparent: no ground, and ink that can be read on light and on dark pages.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ink = INK if transparent else "#333333"
    with rc_context({"text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink}):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(colour_order(curves))}
        for curve in curves:
            rates, values = curve.points(metric)
            if len(rates):
                style = "--" if curve.published else "o-"
                width = 2.6 if curve.name.startswith("pixa:") else 1.6
                label = curve.label if curve.published else list_codecs().get(curve.name, curve.name)
                axes.plot(rates, values, style, color=colours[curve.name], linewidth=width, markersize=4, label=label)
        for name, rate, value in points:
            axes.plot([rate], [value], "o", markersize=13, markerfacecolor="none", markeredgewidth=2.2,
                      markeredgecolor=colours.get(name, ink))  # fmt: skip
        axes.set_xlabel("bits a pixel, whole file")
        axes.set_ylabel("{} ({})".format(*TITLES[metric]))
        axes.set_title(title, fontsize="medium", loc="left")
        axes.grid(alpha=0.25, color=ink)
        axes.set_facecolor("none")
        for spine in axes.spines.values():
            spine.set_color(ink)
            spine.set_alpha(0.5)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small", frameon=False)
        file = io.BytesIO()
        figure.savefig(file, format=format, transparent=transparent, dpi=150)
    return file.getvalue()


def colour_order(curves: Sequence[Curve]) -> list[str]:
    """Names in an order that gives a codec the same colour in every plot."""
    known = list(list_codecs())
    names = dict.fromkeys(curve.name for curve in curves)
    return known + [name for name in names if name not in known]


def bd_rows(curves: Sequence[Curve], anchor: str, metric: str) -> list[list[str]]:
    """(codec, BD-rate against the anchor with its overlap), fewest bits first; nothing before the anchor has points."""
    against = next((curve for curve in curves if curve.name == anchor), None)
    if against is None:
        return []
    others = [(bd_rate(against.points(metric), curve.points(metric))[0], curve) for curve in curves]
    ranked = sorted(others, key=lambda pair: (pair[0] != pair[0], pair[0]))
    return [[list_codecs().get(c.name, c.label), difference(against, c, metric)] for _, c in ranked if c is not against]


def as_json(curves: Sequence[Curve], picture: str) -> bytes:
    """All curves in one file, each in the schema of CompressAI's results."""
    entries = [{"name": c.name, "description": c.description, "results": c.results} for c in curves]
    return json.dumps({"picture": picture, "curves": entries}, indent=2, allow_nan=False).encode() + b"\n"


def as_csv(curves: Sequence[Curve]) -> bytes:
    """A line a point."""
    fields = dict.fromkeys(field for curve in curves for field in curve.results)
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["codec", *fields])
    for curve in curves:
        for row in zip(*(curve.results[field] for field in fields), strict=True):
            writer.writerow([curve.name, *row])
    return file.getvalue().encode()
