"""Rate-distortion curves, the BD-rates between them, and the table and plots that show both."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixa.errors import UsageError

TITLES = {
    "psnr-rgb": ("PSNR RGB", "dB"),
    "psnr-ycbcr": ("PSNR YCbCr 6:1:1", "dB"),
    "ms-ssim-rgb": ("MS-SSIM RGB", "dB"),
    "ssimulacra2": ("SSIMULACRA 2", "points"),
}
Points = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Curve:
    """One codec over its qualities.

    Attributes:
        results: lists of equal length: "bpp", metrics, "encoding_time" and "decoding_time" in seconds.
        published: read from a file, not measured here.
        timed: the times were taken with nothing else of the benchmark running.
    """

    name: str
    description: str
    results: dict[str, list[float | None]]
    published: bool = False
    timed: bool = False

    @classmethod
    def read(cls, path: Path) -> Curve:
        """A published curve from a file in the schema of CompressAI's results.

        Raises:
            UsageError: the file cannot be read or is none.
        """
        try:
            fields = json.loads(path.read_text())
            curve = cls(fields["name"], fields["description"], fields["results"], published=True)
            curve.points("psnr-rgb")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"{path} is no file of rate-distortion results: {error}") from error
        return curve

    def write(self, folder: Path) -> None:
        """Save in the schema of CompressAI's results, as NAME.json with ":" replaced by "-"."""
        fields = {"name": self.name, "description": self.description, "results": self.results}
        (folder / f"{self.name.replace(':', '-')}.json").write_text(json.dumps(fields, indent=2) + "\n")

    @property
    def label(self) -> str:
        return f"{self.name} (published)" if self.published else self.name

    def points(self, metric: str) -> Points:
        """(bits a pixel, metric), both strictly rising: a point that a cheaper one equals is left out.

        MS-SSIM is turned into decibels, -10 log10(1 - x), as papers plot it.
        """
        rates, values = [], [-math.inf]
        pairs = zip(self.results["bpp"], self.results.get(metric, ()), strict=False)
        for rate, value in sorted((pair for pair in pairs if None not in pair), key=lambda pair: (pair[0], -pair[1])):
            if metric.startswith("ms-ssim"):
                value = -10 * math.log10(max(1 - value, 1e-10))
            if value > values[-1]:
                rates.append(rate)
                values.append(value)
        return np.array(rates), np.array(values[1:])


def bd_rate(anchor: Points, test: Points) -> tuple[float, float]:
    """How many percent more bits `test` takes than `anchor` at equal metric, and the overlap that this is the mean of.

    Bjontegaard's method (VCEG-M33, 2001) with PCHIP over log-rate, as JVET computes it. NaN where the curves share
    nothing or one has a single point.

    Returns:
        (percent, overlap in units of the metric)
    """
    from scipy.interpolate import PchipInterpolator

    if min(len(anchor[0]), len(test[0])) < 2:
        return math.nan, 0.0
    low, high = max(anchor[1][0], test[1][0]), min(anchor[1][-1], test[1][-1])
    if high <= low:
        return math.nan, 0.0
    areas = [PchipInterpolator(values, np.log(rates)).integrate(low, high) for rates, values in (anchor, test)]
    return 100 * math.expm1((areas[1] - areas[0]) / (high - low)), float(high - low)


def markdown(curves: Sequence[Curve], anchor: Curve, metrics: Sequence[str], pictures: int) -> str:
    """Tables of every curve against the anchor and of every pair, best first."""
    first = metrics[0]
    titles = [f"BD-rate {TITLES[metric][0]}" for metric in metrics]
    units = ", ".join(f"{TITLES[metric][0]} in {TITLES[metric][1]}" for metric in metrics)

    def cell(against: Curve, curve: Curve, metric: str) -> str:
        percent, overlap = bd_rate(against.points(metric), curve.points(metric))
        return "-" if math.isnan(percent) else f"{percent:+.1f}% ({overlap:.1f})"

    def milliseconds(curve: Curve, field: str) -> str:
        return f"{1000 * np.mean(curve.results[field]):.0f}" if curve.timed else "-"

    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |\n"

    def order(curve: Curve) -> float:
        percent, _ = bd_rate(anchor.points(first), curve.points(first))
        return math.inf if math.isnan(percent) else percent

    ranked = sorted(curves, key=order)
    text = (
        f"# Benchmark\n\nMeans over {pictures} pictures; a rate is the size of the whole file. BD-rate (PCHIP over "
        f"log-rate, negative: fewer bits) against {anchor.label}; in brackets its overlap ({units}). "
        "Times are means over qualities, left out where pictures ran side by side.\n\n"
    )
    text += row(["codec", "bits a pixel", *titles, "encode ms", "decode ms", "description"])
    text += row(["---", *["---:"] * (len(metrics) + 3), "---"])
    for curve in ranked:
        rates = curve.results["bpp"]
        cells = [curve.label, f"{min(rates):.2f}-{max(rates):.2f}", *(cell(anchor, curve, m) for m in metrics)]
        times = [milliseconds(curve, field) for field in ("encoding_time", "decoding_time")]
        text += row([*cells, *times, curve.description])
    text += f"\n## BD-rate of each row against each column, {TITLES[first][0]}\n\n"
    text += row(["", *(curve.label for curve in ranked)]) + row(["---", *["---:"] * len(ranked)])
    for curve in ranked:
        text += row([curve.label, *("" if other is curve else cell(other, curve, first) for other in ranked)])
    return text


def plot(curves: Sequence[Curve], metric: str, folder: Path) -> None:
    """Draw measured curves solid and published ones dashed, to rd-METRIC.png and rd-METRIC.svg."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    widest = max(max(curve.results["bpp"]) for curve in curves if not curve.published)
    shown = []
    for index, curve in enumerate(curves):
        rates, values = curve.points(metric)
        if not len(rates):
            continue
        shown.extend(values[rates <= widest])
        style = {"color": colormaps["tab20"](2 * index % 20 + index // 10 % 2), "label": curve.label}
        if curve.published:
            axes.plot(rates, values, "--", linewidth=1.2, **style)
        else:
            width = 3 if curve.name.startswith("pixa:") else 1.6
            axes.plot(rates, values, "o-", markersize=4, linewidth=width, **style)
    title, unit = TITLES[metric]
    axes.set_xlim(0, widest)
    if shown:
        margin = 0.04 * (max(shown) - min(shown)) or 1
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
        figure.legend(loc="outside right upper", fontsize="small")
    axes.set_xlabel("bits a pixel, whole file")
    axes.set_ylabel(f"{title} ({unit})")
    axes.grid(alpha=0.3)
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"rd-{metric}.{suffix}", dpi=150)
