"""What a tile of a video frame is told of the past: its motion, what that lets expect, and where that is all.

The past of a tile is that of its place in the frames before, h by w latents:

    past_1, past_2    symbols (1, M, h, w) of the last frame and the one before, zeros where there is none
    past_hat_1        latents y_hat (1, M, h, w) of the last frame
    past_picture      the last frame as it was shown, (16h, 16w, 3) uint8
    past_field        motion (h, w, 2) of the last frame, zeros behind a key frame
    picture           the frame itself, (16h, 16w, 3) uint8; an encoder's alone

Only symbols and motion choose tables. Where a tile is skipped, no latents are coded, and it shows the moved past.

Latents do not say all of a picture. What they leave out of the last frame, once moved, the next one takes over, so that
a picture is not worn down by one analysis and synthesis after the other.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from pixa.bitstream.entropy import Decoder
from pixa.bitstream.tables import Tables
from pixa.motion import fields as motion
from pixa.motion import overlap, vectors
from pixa.motion.search import WORTH, search

ACTIVITY_MAX = 15  # of a past symbol

Past = dict[str, np.ndarray]


class Predictor(Protocol):
    """What can predict latents."""

    tables: Tables
    vectors: vectors.VectorNet  # that expects motion

    def predict(self, picture: np.ndarray, level: int) -> np.ndarray:
        """Latents (1, M, h, w) that a moved picture (16h, 16w, 3) uint8 lets expect."""

    def share(self, level: int) -> float:
        """How much a frame takes over of what latents leave out of the moved picture."""


class Bypass(NamedTuple):
    """What a tile may take over from the past.

    Attributes:
        moved: the last frame along the motion of this one, (16h, 16w, 3) uint8.
        predicted: its latents (M, h, w).
        skip: (h, w) bool, where all is taken over.
        share: of `moved` less what `predicted` shows, that is taken over elsewhere.
    """

    moved: np.ndarray
    predicted: np.ndarray
    skip: np.ndarray
    share: float

    def taken(self, predicted: np.ndarray) -> np.ndarray:
        """What is taken over, (H, W, 3) float32, sides up to those of `moved`, from what `predicted` shows."""
        height, width = predicted.shape[:2]
        share = np.where(in_pixels(self.skip), np.float32(1), np.float32(self.share))[:height, :width, None]
        return share * (self.moved[:height, :width].astype(np.float32) - predicted)

    def context(self, taken: np.ndarray) -> np.ndarray:
        """What a synthesis sees of the past, (6, H, W) float32: what is taken over, and the moved picture."""
        height, width = taken.shape[:2]
        seen = (~in_pixels(self.skip)[:height, :width]).astype(np.float32) / np.float32(255)
        past = self.moved[:height, :width] - np.float32(127.5)
        return np.stack([plane * seen for planes in (taken, past) for plane in np.moveaxis(planes, 2, 0)])


def in_pixels(places: np.ndarray) -> np.ndarray:
    """(h, w) -> (16h, 16w)."""
    return places.repeat(motion.BLOCK, 0).repeat(motion.BLOCK, 1)


def find(y: np.ndarray, past: Past, step: np.ndarray, level: int, nets: Predictor) -> tuple:
    """What the past tells of latents y (1, M, h, w) with quantiser steps `step`.

    Returns:
        (what `expected` returns, the motion (h, w, 2) of the tile, int32, where it is skipped, (h, w) bool).
    """
    picture, before = past["picture"][None], past["past_picture"][None]
    told, worth = past["past_field"], WORTH * (255 * float(step.mean())) ** 2
    prices = vectors.Prices(nets.vectors, nets.tables, told, past_activity(past), level)
    field = search(picture, before, worth, prices, told[None])[0].astype(np.int32)
    known = expected(past, field, level, nets)
    return known, field, motion.skip(y, known["predicted"], step, picture / 255, known["moved"][None] / 255)[0]


def write(
    field: np.ndarray, skip: np.ndarray, past: Past, level: int, nets: Predictor
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The groups (symbols, table indexes) of where a tile is skipped (h, w) and of its motion (h, w, 2)."""
    flags, activity, groups = skip[..., None].astype(np.int32), past_activity(past), []
    for place, prediction, contexts in motion.groups(flags):
        tables = flag_tables(prediction, contexts, activity[place], nets)
        groups.append(((flags[place] ^ prediction).ravel(), tables))
    return groups + vectors.coded(field, vectors.Past(past["past_field"], skip, activity, level), nets.vectors)


def read(decoder: Decoder, past: Past, level: int, nets: Predictor) -> tuple[np.ndarray, np.ndarray]:
    """The motion field (h, w, 2), int32, and where the tile is skipped, (h, w) bool.

    Raises:
        Corrupt: the payload contradicts itself.
    """
    activity = past_activity(past)
    flags = np.zeros((*activity.shape, 1), np.int32)
    for place, prediction, contexts in motion.groups(flags):
        symbols = decoder.decode(flag_tables(prediction, contexts, activity[place], nets))[:, None]
        flags[place] = prediction ^ (symbols & 1)
    skip = flags[..., 0] > 0
    known = vectors.Past(past["past_field"], skip, activity, level)
    return vectors.decoded(decoder, known, nets.vectors), skip


def past_activity(past: Past) -> np.ndarray:
    """Sums (h, w) of the sizes of the past symbols at every place."""
    return np.minimum(np.abs(past["past_1"][0]), ACTIVITY_MAX).sum(0).astype(int)


def flag_tables(prediction: np.ndarray, contexts: np.ndarray, activity: np.ndarray, nets: Predictor) -> np.ndarray:
    """The last tables of a model."""
    end = len(nets.tables.limits)
    chosen = motion.flag_contexts(prediction.ravel(), contexts.ravel(), activity)
    return (end - motion.FLAG_CONTEXTS + chosen).astype(np.uint8)


def expected(past: Past, field: np.ndarray, level: int, nets: Predictor) -> Past:
    """What motion makes of the past frame: "moved", (16h, 16w, 3) uint8, and the latents (1, M, h, w) "predicted" from
    that, and the past ones "past_hat_1".
    """
    moved = overlap.moved(past["past_picture"], field)
    return {"past_hat_1": past["past_hat_1"], "moved": moved, "predicted": nets.predict(moved, level)}


def bypass(known: Past, skip: np.ndarray | None, level: int, nets: Predictor) -> Bypass | None:
    """What a tile takes over, where it is skipped all of it; nothing if it is a picture's."""
    return None if skip is None else Bypass(known["moved"], known["predicted"][0], skip, nets.share(level))


def kept(rebuilt: np.ndarray, known: Past, skip: np.ndarray | None, channels: slice) -> np.ndarray:
    """Residual latents of a run of channels: rebuilt ones, and zeros where a tile is skipped."""
    return rebuilt if skip is None else np.where(skip, np.float32(0), rebuilt)


def followed(residual: np.ndarray, known: Past, skip: np.ndarray | None) -> np.ndarray:
    """Latents (1, M, h, w) of a tile from its residual ones; a picture's are these."""
    return residual if skip is None else np.where(skip, known["predicted"], residual + known["predicted"])
