"""The model `vqgan`: its quantiser, its entropy model, its files, exact tokens, lost tiles, training."""

from __future__ import annotations

import json
import math
import re
import struct
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import pixa
from pixa import Decoder
from pixa.app import crops, token_costs
from pixa.backends import TokenModel
from pixa.bitstream import categorical
from pixa.bitstream.container import Chunk, ChunkType, read_file, write_file
from pixa.bitstream.tables import TOTAL
from pixa.conceal import fill
from pixa.errors import Corrupt, ModelMissing, UsageError
from pixa.image import Analysed
from pixa.models.layers import Block
from pixa.models.perceptual import NAMES, STAGES, load_vgg
from pixa.models.quantizer import Codebook, nearest
from pixa.models.registry import ModelEntry, find_model, list_models
from pixa.models.train import main
from pixa.models.vqgan import NESTED, Vqgan, VqganConfig
from pixa.models.vqgan_export import decode_macs, export, layer_names, load
from pixa.pixels import Picture
from tests.test_format_doc import shuffle, table
from tests.torch_backend import TorchModel

SMALL = VqganConfig(c=16, d=6, groups=8, analysis=1, analysis_low=1, low=1, high=1, quarter=1, embedding=6,
                    features=12, hidden=16)  # fmt: skip


class TorchTokens(TorchModel, TokenModel):
    """Graphs in PyTorch."""


class WideTokens(TokenModel):
    """The entropy model in 64-bit integers."""

    integers = np.int64


RUNTIMES = {
    "onnxruntime, 2 threads": lambda entry: TokenModel(entry, 2),
    "onnxruntime, as written": lambda entry: TokenModel(entry, 1, False),
    "integers": lambda entry: WideTokens(entry, 1),
    "torch": TorchTokens,
}


