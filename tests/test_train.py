"""Training pictures and the trainer: what is read, what is cropped, what a stopped run leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixa.datasets.pictures import Pictures
from pixa.models.export.restore import restore
from pixa.models.nets.backbone import TRANSFORMS
from pixa.models.registry import find_model
from pixa.models.training.checkpoint import load_model
from pixa.models.training.image_run import ImageConfig
from pixa.models.training.program import main, train

CROP = 64


@pytest.fixture(scope="module")
def folder(coffee, tmp_path_factory) -> Path:
    """Three pictures of different sizes and formats, one in a folder below; a broken one, a tiny one, and a text."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    Image.fromarray(coffee[:150, :170]).save(folder / "a.png")
    Image.fromarray(coffee[100:300, 200:330]).save(folder / "b.webp", lossless=True)
    Image.fromarray(coffee[:, :, 0]).save(folder / "below" / "c.PNG")
    Image.fromarray(coffee[:20, :300]).save(folder / "tiny.png")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:5000])
    (folder / "notes.txt").write_text("no picture")
    return folder


class TestPictures:
    def test_folder_is_read_whole(self, folder, coffee):
        pictures = Pictures([folder], CROP)
        assert pictures.sizes.tolist() == [[150, 170], [200, 130], [400, 600]]
        expected = coffee[100:300, 200:330]
        assert torch.equal(pictures.data[pictures.offsets[1] : pictures.offsets[2]], torch.tensor(expected).flatten())

    def test_grey_picture_becomes_three_equal_planes(self, folder, coffee):
        pictures = Pictures([folder / "below" / "c.PNG"], CROP)
        assert torch.equal(pictures.data.view(400, 600, 3), torch.tensor(coffee[:, :, :1]).expand(-1, -1, 3))

    def test_tar_is_read_as_the_folder(self, folder, tmp_path):
        pack = tmp_path / "pack.tar"
        with tarfile.open(pack, "w") as tar:
            for file in sorted(folder.rglob("*")):
                tar.add(file, file.relative_to(folder), recursive=False)
        one, other = Pictures([folder], CROP), Pictures([pack], CROP)
        assert torch.equal(one.data, other.data)
        assert torch.equal(one.sizes, other.sizes)
        assert one.skipped == other.skipped == 2

    def test_unreadable_picture_is_named_and_counted(self, folder, capsys):
        pictures = Pictures([folder], CROP)
        assert pictures.skipped == 2
        assert f"skipped {folder / 'broken.png'}" in capsys.readouterr().err

    def test_folder_without_a_usable_picture_is_refused(self, folder, tmp_path):
        with pytest.raises(ValueError, match=str(tmp_path)):
            Pictures([tmp_path], CROP)
        with pytest.raises(ValueError, match="at least 500 pixels"):
            Pictures([folder], 500)


@pytest.fixture(scope="module")
def maps(tmp_path_factory) -> Pictures:
    """Pictures whose samples tell where they lie: red the row, green the column, blue the picture."""
    folder = tmp_path_factory.mktemp("maps")
    for number, (height, width) in enumerate([(80, 80), (200, 250), (130, 90)]):
        rows, columns = np.indices((height, width))
        samples = np.stack([rows, columns, np.full_like(rows, number)], 2).astype(np.uint8)
        Image.fromarray(samples).save(folder / f"{number}.png")
    return Pictures([folder], CROP)


class TestCrops:
    def draw(self, maps: Pictures, halved: float) -> torch.Tensor:
        return 255 * maps.batch(300, CROP, 1, halved, torch.Generator().manual_seed(3))

    def test_crops_are_cut_from_the_pictures_not_held_out(self, maps):
        drawn = self.draw(maps, 0.3)
        pictures = drawn[:, 2]
        assert torch.equal(pictures.amin((1, 2)), pictures.amax((1, 2)))
        assert set(pictures[:, 0, 0].tolist()) == {1, 2}

    def test_crops_are_upright_and_mirrored_half_of_the_time(self, maps):
        drawn = self.draw(maps, 0.0)
        down, across = drawn[:, 0].diff(dim=1), drawn[:, 1].diff(dim=2)
        assert torch.allclose(down, torch.ones_like(down), atol=1e-3)
        assert torch.allclose(across.abs(), torch.ones_like(across), atol=1e-3)
        assert torch.allclose(across, across[:, :1, :1], atol=1e-3)
        assert 0.4 < (across[:, 0, 0] < 0).float().mean() < 0.6

    def test_crops_lie_anywhere_in_a_picture(self, maps):
        drawn = self.draw(maps, 0.0)
        large = drawn[drawn[:, 2, 0, 0] == 1]
        tops, lefts = large[:, 0].amin((1, 2)), large[:, 1].amin((1, 2))
        assert tops.min() < 10 and tops.max() > 200 - CROP - 10
        assert lefts.min() < 10 and lefts.max() > 250 - CROP - 10

    def test_a_share_is_averaged_from_twice_the_size_where_it_fits(self, maps):
        drawn = self.draw(maps, 0.5)
        pace = drawn[:, 0].diff(dim=1)[:, 0, 0].round()
        large = drawn[:, 2, 0, 0] == 1
        assert set(pace.tolist()) == {1, 2}
        assert (pace[~large] == 1).all()
        assert 0.35 < (pace[large] == 2).float().mean() < 0.65
        averaged = drawn[pace == 2][:, 0, 0, 0]
        assert torch.allclose(averaged % 1, torch.tensor(0.5), atol=1e-3)


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory) -> ImageConfig:
    """The settings of a short run that is over."""
    out = str(tmp_path_factory.mktemp("run"))
    config = ImageConfig((str(folder),), out, minutes=0.02, batch=2, crop=CROP, held_out=1, threads=1, warmup=2)
    train(config)
    return config


