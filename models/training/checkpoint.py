"""Checkpoints of a training run: written whole or not at all, read without unpickling code."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from pixa.models.export.architectures import make
from pixa.models.export.restore import restore
from pixa.models.nets.backbone import Backbone


def save(path: Path, state: dict) -> None:
    """Write beside `path`, then rename: an old checkpoint survives a full disk and a kill."""
    temporary = path.with_suffix(".tmp")
    try:
        torch.save(state, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, device: str) -> dict:
    return torch.load(path, map_location=device, weights_only=True)


def load_model(path: Path, device: str) -> Backbone:
    """The model of a checkpoint, with its averaged weights, or of a folder written by the export.

    Raises:
        ValueError: the weights do not fit the configuration beside them.
    """
    if path.is_dir():
        return restore(path).to(device)
    state = load(path, device)
    model = make(state["config"].get("model", "fast"), state["model_config"]).to(device)
    fit(model, state["ema"], path)
    return model


def fit(model: nn.Module, weights: dict[str, Tensor], origin: Path) -> None:
    """Load weights into a model.

    Raises:
        ValueError: they belong to a model of another configuration; the message names the first that differs.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        shapes = [tuple(d[name].shape) if name in d else None for d in (own, weights)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{origin} does not fit the model: {name} is {shapes[1]} there and {shapes[0]} here")
    model.load_state_dict(weights)
