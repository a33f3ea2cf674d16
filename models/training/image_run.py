"""The training of image models: rate and distortion of random crops at random quality levels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from pixa.datasets.pictures import Pictures
from pixa.models.export.architectures import make
from pixa.models.nets.backbone import TRANSFORMS, Backbone
from pixa.models.nets.fast import Fast
from pixa.models.nets.layers import LEVELS
from pixa.models.nets.mlic import CONTEXTS, Mlic
from pixa.models.nets.rates import rd_lambda
from pixa.models.registry import TUNES
from pixa.models.training import checkpoint
from pixa.models.training.evaluate import bits_per_pixel, evaluate, rd_loss
from pixa.models.training.eye_loss import EyeLoss
from pixa.models.training.init_from import init_from
from pixa.models.training.reinit import reinit_dormant
from pixa.models.training.run import Run, TrainConfig
from pixa.motion.fields import STEP_WORTH


@dataclass
class ImageConfig(TrainConfig):
    """Settings of a run that trains `fast` or `mlic`.

    Attributes:
        without: contexts that `mlic` leaves out, for ablations.
        halved: share of the crops taken at twice the size and averaged.
        balance: the loss of a level is weighted by lambda**-balance, so that high rates do not drown low ones.
        reinit_dormant: give hidden units of the starting weights that never fire new ones.
        cached: crops whose latents are computed once and kept; then the entropy model alone is trained, on them.
        tune: what distortion is, `psnr` (squared error) or `eye` (`pixa.models.training.eye_loss`).
        lpips_backbone: SqueezeNet 1.1 for the tune `eye`.
    """

    without: tuple[str, ...] = field(default=(), metadata={"choices": CONTEXTS})
    halved: float = 0.3
    balance: float = 0.35
    reinit_dormant: bool = False
    cached: int = 0
    tune: str = field(default="psnr", metadata={"choices": TUNES})
    lpips_backbone: str = ""


class EntropyModel(nn.Module):
    """An image model without its transforms, which are not trained."""

    def __init__(self, model: Backbone):
        super().__init__()
        self.model = model
        for name in TRANSFORMS:
            model.get_submodule(name).requires_grad_(False)

    def forward(self, y: Tensor, level: Tensor) -> Tensor:
        """The bits of latents y (B, M, h, w), and what their rounding is worth in bits, each picture's (B,)."""
        z = self.model.hyper(y, level)
        coded = self.model.code(y, z, level)
        out = self.model.priced(coded, z)
        error = STEP_WORTH * (coded.residual - coded.symbols).square().sum((1, 2, 3))
        return error - sum(p.log2().sum((1, 2, 3)) for p in out["likelihoods"].values())


class ImageRun(Run):
    """A run that trains `fast` or `mlic` on pictures."""

    config_class = ImageConfig

    def read(self) -> None:
        config = self.config
        self.pictures = Pictures(list(config.data), config.crop).to(self.device)
        if len(self.pictures) <= config.held_out:
            raise ValueError(f"{len(self.pictures)} pictures are not more than the {config.held_out} held out")
        self.eye = EyeLoss(Path(config.lpips_backbone)).to(self.device) if config.tune == "eye" else None
        if self.rank == 0:
            print(f"{len(self.pictures)} pictures, {self.pictures.skipped} skipped", flush=True)

    def build(self) -> Backbone:
        if self.config.without and self.config.model != "mlic":
            raise ValueError(f"{self.config.model} has no context to leave out")
        switches = dict.fromkeys(self.config.without, False)
        model = make(self.config.model, switches, mixed="cuda" in self.device).to(self.device)
        model.start_from_dct(self.draw(16))
        if self.config.start and not self.path.exists():
            self.start_from(Path(self.config.start), model)
        if self.config.reinit_dormant and not self.path.exists():
            revived = reinit_dormant(
                model, lambda: model(self.draw(32), torch.linspace(0, LEVELS - 1, 32, device=self.device).long())
            )
            if self.rank == 0:
                counts = ", ".join(f"{name} {count}" for name, count in revived.items())
                print(f"reinitialised units: {counts}", flush=True)
        return model

    def start_from(self, path: Path, model: Backbone) -> None:
        source = checkpoint.load_model(path, self.device)
        if isinstance(source, Fast) and isinstance(model, Mlic):
            init_from(source, model, self.draw(16))
        else:
            checkpoint.fit(model, source.state_dict(), path)

    def draw(self, count: int) -> Tensor:
        """Crops (count, 3, crop, crop) in [0, 1]."""
        config = self.config
        return self.pictures.batch(count, config.crop, config.held_out, config.halved, self.generator)

    def trained(self) -> nn.Module:
        return EntropyModel(self.model) if self.config.cached else self.model

    @cached_property
    def latents(self) -> Tensor:
        """(cached, M, crop / 16, crop / 16) in half precision."""
        with torch.no_grad():
            parts = [self.model.analyse(self.draw(16)).half() for _ in range(-(-self.config.cached // 16))]
        return torch.cat(parts)

    def cost(self, x: Tensor, level: Tensor) -> Tensor:
        """Rate and weighted distortion (B,) in bits a pixel, of pictures (B, 3, H, W) at levels (B,)."""
        if self.eye is None:
            return rd_loss(self.network, x, level)[0]
        out = self.network(x, level)
        return bits_per_pixel(out) + self.eye(x, out["x_hat"], level)

    def objective(self) -> Tensor:
        config = self.config
        level = torch.randint(0, LEVELS, (config.batch,), generator=self.generator, device=self.device)
        if config.cached:
            own = torch.randint(len(self.latents), (config.batch,), generator=self.generator, device=self.device)
            loss = self.network(self.latents[own].float(), level) / config.crop**2
        else:
            x = self.draw(config.batch).contiguous(memory_format=torch.channels_last)
            loss = self.cost(x, level)
        return (loss * rd_lambda(level.float()).div(rd_lambda(LEVELS // 2)).pow(-config.balance)).mean()

    def evaluate(self) -> dict:
        return evaluate(self.model, self.pictures, self.config.held_out, self.eye)
