"""`pixa compare`: metrics of any two pictures."""

from __future__ import annotations

import json

import pytest
from PIL import Image

import pixa
from pixa.app.bench.metrics import psnr_rgb
from pixa.cli import main


@pytest.fixture
def files(photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    (tmp_path / "photo.pixa").write_bytes(pixa.encode(photo, 50))
    Image.fromarray(photo[:-1]).save(tmp_path / "smaller.png")
    return tmp_path


def test_metrics_of_a_coded_picture(files, photo, capsys):
    assert main(["compare", str(files / "photo.png"), str(files / "photo.pixa"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["psnr-rgb"] == pytest.approx(psnr_rgb(photo, pixa.decode(pixa.encode(photo, 50))))
    assert 0 < found["ms-ssim-rgb"] < 1 and 0 < found["ssimulacra2"] < 100


def test_equal_pictures_are_said_to_be(files, capsys):
    assert main(["compare", str(files / "photo.png"), str(files / "photo.png"), "--metrics", "psnr"]) == 0
    assert capsys.readouterr().out.count("equal") == 2


@pytest.mark.parametrize(
    ("second", "metrics", "code", "message"),
    [
        ("smaller.png", "psnr", 2, "320x255"),
        ("none.png", "psnr", 1, "cannot be read"),
        ("photo.png", "x", 2, "no metric"),
    ],
)
def test_what_cannot_be_compared_is_refused(files, capsys, second, metrics, code, message):
    assert main(["compare", str(files / "photo.png"), str(files / second), "--metrics", metrics]) == code
    assert message in capsys.readouterr().err
