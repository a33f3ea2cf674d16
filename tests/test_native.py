"""The graphs and threads that only native decoders have: the same pictures as those of any other decoder."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import pixa
from pixa import Decoder
from pixa.errors import ModelMissing
from pixa.image.picture import ImageEncoder
from pixa.models.export import native
from pixa.models.export.driver import export
from pixa.models.export.fast_graphs import means, passes
from pixa.models.export.graph import FLOAT, Network, spatial
from pixa.models.export.integers import IntegerGraph, fits
from pixa.models.nets.exact import ExactPointwise
from pixa.models.nets.fast import Fast, FastConfig
from pixa.models.registry import ModelEntry, find_model, list_models
from pixa.pixels import Picture
from pixa.runtime.model import native_graphs, open_model

WIDTHS = {"c": 96, "m": 192, "n": 16, "f": 16, "k": 16, "hidden": 16, "low": 8, "low_k": 16, "low_hidden": 16}
SMALL = FastConfig(**WIDTHS, analysis_high=1, synthesis_low=2, synthesis_high=2, synthesis_hidden=0)


@pytest.fixture
def lively(photo) -> Fast:
    """A small model whose blocks all do something, but for the first of the synthesis, whose units never fire."""
    torch.manual_seed(3)
    model = Fast(SMALL)
    model.start_from_dct(torch.tensor(photo[:128, :128]).permute(2, 0, 1)[None] / 255)
    for block in (*model.g_s.low, *model.g_s.high):
        torch.nn.init.normal_(block.project.weight, std=0.02)
        torch.nn.init.normal_(block.project.bias, std=0.02)
    torch.nn.init.constant_(model.g_s.low[0].expand.bias, -1e4)
    return model.half().float().eval()


def synthesised(entry: ModelEntry, y_hat: np.ndarray, level: int) -> np.ndarray:
    return open_model(entry, 1).synthesis(y_hat, level).astype(int)


@pytest.mark.parametrize("entry", [e for e in list_models() if e.native], ids=lambda e: f"{e.name}.{e.tag}")
@pytest.mark.parametrize("level", [0, 110, 200])
def test_native_synthesis_shows_the_same_picture(entry, model, photo, level):
    y_hat = ImageEncoder(Picture(photo[:83, :117])).encode(level)[1]
    expected = synthesised(replace(entry, native=()), y_hat, level)
    assert np.ptp(expected) > 100
    assert np.abs(synthesised(entry, y_hat, level) - expected).max() <= 1


@pytest.mark.parametrize("deviation", [0.01, 0.3, 1, 1e5])
def test_latents_of_no_picture_are_shown_the_same(model, deviation):
    rng = np.random.default_rng(4)
    y_hat = rng.normal(0, deviation, (model.channels, 3, 4)).astype(np.float32)
    expected = synthesised(replace(model.entry, native=()), y_hat, 200)
    assert np.abs(synthesised(model.entry, y_hat, 200) - expected).max() <= 1


def test_noise_is_shown_the_same(model):
    noise = 255 * np.random.default_rng(5).integers(0, 2, (64, 80, 1), np.uint8).repeat(3, 2)
    y_hat = ImageEncoder(Picture(noise)).encode(200)[1]
    expected = synthesised(replace(model.entry, native=()), y_hat, 200)
    assert np.abs(synthesised(model.entry, y_hat, 200) - expected).max() <= 1


class TestExport:
    def test_blocks_that_never_fire_are_found(self, lively):
        assert native.find_dead_blocks(lively).blocks == {lively.g_s.low[0]}

    def test_a_silent_block_is_left_out_and_missed_by_nobody(self, lively, photo, tmp_path, monkeypatch):
        monkeypatch.setattr("pixa.models.registry.weights_folder", lambda: tmp_path)
        entry = ModelEntry(**export(lively, "test", 9, tmp_path))
        whole = (entry.folder / "synthesis.onnx").read_bytes()
        assert (
            len(whole) - len(native_graphs(entry)["synthesis"]) > 2 * 192 * 384
        )  # two matrices, two bytes a number, less what the new form adds
        y = open_model(entry, 1).analysis(photo)
        for level in (0, 200):
            expected = synthesised(replace(entry, native=()), y, level)
            assert np.abs(synthesised(entry, y, level) - expected).max() <= 1

    def test_another_file_than_the_manifest_names_is_refused(self, tmp_path, monkeypatch):
        entry = find_model("fast")
        shutil.copytree(entry.folder, tmp_path / entry.folder.name)
        monkeypatch.setattr("pixa.models.registry.weights_folder", lambda: tmp_path)
        path: Path = entry.folder / "native.npz"
        content = path.read_bytes()
        for place in range(0, len(content), len(content) // 40):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            try:
                open_model(entry, 1)
            except ModelMissing as error:
                assert "altered" in str(error)
        path.write_bytes(content[:-1])
        with pytest.raises(ModelMissing, match="altered"):
            open_model(entry)
        path.unlink()
        with pytest.raises(ModelMissing, match=r"native\.npz is missing"):
            open_model(entry)


def pointwise(*weights: int) -> ExactPointwise:
    """An exact layer of one output, its weights in units of 1/64."""
    layer = ExactPointwise(len(weights), 1)
    layer.weight.data = torch.tensor([weights]) / 64
    return layer


class TestIntegers:
    """Scale networks in bytes."""

    def test_every_sum_is_rounded_as_in_floats(self):
        g = IntegerGraph("layer", {"x": spatial(2)}, set())
        session = ort.InferenceSession(g.finish({"y": (g.layer(pointwise(1, 63), "x"), FLOAT)}))
        x = np.stack(np.mgrid[:256, :256])[None].astype(np.float32)
        sums = x[:, :1] + 63 * x[:, 1:]
        assert (sums % 64 == 32).sum() > 1000
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], np.floor(sums / 64 + 0.5).clip(0, 255))

    @pytest.mark.parametrize(
        ("weights", "expected"),
        [((64, 64), True), ((127, -127), True), ((1, 127, 1), True), ((65, 64), False), ((0, 0, -3, -126), False)],
    )
    def test_products_that_could_saturate_are_left_to_floats(self, weights, expected):
        assert fits(Network("scale", {}, {}, [pointwise(*weights)], None, None)) == expected

    def test_integers_that_are_wrong_are_found_out_and_not_used(self, photo, monkeypatch):
        entry, data = find_model("fast"), pixa.encode(photo)
        graphs = native_graphs(entry)
        altered = onnx.load_from_string(graphs["scale_d"])
        weights = max(altered.graph.initializer, key=lambda c: len(c.raw_data))
        weights.raw_data = bytes(64 - b & 0xFF for b in weights.raw_data)
        graphs["scale_d"] = altered.SerializeToString()
        monkeypatch.setattr("pixa.runtime.model.native_graphs", lambda entry: graphs)
        nets = open_model(entry, 1)
        assert not nets.native
        decoder = Decoder(data)
        decoder.nets = nets
        assert decoder.symbols_sha256() == Decoder(data).symbols_sha256()


class TestPhases:
    """Means computed only where their pass codes."""

    @pytest.mark.parametrize("shape", [(1, 1), (1, 6), (8, 6), (7, 9)])
    def test_latents_are_those_of_whole_mean_networks(self, model, photo, shape):
        rows, columns = (16 * side for side in shape)
        data = pixa.encode(photo[:rows, :columns], quality=90)
        (tile,) = Decoder(data).tiles
        nets = model, open_model(replace(model.entry, native=()), 1)
        assert "mean_d" in model.entry.native
        ours, plain = (
            net.codec.reconstruct(net.codec.decode(tile, (model.channels, *shape), 180)).y_hat for net in nets
        )
        assert np.abs(plain).max() > 1
        np.testing.assert_allclose(ours, plain, atol=1e-5)

    def test_only_large_networks_of_checkerboards_are_split(self, lively):
        assert native.in_phases(*self.last_pass(lively)) is None
        whole = np.ones((SMALL.m, 4), bool)
        network, pattern = self.last_pass(Fast(replace(SMALL, k=128)))
        assert native.in_phases(network, whole) is None
        assert native.in_phases(network, pattern) is not None

    def last_pass(self, model: Fast) -> tuple[Network, np.ndarray]:
        return means(model)[-1], passes(model)[-1]


class TestAhead:
    """Means computed while the next symbols are being decoded."""

    def test_latents_are_the_same_to_the_last_bit(self, model, photo):
        data, y_hat = ImageEncoder(Picture(photo), jobs=1).encode(120)
        (tile,), codec = Decoder(data).tiles, model.codec
        with ThreadPoolExecutor(1) as pool:
            ahead = codec.decode(tile, y_hat.shape, 120, pool=pool)
            alone = codec.decode(tile, y_hat.shape, 120)
            assert ahead.integers() == alone.integers()
            np.testing.assert_array_equal(codec.reconstruct(ahead).y_hat, codec.reconstruct(alone).y_hat)
            np.testing.assert_array_equal(codec.reconstruct(alone).y_hat, y_hat)

    def test_one_thread_and_many_decode_the_same_picture(self, coffee):
        data = pixa.encode(coffee[:130, :1100], quality=40)
        one, two = (Decoder(data, jobs=jobs).picture().samples.astype(int) for jobs in (1, 2))
        assert np.abs(one - two).max() <= 1

    def test_a_mean_that_fails_is_not_swallowed(self, model, photo, monkeypatch):
        data, y_hat = ImageEncoder(Picture(photo[:64, :64]), jobs=1).encode(120)

        def fail(p: int, memory: dict, single_thread: bool) -> None:
            raise MemoryError("no memory for means")

        monkeypatch.setattr(model, "mean", fail)
        with ThreadPoolExecutor(1) as pool, pytest.raises(MemoryError, match="no memory for means"):
            model.codec.reconstruct(model.codec.decode(Decoder(data).tiles[0], y_hat.shape, 120, pool=pool))