class TestTrainer:
    @pytest.fixture
    def config(self, done, tmp_path) -> ImageConfig:
        """The settings of a copy of that run, which a test may go on with."""
        return replace(done, out=str(shutil.copytree(done.out, tmp_path / "run")))

    @staticmethod
    def checkpoint(out: str | Path) -> dict:
        return torch.load(Path(out) / "checkpoint.pt", weights_only=True)

    @staticmethod
    def log(out: str | Path) -> list[dict]:
        return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]

    def test_run_leaves_a_checkpoint_and_a_line(self, config):
        state, (line,) = self.checkpoint(config.out), self.log(config.out)
        assert state["step"] == line["step"] > 0
        assert state["config"]["crop"] == CROP
        levels, rates, scores = zip(*line["level_bpp_psnr"], strict=True)
        assert levels == (0, 50, 100, 150, 200)
        assert rates == tuple(sorted(rates))
        assert min(scores) > 15
        assert {path.name for path in Path(config.out).iterdir()} == {"checkpoint.pt", "log.jsonl"}

    def test_steps_change_the_weights_and_their_average_follows(self, config, tmp_path):
        train(replace(config, out=str(tmp_path / "new"), minutes=0.0))
        before, after = self.checkpoint(tmp_path / "new"), self.checkpoint(config.out)
        assert before["step"] == 0
        moved = [name for name, value in after["model"].items() if not torch.equal(value, before["model"][name])]
        followed = [name for name, value in after["ema"].items() if not torch.equal(value, before["ema"][name])]
        assert "g_a.0.weight" in moved
        assert "g_a.0.weight" in followed

    def test_cached_latents_train_the_entropy_model_alone(self, config, tmp_path):
        runs = [replace(config, out=str(tmp_path / name), cached=3) for name in ("start", "end")]
        train(replace(runs[0], minutes=0.0))
        train(runs[1])
        before, after = (self.checkpoint(run.out)["model"] for run in runs)
        moved = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
        assert {"h_a", "h_s"} <= moved
        assert not moved & set(TRANSFORMS)

    def test_units_that_never_fire_are_woken_without_a_change(self, config, tmp_path, capsys):
        state = self.checkpoint(config.out)
        state["ema"]["g_a.2.expand.bias"][:5] = -100.0
        torch.save(state, tmp_path / "dead.pt")
        run = replace(config, out=str(tmp_path / "new"), start=str(tmp_path / "dead.pt"), reinit_dormant=True)
        train(replace(run, minutes=0.0))
        assert int(re.search(r"g_a\.2 (\d+)", capsys.readouterr().out)[1]) >= 5
        old, new = (load_model(path, "cpu") for path in (tmp_path / "dead.pt", tmp_path / "new" / "checkpoint.pt"))
        x, level = torch.rand(2, 3, CROP, CROP), torch.tensor([0, 150])
        assert torch.allclose(old.eval()(x, level)["x_hat"], new.eval()(x, level)["x_hat"], atol=1e-4)
        train(run)
        moved = self.checkpoint(run.out)["model"]["g_a.2.project.weight"]
        assert (moved[:, :5] != 0).all()

    def test_run_goes_on_at_its_step(self, config, capsys):
        first = self.checkpoint(config.out)
        train(replace(config, minutes=first["elapsed"] / 60 + 0.01))
        last = self.checkpoint(config.out)
        assert f"from step {first['step']} " in capsys.readouterr().out
        assert last["step"] > first["step"]
        assert last["elapsed"] > first["elapsed"]
        assert [line["step"] for line in self.log(config.out)] == [first["step"], last["step"]]

    def test_spent_budget_changes_nothing(self, config):
        first = self.checkpoint(config.out)
        train(replace(config, minutes=0.0))
        again = self.checkpoint(config.out)
        assert again["step"] == first["step"]
        assert all(torch.equal(value, again["model"][name]) for name, value in first["model"].items())
        assert all(torch.equal(value, again["ema"][name]) for name, value in first["ema"].items())

    def test_start_takes_averaged_weights_and_a_new_budget(self, config, tmp_path, monkeypatch):
        options = {"start": f"{config.out}/checkpoint.pt", "out": tmp_path / "new", "minutes": 0, "crop": CROP}
        options |= {"held-out": 1, "threads": 1}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        monkeypatch.setattr(sys, "argv", ["train", "--data", *config.data, *words])
        main()
        old, new = self.checkpoint(config.out), self.checkpoint(tmp_path / "new")
        assert new["step"] == new["elapsed"] == 0
        assert all(torch.equal(value, new["model"][name]) for name, value in old["ema"].items())

    def test_full_disk_leaves_the_last_checkpoint(self, config, monkeypatch):
        def fails(state, path):
            path.write_bytes(b"half a checkpoint")
            raise OSError("No space left on device")

        first = self.checkpoint(config.out)
        monkeypatch.setattr(torch, "save", fails)
        with pytest.raises(OSError, match="No space left"):
            train(replace(config, minutes=first["elapsed"] / 60 + 0.001))
        assert self.checkpoint(config.out)["step"] == first["step"]
        assert {path.name for path in Path(config.out).iterdir()} == {"checkpoint.pt", "log.jsonl"}

    def test_weights_of_another_model_are_refused_in_plain_words(self, config, tmp_path, capsys):
        state = self.checkpoint(config.out)
        state["ema"]["g_a.0.bias"] = torch.zeros(7)
        torch.save(state, tmp_path / "other.pt")
        words = ["--start", str(tmp_path / "other.pt"), "--out", str(tmp_path / "new"), "--crop", str(CROP)]
        assert main(["--data", *config.data, "--held-out", "1", *words]) == 1
        assert "g_a.0.bias is (7,) there and (128,) here" in capsys.readouterr().err

    def test_settings_come_from_a_file_and_options_overrule_them(self, config, tmp_path):
        (tmp_path / "run.toml").write_text(f"""
            data = ["{config.data[0]}"]
            out = "{tmp_path / "new"}"
            minutes = 0.001
            crop = {CROP}
            held_out = 1
            batch = 5
            lr = 1e-4
        """)
        assert main(["--config", str(tmp_path / "run.toml"), "--batch", "2"]) == 0
        stored = self.checkpoint(tmp_path / "new")["config"]
        assert (stored["lr"], stored["batch"], stored["seed"]) == (1e-4, 2, 1)

    def test_a_setting_that_the_model_does_not_have_is_refused(self, tmp_path, capsys):
        (tmp_path / "run.toml").write_text('model = "fast"\nlearning_rate = 1e-3')
        assert main(["--config", str(tmp_path / "run.toml")]) == 1
        assert "run.toml: fast has no setting learning_rate" in capsys.readouterr().err

    def test_more_held_out_than_there_are_is_refused(self, config, tmp_path, capsys):
        assert main(["--data", *config.data, "--out", str(tmp_path), "--crop", str(CROP)]) == 1
        assert "3 pictures are not more than the 32 held out" in capsys.readouterr().err

    def test_crops_of_no_fitting_size_are_refused(self, config, tmp_path, capsys):
        assert main(["--data", *config.data, "--out", str(tmp_path), "--crop", "160"]) == 1
        assert "crops of 160 pixels do not fit: a side is a multiple of 64" in capsys.readouterr().err

    def test_start_takes_a_shipped_model(self, config, tmp_path):
        folder = find_model("fast").folder
        train(replace(config, start=str(folder), out=str(tmp_path / "new"), minutes=0.0))
        weights = self.checkpoint(tmp_path / "new")["model"]
        assert all(torch.equal(value, weights[name]) for name, value in restore(folder).state_dict().items())

    def test_two_processes_train_one_model(self, config, tmp_path):
        """The environment is the one that torchrun sets."""
        options = {"out": tmp_path / "pair", "minutes": 0.05, "crop": CROP, "held-out": 1, "batch": 2, "threads": 1}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-X", "faulthandler", "-m", "pixa.models.training", "--data", *config.data, *words]
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes = [
            subprocess.Popen(
                command, env=shared | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True
            )
            for rank in ("0", "1")
        ]
        for process in processes:
            try:
                _, errors = process.communicate(timeout=240)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # the fault handler tells where it hangs
                _, errors = process.communicate()
            assert process.returncode == 0, errors
        state, lines = self.checkpoint(tmp_path / "pair"), self.log(tmp_path / "pair")
        assert len(lines) == 1
        assert state["step"] == lines[0]["step"] > 0
        assert all(torch.isfinite(value).all() for value in state["model"].values())