def as_tensor(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]."""
    return torch.tensor(picture).permute(2, 0, 1)[None] / 255


@torch.no_grad()
def settled(photo: np.ndarray, config: VqganConfig = SMALL) -> Vqgan:
    """A model whose random weights all have an effect, with the codes of a photograph."""
    torch.manual_seed(3)
    model = Vqgan(config).eval()
    for p in model.parameters():
        if p.ndim == 2 and not p.any():
            nn.init.normal_(p, std=0.5 * p.shape[1] ** -0.5)
    nn.init.normal_(model.prior.map_logits)
    for part in (model.g_a, model.g_s):
        part.half().float()
    model.g_a[0].weight.copy_((model.g_a[0].weight / 255).half().float() * 255)
    x = as_tensor(photo)
    model.pyramid.start(model.analyse(x))
    for codebook in model.pyramid.codebooks:
        codebook.regroup(codebook.order(3))
    model.settled = True
    model.prior.start(model.pyramid.codebooks)
    model.calibrate([x])
    return model


@pytest.fixture(scope="module")
def trained(photo) -> Vqgan:
    return settled(photo)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Path:
    """A folder with one exported model."""
    folder = tmp_path_factory.mktemp("weights")
    export(trained, "test", 900, folder)
    return folder


@pytest.fixture
def installed(monkeypatch) -> Iterator[Callable[[Path], None]]:
    """Puts the models of a folder in the place of the shipped ones."""

    def install(folder: Path) -> None:
        monkeypatch.setattr("pixa.models.registry.weights_folder", lambda: folder)
        list_models.cache_clear()

    yield install
    list_models.cache_clear()


@pytest.fixture
def weights(exported, installed) -> Path:
    installed(exported)
    return exported


@pytest.fixture
def entry(weights) -> ModelEntry:
    return find_model("vqgan")


@pytest.fixture
def nets(entry) -> TokenModel:
    return TokenModel(entry, 1)


@pytest.fixture
def files(coffee, weights) -> list[bytes]:
    """A photograph of odd sides in several tiles at several qualities, nested tokens among them."""
    return [pixa.encode(coffee[:301, :523], quality, model="vqgan") for quality in (2, 30, 70, 100)]


def decoded(data: bytes, nets: TokenModel) -> tuple[str, np.ndarray]:
    decoder = Decoder(data)
    decoder.nets = nets
    return decoder.symbols_sha256(), decoder.picture().samples.astype(int)


class TestCodebook:
    def test_follows_its_data_and_stays_alive(self):
        torch.manual_seed(1)
        codebook, places = Codebook(4, 2), 10 + torch.randn(40, 2)
        used = torch.ones(8, 8, 8, dtype=torch.bool)
        for _ in range(60):
            z = places[torch.randint(40, (8, 8, 8))].permute(0, 3, 1, 2)
            codebook.follow(z, codebook(z)[1], used)
        index = nearest(places, codebook.codes)
        assert len(index.unique()) == len(codebook)
        assert (places - codebook.codes[index]).square().mean() < 0.2 * places.var()

    def test_what_is_not_used_moves_nothing(self):
        torch.manual_seed(1)
        codebook = Codebook(4, 2)
        codes, z = codebook.codes.clone(), torch.randn(1, 2, 4, 4)
        codebook.follow(z, codebook(z)[1], torch.zeros(1, 4, 4, dtype=torch.bool))
        torch.testing.assert_close(codebook.codes, codes)

    def test_groups_are_neighbours_of_equal_number(self):
        torch.manual_seed(1)
        codebook = Codebook(4, 3)
        clusters = torch.eye(4, 3) * 9
        codebook.codes.copy_((clusters[:, None] + 0.1 * torch.randn(4, 4, 3)).view(16, 3)[torch.randperm(16)])
        codebook.count.fill_(1)
        codebook.regroup(codebook.order())
        inside = codebook.codes.view(4, 4, 3).var(1).mean()
        assert inside < 0.1
        assert {tuple(row) for row in codebook.centroids.round().tolist()} == {tuple(row) for row in clusters.tolist()}

    def test_nested_tokens_stand_for_centroids(self):
        codebook, z = Codebook(4, 3), torch.randn(2, 3, 5, 5)
        chosen, index = codebook(z, torch.tensor([True, False]))
        assert index[0].max() < 4
        torch.testing.assert_close(chosen[0].permute(1, 2, 0), codebook.centroids[index[0]])
        torch.testing.assert_close(chosen[1].permute(1, 2, 0), codebook.codes[index[1]])


class TestModel:
    def test_gradient_reaches_every_parameter(self, photo):
        model = settled(photo).train()
        model.settled = False
        level = torch.tensor([50, 200])
        out = model(as_tensor(photo[:128, :128]).expand(2, -1, -1, -1), level)
        bits = model.bits(out["tokens"], level)
        (out["x_hat"].square().mean() + out["tokens"].error + sum(b.mean() for b in bits.values())).backward()
        nested = {name for name, _ in model.named_parameters() if "group_embedding" in name}
        without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
        assert without == nested

    @torch.no_grad()
    def test_levels_spread_the_rate(self, trained, photo):
        x = as_tensor(photo)
        bits = []
        for level in (0, 30, 60, 100, 150, 200):
            tokens = trained(x, torch.tensor([level]))["tokens"]
            count = sum(u.sum().item() for u in tokens.used)
            bits.append(count * (1 if level < NESTED else 2))
        assert bits == sorted(bits)
        regions = tokens.stop.numel()
        assert bits[0] < 1.5 * regions < 35 * regions < bits[-1]

    @torch.no_grad()
    def test_begins_as_a_transform_codec(self, photo):
        torch.manual_seed(1)
        model, x = Vqgan(VqganConfig(c=96, groups=8)).eval(), as_tensor(photo)
        model.start_from_dct(x)
        model.calibrate([x])
        errors = [(model(x, torch.tensor([level]))["x_hat"] - x).square().mean().item() for level in (40, 120, 200)]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.1 * x.var()

    @torch.no_grad()
    def test_coarse_tokens_do_not_depend_on_the_map(self, trained, photo):
        few, many = (trained(as_tensor(photo), torch.tensor([level]))["tokens"] for level in (60, 200))
        assert torch.equal(few.index[0], many.index[0])
        assert (few.stop <= many.stop).all()

    @torch.no_grad()
    def test_a_token_changes_only_what_is_coded_later(self, trained, photo):
        tokens = trained(as_tensor(photo), torch.tensor([200]))["tokens"]
        used, stop = [torch.ones_like(u) for u in tokens.used], torch.full_like(tokens.stop, 2)
        passes = lambda index: list(trained.prior.passes(index, used, stop, torch.tensor([False])))
        whole = passes(tokens.index)
        for number in (2, 5, 9):
            grid, own = whole[number].grid, whole[number].own
            row, column = (own.nonzero()[len(own.nonzero()) // 2]).tolist()
            altered = [index.clone() for index in tokens.index]
            altered[grid][0, row, column] = (altered[grid][0, row, column] + SMALL.groups * 3) % SMALL.groups**2
            pairs = zip(whole, passes(altered), strict=True)
            changed = [(a.group_logits != b.group_logits)[..., a.own].any().item() for a, b in pairs]
            assert not any(changed[: number + 1])
            assert any(changed[number + 1 :])

    def test_decoding_keeps_to_its_budget(self):
        model = Vqgan()
        assert decode_macs(model) <= 120_000
        assert 2 * sum(p.numel() for p in model.parameters()) < 40e6


class TestFiles:
    @torch.no_grad()
    def test_the_file_holds_the_tokens_of_forward(self, trained, photo, nets):
        for level in (10, 80, 200):
            promised = trained(as_tensor(photo), torch.tensor([level]))
            data, y_hat = Analysed(Picture(photo), "vqgan", 1).encode(level)
            agree = np.abs(y_hat - promised["tokens"].y_hat[0].numpy()).max(0) < 1e-4
            assert agree.mean() > 0.99
            bits = sum(-p.log2().sum().item() for p in promised["likelihoods"].values())
            tiles = [len(tile) for tile in Decoder(data).tiles]
            assert bits / 8 - 2 < sum(tiles) < 1.1 * bits / 8 + 8 * len(tiles)
            samples = promised["x_hat"][0].permute(1, 2, 0).clamp(0, 1).mul(255).round().numpy()
            assert (np.abs(pixa.decode(data) - samples) > 1).mean() < 0.02

    @pytest.mark.parametrize("size", [(1, 1), (37, 53), (64, 64), (260, 275)])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_pictures_of_any_size_come_back(self, chelsea, weights, size, channels):
        rgba = np.concatenate([chelsea, chelsea[:, :, :1]], 2)
        picture = np.ascontiguousarray(rgba[: size[0], : size[1], :channels])
        for quality in (0, 60):
            back = pixa.decode(pixa.encode(picture, quality, model="vqgan"))
            assert back.shape == picture.shape
            assert channels < 4 or np.array_equal(back[:, :, 3], picture[:, :, 3])

    def test_windows_leave_no_seam(self, coffee, weights, monkeypatch):
        whole = pixa.encode(coffee, 80, model="vqgan")
        samples = pixa.decode(whole).astype(int)
        _, expected = Analysed(Picture(coffee), "vqgan").encode(160)
        monkeypatch.setattr("pixa.image.WINDOW", 12)
        assert np.abs(pixa.decode(whole) - samples).max() <= 1
        _, y_hat = Analysed(Picture(coffee), "vqgan").encode(160)
        assert (np.abs(y_hat - expected) > 1e-3).mean() < 0.01

    def test_halos_are_as_wide_as_the_networks_reach(self, photo, installed, tmp_path):
        torch.manual_seed(5)
        mixing = settled(photo, VqganConfig(**SMALL.as_dict() | {"analysis": 2, "low": 2, "high": 3}))
        for layer in mixing.modules():
            if isinstance(layer, Block):
                nn.init.normal_(layer.depthwise.weight, std=0.5)
                nn.init.normal_(layer.project.weight, std=0.2)
        installed(tmp_path)
        nets = TokenModel(ModelEntry(**export(mixing, "test", 9, tmp_path)), 1)
        altered = photo.copy()
        altered[128:136, 160:168] ^= 255
        rows, columns = np.nonzero((nets.analysis(photo) != nets.analysis(altered)).any(0))
        reach = max(np.abs(rows - 16).max(), np.abs(columns - 20).max())
        assert nets.entry.analysis_halo - 4 < reach <= nets.entry.analysis_halo
        y_hat = np.random.default_rng(1).normal(size=(nets.rebuilt_channels, 48, 48)).astype(np.float32)
        other = y_hat.copy()
        other[:, 24, 24] += 9
        rows, columns = np.nonzero((nets.synthesis(y_hat, 0) != nets.synthesis(other, 0)).any(2))
        reach = max(np.abs(rows // 8 - 24).max(), np.abs(columns // 8 - 24).max())
        assert nets.entry.synthesis_halo - 4 < reach <= nets.entry.synthesis_halo

    @pytest.mark.parametrize("target", [{"bpp": 0.05}, {"target_size": 900}])
    def test_a_rate_is_used_up_and_never_exceeded(self, photo, weights, target):
        limit = target.get("target_size") or target["bpp"] * photo.shape[0] * photo.shape[1] / 8
        data = pixa.encode(photo, model="vqgan", **target)
        assert 0.8 * limit < len(data) <= limit

    def test_a_psnr_can_be_asked_for(self, photo, weights):
        assert pixa.info(pixa.encode(photo, psnr=1, model="vqgan"))["quality"] == 0

    def test_command_line_needs_no_torch(self, photo, weights, tmp_path):
        Image.fromarray(photo[:64, :96]).save(tmp_path / "photo.png")
        script = f"""
