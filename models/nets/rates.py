"""What symbols cost: quality levels and their Lagrangian, the Gaussians of the table indexes, the integer tables."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pixa.bitstream.tables import Tables, gaussian_tables
from pixa.models.nets.layers import ANCHOR_STEP, ANCHORS

SCALE_MIN, SCALE_RATIO, SCALES = 0.11, 1000.0, 64  # standard deviation of table i: 0.11 * 1000**(i/63)
INDEX_UNIT = math.log(SCALE_RATIO) / (SCALES - 1)
LAMBDA_MIN, LAMBDA_RATIO = 0.0008, 400.0


def rd_lambda(level: Tensor) -> Tensor:
    """Weight of 255**2 * MSE against bits per pixel at a quality level: 0.0008 at 0, 0.32 at 200."""
    return LAMBDA_MIN * LAMBDA_RATIO ** (level / ((ANCHORS - 1) * ANCHOR_STEP))


def z_table(index: Tensor) -> Tensor:
    """Tables of hyper-latents: 64..126 for the scales 1..63, and 0 for none."""
    return torch.where(index > 0, index + SCALES - 1, index)


def start_tables() -> Tables:
    """Gaussians: tables 1..63 for latents and, of the same scales, 64..126 for hyper-latents."""
    scales = SCALE_MIN * SCALE_RATIO ** (np.arange(SCALES) / (SCALES - 1))
    return gaussian_tables(np.concatenate([scales, scales[1:]]))


def gaussian_bits(value: Tensor, index: Tensor) -> Tensor:
    """Bits of integers (or noisy integers) under the zero-mean Gaussian of table `index`, element-wise."""
    scale = SCALE_MIN * torch.exp(index * INDEX_UNIT)
    size = value.abs()
    root = math.sqrt(0.5)
    mass = 0.5 * (torch.erfc((size - 0.5) / scale * root) - torch.erfc((size + 0.5) / scale * root))
    return -torch.log2(mass.clamp(min=1e-7))
