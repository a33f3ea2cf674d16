"""LPIPS: with random weights everywhere, with the trained ones where PIXA_LPIPS_BACKBONE names them."""

from __future__ import annotations

import os
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from pixa.app.bench import metrics
from pixa.errors import UsageError
from pixa.models.training.lpips import LPIPS, SMALLEST_SIDE, load_lpips, squeezenet_features

BACKBONE = os.environ.get(metrics.BACKBONE)
CHANNELS = (64, 128, 256, 384, 384, 512, 512)


@pytest.fixture(scope="module")
def random_lpips() -> LPIPS:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = {f"features.{name}": value.numpy() for name, value in squeezenet_features().state_dict().items()}
        return LPIPS(backbone, [torch.rand(1, channels, 1, 1) for channels in CHANNELS])


@pytest.fixture(scope="module")
def pictures(photo) -> torch.Tensor:
    """Two crops of a photograph, (2, 3, 64, 96) in [0, 1]."""
    crops = np.stack([photo[:64, :96], photo[100:164, 100:196]])
    return torch.tensor(crops).permute(0, 3, 1, 2) / 255


def test_distance_is_zero_for_equal_pictures_and_grows_with_noise(random_lpips, pictures):
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    distances = [random_lpips(pictures, pictures + amplitude * noise) for amplitude in (0, 0.02, 0.1, 0.4)]
    assert distances[0].tolist() == [0, 0]
    assert all((small < large).all() for small, large in pairwise(distances))


def test_distance_is_that_of_each_picture_alone_and_symmetric(random_lpips, pictures):
    x, y = pictures, pictures.flip(0)
    distance = random_lpips(x, y)
    assert distance.shape == (2,)
    torch.testing.assert_close(distance, random_lpips(y, x))
    torch.testing.assert_close(distance[:1], random_lpips(x[:1], y[:1]))


def test_descent_along_the_gradient_brings_pictures_nearer(random_lpips, pictures):
    x = pictures.flip(0).requires_grad_()
    before = random_lpips(x, pictures).sum()
    before.backward()
    with torch.no_grad():
        assert random_lpips(x - 0.1 * x.grad, pictures).sum() < before


def test_gradient_is_finite_where_features_vanish(random_lpips, pictures):
    for x in (torch.zeros_like(pictures), pictures.clone()):
        x.requires_grad_()
        random_lpips(x, pictures).sum().backward()
        assert x.grad.isfinite().all()
    assert not any(parameter.requires_grad for parameter in random_lpips.parameters())


def test_metric_has_no_value_for_a_picture_too_small(random_lpips, monkeypatch, photo):
    monkeypatch.setattr(metrics, "lpips_network", lambda _: random_lpips)
    assert metrics.lpips(photo[: SMALLEST_SIDE - 1], photo[: SMALLEST_SIDE - 1]) is None
    assert metrics.lpips(photo[:SMALLEST_SIDE, :SMALLEST_SIDE], photo[:SMALLEST_SIDE, :SMALLEST_SIDE]) == 0


def test_what_is_missing_is_named(monkeypatch, photo, tmp_path):
    monkeypatch.delenv(metrics.BACKBONE, raising=False)
    with pytest.raises(UsageError, match="needs PIXA_LPIPS_BACKBONE="):
        metrics.lpips(photo, photo)
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(UsageError, match="pip install --no-deps lpips"):
        load_lpips(tmp_path / "backbone.npz")


@pytest.mark.parametrize("kind", ["absent", "text", "other arrays"])
def test_a_file_that_is_no_backbone_is_refused(kind, tmp_path, monkeypatch):
    package, path = tmp_path / "lpips", tmp_path / "backbone.npz"
    (package / "weights" / "v0.1").mkdir(parents=True)
    (package / "__init__.py").touch()
    linear = {f"lin{depth}.model.1.weight": torch.ones(1, size, 1, 1) for depth, size in enumerate(CHANNELS)}
    torch.save(linear, package / "weights" / "v0.1" / "squeeze.pth")
    monkeypatch.syspath_prepend(tmp_path)
    if kind == "text":
        path.write_text("no arrays")
    if kind == "other arrays":
        np.savez(path, **{"features.0.weight": np.zeros((64, 3, 3, 3))})
    with pytest.raises(UsageError, match="does not hold SqueezeNet"):
        load_lpips(path)


@pytest.mark.outside_data
@pytest.mark.skipif(not BACKBONE, reason="PIXA_LPIPS_BACKBONE names no file")
def test_metric_equals_the_lpips_package():
    """The value that lpips 0.1.4 gives for the same two pictures, on the same weights stored as float16."""
    y, x = np.mgrid[:200, :221]
    picture = np.stack([(x * 3 + y) % 256, (x * y // 7) % 256, (x + 2 * y) % 256], 2).astype(np.uint8)
    noise = np.random.default_rng(0).integers(-40, 41, picture.shape)
    noisy = np.clip(picture + noise, 0, 255).astype(np.uint8)
    assert metrics.lpips(picture, noisy) == pytest.approx(0.1978373, rel=1e-3)
