"""A training run, whatever it trains: the clock, the averaged weights, the optimizers, checkpoints and resumption.

Stopped by the clock: the learning rate falls along a cosine that ends with the budget. A checkpoint holds all that is
needed to go on after a kill. Under `torchrun` every process trains on samples of its own and gradients are averaged.
"""

from __future__ import annotations

import json
import math
import os
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pixa.models.nets.exact import Exact
from pixa.models.nets.layers import LevelVector
from pixa.models.training import checkpoint
from pixa.models.training.optim import Muon

ALIGN = 64  # pixels that the sides of a crop are multiples of: those of a hyper-latent position


@dataclass
class TrainConfig:
    """Settings that every run has, stored with its checkpoint; a field is an option of `pixa train`.

    Attributes:
        muon_max: matrices up to this smaller dimension are trained by Muon, which costs too much on larger ones.
        bias_share: of the learning rate, that biases of float layers move with. Signals there are a few hundredths
            large, so biases that move as weights do can carry whole layers of units to where they never fire again.
        level_share: the same for the vectors of the quality levels, few numbers that decide where bits go.
        held_out: samples at the start of the data that are only evaluated on.
        save_minutes, report_minutes: how often a checkpoint is written, and how often its average is evaluated.
        compile: let torch compile the model, worth its minute on a GPU.
    """

    data: tuple[str, ...] = ()
    out: str = "runs/fast"
    start: str = ""
    model: str = "fast"
    minutes: float = 30.0
    muon_max: int = 128
    lr: float = 1.5e-3
    bias_share: float = 1.0
    level_share: float = 1.0
    warmup: int = 100
    batch: int = 8
    crop: int = 192
    held_out: int = 32
    ema: float = 0.999
    clip: float = 1.0
    save_minutes: float = 5.0
    report_minutes: float = 20.0
    threads: int = 2
    seed: int = 1
    compile: bool = False


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the convolutions and Adam for the rest."""
    matrices, biases, levels, others = [], [], [], []
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            matrix = p.ndim == 2 and name != "anchors" and min(p.shape) <= config.muon_max
            bias = name == "bias" and not isinstance(module, Exact)
            vector = isinstance(module, LevelVector)
            (matrices if matrix else biases if bias else levels if vector else others).append(p)
    groups = [{"params": others}] + [{"params": biases, "share": config.bias_share}] * bool(biases)
    groups += [{"params": levels, "share": config.level_share}] * bool(levels)
    adam = torch.optim.Adam(groups, lr=config.lr, betas=(0.9, 0.98), foreach=True)
    return ([Muon(matrices, lr=config.lr)] if matrices else []) + [adam]


def learning_rate(step: int, progress: float, config: TrainConfig) -> float:
    """Linear warm-up in steps, then a cosine over the share of the budget that is spent, down to 1%."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
    return config.lr * min(1, (step + 1) / config.warmup) * (0.01 + 0.99 * cosine)


class Run(ABC):
    """A training run: the model, its average, its optimizers, and how far it is.

    A kind of run says what it reads (`read`), what it trains (`build`), what it minimises (`objective`) and what it
    reports (`evaluate`).

    Attributes:
        config_class: of its settings.
        network: what `objective` must call, the model as compiled and distributed.

    Raises:
        ValueError: crops of no fitting size, too little data, or weights that do not fit the model.
    """

    config_class = TrainConfig

    def __init__(self, config: TrainConfig):
        if config.crop % ALIGN:
            raise ValueError(f"crops of {config.crop} pixels do not fit: a side is a multiple of {ALIGN}")
        self.config, self.out = config, Path(config.out)
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
        if self.world > 1:
            dist.init_process_group("nccl" if "cuda" in self.device else "gloo")
        self.read()
        self.generator = torch.Generator(self.device)
        self.step, self.elapsed, self.running = 0, 0.0, math.nan
        self.reseed()
        self.model = self.build().to(memory_format=torch.channels_last)
        self.optimizers = make_optimizers(self.model, config)
        self.ema = {name: value.clone() for name, value in self.model.state_dict().items()}
        if self.path.exists():
            self.resume()
        self.reseed()
        self.connect()

    @abstractmethod
    def read(self) -> None:
        """Bring the data to the device.

        Raises:
            ValueError: there is none, or no more than what is held out.
        """

    @abstractmethod
    def build(self) -> nn.Module:
        """The model on the device, started from `config.start` unless a checkpoint is there to resume."""

    @abstractmethod
    def objective(self) -> Tensor:
        """The loss of a fresh batch, a scalar."""

    @abstractmethod
    def evaluate(self) -> dict:
        """What to report of `model`, which holds the averaged weights meanwhile."""

    def extras(self) -> dict:
        """What a checkpoint holds besides the model and its optimizers."""
        return {}

    def load_extras(self, state: dict) -> None:  # noqa: B027
        """Take `extras` from the state of a checkpoint."""

    def trained(self) -> nn.Module:
        """The model, or what `objective` calls in its place."""
        return self.model

    def connect(self) -> None:
        """Make `network` of the model; again when other parameters than before have a gradient."""
        network = torch.compile(self.trained()) if self.config.compile else self.trained()
        self.network = nn.parallel.DistributedDataParallel(network) if self.world > 1 else network

    @property
    def path(self) -> Path:
        return self.out / "checkpoint.pt"

    def reseed(self) -> None:
        """Other crops and noise in every process and after every resume."""
        seed = self.config.seed + 1000 * self.step + self.rank
        torch.manual_seed(seed)
        self.generator.manual_seed(seed)

    def resume(self) -> None:
        state = checkpoint.load(self.path, self.device)
        checkpoint.fit(self.model, state["model"], self.path)
        self.ema = state["ema"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.elapsed, self.running = state["step"], state["elapsed"], state["running"]
        self.load_extras(state)

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
        } | self.extras()
        checkpoint.save(self.path, state)

    def report(self) -> None:
        """Evaluate the averaged weights, print a JSON line and add it to log.jsonl."""
        live = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema)
        line = {"step": self.step, "minutes": round(self.elapsed / 60, 1), "train": round(self.running, 4)}
        line |= self.evaluate()
        self.model.load_state_dict(live)
        print(json.dumps(line), flush=True)
        with open(self.out / "log.jsonl", "a") as log:
            log.write(json.dumps(line) + "\n")

    def take_step(self) -> float:
        """One step; returns the loss."""
        rate = learning_rate(self.step, self.elapsed / (60 * self.config.minutes), self.config)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("share", 1.0)
        loss = self.objective()
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if torch.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
        self.step += 1
        decay = min(self.config.ema, self.step / (self.step + 9))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), list(self.model.state_dict().values()), 1 - decay)
        return loss.item()

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
        saved = reported = self.elapsed
        while self.elapsed < 60 * self.config.minutes:
            begun = time.monotonic()
            loss = self.take_step()
            self.running = loss if math.isnan(self.running) else self.running + 0.01 * (loss - self.running)
            self.elapsed = self.agree(self.elapsed + time.monotonic() - begun)
            if self.rank == 0 and self.elapsed - saved > 60 * self.config.save_minutes:
                saved = self.elapsed
                self.save()
            if self.rank == 0 and self.elapsed - reported > 60 * self.config.report_minutes:
                reported = self.elapsed
                self.report()
        if self.rank == 0:
            self.report()
            self.save()
