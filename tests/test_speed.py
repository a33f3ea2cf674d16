"""Comparison of times in one run: what it prints. Times themselves are not asserted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from pixa.app.bench import speed


@pytest.fixture
def picture(photo, tmp_path) -> Path:
    Image.fromarray(photo[:64, :128]).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_avif_comes_at_about_equal_psnr(picture, capsys):
    assert speed.main([str(picture), "-r", "1"]) == 0
    pixa, avif = (float(line.split()[-3]) for line in capsys.readouterr().out.splitlines()[2:4])
    assert pixa - 1 < avif <= pixa + 0.005


def test_the_ratio_of_each_rival_is_that_of_the_printed_times(picture, capsys):
    models = ["bmshj2018-factorized@1", "mbt2018-mean"]
    assert speed.main([str(picture), "-r", "1", "--threads", "1", "--compressai", *models]) == 0
    out = capsys.readouterr().out
    decoding = float(re.search(r"^pixa fast .* ([\d.]+)$", out, re.M)[1])
    for model, quality in (("bmshj2018-factorized", "1"), ("mbt2018-mean", "4")):
        line = re.search(rf"^{model}@{quality} untrained (.*)$", out, re.M)[1].split()
        assert line[:3] == [quality, "-", "-"]
        ratio = float(re.search(rf"^{model}@{quality} untrained / pixa fast .* ([\d.]+)x$", out, re.M)[1])
        assert ratio == pytest.approx(float(line[-1]) / decoding, rel=0.02)


def test_the_times_of_several_pictures_are_added(picture, tmp_path, capsys):
    Image.open(picture).crop((0, 0, 64, 64)).save(tmp_path / "part.png")
    assert speed.main([str(picture), str(tmp_path / "part.png"), "-r", "1"]) == 0
    out = capsys.readouterr().out
    pixa, avif = (
        sum(map(float, re.findall(rf"^{name} .* ([\d.]+) +[\d.]+$", out, re.M)))
        for name in ("pixa fast", "AVIF speed 6")
    )
    together = out[out.index("all 2 pictures together") :]
    assert float(re.search(r"([\d.]+)x", together)[1]) == pytest.approx(avif / pixa, rel=0.02)


def test_a_model_that_compressai_does_not_have_is_refused(picture, capsys):
    assert speed.main([str(picture), "--compressai", "mbt"]) == 2
    assert "CompressAI has no model 'mbt'; it has bmshj2018-factorized" in capsys.readouterr().err
