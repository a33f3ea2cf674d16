"""What the command line promises, one test each."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import pixa
from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import Chunk, write_file
from pixa.bitstream.headers import Head
from pixa.cli.program import byte_count
from pixa.models.registry import find_model


def scene(width=128, height=96):
    """A smooth RGB picture (height, width, 3)."""
    y, x = np.mgrid[:height, :width] / 40
    return np.stack([127 + 120 * np.sin(x + y), 127 + 100 * np.cos(y), 40 + 60 * x], 2).clip(0, 255).astype(np.uint8)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(scene()).save(path)
    return path


@pytest.fixture(scope="module")
def coded():
    """The bytes of a coded scene."""
    return pixa.encode(scene(), quality=60)


@pytest.fixture
def packed(tmp_path, coded):
    path = tmp_path / "packed.pixa"
    path.write_bytes(coded)
    return path


def header(**fields):
    """A file of a header and one empty tile."""
    entry = find_model("fast")
    values = {"width": 64, "height": 64, "colour": 1, "alpha": 0, "level": 120, "tile_log2": 10}
    values |= {"model": entry.wire_id, "model_hash": int(entry.hash, 16)} | fields
    return write_file([Chunk(ChunkType.HEAD, Head(**values).write()), Chunk(ChunkType.TILE, b"")])


def records(out):
    return [json.loads(line) for line in out.splitlines()]


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


def modules_after(*arguments):
    """The modules that a command line has loaded when it ends."""
    script = "import sys; from pixa.cli import main; code = main(sys.argv[1:]); print(*sys.modules); sys.exit(code)"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_a_picture_goes_there_and_back_beside_itself(run, photo):
    assert run("encode", photo)[0] == 0
    photo.unlink()
    assert run("decode", photo.with_suffix(".pixa"))[0] == 0
    assert psnr(np.asarray(Image.open(photo)), scene()) > 30
    assert sorted(os.listdir(photo.parent)) == ["photo.pixa", "photo.png"]


def test_o_names_the_result(run, photo, tmp_path):
    assert run("encode", photo, "-o", tmp_path / "x.bin")[0] == 0
    assert run("decode", tmp_path / "x.bin", "-o", tmp_path / "y.jpg")[0] == 0
    assert Image.open(tmp_path / "y.jpg").format == "JPEG"


def test_o_with_an_unknown_suffix_is_a_usage_error(run, packed, tmp_path):
    code, _, err = run("decode", packed, "-o", tmp_path / "y.docx")
    assert code == 2 and len(err) == 1 and ".png" in err[0]


def test_format_names_the_format_of_the_results(run, packed):
    assert run("decode", packed, "--format", "webp")[0] == 0
    assert Image.open(packed.with_suffix(".webp")).format == "WEBP"
    assert run("decode", packed, "--format", "gif")[0] == 2


def test_o_takes_one_input_only(run, photo, packed, tmp_path):
    code, _, err = run("encode", photo, photo, "-o", tmp_path / "x.pixa")
    assert code == 2 and len(err) == 1 and "--output-dir" in err[0]


def test_files_that_exist_are_kept_without_force(run, photo):
    target = photo.with_suffix(".pixa")
    target.write_bytes(b"mine")
    code, _, err = run("encode", photo)
    assert code == 1 and len(err) == 1 and "-f" in err[0]
    assert target.read_bytes() == b"mine"
    assert run("encode", photo, "-f")[0] == 0
    assert pixa.info(target.read_bytes())["width"] == 128


def test_the_input_is_never_replaced(run, photo):
    before = photo.read_bytes()
    assert run("encode", photo, "-o", photo, "-f")[0] == 1
    assert photo.read_bytes() == before


def test_folders_are_mirrored(run, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png"):
        Image.fromarray(scene(64, 64)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    assert run("encode", "-r", tmp_path / "in", "--output-dir", tmp_path / "out")[0] == 0
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("out/**/*.*")) == [
        "out/a.pixa",
        "out/deep/b.pixa",
    ]
    assert run("decode", "-r", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "deep" / "b.png").exists()


def test_a_folder_without_pictures_is_an_error(run, tmp_path):
    code, _, err = run("encode", "-r", tmp_path)
    assert code == 1 and len(err) == 1


def test_two_inputs_for_one_result_are_refused_before_any_work(run, photo):
    Image.fromarray(scene(64, 64)).save(photo.with_suffix(".jpg"))
    code, _, err = run("encode", photo, photo.with_suffix(".jpg"))
    assert code == 2 and len(err) == 1
    assert not photo.with_suffix(".pixa").exists()


def test_a_failure_does_not_stop_the_rest_and_gives_the_exit_code(run, photo, packed, tmp_path):
    broken = tmp_path / "broken.pixa"
    broken.write_bytes(packed.read_bytes()[:-1])
    text = tmp_path / "text.pixa"
    text.write_text("hello")
    code, _, err = run("decode", "--quiet", broken, text, packed)
    assert code == 4 and len(err) == 2
    assert packed.with_suffix(".png").exists()


def test_standard_streams(run, monkeypatch, photo, coded):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(photo.read_bytes())))
    code, out, _ = run("encode", "-")
    assert code == 0 and pixa.info(out)["width"] == 128
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(out)))
    code, out, _ = run("decode", "-", "-o", "-", "--format", "webp")
    assert code == 0 and Image.open(io.BytesIO(out)).format == "WEBP"
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(coded)))
    assert run("info", "--json", "-")[0] == 0


def test_json_and_a_file_do_not_share_standard_output(run, photo):
    code, out, err = run("encode", photo, "-o", "-", "--json")
    assert (code, out, len(err)) == (2, b"", 1)


def test_quality_changes_size_and_defaults_to_60(run, photo, tmp_path):
    sizes = {}
    for quality in ("10", "60", "92.5"):
        _, out, _ = run("encode", photo, "-q", quality, "-o", tmp_path / quality, "--json")
        assert records(out)[0]["quality"] == float(quality)
        sizes[quality] = records(out)[0]["bytes"]
    assert sizes["10"] < sizes["60"] < sizes["92.5"]
    run("encode", photo)
    assert photo.with_suffix(".pixa").stat().st_size == sizes["60"]


def test_targets_are_met(run, photo, tmp_path):
    assert run("encode", photo, "--bpp", "0.6", "-o", tmp_path / "bpp")[0] == 0
    assert 0.3 < pixa.info((tmp_path / "bpp").read_bytes())["bpp"] <= 0.6
    assert run("encode", photo, "--target-size", "1.2K", "-o", tmp_path / "size")[0] == 0
    assert 600 < (tmp_path / "size").stat().st_size <= 1200
    assert run("encode", photo, "--psnr", "33", "-o", tmp_path / "psnr")[0] == 0
    assert psnr(pixa.decode((tmp_path / "psnr").read_bytes()), scene()) >= 32.99


def test_target_out_of_reach_gives_the_smallest_file_and_says_so(run, photo, tmp_path):
    code, _, err = run("encode", photo, "--target-size", "50", "-o", tmp_path / "small")
    assert code == 0
    size = (tmp_path / "small").stat().st_size
    assert size > 50
    assert f"{size} bytes, metadata included, is the smallest file there can be" in err[0]
    run("encode", photo, "-q", "0", "-o", tmp_path / "lowest")
    assert (tmp_path / "lowest").read_bytes() == (tmp_path / "small").read_bytes()


@pytest.mark.parametrize(
    ("text", "size"), [("20000", 20000), ("20K", 20000), ("1.5M", 1500000), ("20KiB", 20480), ("1MiB", 1 << 20)]
)
def test_target_sizes_have_units(text, size):
    assert byte_count(text) == size


@pytest.mark.parametrize(
    "options",
    [
        ["-q", "101"],
        ["-q", "-1"],
        ["-q", "nan"],
        ["-q", "best"],
        ["--bpp", "0"],
        ["--psnr", "-3"],
        ["--target-size", "20X"],
        ["--target-size", "0"],
        ["-e", "10"],
        ["-j", "-1"],
        ["--metadata", "icc,gps"],
        ["-q", "60", "--bpp", "1"],
        ["--psnr", "30", "--target-size", "20K"],
        ["-o", "a", "--output-dir", "b"],
        ["--losless"],
        ["--lossless", "-q", "60"],
    ],
    ids=" ".join,
)
def test_wrong_options_are_usage_errors(run, photo, options):
    code, out, err = run("encode", photo, *options)
    assert (code, out) == (2, b"")
    assert err[-1].startswith("pixa")
    assert os.listdir(photo.parent) == ["photo.png"]


def test_no_command_shows_the_help(run):
    code, out, _ = run()
    assert code == 2 and b"pixa encode photo.jpg" in out


def test_a_wrong_word_is_one_line_with_the_nearest_command(run):
    code, out, err = run("encoed", "photo.png")
    assert (code, out, len(err)) == (2, b"", 1)
    assert "did you mean 'encode'?" in err[0]


@pytest.mark.parametrize("name", ["photo.avif", "clip.MP4"])
def test_the_name_of_another_format_is_refused_without_force(run, photo, tmp_path, name):
    code, _, err = run("encode", photo, "-o", tmp_path / name)
    assert code == 2 and "in spite of its name" in err[-1]
    assert not (tmp_path / name).exists()
    assert run("encode", photo, "-o", tmp_path / name, "-f")[0] == 0


def test_force_keeps_the_permissions_of_what_it_replaces(run, photo, tmp_path):
    target = tmp_path / "private.pixa"
    target.write_bytes(b"")
    target.chmod(0o600)
    assert run("encode", photo, "-o", target, "-f")[0] == 0
    assert target.stat().st_mode & 0o777 == 0o600


def test_files_may_stand_behind_options(run, photo, tmp_path):
    shutil.copy(photo, tmp_path / "second.png")
    words = ["encode", photo, "-q", "50", tmp_path / "second.png", "--output-dir", tmp_path / "packed"]
    assert run(*words)[0] == 0
    assert sorted(os.listdir(tmp_path / "packed")) == ["photo.pixa", "second.pixa"]


def test_the_package_is_a_program():
    done = subprocess.run([sys.executable, "-m", "pixa", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pixa ")


def test_threads_do_not_change_the_file(run, photo, tmp_path):
    for jobs in ("1", "2"):
        assert run("encode", photo, "-j", jobs, "-o", tmp_path / jobs)[0] == 0
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_metadata_is_kept_or_dropped(run, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Image.fromarray(scene()).save(tmp_path / "a.jpg", exif=exif, xmp=b"<x:xmpmeta/>")
    for kinds, kept in (("all", {"exif", "xmp"}), ("none", set()), ("icc,xmp", {"xmp"})):
        run("encode", tmp_path / "a.jpg", "-o", tmp_path / kinds, "--metadata", kinds)
        assert set(pixa.info((tmp_path / kinds).read_bytes())["metadata"]) == kept
    run("decode", tmp_path / "all", "-o", tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").getexif()[0x010F] == "Maker"


def test_transparency_is_exact_and_refused_in_jpeg(run, tmp_path):
    samples = np.dstack([scene(), np.random.default_rng(0).integers(0, 256, (96, 128), np.uint8)])
    Image.fromarray(samples).save(tmp_path / "a.png")
    assert run("encode", tmp_path / "a.png")[0] == 0
    assert run("decode", tmp_path / "a.pixa", "-o", tmp_path / "b.png")[0] == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png"))[:, :, 3], samples[:, :, 3])
    code, _, err = run("decode", tmp_path / "a.pixa", "-o", tmp_path / "b.jpg")
    assert code == 1 and len(err) == 1 and "transparency" in err[0]
    assert not (tmp_path / "b.jpg").exists()


def test_json_is_one_object_a_file(run, photo, packed, tmp_path):
    code, out, err = run("encode", photo, tmp_path / "none.png", "--json")
    done, failed = records(out)
    assert done["output"] == str(photo.with_suffix(".pixa")) and done["bytes"] > 0 and done["model"].startswith("fast")
    assert failed["exit_code"] == code == 1 and len(err) == 1
    for command in ("info", "verify"):
        code, out, err = run(command, packed, photo.with_suffix(".pixa"), "--json")
        assert (code, err) == (0, [])
        assert [record["input"] for record in records(out)] == [str(packed), str(photo.with_suffix(".pixa"))]
    assert records(run("decode", packed, "--json")[1])[0]["width"] == 128
    assert [record["hash"] for record in records(run("models", "--json")[1])].count(find_model("fast").hash) == 1


def test_info_says_what_is_in_the_file(run, packed, coded):
    code, out, err = run("info", packed)
    assert (code, err) == (0, [])
    assert b"128x96" in out and f"{len(coded)} bytes".encode() in out and b"fast" in out
    facts = records(run("info", packed, "--json")[1])[0]
    assert facts["bytes"] == len(coded) and facts["quality"] == 60 and facts["format_version"] == 1


def test_verify_hashes_symbols_and_pixels(run, packed, coded):
    code, out, _ = run("verify", packed)
    assert (code, out.strip()) == (0, f"{packed}: ok".encode())
    record = records(run("verify", packed, "--json")[1])[0]
    assert record["pixels_sha256"] == hashlib.sha256(pixa.decode(coded).tobytes()).hexdigest()
    assert record["symbols_sha256"] == pixa.Decoder(coded).symbols_sha256()


def test_models_are_listed(run):
    code, out, _ = run("models")
    assert code == 0 and find_model("fast").hash.encode() in out


def test_version_names_program_and_format(run):
    code, out, _ = run("--version")
    assert code == 0 and out.decode().strip() == f"pixa {pixa.__version__}, format version 1"


@pytest.mark.parametrize("command", [[], ["encode"], ["decode"], ["info"], ["verify"], ["models"]], ids=" ".join)
def test_help_is_short(run, command):
    code, out, _ = run(*command, "--help")
    assert code == 0 and 5 < len(out.splitlines()) < 60


WRONG = {
    "text file": (b"some text\n" * 9, 1, 3),
    "empty file": (b"", 1, 3),
    "cut PNG": (None, 1, 3),
    "cut file": (lambda coded: coded[: len(coded) // 2], 1, 4),
    "damaged file": (lambda coded: coded[:-20] + bytes([coded[-20] ^ 1]) + coded[-19:], 1, 4),
    "empty tile": (lambda coded: header(), 1, 4),
    "65535x65535": (lambda coded: header(width=65535, height=65535), 1, 6),
    "newer version": (lambda coded: coded[:4] + b"\x02" + coded[5:], 1, 3),
    "unknown model": (lambda coded: header(model=65535), 1, 5),
    "other weights": (lambda coded: header(model_hash=0), 1, 5),
}


def test_decode_keeps_going_without_a_lost_tile_and_says_so(run, tmp_path):
    samples = scene(1100, 48)
    data = pixa.encode(samples, quality=60)
    path, out = tmp_path / "cut.pixa", tmp_path / "cut.png"
    path.write_bytes(data[:-10])
    assert run("decode", path)[0] == 4
    code, _, err = run("decode", path, "--keep-going")
    assert code == 0 and f"pixa: {path}: 1 of 2 tiles are lost and guessed" in err
    shown = np.asarray(Image.open(out))
    assert shown.shape == samples.shape
    assert psnr(shown[:, :960], samples[:, :960]) > 30


def test_models_of_videos_alone_refuse_pictures(run, photo, monkeypatch):
    entry = replace(find_model("fast"), name="between", can=("inter frames",), key_model="fast.2")
    monkeypatch.setattr("pixa.image.picture.find_model", lambda name, tune=None: entry)
    code, _, err = run("encode", photo)
    assert code == 2 and "between codes what changes between the frames of a video" in err[0]


@pytest.mark.parametrize("command", ["encode", "decode", "verify"])
@pytest.mark.parametrize("kind", WRONG)
def test_wrong_input_gives_one_line_and_its_exit_code(run, tmp_path, photo, coded, kind, command):
    content, encode_code, decode_code = WRONG[kind]
    if content is None:
        content = photo.read_bytes()[:-40]
    path = tmp_path / "wrong.pixa"
    path.write_bytes(content(coded) if callable(content) else content)
    name = {"encode": ["-o", tmp_path / "out.pixa"], "decode": ["-o", tmp_path / "out.png"]}.get(command, [])
    code, out, err = run(command, path, *name)
    assert (code, out) == (encode_code if command == "encode" else decode_code, b"")
    assert len(err) == 1 and err[0].startswith(f"pixa: {path}: ")
    assert sorted(os.listdir(tmp_path)) == ["photo.png", "wrong.pixa"]


@pytest.mark.parametrize("command", ["encode", "decode", "info", "verify"])
@pytest.mark.parametrize("kind", ["folder", "missing"])
def test_an_input_that_is_no_file_gives_one_line(run, tmp_path, command, kind):
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    code, out, err = run(command, path)
    assert (code, out) == (1, b"")
    assert len(err) == 1 and err[0].startswith(f"pixa: {path}: ")


def test_the_working_folder_is_an_input_that_is_no_file(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("encode", ".")
    assert code == 1 and len(err) == 1


@pytest.mark.parametrize("target", ["none/out", "photo.png/out", "folder.png"])
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_an_unwritable_target_gives_one_line(run, tmp_path, photo, packed, command, target):
    (tmp_path / "folder.png").mkdir()
    if target.endswith("out"):
        target += ".pixa" if command == "encode" else ".png"
    code, out, err = run(command, photo if command == "encode" else packed, "-o", tmp_path / target)
    assert (code, out) == (1, b"")
    assert len(err) == 1 and str(tmp_path / target) in err[0]
    assert sorted(os.listdir(tmp_path)) == ["folder.png", "packed.pixa", "photo.png"]


def test_an_unwritable_output_dir_gives_one_line(run, photo):
    code, _, err = run("encode", photo, "--output-dir", photo)
    assert code == 1 and len(err) == 1


def test_an_unknown_model_is_refused(run, photo):
    code, _, err = run("encode", photo, "-m", "slow")
    assert code == 5 and len(err) == 1 and "fast" in err[0]
    assert os.listdir(photo.parent) == ["photo.png"]


def test_the_size_limit_is_an_option(run, packed):
    code, _, err = run("decode", packed, "--size-limit", 128 * 96 - 1)
    assert code == 6 and len(err) == 1
    assert run("decode", packed, "--size-limit", 128 * 96)[0] == 0


@pytest.mark.parametrize("place", ["pixa.image.encoding.encode_with", "os.replace"])
def test_an_interruption_leaves_nothing_behind(run, monkeypatch, photo, place):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupt)
    code, _, err = run("encode", photo)
    assert code == 130 and len(err) == 1
    assert os.listdir(photo.parent) == ["photo.png"]


def test_an_existing_result_survives_a_failed_replacement(run, monkeypatch, photo):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    target = photo.with_suffix(".pixa")
    target.write_bytes(b"mine")
    monkeypatch.setattr("os.replace", fail)
    code, _, err = run("encode", photo, "-f")
    assert code == 1 and len(err) == 1 and "No space left" in err[0]
    assert target.read_bytes() == b"mine"
    assert sorted(os.listdir(photo.parent)) == ["photo.pixa", "photo.png"]


def test_results_follow_the_umask(run, photo):
    before = os.umask(0o027)
    try:
        run("encode", photo)
    finally:
        os.umask(before)
    assert photo.with_suffix(".pixa").stat().st_mode & 0o777 == 0o640


def test_odd_names_stay_on_one_line(run, tmp_path):
    name = os.fsdecode(b"\xff\n\x1b.png")
    Image.fromarray(scene(64, 64)).save(tmp_path / name)
    code, _, err = run("encode", tmp_path / name)
    assert code == 0 and len(err) == 1 and "\x1b" not in err[0]
    assert json.loads(run("info", "--json", (tmp_path / name).with_suffix(".pixa"))[1])["width"] == 64
    code, _, err = run("decode", tmp_path / name)
    assert code == 3 and len(err) == 1


def test_links_are_followed_and_devices_kept(run, photo, tmp_path):
    (tmp_path / "link.pixa").symlink_to(tmp_path / "real.pixa")
    assert run("encode", photo, "-o", tmp_path / "link.pixa")[0] == 0
    assert (tmp_path / "link.pixa").is_symlink() and (tmp_path / "real.pixa").stat().st_size > 0
    assert run("encode", photo, "-o", os.devnull)[0] == 0
    assert not os.path.isfile(os.devnull)


def test_messages_go_to_standard_error_and_quiet_drops_them(run, photo, tmp_path):
    _, out, err = run("encode", photo)
    assert out == b"" and len(err) == 1 and str(photo.with_suffix(".pixa")) in err[0]
    _, out, err = run("encode", photo, "-f", "-v")
    assert out == b"" and len(err) == 1 and "fast" in err[0]
    assert run("encode", photo, "-f", "--quiet") == (0, b"", [])


def test_the_progress_bar_is_for_terminals_only(run, monkeypatch, photo):
    monkeypatch.setattr("pixa.cli.console.BAR_AFTER", 0)
    assert len(run("encode", photo)[2]) == 1
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar, message = run("encode", photo, "-f")[2][-2:]
    assert bar.startswith("photo.png [###") and bar.endswith("] 100%")
    assert message.startswith(f"\x1b[K{photo} -> ")
    assert len(run("encode", photo, "-f", "--no-progress")[2]) == 1


def test_binary_output_is_not_sent_to_a_terminal(run, monkeypatch, photo):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, err = run("encode", photo, "-o", "-")
    assert (code, out, len(err)) == (2, b"", 1)


def test_a_closed_pipe_is_no_traceback(packed):
    command = [sys.executable, "-m", "pixa.cli", "info", packed]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("command", ["--help", "models", "info"])
def test_light_commands_load_nothing_heavy(packed, command):
    loaded = modules_after(command, *([packed] if command == "info" else []))
    assert not loaded & {"numpy", "PIL", "onnxruntime", "constriction", "torch"}


def test_coding_never_loads_torch(photo):
    assert not modules_after("encode", "--quiet", photo) & {"torch", "compressai"}
    loaded = modules_after("decode", "--quiet", "-f", photo.with_suffix(".pixa"), "-o", photo.with_name("b.png"))
    assert "onnxruntime" in loaded and not loaded & {"torch", "compressai"}
