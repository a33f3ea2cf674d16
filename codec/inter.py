"""What a tile of a video frame is told of the past: where it stands still, its motion, what that lets expect.

The past of a tile is that of its place in the frames before, h by w latents:

    past_1, past_2    symbols (1, M, h, w) of the last frame and the one before, zeros where there is none
    past_hat_1        latents y_hat (1, M, h, w) of the last frame
    past_picture      the last frame as it was shown, (16h, 16w, 3) uint8
    picture           the frame itself, (16h, 16w, 3) uint8; an encoder's alone

Only the symbols choose tables. Where a tile stands still, its latents are those of the last frame and nothing is coded.

Latents do not say all of a picture. What they leave out of the last frame, once moved, a model may let the next one
take over, so that a picture is not worn down by one analysis and synthesis after the other.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from pixa.bitstream.entropy import Decoder
from pixa.bitstream.tables import Tables
from pixa.models import motion
from pixa.models.overlap import compensate

Past = dict[str, np.ndarray]


class Predictor(Protocol):
    """What can predict latents."""

    def predict(self, picture: np.ndarray, level: int) -> np.ndarray:
        """Latents (1, M, h, w) that a moved picture (16h, 16w, 3) uint8 lets expect."""

    def share(self, level: int) -> float | None:
        """How much a frame takes over of what latents leave out of the moved picture; None: a model knows no such."""


class Bypass(NamedTuple):
    """What a tile may take over from the past.

    Attributes:
        moved: the last frame along the motion of this one, (16h, 16w, 3) uint8.
        predicted: its latents (M, h, w), those of the tile where it stands still.
        share: (h, w) float32, of `moved` less what `predicted` shows.
    """

    moved: np.ndarray
    predicted: np.ndarray
    share: np.ndarray

    def add(self, shown: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8, sides up to those of `moved`, from what the latents of the tile and `predicted` show."""
        height, width = shown.shape[:2]
        share = self.share.repeat(motion.BLOCK, 0).repeat(motion.BLOCK, 1)[:height, :width, None]
        left_out = self.moved[:height, :width].astype(np.float32) - predicted
        return np.rint(shown + share * left_out).clip(0, 255).astype(np.uint8)


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
    """The past frame "moved", (16h, 16w, 3) uint8, the latents (1, M, h, w) "predicted" from that, and its own."""
    picture = past["past_picture"]
    if nets.share(level) is None:
        moved = motion.warp(picture[None].astype(np.int16), field[None])[0]
    else:
        planes = np.moveaxis(picture, 2, 0)[None].astype(np.float32)
        moved = np.moveaxis(np.rint(compensate(planes, field[None])[0]).clip(0, 255), 0, 2)
    moved = np.ascontiguousarray(moved.astype(np.uint8))
    return {"past_hat_1": past["past_hat_1"], "moved": moved, "predicted": nets.predict(moved, level)}


def bypass(y_hat: np.ndarray, known: Past, mask: np.ndarray | None, level: int, nets: Predictor) -> Bypass | None:
    """What a tile of latents y_hat (1, M, h, w) takes over; nothing if it is a picture's."""
    if mask is None or (share := nets.share(level)) is None:
        return None
    predicted = np.where(mask, y_hat, known["predicted"])[0]
    return Bypass(known["moved"], predicted, np.where(mask, 1, share).astype(np.float32))


def kept(rebuilt: np.ndarray, known: Past, mask: np.ndarray | None, channels: slice) -> np.ndarray:
    """Residual latents of a run of channels: rebuilt ones, and where a tile stands still what makes it as it was."""
    if mask is None:
        return rebuilt
    return np.where(mask, known["past_hat_1"][:, channels] - known["predicted"][:, channels], rebuilt)


def followed(residual: np.ndarray, known: Past, mask: np.ndarray | None) -> np.ndarray:
    """Latents (1, M, h, w) of a tile from its residual ones; a picture's are these."""
    return residual if mask is None else np.where(mask, known["past_hat_1"], residual + known["predicted"])
