"""What a tile of a video frame is told of the past: its motion, what that lets expect, what its networks see.

The past of a tile is that of its place in the frames before, h by w latents:

    past_1, past_2    symbols (1, M, h, w) of the last frame and the one before, zeros where there is none
    past_hat_1        latents y_hat (1, M, h, w) of the last frame
    past_picture      the last frame as it was shown, (16h, 16w, 3) uint8
    picture           the frame itself, (16h, 16w, 3) uint8; an encoder's alone

Only the symbols choose tables.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pixa.bitstream.entropy import Decoder
from pixa.bitstream.tables import Tables
from pixa.models import motion

MOTION_WORTH = 0.5 * 255  # sum of absolute differences, in quantiser steps, that a bit of motion is worth

Past = dict[str, np.ndarray]


class Predictor(Protocol):
    """What can predict latents."""

    def predict(self, picture: np.ndarray, level: int) -> np.ndarray:
        """Latents (1, M, h, w) that a moved picture (16h, 16w, 3) uint8 lets expect."""


def find(past: Past, step: np.ndarray) -> np.ndarray:
    """The motion (h, w, 2) of a tile, int32, for quantiser steps `step`."""
    picture, before = (past[name][None].astype(np.int32) for name in ("picture", "past_picture"))
    return motion.search(picture, before, MOTION_WORTH * float(step.mean()))[0].astype(np.int32)


def write(field: np.ndarray, tables: Tables) -> list[tuple[np.ndarray, np.ndarray]]:
    """The groups (symbols, table indexes) of a motion field (h, w, 2)."""
    return [
        ((field[rows, columns] - prediction).ravel(), table_indexes(contexts, tables))
        for (rows, columns), prediction, contexts in motion.groups(field)
    ]


def read(decoder: Decoder, height: int, width: int, tables: Tables) -> np.ndarray:
    """The motion field (height, width, 2), int32.

    Raises:
        Corrupt: the payload contradicts itself.
    """
    field = np.zeros((height, width, 2), np.int32)
    for (rows, columns), prediction, contexts in motion.groups(field):
        symbols = decoder.decode(table_indexes(contexts, tables)).reshape(-1, 2)
        field[rows, columns] = np.clip(prediction + symbols, -motion.REACH, motion.REACH)
    return field


def table_indexes(contexts: np.ndarray, tables: Tables) -> np.ndarray:
    """The tables of motion are the last ones of a model."""
    return (contexts.ravel() + len(tables.limits) - motion.CONTEXTS).astype(np.uint8)


def predict(past: Past, field: np.ndarray, level: int, nets: Predictor) -> np.ndarray:
    """Latents (1, M, h, w) that the past picture, moved, lets expect."""
    warped = motion.warp(past["past_picture"][None].astype(np.int16), field[None])
    return nets.predict(warped[0].astype(np.uint8), level)
