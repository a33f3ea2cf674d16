"""What the page says of pictures, files and clips, without the page."""

import csv
import io
import json
import math
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

import pixa
from pixa.app.bench.codecs import pixa_codecs
from pixa.app.bench.curves import Curve
from pixa.app.bench.measurements import Job, measure, read_picture
from pixa.app.page import batch, comparison, figures, live_curves
from pixa.app.page.clips import list_video_models
from pixa.app.page.comparison import FREE, ORIGINAL, SAME_PSNR, SAME_SIZE, Result, Subject, compare
from pixa.app.page.heatmap import ERROR_GAIN, bit_map, block_bits, error_map, palette
from pixa.app.page.uploads import MAX_FILES, Upload, read_batch, read_samples, read_upload
from pixa.errors import LimitExceeded, UnsupportedInput
from pixa.image.picture import ImageEncoder

PIXA, JPEG = ("pixa:fast", 40), ("jpeg", 30)
GROUPS = ("psnr", "ms-ssim", "ssimulacra2")


def png(samples):
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def photo(chelsea):
    return np.ascontiguousarray(chelsea[20:212, 90:282])


@pytest.fixture
def subject(photo):
    return Subject("cat.png", png(photo), photo)


@pytest.mark.parametrize(("codec", "quality"), [PIXA, JPEG, ("webp", 50)])
def test_figures_are_those_of_the_benchmark_to_the_last_digit(subject, photo, tmp_path, codec, quality):
    path = tmp_path / "cat.png"
    path.write_bytes(png(photo))
    row = measure(Job("", codec, "", quality, path, GROUPS, 1))
    result = subject.result(codec, quality)
    for group in GROUPS:
        subject.measure(result, group)
    fields = [field for field in result.row if not field.endswith("_time")]
    assert {"bytes", "bpp", "psnr-rgb", "ms-ssim-rgb", "ssimulacra2"} <= set(fields)
    assert {field: result.row[field] for field in fields} == {field: row[field] for field in fields}


