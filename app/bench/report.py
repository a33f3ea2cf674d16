"""What a benchmark found, to look at: Markdown tables and rate-distortion plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pixa.app.bench.curves import Curve, bd_rate

TITLES = {
    "psnr-rgb": ("PSNR RGB", "dB"),
    "psnr-ycbcr": ("PSNR YCbCr 6:1:1", "dB"),
    "ms-ssim-rgb": ("MS-SSIM RGB", "dB"),
    "ssimulacra2": ("SSIMULACRA 2", "points"),
    "butteraugli": ("Butteraugli 3-norm", "dB below 1"),
    "lpips": ("LPIPS SqueezeNet", "dB below 1"),
    "vgg": ("VGG-16 distance", "dB below 1"),
    "blockiness": ("blockiness", "excess"),
    "psnr-yuv": ("PSNR YUV 6:1:1", "dB"),
    "ms-ssim-y": ("MS-SSIM Y", "dB"),
    "xpsnr-yuv": ("XPSNR YUV 6:1:1", "dB"),
    "vmaf": ("VMAF", "points"),
}
MEANS = ("blockiness",)
COSTS = {
    "encoding_time": ("encode s", ".3f"),
    "decoding_time": ("decode s", ".3f"),
    "encoding_memory": ("encode MiB", ".0f"),
    "decoding_memory": ("decode MiB", ".0f"),
    "encoding_kmac": ("encode kMAC/px", ".1f"),
    "decoding_kmac": ("decode kMAC/px", ".1f"),
    "parameters": ("M parameters", ".2f"),
}


def markdown(curves: Sequence[Curve], anchor: Curve, metrics: Sequence[str], pictures: int) -> str:
    """Tables of every curve against the anchor, best first, of what codecs take, and of every pair in every metric."""

    def order(curve: Curve) -> tuple[bool, float]:
        percent, _ = bd_rate(anchor.points(metrics[0]), curve.points(metrics[0]))
        return math.isnan(percent), percent

    ranked = sorted((curve for curve in curves if curve.trained), key=order)
    units = ", ".join(" in ".join(TITLES[metric]) for metric in metrics)
    text = (
        f"# Benchmark\n\nMeans over {pictures} pictures; a rate is the size of the whole file. BD-rate (PCHIP over "
        f"log-rate, negative: fewer bits) against {anchor.label}; in brackets its overlap ({units}).\n\n"
    )
    text += table(
        ["codec", "bits a pixel", *(heading(metric) for metric in metrics), "description"],
        [[c.label, extent(c), *(difference(anchor, c, metric) for metric in metrics), c.description] for c in ranked],
    )
    text += (
        "\n## Costs\n\nTimes are means over pictures and qualities, left out where pictures ran side by side. Memory "
        "is the peak of a process that does nothing else, on the largest picture at the middle quality, which is also "
        "that of the multiply-accumulates (MAC).\n\n"
    )
    text += table(
        ["codec", *(title for title, _ in COSTS.values())],
        [[c.label, *(number(c.costs.get(name), form) for name, (_, form) in COSTS.items())] for c in curves if c.costs],
    )
    for metric in (metric for metric in metrics if metric not in MEANS):
        text += f"\n## BD-rate of each row against each column, {TITLES[metric][0]}\n\n"
        text += table(
            ["", *(curve.label for curve in ranked)],
            [[c.label, *("" if a is c else difference(a, c, metric) for a in ranked)] for c in ranked],
        )
    return text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; numbers stand to the right."""
    rule = ["---" if title in ("", "codec", "description") else "---:" for title in header]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, rule, *rows))


def heading(metric: str) -> str:
    return TITLES[metric][0] if metric in MEANS else f"BD-rate {TITLES[metric][0]}"


def difference(anchor: Curve, curve: Curve, metric: str) -> str:
    """BD-rate in percent, and in brackets the overlap; for blockiness, which no bits buy, its mean."""
    if metric in MEANS:
        values = [value for value in curve.results.get(metric, ()) if value is not None]
        return f"{fmean(values):+.2f}" if values else "-"
    percent, overlap = bd_rate(anchor.points(metric), curve.points(metric))
    return "-" if math.isnan(percent) else f"{percent:+.1f}% ({overlap:.1f})"


def extent(curve: Curve) -> str:
    rates = [rate for rate in curve.results["bpp"] if rate is not None]
    return f"{min(rates):.2f}-{max(rates):.2f}" if rates else "-"


def number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def plot(curves: Sequence[Curve], metric: str, folder: Path) -> None:
    """Draw measured curves solid and published ones dashed, to rd-METRIC.png and rd-METRIC.svg."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    drawn = [(curve, *curve.points(metric)) for curve in curves if len(curve.points(metric)[0])]
    widest = max((rates[-1] for curve, rates, _ in drawn if not curve.published), default=None)
    shown = []
    for index, (curve, rates, values) in enumerate(drawn):
        shown.extend(values if widest is None else values[rates <= widest])
        style = {"color": colormaps["tab20"](2 * index % 20 + index // 10 % 2), "label": curve.label}
        if curve.published:
            axes.plot(rates, values, "--", linewidth=1.2, **style)
        else:
            width = 3 if curve.name.startswith("pixa:") else 1.6
            axes.plot(rates, values, "o-", markersize=4, linewidth=width, **style)
    axes.set_xlim(0, widest and 1.02 * widest)
    if shown:
        margin = 0.04 * (max(shown) - min(shown)) or 1
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
        figure.legend(loc="outside right upper", fontsize="small")
    axes.set_xlabel("bits a pixel, whole file")
    axes.set_ylabel("{} ({})".format(*TITLES[metric]))
    axes.grid(alpha=0.3)
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"rd-{metric}.{suffix}", dpi=150)
