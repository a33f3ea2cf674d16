"""The promise of exact symbols for tokens: any runtime, any arithmetic wide enough."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pixa.bitstream import categorical
from pixa.bitstream.tables import TOTAL
from pixa.errors import ModelMissing
from pixa.models.export.vqgan_export import export, layer_names
from pixa.models.registry import ModelEntry, find_model, list_models
from pixa.runtime.model import TokenModel
from tests.support.torch_backend import TorchGraphs
from tests.vqgan.models import decoded, settled


class TorchTokens(TorchGraphs, TokenModel):
    """Graphs in PyTorch."""


class WideTokens(TokenModel):
    """The entropy model in 64-bit integers."""

    integers = np.int64


SHIPPED = [f"{entry.name}.{entry.tag}" for entry in list_models() if entry.coding == "tokens"]
RUNTIMES = {
    "onnxruntime, 2 threads": lambda entry: TokenModel(entry, 2),
    "onnxruntime, as written": lambda entry: TokenModel(entry, 1, False),
    "integers": lambda entry: WideTokens(entry, 1),
    "torch": TorchTokens,
}


def check_bounds(entry: ModelEntry) -> None:
    """Compare the recorded bounds of a model with what its integers can reach."""
    recorded = json.loads((entry.folder / "export.json").read_text())["bounds"]
    with np.load(entry.folder / "tables.npz", allow_pickle=False) as file:
        arrays = {name: array.astype(np.int64) for name, array in file.items() if array.dtype in (np.int8, np.int32)}
    for name, bound in recorded.items():
        known = np.abs(arrays["known_group"][int(name[-1])]).max() if name.startswith("inner") else 0
        assert (np.abs(arrays[f"{name}_weight"]).sum(1) * 255 + np.abs(arrays[f"{name}_bias"])).max() + known == bound
    assert max(recorded.values()) < 2**24
    assert set(recorded) == {name.removesuffix("_weight") for name in arrays if name.endswith("_weight")}


class TestExactness:
    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_tokens_are_equal_and_pixels_within_one_level(self, files, entry, nets, runtime):
        other, hashes = RUNTIMES[runtime](entry), set()
        for data in files:
            (symbols, samples), (expected_symbols, expected) = decoded(data, other), decoded(data, nets)
            assert symbols == expected_symbols
            assert np.abs(samples - expected).max() <= 1
            hashes.add(symbols)
        assert len(hashes) == len(files)

    def test_bounds_are_those_of_the_files(self, entry):
        check_bounds(entry)

    @pytest.mark.parametrize("name", SHIPPED)
    def test_no_sum_of_a_shipped_model_can_leave_the_exact_range(self, name):
        check_bounds(find_model(name))

    @torch.no_grad()
    def test_a_sum_past_the_exact_range_is_refused(self, photo, tmp_path):
        model = settled(photo)
        for name, layer in layer_names(model.prior).items():
            layer.bias[0] += 2**24 / layer.bias_unit
            with pytest.raises(ValueError, match=f"{name} can reach"):
                export(model, "test", 9, tmp_path)
            layer.bias[0] = 0

    def test_another_integer_weight_fails_the_self_test(self, entry):
        class Altered(TokenModel):
            def prepare(self) -> None:
                self.arrays["grow1_weight"] = -self.arrays["grow1_weight"]
                super().prepare()

        with pytest.raises(ModelMissing, match="self-test"):
            Altered(entry, 1)

    def test_coarse_arithmetic_is_refused(self, entry):
        class Coarse(TokenModel):
            integers = np.float16

        with pytest.raises(ModelMissing, match="self-test"):
            Coarse(entry, 1)

    def test_frequencies_are_integers_that_sum_up(self):
        weights = np.random.default_rng(1).integers(0, 2**20, (500, 32))
        weights[0], weights[:, 5] = 0, 2**20
        rows = categorical.frequencies(weights)
        assert rows.min() >= 1
        assert (rows.sum(1) == TOTAL).all()
        np.testing.assert_allclose(rows / TOTAL, weights / weights.sum(1, keepdims=True), atol=1e-5)
