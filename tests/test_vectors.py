"""The network that expects motion: what it costs, that it is exact, that it comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixa.bitstream import entropy
from pixa.coding.tile import TileContext
from pixa.models.export import vector_fit
from pixa.models.registry import find_model
from pixa.motion import vectors
from pixa.motion.fields import REACH
from pixa.runtime.model import load_model

LEVEL = 100
SIZE = (18, 22)


@pytest.fixture(scope="module")
def nets():
    """The model that videos are coded with."""
    return load_model(find_model("stem"), 1)


def wandering(rng: np.random.Generator, count: int, size: tuple[int, int]) -> list[tuple[np.ndarray, vectors.Past]]:
    """Fields that are those before but for a few blocks."""
    fields, before = [], np.zeros((*size, 2), np.int32)
    for _ in range(count):
        field = before + rng.integers(-3, 4, 2) * (rng.random(size) < 0.3)[..., None]
        skip, activity = rng.random(size) < 0.5, rng.integers(0, 40, size)
        fields.append((field.astype(np.int32), vectors.Past(before, skip, activity, LEVEL)))
        before = field.astype(np.int32)
    return fields


@pytest.fixture(scope="module")
def fitted():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_fit, "STEPS", 400)
        return vector_fit.fit(16, wandering(np.random.default_rng(1), 40, (8, 8)))


class TestCost:
    """In bytes, by the model that videos are coded with."""

    def size(self, nets, field: np.ndarray, skip: np.ndarray, before: np.ndarray) -> int:
        context = TileContext((np.zeros((1, 16, *SIZE)),) * 2, before)
        return len(entropy.encode(nets.codec.write_motion(field, skip, context, LEVEL), nets.tables))

    def test_what_moves_as_one_costs_next_to_nothing(self, nets):
        field, skip = np.full((*SIZE, 2), (5, -31), np.int32), np.zeros(SIZE, bool)
        one = 0 * field
        one[6:12, 8:14] = (9, 20)
        assert self.size(nets, 0 * field, ~skip, 0 * field) < 12
        assert self.size(nets, field, skip, field) < 50
        assert self.size(nets, field, skip, 0 * field) < 130
        assert self.size(nets, 0 * field, skip, 0 * field) + 20 < self.size(nets, one, skip, 0 * field) < 80

    def test_what_goes_on_moving_costs_less_than_what_begins_to(self, nets):
        field, skip = np.zeros((*SIZE, 2), np.int32), np.zeros(SIZE, bool)
        field[6:12, 8:14], field[2:4, 3:7] = (9, 20), (-3, 6)
        assert self.size(nets, field, skip, field) < 0.75 * self.size(nets, field, skip, 0 * field)


class TestNetwork:
    def test_torch_and_numpy_say_the_same(self, fitted):
        net = vectors.VectorNet(fitted.arrays())
        for field, past in wandering(np.random.default_rng(2), 3, (5, 9)):
            inputs, _ = vector_fit.samples([(field, past)])
            with torch.no_grad():
                means, scales = (values.numpy().astype(int) for values in fitted(inputs.T[None, :, :, None]))
            said = vectors.coded(field, past, net)
            expected = vectors.placed(means, scales, 0 * means)
            assert np.array_equal(np.concatenate([tables for _, tables in said]), expected.tables)

    def test_fields_it_was_fitted_to_cost_less(self, fitted):
        inputs, steps = vector_fit.samples(wandering(np.random.default_rng(3), 4, (8, 8)))
        cost = lambda network: vector_fit.bits(*network(inputs.T[None, :, :, None]), steps).mean().item()
        with torch.no_grad():
            assert cost(fitted) < 0.7 * cost(vector_fit.Vectors(16))


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (3, 9), (18, 22)])
def test_every_field_comes_back(nets, fitted, size):
    rng, net = np.random.default_rng(1), vectors.VectorNet(fitted.arrays())
    field, before = rng.integers(-REACH, REACH + 1, (2, *size, 2)).astype(np.int32)
    past = vectors.Past(before, rng.random(size) < 0.4, rng.integers(0, 4000, size), 200)
    decoder = entropy.Decoder(entropy.encode(vectors.coded(field, past, net), nets.tables), nets.tables)
    assert np.array_equal(vectors.decoded(decoder, past, net), field)
    decoder.finish()
