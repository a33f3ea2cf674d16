"""The training objective, and rate and distortion on held-out pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pixa.datasets.pictures import Pictures
from pixa.models.rates import rd_lambda

EVAL_LEVELS = (0, 50, 100, 150, 200)
EVAL_CROP = 384


def rd_loss(model: nn.Module, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(rate-distortion cost lambda*255^2*MSE + bpp, bpp, MSE) of every picture of a batch, each (B,)."""
    out = model(x, level)
    pixels = x.shape[2] * x.shape[3]
    bpp = -sum(p.log2().sum((1, 2, 3)) for p in out["likelihoods"].values()) / pixels
    x_hat = out["x_hat"] if model.training else out["x_hat"].clamp(0, 1)
    mse = (x_hat - x).pow(2).mean((1, 2, 3))
    return rd_lambda(level.float()) * 255**2 * mse + bpp, bpp, mse


@torch.no_grad()
def evaluate(model: nn.Module, pictures: Pictures, held_out: int) -> dict:
    """Means over the central crops of the first `held_out` pictures.

    Returns:
        {"cost": mean log of the rate-distortion cost over five levels, "level_bpp_psnr": [[level, bpp, dB], ...]}.
    """
    model.eval()
    table, cost = [], 0.0
    for level in EVAL_LEVELS:
        losses, rates, psnrs = [], [], []
        for i in range(held_out):
            x = pictures.centre(i, min(EVAL_CROP, int(pictures.sizes[i].min()) // 64 * 64))
            loss, bpp, mse = rd_loss(model, x, torch.tensor([level], device=x.device))
            losses.append(loss.log().item())
            rates.append(bpp.item())
            psnrs.append(-10 * math.log10(mse.item()))
        table.append([level, round(sum(rates) / held_out, 4), round(sum(psnrs) / held_out, 3)])
        cost += sum(losses) / held_out / len(EVAL_LEVELS)
    model.train()
    return {"cost": round(cost, 4), "level_bpp_psnr": table}
