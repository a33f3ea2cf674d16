"""Rate-distortion curves and the BD-rates between them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pixa.errors import UsageError

SIMILARITIES = dict.fromkeys(("ms-ssim-rgb", "ms-ssim-y"), lambda x: 1 - x)
DISTANCES = SIMILARITIES | dict.fromkeys(("lpips", "vgg", "butteraugli"), lambda x: x)
SMALLEST_DISTANCE = 1e-10
Points = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Curve:
    """One codec over its qualities.

    Attributes:
        results: lists of equal length: "bpp", metrics, "encoding_time" and "decoding_time" in seconds.
        costs: one number each, what is known of the fields of `pixa.app.bench.costs.COSTS` and of the two times.
        published: read from a file, not measured here.
        trained: False for a network with random weights, which has costs but no points.
    """

    name: str
    description: str
    results: dict[str, list[float | None]]
    costs: dict[str, float | None] = field(default_factory=dict)
    published: bool = False
    trained: bool = True

    @classmethod
    def read(cls, path: Path) -> Curve:
        """A published curve from a file in the schema of CompressAI's results.

        Raises:
            UsageError: the file cannot be read or is none.
        """
        try:
            fields = json.loads(path.read_text())
            curve = cls(fields["name"], fields["description"], fields["results"], published=True)
            for metric in curve.results:
                curve.points(metric)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"{path} is no file of rate-distortion results: {error}") from error
        return curve

    def write(self, folder: Path) -> None:
        """Save in the schema of CompressAI's results, as NAME.json with ":" replaced by "-"."""
        fields = {"name": self.name, "description": self.description, "results": self.results}
        text = json.dumps(fields, indent=2, allow_nan=False)
        (folder / f"{self.name.replace(':', '-')}.json").write_text(text + "\n")

    @property
    def label(self) -> str:
        if self.published:
            return f"{self.name} (published)"
        return self.name if self.trained else f"{self.name} (untrained)"

    def points(self, metric: str) -> Points:
        """(bits a pixel, metric), both strictly rising: a point that a cheaper one equals is left out.

        So is one that is not finite. MS-SSIM and distances become decibels, -10 log10(1 - x) and -10 log10(x), as
        papers plot the first: higher is better for every metric but blockiness.
        """
        if not self.trained:
            return np.array([]), np.array([])
        pairs = zip(self.results["bpp"], self.results.get(metric, ()), strict=False)
        finite = [pair for pair in pairs if None not in pair and all(map(math.isfinite, pair))]
        if metric in DISTANCES:
            distances = [max(DISTANCES[metric](value), SMALLEST_DISTANCE) for _, value in finite]
            finite = [(rate, -10 * math.log10(d)) for (rate, _), d in zip(finite, distances, strict=True)]
        rates, values = [], [-math.inf]
        for rate, value in sorted(finite, key=lambda pair: (pair[0], -pair[1])):
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
