"""Metrics against values that are known without them."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from pixa.app.bench.metrics import ms_ssim, psnr_rgb, psnr_ycbcr, ssimulacra2
from pixa.errors import UsageError


@pytest.fixture
def pattern() -> np.ndarray:
    """A deterministic picture of odd width, (200, 221, 3)."""
    y, x = np.mgrid[:200, :221]
    return np.stack([(x * 3 + y) % 256, (x * y // 7) % 256, (x + 2 * y) % 256], 2).astype(np.uint8)


def with_noise(picture: np.ndarray, amplitude: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(-amplitude, amplitude + 1, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def test_psnr_of_a_constant_offset():
    picture = np.full((20, 30, 3), 100, np.uint8)
    assert psnr_rgb(picture, picture + 1) == pytest.approx(48.1308, abs=1e-4)
    assert psnr_rgb(picture, picture - 10) == pytest.approx(28.1308, abs=1e-4)


def test_psnr_averages_the_error_of_the_channels():
    picture = np.full((20, 30, 3), 100, np.uint8)
    assert psnr_rgb(picture, picture + np.array([6, 0, 0], np.uint8)) == pytest.approx(10 * math.log10(255**2 / 12))


def test_psnr_of_identical_pictures_is_infinite(pattern):
    assert psnr_rgb(pattern, pattern) == psnr_ycbcr(pattern, pattern) == math.inf


def test_psnr_ycbcr_weighs_luma_six_times(pattern):
    picture = np.full((20, 30, 3), 100, np.uint8)
    y, cb, cr = (20 * math.log10(255 / (10 * gain)) for gain in (0.299, 0.168736, 0.5))
    assert psnr_ycbcr(picture, picture + np.array([10, 0, 0], np.uint8)) == pytest.approx((6 * y + cb + cr) / 8, 1e-6)


def test_pictures_of_different_shape_are_refused(pattern):
    with pytest.raises(UsageError, match="200, 221"):
        psnr_rgb(pattern, pattern[:100])


def test_ms_ssim_equals_pytorch_msssim(pattern):
    """The value that pytorch-msssim 1.0.0 gives in float64 for the same two pictures."""
    assert ms_ssim(pattern, with_noise(pattern, 40)) == pytest.approx(0.8710536, abs=5e-6)


def test_ms_ssim_is_one_for_identical_pictures_and_falls_with_noise(pattern):
    scores = [ms_ssim(pattern, with_noise(pattern, amplitude)) for amplitude in (0, 10, 40, 120)]
    assert scores[0] == pytest.approx(1)
    assert scores == sorted(scores, reverse=True)
    assert scores[3] < 0.7


def test_ms_ssim_needs_176_pixels_a_side(pattern):
    assert ms_ssim(pattern[:175], pattern[:175]) is None
    assert ms_ssim(pattern[:176], pattern[:176]) is not None


def test_ssimulacra2_says_what_to_install(pattern, monkeypatch):
    monkeypatch.setitem(sys.modules, "ssimulacra2", None)
    with pytest.raises(UsageError, match="pip install ssimulacra2"):
        ssimulacra2(pattern, pattern)
