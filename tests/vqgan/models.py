"""Small models with random weights, of `vqgan`, and what tests do with them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pixa import Decoder
from pixa.models.nets.vqgan import Vqgan, VqganConfig
from pixa.runtime.model import TokenModel

SMALL = VqganConfig(c=16, d=6, groups=8, analysis=1, analysis_low=1, low=1, high=1, quarter=1, embedding=6,
                    features=12, hidden=16)  # fmt: skip


def as_tensor(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]."""
    return torch.tensor(picture).permute(2, 0, 1)[None] / 255


@torch.no_grad()
def settled(photo: np.ndarray, config: VqganConfig = SMALL) -> Vqgan:
    """A model whose random weights all have an effect, with the codes of a photograph."""
    torch.manual_seed(3)
    model = Vqgan(config).eval()
    for p in model.parameters():
        if p.ndim == 2 and not p.any():
            nn.init.normal_(p, std=0.5 * p.shape[1] ** -0.5)
    nn.init.normal_(model.prior.map_logits)
    for part in (model.g_a, model.g_s):
        part.half().float()
    model.g_a[0].weight.copy_((model.g_a[0].weight / 255).half().float() * 255)
    x = as_tensor(photo)
    model.pyramid.start(model.analyse(x))
    for codebook in model.pyramid.codebooks:
        codebook.regroup(codebook.order(3))
    model.settled = True
    model.prior.start(model.pyramid.codebooks)
    model.calibrate([x])
    return model


def decoded(data: bytes, nets: TokenModel) -> tuple[str, np.ndarray]:
    decoder = Decoder(data)
    decoder.nets = nets
    return decoder.symbols_sha256(), decoder.picture().samples.astype(int)
