"""A tile of an inter frame to bytes and back: where it is skipped, its motion, then residual latents.

Only symbols and motion of the frames before choose tables (`TileContext`), so symbols decode without a float of the
reference frame. Where a tile is skipped, no latents are coded, and it shows the moved reference picture.

Latents do not say all of a picture. What they leave out of the reference frame, once moved, the next one takes over, so
that a picture is not worn down by one analysis and synthesis after the other (`CarryOver`).
"""

from __future__ import annotations

from concurrent.futures import Executor
from functools import partial
from typing import Protocol

import numpy as np

from pixa.bitstream import entropy
from pixa.coding.latents import (
    HYPER,
    Z_MAX,
    LatentCodec,
    LatentModel,
    LatentSymbols,
    Memory,
    magnitude,
    round_half_up,
)
from pixa.coding.tile import CarryOver, CodedTile, Prediction, Reconstruction, RefFrame, TileContext, TileInput
from pixa.motion import fields as motion
from pixa.motion import overlap, vectors
from pixa.motion.fields import widened
from pixa.motion.search import WORTH, search

ACTIVITY_MAX = 15  # of a past symbol
REACH = 5  # places beyond what is coded whose prediction networks look at
Z_ZONE = 0.1  # how much less than half a hyper-latent is rounded away from zero
GRAPH_INPUTS = "past_1", "past_2"  # what graphs call the magnitudes of the last frame's symbols and of those before

Groups = list[tuple[np.ndarray, np.ndarray]]  # (symbols, table indexes)


