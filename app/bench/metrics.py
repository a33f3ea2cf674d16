"""How near a decoded picture is to its original: every metric takes two (H, W, 3) uint8 RGB arrays."""

from __future__ import annotations

import io
import math
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pixa.errors import UsageError

if TYPE_CHECKING:
    from pixa.models.training.lpips import LPIPS
    from pixa.models.training.perceptual import VggDistance

BACKBONE, VGG_BACKBONE = "PIXA_LPIPS_BACKBONE", "PIXA_VGG_BACKBONE"
GRID = 8
BT601 = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SIGMA = 11, 1.5
MS_SSIM_SIDE = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)


def decibels(mse: float) -> float:
    """PSNR in dB of a mean squared error of 8-bit samples; infinite where there is no error."""
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def difference(original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """decoded - original as float32 (H, W, 3).

    Raises:
        UsageError: the pictures differ in shape.
    """
    if original.shape != decoded.shape:
        raise UsageError(f"cannot compare pictures of shapes {original.shape} and {decoded.shape}")
    return np.subtract(decoded, original, dtype=np.float32)


def psnr_rgb(original: np.ndarray, decoded: np.ndarray) -> float:
    """PSNR in dB of the error averaged over the three channels, the "psnr-rgb" of CompressAI's result files."""
    return decibels(float(np.mean(np.square(difference(original, decoded)), dtype=np.float64)))


def psnr_ycbcr(original: np.ndarray, decoded: np.ndarray) -> float:
    """PSNR in dB of Y, Cb and Cr (BT.601, full range, unrounded), averaged 6:1:1 as is usual in JVET reports."""
    error = difference(original, decoded) @ BT601.T
    y, cb, cr = (decibels(mse) for mse in np.mean(np.square(error), axis=(0, 1)))
    return (6 * y + cb + cr) / 8


def blur(plane: np.ndarray) -> np.ndarray:
    """Gaussian window of 11x11, sigma 1.5, over (H, W, C); only where it fits: (H - 10, W - 10, C)."""
    taps = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    taps /= taps.sum()
    for axis in (0, 1):
        length = plane.shape[axis] - WINDOW + 1
        plane = sum(tap * plane.take(range(i, i + length), axis) for i, tap in enumerate(taps))
    return plane


def halve(plane: np.ndarray) -> np.ndarray:
    """Means of 2x2 samples of (H, W, C), an odd side padded with zeros as in `pytorch-msssim`."""
    height, width = plane.shape[:2]
    plane = np.pad(plane, ((height % 2, 0), (width % 2, 0), (0, 0)))
    return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4


def ms_ssim(original: np.ndarray, decoded: np.ndarray) -> float | None:
    """Multi-scale SSIM, 0 to 1 (Wang, Simoncelli and Bovik, 2003), the mean over R, G and B, on five scales.

    The same numbers as `pytorch-msssim`, which CompressAI's "ms-ssim-rgb" comes from. None for a picture with a
    side under 176 pixels, where the window does not fit the smallest scale.
    """
    if min(original.shape[:2]) < MS_SSIM_SIDE:
        return None
    x, y = original.astype(np.float64), decoded.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    score = np.ones(x.shape[2])
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            x, y = halve(x), halve(y)
        mean_x, mean_y = blur(x), blur(y)
        variances = blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2
        covariance = blur(x * y) - mean_x * mean_y
        similarity = (2 * covariance + c2) / (variances + c2)
        if scale == len(SCALE_WEIGHTS) - 1:
            similarity *= (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        score *= np.maximum(similarity.mean(axis=(0, 1)), 0) ** weight
    return float(score.mean())


def ssimulacra2(original: np.ndarray, decoded: np.ndarray) -> float:
    """SSIMULACRA 2 (Sneyers, Cloudinary, 2023) through the package `ssimulacra2`: 90 visually lossless, 50 medium.

    Raises:
        UsageError: the package is not installed.
    """
    try:
        from ssimulacra2 import compute_ssimulacra2
    except ImportError:
        raise UsageError("the metric ssimulacra2 needs: pip install ssimulacra2") from None
    files = [io.BytesIO(), io.BytesIO()]
    for file, samples in zip(files, (original, decoded), strict=True):
        Image.fromarray(samples).save(file, "PNG", compress_level=0)
    return float(compute_ssimulacra2(*files))


def butteraugli(original: np.ndarray, decoded: np.ndarray) -> float:
    """The 3-norm of Butteraugli (Alakuijala et al., 2017) at 80 nits, 0 for equal pictures, through `butteraugli_main`.

    Raises:
        UsageError: the program is not installed.
    """
    program = shutil.which("butteraugli_main")
    if not program:
        raise UsageError("the metric butteraugli needs the program butteraugli_main, in Debian of libjxl-devtools")
    with TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("original.ppm", "decoded.ppm")]
        for path, samples in zip(paths, (original, decoded), strict=True):
            Image.fromarray(samples).save(path)
        done = subprocess.run([program, *paths, "--pnorm", "3"], capture_output=True, text=True, check=True)
    return float(done.stdout.rpartition("3-norm:")[2])


def blockiness(original: np.ndarray, decoded: np.ndarray) -> float | None:
    """How much larger the steps of the error in luma are across the lines of an 8x8 grid than elsewhere: the ratio of
    their mean sizes less one, 0 where no grid shows; None where there is no error or a side is under 9 pixels."""
    error = difference(original, decoded) @ BT601[0]
    on_grid, elsewhere = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(error, axis=axis)).mean(1 - axis)
        line = np.arange(1, len(steps) + 1) % GRID == 0
        on_grid.append(steps[line])
        elsewhere.append(steps[~line])
    on_grid, elsewhere = np.concatenate(on_grid), np.concatenate(elsewhere)
    return float(on_grid.mean() / elsewhere.mean() - 1) if len(on_grid) and elsewhere.any() else None


