"""The slices of `fast`: what is coded first, and what a small picture needs of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pixa.coding.tile import TileInput
from pixa.errors import Corrupt
from pixa.image.picture import ImageEncoder
from pixa.models.export.driver import export
from pixa.models.export.fast_graphs import passes
from pixa.models.export.reduced import coded_first
from pixa.models.nets.fast import Fast, FastConfig, pass_mask
from pixa.models.registry import ModelEntry
from pixa.pixels import Picture
from pixa.runtime.model import OnnxModel, open_model
from tests.test_mlic import as_tensor, stir

WIDTHS = {"c": 96, "m": 192, "n": 16, "f": 16, "k": 16, "hidden": 16, "analysis_high": 1, "synthesis_high": 2}
SMALL = FastConfig(**WIDTHS, synthesis_hidden=0, low=8, low_k=16, low_hidden=16)


@pytest.fixture(scope="module")
def nets(tmp_path_factory, coffee) -> Iterator[OnnxModel]:
    torch.manual_seed(7)
    model, folder = Fast(SMALL), tmp_path_factory.mktemp("weights")
    model.start_from_dct(as_tensor(coffee[:256, :256]))
    entry = ModelEntry(**export(stir(model), "test", 900, folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pixa.models.registry.weights_folder", lambda: folder)
        yield open_model(entry, 2)


@pytest.fixture
def tile(nets, coffee, monkeypatch) -> tuple[bytes, np.ndarray]:
    """The payload of a picture's only tile, and its latents."""
    monkeypatch.setattr("pixa.image.picture.find_model", lambda name, tune=None: nets.entry)
    monkeypatch.setattr("pixa.image.picture.load_model", lambda entry, jobs: nets)
    y = ImageEncoder(Picture(coffee[:200, :296])).y
    return nets.codec.encode(TileInput(y), 120).payload, y


def test_every_symbol_is_coded_once():
    masks = pass_mask(6, 8, SMALL)
    assert torch.equal(masks.sum(0), torch.ones(SMALL.m, 6, 8, dtype=torch.int64))
    tiled = torch.from_numpy(passes(Fast(SMALL))).unflatten(2, (2, 2)).repeat(1, 1, 3, 4)
    assert torch.equal(tiled, masks)


def test_a_quarter_of_the_first_slice_comes_first():
    first, second, *rest = pass_mask(4, 4, SMALL)
    assert first[: SMALL.low].sum() == SMALL.low * 4 and second[: SMALL.low].sum() == SMALL.low * 12
    assert not any(mask[: SMALL.low].any() for mask in rest)
    assert coded_first(passes(Fast(SMALL))) == SMALL.low


def test_the_first_slice_needs_nothing_of_the_others(nets, tile):
    payload, y = tile
    whole = nets.codec.decode(payload, y.shape, 120)
    part = nets.codec.decode(payload, (SMALL.low, *y.shape[1:]), 120)
    assert np.array_equal(part.y, whole.y[: SMALL.low]) and part.y.any()
    assert np.array_equal(nets.codec.reconstruct(part).y_hat, nets.codec.reconstruct(whole).y_hat[: SMALL.low])


def test_damage_behind_the_first_slice_is_seen_by_the_whole_alone(nets, tile):
    payload, y = tile
    damaged = bytearray(payload)
    damaged[len(payload) // 8] ^= 16  # the coder reads from the back
    with pytest.raises(Corrupt):
        nets.codec.decode(bytes(damaged), y.shape, 120)
    part, sound = (nets.codec.decode(data, (SMALL.low, *y.shape[1:]), 120) for data in (bytes(damaged), payload))
    assert np.array_equal(part.y, sound.y)
