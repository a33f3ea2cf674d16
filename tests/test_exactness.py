"""The promise of exact symbols: any runtime, any arithmetic wide enough, any thread count; anything else is refused."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import pixa
from pixa import Decoder
from pixa.coding.latents import CONTEXT_MAX, Z_MAX
from pixa.errors import ModelMissing
from pixa.image.picture import ImageEncoder
from pixa.models.registry import ModelEntry, list_models
from pixa.pixels import Picture
from pixa.runtime.model import OnnxModel, load_model, open_model
from tests.support.torch_backend import TorchModel, read_graph, walk

EXACT_LIMIT = 2**24
FEATURE_MAX = 255
QUALITIES = (0, 35, 70, 100)
RUNTIMES = {
    "onnxruntime, 1 thread, optimised": lambda entry: open_model(entry, 1, True),
    "onnxruntime, 2 threads, optimised": lambda entry: open_model(entry, 2, True),
    "onnxruntime, 1 thread, as written": lambda entry: open_model(entry, 1, False),
    "onnxruntime, 2 threads, as written": lambda entry: open_model(entry, 2, False),
    "torch, float32": lambda entry: TorchModel(entry, torch.float32),
    "torch, float64": lambda entry: TorchModel(entry, torch.float64),
}


@pytest.fixture(scope="module", params=[e for e in list_models() if e.name == "fast"], ids=lambda entry: entry.tag)
def entry(request) -> ModelEntry:
    """Every generation of the default model."""
    return request.param


@pytest.fixture(scope="module")
def model(entry) -> OnnxModel:
    return load_model(entry, 1)


@pytest.fixture(scope="module")
def files(chelsea, entry) -> list[bytes]:
    """A photograph of odd sides at several qualities, coded by the shipped runtime."""
    return [pixa.encode(chelsea[:243, :301], quality, model=f"fast.{entry.tag}") for quality in QUALITIES]


@pytest.fixture(scope="module")
def extreme(model) -> tuple[np.ndarray, np.ndarray]:
    """Hyper-latents and magnitudes as large as they get."""
    rng = np.random.default_rng(7)
    z = rng.choice([-Z_MAX, 0, Z_MAX], (1, model.arrays["z_scale"].shape[1], 5, 6))
    magnitude = rng.choice([0, 1, CONTEXT_MAX], (1, model.channels, 20, 24))
    return z.astype(np.float32), magnitude.astype(np.float32)


def walked(nets: OnnxModel, z: np.ndarray, magnitude: np.ndarray, level: int) -> dict[str, np.ndarray]:
    """Everything that the exact networks say when every pass finds `magnitude`."""
    memory, said = {"z": z}, {}
    for p, pattern in enumerate(nets.passes):
        said[f"index {p}"], outputs = nets.scale(p, memory, level)
        memory |= outputs
        memory["magnitude"] = magnitude[:, pattern.any(1)]
    return memory | said


def decoded(data: bytes, nets: OnnxModel) -> tuple[str, np.ndarray]:
    """Hash of the symbols and the samples that a runtime makes of a file."""
    decoder = Decoder(data)
    decoder.nets = nets
    return decoder.symbols_sha256(), decoder.picture().samples.astype(int)


class TestRuntimes:
    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_symbols_are_equal_and_pixels_within_one_level(self, files, entry, model, runtime):
        nets = RUNTIMES[runtime](entry)
        for data in files:
            (symbols, samples), (expected_symbols, expected) = decoded(data, nets), decoded(data, model)
            assert symbols == expected_symbols
            assert np.abs(samples - expected).max() <= 1

    def test_different_files_have_different_symbols(self, files, model):
        assert len({decoded(data, model)[0] for data in files}) == len(files)

    @pytest.mark.parametrize("level", [0, 120, 200])
    def test_onnxruntime_decodes_what_torch_coded(self, photo, entry, model, monkeypatch, level):
        nets = TorchModel(entry)
        monkeypatch.setattr("pixa.image.picture.load_model", lambda entry, jobs: nets)
        data, coded = ImageEncoder(Picture(photo)).encode(level)
        assert decoded(data, nets)[0] == decoded(data, model)[0]
        (tile,) = Decoder(data).tiles
        received = model.codec.reconstruct(model.codec.decode(tile, coded.shape, level)).y_hat
        assert np.abs(received - coded).max() < 0.01 * model.vector("step", level).min()


class TestVideos:
    """The golden clips, one of every model of latents that is shipped."""

    GOLDEN = Path(__file__).parent / "golden" / "video"
    EXPECTED = json.loads((GOLDEN / "expected.json").read_text())

    @pytest.mark.parametrize("runtime", RUNTIMES)
    @pytest.mark.parametrize("name", EXPECTED)
    def test_symbols_are_equal_and_pixels_within_one_level(self, name, runtime, monkeypatch):
        with pixa.open_video(self.GOLDEN / f"{name}.pixa", jobs=1) as video:
            expected = list(video)
        monkeypatch.setattr("pixa.video.reader.load_model", lambda entry, threads: RUNTIMES[runtime](entry))
        with pixa.open_video(self.GOLDEN / f"{name}.pixa", jobs=1) as video:
            assert video.symbols_sha256() == self.EXPECTED[name]["symbols_sha256"]
            for samples, other in zip(expected, video, strict=True):
                assert np.abs(samples.astype(int) - other).max() <= 1


class TestArithmetic:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64], ids=str)
    @pytest.mark.parametrize("level", [0, 100, 200])
    def test_exact_networks_give_the_same_integers(self, entry, model, extreme, dtype, level):
        z, magnitude = extreme
        first, second = walked(model, z, magnitude, level), walked(TorchModel(entry, dtype), z, magnitude, level)
        assert first.keys() == second.keys() > {"features", "index 0", "index 1"}
        assert all(np.ptp(first[name]) > 10 for name in first)
        assert all(np.array_equal(first[name], second[name]) for name in first)

    def test_coarse_arithmetic_is_refused(self, entry):
        with pytest.raises(ModelMissing, match="self-test"):
            TorchModel(entry, torch.bfloat16)


def largest(values: np.ndarray) -> int:
    return int(np.abs(values.astype(np.int64)).max())


def bounds_of(path: Path, inputs: dict[str, int]) -> list[int]:
    """The largest magnitudes that the convolutions of an exact graph reach, what is added to them included.

    Args:
        path: the ONNX file.
        inputs: the largest magnitude of every input.
    """
    sums = []

    def conv(x: float, weight: np.ndarray, bias: np.ndarray, **attributes) -> float:
        assert weight.dtype == np.int8 and bias.dtype == np.int32
        weights = np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(1)
        sums.append(int((weights * x + np.abs(bias.astype(np.int64))).max()))
        return sums[-1]

    def multiply(x: float, y: np.ndarray | float) -> float:
        if isinstance(y, np.ndarray):
            assert math.frexp(y)[0] == 0.5, "a rescale by something else than a power of two"
        else:
            sums.append(x * y)
        return x * float(y)

    def add(x: float, y: np.ndarray | float) -> float:
        if sums and not isinstance(y, np.ndarray):
            sums[-1] += y
        return x + float(y)

    operators = {
        "Add": add,
        "Cast": lambda x, to: x,
        "Clip": lambda x, low, high: min(x, float(max(-low, high))),
        "Concat": lambda *parts, axis: max(parts),
        "Conv": conv,
        "DepthToSpace": lambda x, blocksize, mode: x,
        "Floor": lambda x: x,
        "Identity": lambda x: x,
        "Mul": multiply,
    }
    walk(path, inputs, lambda array: array, operators)
    return sums


def derived_bounds(entry: ModelEntry) -> list[int]:
    """What the sums of all scale graphs of a model, and of what expects its motion, can reach, from its files alone."""
    largest_inputs = {"z": Z_MAX} | {f"magnitude_{p}": 0 for p in "abcdefgh"}  # where one is not 0, others are
    largest_inputs |= dict.fromkeys(("magnitude", "past_1", "past_2"), CONTEXT_MAX)
    with np.load(entry.folder / "tables.npz", allow_pickle=False) as arrays:
        largest_inputs |= {name: largest(arrays[name]) for name in arrays.files if name.endswith(("bias", "z_scale"))}
        biases = {name[-1]: largest(arrays[name]) for name in arrays.files if name.startswith("index_bias")}
        layers = [name[:-7] for name in arrays.files if name.startswith("vectors") and name.endswith("_weight")]
        sums = [np.abs(arrays[f"{n}_weight"].astype(int)).sum(1) * 255 + np.abs(arrays[f"{n}_bias"]) for n in layers]
    bounds = [int(each.max()) for each in sums]
    for name in (name for name in entry.decoder if name.startswith("scale")):
        path = entry.folder / name
        known = largest_inputs | {"index_bias": biases[path.stem[-1]]}
        bounds += bounds_of(path, {i.name: known.get(i.name, FEATURE_MAX) for i in read_graph(path).input})
    return bounds


class TestBounds:
    """Of models of latents; those of tokens have their own in tests/vqgan."""

    @pytest.mark.parametrize(
        "entry", [e for e in list_models() if e.codes_videos], ids=lambda entry: f"{entry.name}.{entry.tag}"
    )
    def test_no_sum_can_leave_the_exact_range(self, entry):
        recorded = json.loads((entry.folder / "export.json").read_text())["bounds"]
        assert sorted(derived_bounds(entry)) == sorted(recorded.values())
        assert max(recorded.values()) < EXACT_LIMIT


class TestWeights:
    """Weights that are not what the manifest says."""

    @pytest.fixture
    def copy(self, entry, tmp_path, monkeypatch) -> ModelEntry:
        """The model, its files in a folder that a test may alter."""
        shutil.copytree(entry.folder, tmp_path / entry.folder.name)
        monkeypatch.setattr("pixa.models.registry.weights_folder", lambda: tmp_path)
        return entry

    def rehashed(self, entry: ModelEntry) -> ModelEntry:
        """The entry with the hash of the files as they now are."""
        content = b"".join((entry.folder / name).read_bytes() for name in entry.decoder)
        return replace(entry, hash=hashlib.sha256(content).hexdigest()[:8])

    def test_untouched_copy_loads(self, copy):
        assert open_model(self.rehashed(copy)).entry == copy

    def test_every_altered_decoder_file_is_refused(self, copy):
        for name in copy.decoder:
            path = copy.folder / name
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            with pytest.raises(ModelMissing, match="altered"):
                open_model(copy)
            path.write_bytes(content)

    def test_missing_decoder_file_is_refused_by_name(self, copy):
        (copy.folder / "synthesis.onnx").unlink()
        with pytest.raises(ModelMissing, match=r"synthesis\.onnx is missing"):
            open_model(copy)

    def test_another_result_of_the_self_test_is_refused(self, copy):
        path = copy.folder / "tables.npz"
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        arrays["test_sha256"][0] ^= 1
        np.savez_compressed(path, **arrays)
        with pytest.raises(ModelMissing, match="self-test"):
            open_model(self.rehashed(copy))

    def test_another_integer_weight_fails_the_self_test(self, copy):
        path = copy.folder / "scale_a.onnx"
        altered = onnx.load(path)
        weights = next(c for c in altered.graph.initializer if c.data_type == onnx.TensorProto.INT8)
        weights.raw_data = bytes(64 - b & 0xFF for b in weights.raw_data)
        onnx.save(altered, path)
        with pytest.raises(ModelMissing, match="self-test"):
            open_model(replace(self.rehashed(copy), native=()))
