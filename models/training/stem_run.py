"""The training of `stem`: groups of frames coded one after the other as a decoder would have them.

A group begins with a key frame of the image model. Every later frame finds its motion in the picture that the decoder
shows of the frame before, and is charged for its residual latents; the levels of a group lie near each other, as those
of a hierarchical quality pattern do. Gradients stay within a frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixa.datasets.clips import Clips
from pixa.models.export.architectures import make
from pixa.models.nets.backbone import CONTEXT_MAX, TRANSFORMS, Backbone
from pixa.models.nets.layers import LEVELS
from pixa.models.nets.rates import rd_lambda
from pixa.models.nets.stem import Past, Stem, StemConfig
from pixa.models.training import checkpoint
from pixa.models.training.evaluate import EVAL_LEVELS
from pixa.models.training.run import Run, TrainConfig
from pixa.motion import fields as motion
from pixa.motion import vectors
from pixa.motion.overlap import compensate
from pixa.motion.search import WORTH, search


@dataclass
class StemRunConfig(TrainConfig):
    """Settings of a run that trains `stem`.

    Attributes:
        intra: the image model that codes key frames, a checkpoint or a folder of weights; without `start` `stem` grows
            from it, and it must be of the architecture of `fast`.
        frames: of a group in training, the key frame included.
        shown: of a group in evaluation.
        around: levels that frames of a group lie below and above its own at most.
        transforms: also train analysis, synthesis, gains, steps, the trunk of g_p and what is taken over from the past
            picture, by the error of the pixels.
        balance: the loss of a level is weighted by lambda**-balance.
        longest: frames read of a clip.
    """

    intra: str = "weights/fast.2"
    frames: int = 4
    shown: int = 8
    around: int = 20
    transforms: bool = False
    balance: float = 0.35
    longest: int = 48
    lr: float = 8e-4
    batch: int = 4
    held_out: int = 6


class Group:
    """A group of frames (B, 3, H, W) in [0, 1], sides multiples of 64, coded frame by frame.

    Args:
        x, level: the key frame.
        priced: search for motion as an encoder does, by what the network of the model expects; for a single sample.
    """

    def __init__(self, intra: Backbone, x: Tensor, level: Tensor, priced: bool = False):
        self.intra, self.priced = intra, priced
        with torch.no_grad():
            y = intra.analyse(x)
            coded = intra.code(y, intra.hyper(y, level), level)
            x_hat = intra.g_s(coded.y_hat, intra.vector(level))
            self.out = {"x_hat": x_hat, "y_hat": coded.y_hat, "symbols": {"y": coded.symbols}}
        symbols = self.out["symbols"]["y"]
        self.magnitudes = [magnitude(self.out), torch.zeros_like(symbols)]
        self.field = symbols.new_zeros(len(x), *symbols.shape[2:], 2, dtype=torch.int32)

    def past(self, x: Tensor, level: Tensor, model: Stem) -> Past:
        """What frames x (B, 3, H, W) are coded with; `motion` tells what is coded ahead of them."""
        self.activity, self.before, self.level = self.magnitudes[0].sum(1), self.field, level
        shown = integers(self.out["x_hat"].detach())
        with torch.no_grad():
            step = model.log_step(level).exp()
            worth = WORTH * (255 * step.mean((1, 2, 3))[:, None, None]) ** 2
            self.field = self.found(integers(x), shown, worth, model)
            moved = compensate(shown.permute(0, 3, 1, 2).float(), self.field)
            moved = moved.clamp(0, 255).round() / 255
        predicted = model.predict(moved, level)
        with torch.no_grad():
            pictures = (picture.permute(0, 2, 3, 1) for picture in (x, moved))
            self.skip = motion.skip(model.as_decoded(model.analyse(x), level), predicted, step, *pictures)[:, None]
        return Past(moved, predicted, self.skip, self.out["y_hat"].detach(), torch.cat(self.magnitudes, 1))

    def found(self, picture: Tensor, shown: Tensor, worth: Tensor, model: Stem) -> Tensor:
        """The motion (B, h, w, 2) from frames to what was shown of those before, (B, H, W, 3) integers."""
        if not self.priced:
            return search(picture, shown, worth)
        net, (activity,) = vectors.VectorNet(model.vectors.arrays()), self.activity.int().numpy()
        prices = vectors.Prices(net, model.tables, self.before[0].numpy(), activity, int(self.level))
        arrays = (part.numpy() for part in (picture, shown, worth))
        return torch.from_numpy(search(*arrays, prices, self.before.numpy()))

    def motion(self) -> tuple[np.ndarray, vectors.Past]:
        """That of the only sample (h, w, 2), and what is known before it."""
        parts = (self.field[0], self.before[0], self.skip[0, 0], self.activity[0].int())
        field, before, skip, activity = (part.cpu().numpy() for part in parts)
        return field, vectors.Past(before, skip, activity, int(self.level))

    def follow(self, out: dict) -> dict:
        """Let the next frames see what has been made of these."""
        self.out, self.magnitudes = out, [magnitude(out), self.magnitudes[0]]
        return out


def integers(x: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, H, W, 3) integers in [0, 255]."""
    return x.clamp(0, 1).mul(255).round().int().permute(0, 2, 3, 1).contiguous()


