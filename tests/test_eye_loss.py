"""The distortion of the tune `eye`: SSIMULACRA 2 in torch beside the package, and what the other terms see."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from pixa.app.bench.metrics import ms_ssim as ms_ssim_of_bytes
from pixa.app.bench.metrics import ssimulacra2 as package_score
from pixa.models.training.eye_loss import ms_ssim, seams
from pixa.models.training.ssimulacra2 import score, weighted_errors


def tensor(samples: np.ndarray) -> torch.Tensor:
    return torch.tensor(samples).permute(2, 0, 1)[None] / 255


def stored(image: Image.Image, **options) -> np.ndarray:
    file = io.BytesIO()
    image.save(file, **options)
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.fixture(scope="module")
def original(photo) -> np.ndarray:
    return np.ascontiguousarray(photo[:256, :320])


@pytest.fixture(scope="module")
def distorted(original) -> list[np.ndarray]:
    """50 pictures: JPEG, AVIF, WebP, blur and noise from bad to nearly equal."""
    image, rng = Image.fromarray(original), np.random.default_rng(1)
    coded = [stored(image, format=name, quality=q) for name in ("JPEG", "WEBP", "AVIF") for q in range(5, 95, 8)]
    blurred = [np.asarray(image.filter(ImageFilter.GaussianBlur(radius / 2))) for radius in range(1, 9)]
    noise = [original + rng.normal(0, sigma, original.shape) for sigma in (1, 2, 4, 8, 16, 32)]
    return coded[:36] + blurred + [np.clip(picture, 0, 255).round().astype(np.uint8) for picture in noise]


class TestSsimulacra2:
    def test_scores_are_those_of_the_package(self, original, distorted):
        assert len(distorted) == 50
        for picture in distorted:
            expected = package_score(original, picture)
            assert score(weighted_errors(tensor(original), tensor(picture))).item() == pytest.approx(expected, abs=0.2)

    def test_small_terms_are_left_out_at_little_cost(self, original, distorted):
        for picture in distorted:
            whole, part = (weighted_errors(tensor(original), tensor(picture), whole) for whole in (True, False))
            assert score(part).item() == pytest.approx(score(whole).item(), abs=0.1)

    def test_descent_along_the_gradient_raises_the_score(self, original, distorted):
        x = tensor(distorted[3]).requires_grad_()
        errors = weighted_errors(tensor(original), x, whole=False, width_edge="reflect")
        errors.sum().backward()
        assert torch.isfinite(x.grad).all()
        nearer = x.detach() - 1e-3 * x.grad / x.grad.abs().max()
        assert weighted_errors(tensor(original), nearer, whole=False, width_edge="reflect") < errors

    def test_equal_pictures_score_nearly_100(self, original):
        assert score(weighted_errors(tensor(original), tensor(original))).item() > 99


class TestOtherTerms:
    def test_ms_ssim_is_that_of_the_benchmark(self, original, distorted):
        for picture in distorted[::5]:
            value = ms_ssim(tensor(original)[..., :256], tensor(picture)[..., :256]).item()
            expected = ms_ssim_of_bytes(original[:, :256], picture[:, :256])
            assert value == pytest.approx(expected, abs=1e-3)

    def test_seams_are_steps_across_the_grid_where_the_picture_is_smooth(self):
        rng, flat = np.random.default_rng(2), torch.full((1, 3, 64, 64), 0.5)
        steps = torch.from_numpy(rng.normal(0, 0.01, (8, 8))).float()
        blocks = steps.repeat_interleave(8, 0).repeat_interleave(8, 1)
        shifted = blocks.roll((4, 4), (0, 1))
        busy = flat + torch.from_numpy(rng.normal(0, 0.1, (64, 64))).float()
        on_grid = seams(flat, flat + blocks).item()
        assert on_grid > 10 * seams(flat, flat + shifted).item()
        assert on_grid > 10 * seams(busy, busy + blocks).item()
        assert seams(busy, busy).item() == 0