import sys
from pathlib import Path
import pixa.models.registry as registry
registry.weights_folder = lambda: Path({str(weights)!r})
from pixa.cli import main
assert main(["encode", "photo.png", "-o", "photo.pixa", "-m", "vqgan", "--bpp", "0.2"]) == 0
assert main(["decode", "photo.pixa", "-o", "back.png"]) == 0
assert "torch" not in sys.modules and "onnx" not in sys.modules
"""
        result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert pixa.info((tmp_path / "photo.pixa").read_bytes())["model"] == "vqgan.test"
        assert (tmp_path / "back.png").stat().st_size > 0


class TestExactness:
    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_tokens_are_equal_and_pixels_within_one_level(self, files, entry, nets, runtime):
        other, hashes = RUNTIMES[runtime](entry), set()
        for data in files:
            (symbols, samples), (expected_symbols, expected) = decoded(data, other), decoded(data, nets)
            assert symbols == expected_symbols
            assert np.abs(samples - expected).max() <= 1
            hashes.add(symbols)
        assert len(hashes) == len(files)

    def test_bounds_are_those_of_the_files(self, entry, nets):
        recorded = json.loads((entry.folder / "export.json").read_text())["bounds"]
        for name, bound in recorded.items():
            weight, bias = (nets.arrays[f"{name}_{kind}"].astype(np.int64) for kind in ("weight", "bias"))
            known = np.abs(nets.arrays["known_group"][int(name[-1])]).max() if name.startswith("inner") else 0
            assert (np.abs(weight).sum(1) * 255 + np.abs(bias)).max() + known == bound
        assert max(recorded.values()) < 2**24
        assert set(recorded) == {name[:-7] for name, a in nets.arrays.items() if a.dtype == np.int8}

    @torch.no_grad()
    def test_a_sum_past_the_exact_range_is_refused(self, photo, tmp_path):
        model = settled(photo)
        for name, layer in layer_names(model.prior).items():
            layer.bias[0] += 2**24 / layer.bias_unit
            with pytest.raises(ValueError, match=f"{name} can reach"):
                export(model, "test", 9, tmp_path)
            layer.bias[0] = 0

    def test_another_integer_weight_fails_the_self_test(self, entry):
        class Altered(TokenModel):
            def prepare(self) -> None:
                self.arrays["grow1_weight"] = -self.arrays["grow1_weight"]
                super().prepare()

        with pytest.raises(ModelMissing, match="self-test"):
            Altered(entry, 1)

    def test_coarse_arithmetic_is_refused(self, entry):
        class Coarse(TokenModel):
            integers = np.float16

        with pytest.raises(ModelMissing, match="self-test"):
            Coarse(entry, 1)

    def test_frequencies_are_integers_that_sum_up(self):
        weights = np.random.default_rng(1).integers(0, 2**20, (500, 32))
        weights[0], weights[:, 5] = 0, 2**20
        rows = categorical.frequencies(weights)
        assert rows.min() >= 1
        assert (rows.sum(1) == TOTAL).all()
        np.testing.assert_allclose(rows / TOTAL, weights / weights.sum(1, keepdims=True), atol=1e-5)


class TestHostileFiles:
    """Payloads whose checksums are right and whose content is not."""

    def with_tile(self, data: bytes, payload: bytes) -> bytes:
        chunks = list(read_file(data))
        first = next(i for i, chunk in enumerate(chunks) if chunk.type == ChunkType.TILE)
        chunks[first] = Chunk(ChunkType.TILE, payload)
        return write_file(chunks)

    @pytest.mark.parametrize("damage", ["empty", "cut", "longer", "zero", "altered", "random"])
    def test_are_refused(self, files, damage):
        data = files[2]
        tile = Decoder(data).tiles[0]
        payload = {
            "empty": b"",
            "cut": tile[:-4],
            "longer": tile + b"\1\0\0\0",
            "zero": tile[:-4] + bytes(4),
            "altered": bytes([tile[0] ^ 1]) + tile[1:],
            "random": np.random.default_rng(1).bytes(64),
        }[damage]
        with pytest.raises(Corrupt):
            pixa.decode(self.with_tile(data, payload))

    def test_every_length_is_refused_but_the_right_one(self, files):
        data = files[0]
        tile = Decoder(data).tiles[0]
        for length in range(len(tile)):
            with pytest.raises(Corrupt):
                pixa.decode(self.with_tile(data, tile[:length]))

    def test_tiles_of_the_other_coding_are_refused(self, files, photo):
        head = next(read_file(files[0]))
        with pytest.raises(Corrupt):
            pixa.decode(write_file([head, *(Chunk(ChunkType.TILE, b"\1\1\0\0\0") for _ in Decoder(files[0]).tiles)]))


class TestLoss:
    """Damaged files with `keep_going`: 3 x 2 tiles of 256 pixels a side."""

    @pytest.fixture
    def data(self, coffee, weights) -> bytes:
        return pixa.encode(coffee[:400, :600], 70, model="vqgan")

    def damaged(self, data: bytes, number: int) -> bytes:
        """The file with a bit flipped in a tile."""
        broken = bytearray(data)
        broken[tile_starts(data)[number] + 5] ^= 16
        return bytes(broken)

    def test_is_refused_without_it(self, data):
        with pytest.raises(Corrupt):
            pixa.decode(self.damaged(data, 1))

    def test_a_lost_tile_is_predicted_and_told(self, coffee, data):
        whole = pixa.decode(data).astype(int)
        decoder = Decoder(self.damaged(data, 4), keep_going=True)
        samples = decoder.picture().samples.astype(int)
        assert decoder.lost == [4]
        assert np.array_equal(samples[:150, :200], whole[:150, :200])
        hole = samples[270:, 280:500]
        assert np.abs(hole - whole[270:, 280:500]).mean() < np.abs(whole[270:, 280:500] - 128).mean() + 40
        assert hole.std() > 0

    def test_what_is_cut_off_is_lost(self, data):
        starts = tile_starts(data)
        decoder = Decoder(data[: starts[4] + 3], keep_going=True)
        assert decoder.picture().samples.shape == (400, 600, 3)
        assert decoder.lost == [4, 5]

    def test_models_of_latents_go_on_too(self, coffee, monkeypatch):
        monkeypatch.setattr("pixa.image.TILE_LOG2", 8)
        data = pixa.encode(coffee[:400, :600], 30)
        decoder = Decoder(self.damaged(data, 0), keep_going=True)
        samples = decoder.picture().samples
        assert decoder.lost == [0]
        assert np.abs(samples[:256, :256].astype(int) - coffee[:256, :256]).mean() < 60

    def test_without_any_tile_there_is_no_picture(self, data):
        decoder = Decoder(data[: tile_starts(data)[0] - 2], keep_going=True)
        with pytest.raises(Corrupt, match="no tile"):
            decoder.picture()

    def test_a_damaged_header_is_refused(self, data):
        broken = bytearray(data)
        broken[10] ^= 1
        with pytest.raises(Corrupt):
            Decoder(bytes(broken), keep_going=True)

    @pytest.mark.parametrize("seed", range(30))
    def test_no_damage_is_more_than_a_named_error(self, data, seed):
        rng, broken = np.random.default_rng(seed), bytearray(data[: len(data) - seed * 9])
        for place in rng.integers(5, len(broken), seed % 4):
            broken[place] = rng.integers(256)
        try:
            samples = Decoder(bytes(broken), keep_going=True, max_pixels=2**20).picture().samples
        except pixa.errors.PixaError:
            return
        assert samples.shape[2] in (1, 3)

    def test_holes_continue_their_surroundings(self):
        slope = np.add.outer(np.arange(40.0), 2 * np.arange(30.0))[None].astype(np.float32)
        known = np.ones((40, 30), bool)
        known[10:20, 8:18] = False
        filled = fill(slope, known)
        assert np.array_equal(filled[:, known], slope[:, known])
        assert np.abs(filled - slope).max() < 15
        assert not fill(slope, np.zeros_like(known)).any()


def tile_starts(data: bytes) -> list[int]:
    """Where the payloads of the tiles begin in a file."""
    tiles, starts, place = Decoder(data).tiles, [], 5
    for tile in tiles:
        place = data.index(tile, place)
        starts.append(place)
        place += len(tile)
    return starts


class TestTrainer:
    """`pixa train --model vqgan`, with few codes."""

    @pytest.fixture
    def run(self, photo, tmp_path, monkeypatch) -> Callable[..., dict]:
        """Trains for a second more than was trained before; returns the checkpoint."""
        monkeypatch.setattr("pixa.models.vqgan_run.START_CROPS", 16)
        monkeypatch.setattr("pixa.models.vqgan_run.CALIBRATION_CROPS", 8)
        monkeypatch.setattr("pixa.models.vqgan_run.VqganConfig", partial(VqganConfig, groups=8))
        (tmp_path / "data").mkdir()
        for name, part in (("a", photo[:128, :128]), ("b", photo[64:192, 100:228])):
            Image.fromarray(part).save(tmp_path / "data" / f"{name}.png")
        path = tmp_path / "run" / "checkpoint.pt"

        def run(*words: str) -> dict:
            spent = torch.load(path, weights_only=True)["elapsed"] / 60 if path.exists() else 0
            words = (
                *words,
                "--minutes",
                str(spent + 0.02),
                "--out",
                str(path.parent),
                "--data",
                str(tmp_path / "data"),
            )
            sizes = ["--crop", "64", "--width", "96", "--discriminator-width", "8", "--batch", "1", "--held-out", "1"]
            assert main(["--model", "vqgan", "--threads", "1", *sizes, *words]) == 0
            return torch.load(path, weights_only=True)

        return run

    def test_trains_settles_resumes_and_is_exported(self, photo, run, tmp_path, installed):
        path = tmp_path / "run" / "checkpoint.pt"
        before = run("--settle", "9")
        with pytest.raises(ValueError, match="before its tokens were settled"):
            load(path)
        after = run("--settle", "0.01", "--adversary", "0.01")
        assert after["settled"]
        assert after["step"] > before["step"]
        for kind, part in (("discriminator", "0."), ("model", "prior.")):
            learned = [name for name in after[kind] if name.startswith(part)]
            assert any(not torch.equal(after[kind][name], before[kind][name]) for name in learned)
        line = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
        assert line["step"] == after["step"]
        assert 0 < line["level_bpp_psnr_lpips"][0][1] < line["level_bpp_psnr_lpips"][-1][1]

        export(load(path), "7", 901, tmp_path)
        installed(tmp_path)
        assert pixa.decode(pixa.encode(photo, 50, model="vqgan")).shape == photo.shape

    def test_what_is_settled_does_not_change(self, run):
        before, after = run("--settle", "0"), run("--settle", "0")
        assert after["step"] > before["step"]
        for name, value in after["ema"].items():
            if name.startswith(("g_a.", "pyramid.")):
                assert torch.equal(value, before["ema"][name])
                assert torch.equal(value, after["model"][name])
        assert not torch.equal(after["ema"]["g_s.head.pointwise.weight"], before["ema"]["g_s.head.pointwise.weight"])


class TestPerceptual:
    @pytest.fixture
    def backbone(self, tmp_path) -> Path:
        rng, widths = np.random.default_rng(1), [3, *(width for stage in STAGES for width in stage)]
        arrays = {}
        for name, (before, after) in zip(NAMES, pairwise(widths), strict=True):
            arrays[f"{name}.weight"] = rng.normal(0, (9 * before) ** -0.5, (after, before, 3, 3)).astype(np.float16)
            arrays[f"{name}.bias"] = np.zeros(after, np.float32)
        np.savez(tmp_path / "vgg.npz", **arrays)
        return tmp_path / "vgg.npz"

    def test_grows_with_the_difference_and_has_a_gradient(self, backbone, photo):
        distance, x = load_vgg(backbone), as_tensor(photo[:64, :64])
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        values = [distance((x + amount * noise).requires_grad_(), x) for amount in (0, 0.02, 0.1)]
        assert values[0].item() == 0
        assert values[1] < values[2]
        y = (x + 0.02 * noise).requires_grad_()
        distance(y, x).sum().backward()
        assert y.grad.isfinite().all() and y.grad.abs().max() > 0

    def test_another_file_is_refused(self, tmp_path):
        np.savez(tmp_path / "other.npz", a=np.zeros(3))
        with pytest.raises(UsageError, match="does not hold VGG-16"):
            load_vgg(tmp_path / "other.npz")


class TestCrops:
    """The page of details at equal size."""

    def test_page_shows_every_codec_within_the_size(self, photo, weights, tmp_path, monkeypatch):
        monkeypatch.setattr("pixa.app.codecs.code_sha256", str)
        Image.fromarray(photo).save(tmp_path / "photo.png")
        page = tmp_path / "docs" / "crops"
        words = [
            f"{tmp_path}/photo.png@100,40",
            "--codecs",
            "pixa:vqgan,jpeg,webp",
            "--qualities",
            "60",
            "-o",
            str(page),
        ]
        assert crops.main(words) == 0
        text = page.with_suffix(".md").read_text()
        assert str(tmp_path) not in text
        rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| pixa", "| jpeg", "| webp"))]
        assert [row[0] for row in rows] == ["| pixa:vqgan", "| jpeg", "| webp"]
        sizes = [int(row[1].split(" ")[0].replace(",", "")) for row in rows]
        assert all("times" in row[1] or size <= 1.02 * sizes[0] for row, size in zip(rows, sizes, strict=True))
        with Image.open(page / "photo-q60.png") as shown:
            first = np.array(shown)[crops.CAPTION :: 2, crops.EDGE :: 2][: crops.CROP, : crops.CROP]
        assert np.array_equal(first, photo[40 : 40 + crops.CROP, 100 : 100 + crops.CROP])

    @pytest.mark.parametrize("place", ["200,10", "ten"])
    def test_places_outside_are_refused(self, photo, weights, tmp_path, capsys, place):
        Image.fromarray(photo).save(tmp_path / "photo.png")
        assert (
            crops.main([f"{tmp_path}/photo.png@{place}", "--codecs", "pixa:vqgan", "-o", str(tmp_path / "page")]) == 2
        )
        assert "no LEFT,TOP" in capsys.readouterr().err


class TestCosts:
    def test_bits_of_tokens_are_those_of_the_file(self, photo, weights, tmp_path, capsys):
        Image.fromarray(photo).save(tmp_path / "photo.png")
        assert token_costs.main([str(tmp_path / "photo.png"), "-q", "70"]) == 0
        said = capsys.readouterr().out
        decoder = Decoder(pixa.encode(photo, 70, model="vqgan"))
        coded = 8 * sum(map(len, decoder.tiles))
        tokens = int(re.search(r"(\d+) tokens", said)[1])
        assert f"{coded / tokens:8.3f} bits a token  in the files" in said
        assert " 6.000 bits a token  log2 of 64 codes" in said
        assert tokens == sum(int(number) for number in re.findall(r"grid \S+ (\d+) tokens", said))

    def test_models_without_tokens_are_refused(self, photo, tmp_path, capsys):
        Image.fromarray(photo[:64, :64]).save(tmp_path / "photo.png")
        assert token_costs.main([str(tmp_path / "photo.png"), "-m", "fast"]) == 2
        assert "fast has no tokens" in capsys.readouterr().err


class TestFormat:
    """FORMAT.md, annex A."""

    def test_every_array_is_described(self, nets):
        words = [word for row in table("array of tokens") for word in re.findall(r"\w+", row[0])]
        for name, array in nets.arrays.items():
            stem = re.sub(r"\d?_(weight|bias)$", "", name)
            assert {name, stem, name.replace("bias", "weight")} & set(words), name
            kinds = {"int8": "weight", "int32": ("bias", "known_group")}
            assert name.endswith(kinds.get(array.dtype.name, name))
        named = [row for row in table("array of tokens") if not row[0].startswith(("enter", "one bias"))]
        for row in named:
            for name in row[0].split(", "):
                assert nets.arrays[name].dtype.name == row[1]

    def test_annex_alone_decodes_a_file(self, nets, files):
        for data in files[0], files[2]:
            decoder = Decoder(data)
            side, tile = 2**decoder.head.tile_log2, decoder.tiles[-1]
            regions = [math.ceil((pixels - 1) % side / 32) for pixels in (decoder.height, decoder.width)]
            plain = PlainTile(tile, *regions, decoder.head.level, nets.arrays)
            sizes = [4 * n for n in regions]
            own = nets.coder.TileSymbols(tile, nets.channels, *sizes, decoder.head.level, nets)
            assert plain.integers() == own.integers()


class PlainTile:
    """The tokens of a tile in Python integers, as annex A has it."""

    def __init__(self, payload: bytes, rows: int, columns: int, level: int, arrays: dict[str, np.ndarray]):
        self.arrays = {name: a.astype(object) if a.dtype.kind in "iu" else a for name, a in arrays.items()}
        self.words = list(struct.unpack(f"<{len(payload) // 4}I", payload))
        self.state = self.words.pop()
        self.refill()
        self.map = np.full((rows + 1, columns + 1), 3)
        for row in range(1, rows + 1):
            for column in range(1, columns + 1):
                above, left = self.map[row - 1, column], self.map[row, column - 1]
                chances = arrays["map_frequencies"][8 * level // 201][above][left].tolist()
                self.map[row, column] = self.symbol(chances)
        self.map = self.map[1:, 1:]
        self.tokens = [np.full((rows << g, columns << g), -1) for g in range(3)]
        nested, m = bool(arrays["nested"][level]), np.array([16 * (self.map == v) for v in range(3)])
        state = self.everywhere(m, lambda x, at: self.layer("top", x))
        for g, tokens in enumerate(self.tokens):
            looks = arrays["group_looks" if nested else "code_looks"][g].astype(int)
            seen = np.zeros((looks.shape[1], *tokens.shape), int)
            exists = np.kron(self.map >= g, np.ones((1 << g, 1 << g), bool))
            for parity in ((0, 0), (1, 1), (0, 1), (1, 0)):
                places = [at for at in zip(*np.nonzero(exists), strict=True) if (at[0] % 2, at[1] % 2) == parity]
                hidden = {
                    at: self.layer(f"mix{g}", self.layer(f"enter{g}", [*around(seen, at), *state[:, *at]]))
                    for at in places
                }
                for at in places:
                    tokens[at] = self.symbol(self.rates(self.layer(f"group{g}", hidden[at])))
                for at in places if not nested else ():
                    known = self.arrays["known_group"][g][tokens[at]]
                    member = self.symbol(
                        self.rates(self.layer(f"member{g}", self.layer(f"inner{g}", hidden[at], known)))
                    )
                    tokens[at] = tokens[at] * len(self.arrays["known_group"][g]) + member
                for at in places:
                    seen[:, *at] = looks[tokens[at]]
            if g < 2:
                finer = self.everywhere(
                    seen, lambda x, at, g=g, state=state: self.layer(f"grow{g}", [*x, *state[:, *at]])
                )
                state = shuffle(finer)
        assert (self.state, self.words) == (1, [])

    def refill(self) -> None:
        if self.state < 1 << 32 and self.words:
            self.state = self.state << 32 | self.words.pop()

    def symbol(self, frequencies: list[int]) -> int:
        quantile = self.state % (1 << 24)
        symbol = bisect_right(list(accumulate(frequencies)), quantile)
        start, frequency = sum(frequencies[:symbol]), frequencies[symbol]
        self.state = (self.state >> 24) * frequency + quantile - start
        self.refill()
        return symbol

    def layer(self, name: str, x: list[int], extra: np.ndarray | int = 0) -> list[int]:
        total = self.arrays[f"{name}_weight"] @ np.array(x, object) + self.arrays[f"{name}_bias"] + extra
        return [min(max((t + 32) // 64, 0), 255) for t in total]

    def rates(self, logits: list[int]) -> list[int]:
        weights = [int(self.arrays["logit_weights"][max(logits) - logit]) for logit in logits]
        rates = [1 + w * (2**24 - len(logits)) // sum(weights) for w in weights]
        rates[rates.index(max(rates))] += 2**24 - sum(rates)
        return rates

    def everywhere(self, x: np.ndarray, function: Callable) -> np.ndarray:
        values = [[function(around(x, (i, j)), (i, j)) for j in range(x.shape[2])] for i in range(x.shape[1])]
        return np.array(values).transpose(2, 0, 1)

    def integers(self) -> bytes:
        return b"".join(plane.astype("<i2").tobytes() for plane in (self.map, *self.tokens))


def around(x: np.ndarray, at: tuple[int, int]) -> list[int]:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    return padded[:, at[0] : at[0] + 3, at[1] : at[1] + 3].ravel().tolist()
