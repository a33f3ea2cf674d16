"""Models loaded into onnxruntime: the only place that runs a network."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from functools import cache, cached_property
from io import BytesIO
from math import isinf
from string import ascii_lowercase
from threading import Lock
from zipfile import BadZipFile

import numpy as np
import onnxruntime as ort

from pixa.bitstream.delta import read_delta
from pixa.bitstream.tables import Tables
from pixa.coding import latents, tokens
from pixa.coding.latents import Memory
from pixa.errors import ModelMissing
from pixa.models.registry import ModelEntry
from pixa.motion.vectors import VectorNet

ort.set_default_logger_severity(3)
SELF_TEST_LEVEL = 100
SYNTHESIS, NATIVE = "synthesis", "native synthesis"
ANSWERS = "index", "mean"
LARGE_BLOCK = 31 << 20  # bytes; fresh pages for the arrays of every tile would be 7% of the time of a decoding


class OnnxModel:
    """A model's sessions, level vectors and tables.

    The exact networks are tried on a stored vector first, so that a runtime whose arithmetic differs is refused
    instead of decoding garbage.

    Args:
        entry: which model.
        threads: threads of onnxruntime, 0 for all cores.
        optimise: let onnxruntime rewrite the graphs.

    Attributes:
        coder: the module that codes a tile.

    Raises:
        ModelMissing: a file is missing or altered, or the self-test fails.
    """

    coder = latents

    def __init__(self, entry: ModelEntry, threads: int = 0, optimise: bool = True):
        self.entry, self.threads, self.optimise = entry, threads, optimise
        self.sessions: dict[tuple[str, bool], ort.InferenceSession] = {}
        self.loading = Lock()
        check_files(entry)
        self.native = native_graphs(entry)
        with np.load(entry.folder / "tables.npz", allow_pickle=False) as arrays:
            self.arrays = dict(arrays)
        self.prepare()
        self.self_test()

    def session(self, graph: str, beside: bool = False) -> ort.InferenceSession:
        """A graph ready to run, `beside` other work with one thread."""
        with self.loading:
            if (graph, beside) not in self.sessions:
                self.sessions[graph, beside] = self.load(graph, beside)
            return self.sessions[graph, beside]

    def load(self, graph: str, beside: bool) -> ort.InferenceSession:
        native = graph == NATIVE or (graph != SYNTHESIS and graph in self.native)
        integers = native and graph.startswith("scale") and graph != "scale_a"  # no faster with more threads than one
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1 if beside or integers else self.threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not self.optimise:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        name = SYNTHESIS if graph == NATIVE else graph
        content = self.native[name] if native else (self.entry.folder / f"{name}.onnx").read_bytes()
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    @property
    def cores(self) -> int:
        """How many threads there may be."""
        return self.threads or os.cpu_count() or 1

    def prepare(self) -> None:
        """Make what the coder needs of the arrays."""
        self.tables = Tables(self.arrays["limits"], self.arrays["frequencies"])
        passes = self.arrays["passes"].astype(bool)
        self.passes = passes if passes.shape[2] == 4 else passes[:, :, [0, 1, 1, 0]]

    @property
    def channels(self) -> int:
        """Latent channels M."""
        return self.arrays["gain"].shape[1]

    @property
    def rebuilt_channels(self) -> int:
        """Channels of y_hat."""
        return self.channels

    def self_test(self) -> None:
        digest, given = hashlib.sha256(), ("z", "past_1", "past_2")
        memory = {n: self.arrays[f"test_{n}"].astype(np.float32) for n in given if f"test_{n}" in self.arrays}
        for p, pattern in enumerate(self.passes):
            index = self.scale(p, memory, SELF_TEST_LEVEL)
            for output in (*(memory[name] for name in self.outputs(f"scale_{ascii_lowercase[p]}")[:-1]), index):
                digest.update(output.astype(np.uint8).tobytes())
            memory["magnitude"] = self.arrays["test_magnitude"][:, pattern.any(1)].astype(np.float32)
        if digest.digest() == self.arrays["test_sha256"].tobytes():
            return
        if not self.native:
            raise ModelMissing("the self-test of the model failed: this machine's arithmetic is not exact")
        self.native = {}  # its floats may be exact where its integers are not
        self.sessions.clear()
        self.self_test()

    def run(self, graph: str, beside: bool = False, /, **inputs: np.ndarray) -> list[np.ndarray]:
        """The outputs of a graph; `beside` as for `session`."""
        return self.session(graph, beside).run(None, inputs)

    def inputs(self, graph: str, beside: bool = False) -> list[str]:
        return [i.name for i in self.session(graph, beside).get_inputs()]

    def outputs(self, graph: str, beside: bool = False) -> list[str]:
        return [o.name for o in self.session(graph, beside).get_outputs()]

    def vector(self, name: str, level: int) -> np.ndarray:
        return self.arrays[name][level].astype(np.float32).reshape(1, -1, 1, 1)

    def analysis(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8, sides multiples of 16 -> y (M, H/16, W/16)."""
        return self.run("analysis", picture=picture[None])[0][0]

    def synthesis(
        self, y_hat: np.ndarray, level: int, beside: bool = False, context: np.ndarray | None = None
    ) -> np.ndarray:
        """y_hat (M, h, w) -> (16h, 16w, 3) uint8; `beside` as for `session`.

        Args:
            context: (planes, 16h, 16w), zeros where it is not given, of a model that knows of such. Its samples are
                float32 in levels, neither rounded nor clipped.
        """
        graph = NATIVE if SYNTHESIS in self.native and self.calm(y_hat, beside) else SYNTHESIS
        given = {"y_hat": y_hat[None], "vector": self.vector("vector", level)}
        if self.planes:
            shape = (self.planes, *(latents.STRIDE * n for n in y_hat.shape[1:]))
            given["context"] = (np.zeros(shape, np.float32) if context is None else context)[None]
        return self.run(graph, beside, **given)[0][0]

    @property
    def planes(self) -> int:
        """Of what the synthesis sees beside the latents."""
        return int(self.arrays.get("planes", 0))

    @cached_property
    def vectors(self) -> VectorNet:
        """See `pixa.coding.inter.Predictor`."""
        return VectorNet(self.arrays)

    def calm(self, y_hat: np.ndarray, beside: bool) -> bool:
        """Whether the native graph (`pixa.models.export.native`) shows y_hat (M, h, w) as the whole synthesis does."""
        facts = self.session(NATIVE, beside).get_modelmeta().custom_metadata_map
        if isinf(limit := float(facts["limit"])):
            return True
        squares = np.square(y_hat)
        energy = squares.sum(0) - squares[json.loads(facts["strong"])].sum(0)
        return energy.max() <= limit

    def hyper(self, y: np.ndarray) -> np.ndarray:
        return self.run("hyper", y=y)[0]

    def predict(self, picture: np.ndarray, level: int) -> np.ndarray:
        """See `pixa.coding.inter.Predictor`."""
        return self.run("predict", picture=picture[None])[0] * self.vector("gain", level) * self.vector("step", level)

    def share(self, level: int) -> float:
        """See `pixa.coding.inter.Predictor`."""
        return float(self.arrays["bypass"][level, 0])

    def scale(self, p: int, memory: Memory, level: int) -> np.ndarray:
        """See `pixa.coding.latents.Nets`."""
        graph = f"scale_{ascii_lowercase[p]}"
        vectors = {
            "index_bias": f"index_bias_{ascii_lowercase[p]}",
            "z_scale": "z_scale",
            "feature_bias": "feature_bias",
        }
        known = memory | {name: self.vector(vectors[name], level) for name in self.inputs(graph) if name in vectors}
        (index,) = self.recall(graph, known, memory)
        return index

    def mean(self, p: int, memory: Memory, beside: bool = False) -> np.ndarray:
        """See `pixa.coding.latents.Nets`."""
        means = self.recall(f"mean_{ascii_lowercase[p]}", memory, memory, beside)
        return means[0] if len(means) == 1 else self.placed(p, means)

    def placed(self, p: int, phases: list[np.ndarray]) -> np.ndarray:
        """The means of pass p from those of each position of a 2x2 square (`pixa.models.export.phases`), else zero."""
        pattern = self.passes[p][self.passes[p].any(1)]
        height, width = (first + last - 1 for first, last in zip(phases[0].shape[2:], phases[3].shape[2:], strict=True))
        mean = np.zeros((1, len(pattern), height, width), np.float32)
        for place, phase in enumerate(phases):
            row, column = divmod(place, 2)
            own = np.flatnonzero(pattern[:, place])
            mean[:, own[0] : own[-1] + 1, row::2, column::2] = phase[:, :, row:, column:]
        return mean

    def recall(self, graph: str, known: Memory, memory: Memory, beside: bool = False) -> list[np.ndarray]:
        """Run a graph on what is known and keep what it says, but for the answer, which is returned."""
        said = self.run(graph, beside, **{name: known[name] for name in self.inputs(graph, beside)})
        named = list(zip(self.outputs(graph, beside), said, strict=True))
        memory |= {name: output for name, output in named if not name.startswith(ANSWERS)}
        return [output for name, output in named if name.startswith(ANSWERS)]


