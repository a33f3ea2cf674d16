"""`pixa export-decoder`: a folder that decodes without pixa, to the same symbols and pictures, and refuses the rest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from PIL import Image

import pixa
from pixa import Decoder, errors
from pixa.app.bundle import export_decoder
from pixa.bitstream.container import Chunk, read_file, read_varint, write_file
from pixa.bitstream.headers import Head
from pixa.models.export.driver import export
from pixa.models.registry import find_model, list_models
from tests.support.golden_files import ERRORS, EXPECTED, EXPECTED_ERRORS, FOLDERS, GOLDEN, read
from tests.test_mlic import lively

# Runs command lines of decoder.py one after the other, in an interpreter that can import neither pixa nor what only
# pixa needs. An exception that the decoder lets out ends it.
ALONE = """
import contextlib, functools, importlib.util, io, json, sys
sys.modules.update(dict.fromkeys(("pixa", "PIL", "torch")))

@functools.cache
def load(program):
    spec = importlib.util.spec_from_file_location("decoder", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

for sys.argv in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = load(sys.argv[0]).main()
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def run_alone(*lines: list) -> list[Outcome]:
    """What becomes of command lines, each a program and its arguments."""
    commands = json.dumps([[str(word) for word in line] for line in lines])
    done = subprocess.run([sys.executable, "-I", "-c", ALONE], input=commands, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [Outcome(*json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "decoder"
    export_decoder(folder)
    return folder


def decode_all(bundle: Path, files: dict[str, bytes], folder: Path) -> dict[str, tuple[Outcome, Path]]:
    """The outcome of each file, and where its picture is if there is one."""
    for name, data in files.items():
        (folder / f"{name}.pixa").parent.mkdir(exist_ok=True)
        (folder / f"{name}.pixa").write_bytes(data)
    places = [(folder / f"{name}.pixa", folder / f"{name}.png") for name in files]
    outcomes = run_alone(*([bundle / "decoder.py", *place] for place in places))
    return {name: (outcome, place[1]) for name, outcome, place in zip(files, outcomes, places, strict=True)}


def check(data: bytes, outcome: Outcome, path: Path) -> None:
    """The symbols are those that pixa decodes, samples within one level, alpha exact."""
    assert (outcome.code, outcome.err) == (0, "")
    decoder = Decoder(data)
    assert decoder.symbols_sha256() in outcome.out
    with Image.open(path) as image:
        samples = np.atleast_3d(np.array(image)).astype(int)
    picture = decoder.picture()
    assert samples.shape == picture.samples.shape
    assert np.abs(samples - picture.samples).max() <= 1
    assert picture.alpha is None or np.array_equal(samples[:, :, -1], picture.alpha)


@pytest.fixture(scope="module")
def decoded(bundle, tmp_path_factory) -> dict[str, tuple[Outcome, Path]]:
    """The golden files, those of older models decoded by folders of their own."""
    outcomes, folder = {}, tmp_path_factory.mktemp("pictures")
    for golden in FOLDERS:
        files = {name: read(name) for name in EXPECTED if (GOLDEN / name).parent == golden}
        if golden != GOLDEN:
            bundle = tmp_path_factory.mktemp("old") / "decoder"
            export_decoder(bundle, golden.name)
        outcomes |= decode_all(bundle, files, folder)
    return outcomes


class TestSamples:
    """Lossless pictures and patches."""

    @pytest.fixture(scope="class")
    def found(self, bundle, tmp_path_factory) -> dict[str, tuple[Outcome, Path]]:
        return decode_all(bundle, self.files(), tmp_path_factory.mktemp("samples"))

    @staticmethod
    @cache
    def files() -> dict[str, bytes]:
        files = {path.stem: path.read_bytes() for path in sorted((GOLDEN / "lossless").glob("*.pixa"))}
        rows, columns = np.mgrid[:70, :1100]
        stripes = np.where(((rows + columns) // 4 % 2 == 0)[..., None], np.uint8([255, 0, 0]), np.uint8([0, 0, 255]))
        stripes[:, 200:400] = 128
        files |= {"patches": pixa.encode(stripes), "patches-grey": pixa.encode(stripes[:, :100, :1])}
        *rest, patch = read_file(files["patches"])
        hurt = {
            "cut": patch.payload[:9],
            "outside": b"\x7f" + patch.payload[1:],
            "model": b"\0\xff" + patch.payload[2:],
        }
        return files | {f"bad-{name}": write_file([*rest, Chunk(patch.type, new)]) for name, new in hurt.items()}

    def test_they_decode_as_with_pixa_or_are_refused_by_the_same_name(self, found):
        for name, (outcome, path) in found.items():
            data = self.files()[name]
            if not name.startswith("bad"):
                decoder = Decoder(data)
                assert (outcome.code, outcome.err) == (0, ""), name
                assert decoder.symbols_sha256() in outcome.out
                samples = decoder.picture().samples
                assert str(samples.shape) in outcome.out
                if samples.dtype == np.uint8:
                    with Image.open(path) as image:
                        shown = np.array(image).reshape(samples.shape).astype(int)
                    assert np.abs(shown - samples).max() <= (1 if name.startswith("patches") else 0), name
                continue
            with pytest.raises(errors.PixaError) as refusal:
                pixa.decode(data)
            assert type(refusal.value).__name__ in outcome.err and outcome.code == refusal.value.exit_code


class TestPictures:
    @pytest.mark.parametrize("name", EXPECTED)
    def test_golden_files_decode_as_with_pixa(self, name, decoded):
        outcome, path = decoded[name]
        check(read(name), outcome, path)
        assert EXPECTED[name]["symbols_sha256"] in outcome.out

    def test_metadata_goes_into_the_png(self, decoded):
        with Image.open(decoded["rgb-96x64-q20-metadata"][1]) as image:
            info = image.info
        found = {"icc": info["icc_profile"], "exif": info["exif"].removeprefix(b"Exif\0\0"), "xmp": info["xmp"]}
        assert {kind: value.hex() for kind, value in found.items()} == EXPECTED["rgb-96x64-q20-metadata"]["metadata"]

    def test_several_windows_and_tiles_are_one_picture(self, bundle, coffee, tmp_path):
        data = pixa.encode(np.tile(coffee[200:240], (1, 4, 1))[:, :2100], 50)
        check(data, *decode_all(bundle, {"wide": data}, tmp_path)["wide"])

    def test_models_with_more_passes_decode(self, chelsea, tmp_path, monkeypatch):
        export(lively(), "test", 900, tmp_path / "weights")
        monkeypatch.setattr("pixa.models.registry.weights_folder", lambda: tmp_path / "weights")
        list_models.cache_clear()
        try:
            export_decoder(tmp_path / "decoder", "mlic")
            data = pixa.encode(chelsea[:50, :70], 80, model="mlic", floor=False)
            check(data, *decode_all(tmp_path / "decoder", {"mlic": data}, tmp_path)["mlic"])
        finally:
            list_models.cache_clear()


def damaged(data: bytes) -> dict[str, bytes]:
    """A file cut short, with bits flipped, and with bits flipped in the words of its tile's entropy coder under a
    checksum made to match. (Escapes behind the words may hold any numbers: changed, they say something else.)"""
    flip = lambda old, place: old[:place] + bytes([old[place] ^ 4]) + old[place + 1 :]
    *others, tile = read_file(data)
    files = {}
    for place in range(5, len(data), len(data) // 15):
        files |= {f"damaged-cut-{place}": data[:place], f"damaged-flipped-{place}": flip(data, place)}
    count, start = read_varint(tile.payload, 0)
    for place in range(0, start + 4 * count, (start + 4 * count) // 15):
        files[f"damaged-forged-{place}"] = write_file([*others, Chunk(tile.type, flip(tile.payload, place))])
    return files


@pytest.fixture(scope="module")
def refused(bundle, tmp_path_factory) -> dict[str, tuple[Outcome, Path]]:
    files = {name: (ERRORS / f"{name}.pixa").read_bytes() for name in EXPECTED_ERRORS}
    files |= damaged(read("rgb-96x64-q100"))
    files["video"] = (GOLDEN / "video" / "fast.2.pixa").read_bytes()
    return decode_all(bundle, files, tmp_path_factory.mktemp("refused"))


class TestRefusals:
    """The name of the error and the reason in one line, an exit code that is not 0, no output, no traceback."""

    def refusal(self, outcome: Outcome, path: Path) -> str:
        assert outcome.code != 0
        assert outcome.out == ""
        assert outcome.err.startswith(f"{path.with_suffix('.pixa')}: ")
        assert outcome.err.count("\n") == 1
        assert not path.exists()
        return outcome.err.removeprefix(f"{path.with_suffix('.pixa')}: ")

    @pytest.mark.parametrize("name", EXPECTED_ERRORS)
    def test_golden_errors_have_their_names(self, name, refused):
        expected = EXPECTED_ERRORS[name]
        assert self.refusal(*refused[name]).startswith(f"{expected}: ")
        assert refused[name][0].code == getattr(errors, expected).exit_code

    @pytest.mark.parametrize("damage", ["cut", "flipped", "forged"])
    def test_damaged_files_are_refused(self, damage, refused):
        found = [self.refusal(*refused[name]) for name in refused if name.startswith(f"damaged-{damage}-")]
        assert len(found) > 10
        assert {reason.partition(":")[0] for reason in found} == {"Corrupt"}

    def test_videos_are_refused(self, refused):
        assert "this is a video" in self.refusal(*refused["video"])

    def test_other_paths_are_refused(self, bundle, tmp_path):
        program, good = bundle / "decoder.py", bundle / "golden.pixa"
        lines = [(tmp_path / "missing.pixa", tmp_path / "out.png"), (tmp_path, tmp_path / "out.png"), (good, tmp_path)]
        for outcome in run_alone(*([program, *line] for line in lines)):
            assert outcome.code == 1
            assert outcome.err.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


def altered(bundle: Path, graph: str, folder: Path, *, rename: bool) -> Path:
    """A copy of the folder with one weight of a graph altered.

    Args:
        rename: give the model the hash of its altered files, in the manifest and in the golden file.
    """
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["models"][0]
    path = folder / f"{entry['name']}.{entry['tag']}" / f"{graph}.onnx"
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda weight: len(weight.raw_data))
    values = onnx.numpy_helper.to_array(weight).copy()
    values[:] = -values
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    if rename:
        entry["hash"] = sha256(b"".join((path.parent / name).read_bytes() for name in entry["decoder"])).hexdigest()[:8]
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (_, head), *rest = read_file((folder / "golden.pixa").read_bytes())
        head = replace(Head.read(head), model_hash=int(entry["hash"], 16))
        (folder / "golden.pixa").write_bytes(write_file([Chunk(1, head.write()), *rest]))
    return folder / "decoder.py"


class TestSelfTest:
    def test_passes(self, bundle):
        done = subprocess.run([sys.executable, "-I", bundle / "decoder.py", "--self-test"], capture_output=True)
        assert (done.returncode, done.stdout.split(), done.stderr) == (0, [b"self-test:", b"ok"], b"")

    def test_fails_where_a_graph_is_altered(self, bundle, tmp_path):
        plain = altered(bundle, "mean_a", tmp_path / "plain", rename=False)
        scales = [Path(name).stem for name in find_model("fast").decoder if name.startswith("scale")]
        reasons = dict.fromkeys(scales, "arithmetic") | dict.fromkeys(["mean_b", "synthesis"], "levels wrong")
        renamed = [altered(bundle, graph, tmp_path / graph, rename=True) for graph in reasons]
        outcomes = run_alone(*([program, "--self-test"] for program in (plain, *renamed)))
        assert all(outcome.code and not outcome.out for outcome in outcomes)
        assert all(r in outcome.err for r, outcome in zip(["altered", *reasons.values()], outcomes, strict=True))


class TestExport:
    def test_holds_what_a_decoder_needs_and_no_more(self, run, tmp_path):
        code, _, lines = run("export-decoder", tmp_path / "here" / "decoder", "-m", "mlic.1")
        assert code == 0
        assert "--self-test" in lines[0]
        folder, entry = tmp_path / "here" / "decoder", find_model("mlic.1")
        assert {path.name for path in folder.iterdir()} == {
            *("decoder.py", "FORMAT.md", "manifest.json", "golden.pixa", "golden.json", "golden.npy", "mlic.1"),
            *("lossless", "lossless.1"),
        }
        assert {path.name for path in (folder / "mlic.1").iterdir()} == set(entry.decoder)
        assert list(folder.parent.iterdir()) == [folder]

    def test_an_empty_folder_is_taken(self, tmp_path):
        export_decoder(tmp_path)
        assert (tmp_path / "decoder.py").is_file()

    def test_nothing_is_overwritten(self, run, tmp_path):
        (tmp_path / "photo.txt").write_text("mine")
        for folder in (tmp_path, tmp_path / "photo.txt"):
            code, _, lines = run("export-decoder", folder)
            assert (code, len(lines)) == (1, 1)
        assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]

    def test_models_that_it_cannot_take_are_refused(self, run, tmp_path, monkeypatch):
        assert run("export-decoder", tmp_path / "decoder", "-m", "slow")[0] == errors.ModelMissing.exit_code
        for fields, what in (({"coding": "tokens", "can": ()}, "tokens"), ({"coding": "inter", "can": ()}, "inter")):
            monkeypatch.setattr("pixa.app.bundle.find_model", lambda _, f=fields: replace(find_model("fast"), **f))
            code, _, lines = run("export-decoder", tmp_path / "decoder")
            assert code == errors.UsageError.exit_code
            assert what in lines[0]
        assert list(tmp_path.iterdir()) == []