def test_turned_grey_and_cmyk_pictures_are_measured_as_the_benchmark_reads_them(photo, tmp_path):
    upright = Image.fromarray(photo[:, :120])
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = io.BytesIO()
    upright.rotate(90, expand=True).save(sideways, "JPEG", quality=95, exif=exif)
    cmyk = io.BytesIO()
    upright.convert("CMYK").save(cmyk, "TIFF")
    for name, data in (
        ("turned.jpg", sideways.getvalue()),
        ("ink.tif", cmyk.getvalue()),
        ("grey.png", png(photo[:, :120, 0])),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        samples = read_samples(Upload(name, data))
        assert samples.shape == (192, 120, 3) and (read_picture(path) == samples).all()
    turned = read_picture(tmp_path / "turned.jpg").astype(int)
    assert abs(turned - photo[:, :120]).mean() < 5


def test_what_the_table_shows_is_what_was_measured(subject):
    left, right = compare(subject, JPEG, PIXA)
    html = figures.table(left, right, len(subject.original.data))
    for result in (left, right):
        assert f'title="{len(result.data):,} bytes"' in html
        assert f'title="{result.row["psnr-rgb"]!r}"' in html
        assert f"{len(result.data) / len(subject.original.data):.2%}" in html
    assert html.count("measuring") == 4
    assert [None for _ in subject.measure_shown(("ms-ssim", "ssimulacra2"))] == [None] * 4
    assert "measuring" not in figures.table(left, right, 1)


def test_nobody_waits_for_metrics_of_a_pair_that_is_gone(subject):
    compare(subject, JPEG, PIXA)
    metrics = subject.measure_shown(("ms-ssim",))
    next(metrics)
    compare(subject, JPEG, ("pixa:fast", 10))
    assert list(metrics) == []
    subject.leave()
    assert list(subject.measure_shown(("ms-ssim",))) == []


@pytest.mark.parametrize("leader", [0, 1])
def test_same_size_takes_the_best_quality_that_is_not_larger(subject, leader):
    sides = compare(subject, JPEG, PIXA, SAME_SIZE, leader)
    leading, following = sides[leader], sides[1 - leader]
    assert (leading.codec, leading.quality) == (JPEG, PIXA)[leader]
    assert len(following.data) <= len(leading.data) < len(subject.result(following.codec, following.quality + 1).data)


@pytest.mark.parametrize("leader", [0, 1])
def test_same_psnr_takes_the_lowest_quality_that_is_not_worse(subject, leader):
    sides = compare(subject, JPEG, PIXA, SAME_PSNR, leader)
    leading, following = (sides[i].row["psnr-rgb"] for i in (leader, 1 - leader))
    below = subject.result(sides[1 - leader].codec, sides[1 - leader].quality - 1)
    assert below.row["psnr-rgb"] < leading <= following


def test_the_original_follows_nobody(subject):
    left, right = compare(subject, (ORIGINAL, 0), PIXA, SAME_SIZE, 1)
    assert (left.data, right.quality) == (subject.original.data, PIXA[1])
    assert "wins" not in figures.table(left, right, 1) and figures.verdict(left, right) == ""


@pytest.mark.parametrize(
    ("smaller", "psnrs", "said"),
    [
        (2, (30.0, 33.5), "At about the same size, <b>pixa fast</b> is clearly nearer to the original (3.50 dB)."),
        (2, (30.4, 30.0), "At about the same size, <b>JPEG</b> is nearer to the original (0.40 dB)."),
        (0, (30.0, 30.0), "Both files are about equally large, and both are equally near to the original."),
        (40, (30.1, 30.0), "<b>pixa fast</b> is 40% smaller, and both are equally near to the original."),
        (40, (30.0, 31.2), "<b>pixa fast</b> is 40% smaller and clearly nearer to the original (1.20 dB)."),
        (40, (30.5, 30.0), "<b>pixa fast</b> is 40% smaller, <b>JPEG</b> nearer to the original (0.50 dB)."),
        (40, (None, 30.0), "<b>pixa fast</b> is 40% smaller."),
    ],
)
def test_the_verdict_says_who_is_smaller_and_who_is_nearer(photo, smaller, psnrs, said):
    left = Result("jpeg", 0, b"", photo, {"bytes": 1000, "psnr-rgb": psnrs[0]})
    right = Result("pixa:fast", 0, b"", photo, {"bytes": 1000 - 10 * smaller, "psnr-rgb": psnrs[1]})
    assert figures.verdict(left, right) == said


def test_a_second_search_codes_fewer_levels(subject, monkeypatch):
    levels = []
    encode = ImageEncoder.encode
    monkeypatch.setattr(
        ImageEncoder, "encode", lambda self, level, effort: levels.append(level) or encode(self, level, effort)
    )
    compare(subject, ("jpeg", 40), PIXA, SAME_SIZE, 0)
    first = len(levels)
    compare(subject, ("jpeg", 46), PIXA, SAME_SIZE, 0)
    assert 0 < len(levels) - first < first < 8 and len(set(levels)) == len(levels)


def test_little_is_kept_of_many_large_results(subject, monkeypatch):
    monkeypatch.setattr(comparison, "KEPT_BYTES", 0)
    for quality in range(10, 60, 10):
        subject.result("jpeg", quality)
    assert len(subject.results) == 2


def test_the_error_map_shines_where_a_pixel_differs(photo):
    other = photo.copy()
    other[5, 7, 1] ^= 16
    shown = error_map(photo, other)
    assert (shown[5, 7] == palette()[16 * ERROR_GAIN]).all()
    shown[5, 7] = palette()[0]
    assert (shown == palette()[0]).all()


def test_the_bits_of_all_blocks_are_those_of_the_file(photo):
    flat = np.concatenate([photo[:, :96], np.full((192, 101, 3), 90, np.uint8)], 1)
    decoder = pixa.Decoder(pixa.encode(flat, quality=70))
    bits = block_bits(decoder)
    assert bits.shape == (12, 13)
    assert bits.sum() / 8 == pytest.approx(sum(map(len, decoder.tiles)), rel=0.01)
    assert bits[:, :5].mean() > 5 * bits[:, 8:].mean()
    assert bit_map(bits, 192, 197).shape == flat.shape


def test_the_parts_of_a_file_add_up(photo):
    data = pixa.encode(np.concatenate([photo] * 6, 1), quality=20)
    decoder = pixa.Decoder(data)
    html = figures.file_parts(decoder, block_bits(decoder))
    assert html.count("<td>TILE</td>") == 2 and "128 x 192 pixels at 1024, 0" in html


@pytest.fixture
def folder(tmp_path):
    """A manifest with a model of each kind; no weights are needed to choose among them."""
    entry = {
        "tag": "1",
        "tune": "psnr",
        "hash": "00000000",
        "description": "",
        "decode_kmac_per_pixel": 1.0,
        "parameters": 1,
    }
    entry |= {"analysis_halo": 4, "synthesis_halo": 4, "decoder": [], "encoder": []}
    kinds = {
        "fast": {"can": ["pictures", "key frames"]},
        "stem": {"coding": "inter", "can": ["inter frames"], "key_model": "fast.2"},
        "vqgan": {"coding": "tokens", "can": ["pictures"]},
    }
    models = [{"name": name, "wire_id": i, **entry, **kind} for i, (name, kind) in enumerate(kinds.items(), 1)]
    (tmp_path / "manifest.json").write_text(json.dumps({"models": models}))
    return tmp_path


@pytest.mark.usefixtures("installed")
def test_models_are_offered_for_what_they_code():
    assert list(pixa_codecs()) == ["pixa:fast", "pixa:vqgan"]
    assert list(list_video_models()) == ["stem", "fast"]


def test_nothing_but_the_page_itself_loads_its_libraries():
    parts = "batch, clips, comparison, figures, heatmap, live_curves, uploads"
    code = f"import sys, pixa.cli, pixa.app.bench; from pixa.app.page import {parts}; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"gradio", "matplotlib", "torch", "av"} & set(modules)


def test_names_are_escaped():
    assert "<img" not in figures.rows_table(("a",), [("<img src=x>",)]) + figures.facts("<img src=x>")


def test_a_picture_of_100_megapixels_is_refused_by_its_header():
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    with pytest.raises(LimitExceeded, match=r"large\.png has 100 megapixels.*up to 16"):
        read_samples(Upload("large.png", file.getvalue()))


@pytest.mark.parametrize("data", [b"", b"MZ\x90\0" + bytes(200), b"\x7fELF" + bytes(200), bytes(range(256)) * 9])
def test_what_is_no_picture_is_refused_by_name(data):
    with pytest.raises(UnsupportedInput, match=r"holiday\.jpg: .*(not a picture|empty)"):
        read_samples(Upload("holiday.jpg", data))


def test_a_cut_picture_is_refused(photo):
    with pytest.raises(UnsupportedInput, match="broken or cut"):
        read_samples(Upload("cut.png", png(photo)[:3000]))


def test_grey_and_transparent_pictures_become_rgb(photo):
    assert read_samples(Upload("grey.png", png(photo[:, :, 0]))).shape == photo.shape
    rgba = np.dstack([photo, np.full(photo.shape[:2], 77, np.uint8)])
    assert (read_samples(Upload("rgba.png", png(rgba))) == photo).all()


def archive(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries:
            file.writestr(name, data)
    return path


def test_a_folder_and_an_archive_become_a_table_and_an_archive(photo, tmp_path):
    (tmp_path / "a.png").write_bytes(png(photo))
    (tmp_path / "notes.txt").write_text("no picture")
    packed = archive(
        tmp_path / "more.zip", [("deep/a.png", png(photo[:64])), ("deep/bad.jpg", b"no"), ("x.exe", b"MZ")]
    )
    result = io.BytesIO()
    paths = [tmp_path / "a.png", tmp_path / "notes.txt", packed]
    *_, rows = batch.encode_all(read_batch(paths), "pixa:fast", 50, result)
    assert [row["file"] for row in rows] == ["a.png", "deep/a.png", "deep/bad.jpg"]
    assert "not a picture" in rows[2]["error"] and "1 could not be taken" in batch.summary(rows)
    with zipfile.ZipFile(result) as results:
        assert sorted(results.namelist()) == ["a.pixa", "deep/a.pixa", "results.csv"]
        assert results.read("a.pixa") == pixa.encode(photo, quality=50)
        table = list(csv.DictReader(io.StringIO(results.read("results.csv").decode())))
    assert [row["bytes"] for row in table] == [str(row["bytes"]) for row in rows]
    assert all(len(batch.display(row)) == len(batch.HEADER) for row in rows)


def test_results_stay_in_the_archive_and_apart():
    taken = set()
    names = [batch.target_name(name, taken) for name in ("../../etc/a.png", "/etc/a.jpg", "C:\\etc\\b.png", "a.b.png")]
    assert names == ["etc/a.pixa", "etc/a-2.pixa", "etc/b.pixa", "a.b.pixa"]


def test_an_archive_that_unfolds_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    bomb = archive(tmp_path / "bomb.zip", [("a.png", bytes(65 << 20))])
    assert bomb.stat().st_size < 1 << 20
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(LimitExceeded, match="65 MiB"):
        list(read_batch([bomb]))


def test_too_many_pictures_are_refused(tmp_path):
    many = archive(tmp_path / "many.zip", [(f"{i}.png", b"") for i in range(MAX_FILES + 1)])
    with pytest.raises(LimitExceeded, match=str(MAX_FILES)):
        list(read_batch([many]))


def test_a_broken_archive_is_refused(tmp_path):
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(UnsupportedInput, match=r"broken\.zip"):
        list(read_batch([tmp_path / "broken.zip"]))


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "large.bmp").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(LimitExceeded, match=r"large\.bmp has 65 MiB"):
        read_upload(tmp_path / "large.bmp")


def test_curves_grow_and_can_be_taken_away(subject, tmp_path):
    steps = list(live_curves.measure_curves(subject, ["pixa:fast", "jpeg"], 3, "psnr"))
    assert [step.done for step in steps] == [1, 2, 3, 4, 5, 6] and steps[-1].total == 6
    curves = steps[-1].curves
    ours = curves[0].points("psnr-rgb")
    assert len(ours[0]) == 3 and ours[0][0] == subject.result("pixa:fast", 0).row["bpp"]
    rows = live_curves.bd_rows(curves, "jpeg", "psnr-rgb")
    assert [row[0] for row in rows] == ["pixa fast"] and rows[0][1].startswith("-")
    curves[0].write(tmp_path)
    assert Curve.read(tmp_path / "pixa-fast.json").results == curves[0].results
    entries = json.loads(live_curves.as_json(curves, "cat.png"))["curves"]
    assert [entry["results"] for entry in entries] == [curve.results for curve in curves]
    table = list(csv.DictReader(io.StringIO(live_curves.as_csv(curves).decode())))
    assert [float(row["psnr-rgb"]) for row in table[:3]] == curves[0].results["psnr-rgb"]
    assert (
        live_curves.draw(curves, "psnr-rgb", live_curves.marks([subject.result(*JPEG)], "psnr-rgb")).count(b"<svg") == 1
    )


def test_a_codec_that_fails_at_a_quality_is_named_and_left_out(subject, monkeypatch):
    fails = lambda codec, quality: 1 / 0 if codec == "jpeg" else Subject.result(subject, codec, quality)
    monkeypatch.setattr(subject, "result", fails)
    *_, last = live_curves.measure_curves(subject, ["webp", "jpeg"], 2, "psnr")
    assert len(last.failures) == 2 and "JPEG failed at quality 4" in last.failures[0]
    assert [len(curve.results["bpp"]) for curve in last.curves] == [2, 0]


def test_curves_stop_when_their_time_is_over(subject, monkeypatch):
    monkeypatch.setattr(live_curves, "LIMIT_SECONDS", -1)
    steps = list(live_curves.measure_curves(subject, ["jpeg", "webp"], 9, "psnr"))
    assert len(steps) == 1 and "stopped" in steps[0].failures[0]


def test_marks_are_where_the_curve_has_them(subject):
    result = subject.result("jpeg", 42)
    subject.measure(result, "ms-ssim")
    ((name, rate, value),) = live_curves.marks([subject.original, result], "ms-ssim-rgb")
    assert (name, rate) == ("jpeg", result.row["bpp"])
    assert value == pytest.approx(-10 * math.log10(1 - result.row["ms-ssim-rgb"]))


def test_the_stored_curves_can_be_compared():
    curves = live_curves.stored_curves()
    assert {"pixa:fast", "jpeg", "webp", "avif"} <= {curve.name for curve in curves}
    assert len(live_curves.bd_rows(curves, "jpeg", "psnr-rgb")) == len(curves) - 1


def test_searching_for_too_long_is_given_up(subject, monkeypatch):
    monkeypatch.setattr(comparison, "SEARCH_SECONDS", -1)
    with pytest.raises(LimitExceeded, match="unlock"):
        compare(subject, JPEG, PIXA, SAME_SIZE, 1)
    compare(subject, JPEG, PIXA, FREE, 1)
