"""What is told of tokens: details at equal size, costs, curves at the lowest rates."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

import pixa
from pixa import Decoder
from pixa.app.bench import crops, low_rates, token_costs
from pixa.app.bench.agreement import agreement
from pixa.app.bench.codecs import CODECS
from pixa.app.bench.curves import Curve
from pixa.app.bench.metrics import psnr_rgb
from pixa.errors import UsageError


class TestCrops:
    """The page of details at equal size."""

    def test_page_shows_every_codec_within_the_size(self, photo, weights, tmp_path, monkeypatch):
        monkeypatch.setattr("pixa.app.bench.codecs.code_sha256", str)
        Image.fromarray(photo).save(tmp_path / "photo.png")
        page = tmp_path / "docs" / "crops"
        words = [
            f"{tmp_path}/photo.png@60,0",
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
        with Image.open(page / "photo-60-0-q60.webp") as shown:
            first = np.array(shown)[crops.CAPTION :, crops.EDGE :][: crops.CROP, : crops.CROP]
        assert psnr_rgb(photo[: crops.CROP, 60 : 60 + crops.CROP], first) > 30

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
        grids = re.findall(
            r"grid \S+ (\d+) tokens.* ([\d.]+) bits by a static table, ([\d.]+) by the entropy model", said
        )
        assert tokens == sum(int(number) for number, _, _ in grids)
        static, modelled = (
            float(re.search(rf"([\d.]+) bits a token  {name}", said)[1]) for name in ("a static", "the entropy")
        )
        assert static * tokens == pytest.approx(sum(int(n) * float(bits) for n, bits, _ in grids), rel=1e-3)
        assert modelled * tokens == pytest.approx(sum(int(n) * float(bits) for n, _, bits in grids), rel=1e-3)
        maps = coded - modelled * tokens
        assert 0 < maps < 0.2 * coded

    def test_models_without_tokens_are_refused(self, photo, tmp_path, capsys):
        Image.fromarray(photo[:64, :64]).save(tmp_path / "photo.png")
        assert token_costs.main([str(tmp_path / "photo.png"), "-m", "fast"]) == 2
        assert "fast has no tokens" in capsys.readouterr().err

    def test_bits_are_compared_with_forward_for_latents_alone(self, photo, weights):
        with pytest.raises(UsageError, match="vqgan does not code pictures as latents"):
            agreement([photo], "vqgan")


class TestLowRates:
    @pytest.fixture
    def curve(self) -> Curve:
        return Curve("pixa:vqgan", "", {"bpp": [0.01, 0.04, 0.16], "lpips": [0.5, 0.3, 0.2]})

    def test_lines_run_over_the_logarithm_of_the_rate(self, curve):
        assert low_rates.at(curve, "lpips", 0.02) == pytest.approx(0.4)
        assert low_rates.at(curve, "lpips", 0.04) == pytest.approx(0.3)
        assert low_rates.at(curve, "lpips", 0.009) is None
        assert low_rates.at(curve, "lpips", 0.17) is None

    def test_codecs_stand_beside_each_other_at_equal_rates(self, photo, weights, tmp_path, capsys, monkeypatch):
        monkeypatch.delenv("PIXA_LPIPS_BACKBONE", raising=False)
        monkeypatch.setattr(low_rates, "SWEEPS", {"pixa:vqgan": (0, 100), "jpeg": (5, 20)})
        Image.fromarray(photo).save(tmp_path / "photo.png")
        assert low_rates.main([str(tmp_path / "photo.png"), "-o", str(tmp_path / "found")]) == 0
        said = capsys.readouterr().out
        small, large = (pixa.encode(photo, quality, model="vqgan") for quality in (0, 100))
        pixels = photo.shape[0] * photo.shape[1]
        row = next(line for line in said.splitlines() if line.startswith("| pixa:vqgan | "))
        shown = [cell.strip() != "" for cell in row.split("|")[2:-1]]
        assert shown == [8 * len(small) <= rate * pixels <= 8 * len(large) for rate in low_rates.RATES]
        psnr = psnr_rgb(photo, CODECS["jpeg"].decode(CODECS["jpeg"].encode(photo, 5)))
        assert f"| {psnr:.1f} |" in said.partition("of the smallest files")[2]
        assert (tmp_path / "found" / "rd-psnr-rgb.png").stat().st_size > 0

    def test_a_folder_without_pictures_is_refused(self, tmp_path, capsys):
        assert low_rates.main([str(tmp_path), "-o", str(tmp_path / "found")]) == 2
        assert "no picture" in capsys.readouterr().err
