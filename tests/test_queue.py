"""A queue of training runs: stage after stage, resumed after a kill, with a row of history for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixa.models.training import queue
from pixa.models.training.queue import main


@pytest.fixture
def written(photo, tmp_path) -> Path:
    """A queue of two short stages on two small pictures."""
    (tmp_path / "data").mkdir()
    for name, part in (("a", photo[:96, :96]), ("b", photo[64:160, 100:200])):
        Image.fromarray(np.ascontiguousarray(part)).save(tmp_path / "data" / f"{name}.png")
    shared = f'data = ["{tmp_path / "data"}"]\nminutes = 0.01\nbatch = 1\ncrop = 64\nheld_out = 1\nthreads = 1\n'
    stages = [f'[[stage]]\nout = "{tmp_path / name}"\n{shared}' for name in ("first", "second")]
    path = tmp_path / "queue.toml"
    path.write_text("\n".join(stages))
    return path


def test_trains_stage_after_stage_and_writes_history(written, tmp_path):
    assert main([str(written)]) == 0
    first, second = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("first", "second"))
    assert first["config"]["start"] == ""
    assert second["config"]["start"] == str(tmp_path / "first" / "checkpoint.pt")
    rows = (tmp_path / "history.md").read_text().splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| first", "| second"]
    assert f" {second['step']} |" in rows[-1] and "level_bpp_psnr" in rows[-1]


def test_goes_on_after_a_kill_with_what_is_not_done(written, tmp_path, monkeypatch):
    trained = []

    def killed(stage) -> None:
        trained.append(Path(stage.out).name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        genuine(stage)

    genuine = queue.train
    monkeypatch.setattr(queue, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        main([str(written)])
    assert main([str(written)]) == 0
    assert trained == ["first", "second", "second"]
    assert len((tmp_path / "history.md").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no \\[\\[stage\\]\\]"),
        ("[[stage]]\nmodel = 'slow'\nout = 'a'", "stage 1: there is no model 'slow'"),
        ("[[stage]]\nout = 'a'\nspeed = 3", "stage 1: fast has no setting speed"),
        ("[[stage]]\nout = 'a'\n[[stage]]\nout = 'a'", "the same `out`"),
    ],
)
def test_a_queue_that_cannot_be_is_refused(text, message, tmp_path):
    path = tmp_path / "queue.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        queue.read_stages(path)
    assert main([str(path)]) == 1
