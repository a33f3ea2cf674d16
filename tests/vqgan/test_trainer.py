"""Training of `vqgan`, with few codes, and the way back from exported files."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pixa
from pixa.errors import UsageError
from pixa.models.export.vqgan_export import export, load, restore
from pixa.models.nets.token_bits import TokenBits
from pixa.models.nets.vqgan import VqganConfig
from pixa.models.registry import find_model
from pixa.models.training.perceptual import NAMES, STAGES, load_vgg
from pixa.models.training.program import main
from tests.vqgan.models import SMALL, as_tensor, settled


@pytest.fixture
def run(photo, tmp_path, monkeypatch) -> Callable[..., dict]:
    """Trains for a second more than was trained before; returns the checkpoint."""
    monkeypatch.setattr("pixa.models.training.vqgan_run.START_CROPS", 16)
    monkeypatch.setattr("pixa.models.training.vqgan_run.CALIBRATION_CROPS", 8)
    monkeypatch.setattr("pixa.models.training.vqgan_run.VqganConfig", partial(VqganConfig, groups=8))
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


class TestTrainer:
    """`pixa train --model vqgan`, with few codes."""

    def test_trains_settles_resumes_and_is_exported(self, photo, run, tmp_path, install_models):
        path = tmp_path / "run" / "checkpoint.pt"
        before = run("--freeze-tokenizer", "9")
        with pytest.raises(ValueError, match="before its tokens were settled"):
            load(path)
        after = run("--freeze-tokenizer", "0.01", "--adversary", "0.01")
        assert after["settled"]
        assert after["step"] > before["step"]
        for kind, part in (("discriminator", "0."), ("model", "prior.")):
            learned = [name for name in after[kind] if name.startswith(part)]
            assert any(not torch.equal(after[kind][name], before[kind][name]) for name in learned)
        line = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
        assert line["step"] == after["step"]
        assert 0 < line["level_bpp_psnr_lpips"][0][1] < line["level_bpp_psnr_lpips"][-1][1]

        export(load(path), "7", 901, tmp_path)
        install_models(tmp_path)
        assert pixa.decode(pixa.encode(photo, 50, model="vqgan")).shape == photo.shape

    def test_what_is_settled_does_not_change(self, run):
        before, after = run("--freeze-tokenizer", "0"), run("--freeze-tokenizer", "0")
        assert after["step"] > before["step"]
        for name, value in after["ema"].items():
            if name.startswith(("g_a.", "pyramid.")):
                assert torch.equal(value, before["ema"][name])
                assert torch.equal(value, after["model"][name])
        assert not torch.equal(after["ema"]["g_s.head.pointwise.weight"], before["ema"]["g_s.head.pointwise.weight"])


class TestCached:
    """`--cached`: the entropy model alone, on tokens that are kept."""

    @torch.no_grad()
    def test_kept_tokens_cost_what_those_of_the_picture_do(self, photo):
        model, x = settled(photo), as_tensor(photo)
        for level in torch.tensor([[10], [80], [200]]):
            layers, tokens = model.pyramid.split(model.analyse(x), model.is_nested(level)), model.tokenise(x, level)
            total = sum(bits.sum() for bits in model.bits(tokens, level).values())
            number = sum(used.sum() for used in tokens.used)
            found = TokenBits(model)(layers.index, layers.errors, level)
            torch.testing.assert_close(found, (total / number).view(1))

    def test_nothing_else_is_trained(self, run, tmp_path):
        path, start = tmp_path / "run" / "checkpoint.pt", tmp_path / "settled.pt"
        before = run("--freeze-tokenizer", "0")
        path.rename(start)
        after = run("--start", str(start), "--cached", "8", "--warmup", "1")
        last = run("--cached", "8")
        assert last["settled"] and last["step"] > after["step"] > 0
        changed = {name for name, value in last["ema"].items() if not torch.equal(value, before["ema"][name])}
        assert changed
        assert all(name.startswith("prior.") for name in changed)

    def test_tokens_that_are_not_settled_are_refused(self, run, tmp_path, capsys):
        with pytest.raises(AssertionError):
            run("--cached", "8")
        assert "--cached needs --start" in capsys.readouterr().err
        run("--freeze-tokenizer", "9")
        (tmp_path / "run" / "checkpoint.pt").rename(tmp_path / "early.pt")
        with pytest.raises(AssertionError):
            run("--start", str(tmp_path / "early.pt"), "--cached", "8")
        assert "are not settled" in capsys.readouterr().err


class TestRestore:
    """The model of exported files."""

    def test_is_the_one_that_was_exported(self, exported, tmp_path):
        model = restore(exported / "vqgan.test")
        model.settled = True
        export(model, "test", 900, tmp_path)
        for name in ("analysis.onnx", "synthesis.onnx"):
            assert (tmp_path / "vqgan.test" / name).read_bytes() == (exported / "vqgan.test" / name).read_bytes()
        with (
            np.load(exported / "vqgan.test" / "tables.npz") as old,
            np.load(tmp_path / "vqgan.test" / "tables.npz") as new,
        ):
            np.testing.assert_allclose(new["centroids"], old["centroids"], atol=1e-3)
            for name in set(old) - {"centroids", "map_frequencies"}:  # rounded once more
                np.testing.assert_allclose(new[name], old[name], rtol=1e-5)

    def test_training_goes_on_from_it(self, run, exported):
        before = restore(exported / "vqgan.test").g_s.head.pointwise.weight
        start = ("--start", str(exported / "vqgan.test"), "--width", str(SMALL.c), "--lr", "1e-9", "--prior-lr", "1e-9")
        after = run(*start)["ema"]["g_s.head.pointwise.weight"]
        torch.testing.assert_close(after, before, atol=1e-5, rtol=0)

    def test_another_width_is_refused(self, run, exported, capsys):
        with pytest.raises(AssertionError):
            run("--start", str(exported / "vqgan.test"))
        assert f"needs --width {SMALL.c}" in capsys.readouterr().err

    def test_another_model_is_refused(self):
        with pytest.raises(ValueError, match="holds no vqgan"):
            restore(find_model("fast").folder)


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