class TokenModel(OnnxModel):
    """A model of tokens; see `pixa.coding.tokens`.

    Attributes:
        integers: what arithmetic the entropy model is done in.
    """

    coder = tokens
    integers = np.float32

    def prepare(self) -> None:
        self.prior = tokens.Prior(self)

    @property
    def channels(self) -> int:
        """Dimensions d of a code."""
        return self.arrays["codes"].shape[2]

    @property
    def rebuilt_channels(self) -> int:
        return self.channels + 3

    def self_test(self) -> None:
        digest, symbols = hashlib.sha256(), self.arrays["test_symbols"]

        def take(grid: int, rates: np.ndarray, rows: np.ndarray, columns: np.ndarray, member: bool) -> np.ndarray:
            digest.update(rates.astype("<u4").tobytes())
            return symbols[int(member), grid, rows, columns].astype(np.int64)

        for nested in (False, True):
            self.prior.walk(self.arrays["test_map"], nested, take)
        if digest.digest() != self.arrays["test_sha256"].tobytes():
            raise ModelMissing("the self-test of the model failed: this machine's arithmetic is not exact")

    def synthesis(self, y_hat: np.ndarray, level: int, beside: bool = False) -> np.ndarray:
        """y_hat (d + 3, h, w), sides even -> (8h, 8w, 3) uint8; `beside` as for `session`."""
        return self.run("synthesis", beside, y_hat=y_hat[None])[0][0]


