"""The model `stem`: motion, what it knows of the past, its training, its files, exact symbols."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from pixa.bitstream import entropy
from pixa.bitstream.headers import Head
from pixa.coding import inter
from pixa.coding.latents import CONTEXT_MAX, Z_MAX
from pixa.coding.tile import CarryOver, CodedTile, Reconstruction, RefFrame, TileContext, TileInput
from pixa.errors import Corrupt, PixaError
from pixa.image.picture import ImageEncoder
from pixa.models.export.driver import bias_of, decode_macs, export
from pixa.models.export.restore import restore
from pixa.models.export.stem_graphs import scales
from pixa.models.nets import stem as stem_net
from pixa.models.nets.fast import Fast, FastConfig
from pixa.models.nets.layers import ANCHOR_STEP, LEVELS
from pixa.models.nets.stem import PLANES, Stem, StemConfig, nothing
from pixa.models.registry import ModelEntry, find_model
from pixa.models.training.program import main
from pixa.motion import fields as motion
from pixa.motion.overlap import compensate
from pixa.motion.search import search
from pixa.pixels import Picture
from pixa.runtime.model import OnnxModel, open_model
from pixa.video.frames import FrameCoder
from tests.support.torch_backend import TorchModel
from tests.test_exactness import RUNTIMES, derived_bounds
from tests.test_format_doc import depthwise, pointwise, rescale, shuffle, table
from tests.test_mlic import WIDTHS, as_tensor, stir
from tests.test_model import refused_layers

SMALL = WIDTHS | {"synthesis_low": 0}
pytestmark = pytest.mark.usefixtures("installed")
SIZE = (112, 144)  # of the frames; latents of 7 rows and 9 columns
LEVEL = 120


@pytest.fixture(scope="module")
def image() -> Fast:
    torch.manual_seed(4)
    return stir(Fast(FastConfig(**SMALL, synthesis_hidden=24, low=2, low_k=8, low_hidden=8)))


@pytest.fixture(scope="module")
def stem(image) -> Stem:
    """Everything in it has an effect."""
    torch.manual_seed(5)
    model = Stem(StemConfig(**SMALL, synthesis_hidden=24, vectors=16))
    model.follow(image)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2 and not p.any():
                p.normal_(std=0.2 * p.shape[1] ** -0.5)
        for scale in (model.scale_a, model.scale_b):
            scale.hidden.weight.add_(torch.randn_like(scale.hidden.weight) * 0.2)
        model.half().float()
    return model.eval()


@pytest.fixture(scope="module")
def folder(image, stem, tmp_path_factory) -> Path:
    """Weights of an image model and of the model of the frames between its key frames."""
    folder = tmp_path_factory.mktemp("weights")
    export(image, "test", 900, folder)
    export(stem, "test", 901, folder, "fast.test")
    return folder


@pytest.fixture
def entry() -> ModelEntry:
    return find_model("stem")


@pytest.fixture
def nets(entry) -> OnnxModel:
    return open_model(entry, 1)


@pytest.fixture
def key() -> OnnxModel:
    return open_model(find_model("fast"), 1)


@pytest.fixture(scope="module")
def frames(coffee) -> list[np.ndarray]:
    """A photograph that moves by 5 rows and 3 columns a frame."""
    return [np.ascontiguousarray(coffee[80 + 5 * t :, 150 + 3 * t :][: SIZE[0], : SIZE[1]]) for t in range(4)]


class Past(NamedTuple):
    """What an inter frame is coded with."""

    context: TileContext
    reference: RefFrame


def after(coded: CodedTile, level: int, nets: OnnxModel, before: Past | None) -> Past:
    """What the next frame is coded with behind one that has been coded."""
    symbols, y_hat = coded.y[None], everywhere(coded.reconstruction)
    older = before.context.prev_symbols[0] if before else np.zeros_like(symbols)
    field = np.zeros((*y_hat.shape[1:], 2), np.int32) if coded.motion is None else coded.motion
    picture = np.rint(nets.synthesis(y_hat, level)).clip(0, 255).astype(np.uint8)
    return Past(TileContext((symbols, older), field), RefFrame(Reconstruction(y_hat), picture))


def everywhere(reconstruction: Reconstruction) -> np.ndarray:
    """Latents (M, h, w)."""
    return reconstruction.latents(np.ones(reconstruction.y_hat.shape[1:], bool))


def coded(frames: list[np.ndarray], key: OnnxModel, nets: OnnxModel, levels: list[int]) -> list[tuple]:
    """(payload, y_hat, past) of every frame of a group."""
    past, group = None, []
    for frame, level in zip(frames, levels, strict=True):
        model = nets if past else key
        tile = model.codec.encode(TileInput(key.analysis(frame), picture=frame), level, *(past or ()))
        group.append((tile.payload, everywhere(tile.reconstruction), past))
        past = after(tile, level, model, past)
    return group


@pytest.fixture
def nothing_skipped(monkeypatch):
    monkeypatch.setattr(
        motion, "near", lambda step, picture, moved: np.zeros((1, *np.array(moved.shape[1:3]) // 16), bool)
    )
    monkeypatch.setattr(motion, "worthless", lambda y, *others: np.zeros((1, *y.shape[2:]), bool))


@pytest.fixture
def group(frames, key, nets) -> list[tuple]:
    return coded(frames, key, nets, [LEVEL + 15, LEVEL - 10, LEVEL, LEVEL - 5])


class TestMotion:
    @pytest.mark.parametrize("shift", [(0, 0), (7, -9), (-22, 13)])
    def test_search_finds_where_a_picture_went(self, coffee, shift):
        cut = lambda y, x: coffee[None, 100 + y : 196 + y, 200 + x : 328 + x].astype(np.int32)
        field = search(cut(*shift), cut(0, 0), 60.0)
        inside = field[0, 2:-2, 1:-1].reshape(-1, 2)
        assert (inside == 4 * np.array(shift)).all(1).mean() > 0.7
        as_torch = search(torch.tensor(cut(*shift)), torch.tensor(cut(0, 0)), 60.0)
        assert np.array_equal(as_torch.numpy(), field)

    @pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 4)])
    def test_overlapping_blocks_that_move_as_one_are_one_picture(self, coffee, size):
        height, width = 16 * size[0], 16 * size[1]
        picture = np.moveaxis(coffee[64 : 64 + height, 64 : 64 + width], 2, 0)[None].astype(np.float32)
        moved = compensate(picture, np.full((1, *size, 2), (8, -12)))
        edge = np.pad(picture, ((0, 0), (0, 0), (0, 2), (3, 0)), mode="edge")
        np.testing.assert_allclose(moved, edge[:, :, 2:, :-3], atol=1e-3)

    def test_neighbours_fade_into_each_other(self):
        picture = np.broadcast_to(np.arange(64, dtype=np.float32), (1, 3, 16, 64))
        moved = compensate(picture, np.array([[[[0, 0], [0, 8], [0, 8], [0, 8]]]]))
        steps = (moved - picture)[0, 0, 5]
        assert np.allclose(steps[:12], 0, atol=1e-5)
        assert np.allclose(steps[20:60], 2, atol=1e-5)
        np.testing.assert_allclose(steps[12:20], 2 * (np.arange(8) + 0.5) / 8, atol=1e-5)

    def test_torch_and_numpy_predict_the_same(self, coffee):
        rng = np.random.default_rng(4)
        picture = np.moveaxis(coffee[None, :96, :128], 3, 1).astype(np.float32)
        field = rng.integers(-40, 41, (1, 6, 8, 2))
        as_torch = compensate(torch.tensor(picture), torch.tensor(field))
        np.testing.assert_allclose(compensate(picture, field), as_torch, atol=1e-3)

    @pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (3, 9), (18, 22)])
    def test_every_field_comes_back(self, nets, size):
        rng = np.random.default_rng(1)
        field = rng.integers(-motion.REACH, motion.REACH + 1, (*size, 2)).astype(np.int32)
        symbols = rng.integers(-2, 3, (1, 16, *size))
        mask, context = rng.random(size) < 0.4, TileContext((symbols, 0 * symbols), field[::-1])
        groups = nets.codec.write_motion(field, mask, context, LEVEL)
        decoder = entropy.Decoder(entropy.encode(groups, nets.tables), nets.tables)
        assert all(map(np.array_equal, nets.codec.read_motion(decoder, context, LEVEL), (field, mask)))
        decoder.finish()


class TestSkip:
    def test_is_what_symbols_would_not_improve(self):
        rng = np.random.default_rng(2)
        y = rng.normal(size=(1, 16, 6, 8))
        past, step = y + rng.uniform(-0.5, 0.5, y.shape), np.ones((1, 16, 1, 1))
        picture, moved = np.zeros((1, 96, 128, 3)), np.ones((1, 96, 128, 3))
        assert motion.skip(y, past, step, picture, moved).all()
        y[0, :8, 2:4, 5] += 3
        expected = np.ones((6, 8), bool)
        expected[2:4, 5] = False
        assert np.array_equal(motion.skip(y, past, step, picture, moved), expected[None])
        given = map(torch.tensor, (y, past, step, picture, moved))
        assert np.array_equal(motion.skip(*given).numpy(), expected[None])
        assert motion.skip(y, past, 9 * step, picture, moved).all()

    def test_is_where_the_moved_picture_is_the_picture(self):
        y, step = 9 * np.ones((1, 16, 6, 8)), np.ones((1, 16, 1, 1))
        picture = np.random.default_rng(2).random((1, 96, 128, 3))
        moved = picture.copy()
        moved[0, 32:48, :16] += 0.5
        expected = np.ones((6, 8), bool)
        expected[2, 0] = False
        assert np.array_equal(motion.skip(y, 0 * y, step, picture, moved), expected[None])


class TestModel:
    def test_gradient_reaches_every_parameter(self, stem, photo):
        model = Stem(stem.config)
        model.load_state_dict(stem.state_dict())
        level = torch.arange(0, LEVELS, ANCHOR_STEP)
        x = as_tensor(photo[:64, :128]).expand(len(level), -1, -1, -1)
        moved = as_tensor(photo[4:68, 2:130]).expand_as(x)
        predicted = 0.2 * model.predict(moved, level)
        symbols = torch.randint(0, CONTEXT_MAX + 1, (len(level), 2 * model.config.m, 4, 8)).float()
        skip = torch.zeros(len(level), 1, 4, 8, dtype=torch.bool)
        out = model.train()(x, level, stem_net.Past(moved, predicted, skip, 0.9 * predicted.detach(), symbols))
        rate = sum(p.log2().mean() for p in out["likelihoods"].values())
        (1000 * (out["x_hat"] - x).square().mean() - rate).backward()
        without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
        assert without == {name for name, _ in model.named_parameters() if name.startswith("vectors.")}

    @torch.no_grad()
    def test_starts_with_the_prices_of_the_image_model(self, image, photo):
        model, image = Stem(StemConfig(**SMALL, synthesis_hidden=24, vectors=16)), copy.deepcopy(image)
        for layer in (image.mean_a.mean, image.mean_b.mean, image.mean_b.straight):  # no word of the first slice
            layer.weight.zero_()
            layer.bias.zero_()
        model.follow(image)
        y, z, level = torch.randn(1, 16, 8, 8), torch.randn(1, 8, 2, 2), torch.tensor([80])
        y[:, :2] = 0
        past = nothing(y)._replace(magnitudes=torch.full((1, 32, 8, 8), 7.0))
        own, other = model.code(y, z, level, past=past), image.code(y, z, level)
        in_a = torch.arange(8)[:, None] + torch.arange(8) & 1 == 0
        risen = (own.index - other.index)[:, 2:8, in_a][other.index[:, 2:8, in_a] < 50]
        assert set(risen.unique().tolist()) <= {6.0, 7.0}  # 16 * WIDER
        means = [y - own.residual * model.log_step(level).exp(), y - other.residual / image.log_gain(level).exp()]
        torch.testing.assert_close(means[0][:, 2:8, in_a], means[1][:, 2:8, in_a], rtol=0, atol=1e-5)

    def test_other_widths_are_refused(self, image):
        with pytest.raises(ValueError, match="other widths"):
            Stem(StemConfig(**SMALL | {"k": 24}, synthesis_hidden=24)).follow(image)

    def test_another_architecture_is_refused(self):
        with pytest.raises(ValueError, match="fast's architecture, not a Stem"):
            Stem(StemConfig()).follow(Stem(StemConfig()))

    def test_decoding_keeps_to_its_budget(self):
        assert decode_macs(Stem()) <= 24_000

    @torch.no_grad()
    def test_without_motion_and_change_a_frame_is_predicted_from_its_picture(self, stem, photo):
        x, level = as_tensor(photo[:128, :128]), torch.tensor([LEVEL])
        y = stem.as_decoded(stem.analyse(x), level)
        alone = stem(x, level)
        helped = stem(x, level, nothing(y)._replace(predicted=y))
        bits = [-sum(p.log2().sum() for p in out["likelihoods"].values()) for out in (alone, helped)]
        assert bits[1] < bits[0]


class TestFiles:
    def test_names_the_model_of_key_frames(self, entry):
        assert entry.key_model == "fast.test"
        assert "key frames" in find_model(entry.key_model).can

    @torch.no_grad()
    def test_the_payload_holds_the_symbols_of_forward(self, stem, frames, nothing_skipped, group, nets):
        for frame, (payload, y_hat, past), level in list(zip(frames, group, (0, LEVEL - 10, LEVEL), strict=False))[1:]:
            tile = nets.codec.decode(payload, y_hat.shape, level, past.context)
            field = torch.from_numpy(tile.motion)[None]
            shown = torch.tensor(past.reference.picture).permute(2, 0, 1)[None].float()
            moved = compensate(shown, field).clamp(0, 255).round() / 255
            predicted = stem.predict(moved, torch.tensor([level]))
            expected = nets.codec.carry_over(tile.motion, tile.skip, past.reference, level).predicted
            expected = expected.at(np.ones(tile.skip.shape, bool))[None]
            np.testing.assert_allclose(expected, predicted, atol=1e-3)
            y = stem.as_decoded(stem.analyse(as_tensor(frame)), torch.tensor([level])) - predicted
            known = torch.cat([torch.from_numpy(a)[:, :, :7, :9] for a in inter.magnitudes(past.context).values()], 1)
            latents = torch.from_numpy(past.reference.reconstruction.y_hat[None])
            given = stem_net.Past(moved, predicted, torch.from_numpy(tile.skip), latents, known)
            out = stem.code(y, torch.from_numpy(tile.z).float(), torch.tensor([level]), past=given)
            assert np.abs(tile.y).mean() > 0.1
            # A latent on the edge of rounding may fall to either side, and change what comes after it.
            assert (tile.y != out.symbols.numpy()[0]).mean() < 0.01
            rebuilt = torch.from_numpy(everywhere(nets.codec.reconstruct(tile, past.reference))) - predicted[0]
            assert ((rebuilt - out.y_hat[0]).abs() > 0.01).float().mean() < 0.02

    def test_decoder_rebuilds_what_the_encoder_saw(self, group, key, nets):
        levels = (135, 110, 120, 115)
        for (payload, y_hat, past), level, following in zip(group, levels, [*group[1:], None], strict=True):
            model = nets if past else key
            tile = model.codec.decode(payload, y_hat.shape, level, past and past.context)
            found = model.codec.reconstruct(tile, past and past.reference)
            np.testing.assert_array_equal(everywhere(found), y_hat)
            if following:
                np.testing.assert_array_equal(tile.y, following[2].context.prev_symbols[0][0])

    def test_a_frame_that_repeats_costs_less(self, frames, key, image, nothing_skipped, group, tmp_path):
        fresh = Stem(StemConfig(**SMALL, synthesis_hidden=24, vectors=16))
        fresh.follow(image)
        predicting = open_model(entry_at(tmp_path, export(fresh, "fresh", 902, tmp_path, "fast.test")), 1)
        y, (_, _, past) = key.analysis(frames[0]), group[1]
        sizes = [
            len(
                predicting.codec.encode(
                    TileInput(y, picture=frames[0]), LEVEL, past.context, replace(past.reference, picture=shown)
                ).payload
            )
            for shown in (frames[0], frames[0][::-1].copy())
        ]
        assert sizes[0] < 0.7 * sizes[1]

    def test_restored_model_exports_the_same_files(self, entry, folder, tmp_path):
        export(restore(entry.folder), entry.tag, entry.wire_id, tmp_path, entry.key_model)
        for name in {*entry.decoder, *entry.encoder} - {"analysis.onnx", "predict.onnx", "tables.npz"}:
            assert (tmp_path / entry.folder.name / name).read_bytes() == (entry.folder / name).read_bytes()
        one, other = (dict(np.load(path / entry.folder.name / "tables.npz")) for path in (tmp_path, folder))
        assert all(np.array_equal(one[name], other[name]) for name in ("limits", "frequencies", "test_sha256"))

    def test_no_damage_goes_further_than_an_error(self, group, nets):
        payload, y_hat, past = group[1]
        rng, outcomes = np.random.default_rng(3), set()
        for _ in range(60):
            damaged = bytearray(payload)
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
            try:
                tile = nets.codec.decode(bytes(damaged), y_hat.shape, 110, past.context)
                outcomes.add(nets.codec.reconstruct(tile, past.reference).y_hat.shape)
            except PixaError as error:
                outcomes.add(type(error))
        assert outcomes <= {Corrupt, y_hat.shape}
        assert Corrupt in outcomes

    def test_another_past_does_not_go_unnoticed(self, group, nets):
        payload, y_hat, past = group[2]
        last, older = past.context.prev_symbols
        other = replace(past.context, prev_symbols=(np.flip(last, 3).copy(), older))
        with pytest.raises(Corrupt):
            nets.codec.decode(payload, y_hat.shape, LEVEL, other)


def entry_at(folder: Path, facts: dict) -> ModelEntry:
    """An entry of the manifest in another folder than that of the registry."""

    class Elsewhere(ModelEntry):
        folder = property(lambda self: place)

    place = folder / f"{facts['name']}.{facts['tag']}"
    return Elsewhere(**facts | {name: tuple(facts[name]) for name in ("decoder", "encoder")})


class TestBypass:
    def test_a_share_of_what_latents_leave_out_is_taken_over(self):
        moved, predicted = (np.full((16, 32, 3), level, np.uint8) for level in (90, 60))
        carry_over = CarryOver(moved, None, np.array([[False, True]]), 0.5)
        taken = carry_over.carried(predicted[:9, :20])
        assert taken.shape == (9, 20, 3)
        assert (taken[:, :16] == 15).all() and (taken[:, 16:] == 30).all()

    def test_nothing_is_seen_of_the_past_where_nothing_is_coded(self):
        moved = np.full((16, 32, 3), 90, np.uint8)
        carry_over = CarryOver(moved, None, np.array([[False, True]]), 0.5)
        context = carry_over.context(np.full((9, 20, 3), 51, np.float32))
        assert context.shape == (PLANES, 9, 20) and context.dtype == np.float32
        np.testing.assert_allclose(context[:3, :, :16], 0.2, atol=1e-6)
        np.testing.assert_allclose(context[3:, :, :16], 90 / 255 - 0.5, atol=1e-6)
        assert not context[:, :, 16:].any()

    def test_frames_are_shown_as_the_model_shows_them(self, frames, key, nets, stem):
        height, width = 96, 128
        head = Head(width, height, colour=1, alpha=0, level=LEVEL, model=901, model_hash=0, tile_log2=10)
        coder, as_torch = FrameCoder(head, key, nets), lambda x: torch.tensor(np.array(x, np.float32))
        for number, frame in enumerate(frame[:height, :width] for frame in frames[:2]):
            coded = coder.code(frame, coder.analyse(frame, number == 0), LEVEL, number == 0)
            coder.keep(coded)
        (_, bypass), level = coded.tiles[0].reconstruction, torch.tensor([LEVEL])
        y_hat = everywhere(coded.tiles[0].reconstruction)
        assert 0 < bypass.skip.mean() < 1
        moved = as_torch(np.moveaxis(bypass.moved, 2, 0)[None]) / 255
        skip = torch.tensor(bypass.skip)[None, None]
        with torch.no_grad():
            predicted = as_torch(bypass.predicted.at(np.ones_like(bypass.skip))[None])
            expected = stem.shown(as_torch(y_hat[None]), predicted, moved, skip, level)
        expected = np.moveaxis(expected[0].clamp(0, 1).numpy() * 255, 0, 2)
        assert np.abs(coder.references[0].picture - expected).max() < 2

    def test_decoder_shows_what_the_encoder_saw(self, frames, key, nets):
        height, width = 102, 139
        head = Head(width, height, colour=1, alpha=0, level=LEVEL, model=901, model_hash=0, tile_log2=10)
        alone, unseeing = open_model(nets.entry, 1), open_model(nets.entry, 1)
        alone.arrays |= {"bypass": 0 * nets.arrays["bypass"]}
        plain = unseeing.synthesis
        unseeing.synthesis = lambda *given, context=None, **others: plain(*given, **others)
        unseeing.g_s.context.packed = 0 * nets.g_s.context.packed
        encoder, *decoders = (FrameCoder(head, key, model) for model in (nets, nets, alone, unseeing))
        decoder = decoders[0]
        for number, frame in enumerate(frames):
            frame, is_key = frame[:height, :width], number == 0
            coded = encoder.code(frame, encoder.analyse(frame, is_key), LEVEL, is_key)
            encoder.keep(coded)
            shown, without, blind = (
                coder.show(coder.symbols(coded.payloads, LEVEL, is_key), LEVEL, is_key) for coder in decoders
            )
            assert shown.shape == frame.shape
            assert np.array_equal(decoder.references[0].picture, encoder.references[0].picture)
            assert np.array_equal(shown, without) == is_key
            assert np.array_equal(shown, blind) == is_key


class TestExactness:
    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_symbols_are_equal_and_latents_close(self, group, entry, nets, runtime):
        other, hashes = RUNTIMES[runtime](entry), set()
        for (payload, y_hat, past), level in list(zip(group, (135, 110, 120, 115), strict=True))[1:]:
            tile = other.codec.decode(payload, y_hat.shape, level, past.context)
            assert tile.integers() == nets.codec.decode(payload, y_hat.shape, level, past.context).integers()
            found = everywhere(other.codec.reconstruct(tile, past.reference))
            assert np.abs(found - y_hat).max() < 0.01 * nets.vector("step", level).min()
            hashes.add(hashlib.sha256(tile.integers()).digest())
        assert len(hashes) == 3

    def test_symbols_need_no_float_of_the_past(self, group, nets):
        payload, y_hat, past = group[2]
        context = past.context
        assert all(np.array_equal(a, np.rint(a)) for a in (*context.prev_symbols, context.prev_motion))
        assert len(nets.codec.decode(payload, y_hat.shape, LEVEL, context).integers()) > 0

    def test_onnxruntime_decodes_what_torch_coded(self, frames, entry, key, nets):
        group = coded(frames, key, TorchModel(entry), [LEVEL] * 4)
        for payload, y_hat, past in group[1:]:
            tile = nets.codec.decode(payload, y_hat.shape, LEVEL, past.context)
            found = everywhere(nets.codec.reconstruct(tile, past.reference))
            assert np.abs(found - y_hat).max() < 0.01 * nets.vector("step", LEVEL).min()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64], ids=str)
    @pytest.mark.parametrize("level", [0, 200])
    def test_exact_networks_give_the_same_integers(self, entry, nets, dtype, level):
        rng, said = np.random.default_rng(7), []
        z = rng.choice([-Z_MAX, 0, Z_MAX], (1, 8, 5, 6))
        seen = rng.choice([0, 1, CONTEXT_MAX], (3, 1, 16, 20, 24))
        for runtime in (nets, TorchModel(entry, dtype)):
            memory = dict(zip(("z", "past_1", "past_2", "magnitude"), map(np.float32, (z, *seen)), strict=True))
            first, outputs = runtime.scale(0, memory, level)
            second, _ = runtime.scale(1, memory | outputs, level)
            said.append([first, second, outputs["features"], outputs["hidden_a"]])
        assert all(np.ptp(values) > 10 for values in said[0])
        assert all(np.array_equal(first, second) for first, second in zip(*said, strict=True))

    def test_past_symbols_choose_tables(self, nets):
        memory = {name: np.zeros((1, 16, 8, 8), np.float32) for name in ("past_1", "past_2")}
        memory["z"] = np.ones((1, 8, 2, 2), np.float32)
        still, _ = nets.scale(0, memory, LEVEL)
        for name in ("past_1", "past_2"):
            assert (nets.scale(0, memory | {name: memory[name] + CONTEXT_MAX}, LEVEL)[0] != still).any()

    def test_bounds_are_those_of_the_files(self, entry):
        recorded = json.loads((entry.folder / "export.json").read_text())["bounds"]
        assert sorted(derived_bounds(entry)) == sorted(recorded.values())
        assert max(recorded.values()) < 2**24

    def test_a_sum_past_the_exact_range_is_refused_by_layer(self, stem):
        model = Stem(stem.config)
        model.load_state_dict(stem.state_dict())
        assert {"scale_a.context", "scale_a.index", "scale_b.hidden"} < refused_layers(model)


class TestFormat:
    """FORMAT.md, sections 4.4 and 6.9."""

    def test_graphs_are_described(self, nets):
        for name, *sides in table("graph of `stem` | inputs | outputs"):
            session = nets.session(name)
            for side, values in zip(sides, (session.get_inputs(), session.get_outputs()), strict=True):
                assert re.findall(r"(\w+) \(1, ", side) == [value.name for value in values]

    def test_integers_alone_pass_the_self_test(self, entry):
        arrays = dict(np.load(entry.folder / "tables.npz"))
        whole = lambda name: arrays[f"test_{name}"][0].astype(np.int64)
        at = lambda name: arrays[name][100].astype(np.int64)[:, None, None]
        p1, d2, p3, p4, d5, p6, d7, p8, p9 = stored_integers(entry.folder / "scale_a.onnx")
        x = np.clip(whole("z") * at("z_scale"), -255, 255)
        x = shuffle(rescale(pointwise(x, *p1)))
        x = rescale(pointwise(rescale(depthwise(x, *d2)), *p3))
        x = rescale(depthwise(shuffle(rescale(pointwise(x, *p4))), *d5))
        features = rescale(pointwise(x, *p6) + at("feature_bias"))
        x = rescale(depthwise(np.concatenate([whole("past_1"), whole("past_2")]), *d7), shift=2)
        hidden = rescale(pointwise(np.concatenate([features, x]), *p8))
        said = [features, hidden, rescale(pointwise(hidden, *p9) + at("index_bias_a"), top=63)]
        d1, p2, p3 = stored_integers(entry.folder / "scale_b.onnx")
        x = rescale(depthwise(whole("magnitude"), *d1), shift=2)
        x = rescale(pointwise(np.concatenate([features, hidden, x]), *p2))
        said.append(rescale(pointwise(x, *p3) + at("index_bias_b"), top=63))
        digest = hashlib.sha256(b"".join(x.astype(np.uint8).tobytes() for x in said))
        assert digest.digest() == arrays["test_sha256"].tobytes()

    def test_biases_are_named_by_their_graphs(self, stem):
        assert [bias_of(scale) for scale in scales(stem)] == ["index_bias_a", "index_bias_b"]


class TestTrainer:
    """`pixa train --model stem`."""

    @pytest.fixture
    def clips(self, coffee, tmp_path) -> Path:
        """Two clips, folders of numbered pictures, of a window that wanders."""
        for name, top in (("a", 0), ("b", 150)):
            (tmp_path / "clips" / name).mkdir(parents=True)
            for t in range(4):
                part = coffee[top + 3 * t :, 50 + 4 * t :][:240, :300]
                Image.fromarray(part).save(tmp_path / "clips" / name / f"{t}.png")
        return tmp_path / "clips"

    def run(self, clips: Path, folder: Path, out: Path, *words: str) -> int:
        data = ["--model", "stem", "--data", str(clips), "--out", str(out), "--crop", "64", "--held-out", "1"]
        data += ["--frames", "3", "--shown", "3", "--batch", "2", "--threads", "1"]
        return main([*data, "--intra", str(folder / "fast.test"), *words])

    def test_is_trained_resumed_calibrated_and_exported(self, clips, folder, tmp_path):
        out = tmp_path / "run"
        assert self.run(clips, folder, out, "--minutes", "0") == 0
        assert self.run(clips, folder, out, "--minutes", "0.01") == 0
        first, last = (json.loads(line) for line in (out / "log.jsonl").read_text().splitlines())
        assert first["step"] == 0 < last["step"]
        for line in (first, last):
            levels, bpp, moved, alone, psnr, psnr_alone = np.transpose(line["level_bpp_motion_intra_psnr"])
            assert levels.tolist() == [0, 50, 100, 150, 200]
            assert (moved > 0).all() and (moved <= bpp).all() and moved[-1] < bpp[-1]
            assert np.isfinite([*alone, *psnr, *psnr_alone, line["saving"]]).all()
        state = torch.load(out / "checkpoint.pt", weights_only=True)
        start = restore(folder / "fast.test").state_dict()
        assert all(torch.equal(state["model"][name], start[name]) for name in start if name.startswith(("g_a", "g_s")))

        command = [sys.executable, "-m", "pixa.models.export", str(out / "checkpoint.pt"), "7", "903"]
        command += ["--weights", str(folder), "--held-out", "1"]
        refused = subprocess.run(command, capture_output=True, text=True)
        assert refused.returncode == 2 and "--intra" in refused.stderr

    def test_goes_on_from_trained_weights(self, clips, folder, stem, tmp_path):
        assert self.run(clips, folder, tmp_path / "run", "--minutes", "0", "--start", str(folder / "stem.test")) == 0
        state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
        assert state["model_config"] == stem.config.as_dict()
        for name, value in stem.state_dict().items():
            torch.testing.assert_close(state["model"][name], value, rtol=2e-3, atol=2e-2, msg=name)

    def test_transforms_can_be_trained_too(self, clips, folder, tmp_path):
        assert self.run(clips, folder, tmp_path / "run", "--minutes", "0.01", "--transforms") == 0
        state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
        start = restore(folder / "fast.test").state_dict()
        assert not torch.equal(state["model"]["g_s.head.pointwise.weight"], start["g_s.head.pointwise.weight"])

    @pytest.mark.parametrize("priced", [False, True])
    def test_tables_are_fitted_to_groups(self, clips, folder, stem, priced):
        from pixa.datasets.clips import Clips
        from pixa.models.export.calibrate import calibrated_tables
        from pixa.models.training.stem_run import coded_groups, motion_symbols

        clips = Clips([clips], 3, 64)
        coded = list(coded_groups(stem, restore(folder / "fast.test"), clips, 0, 3, 3, 64, priced))
        outs = [out for out, _ in coded]
        assert len(outs) == 6 and all(out["symbols"].keys() == {"y", "z"} for out in outs)
        for out, found in coded:
            out["symbols"]["motion"], out["indexes"]["motion"] = motion_symbols(*found, stem)
        fitted = calibrated_tables(stem.tables, outs)
        fitted.check()
        cost = lambda tables: sum(
            tables.cost(out["symbols"][part].numpy(), out["indexes"][part].numpy().astype(int)).sum()
            for out in outs
            for part in out["symbols"]
        )
        assert cost(fitted) < cost(stem.tables)


def test_latents_of_a_picture_are_coded_without_a_past(photo, key):
    """What a frame that follows another may be told changes nothing for pictures."""
    encoder = ImageEncoder(Picture(photo[:48, :64]), "fast.test", jobs=1)
    coded = key.codec.encode(TileInput(encoder.y), LEVEL)
    y_hat, carry_over = coded.reconstruction
    assert carry_over is None and coded.motion is None
    tile = key.codec.decode(coded.payload, y_hat.shape, LEVEL)
    assert tile.motion is None and np.array_equal(tile.y, coded.y)
    np.testing.assert_array_equal(key.codec.reconstruct(tile).y_hat, y_hat)


def stored_integers(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """(weight, bias) of every convolution of an exact graph."""
    graph = onnx.load(path).graph
    arrays = [onnx.numpy_helper.to_array(c).astype(np.int64) for c in graph.initializer if c.dims]
    return list(zip(arrays[0::2], arrays[1::2], strict=True))
