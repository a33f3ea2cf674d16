"""The model `fast` in PyTorch: its start, its agreement with the files it writes, and the proof at export."""

from __future__ import annotations

import copy
import json
import math
import shutil

import numpy as np
import pytest
import torch
from torch import Tensor

from pixa import Decoder
from pixa.app.bench.agreement import agreement
from pixa.coding.latents import STRIDE
from pixa.image.picture import ImageEncoder
from pixa.models.export.driver import decode_macs, export, level_arrays, prove_exact
from pixa.models.export.restore import restore, stored
from pixa.models.nets.backbone import Backbone
from pixa.models.nets.exact import Exact
from pixa.models.nets.fast import PASSES, Fast, FastConfig
from pixa.models.nets.layers import ANCHOR_STEP, LEVELS, Block
from pixa.models.registry import ModelEntry, find_model
from pixa.models.training.evaluate import rd_loss
from pixa.pixels import Picture
from pixa.runtime.model import OnnxModel, open_model

SMALL = FastConfig(c=96, m=192, n=16, f=16, k=16, hidden=16, analysis_high=1, synthesis_high=1)


def as_tensor(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]."""
    return torch.tensor(picture).permute(2, 0, 1)[None] / 255


def bits(out: dict) -> float:
    """Bits that a model expects to spend."""
    return -sum(p.log2().sum().item() for p in out["likelihoods"].values())


def reach(changed: np.ndarray, row: int, column: int) -> int:
    """The largest distance, along rows or columns, of what changed from a place."""
    rows, columns = np.nonzero(changed)
    return int(max(np.abs(rows - row).max(), np.abs(columns - column).max()))


@pytest.fixture(scope="module")
def crops(chelsea) -> Tensor:
    """Sixteen crops of another picture than the one tested on."""
    corners = [(top, left) for top in range(0, 192, 48) for left in range(0, 320, 80)]
    return torch.cat([as_tensor(chelsea[top : top + 64, left : left + 64]) for top, left in corners])


@pytest.fixture
def started(crops) -> Fast:
    """A small model that starts as a transform codec."""
    torch.manual_seed(1)
    model = Fast(SMALL)
    model.start_from_dct(crops)
    return model.eval()


@pytest.fixture(scope="module")
def trained(crops) -> Fast:
    """The same after a little training, in numbers that the exporter stores without loss.

    Its scales are widened, so that hardly a symbol escapes its table: the likelihoods have a floor, escapes cost more.
    """
    torch.manual_seed(1)
    model = Fast(SMALL)
    model.start_from_dct(crops)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(40):
        loss, _, _ = rd_loss(model, crops, torch.randint(0, LEVELS, (len(crops),)))
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    for letter in PASSES:
        model.get_submodule(f"index_bias_{letter}").anchors.data += 1
    model.half().float()
    model.g_a[0].weight.data = (model.g_a[0].weight.data / 255).half().float() * 255
    return model.eval()


@pytest.fixture
def lively(trained) -> Fast:
    """The trained model, for tests that alter it."""
    return copy.deepcopy(trained)


def refused_layers(model: Backbone) -> set[str]:
    """The names of the exact layers, each of which makes the proof fail, by its name, once it leaves the range."""
    arrays = level_arrays(model)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Exact)}
    for name, layer in layers.items():
        kept = layer.bias.detach().clone()
        layer.bias.data[-1] = 2**24 / layer.bias_unit
        with pytest.raises(ValueError, match=name):
            prove_exact(model, arrays)
        layer.bias.data.copy_(kept)
    assert max(prove_exact(model, arrays).values()) < 2**24
    return set(layers)


class TestStart:
    @torch.no_grad()
    def test_untrained_model_is_a_transform_codec(self, started, photo):
        x = as_tensor(photo)
        out = started(x, torch.tensor([200]))
        assert -10 * math.log10((out["x_hat"] - x).square().mean()) > 32.5
        assert bits(out) / (256 * 320) < 3.5

    @torch.no_grad()
    def test_quality_costs_bits_from_the_start(self, started, photo):
        x = as_tensor(photo)
        outs = [started(x, torch.tensor([level])) for level in (0, 100, 200)]
        rates = [bits(out) for out in outs]
        errors = [float((out["x_hat"] - x).square().mean()) for out in outs]
        assert rates == sorted(rates)
        assert errors == sorted(errors, reverse=True)


class TestCompressai:
    """CompressAI's own parts, imported only once `pixa.models` has made them importable beside any build of torch."""

    def test_speaks_the_vocabulary(self, started, photo):
        from compressai.models import CompressionModel

        assert isinstance(started, CompressionModel)
        assert all(hasattr(started, name) for name in ("g_a", "g_s", "h_a", "h_s"))
        x = as_tensor(photo)
        out = started(x, torch.tensor([100]))
        assert out["x_hat"].shape == x.shape
        assert out["likelihoods"]["y"].shape == (1, SMALL.m, 16, 20)
        assert out["likelihoods"]["z"].shape == (1, SMALL.n, 4, 5)

    def test_its_loss_trains_the_model(self, started, photo):
        from compressai.losses import RateDistortionLoss

        x = as_tensor(photo)
        out = started.train()(x, torch.tensor([100]))
        loss = RateDistortionLoss(lmbda=0.01)(out, x)
        assert float(loss["bpp_loss"].detach()) == pytest.approx(bits(out) / (256 * 320), rel=1e-4)
        loss["loss"].backward()
        assert started.g_a[0].weight.grad.abs().max() > 0


