"""The model `mlic`: its growth from `fast`, its contexts, its agreement with the files it writes, exact symbols."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import pixa
from pixa import Decoder
from pixa.coding.latents import CONTEXT_MAX, Z_MAX
from pixa.image.picture import ImageEncoder
from pixa.models.export.driver import decode_macs, export
from pixa.models.export.restore import restore
from pixa.models.nets.fast import Fast, FastConfig
from pixa.models.nets.layers import ANCHOR_STEP, LEVELS, Block
from pixa.models.nets.mlic import CONTEXTS, Mlic, MlicConfig, pass_mask
from pixa.models.registry import ModelEntry, find_model
from pixa.models.training.init_from import init_from
from pixa.models.training.program import main
from pixa.pixels import Picture
from pixa.runtime.model import OnnxModel, open_model
from tests.support.torch_backend import TorchModel
from tests.test_exactness import RUNTIMES, decoded, derived_bounds, walked
from tests.test_format_doc import PlainModel, file_symbols, table
from tests.test_model import refused_layers

WIDTHS = {"c": 16, "m": 16, "n": 8, "f": 16, "k": 16, "hidden": 16, "analysis_high": 1, "analysis_low": 1,
          "synthesis_low": 1, "synthesis_high": 1}  # fmt: skip
SMALL = MlicConfig(**WIDTHS, slices=(2, 4, 4, 6), low_k=8, low_hidden=8, attention=8, heads=2)


@torch.no_grad()
def stir(model: nn.Module) -> nn.Module:
    """Let everything that starts without effect have one, in numbers that the exporter stores without loss."""
    for name, p in model.named_parameters():
        if p.ndim == 2 and not p.any():
            nn.init.normal_(p, std=0.5 * p.shape[1] ** -0.5)
        if name.endswith("position"):
            nn.init.normal_(p)
        if name.startswith("index_bias"):
            p += 1.5
        if name.startswith("log_z_gain"):
            p += 3
    model.half().float()
    model.g_a[0].weight.copy_((model.g_a[0].weight / 255).half().float() * 255)
    return model.eval()


def lively(config: MlicConfig = SMALL) -> Mlic:
    torch.manual_seed(3)
    return stir(Mlic(config))


def as_tensor(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]."""
    return torch.tensor(picture).permute(2, 0, 1)[None] / 255


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A folder with one exported model."""
    folder = tmp_path_factory.mktemp("weights")
    export(lively(), "test", 900, folder)
    return folder


@pytest.fixture
def weights(exported, install_models) -> Path:
    install_models(exported)
    return exported


@pytest.fixture
def entry(weights) -> ModelEntry:
    return find_model("mlic")


@pytest.fixture
def nets(entry) -> OnnxModel:
    return open_model(entry, 1)


class TestModel:
    def test_gradient_reaches_every_parameter(self, photo):
        model = lively().train()
        level = torch.arange(0, LEVELS, ANCHOR_STEP)
        x = as_tensor(photo[:64, :128]).expand(len(level), -1, -1, -1)
        out = model(x, level)
        rate = sum(p.log2().mean() for p in out["likelihoods"].values())
        (1000 * (out["x_hat"] - x).square().mean() - rate).backward()
        without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
        assert without == []

    @torch.no_grad()
    @pytest.mark.parametrize("p", range(8))
    def test_a_symbol_changes_later_passes_alone(self, p):
        model, level = lively(), torch.tensor([100])
        gain = model.log_gain(level).exp()
        y, z = torch.randn(1, SMALL.m, 7, 6), torch.randn(1, SMALL.n, 2, 2)
        masks = [torch.zeros(SMALL.m, 7, 6, dtype=torch.bool) for _ in SMALL.passes]
        for mask, q in zip(masks, SMALL.passes, strict=True):
            mask[SMALL.channels[q.part]] = pass_mask(q, 7, 6, SMALL)
        assert torch.equal(sum(mask.int() for mask in masks), torch.ones(SMALL.m, 7, 6, dtype=torch.int))
        one = model.code(y, z, level)
        coded = (masks[p] & (one.index[0] > 0)).nonzero()
        channel, row, column = min(coded.tolist(), key=lambda place: abs(place[1] - 3) + abs(place[2] - 3))
        altered = y.clone()
        altered[:, channel, row, column] += 5
        other = model.code(altered, z, level)
        means = [latents - coded.residual / gain for latents, coded in ((y, one), (altered, other))]
        changed = ((one.index != other.index) | ((means[0] - means[1]).abs() > 1e-4))[0]
        for q, mask in enumerate(masks):
            touched = changed[mask].any()
            assert touched if q == p + 1 else not touched or q > p

    @pytest.mark.parametrize("slices", [(4, 4), (16,)])
    def test_slices_must_add_up(self, slices):
        with pytest.raises(ValueError, match="add up"):
            replace(SMALL, slices=slices)

    def test_decoding_keeps_to_its_budget(self):
        assert decode_macs(Mlic()) <= 120_000

    def test_latents_are_searched_with_gradients(self, photo, weights, monkeypatch):
        monkeypatch.setattr("pixa.image.picture.SEARCH_STEPS", {7: 2})
        code = partial(pixa.encode, photo[:64, :48], model="mlic", floor=False)
        rounded, searched = code(effort=0), code(effort=7)
        assert searched != rounded
        assert pixa.decode(searched).shape == (64, 48, 3)


class TestGrowth:
    @pytest.fixture
    def fast(self) -> Fast:
        torch.manual_seed(4)
        return stir(Fast(FastConfig(**WIDTHS, synthesis_hidden=24, low=2, low_k=8, low_hidden=8)))

    @pytest.mark.parametrize("without", [{}, {"channel": False, "inter": False}, {"local": False}], ids=str)
    @torch.no_grad()
    def test_begins_as_fast(self, fast, photo, without):
        x = as_tensor(photo[:128, :128])
        model = Mlic(replace(SMALL, analysis_high=3, analysis_low=2, synthesis_low=3, synthesis_high=2, **without))
        init_from(fast, model, x)
        for level in (100, 200):
            expected, got = (m.eval()(x, torch.tensor([level])) for m in (fast, model))
            assert expected["symbols"]["y"].abs().mean() > 0.05
            rates = [-sum(p.log2().sum() for p in out["likelihoods"].values()) for out in (expected, got)]
            if without:
                assert 0.5 * rates[0] < rates[1] != rates[0]
            else:
                torch.testing.assert_close(rates[1], rates[0], rtol=1e-3, atol=0)
                assert (got["x_hat"] - expected["x_hat"]).abs().mean() < 1e-3

    @torch.no_grad()
    def test_slices_hold_channels_by_their_magnitude(self, fast, photo):
        x = as_tensor(photo[:128, :128])
        model = Mlic(SMALL)
        init_from(fast, model, x)
        magnitude = model.eval()(x, torch.tensor([LEVELS // 2]))["symbols"]["y"].abs().mean((0, 2, 3))
        second, third = (magnitude[channels].view(2, -1) for channels in SMALL.channels[1:3])
        assert (second.min(1).values >= third.max(1).values).all()

    def test_other_widths_are_refused(self, fast, photo):
        x = as_tensor(photo[:64, :64])
        with pytest.raises(ValueError, match="k 24 cannot grow from one with 16"):
            init_from(fast, Mlic(replace(SMALL, k=24)), x)
        with pytest.raises(ValueError, match="synthesis_low 0 cannot grow from one with 1"):
            init_from(fast, Mlic(replace(SMALL, synthesis_low=0)), x)
        with pytest.raises(ValueError, match="first slice has 4 channels cannot grow from 2"):
            init_from(fast, Mlic(replace(SMALL, slices=(4, 4, 8))), x)


class TestTrainer:
    """`pixa train --model mlic`, with weights of the default widths."""

    def run(self, photo, out: Path, *words: str) -> int:
        (out / "data").mkdir(exist_ok=True)
        for name, part in (("a", photo[:128, :128]), ("b", photo[64:160, 100:200])):
            Image.fromarray(part).save(out / "data" / f"{name}.png")
        data = ["--data", str(out / "data"), "--out", str(out / "run"), "--crop", "64", "--held-out", "1"]
        return main([*data, "--batch", "1", "--threads", "1", "--model", "mlic", *words])

    def test_grows_from_fast_is_trained_exported_and_restored(self, photo, tmp_path):
        assert self.run(photo, tmp_path, "--minutes", "0", "--start", str(find_model("fast.2").folder)) == 0
        line = json.loads((tmp_path / "run" / "log.jsonl").read_text())
        assert line["step"] == 0
        assert min(psnr for _, _, psnr in line["level_bpp_psnr"]) > 20
        assert self.run(photo, tmp_path, "--minutes", "0.01") == 0
        state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
        assert state["step"] > 0
        assert state["config"]["model"] == "mlic"

        command = [sys.executable, "-m", "pixa.models.export", str(tmp_path / "run" / "checkpoint.pt"), "7", "901"]
        subprocess.run([*command, "--weights", str(tmp_path)], check=True, capture_output=True)
        restored = restore(tmp_path / "mlic.7").state_dict()
        for name, value in state["ema"].items():
            # float16, integers of 1/64, and level vectors of integers
            torch.testing.assert_close(restored[name], value, rtol=2e-3, atol=0.04 if "scale" in name else 2e-3)

    def test_leaves_contexts_out(self, photo, tmp_path):
        assert self.run(photo, tmp_path, "--minutes", "0", "--without", "local", "inter") == 0
        state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
        assert [kind for kind in CONTEXTS if not state["model_config"][kind]] == ["local", "inter"]
        assert not any(".local." in name or ".inter." in name for name in state["model"])

    def test_fast_has_no_context_to_leave_out(self, photo, tmp_path, capsys):
        assert self.run(photo, tmp_path, "--model", "fast", "--without", "local") == 1
        assert "fast has no context to leave out" in capsys.readouterr().err


class TestExport:
    @torch.no_grad()
    def test_the_file_holds_the_symbols_of_forward(self, photo, nets):
        picture = photo[:128, :192]
        for level in (60, 120, 200):
            promised = lively()(as_tensor(picture), torch.tensor([level]))
            decoder = Decoder(ImageEncoder(Picture(picture), "mlic", jobs=1).encode(level)[0])
            (payload,) = decoder.tiles
            tile = nets.codec.decode(payload, (nets.channels, 8, 12), level)
            assert np.abs(tile.y).mean() > 0.1
            # A latent on the edge of rounding may fall to either side, and change what comes after it.
            assert (tile.y != promised["symbols"]["y"].numpy()[0]).mean() < 0.01
            assert (tile.z != promised["symbols"]["z"].numpy()).mean() < 0.01
            samples = promised["x_hat"][0].permute(1, 2, 0).clamp(0, 1).mul(255).round().numpy()
            assert (np.abs(decoder.picture().samples - samples) > 1).mean() < 0.01

    def test_restored_model_exports_the_same_files(self, entry, tmp_path):
        export(restore(entry.folder), entry.tag, entry.wire_id, tmp_path)
        names = {*entry.decoder, *entry.encoder} - {"analysis.onnx", "tables.npz"}
        assert len(names) == 18
        for name in names:
            assert (tmp_path / entry.folder.name / name).read_bytes() == (entry.folder / name).read_bytes()

    @pytest.mark.parametrize("size", [(1, 1), (37, 53), (64, 64), (260, 275)])
    def test_pictures_of_any_size_come_back(self, chelsea, weights, nets, monkeypatch, size):
        monkeypatch.setattr("pixa.coding.latents.TILE_LOG2", 8)
        picture = np.ascontiguousarray(chelsea[: size[0], : size[1]])
        data, y_hat = ImageEncoder(Picture(picture), "mlic", jobs=1).encode(120)
        decoder = Decoder(data)
        assert len(decoder.tiles) == (4 if size[0] > 256 else 1)
        samples = decoder.picture().samples
        assert samples.shape == picture.shape
        shown = nets.synthesis(y_hat, 120)[: size[0], : size[1]]
        assert np.abs(samples.astype(int) - shown).max() <= 1

    def test_windows_leave_no_seam(self, photo, weights, monkeypatch):
        whole = pixa.encode(photo, 80, model="mlic", floor=False)
        samples = pixa.decode(whole).astype(int)
        monkeypatch.setattr("pixa.image.picture.WINDOW", 7)
        assert np.abs(pixa.decode(whole) - samples).max() <= 1
        _, y_hat = ImageEncoder(Picture(photo), "mlic").encode(160)
        monkeypatch.setattr("pixa.image.picture.WINDOW", 128)
        _, expected = ImageEncoder(Picture(photo), "mlic").encode(160)
        assert (np.abs(y_hat - expected) > 1e-3).mean() < 0.01

    def test_command_line_needs_no_torch(self, photo, weights, tmp_path):
        Image.fromarray(photo[:48, :64]).save(tmp_path / "photo.png")
        script = f"""
