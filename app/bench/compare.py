"""`pixa compare A B`: how near two pictures are, whatever their formats."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from pixa.app.bench.measurements import metric_functions, read_picture
from pixa.app.bench.metrics import METRICS
from pixa.app.bench.report import TITLES
from pixa.errors import PixaError, UsageError
from pixa.pillow_plugin import register_pillow

USUAL = ("psnr", "ms-ssim", "ssimulacra2")


def compare(first: Path, second: Path, metrics: Sequence[str] = USUAL) -> dict[str, float | None]:
    """Metrics of `second` against `first` by name; None where one has no value, as MS-SSIM of a small picture.

    Args:
        metrics: groups of metrics, keys of `pixa.app.bench.metrics.METRICS`.

    Raises:
        UnsupportedInput, LimitExceeded: a file is no picture that pixa reads.
        UsageError: the pictures differ in size, or a metric is unknown or needs what is not installed.
    """
    pictures = read_picture(first), read_picture(second)
    shapes = [f"{picture.shape[1]}x{picture.shape[0]}" for picture in pictures]
    if shapes[0] != shapes[1]:
        raise UsageError(f"{first} is {shapes[0]} and {second} {shapes[1]}: only pictures of one size compare")
    return {name: function(*pictures) for name, function in metric_functions(metrics).items()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pixa compare", description="How near picture B is to picture A.")
    parser.add_argument("first", type=Path, metavar="A")
    parser.add_argument("second", type=Path, metavar="B")
    parser.add_argument("--metrics", default=",".join(USUAL), help=f"of {','.join(METRICS)} (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args(argv)
    register_pillow()
    try:
        found = compare(arguments.first, arguments.second, arguments.metrics.split(","))
    except PixaError as error:
        print(f"pixa compare: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        finite = {name: value if value is None or math.isfinite(value) else None for name, value in found.items()}
        print(json.dumps(finite))
        return 0
    for name, value in found.items():
        shown = "-" if value is None else "equal" if math.isinf(value) else f"{value:.4f}"
        print(f"{TITLES[name][0]:<20} {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
