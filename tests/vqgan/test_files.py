"""Files of tokens."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pixa
from pixa import Decoder
from pixa.image.picture import ImageEncoder
from pixa.models.export.vqgan_export import export
from pixa.models.nets.layers import Block
from pixa.models.nets.vqgan import VqganConfig
from pixa.models.registry import ModelEntry
from pixa.pixels import Picture
from pixa.runtime.model import TokenModel
from tests.vqgan.models import SMALL, as_tensor, settled


class TestFiles:
    @torch.no_grad()
    def test_the_file_holds_the_tokens_of_forward(self, trained, photo, nets):
        for level in (10, 80, 200):
            promised = trained(as_tensor(photo), torch.tensor([level]))
            data, y_hat = ImageEncoder(Picture(photo), "vqgan", jobs=1).encode(level)
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
        _, expected = ImageEncoder(Picture(coffee), "vqgan").encode(160)
        monkeypatch.setattr("pixa.image.picture.WINDOW", 12)
        assert np.abs(pixa.decode(whole) - samples).max() <= 1
        _, y_hat = ImageEncoder(Picture(coffee), "vqgan").encode(160)
        assert (np.abs(y_hat - expected) > 1e-3).mean() < 0.01

    def test_halos_are_as_wide_as_the_networks_reach(self, photo, install_models, tmp_path):
        torch.manual_seed(5)
        mixing = settled(photo, VqganConfig(**SMALL.as_dict() | {"analysis": 2, "low": 2, "high": 3}))
        for layer in mixing.modules():
            if isinstance(layer, Block):
                nn.init.normal_(layer.depthwise.weight, std=0.5)
                nn.init.normal_(layer.project.weight, std=0.2)
        install_models(tmp_path)
        nets = TokenModel(ModelEntry(**export(mixing, "test", 9, tmp_path)), 1)
        altered = photo.copy()
        altered[128:136, 160:168] ^= 255
        rows, columns = np.nonzero((nets.analysis(photo) != nets.analysis(altered)).any(0))
        reach = max(np.abs(rows - 16).max(), np.abs(columns - 20).max())
        assert nets.entry.analysis_halo - 4 < reach <= nets.entry.analysis_halo
        y_hat = np.random.default_rng(1).normal(size=(nets.codec.y_hat_channels, 48, 48)).astype(np.float32)
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

    def test_a_file_of_another_model_is_not_up_to_date(self, photo, weights, tmp_path, run):
        (tmp_path / "pictures").mkdir()
        Image.fromarray(photo[:64, :64]).save(tmp_path / "pictures" / "photo.png")
        words = ["encode", "-r", tmp_path / "pictures", "--output-dir", tmp_path / "packed"]
        assert run(*words, "-m", "vqgan")[0] == 0
        assert "is up to date" in run(*words, "-m", "vqgan")[2][0]
        code, _, err = run(*words)
        assert code == 1 and "exists: use -f" in err[0]

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