def lpips(original: np.ndarray, decoded: np.ndarray) -> float | None:
    """LPIPS on SqueezeNet (Zhang et al., CVPR 2018), 0 for identical pictures; None for a side under 17 pixels.

    The environment variable PIXA_LPIPS_BACKBONE names the weights of SqueezeNet 1.1, an .npz of torchvision's names.

    Raises:
        UsageError: those weights, torch or the package `lpips` are not there.
    """
    network = lpips_network(os.environ.get(BACKBONE, ""))
    from pixa.models.training.lpips import SMALLEST_SIDE

    return None if min(original.shape[:2]) < SMALLEST_SIDE else distance(network, original, decoded)


def vgg(original: np.ndarray, decoded: np.ndarray) -> float | None:
    """Mean squared difference of features of VGG-16 of unit length, at four depths, 0 for equal pictures; None for a
    side under 8 pixels. No image model of pixa but `vqgan` was trained with it.

    The environment variable PIXA_VGG_BACKBONE names the weights, an .npz of Keras's names.

    Raises:
        UsageError: those weights or torch are not there.
    """
    network = vgg_network(os.environ.get(VGG_BACKBONE, ""))
    return None if min(original.shape[:2]) < GRID else distance(network, original, decoded)


def distance(network: Callable, original: np.ndarray, decoded: np.ndarray) -> float:
    """What a network of torch makes of two pictures."""
    import torch

    pictures = (torch.tensor(samples).permute(2, 0, 1)[None] / 255 for samples in (original, decoded))
    with torch.inference_mode():
        return network(*pictures).item()


@cache
def vgg_network(backbone: str) -> VggDistance:
    if not find_spec("torch"):
        raise UsageError("the metric vgg needs: pip install torch")
    if not backbone:
        raise UsageError(f"the metric vgg needs {VGG_BACKBONE}=FILE.npz, VGG-16 under Keras's names")
    from pixa.models.training.perceptual import load_vgg

    return load_vgg(Path(backbone))


@cache
def lpips_network(backbone: str) -> LPIPS:
    if not find_spec("torch"):
        raise UsageError("the metric lpips needs: pip install torch")
    if not backbone:
        raise UsageError(f"the metric lpips needs {BACKBONE}=FILE.npz, SqueezeNet 1.1 under torchvision's names")
    from pixa.models.training.lpips import load_lpips

    return load_lpips(Path(backbone))


Metric = Callable[[np.ndarray, np.ndarray], float | None]

METRICS: dict[str, dict[str, Metric]] = {
    "psnr": {"psnr-rgb": psnr_rgb, "psnr-ycbcr": psnr_ycbcr},
    "ms-ssim": {"ms-ssim-rgb": ms_ssim},
    "ssimulacra2": {"ssimulacra2": ssimulacra2},
    "butteraugli": {"butteraugli": butteraugli},
    "lpips": {"lpips": lpips},
    "vgg": {"vgg": vgg},
    "blockiness": {"blockiness": blockiness},
}