class TestLevels:
    @torch.no_grad()
    def test_runs_at_every_level(self, lively, photo):
        level = torch.arange(LEVELS)
        out = lively(as_tensor(photo[:64, :64]).expand(LEVELS, -1, -1, -1), level)
        assert out["x_hat"].isfinite().all()
        for likelihood in out["likelihoods"].values():
            assert ((likelihood > 0) & (likelihood <= 1)).all()

    def test_gradient_reaches_every_parameter(self, lively, photo):
        level = torch.arange(0, LEVELS, ANCHOR_STEP)
        x = as_tensor(photo[:128, :128]).expand(len(level), -1, -1, -1)
        out = lively.train()(x, level)
        loss = 1000 * (out["x_hat"] - x).square().mean() - sum(p.log2().mean() for p in out["likelihoods"].values())
        loss.backward()
        without = [name for name, p in lively.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
        assert without == []


class TestExport:
    @pytest.fixture
    def exported(self, lively, tmp_path, monkeypatch, install_models) -> OnnxModel:
        """The lively model, written, read and put in the place of the shipped one."""
        written = export(lively, "test", 9, tmp_path)
        install_models(tmp_path)
        nets = open_model(ModelEntry(**written))
        monkeypatch.setattr("pixa.image.picture.find_model", lambda name, tune=None: nets.entry)
        monkeypatch.setattr("pixa.image.picture.load_model", lambda entry, jobs: nets)
        return nets

    @torch.no_grad()
    def test_the_file_is_what_forward_promises(self, lively, exported, photo):
        for level in (60, 120, 200):
            out = lively(as_tensor(photo), torch.tensor([level]))
            promised = out["x_hat"][0].permute(1, 2, 0).clamp(0, 1).mul(255).round().numpy()
            decoder = Decoder(ImageEncoder(Picture(photo)).encode(level)[0])
            decoder.nets = exported
            (tile,) = decoder.tiles
            assert len(tile) == pytest.approx(bits(out) / 8, rel=0.003, abs=8)
            # A latent on the edge of rounding may fall to either side.
            assert (np.abs(decoder.picture().samples - promised) > 1).mean() < 0.01

    @pytest.mark.parametrize("config", [SMALL, FastConfig()], ids=["small", "shipped"])
    def test_halos_are_as_wide_as_the_networks_reach(self, config, photo, tmp_path, install_models):
        torch.manual_seed(2)
        mixing = Fast(config)
        for layer in mixing.modules():
            if isinstance(layer, Block):
                torch.nn.init.normal_(layer.depthwise.weight, std=0.5)
                torch.nn.init.normal_(layer.project.weight, std=0.1)
        written = export(mixing.half().float(), "test", 9, tmp_path)
        install_models(tmp_path)
        nets = open_model(ModelEntry(**written), 1)

        altered = photo.copy()
        altered[8 * STRIDE : 9 * STRIDE, 10 * STRIDE : 11 * STRIDE] ^= 255
        y, y_altered = nets.analysis(photo), nets.analysis(altered)
        assert reach((y != y_altered).any(0), 8, 10) == nets.entry.analysis_halo

        y_altered = y.copy()
        y_altered[:, 8, 10] += 1e6
        changed = (nets.synthesis(y, 100) != nets.synthesis(y_altered, 100)).any(2)
        places = changed.reshape(y.shape[1], STRIDE, y.shape[2], STRIDE).any((1, 3))
        assert reach(places, 8, 10) == nets.entry.synthesis_halo

    def test_a_sum_past_the_exact_range_is_refused_by_layer(self, lively):
        assert {"h_s.up1", "scale_a.index", "scale_b.context"} < refused_layers(lively)

    def test_a_refused_model_leaves_no_files(self, lively, tmp_path):
        lively.scale_a.hidden.bias.data[0] = -(2**24)
        with pytest.raises(ValueError, match=r"scale_a\.hidden"):
            export(lively, "test", 9, tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_decoding_keeps_to_its_budget():
    assert decode_macs(Fast()) <= 12_000


class TestShipped:
    """The weights in the box, taken back to PyTorch."""

    @pytest.fixture
    def entry(self) -> ModelEntry:
        return find_model("fast")

    def test_restored_model_exports_the_same_files(self, entry, tmp_path):
        written = ModelEntry(**export(restore(entry.folder), entry.tag, entry.wire_id, tmp_path))
        for name in {*entry.decoder, *entry.encoder} - {"analysis.onnx", "tables.npz"}:
            assert (tmp_path / entry.folder.name / name).read_bytes() == (entry.folder / name).read_bytes()
        folders = tmp_path / entry.folder.name, entry.folder
        for one, other in zip(*(stored(folder / "analysis.onnx") for folder in folders), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)  # the scaling by 255 goes through float16
        again, shipped = (dict(np.load(folder / "tables.npz")) for folder in folders)
        assert again.keys() == shipped.keys()
        for name, array in shipped.items():
            if array.shape[0] == LEVELS:
                np.testing.assert_allclose(again[name][::ANCHOR_STEP], array[::ANCHOR_STEP], rtol=1e-5)
        assert written.decode_kmac_per_pixel == entry.decode_kmac_per_pixel

    def test_graphs_of_other_widths_are_refused(self, entry, tmp_path):
        folder = shutil.copytree(entry.folder, tmp_path / "other")
        record = json.loads((folder / "export.json").read_text())
        record["config"]["c"] = 96
        (folder / "export.json").write_text(json.dumps(record))
        with pytest.raises(ValueError, match="widths"):
            restore(folder)

    def test_files_keep_the_promise_of_forward(self, coffee, chelsea):
        excess = agreement([coffee, chelsea])
        assert abs(excess.pop(0)) < 0.006  # of two files of 1.5 KB the coder's last, half-filled words are 0.3%
        assert max(map(abs, excess.values())) < 0.003
