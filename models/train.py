"""The trainer of every model: `python -m pixa.models.train --data PACK... --out DIR --minutes N`.

Stopped by the clock: the learning rate falls along a cosine that ends with the budget. A checkpoint holds all that is
needed to go on after a kill; `--start` begins a new budget from the weights of an old checkpoint or of a folder such as
weights/fast.1, from which `mlic` also grows. Under `torchrun` every process trains on crops of its own and gradients
are averaged.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from pixa.datasets.pictures import Pictures
from pixa.models import checkpoint
from pixa.models.architectures import ARCHITECTURES, make
from pixa.models.evaluate import evaluate, rd_loss
from pixa.models.fast import Fast
from pixa.models.grow import grow
from pixa.models.layers import LEVELS
from pixa.models.mlic import CONTEXTS, Mlic
from pixa.models.optim import Muon
from pixa.models.rates import rd_lambda


@dataclass
class TrainConfig:
    """Settings of one run, stored with its checkpoint.

    Attributes:
        without: contexts that `mlic` leaves out, for ablations.
        muon_max: matrices up to this smaller dimension are trained by Muon, which costs too much on larger ones.
        halved: share of the crops taken at twice the size and averaged.
        held_out: pictures at the start of the data that are only evaluated on.
        balance: the loss of a level is weighted by lambda**-balance, so that high rates do not drown low ones.
        compile: let torch compile the model, worth its minute on a GPU.
    """

    data: tuple[str, ...] = ()
    out: str = "runs/fast"
    start: str = ""
    model: str = "fast"
    without: tuple[str, ...] = ()
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
    compile: bool = False


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the convolutions and Adam for the rest."""
    matrices, others = [], []
    for name, p in model.named_parameters():
        matrix = p.ndim == 2 and not name.endswith("anchors") and min(p.shape) <= config.muon_max
        (matrices if matrix else others).append(p)
    adam = torch.optim.Adam(others, lr=config.lr, betas=(0.9, 0.98), foreach=True)
    return ([Muon(matrices, lr=config.lr)] if matrices else []) + [adam]


