"""Metrics that judge pictures as people see them and that no image model was trained for."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from pixa.app.bench.metrics import blockiness, butteraugli
from pixa.errors import UsageError


@pytest.fixture
def grid(photo) -> np.ndarray:
    """The photograph with another brightness in every square of 8x8."""
    steps = np.random.default_rng(3).integers(-6, 7, (photo.shape[0] // 8, photo.shape[1] // 8, 1))
    return np.clip(photo + steps.repeat(8, 0).repeat(8, 1), 0, 255).astype(np.uint8)


def test_blockiness_is_large_on_the_grid_alone(photo, grid):
    noise = np.random.default_rng(4).integers(-6, 7, photo.shape)
    noisy = np.clip(photo + noise, 0, 255).astype(np.uint8)
    assert blockiness(photo, grid) > 5
    assert abs(blockiness(photo, noisy)) < 0.1
    assert blockiness(photo[4:, 4:], grid[4:, 4:]) < 0
    assert blockiness(photo, photo) is None
    assert blockiness(photo[:8, :8], grid[:8, :8]) is None


def test_butteraugli_names_what_to_install(photo, grid, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="libjxl-devtools"):
        butteraugli(photo, grid)


@pytest.mark.skipif(not shutil.which("butteraugli_main"), reason="no butteraugli_main: apt-get install libjxl-devtools")
def test_butteraugli_grows_with_the_error(photo, grid):
    half = ((photo.astype(int) + grid) // 2).astype(np.uint8)
    assert 0 == butteraugli(photo, photo) < butteraugli(photo, half) < butteraugli(photo, grid)
