"""Rate-distortion curves and the BD-rates between them, against values known without them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from pixa.app.bench.curves import Curve, bd_rate
from pixa.errors import UsageError

RATES, PSNRS = np.array([0.1, 0.25, 0.6, 1.1, 2.0]), np.array([28.0, 31.5, 35.0, 38.2, 41.0])


def test_bd_rate_of_a_curve_against_itself_is_zero():
    percent, overlap = bd_rate((RATES, PSNRS), (RATES, PSNRS))
    assert percent == pytest.approx(0)
    assert overlap == pytest.approx(13)


def test_bd_rate_of_a_fifth_fewer_bits_is_minus_twenty_percent():
    assert bd_rate((RATES, PSNRS), (0.8 * RATES, PSNRS))[0] == pytest.approx(-20)
    assert bd_rate((0.8 * RATES, PSNRS), (RATES, PSNRS))[0] == pytest.approx(25)


def test_bd_rate_counts_only_the_overlap():
    percent, overlap = bd_rate((RATES, PSNRS), (0.8 * RATES[2:], PSNRS[2:]))
    assert overlap == pytest.approx(6)
    assert percent == pytest.approx(-20, abs=0.5)
    assert math.isnan(bd_rate((RATES, PSNRS), (RATES, PSNRS + 20))[0])
    assert math.isnan(bd_rate((RATES, PSNRS), (RATES[:1], PSNRS[:1]))[0])


def test_a_curve_is_sorted_and_loses_points_that_pay_more_for_less():
    curve = Curve("c", "", {"bpp": [2.0, 0.5, 1.0, 0.5], "psnr-rgb": [36.0, 30.0, 29.0, None]})
    rates, values = curve.points("psnr-rgb")
    assert rates.tolist() == [0.5, 2.0]
    assert values.tolist() == [30.0, 36.0]


def test_a_curve_without_finite_points_breaks_nothing():
    curve = Curve("c", "", {"bpp": [1.0, 2.0, None, 3.0], "psnr-rgb": [math.inf, math.nan, 30.0, None]})
    assert len(curve.points("psnr-rgb")[0]) == 0
    assert math.isnan(bd_rate((RATES, PSNRS), curve.points("psnr-rgb"))[0])


def test_a_lower_lpips_is_the_better_one():
    distances = [0.4, 0.2, 0.1, 0.05]
    worse = Curve("worse", "", {"bpp": [0.1, 0.2, 0.4, 0.8], "lpips": distances})
    better = Curve("better", "", {"bpp": [0.08, 0.16, 0.32, 0.64], "lpips": distances})
    percent, overlap = bd_rate(worse.points("lpips"), better.points("lpips"))
    assert percent == pytest.approx(-20)
    assert overlap == pytest.approx(10 * math.log10(8))


def test_a_written_curve_is_read_again_as_published(tmp_path):
    Curve("pixa:fast", "measured", {"bpp": [0.5, 1.0], "psnr-rgb": [30.0, None]}).write(tmp_path)
    curve = Curve.read(tmp_path / "pixa-fast.json")
    assert (curve.label, curve.description) == ("pixa:fast (published)", "measured")
    assert curve.points("psnr-rgb")[1].tolist() == [30.0]


@pytest.mark.parametrize("results", [{"psnr-rgb": [30]}, {"bpp": ["low"], "ms-ssim-rgb": ["high"]}, [1, 2]])
def test_a_file_of_anything_else_is_refused(results, tmp_path):
    (tmp_path / "curve.json").write_text(json.dumps({"name": "c", "description": "", "results": results}))
    with pytest.raises(UsageError, match="no file of rate-distortion results"):
        Curve.read(tmp_path / "curve.json")
