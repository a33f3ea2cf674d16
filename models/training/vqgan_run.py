"""The training of `vqgan`, in two parts of one budget.

First analysis, codebooks and decoder together, for pixels and perceptual distances. Then the tokens are settled: the
averaged weights of analysis and codebooks stay as they are, codes are grouped, and the rest of the budget goes to the
entropy model, which needs tokens that keep their meaning, and to the decoder against a discriminator, which needs no
gradient through the analysis any more. The weight of the discriminator adapts as in VQGAN (Esser et al., CVPR 2021,
equation 7), but gradients are compared at the picture instead of the last layer: that takes no further pass through the
decoder.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pixa.datasets.pictures import Pictures
from pixa.models.export.vqgan_export import restore
from pixa.models.nets.layers import LEVELS
from pixa.models.nets.pyramid import GRIDS, Tokens
from pixa.models.nets.token_bits import KeptTokens, TokenBits
from pixa.models.nets.vqgan import NESTED, Vqgan, VqganConfig
from pixa.models.training import checkpoint
from pixa.models.training.discriminator import Discriminator, hinge
from pixa.models.training.lpips import load_lpips
from pixa.models.training.perceptual import load_vgg
from pixa.models.training.run import Run, TrainConfig

EVAL_LEVELS = (20, 50, 80, 110, 140, 170, 200)
EVAL_CROP = 384
START_CROPS, CALIBRATION_CROPS = 256, 96
RESTARTS = (0.02, 0.05, 0.1, 0.2)  # shares of the budget; latents move fastest at first, and leave their codes behind


@dataclass
class VqganTrainConfig(TrainConfig):
    """Settings of a run that trains `vqgan`.

    Attributes:
        width: of the decoder's trunk; 256 is what ships.
        halved: share of the crops taken at twice the size and averaged.
        lpips_backbone, vgg_backbone: weights of the perceptual distances, SqueezeNet 1.1 by torchvision's names and
            VGG-16 by Keras's, both .npz; by default what the environment variables PIXA_LPIPS_BACKBONE and
            PIXA_VGG_BACKBONE name. Without one, its distance is left out.
        l1, lpips, vgg: weights of the absolute difference of samples and of the perceptual distances.
        commitment: weight of what the codes miss.
        freeze_tokenizer: share of the budget after which the tokens stay as they are.
        adversary: share of the budget after which the discriminator is heard; it learns from `freeze_tokenizer` on.
        adversarial: size of the discriminator's gradient, against that of all other losses.
        discriminator_width: channels of its first layer.
        prior_lr: learning rate of the entropy model.
        cached: crops whose tokens are computed once and kept; then the entropy model alone is trained, on them and
            with the learning rate `lr`. It needs a start from settled tokens.
    """

    out: str = "runs/vqgan"
    model: str = "vqgan"
    lr: float = 8e-4
    width: int = 256
    halved: float = 0.3
    lpips_backbone: str = ""
    vgg_backbone: str = ""
    l1: float = 2.0
    lpips: float = 1.0
    vgg: float = 0.1
    commitment: float = 0.25
    freeze_tokenizer: float = 0.6
    adversary: float = 0.65
    adversarial: float = 0.5
    discriminator_width: int = 64
    prior_lr: float = 3e-3
    cached: int = 0


class VqganRun(Run):
    """A run that trains `vqgan` on pictures."""

    config_class = VqganTrainConfig

    def read(self) -> None:
        config = self.config
        self.pictures = Pictures(list(config.data), config.crop).to(self.device)
        if len(self.pictures) <= config.held_out:
            raise ValueError(f"{len(self.pictures)} pictures are not more than the {config.held_out} held out")
        self.distances = nn.ModuleDict()
        for name, load in (("lpips", load_lpips), ("vgg", load_vgg)):
            path = getattr(config, f"{name}_backbone") or os.environ.get(f"PIXA_{name.upper()}_BACKBONE")
            if path and getattr(config, name):
                self.distances[name] = load(Path(path)).to(self.device, memory_format=torch.channels_last)
        if self.rank == 0:
            print(f"{len(self.pictures)} pictures, {self.pictures.skipped} skipped", flush=True)
            print(f"perceptual distances: {', '.join(self.distances) or 'none'}", flush=True)

    def build(self) -> Vqgan:
        config = self.config
        self.mixed = "cuda" in self.device
        start = Path(config.start) if config.start and not self.path.exists() else None
        if config.cached and not (start or self.path.exists()):
            raise ValueError("--cached needs --start with settled tokens")
        model = restore(start) if start and start.is_dir() else Vqgan(VqganConfig(c=config.width))
        if model.config.c != config.width:
            raise ValueError(f"{start} needs --width {model.config.c}")
        model.mixed = self.mixed
        model = model.to(self.device)
        self.discriminator = Discriminator(config.discriminator_width).to(
            self.device, memory_format=torch.channels_last
        )
        adam = lambda module, lr, betas: torch.optim.Adam(module.parameters(), lr=lr, betas=betas, foreach=True)
        self.adversary_optimizer = adam(self.discriminator, config.lr / 2, (0.5, 0.9))
        self.prior_optimizer = adam(model.prior, config.prior_lr, (0.9, 0.98))
        self.restarts = 0
        if start is None:
            model.start_from_dct(self.draw(START_CROPS))
        elif not start.is_dir():
            state = checkpoint.load(start, self.device)
            if config.cached and not state["settled"]:
                raise ValueError(f"the tokens of {start} are not settled")
            checkpoint.fit(model, state["ema"], start)
        model.settled = bool(config.cached)
        return model

    def trained(self) -> nn.Module:
        return TokenBits(self.model) if self.config.cached else self.model

    def extras(self) -> dict:
        return {
            "settled": self.model.settled,
            "restarts": self.restarts,
            "discriminator": self.discriminator.state_dict(),
            "adversary_optimizer": self.adversary_optimizer.state_dict(),
            "prior_optimizer": self.prior_optimizer.state_dict(),
        }

    def load_extras(self, state: dict) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        self.adversary_optimizer.load_state_dict(state["adversary_optimizer"])
        self.prior_optimizer.load_state_dict(state["prior_optimizer"])
        self.restarts = state["restarts"]
        if state["settled"]:
            self.freeze()

    def draw(self, count: int) -> Tensor:
        """Crops (count, 3, crop, crop) in [0, 1]."""
        config = self.config
        return self.pictures.batch(count, config.crop, config.held_out, config.halved, self.generator)

    @property
    def share(self) -> float:
        """Of the budget that is spent."""
        return self.elapsed / (60 * self.config.minutes)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin the codebooks again at k-means of the latents of today."""
        self.restarts += 1
        self.model.pyramid.start(self.latents(), maps=False)

    def latents(self) -> Tensor:
        """Of fresh crops."""
        return torch.cat([self.model.analyse(part) for part in self.draw(START_CROPS).split(16)])

    def freeze(self) -> None:
        """No gradient for what makes tokens."""
        self.model.settled = True
        for part in (self.model.g_a, self.model.pyramid):
            part.requires_grad_(False)

    @torch.no_grad()
    def freeze_tokenizer(self) -> None:
        """Let the averaged tokens be those of the model, group their codes and spread the quality levels over them."""
        own = self.model.state_dict()
        for name, value in self.ema.items():
            if name.startswith(("g_a.", "pyramid.")):
                own[name].copy_(value)
        self.model.pyramid.start(self.latents(), maps=False, fresh=False)  # averaged codes may lie between two places
        for codebook in self.model.pyramid.codebooks:
            codebook.regroup(codebook.order())
        self.model.prior.start(self.model.pyramid.codebooks)
        self.freeze()
        self.calibrate()
        kept = ("g_a.", "pyramid.", "prior.", "log_trade")
        self.ema |= {name: value.clone() for name, value in own.items() if name.startswith(kept)}
        self.connect()

    @torch.no_grad()
    def calibrate(self) -> None:
        training = self.model.training
        self.model.eval().calibrate([self.draw(8) for _ in range(CALIBRATION_CROPS // 8)])
        self.model.train(training)

    @cached_property
    def kept(self) -> KeptTokens:
        """Tokens of `cached` crops."""
        return KeptTokens(self.model, (self.draw(16) for _ in range(-(-self.config.cached // 16))))

    def token_objective(self) -> Tensor:
        """Bits a token of kept crops, on average over levels."""
        batch, device = (self.config.batch,), self.device
        level = torch.randint(0, LEVELS, batch, generator=self.generator, device=device)
        own = torch.randint(len(self.kept), batch, generator=self.generator, device=device)
        return self.network(*self.kept.take(own, self.model.is_nested(level)), level).mean()

    def objective(self) -> Tensor:
        """The loss, whose value is that of pixels and perceptual distances."""
        config = self.config
        if config.cached:
            return self.token_objective()
        if not self.model.settled:
            if self.restarts < len(RESTARTS) and self.share >= RESTARTS[self.restarts]:
                self.restart()
            if self.share >= config.freeze_tokenizer:
                self.freeze_tokenizer()
        x = self.draw(config.batch).contiguous(memory_format=torch.channels_last)
        level = torch.randint(0, LEVELS, (config.batch,), generator=self.generator, device=self.device)
        out = self.network(x, level)
        picture, tokens = out["x_hat"], out["tokens"]
        shown = picture.detach().contiguous(memory_format=torch.channels_last)
        distance, gradient = self.perceptual_loss(x, shown)
        if self.model.settled:
            self.learn_prior(tokens, level)
            adversarial = self.discriminator_step(x, shown)
            if self.share >= config.adversary:
                scale = gradient.norm() / adversarial.norm().clamp(min=1e-12)
                gradient = gradient + config.adversarial * scale * adversarial
        else:
            self.model.follow(tokens)
        surrogate = (picture * gradient).sum() + (0 if self.model.settled else config.commitment * tokens.error)
        return surrogate + (distance - surrogate).detach()

    def autocast(self):
        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.mixed)

    def perceptual_loss(self, x: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """What all losses but the discriminator say of a decoded picture, and their gradient at it."""
        shown = shown.requires_grad_()
        total = self.config.l1 * (shown - x).abs().mean()
        with self.autocast():
            for name, distance in self.distances.items():
                total = total + getattr(self.config, name) * distance(shown, x).float().mean()
        (gradient,) = torch.autograd.grad(total, shown)
        return total.detach(), gradient

    def discriminator_step(self, x: Tensor, shown: Tensor) -> Tensor:
        """One step of the discriminator, and the gradient of its verdict at a decoded picture."""
        shown = shown.detach().requires_grad_()
        with self.autocast():
            real, fake = self.discriminator(torch.cat([x, shown])).float().chunk(2)
        (gradient,) = torch.autograd.grad(-fake.mean(), shown, retain_graph=True)
        self.aux_step(self.adversary_optimizer, hinge(real, fake), self.config.lr / 2)
        return gradient

    def learn_prior(self, tokens: Tokens, level: Tensor) -> None:
        """One step of the entropy model, for bits a region."""
        bits = self.model.bits(tokens, level).values()
        self.aux_step(self.prior_optimizer, sum(b.sum() for b in bits) / tokens.stop.numel(), self.config.prior_lr)

    def aux_step(self, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
        """A step of an optimizer of its own, whose learning rate falls to nothing from `freeze_tokenizer` on."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if self.world > 1:
                dist.all_reduce(gradient, dist.ReduceOp.SUM)
            parameter.grad = gradient / self.world
        nn.utils.clip_grad_norm_(parameters, self.config.clip)
        left = (1 - self.share) / (1 - self.config.freeze_tokenizer)
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.02 + 0.98 * min(max(left, 0), 1))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def evaluate(self) -> dict:
        """Bits a pixel, PSNR and LPIPS by level over the held-out pictures, bits a token, and codebook usage.

        Returns:
            {"level_bpp_psnr_lpips": [[level, bpp, dB, LPIPS], ...], "token_bits": [...], "usage": [...]}, the last two
            by grid. Until the tokens are settled, a token counts the logarithm of the size of its codebook.
        """
        model = self.model.eval()
        if not model.settled:
            self.calibrate()
        table, seen = [], [torch.zeros(len(book), device=self.device) for book in model.pyramid.codebooks]
        spent, counted = [0.0] * len(GRIDS), [0.0] * len(GRIDS)
        for level in EVAL_LEVELS:
            rows = []
            for i in range(self.config.held_out):
                side = min(EVAL_CROP, int(self.pictures.sizes[i].min()) // 64 * 64)
                x = self.pictures.centre(i, side)
                out = model(x, torch.tensor([level], device=self.device))
                tokens, total = out["tokens"], 0.0
                for grid, name in enumerate(map(str, GRIDS)):
                    number = tokens.used[grid].sum().item()
                    bits = number * math.log2(len(seen[grid]))
                    if model.settled:
                        bits = -out["likelihoods"][name].log2().sum().item()
                    if level >= NESTED:
                        seen[grid].index_add_(0, tokens.index[grid].flatten(), tokens.used[grid].flatten().float())
                        spent[grid], counted[grid] = spent[grid] + bits, counted[grid] + number
                    total += bits
                total -= out["likelihoods"]["map"].log2().sum().item()
                x_hat = out["x_hat"].clamp(0, 1)
                psnr = -10 * (x_hat - x).square().mean().log10().item()
                near = self.distances["lpips"](x_hat, x).item() if "lpips" in self.distances else 0.0
                rows.append((total / side**2, psnr, near))
            table.append([level, *(round(sum(column) / len(rows), 4) for column in zip(*rows, strict=True))])
        model.train()
        return {
            "level_bpp_psnr_lpips": table,
            "token_bits": [round(s / max(n, 1), 3) for s, n in zip(spent, counted, strict=True)],
            "usage": [round((counts > 0).float().mean().item(), 3) for counts in seen],
        }