def magnitude(out: dict) -> Tensor:
    return out["symbols"]["y"].detach().abs().round().clamp(max=CONTEXT_MAX)


def motion_symbols(field: np.ndarray, past: vectors.Past, model: Stem) -> tuple[Tensor, Tensor]:
    """(symbols, tables) of where a sample is skipped, and of its motion (h, w, 2)."""
    flags, first = past.skip[..., None].astype(int), len(model.tables.limits) - motion.FLAG_CONTEXTS
    coded = vectors.coded(field, past, vectors.VectorNet(model.vectors.arrays()))
    for place, prediction, contexts in motion.groups(flags):
        chosen = motion.flag_contexts(prediction.ravel(), contexts.ravel(), past.activity[place])
        coded.append(((flags[place] ^ prediction).ravel(), first + chosen))
    return tuple(torch.from_numpy(np.concatenate(parts).astype(int)) for parts in zip(*coded, strict=True))


@torch.no_grad()
def coded_groups(
    model: Stem, intra: Backbone, clips: Clips, held_out: int, groups: int, frames: int, size: int, priced: bool = False
) -> Iterator[tuple[dict, tuple[np.ndarray, vectors.Past]]]:
    """What the model makes of the frames but the first of random groups at random levels, each with its motion.

    `priced` is as in `Group`.
    """
    model.eval()
    generator = torch.Generator().manual_seed(1)
    for _ in range(groups):
        x = clips.batch(1, frames, size, held_out, generator)
        level = torch.randint(0, LEVELS, (1,), generator=generator)
        group = Group(intra.eval(), x[:, 0], level, priced)
        for frame in x[:, 1:].unbind(1):
            out = group.follow(model(frame, level, group.past(frame, level, model)))
            yield out, group.motion()


def bits_of(out: dict) -> Tensor:
    """Bits of each sample (B,)."""
    return -sum(p.log2().sum((1, 2, 3)) for p in out["likelihoods"].values())


