"""Stochastic Gumbel annealing: the latents of one picture, searched with gradients before they are coded.

The transforms stay as they are and so does the decoder: only the encoder looks for latents that cost fewer bits for the
same picture (Yang, Bamler and Mandt, "Improving inference for neural image compression", NeurIPS 2020; the instance
adaptation of MLICv2, Jiang et al., 2025). Every latent is rounded up or down at random, by odds that harden as the
temperature falls, and what the whole decoder makes of it pulls at the latents and hyper-latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixa.models.export.restore import restore
from pixa.models.nets.backbone import Backbone
from pixa.models.nets.rates import gaussian_bits, rd_lambda, z_table

HYPER = 4  # latent positions a hyper-latent position
WARM, COLD = 0.5, 0.1  # temperatures
RATE, HYPER_RATE = 0.03, 0.01  # of learning, in quantiser steps


@cache
def load(folder: Path) -> Backbone:
    return restore(folder).eval().requires_grad_(False)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads, 0 for as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def soft_round(x: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """x moved towards floor(x) or floor(x) + 1 at random, the nearer the likelier, harder as temperature falls to 0."""
    low = torch.floor(x)
    part = (x - low).clamp(1e-5, 1 - 1e-5)
    odds = torch.atanh(part) - torch.atanh(1 - part)
    uniform = torch.rand(x.shape, generator=generator).clamp(1e-7, 1 - 1e-7)
    return low + torch.sigmoid((odds / temperature + torch.logit(uniform)) / temperature)


def expected_bits(model: Backbone, symbols: Tensor, scale: Tensor, table: Tensor) -> Tensor:
    """Bits of symbols between two integers under the integer tables, summed, the cost of each by its share.

    Tables have no derivative by their index; that of the Gaussians which they began as takes its place.
    """
    low = torch.floor(symbols.detach())
    below, above = (model.table_bits(integers, table.detach()) for integers in (low, low + 1))
    gaussian = gaussian_bits(symbols.detach(), scale)
    return (torch.lerp(below, above, symbols - low) + gaussian - gaussian.detach()).sum()


def distortion_of(tune: str, target: Tensor, level: Tensor) -> Callable[[Tensor], Tensor]:
    """What a picture (1, 3, H, W) loses against `target`, in bits, at a level (1,)."""
    pixels = math.prod(target.shape[2:])
    if tune == "psnr":
        worth = pixels * 255**2 * rd_lambda(level.float())
        return lambda x: worth * (x - target).square().mean()
    from pixa.models.training.eye_loss import EyeLoss

    eye = EyeLoss(None)
    return lambda x: pixels * eye.mix(eye.distortions(target, x), level)


def anneal(
    folder: Path,
    pixels: np.ndarray,
    latents: np.ndarray,
    inner: tuple[slice, slice],
    level: int,
    steps: int,
    jobs: int = 0,
    progress: Callable[[int, int], None] | None = None,
    *,
    tune: str = "psnr",
) -> tuple[np.ndarray, np.ndarray]:
    """Search the latents of one entropy tile.

    Args:
        folder: the model's exported files.
        pixels: (H, W, 3) uint8, what is to be seen of the tile and of what surrounds it.
        latents: (M, ceil(H/16), ceil(W/16)) of the same window: inside the tile as the analysis gave them, around it as
            the decoder will have them.
        inner: rows and columns of the tile in `latents`.
        steps: of the optimiser.
        jobs: threads, 0 for torch's choice.
        progress: called with (steps done, steps in all).
        tune: what is to be small beside the bits: the squared error for "psnr", `pixa.models.training.eye_loss` (but
            for LPIPS, whose network is not at hand) for "eye".

    Returns:
        (y (M, h, w), z (N, ceil(h/4), ceil(w/4))) of the tile, float32, not yet rounded.
    """
    model = load(folder)
    around = torch.from_numpy(latents)[None]
    target = torch.tensor(pixels).permute(2, 0, 1)[None] / 255
    levels = torch.tensor([level])
    distortion = distortion_of(tune, target, levels)
    step, vector = model.log_step(levels).exp(), model.vector(levels)
    with threads(jobs), torch.no_grad():
        y = around[:, :, *inner]
        height, width = y.shape[2:]
        z = model.hyper(F.pad(y, (0, -width % HYPER, 0, -height % HYPER), mode="replicate"), levels)
        parameters = [y / step, z]
    for parameter in parameters:
        parameter.requires_grad_(True)
    groups = [{"params": [p], "lr": rate} for p, rate in zip(parameters, (RATE, HYPER_RATE), strict=True)]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    with threads(jobs):
        for done in range(steps):
            temperature = WARM * (COLD / WARM) ** (done / steps)
            coded = model.code(
                parameters[0] * step, parameters[1], levels, lambda x, t=temperature: soft_round(x, t, generator)
            )
            y_hat = around.clone()
            y_hat[:, :, *inner] = coded.y_hat
            x_hat = model.g_s(y_hat, vector)[:, :, : target.shape[2], : target.shape[3]]
            bits = expected_bits(model, coded.symbols, coded.index, coded.index)
            bits += expected_bits(model, coded.z_symbols, coded.z_index, z_table(coded.z_index))
            loss = distortion(x_hat) + bits
            optimizer.zero_grad(set_to_none=True)
            (loss / math.prod(y.shape[2:])).backward()
            optimizer.step()
            schedule.step()
            if progress:
                progress(done + 1, steps)
    y, z = (parameters[0] * step).detach(), parameters[1].detach()
    return y[0].numpy(), z[0].numpy()