def learning_rate(step: int, progress: float, config: TrainConfig) -> float:
    """Linear warm-up in steps, then a cosine over the share of the budget that is spent, down to 1%."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
    return config.lr * min(1, (step + 1) / config.warmup) * (0.01 + 0.99 * cosine)


class Run:
    """A training run: the model, its average, its optimizers, and how far it is.

    Raises:
        ValueError: too few pictures, or weights that do not fit the model.
    """

    def __init__(self, config: TrainConfig):
        self.config, self.out = config, Path(config.out)
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
        if self.world > 1:
            dist.init_process_group("nccl" if "cuda" in self.device else "gloo")
        self.pictures = Pictures(list(config.data), config.crop).to(self.device)
        if len(self.pictures) <= config.held_out:
            raise ValueError(f"{len(self.pictures)} pictures are not more than the {config.held_out} held out")
        self.generator = torch.Generator(self.device)
        self.step, self.elapsed, self.running = 0, 0.0, math.nan
        self.make_model()

    def make_model(self) -> None:
        if self.config.without and self.config.model != "mlic":
            raise ValueError(f"{self.config.model} has no context to leave out")
        self.reseed()
        switches = dict.fromkeys(self.config.without, False)
        self.model = make(self.config.model, switches, mixed="cuda" in self.device).to(self.device)
        self.model.start_from_dct(self.draw(16))
        if self.config.start and not self.path.exists():
            self.start_from(Path(self.config.start))
        self.model = self.model.to(memory_format=torch.channels_last)
        self.optimizers = make_optimizers(self.model, self.config)
        self.ema = {name: value.clone() for name, value in self.model.state_dict().items()}
        if self.path.exists():
            self.resume()
        self.reseed()
        network = torch.compile(self.model) if self.config.compile else self.model
        self.network = nn.parallel.DistributedDataParallel(network) if self.world > 1 else network

    def start_from(self, path: Path) -> None:
        source = checkpoint.load_model(path, self.device)
        if isinstance(source, Fast) and isinstance(self.model, Mlic):
            grow(source, self.model, self.draw(16))
        else:
            checkpoint.fit(self.model, source.state_dict(), path)

    @property
    def path(self) -> Path:
        return self.out / "checkpoint.pt"

    def reseed(self) -> None:
        """Other crops and noise in every process and after every resume."""
        seed = self.config.seed + 1000 * self.step + self.rank
        torch.manual_seed(seed)
        self.generator.manual_seed(seed)

    def draw(self, count: int) -> torch.Tensor:
        config = self.config
        return self.pictures.batch(count, config.crop, config.held_out, config.halved, self.generator)

    def resume(self) -> None:
        state = checkpoint.load(self.path, self.device)
        checkpoint.fit(self.model, state["model"], self.path)
        self.ema = state["ema"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.elapsed, self.running = state["step"], state["elapsed"], state["running"]

    def save(self) -> None:
        state = {
            "config": asdict(self.config),
            "model_config": self.model.config.as_dict(),
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "elapsed": self.elapsed,
            "running": self.running,
        }
        checkpoint.save(self.path, state)

    def report(self) -> None:
        """Evaluate the averaged weights, print a JSON line and add it to log.jsonl."""
        live = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema)
        line = {"step": self.step, "minutes": round(self.elapsed / 60, 1), "train": round(self.running, 4)}
        line |= evaluate(self.model, self.pictures, self.config.held_out)
        self.model.load_state_dict(live)
        print(json.dumps(line), flush=True)
        with open(self.out / "log.jsonl", "a") as log:
            log.write(json.dumps(line) + "\n")

    def take_step(self) -> float:
        """One step; returns the weighted loss."""
        config = self.config
        rate = learning_rate(self.step, self.elapsed / (60 * config.minutes), config)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        x = self.draw(config.batch).contiguous(memory_format=torch.channels_last)
        level = torch.randint(0, LEVELS, (config.batch,), generator=self.generator, device=self.device)
        loss, _, _ = rd_loss(self.network, x, level)
        total = (loss * rd_lambda(level.float()).div(rd_lambda(LEVELS // 2)).pow(-config.balance)).mean()
        self.model.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        if torch.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
        self.step += 1
        decay = min(config.ema, self.step / (self.step + 9))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), list(self.model.state_dict().values()), 1 - decay)
        return total.item()

    def agree(self, seconds: float) -> float:
        """The clock of the first process, so that all stop at the same step."""
        if self.world == 1:
            return seconds
        clock = torch.tensor([seconds], dtype=torch.float64, device=self.device)
        dist.broadcast(clock, 0)
        return clock.item()

    def train(self) -> None:
        """Until the budget is spent; the first process evaluates and saves."""
        self.out.mkdir(parents=True, exist_ok=True)
        saved = self.elapsed
        while self.elapsed < 60 * self.config.minutes:
            begun = time.monotonic()
            loss = self.take_step()
            self.running = loss if math.isnan(self.running) else self.running + 0.01 * (loss - self.running)
            self.elapsed = self.agree(self.elapsed + time.monotonic() - begun)
            if self.elapsed - saved > 60 * self.config.save_minutes:
                saved = self.elapsed
                self.finish()
        self.finish()

    def finish(self) -> None:
        if self.rank == 0:
            self.report()
            self.save()


def train(config: TrainConfig) -> None:
    """Run or resume the training that `config` describes; see the module."""
    torch.set_num_threads(config.threads)
    run = Run(config)
    if run.rank == 0:
        pictures = run.pictures
        print(f"{len(pictures)} pictures, {pictures.skipped} skipped; from step {run.step} on {run.device}", flush=True)
    run.train()
    if run.world > 1:
        dist.barrier()
        time.sleep(1)  # gloo's thread takes the GIL to let go of the last collective; destroying it sooner can deadlock
        dist.destroy_process_group()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pixa train", description=__doc__.splitlines()[0])
    for field in fields(TrainConfig):
        option = f"--{field.name.replace('_', '-')}"
        if field.name == "data":
            parser.add_argument(option, nargs="+", required=True, help="picture folders, tar packs or files")
        elif field.name == "without":
            parser.add_argument(option, nargs="+", default=(), choices=CONTEXTS, help="contexts of mlic to leave out")
        elif field.name == "model":
            parser.add_argument(option, default=field.default, choices=ARCHITECTURES, help="%(default)s")
        elif isinstance(field.default, bool):
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, type=type(field.default), default=field.default, help="%(default)s")
    arguments = vars(parser.parse_args(argv))
    try:
        train(TrainConfig(**arguments | {name: tuple(arguments[name]) for name in ("data", "without")}))
    except (ValueError, OSError) as error:
        print(f"pixa train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