class StemRun(Run):
    """A run that trains `stem` on clips."""

    config_class = StemRunConfig

    def read(self) -> None:
        config = self.config
        shortest = max(config.frames, config.shown)
        self.clips = Clips([Path(p) for p in config.data], shortest, config.crop, config.longest).to(self.device)
        if len(self.clips) <= config.held_out:
            raise ValueError(f"{len(self.clips)} clips are not more than the {config.held_out} held out")
        if self.rank == 0:
            print(f"{len(self.clips)} clips, {self.clips.skipped} skipped", flush=True)

    def build(self) -> Stem:
        config = self.config
        self.intra = checkpoint.load_model(Path(config.intra), self.device).eval().requires_grad_(False)
        if config.start:
            start = checkpoint.load_model(Path(config.start), self.device)
            widths = start.config.as_dict()
        else:
            names = {field.name for field in fields(StemConfig)} & {field.name for field in fields(self.intra.config)}
            widths = {name: getattr(self.intra.config, name) for name in names}
        model = make("stem", widths, mixed="cuda" in self.device).to(self.device)
        if not config.start:
            model.follow(self.intra)
        elif not self.path.exists():
            new = {k: v for k, v in model.state_dict().items() if k.startswith(("g_s.context", "vectors."))}
            checkpoint.fit(model, new | start.state_dict(), config.start)
        model.continue_tables(self.intra.tables)
        model.vectors.requires_grad_(False)
        if not config.transforms:
            trunk = model.g_p[: 1 + model.config.analysis_high]
            for module in (trunk, model.bypass, *(model.get_submodule(name) for name in TRANSFORMS)):
                module.requires_grad_(False)
        return model

    def objective(self) -> Tensor:
        """The mean over the frames but the first of bits and worth of the error in bits, a pixel, balanced."""
        config = self.config
        x = self.clips.batch(config.batch, config.frames, config.crop, config.held_out, self.generator)
        draw = lambda low, high: torch.randint(low, high, (config.batch,), generator=self.generator, device=x.device)
        base = draw(0, LEVELS)
        near = lambda: (base + draw(-config.around, config.around + 1)).clamp(0, LEVELS - 1)
        group, loss = Group(self.intra, x[:, 0], near()), 0.0
        for t in range(1, config.frames):
            level = near()
            past = group.past(x[:, t], level, self.model)
            out = group.follow(self.network(x[:, t], level, past))
            loss = loss + self.loss(x[:, t], level, out) / (config.frames - 1)
        return loss

    def loss(self, x: Tensor, level: Tensor, out: dict) -> Tensor:
        pixels = x.shape[2] * x.shape[3]
        if self.config.transforms:
            error = rd_lambda(level.float()) * 255**2 * (out["x_hat"] - x).square().mean((1, 2, 3))
        else:
            step = self.model.log_step(level).exp()
            error = motion.STEP_WORTH * ((out["y"] - out["y_hat"]) / step).square().sum((1, 2, 3)) / pixels
        weight = rd_lambda(level.float()).div(rd_lambda(LEVELS // 2)).pow(-self.config.balance)
        return ((bits_of(out) / pixels + error) * weight).mean()

    @torch.no_grad()
    def evaluate(self) -> dict:
        """Means over the central crops of the held-out clips.

        Returns:
            {"saving": of bits at equal PSNR against key frames alone, over the frames but the first, mean over levels,
            "level_bpp_motion_intra_psnr": [[level, bits a pixel, those of motion in it, those of the image model, dB,
            dB of the image model], ...]}.
        """
        self.model.eval()
        table = []
        for level in EVAL_LEVELS:
            rows = []
            for i in range(self.config.held_out):
                x = self.clips.centre(i, self.config.shown, self.config.crop)
                rows += self.rows(x, torch.tensor([level], device=x.device))
            table.append([level, *np.mean(rows, 0).round(4).tolist()])
        self.model.train()
        return {"saving": round(saving(np.array(table)), 4), "level_bpp_motion_intra_psnr": table}

    def rows(self, x: Tensor, level: Tensor) -> list[list[float]]:
        """Figures of every frame but the first of a group (1, T, 3, H, W)."""
        pixels, rows = x.shape[3] * x.shape[4], []
        psnr = lambda out, frame: -10 * math.log10((out["x_hat"].clamp(0, 1) - frame).square().mean().item())
        group = Group(self.intra, x[:, 0], level)
        for frame in x[:, 1:].unbind(1):
            past = group.past(frame, level, self.model)
            out, alone = group.follow(self.model(frame, level, past)), self.intra(frame, level)
            symbols, tables = (part.numpy() for part in motion_symbols(*group.motion(), self.model))
            moved = self.model.tables.cost(symbols, tables).sum() / pixels
            bpp, intra_bpp = (bits_of(o).item() / pixels for o in (out, alone))
            rows.append([bpp + moved, moved, intra_bpp, psnr(out, frame), psnr(alone, frame)])
        return rows


def saving(table: np.ndarray) -> float:
    """Mean share of bits saved at equal PSNR; rows as those of `evaluate`."""
    _, bpp, _, intra_bpp, psnr, intra_psnr = table.T
    alone = np.polyval(np.polyfit(intra_psnr, np.log(intra_bpp), 2), psnr)
    return float(1 - np.exp(np.mean(np.log(bpp) - alone)))
