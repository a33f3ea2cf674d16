"""What codecs take: multiply-accumulates and parameters against counts made by hand, and peak memory."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pixa.app.bench.codecs import CODECS, find_codec
from pixa.app.bench.complexity import graph_macs
from pixa.app.bench.costs import peak_memory
from pixa.models.registry import find_model


def test_macs_of_a_graph(tmp_path):
    """A strided, a grouped and a transposed convolution, and a matrix product, on symbolic height and width."""
    weights = {"strided": (8, 3, 5, 5), "grouped": (8, 2, 3, 3), "transposed": (8, 4, 2, 2), "matrix": (24, 7)}
    nodes = [
        helper.make_node("Conv", ["x", "strided"], ["a"], strides=[2, 2], pads=[2] * 4),
        helper.make_node("Conv", ["a", "grouped"], ["b"], group=4, pads=[1] * 4),
        helper.make_node("ConvTranspose", ["b", "transposed"], ["c"], strides=[2, 2]),
        helper.make_node("MatMul", ["c", "matrix"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, "height", "width"))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "graph.onnx")
    half, whole = 16 * 12, 32 * 24
    expected = half * 8 * 3 * 25 + half * 8 * 2 * 9 + half * 8 * 4 * 4 + 4 * whole * 7
    assert graph_macs(tmp_path / "graph.onnx", {"x": (1, 3, 32, 24)}) == expected


def test_pixa_decodes_with_what_its_manifest_says_or_less(monkeypatch):
    entry, native = find_model("fast"), find_codec("pixa:fast").complexity(50)
    monkeypatch.setattr("pixa.runtime.model.LatentModel.can_skip_blocks", lambda self, y_hat, single_thread: False)
    found = find_codec("pixa:fast").complexity(50)
    assert native.decoding_kmac <= found.decoding_kmac * 1.01
    assert found.decoding_kmac == pytest.approx(entry.decode_kmac_per_pixel, rel=0.001)
    assert found.parameters == pytest.approx(entry.parameters / 1e6)
    assert found.encoding_kmac > found.decoding_kmac / 2


def test_a_classical_codec_has_none():
    assert CODECS["webp"].complexity(50) is None


def test_memory_of_a_codec_is_not_that_of_the_process_that_asks(photo, tmp_path):
    ballast = np.ones(400 << 17)  # 400 MiB
    Image.fromarray(photo).save(tmp_path / "photo.png")
    small = peak_memory(CODECS["jpeg"], tmp_path / "photo.png", 50)
    large = peak_memory(CODECS["jpeg"], tmp_path / "photo.png", 50, (4000, 5000))
    assert max(small) < ballast.nbytes / 2**20
    assert large.encoding - small.encoding > 4000 * 5000 * 3 / 2**20
    assert large.decoding - small.decoding > 4000 * 5000 * 3 / 2**20
