"""What a tile of a video frame is told of the past: where it stands still, its motion, what that lets expect.

The past of a tile is that of its place in the frames before, h by w latents:

    past_1, past_2    symbols (1, M, h, w) of the last frame and the one before, zeros where there is none
    past_hat_1        latents y_hat (1, M, h, w) of the last frame
    past_picture      the last frame as it was shown, (16h, 16w, 3) uint8
    picture           the frame itself, (16h, 16w, 3) uint8; an encoder's alone

Only the symbols choose tables. Where a tile stands still, its latents are those of the last frame and nothing is coded.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pixa.bitstream.entropy import Decoder
from pixa.bitstream.tables import Tables
from pixa.models import motion

STEP_WORTH = 6 / np.log(2)  # bits that a squared quantiser step is worth, see `pixa.latents.optimise`
SYMBOL_BITS, BLOCK_BITS = 6.5, 8.0  # that a symbol other than zero takes, and a block of latents beside them

Past = dict[str, np.ndarray]


class Predictor(Protocol):
    """What can predict latents."""

    def predict(self, picture: np.ndarray, level: int) -> np.ndarray:
        """Latents (1, M, h, w) that a moved picture (16h, 16w, 3) uint8 lets expect."""


def still(past: Past, y: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Where latents y (1, M, h, w) are better left as they were than coded anew, (h, w) bool.

    A symbol that takes a latent from r steps off to |r| - 1 is worth 2|r| - 1 squared steps. Where all that are worth
    more than they take do not pay for the block, it repeats.
    """
    gain = STEP_WORTH * (2 * np.abs((y - past["past_hat_1"]) / step) - 1) - SYMBOL_BITS
    return np.maximum(gain, 0).sum(1)[0] < BLOCK_BITS


def find(past: Past, step: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The motion (h, w, 2) of a tile, int32, for quantiser steps `step`; none where it stands still."""
    if mask.all():
        return np.zeros((*mask.shape, 2), np.int32)
    picture, before = (past[name][None].astype(np.int32) for name in ("picture", "past_picture"))
    field = motion.search(picture, before, motion.WORTH * 255 * float(step.mean()))[0].astype(np.int32)
    return field * ~mask[..., None]


def write(field: np.ndarray, mask: np.ndarray, tables: Tables) -> list[tuple[np.ndarray, np.ndarray]]:
    """The groups (symbols, table indexes) of where a tile stands still (h, w) and of its motion (h, w, 2)."""
    known = mask[..., None].astype(np.int32)
    return [
        ((known[place] - prediction).ravel(), still_tables(contexts, tables))
        for place, prediction, contexts in motion.groups(known)
    ] + [
        ((field[place] - prediction).ravel(), motion_tables(contexts, mask[place], tables))
        for place, prediction, contexts in motion.groups(field)
    ]


def read(decoder: Decoder, height: int, width: int, tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """The motion field (height, width, 2), int32, and where it stands still, (height, width) bool.

    Raises:
        Corrupt: the payload contradicts itself.
    """
    known = np.zeros((height, width, 1), np.int32)
    for place, prediction, contexts in motion.groups(known):
        symbols = decoder.decode(still_tables(contexts, tables))[:, None]
        known[place] = (prediction + symbols).clip(0, 1)
    mask, field = known[..., 0] > 0, np.zeros((height, width, 2), np.int32)
    for place, prediction, contexts in motion.groups(field):
        symbols = decoder.decode(motion_tables(contexts, mask[place], tables)).reshape(-1, 2)
        moved = (prediction + symbols).clip(-motion.REACH, motion.REACH)
        field[place] = moved * ~mask[place][:, None]
    return field, mask


def still_tables(contexts: np.ndarray, tables: Tables) -> np.ndarray:
    """The last tables of a model."""
    first = len(tables.limits) - motion.STILL_CONTEXTS
    return (first + contexts.ravel().clip(max=motion.STILL_CONTEXTS - 1)).astype(np.uint8)


def motion_tables(contexts: np.ndarray, mask: np.ndarray, tables: Tables) -> np.ndarray:
    """The tables before these; none where a tile stands still."""
    first = len(tables.limits) - motion.STILL_CONTEXTS - motion.CONTEXTS
    return ((first + contexts) * ~mask[:, None]).ravel().astype(np.uint8)


def expected(past: Past, field: np.ndarray, level: int, nets: Predictor) -> Past:
    """The latents (1, M, h, w) of the past frame, and those "predicted" that its picture, moved, lets expect."""
    warped = motion.warp(past["past_picture"][None].astype(np.int16), field[None])
    predicted = nets.predict(warped[0].astype(np.uint8), level)
    return {"past_hat_1": past["past_hat_1"], "predicted": predicted}


def kept(rebuilt: np.ndarray, known: Past, mask: np.ndarray | None, channels: slice) -> np.ndarray:
    """Residual latents of a run of channels: rebuilt ones, and where a tile stands still what makes it as it was."""
    if mask is None:
        return rebuilt
    return np.where(mask, known["past_hat_1"][:, channels] - known["predicted"][:, channels], rebuilt)


def followed(residual: np.ndarray, known: Past, mask: np.ndarray | None) -> np.ndarray:
    """Latents (1, M, h, w) of a tile from its residual ones; a picture's are these."""
    return residual if mask is None else np.where(mask, known["past_hat_1"], residual + known["predicted"])
