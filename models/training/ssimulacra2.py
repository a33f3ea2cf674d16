"""SSIMULACRA 2 as a differentiable function of a batch of pictures.

Sneyers, "SSIMULACRA 2" (Cloudinary, 2023): structural errors, artifacts and lost detail in the XYB colour space at six
scales, as a weighted sum that a fixed curve turns into a score. The constants are those of the package `ssimulacra2`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from ssimulacra2.ssimulacra2 import kB0, kOpsinAbsorbanceMatrix
from ssimulacra2.ssimulacra2 import weights as PACKAGE_WEIGHTS
from torch import Tensor

RADIUS, SIGMA = 5, 1.5
STABILITY = 0.0009
SUM_SCALE = 0.9562382616834844
CUBIC = (2.326765642916932, -0.020884521182843837, 6.248496625763138e-05)
EXPONENT = 0.6276336467831387
SCALES = 6
SMALLEST_SIDE = 8
NEGLIGIBLE = 0.1
WEIGHTS = torch.tensor(PACKAGE_WEIGHTS).view(3, SCALES, 2, 3).float()  # channel, scale, norm (1, 4), kind of error


@lru_cache
def blur_matrix(size: int, edge: str) -> Tensor:
    """(size, size) float: the Gaussian of 11 taps along one side of a picture that is `zero` outside or goes on as a
    `reflect`ion."""
    taps = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    padded = np.pad(np.eye(size), ((RADIUS, RADIUS), (0, 0)), mode="symmetric" if edge == "reflect" else "constant")
    matrix = sum(tap * padded[i : i + size] for i, tap in enumerate(taps / taps.sum()))
    return torch.from_numpy(matrix).float()


def blur(x: Tensor, width_edge: str) -> Tensor:
    """Gaussian of sigma 1.5 over x (B, C, H, W), reflected at top and bottom."""
    rows, columns = blur_matrix(x.shape[2], "reflect").to(x), blur_matrix(x.shape[3], width_edge).to(x)
    return rows @ (x @ columns.T)


def linear_light(x: Tensor) -> Tensor:
    """Linear light of sRGB samples in [0, 1]."""
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0.04) + 0.055) / 1.055) ** 2.4)


def positive_xyb(linear: Tensor) -> Tensor:
    """XYB of linear light (B, 3, H, W), shifted and scaled as SSIMULACRA 2 does."""
    matrix = torch.from_numpy(kOpsinAbsorbanceMatrix).view(3, 3).to(linear)
    cones = torch.einsum("oc,bchw->bohw", matrix, linear) + kB0
    cones = cones.clamp(min=1e-6) ** (1 / 3) - kB0 ** (1 / 3)
    x, y, b = 0.5 * (cones[:, 0] - cones[:, 1]), 0.5 * (cones[:, 0] + cones[:, 1]), cones[:, 2]
    return torch.stack([x * 14 + 0.42, y + 0.01, b - y + 0.55], 1)


def weighted_errors(reference: Tensor, x: Tensor, whole: bool = True, width_edge: str = "zero") -> Tensor:
    """The weighted sum of errors (B,) before the curve of the score; 0 for equal pictures.

    Args:
        reference, x: (B, 3, H, W) sRGB in [0, 1], H and W divisible by 32; only x gets a gradient.
        whole: all terms; otherwise those of weight above 0.1 alone, in less time.
        width_edge: what blurring finds left and right of a picture: `zero`, as in the package, or `reflect`, which
            does not favour the borders of crops.
    """
    reference, x = linear_light(reference), linear_light(x)
    least = 0.0 if whole else NEGLIGIBLE
    total = x.new_zeros(len(x))
    for scale in range(SCALES):
        if scale:
            reference, x = F.avg_pool2d(reference, 2), F.avg_pool2d(x, 2)
        channels = [c for c in range(3) if WEIGHTS[c, scale].max() > least]
        if min(x.shape[2:]) < SMALLEST_SIDE or not channels:
            continue
        weights = WEIGHTS[channels, scale].to(x)
        with torch.no_grad():
            a = positive_xyb(reference)[:, channels]
            mean_a, mean_aa = blur(torch.cat([a, a * a], 1), width_edge).chunk(2, 1)
            edge_a = (a - mean_a).abs() + 1
        b = positive_xyb(x)[:, channels]
        mean_b, mean_bb, mean_ab = blur(torch.cat([b, b * b, a * b], 1), width_edge).chunk(3, 1)
        variances = mean_aa - mean_a * mean_a + mean_bb - mean_b * mean_b
        similarity = (2 * (mean_ab - mean_a * mean_b) + STABILITY) / (variances + STABILITY)
        structure = 1 - (1 - (mean_a - mean_b) ** 2) * similarity
        edges = ((b - mean_b).abs() + 1) / edge_a - 1
        for kind, error in enumerate((structure, edges, -edges)):
            error = error.clamp(min=0)
            if weights[:, 0, kind].max() > least:
                total = total + error.mean((2, 3)) @ weights[:, 0, kind]
            if weights[:, 1, kind].max() > least:
                total = total + ((error * error) ** 2).mean((2, 3)).add(1e-20) ** 0.25 @ weights[:, 1, kind]
    return total * SUM_SCALE


def score(errors: Tensor) -> Tensor:
    """SSIMULACRA 2 of weighted errors: 100 for equal pictures, 90 visually lossless, 50 medium."""
    first, second, third = CUBIC
    return 100 - 10 * (errors * (first + errors * (second + errors * third))).clamp(min=1e-9) ** EXPONENT