KINDS = {"latents": OnnxModel, "tokens": TokenModel}


def check_files(entry: ModelEntry) -> None:
    """Compare the decoder's files with the hash that names them.

    Raises:
        ModelMissing: a file is missing or altered.
    """
    digest = hashlib.sha256()
    for name in entry.decoder:
        digest.update(read(entry, name))
    if digest.hexdigest()[:8] != entry.hash:
        raise ModelMissing(f"the weights of {entry.name}.{entry.tag} are altered: their hash does not match")


def native_graphs(entry: ModelEntry) -> dict[str, bytes]:
    """The native graphs of a model, by name.

    Raises:
        ModelMissing: as `check_files`.
    """
    if not entry.native:
        return {}
    try:
        with np.load(BytesIO(read(entry, "native.npz")), allow_pickle=False) as arrays:
            graphs = {
                name: read_delta(arrays[f"{name}_runs"], arrays[f"{name}_own"], read(entry, f"{name}.onnx"))
                for name in entry.native
            }
    except (ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        graphs = {}
    if hashlib.sha256(b"".join(graphs.values())).hexdigest()[:8] != entry.native_hash:
        raise ModelMissing(f"the weights of {entry.name}.{entry.tag} are altered: their hash does not match")
    return graphs


def read(entry: ModelEntry, name: str) -> bytes:
    """The content of a file of a model.

    Raises:
        ModelMissing: it is missing.
    """
    path = entry.folder / name
    if not path.is_file():
        raise ModelMissing(f"the weights of {entry.name}.{entry.tag} are incomplete: {name} is missing")
    return path.read_bytes()


@cache
def load_model(entry: ModelEntry, threads: int = 0) -> OnnxModel:
    """A loaded model, kept for the life of the process."""
    np.empty(LARGE_BLOCK, np.uint8)  # freed at once; from then on glibc keeps the pages of what is freed and smaller
    return KINDS[entry.coding](entry, threads)