import sys
from pathlib import Path
import pixa.models.registry as registry
registry.weights_folder = lambda: Path({str(weights)!r})
from pixa.cli import main
assert main(["encode", "photo.png", "-o", "photo.pixa", "-m", "mlic", "--no-floor"]) == 0
assert main(["decode", "photo.pixa", "-o", "back.png"]) == 0
assert "torch" not in sys.modules and "onnx" not in sys.modules
"""
        result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert pixa.info((tmp_path / "photo.pixa").read_bytes())["model"].startswith("mlic")
        assert (tmp_path / "back.png").stat().st_size > 0

    def test_halos_are_as_wide_as_the_networks_reach(self, photo, install_models, tmp_path):
        torch.manual_seed(5)
        mixing = Mlic(replace(SMALL, analysis_high=4, analysis_low=2, synthesis_low=3, synthesis_high=3))
        for layer in mixing.modules():
            if isinstance(layer, Block):
                nn.init.normal_(layer.depthwise.weight, std=0.5)
                nn.init.normal_(layer.project.weight, std=0.2)
        written = export(mixing, "test", 9, tmp_path)
        install_models(tmp_path)
        nets = open_model(ModelEntry(**written), 1)
        altered = photo.copy()
        altered[128:144, 160:176] ^= 255
        rows, columns = np.nonzero((nets.analysis(photo) != nets.analysis(altered)).any(0))
        assert max(np.abs(rows - 8).max(), np.abs(columns - 10).max()) == nets.entry.analysis_halo == 4

    @pytest.mark.parametrize("kind", CONTEXTS)
    def test_every_context_can_be_left_out(self, photo, weights, install_models, tmp_path, kind):
        full, lesser = lively(), Mlic(replace(SMALL, **{kind: False}))
        missing = full.state_dict().keys() - lesser.state_dict().keys()
        assert missing
        assert all((".gate." if kind == "reweight" else f".{kind}.") in name for name in missing)
        with_it = pixa.encode(photo[:64, :80], 100, model="mlic", floor=False)

        lesser.load_state_dict(full.state_dict(), strict=False)
        export(lesser, kind, 950, tmp_path)
        install_models(tmp_path)
        without, y_hat = ImageEncoder(Picture(photo[:64, :80]), f"mlic.{kind}").encode(200)
        assert Decoder(without).tiles != Decoder(with_it).tiles
        nets = open_model(find_model("mlic"), 1)
        assert np.abs(pixa.decode(without).astype(int) - nets.synthesis(y_hat, 200)).max() <= 1


@pytest.fixture
def files(photo, weights) -> list[bytes]:
    """A photograph of odd sides at several qualities."""
    return [pixa.encode(photo[:117, :133], quality, model="mlic", floor=False) for quality in (0, 50, 100)]


class TestExactness:
    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_symbols_are_equal_and_pixels_within_one_level(self, files, entry, nets, runtime):
        other, hashes = RUNTIMES[runtime](entry), set()
        for data in files:
            (symbols, samples), (expected_symbols, expected) = decoded(data, other), decoded(data, nets)
            assert symbols == expected_symbols
            assert np.abs(samples - expected).max() <= 1
            hashes.add(symbols)
        assert len(hashes) == len(files)

    @pytest.mark.parametrize("level", [0, 200])
    def test_onnxruntime_decodes_what_torch_coded(self, photo, entry, nets, monkeypatch, level):
        torch_nets = TorchModel(entry)
        monkeypatch.setattr("pixa.image.picture.load_model", lambda entry, jobs: torch_nets)
        data, _ = ImageEncoder(Picture(photo[:96, :128]), "mlic").encode(level)
        assert decoded(data, torch_nets)[0] == decoded(data, nets)[0]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64], ids=str)
    @pytest.mark.parametrize("level", [0, 200])
    def test_exact_networks_give_the_same_integers(self, entry, nets, dtype, level):
        rng = np.random.default_rng(7)
        z = rng.choice([-Z_MAX, 0, Z_MAX], (1, SMALL.n, 5, 6)).astype(np.float32)
        magnitude = rng.choice([0, 1, CONTEXT_MAX], (1, SMALL.m, 20, 24)).astype(np.float32)
        first, second = (walked(runtime, z, magnitude, level) for runtime in (nets, TorchModel(entry, dtype)))
        assert first.keys() == second.keys() > {"features", "seen_c", "seen_g", "index 0", "index 7"}
        assert all(np.ptp(first[name]) > 10 for name in first)
        assert all(np.array_equal(first[name], second[name]) for name in first)

    def test_bounds_are_those_of_the_files(self, entry):
        recorded = json.loads((entry.folder / "export.json").read_text())["bounds"]
        assert sorted(derived_bounds(entry)) == sorted(recorded.values())
        assert max(recorded.values()) < 2**24

    def test_a_sum_past_the_exact_range_is_refused_by_layer(self):
        assert {"scale_a.index", "scale_b.context", "scale_h.hidden"} < refused_layers(lively())


class TestFormat:
    """FORMAT.md, sections 4.3 and 6.7."""

    def test_graphs_are_described(self, nets):
        """FORMAT.md writes U for the channels of the first slice, and so on."""
        c, shape = SMALL, r"(\w+) \(1, ([\w+]+), \w+, \w+\)( uint8)?"
        widths = dict(zip("NFUVWXLKMC", (c.n, c.f, *c.slices, c.low_k, c.k, c.m, c.c), strict=True))
        widths |= {"V+W+X": c.m - c.slices[0]}
        rows = {name: sides for name, *sides in table("graph of `mlic` | inputs | outputs")}
        assert {f"{name}.onnx" for name in rows} == {*nets.entry.decoder} - {"tables.npz"}
        for name, row in rows.items():
            session = nets.session(name)
            for side, values in zip(row, (session.get_inputs(), session.get_outputs()), strict=True):
                described = re.findall(shape, side)
                assert [value.name for value in values] == [found for found, _, _ in described]
                assert [value.type == "tensor(uint8)" for value in values] == [bool(kind) for _, _, kind in described]
            for value, (_, width, _) in zip(session.get_inputs(), re.findall(shape, row[0]), strict=True):
                assert value.shape[1] == widths[width]

    def test_second_decoder_passes_the_self_test(self, entry):
        assert PlainModel(entry).self_test()

    def test_second_decoder_gives_the_symbols(self, files):
        for data in files:
            assert file_symbols(data) == Decoder(data).symbols_sha256()
