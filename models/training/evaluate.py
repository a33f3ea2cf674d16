"""The training objective, and rate and distortion on held-out pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixa.datasets.pictures import Pictures
from pixa.models.nets.rates import rd_lambda
from pixa.models.training.eye_loss import EyeLoss

EVAL_LEVELS = (0, 50, 100, 150, 200)
EVAL_CROP = 384


def bits_per_pixel(out: dict) -> Tensor:
    """Rate (B,) of what a model's `forward` returned."""
    pixels = out["x_hat"].shape[2] * out["x_hat"].shape[3]
    return -sum(p.log2().sum((1, 2, 3)) for p in out["likelihoods"].values()) / pixels


def rd_loss(model: nn.Module, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(rate-distortion cost lambda*255^2*MSE + bpp, bpp, MSE) of every picture of a batch, each (B,)."""
    out = model(x, level)
    bpp = bits_per_pixel(out)
    x_hat = out["x_hat"] if model.training else out["x_hat"].clamp(0, 1)
    mse = (x_hat - x).pow(2).mean((1, 2, 3))
    return rd_lambda(level.float()) * 255**2 * mse + bpp, bpp, mse


@torch.no_grad()
def evaluate(model: nn.Module, pictures: Pictures, held_out: int, eye: EyeLoss | None = None) -> dict:
    """Means over the central crops of the first `held_out` pictures.

    Returns:
        {"cost": mean log of the rate-distortion cost over five levels, "level_bpp_psnr": [[level, bpp, dB], ...]};
        with `eye` its cost is meant, the rows go on with its distortions but for "mse", and the name says so.
    """
    model.eval()
    columns = [name for name in eye.shares if name != "mse"] if eye else []
    table, cost = [], 0.0
    for level in EVAL_LEVELS:
        rows = []
        for i in range(held_out):
            x = pictures.centre(i, min(EVAL_CROP, int(pictures.sizes[i].min()) // 64 * 64))
            levels = torch.tensor([level], device=x.device)
            out = model(x, levels)
            bpp, x_hat = bits_per_pixel(out), out["x_hat"].clamp(0, 1)
            mse = 255**2 * (x_hat - x).square().mean((1, 2, 3))
            terms = eye.distortions(x, x_hat) if eye else {}
            distortion = eye.mix(terms, levels) if eye else rd_lambda(levels.float()) * mse
            cost += (bpp + distortion).log().item() / held_out / len(EVAL_LEVELS)
            psnr = 10 * torch.log10(255**2 / mse)
            rows.append([value.item() for value in (bpp, psnr, *(terms[name] for name in columns))])
        means = [sum(column) / held_out for column in zip(*rows, strict=True)]
        table.append([level, *(float(f"{mean:.4g}") for mean in means)])
    model.train()
    return {"cost": round(cost, 4), "_".join(["level_bpp_psnr", *columns]): table}
