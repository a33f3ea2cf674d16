"""The trainer of every model: `python -m pixa.models.train --data PACK... --out DIR --minutes N`.

One process, stopped by the clock: the learning rate falls along a cosine that ends with the budget. A checkpoint holds
all that is needed to go on after a kill; `--start` begins a new budget from the weights of an old checkpoint or of a
folder such as weights/fast.1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from pixa.datasets.pictures import Pictures
from pixa.models.fast import Fast, FastConfig, rd_lambda
from pixa.models.layers import LEVELS
from pixa.models.optim import Muon
from pixa.models.restore import restore

EVAL_LEVELS = (0, 50, 100, 150, 200)


@dataclass
class TrainConfig:
    """Settings of one run, stored with its checkpoint."""

    data: tuple[str, ...] = ()
    out: str = "runs/fast"
    start: str = ""
    minutes: float = 30.0
    muon_max: int = 128
    lr: float = 1.5e-3
    warmup: int = 100
    batch: int = 8
    crop: int = 192
    halved: float = 0.3
    held_out: int = 32
    ema: float = 0.999
    clip: float = 1.0
    balance: float = 0.35
    save_minutes: float = 10.0
    threads: int = 2
    seed: int = 1


def rd_loss(model: Fast, x: torch.Tensor, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(rate-distortion cost lambda*255^2*MSE + bpp, bpp, MSE) of every picture of a batch, each (B,)."""
    out = model(x, level)
    pixels = x.shape[2] * x.shape[3]
    bpp = -sum(p.log2().sum((1, 2, 3)) for p in out["likelihoods"].values()) / pixels
    x_hat = out["x_hat"] if model.training else out["x_hat"].clamp(0, 1)
    mse = (x_hat - x).pow(2).mean((1, 2, 3))
    return rd_lambda(level.float()) * 255**2 * mse + bpp, bpp, mse


def make_optimizers(model: Fast, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for matrices up to `muon_max` in the smaller dimension, where it costs little, and Adam for the rest."""
    matrices, others = [], []
    for name, p in model.named_parameters():
        matrix = p.ndim == 2 and not name.endswith("anchors") and min(p.shape) <= config.muon_max
        (matrices if matrix else others).append(p)
    adam = torch.optim.Adam(others, lr=config.lr, betas=(0.9, 0.98), foreach=True)
    return ([Muon(matrices, lr=config.lr)] if matrices else []) + [adam]


@torch.no_grad()
def evaluate(model: Fast, pictures: Pictures, held_out: int, size: int = 384) -> dict:
    """Rate and PSNR on the central crops of the held-out pictures at five levels, and the mean log RD cost."""
    model.eval()
    table, cost = [], 0.0
    for level in EVAL_LEVELS:
        losses, rates, psnrs = [], [], []
        for i in range(held_out):
            x = pictures.centre(i, min(size, int(pictures.sizes[i].min()) // 64 * 64))
            loss, bpp, mse = rd_loss(model, x.to(pictures.data.device), torch.tensor([level], device=x.device))
            losses.append(loss.log().item())
            rates.append(bpp.item())
            psnrs.append(-10 * math.log10(mse.item()))
        table.append([level, round(sum(rates) / held_out, 4), round(sum(psnrs) / held_out, 3)])
        cost += sum(losses) / held_out / len(EVAL_LEVELS)
    model.train()
    return {"cost": round(cost, 4), "level_bpp_psnr": table}


def start_weights(path: Path, device: str) -> dict[str, torch.Tensor]:
    """Averaged weights of a checkpoint, or the weights of a folder written by the export."""
    if path.is_dir():
        return restore(path).to(device).state_dict()
    return torch.load(path, map_location=device, weights_only=True)["ema"]


def save(path: Path, state: dict) -> None:
    """Write a checkpoint whole or not at all."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def train(config: TrainConfig) -> None:
    """Run or resume the training that `config` describes; see the module."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    pictures = Pictures(list(config.data), config.crop).to(device)
    if len(pictures) <= config.held_out:
        raise ValueError(f"{len(pictures)} pictures are not more than the {config.held_out} held out for evaluation")
    generator = torch.Generator(device).manual_seed(config.seed)
    draw = lambda count: pictures.batch(count, config.crop, config.held_out, config.halved, generator)

    model = Fast(FastConfig()).to(device)
    model.start_from_dct(draw(16))
    model = model.to(memory_format=torch.channels_last)
    ema = {name: value.clone() for name, value in model.state_dict().items()}
    optimizers = make_optimizers(model, config)
    step, elapsed, running = 0, 0.0, math.nan
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        ema = state["ema"]
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, elapsed, running = state["step"], state["elapsed"], state["running"]
        generator.manual_seed(config.seed + step)
    elif config.start:
        ema = start_weights(Path(config.start), device)
        model.load_state_dict(ema)

    def snapshot() -> None:
        save(checkpoint, {
            "config": asdict(config), "model_config": model.config.as_dict(), "model": model.state_dict(), "ema": ema,
            "optimizers": [o.state_dict() for o in optimizers], "step": step, "elapsed": elapsed,
            "running": running,
        })  # fmt: skip

    def report() -> None:
        live = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(ema)
        line = {"step": step, "minutes": round(elapsed / 60, 1), "train": round(running, 4)}
        line |= evaluate(model, pictures, config.held_out)
        model.load_state_dict(live)
        print(json.dumps(line), flush=True)
        with open(out / "log.jsonl", "a") as log:
            log.write(json.dumps(line) + "\n")

    print(f"{len(pictures)} pictures, {pictures.skipped} skipped; from step {step} on {device}", flush=True)
    budget, since_save = config.minutes * 60, time.monotonic()
    while elapsed < budget:
        begun = time.monotonic()
        rate = min(1, (step + 1) / config.warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * elapsed / budget)))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = config.lr * rate
        x = draw(config.batch).contiguous(memory_format=torch.channels_last)
        level = torch.randint(0, LEVELS, (config.batch,), generator=generator, device=device)
        loss, _, _ = rd_loss(model, x, level)
        weight = rd_lambda(level.float()).div(0.016).pow(-config.balance)
        total = (loss * weight).mean()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        if torch.isfinite(norm):
            for optimizer in optimizers:
                optimizer.step()
        decay = min(config.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.values()), list(model.state_dict().values()), 1 - decay)
        step += 1
        running = total.item() if math.isnan(running) else running + 0.01 * (total.item() - running)
        elapsed += time.monotonic() - begun
        if time.monotonic() - since_save > config.save_minutes * 60:
            report()
            snapshot()
            since_save = time.monotonic()
    report()
    snapshot()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for field in fields(TrainConfig):
        if field.name == "data":
            parser.add_argument("--data", nargs="+", required=True, help="picture folders, tar packs or files")
        else:
            kind = type(field.default)
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    train(TrainConfig(**{**vars(parser.parse_args()), "data": tuple(parser.parse_args().data)}))


if __name__ == "__main__":
    main()
