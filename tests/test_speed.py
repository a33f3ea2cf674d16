"""Comparison of times in one run: what it prints. Times themselves are not asserted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from pixa.app import speed


@pytest.fixture
def picture(photo, tmp_path) -> Path:
    Image.fromarray(photo[:64, :128]).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_avif_comes_at_about_equal_psnr(picture, capsys):
    assert speed.main([str(picture), "-r", "1"]) == 0
    pixa, avif = (float(line.split()[-3]) for line in capsys.readouterr().out.splitlines()[2:4])
    assert pixa - 1 < avif <= pixa + 0.005


def test_the_ratio_of_each_rival_is_that_of_the_printed_times(picture, capsys):
    models = ["bmshj2018-factorized", "mbt2018-mean"]
    assert speed.main([str(picture), "-r", "1", "--threads", "1", "--compressai", *models]) == 0
    out = capsys.readouterr().out
    decoding = float(re.search(r"^pixa fast q60 .* ([\d.]+)$", out, re.M)[1])
    for model in models:
        size, psnr, _, rival = re.search(rf"^{model} untrained q4 (.*)$", out, re.M)[1].split()
        assert (size, psnr) == ("-", "-")
        ratio = float(re.search(rf"^{model} untrained / pixa fast .* ([\d.]+)x$", out, re.M)[1])
        assert ratio == pytest.approx(float(rival) / decoding, rel=0.02)


def test_a_model_that_compressai_does_not_have_is_refused(picture, capsys):
    assert speed.main([str(picture), "--compressai", "mbt"]) == 2
    assert "CompressAI has no model 'mbt'; it has bmshj2018-factorized" in capsys.readouterr().err