class InterModel(LatentModel, Protocol):
    """A loaded model of inter frames."""

    vectors: vectors.VectorNet  # that expects motion

    def predict(self, picture: np.ndarray, level: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Latents (M, h, w) that a moved picture (16h, 16w, 3) uint8 lets expect at places (h, w) bool at least, and
        where they are right."""

    def carry_weight(self, level: int) -> float:
        """How much a frame takes over of what latents leave out of the moved picture."""


class InterCodec(LatentCodec):
    """A `TileCodec` of inter frames: residual latents, behind motion and where a tile is skipped."""

    rdoq_worth = 3 * motion.STEP_WORTH

    model: InterModel

    def encode(
        self, tile: TileInput, level: int, context: TileContext | None = None, reference: RefFrame | None = None
    ) -> CodedTile:
        model, step = self.model, self.model.vector("step", level)
        y = tile.y[None] * model.vector("gain", level) * step
        field, skip, carry_over = self.find(y, tile.picture, step, level, context, reference)
        near = widened(~skip, REACH)
        predicted, before = carry_over.predicted.at(near)[None], reference.reconstruction.latents(near)[None]
        y = (y - predicted) * ~skip
        z_index = self.z_index(level, y.shape, skip)
        z = self.hyper(y, level, z_index[0].any(0))
        z = np.sign(z) * round_half_up(np.abs(z) - Z_ZONE, Z_MAX) * (z_index > 0)
        memory = {"z": z, "predicted": predicted, "past_hat_1": before, "coded": ~skip}
        memory |= magnitudes(context)
        groups = [*self.write_motion(field, skip, context, level), (z.ravel(), z_index.ravel())]
        coded, residual, symbols = self.encode_passes(y, 1 / step, level, memory, tile.rdoq, coded=~skip)
        payload = entropy.encode(groups + coded, model.tables)
        return CodedTile(payload, symbols[0], field, Reconstruction(((residual + predicted) * ~skip)[0], carry_over))

    def decode(
        self,
        payload: bytes,
        shape: tuple[int, int, int],
        level: int,
        context: TileContext | None = None,
        pool: Executor | None = None,
    ) -> LatentSymbols:
        decoder = entropy.Decoder(payload, self.model.tables)
        field, skip = self.read_motion(decoder, context, level)
        return self.decode_passes(decoder, shape, level, magnitudes(context), skip, field)

    def reconstruct(self, symbols: LatentSymbols, reference: RefFrame | None = None) -> Reconstruction:
        carry_over = self.carry_over(symbols.motion, symbols.skip, reference, symbols.level)
        near = widened(~symbols.skip, REACH)
        predicted, before = carry_over.predicted.at(near)[None], reference.reconstruction.latents(near)[None]
        memory = symbols.memory | {"predicted": predicted, "past_hat_1": before, "coded": ~symbols.skip}
        y_hat = (self.reconstruct_passes(symbols, memory) + predicted) * ~symbols.skip
        return Reconstruction(y_hat[0], carry_over)

    def find(
        self,
        y: np.ndarray,
        picture: np.ndarray,
        step: np.ndarray,
        level: int,
        context: TileContext,
        reference: RefFrame,
    ) -> tuple[np.ndarray, np.ndarray, CarryOver]:
        """Motion (h, w, 2) of a tile with latents y (1, M, h, w) and quantiser steps `step`, where it is skipped,
        (h, w) bool, and what it takes over."""
        before, worth = context.prev_motion, WORTH * (255 * float(step.mean())) ** 2
        prices = vectors.Prices(self.model.vectors, self.model.tables, before, activity(context), level)
        field = search(picture[None], reference.picture[None], worth, prices, before[None])[0].astype(np.int32)
        carry_over = self.carry_over(field, None, reference, level)
        near = motion.near(step, picture[None] / 255, carry_over.moved[None] / 255)[0]
        predicted, far = carry_over.predicted.at(widened(~near, REACH))[None], np.nonzero(~near)
        skip = near
        skip[far] = motion.worthless(y[:, :, *far], predicted[:, :, *far], step[..., 0])[0]
        return field, skip, carry_over._replace(skip=skip)

    def carry_over(self, field: np.ndarray, skip: np.ndarray | None, reference: RefFrame, level: int) -> CarryOver:
        """What motion (h, w, 2) makes of the reference frame."""
        moved = overlap.moved(reference.picture, field)
        predicted = Prediction(partial(self.model.predict, moved, level))
        return CarryOver(moved, predicted, skip, self.model.carry_weight(level))

    def write_motion(self, field: np.ndarray, skip: np.ndarray, context: TileContext, level: int) -> Groups:
        """The groups of where a tile is skipped (h, w) and of its motion (h, w, 2)."""
        flags, active, groups = skip[..., None].astype(np.int32), activity(context), []
        for place, prediction, contexts in motion.groups(flags):
            tables = self.flag_tables(prediction, contexts, active[place])
            groups.append(((flags[place] ^ prediction).ravel(), tables))
        past = vectors.Past(context.prev_motion, skip, active, level)
        return groups + vectors.coded(field, past, self.model.vectors)

    def read_motion(self, decoder: entropy.Decoder, context: TileContext, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Motion (h, w, 2), int32, and where the tile is skipped, (h, w) bool.

        Raises:
            Corrupt: the payload contradicts itself.
        """
        active = activity(context)
        flags = np.zeros((*active.shape, 1), np.int32)
        for place, prediction, contexts in motion.groups(flags):
            symbols = decoder.decode(self.flag_tables(prediction, contexts, active[place]))[:, None]
            flags[place] = prediction ^ (symbols & 1)
        skip = flags[..., 0] > 0
        past = vectors.Past(context.prev_motion, skip, active, level)
        return vectors.decoded(decoder, past, self.model.vectors), skip

    def flag_tables(self, prediction: np.ndarray, contexts: np.ndarray, active: np.ndarray) -> np.ndarray:
        """The tables of flags, which are the last of a model."""
        first = len(self.model.tables.limits) - motion.FLAG_CONTEXTS
        return (first + motion.flag_contexts(prediction.ravel(), contexts.ravel(), active)).astype(np.uint8)


def activity(context: TileContext) -> np.ndarray:
    """Sums (h, w) of the sizes of the last frame's symbols at every place."""
    return np.minimum(np.abs(context.prev_symbols[0][0]), ACTIVITY_MAX).sum(0).astype(int)


def magnitudes(context: TileContext) -> Memory:
    """What graphs that choose tables see of the frames before, with zeros up to whole hyper-latents."""
    height, width = context.prev_motion.shape[:2]
    padding = ((0, 0), (0, 0), (0, -height % HYPER), (0, -width % HYPER))
    seen = (np.pad(magnitude(symbols).astype(np.float32), padding) for symbols in context.prev_symbols)
    return dict(zip(GRAPH_INPUTS, seen, strict=True))
