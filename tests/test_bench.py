"""The benchmark and its siblings: BD-rates, files written, resuming, and what a user is told."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixa.app.bench import costs, measurements, showcase
from pixa.app.bench import pictures as bench
from pixa.app.bench.codecs import CODECS, PillowCodec
from pixa.app.bench.costs import COSTS
from pixa.app.bench.curves import Curve
from pixa.app.bench.metrics import psnr_rgb
from pixa.app.bench.pictures import main, run
from pixa.errors import UsageError


def read_rows(folder: Path) -> list[dict]:
    with (folder / "rows.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def sizes_and_psnrs(folder: Path) -> list[tuple]:
    fields = ("picture", "codec", "quality", "bytes", "bpp", "psnr-rgb", "psnr-ycbcr")
    return [tuple(row[field] for field in fields) for row in read_rows(folder)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder of two small pictures of different shape, and a text file."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "notes.txt").write_text("not a picture")
    for name, (height, width) in {"a": (48, 64), "b": (70, 50)}.items():
        y, x = np.mgrid[:height, :width]
        waves = 128 + 60 * np.sin(x / 5 + y / 9) + 40 * np.cos(x * y / 200)
        noise = np.random.default_rng(width).normal(0, 6, (height, width, 3))
        samples = np.clip(waves[:, :, None] + [20, 0, -20] + noise, 0, 255).astype(np.uint8)
        Image.fromarray(samples).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def free(monkeypatch):
    """No process is started to find what a codec costs."""
    monkeypatch.setattr(bench, "measure_costs", lambda job: job.row | dict.fromkeys(COSTS))


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory) -> Path:
    """The output of a complete run."""
    folder = tmp_path_factory.mktemp("finished")
    run([pictures], ["jpeg", "webp"], folder)
    return folder


def test_a_run_writes_results_table_and_plots(finished):
    assert {path.name for path in finished.iterdir()} == {
        *("jpeg.json", "webp.json", "rows.csv", "bench.md", "measurements.jsonl"),
        *("rd-psnr-rgb.png", "rd-psnr-rgb.svg", "rd-psnr-ycbcr.png", "rd-psnr-ycbcr.svg"),
    }
    with Image.open(finished / "rd-psnr-rgb.png") as figure:
        assert figure.convert("L").getextrema()[0] < 128
    assert "| webp | " in (finished / "bench.md").read_text()
    assert "+0.0%" in (finished / "bench.md").read_text()


def test_results_are_means_in_the_schema_of_compressai(finished):
    results = json.loads((finished / "jpeg.json").read_text())
    assert results["name"] == "jpeg"
    assert set(results) == {"name", "description", "results"}
    assert set(results["results"]) == {"bpp", "psnr-rgb", "psnr-ycbcr", "encoding_time", "decoding_time"}
    rows = [row for row in read_rows(finished) if row["codec"] == "jpeg"]
    for index, quality in enumerate(CODECS["jpeg"].qualities):
        at_quality = [row for row in rows if float(row["quality"]) == quality]
        assert len(at_quality) == 2
        for field in ("bpp", "psnr-rgb"):
            mean = sum(float(row[field]) for row in at_quality) / 2
            assert results["results"][field][index] == pytest.approx(mean)


def test_points_are_spread_over_the_sweep(pictures, tmp_path):
    run([pictures], ["jpeg"], tmp_path, anchor="jpeg", points=3)
    sweep = CODECS["jpeg"].qualities
    assert {float(row["quality"]) for row in read_rows(tmp_path)} == {sweep[0], sweep[len(sweep) // 2], sweep[-1]}


def test_rows_hold_the_size_of_the_whole_file_and_the_quality_of_the_decoded_picture(pictures, finished):
    wanted = {"picture": "b.png", "codec": "webp", "quality": "48"}
    row = next(row for row in read_rows(finished) if wanted.items() <= row.items())
    samples = np.asarray(Image.open(pictures / "b.png"))
    data = CODECS["webp"].encode(samples, 48)
    assert int(row["bytes"]) == len(data)
    assert float(row["bpp"]) == pytest.approx(8 * len(data) / (50 * 70))
    assert float(row["psnr-rgb"]) == pytest.approx(psnr_rgb(samples, CODECS["webp"].decode(data)))


def test_a_second_run_measures_nothing(pictures, finished, monkeypatch):
    before = (finished / "bench.md").read_text()
    monkeypatch.setattr(measurements, "time_coding", lambda *_: pytest.fail("a file was made again"))
    monkeypatch.setattr(costs, "in_new_process", lambda *_: pytest.fail("the memory was measured again"))
    assert run([pictures], ["jpeg", "webp"], finished).table == before


def test_another_metric_keeps_what_was_measured(pictures, finished, tmp_path, free, monkeypatch):
    (tmp_path / "measurements.jsonl").write_text((finished / "measurements.jsonl").read_text())
    run([pictures], ["jpeg", "webp"], tmp_path, metrics=["ms-ssim"])
    monkeypatch.setattr(measurements, "time_coding", lambda *_: pytest.fail("a file was made again"))
    run([pictures], ["jpeg", "webp"], tmp_path, metrics=["psnr", "ms-ssim"])
    assert sizes_and_psnrs(tmp_path) == sizes_and_psnrs(finished)


def test_a_killed_run_resumes_and_equals(pictures, finished, tmp_path, free, monkeypatch):
    lines = (finished / "measurements.jsonl").read_text().splitlines(keepends=True)
    half = len(lines) // 2
    (tmp_path / "measurements.jsonl").write_text("".join(lines[:half]) + lines[half][:40])
    made = []
    time_coding = measurements.time_coding
    monkeypatch.setattr(measurements, "time_coding", lambda *job: made.append(job) or time_coding(*job))
    run([pictures], ["jpeg", "webp"], tmp_path)
    assert sizes_and_psnrs(tmp_path) == sizes_and_psnrs(finished)
    known = {line.strip() for line in lines[:half]} - {""}
    assert len(made) == len(read_rows(finished)) - len(known)


def test_a_changed_picture_is_measured_again(finished, tmp_path, free):
    samples = np.full((48, 64, 3), 90, np.uint8)
    Image.fromarray(samples).save(tmp_path / "a.png")
    (tmp_path / "measurements.jsonl").write_text((finished / "measurements.jsonl").read_text())
    run([tmp_path / "a.png"], ["jpeg"], tmp_path, anchor="jpeg")
    assert int(read_rows(tmp_path)[0]["bytes"]) == len(CODECS["jpeg"].encode(samples, CODECS["jpeg"].qualities[0]))


def test_two_processes_give_the_same_numbers_and_no_times(pictures, finished, tmp_path):
    table = run([pictures], ["jpeg", "webp"], tmp_path, processes=2).table
    assert sizes_and_psnrs(tmp_path) == sizes_and_psnrs(finished)
    assert re.search(r"\n\| jpeg \| - \| - \| \d+ \| \d+ \| - \| - \| - \|\n", table)
    assert re.search(r"\n\| jpeg \| \d\.\d{3} \| \d\.\d{3} \| \d+ \|", (finished / "bench.md").read_text())


def test_a_codec_that_fails_is_named_and_the_rest_goes_on(pictures, tmp_path, free, monkeypatch, capsys):
    monkeypatch.setitem(CODECS, "fragile", PillowCodec("WEBP", "fails at 200", (10, 60, 90, 200), feature="webp"))
    assert main([str(pictures), "-o", str(tmp_path), "--codecs", "fragile,jpeg", "--anchor", "jpeg"]) == 1
    out, error = capsys.readouterr()
    assert error.count(" failed on ") == 2
    assert "fragile failed on a.png at quality 200: " in error
    assert len(json.loads((tmp_path / "fragile.json").read_text())["results"]["bpp"]) == 3
    assert re.search(r"\| fragile \| [\d.-]+ \| [+-][\d.]+% ", out)


def test_a_codec_that_always_fails_breaks_nothing(pictures, tmp_path, free, monkeypatch, capsys):
    monkeypatch.setitem(CODECS, "broken", PillowCodec("WEBP", "fails", (200,), feature="webp"))
    assert main([str(pictures), "-o", str(tmp_path), "--codecs", "broken", "--anchor", "broken"]) == 1
    assert "| broken | - | - | - | fails |" in capsys.readouterr().out
    assert (tmp_path / "rd-psnr-rgb.png").exists()


def test_a_lossless_point_is_null_and_breaks_nothing(tmp_path, free):
    Image.new("RGB", (64, 64), (128, 128, 128)).save(tmp_path / "grey.png")
    table = run([tmp_path], ["jpeg", "webp"], tmp_path / "out").table
    text = (tmp_path / "out" / "jpeg.json").read_text()
    results = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["results"]
    assert None in results["psnr-rgb"]
    assert None not in results["bpp"]
    assert "| jpeg |" in table


def test_a_terminal_sees_a_bar_and_a_file_does_not(pictures, tmp_path, free, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    run([pictures], ["jpeg"], tmp_path / "file", anchor="jpeg")
    assert "%|" not in capsys.readouterr().err
    monkeypatch.setattr(sys, "stderr", Terminal())
    run([pictures], ["jpeg"], tmp_path / "terminal", anchor="jpeg")
    assert re.search(r"files: +\d+%\|.*\| \d+/26 \[.*<", sys.stderr.getvalue())


def test_published_curves_stand_in_the_table_and_can_be_the_anchor(pictures, finished, tmp_path, capsys):
    curve = tmp_path / "vtm.json"
    Curve("VTM", "a published curve", {"bpp": [0.5, 2.0, 5.0], "psnr-rgb": [26.0, 32.0, 40.0]}).write(tmp_path)
    (tmp_path / "VTM.json").rename(curve)
    command = [str(pictures), "-o", str(finished), "--codecs", "jpeg,webp", "--anchor", "VTM", "--curves", str(curve)]
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "| VTM (published) | 0.50-5.00 | +0.0% (14.0) | - | a published curve |" in table
    assert "against VTM (published)" in table


def test_a_codec_that_is_not_installed_is_left_out_and_named(pictures, finished, monkeypatch, capsys):
    absent = PillowCodec("NONE", "", (1,), plugin="no_module_of_this_name", package="no-package-of-this-name")
    monkeypatch.setitem(CODECS, "absent", absent)
    table = run([pictures], ["jpeg", "webp", "absent"], finished).table
    assert "absent is left out: it needs pip install no-package-of-this-name" in capsys.readouterr().err
    assert "absent" not in table


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{pictures}", "--codecs", "jpg"], 2, "no codec is called 'jpg'"),
        (["{pictures}", "--codecs", "jpeg", "--anchor", "vtm"], 2, "anchor 'vtm'"),
        (["{pictures}", "--codecs", "jpeg", "--anchor", "jpeg", "--metrics", "vmaf"], 2, "no metric is called 'vmaf'"),
        (["{pictures}", "--codecs", "jpeg", "--anchor", "jpeg", "-j", "0"], 2, "0 processes"),
        (["{pictures}/none"], 2, "does not exist"),
        (["{pictures}/notes.txt", "--codecs", "jpeg", "--anchor", "jpeg"], 1, "not a picture"),
        (["{pictures}", "--curves", "{pictures}/notes.txt"], 2, "no file of rate-distortion results"),
        (["{pictures}", "--codecs", "pixa:none"], 5, "no model is called 'none'"),
    ],
)
def test_wrong_input_ends_in_one_line(arguments, code, message, pictures, tmp_path, capsys):
    arguments = [argument.format(pictures=pictures) for argument in arguments]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_showcase_compares_at_one_size_and_draws_it(photo, tmp_path, capsys):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    sheet = tmp_path / "sheet.png"
    assert showcase.main([str(tmp_path / "photo.png"), "-o", str(sheet)]) == 0
    cells = [line.split() for line in capsys.readouterr().out.splitlines()[2:6]]
    sizes = {name: int(size.replace(",", "")) for name, size, *_ in cells}
    assert list(sizes) == ["pixa", "JPEG", "WebP", "AVIF"]
    assert all(0.9 * sizes["pixa"] < size <= 1.02 * sizes["pixa"] for size in sizes.values())
    with Image.open(sheet) as image:
        left, top = showcase.EDGE, showcase.CAPTION
        shown = np.asarray(image.crop((left, top, left + photo.shape[1], top + photo.shape[0])))
    assert np.array_equal(shown, photo)


def test_a_missing_extra_is_named(pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(UsageError, match=r"pip install 'pixa\[bench\]'"):
        run([pictures], ["jpeg"], tmp_path, anchor="jpeg")


def test_importing_the_programs_loads_nothing_heavy():
    program = "import sys, pixa.app.bench.pictures, pixa.app.bench.showcase, pixa.app.bench.speed; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "pixa.app.bench.pictures" in loaded
    assert not {"matplotlib", "scipy", "tqdm", "onnx", "torch", "compressai", "onnxruntime"} & set(loaded)
