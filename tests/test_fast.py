"""The slices of `fast`: what is coded first, what a small picture needs of it, and growth from its forerunner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from pixa.coding.latents import TileSymbols
from pixa.errors import Corrupt
from pixa.image.picture import Analysed
from pixa.models.export.driver import export
from pixa.models.export.fast_graphs import passes
from pixa.models.export.reduced import coded_first
from pixa.models.nets.checkerboard import Checkerboard, CheckerboardConfig
from pixa.models.nets.fast import Fast, FastConfig, pass_mask
from pixa.models.nets.layers import LEVELS
from pixa.models.registry import ModelEntry
from pixa.models.training.refine import refine
from pixa.pixels import Picture
from pixa.runtime.model import OnnxModel
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
        yield OnnxModel(entry, 2)


@pytest.fixture
def tile(nets, coffee, monkeypatch) -> tuple[bytes, np.ndarray]:
    """The payload of a picture's only tile, and its latents."""
    monkeypatch.setattr("pixa.image.picture.find_model", lambda name, tune=None: nets.entry)
    monkeypatch.setattr("pixa.image.picture.load_model", lambda entry, jobs: nets)
    y = Analysed(Picture(coffee[:200, :296])).y
    return nets.coder.encode_tile(y, 120, nets)[0], y


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
    whole = TileSymbols(payload, *y.shape, 120, nets)
    part = TileSymbols(payload, SMALL.low, *y.shape[1:], 120, nets)
    assert np.array_equal(part.y, whole.y[:, : SMALL.low]) and part.y.any()
    assert np.array_equal(part.reconstruct(nets), whole.reconstruct(nets)[: SMALL.low])


def test_damage_behind_the_first_slice_is_seen_by_the_whole_alone(nets, tile):
    payload, y = tile
    damaged = bytearray(payload)
    damaged[len(payload) // 8] ^= 16  # the coder reads from the back
    with pytest.raises(Corrupt):
        TileSymbols(bytes(damaged), *y.shape, 120, nets)
    part, sound = (TileSymbols(data, SMALL.low, *y.shape[1:], 120, nets) for data in (bytes(damaged), payload))
    assert np.array_equal(part.y, sound.y)


class TestRefinement:
    @pytest.fixture
    def old(self, photo) -> Checkerboard:
        torch.manual_seed(4)
        model = Checkerboard(CheckerboardConfig(**WIDTHS, synthesis_low=1))
        model.start_from_dct(as_tensor(photo[:128, :128]))
        return stir(model)

    @torch.no_grad()
    def test_the_picture_stays(self, old, photo):
        """With a block whose hidden units never fire in the place of the one that is left out."""
        old.g_s.low[0].expand.weight.zero_()
        old.g_s.low[0].expand.bias.fill_(-1)
        x, level = as_tensor(photo[:128, :128]), torch.tensor([LEVELS // 2])
        model = Fast(SMALL)
        refine(old, model, x)
        expected, got = (net.g_s(net.analyse(x), net.vector(level)) for net in (old, model.eval()))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
        expected, got = (net.hyper(net.analyse(x), level) for net in (old, model))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)

    @torch.no_grad()
    def test_the_strongest_channels_come_first(self, old, photo):
        x = as_tensor(photo[:128, :128])
        model = Fast(SMALL)
        refine(old, model, x)
        energy = model.eval()(x, torch.tensor([LEVELS // 2]))["symbols"]["y"].abs().mean((0, 2, 3))
        assert energy[: SMALL.low].mean() > 3 * energy[SMALL.low :].mean()

    @torch.no_grad()
    def test_fewer_hidden_units_change_the_picture_little(self, old, photo):
        x, level = as_tensor(photo[:128, :128]), torch.tensor([LEVELS // 2])
        pictures = []
        for hidden in (0, 180, 20):
            model = Fast(replace(SMALL, synthesis_hidden=hidden))
            refine(old, model, x)
            pictures.append(model.g_s(model.analyse(x), model.vector(level)))
        whole, most, few = pictures
        assert 0 < (most - whole).square().mean() < 0.1 * (few - whole).square().mean()

    def test_other_widths_are_refused(self, old, photo):
        with pytest.raises(ValueError, match="k 24 cannot grow from one with 16"):
            refine(old, Fast(replace(SMALL, k=24)), as_tensor(photo[:64, :64]))
