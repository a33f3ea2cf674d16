"""Distortion as people see it: SSIMULACRA 2, MS-SSIM, LPIPS, squared error and steps across the block grid, mixed.

No metric alone: each has a blind side that training would find. A term of distortion D is weighted at every quality
level by lambda = -dR/dD of a model's own curve, so that each term alone, and so any mix whose shares add up to one,
asks for about the rate that the level has.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixa.models.nets.layers import ANCHOR_STEP, ANCHORS
from pixa.models.training.lpips import load_lpips
from pixa.models.training.ssimulacra2 import blur, weighted_errors

SHARES = {"ssimulacra2": 0.55, "ms_ssim": 0.2, "lpips": 0.05, "mse": 0.15, "seams": 0.05}

# -dR/dD in bits a pixel on the curve of fast.2, central 256x256 crops of held-out pictures, levels 0, 25, ... 200
LAMBDAS = {
    "ssimulacra2": (0.004259, 0.01064, 0.02498, 0.05441, 0.1121, 0.2236, 0.4339, 0.8319, 1.523),
    "ms_ssim": (1.57, 3.59, 7.708, 15.48, 28.94, 51.05, 90.08, 166.0, 305.9),
    "lpips": (0.733, 1.431, 2.634, 4.933, 8.352, 13.0, 20.49, 32.94, 63.2),
    "mse": (0.0008708, 0.001965, 0.004204, 0.008859, 0.01847, 0.03802, 0.07782, 0.1585, 0.2811),
    "seams": (942.9, 1491.0, 2120.0, 2977.0, 4280.0, 6345.0, 9398.0, 14780.0, 26740.0),
}

STRETCH = (0.5, 3.3)  # of all lambdas at the lowest and the highest level, for a range of rates wider than fast.2's
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
VALID = 5  # rows and columns at each side where a window of 11 does not fit
GRID = 8
FLAT = 0.02  # standard deviation of luma above which activity hides a step


def ms_ssim(reference: Tensor, x: Tensor) -> Tensor:
    """Multi-scale SSIM (B,) of (B, 3, H, W) in [0, 1] (Wang, Simoncelli, Bovik, 2003); of pictures with a side under
    176 on as many of the five scales as a window fits."""
    c1, c2 = 0.01**2, 0.03**2
    product = x.new_ones(x.shape[:2])
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale:
            reference, x = F.avg_pool2d(reference, 2), F.avg_pool2d(x, 2)
        if min(x.shape[2:]) <= 2 * VALID:
            break
        inside = (..., slice(VALID, -VALID), slice(VALID, -VALID))
        with torch.no_grad():
            mean_a, mean_aa = blur(torch.cat([reference, reference**2], 1), "reflect")[inside].chunk(2, 1)
        mean_b, mean_bb, mean_ab = blur(torch.cat([x, x**2, reference * x], 1), "reflect")[inside].chunk(3, 1)
        variances = mean_aa - mean_a**2 + mean_bb - mean_b**2
        similarity = (2 * (mean_ab - mean_a * mean_b) + c2) / (variances + c2)
        if scale == len(MS_SSIM_WEIGHTS) - 1:
            similarity = similarity * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        product = product * similarity.mean((2, 3)).clamp(min=1e-4) ** weight
    return product.mean(1)


def seams(reference: Tensor, x: Tensor) -> Tensor:
    """Mean square (B,) of the steps that the error makes across the lines of the 8x8 grid, in luma, where the
    reference is too smooth to hide them."""
    luma = reference.mean(1, keepdim=True)
    with torch.no_grad():
        mean, square = blur(torch.cat([luma, luma**2], 1), "reflect").chunk(2, 1)
        shown = 1 / (1 + (square - mean**2).clamp(min=0) / FLAT**2)
    error = x.mean(1, keepdim=True) - luma
    total = 0.0
    for axis in (2, 3):
        lines = torch.arange(GRID, x.shape[axis], GRID, device=x.device)
        step = error.index_select(axis, lines) - error.index_select(axis, lines - 1)
        total = total + (step**2 * shown.index_select(axis, lines)).mean((1, 2, 3))
    return total


class EyeLoss(nn.Module):
    """The mix of distortions that the tune `eye` is trained for.

    Args:
        backbone: SqueezeNet 1.1 for LPIPS, see `pixa.models.training.lpips`; None leaves LPIPS out and its share to
            the others.

    Raises:
        UsageError: the backbone or the package `lpips` is missing.
    """

    def __init__(self, backbone: Path | None):
        super().__init__()
        self.lpips = load_lpips(backbone).to(memory_format=torch.channels_last) if backbone else None
        shares = {name: share for name, share in SHARES.items() if name != "lpips" or backbone}
        self.shares = {name: share / sum(shares.values()) for name, share in shares.items()}
        position = torch.linspace(0, 1, ANCHORS)
        stretch = STRETCH[0] * (STRETCH[1] / STRETCH[0]) ** position
        logs = [(torch.tensor(LAMBDAS[name]) * stretch * share).log() for name, share in self.shares.items()]
        self.register_buffer("log_lambda", torch.stack(logs, 1), persistent=False)

    def distortions(self, reference: Tensor, x: Tensor, part: int = 1) -> dict[str, Tensor]:
        """Every distortion (B,) of x, clipped to [0, 1], against a reference, both (B, 3, H, W).

        LPIPS, as costly as a model, is that of a random window of 1/`part` of the height and the width.
        """
        clipped = x.clamp(0, 1)
        height, width = (side // part for side in x.shape[2:])
        top, left = (
            int(torch.randint(whole - side + 1, ())) for whole, side in zip(x.shape[2:], (height, width), strict=True)
        )
        window = (..., slice(top, top + height), slice(left, left + width))
        terms = {
            "ssimulacra2": weighted_errors(reference, clipped, whole=False, width_edge="reflect"),
            "ms_ssim": 1 - ms_ssim(reference, clipped),
            "mse": 255**2 * (x - reference).square().mean((1, 2, 3)),
            "seams": seams(reference, clipped),
        }
        return terms | ({"lpips": self.lpips(reference[window], clipped[window])} if self.lpips else {})

    def lambdas(self, level: Tensor) -> Tensor:
        """Weights (B, terms) at levels (B,), log-linear between the anchors."""
        position = level.float() / ANCHOR_STEP
        low = position.floor().clamp(max=ANCHORS - 2).long()
        return torch.lerp(self.log_lambda[low], self.log_lambda[low + 1], (position - low)[:, None]).exp()

    def mix(self, terms: dict[str, Tensor], level: Tensor) -> Tensor:
        """Distortions (B,) by name as one (B,), in bits a pixel, at levels (B,)."""
        return (torch.stack([terms[name] for name in self.shares], 1) * self.lambdas(level)).sum(1)

    def forward(self, reference: Tensor, x: Tensor, level: Tensor) -> Tensor:
        return self.mix(self.distortions(reference, x, part=2), level)
