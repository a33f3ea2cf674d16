"""Models loaded into onnxruntime: the only place that runs a network."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache, cached_property
from math import isinf
from string import ascii_lowercase
from threading import Lock

import numpy as np
import onnxruntime as ort

from pixa.bitstream.tables import Tables
from pixa.coding import tokens
from pixa.coding.inter import GRAPH_INPUTS, InterCodec
from pixa.coding.latents import LatentCodec, Memory
from pixa.coding.tile import TileCodec
from pixa.errors import ModelMissing
from pixa.models.registry import ModelEntry
from pixa.motion.vectors import VectorNet
from pixa.native import kernels
from pixa.runtime.files import check_files, native_graphs, read
from pixa.runtime.transforms import Chain, Means, Synthesis, Weights
from pixa.runtime.weights import convolutions

ort.set_default_logger_severity(3)
SELF_TEST_LEVEL = 100
SYNTHESIS, NATIVE = "synthesis", "native synthesis"
ANSWERS = "index", "mean"
LARGE_BLOCK = 31 << 20  # bytes; fresh pages for the arrays of every tile would be 7% of the time of a decoding


class OnnxModel:
    """A loaded model: sessions of its graphs and the arrays of its tables.

    The exact networks are tried on a stored vector first, so that a runtime whose arithmetic differs is refused
    instead of decoding garbage.

    Args:
        entry: which model.
        threads: threads of onnxruntime, 0 for all cores.
        optimise: let onnxruntime rewrite the graphs.

    Attributes:
        codec: how its tiles are coded.
        channels: of what is coded, C.

    Raises:
        ModelMissing: a file is missing or altered, or the self-test fails.
    """

    codec: TileCodec
    channels: int

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

    def prepare(self) -> None:
        """Make what the codec needs of the arrays."""
        raise NotImplementedError

    def self_test(self) -> None:
        """Try the exact networks.

        Raises:
            ModelMissing: they give something else than they should.
        """
        if self.self_test_digest() == self.arrays["test_sha256"].tobytes():
            return
        if not self.native:
            raise ModelMissing("the self-test of the model failed: this machine's arithmetic is not exact")
        self.native = {}  # its floats may be exact where its integers are not
        self.sessions.clear()
        self.self_test()

    def self_test_digest(self) -> bytes:
        """SHA-256 of what the exact networks make of the stored vector."""
        raise NotImplementedError

    def session(self, graph: str, single_thread: bool = False) -> ort.InferenceSession:
        """A graph ready to run; with one thread where other work is done meanwhile."""
        with self.loading:
            if (graph, single_thread) not in self.sessions:
                self.sessions[graph, single_thread] = self.load(graph, single_thread)
            return self.sessions[graph, single_thread]

    def load(self, graph: str, single_thread: bool) -> ort.InferenceSession:
        native = graph == NATIVE or (graph != SYNTHESIS and graph in self.native)
        integers = native and graph.startswith("scale") and graph != "scale_a"  # no faster with more threads than one
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1 if single_thread or integers else self.threads
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

    def run(self, graph: str, single_thread: bool = False, /, **inputs: np.ndarray) -> list[np.ndarray]:
        """The outputs of a graph; `single_thread` as for `session`."""
        return self.session(graph, single_thread).run(None, inputs)

    def inputs(self, graph: str, single_thread: bool = False) -> list[str]:
        return [i.name for i in self.session(graph, single_thread).get_inputs()]

    def outputs(self, graph: str, single_thread: bool = False) -> list[str]:
        return [o.name for o in self.session(graph, single_thread).get_outputs()]

    def analysis(self, picture: np.ndarray) -> np.ndarray:
        """g_a: (H, W, 3) uint8, sides multiples of the stride -> y (C, H/stride, W/stride)."""
        return self.run("analysis", picture=picture[None])[0][0]

    def synthesis(self, y_hat: np.ndarray, level: int, single_thread: bool = False) -> np.ndarray:
        """g_s: y_hat (C, h, w) -> (stride*h, stride*w, 3) uint8; `single_thread` as for `session`."""
        raise NotImplementedError


class LatentModel(OnnxModel):
    """A model of pictures as latents; see `pixa.coding.latents`."""

    def prepare(self) -> None:
        self.tables = Tables(self.arrays["limits"], self.arrays["frequencies"])
        passes = self.arrays["passes"].astype(bool)
        self.passes = passes if passes.shape[2] == 4 else passes[:, :, [0, 1, 1, 0]]  # by square, or by parity
        self.channels = self.arrays["gain"].shape[1]
        self.codec = LatentCodec(self)

    def self_test_digest(self) -> bytes:
        digest, names = hashlib.sha256(), ("z", *GRAPH_INPUTS)
        memory = {n: self.arrays[f"test_{n}"].astype(np.float32) for n in names if f"test_{n}" in self.arrays}
        for p, pattern in enumerate(self.passes):
            index, outputs = self.scale(p, memory, SELF_TEST_LEVEL)
            for output in (*outputs.values(), index):
                digest.update(output.astype(np.uint8).tobytes())
            magnitude = self.arrays["test_magnitude"][:, pattern.any(1)].astype(np.float32)
            memory = memory | outputs | {"magnitude": magnitude}
        return digest.digest()

    def vector(self, name: str, level: int) -> np.ndarray:
        return self.arrays[name][level].astype(np.float32).reshape(1, -1, 1, 1)

    def synthesis(self, y_hat: np.ndarray, level: int, single_thread: bool = False) -> np.ndarray:
        graph = NATIVE if SYNTHESIS in self.native and self.can_skip_blocks(y_hat, single_thread) else SYNTHESIS
        return self.run(graph, single_thread, y_hat=y_hat[None], vector=self.vector("vector", level))[0][0]

    def can_skip_blocks(self, y_hat: np.ndarray, single_thread: bool) -> bool:
        """Whether the native graph (`pixa.models.export.native`) shows y_hat (M, h, w) as the whole synthesis does."""
        facts = self.session(NATIVE, single_thread).get_modelmeta().custom_metadata_map
        if isinf(limit := float(facts["limit"])):
            return True
        squares = np.square(y_hat)
        energy = squares.sum(0) - squares[json.loads(facts["strong"])].sum(0)
        return energy.max() <= limit

    def hyper(self, y: np.ndarray, places: np.ndarray | None = None) -> np.ndarray:
        """See `pixa.coding.latents.LatentModel`."""
        return self.run("hyper", y=y)[0]

    def scale(self, p: int, memory: Memory, level: int) -> tuple[np.ndarray, Memory]:
        """See `pixa.coding.latents.LatentModel`."""
        graph = f"scale_{ascii_lowercase[p]}"
        vectors = {
            "index_bias": f"index_bias_{ascii_lowercase[p]}",
            "z_scale": "z_scale",
            "feature_bias": "feature_bias",
        }
        own = {name: self.vector(vectors[name], level) for name in self.inputs(graph) if name in vectors}
        (index,), outputs = self.answer(graph, memory | own)
        return index, outputs

    def mean(self, p: int, memory: Memory, single_thread: bool = False) -> tuple[np.ndarray, Memory]:
        """See `pixa.coding.latents.LatentModel`."""
        means, outputs = self.answer(f"mean_{ascii_lowercase[p]}", memory, single_thread)
        return means[0] if len(means) == 1 else self.interleaved(p, means), outputs

    def interleaved(self, p: int, phases: list[np.ndarray]) -> np.ndarray:
        """The means of pass p from those of each position of a 2x2 square (`pixa.models.export.phases`), else zero."""
        pattern = self.passes[p][self.passes[p].any(1)]
        height, width = (first + last - 1 for first, last in zip(phases[0].shape[2:], phases[3].shape[2:], strict=True))
        mean = np.zeros((1, len(pattern), height, width), np.float32)
        for place, phase in enumerate(phases):
            row, column = divmod(place, 2)
            own = np.flatnonzero(pattern[:, place])
            mean[:, own[0] : own[-1] + 1, row::2, column::2] = phase[:, :, row:, column:]
        return mean

    def answer(self, graph: str, memory: Memory, single_thread: bool = False) -> tuple[list[np.ndarray], Memory]:
        """Run a graph on what it needs of the memory: its answers, table indexes or means, and its other outputs."""
        outputs = self.run(graph, single_thread, **{name: memory[name] for name in self.inputs(graph, single_thread)})
        named = list(zip(self.outputs(graph, single_thread), outputs, strict=True))
        answers = [output for name, output in named if name.startswith(ANSWERS)]
        return answers, {name: output for name, output in named if not name.startswith(ANSWERS)}


class InterModel(LatentModel):
    """A model of inter frames; see `pixa.coding.inter`.

    Attributes:
        planes: of what its synthesis sees beside latents, see `synthesis`.
        vectors: the network that expects motion.
    """

    def prepare(self) -> None:
        super().prepare()
        self.planes, self.vectors = int(self.arrays["planes"]), VectorNet(self.arrays)
        self.codec = InterCodec(self)

    def weights(self, graph: str) -> Weights:
        return convolutions(read(self.entry, f"{graph}.onnx"))

    @cached_property
    def g_a(self) -> Chain:
        return Chain(self.weights("analysis"))

    @cached_property
    def h_a(self) -> Chain:
        return Chain(self.weights("hyper"))

    @cached_property
    def predictor(self) -> Chain:
        return Chain(self.weights("predict"))

    @cached_property
    def means(self) -> Means:
        return Means(self.weights("mean_a"), self.weights("mean_b"))

    @cached_property
    def g_s(self) -> Synthesis:
        return Synthesis(self.weights("synthesis"))

    def synthesis(
        self, y_hat: np.ndarray, level: int, single_thread: bool = False, context: np.ndarray | None = None
    ) -> np.ndarray:
        """g_s: y_hat (M, h, w) -> (16h, 16w, 3) float32 in levels, neither rounded nor clipped.

        Args:
            context: (planes, 16h, 16w), zeros where it is not given; see `pixa.coding.tile.CarryOver.context`.
        """
        if context is None:
            context = np.zeros((self.planes, *(self.codec.stride * n for n in y_hat.shape[1:])), np.float32)
        graph = NATIVE if SYNTHESIS in self.native else SYNTHESIS
        given = {"y_hat": y_hat[None], "vector": self.vector("vector", level), "context": context[None]}
        return self.run(graph, single_thread, **given)[0][0]

    def analysis(self, picture: np.ndarray) -> np.ndarray:
        """As that of `OnnxModel`."""
        if not (native := kernels()):
            return super().analysis(picture)
        height, width = (n // self.codec.stride for n in picture.shape[:2])
        places = np.ones((height, width), bool)
        return self.g_a(native, self.cores, picture.astype(np.float32), places).transpose(2, 0, 1)

    def hyper(self, y: np.ndarray, places: np.ndarray | None = None) -> np.ndarray:
        """See `pixa.coding.latents.LatentModel`; 0 at other places."""
        if not (native := kernels()) or places is None:
            return super().hyper(y)
        z = self.h_a(native, self.cores, np.ascontiguousarray(y[0].transpose(1, 2, 0)), places)
        return np.where(places, z.transpose(2, 0, 1), np.float32(0))[None]

    def mean(self, p: int, memory: Memory, single_thread: bool = False) -> tuple[np.ndarray, Memory]:
        """See `pixa.coding.latents.LatentModel`; with "coded", (h, w) bool, in the memory they are 0 elsewhere."""
        if not (native := kernels()) or "coded" not in memory:
            return super().mean(p, memory, single_thread)
        run, coded, outputs = (native, self.cores), memory["coded"], {}
        if p == 0:
            told = (memory[name][0] for name in ("features", "predicted", "past_hat_1"))
            means, *rest = self.means.a(*run, *told, coded)
            outputs = dict(zip(("state", "base"), rest, strict=True))
        else:
            means = self.means.b(*run, memory["state"], memory["base"], memory["y_hat"][0], coded)
        result = np.zeros((1, self.channels, *coded.shape), np.float32)
        result[0, :, coded] = means
        return result, outputs

    def show(
        self,
        y_hat: np.ndarray,
        predicted: np.ndarray,
        level: int,
        coded: np.ndarray,
        moved: np.ndarray,
        size: tuple[int, int],
    ) -> np.ndarray:
        """What kernels make of a frame: see `pixa.runtime.transforms.Synthesis`."""
        vector = self.vector("vector", level).ravel()
        weight = self.carry_weight(level)
        return self.g_s(kernels(), self.cores, y_hat, predicted, vector, coded, moved, size, weight)

    def predict(self, picture: np.ndarray, level: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `pixa.coding.inter.InterModel`."""
        scale = (self.vector("gain", level) * self.vector("step", level))[0]
        if native := kernels():
            latents = np.zeros((len(scale), *places.shape), np.float32)
            found = self.predictor(native, self.cores, picture.astype(np.float32), places)[places]
            latents[:, places] = found.T * scale[:, :, 0]
            return latents, places
        return self.run("predict", picture=picture[None])[0][0] * scale, np.ones_like(places)

    def carry_weight(self, level: int) -> float:
        """See `pixa.coding.inter.InterModel`."""
        return float(self.arrays["bypass"][level, 0])


class TokenModel(OnnxModel):
    """A model of tokens; see `pixa.coding.tokens`.

    Attributes:
        integers: what arithmetic the entropy model is done in.
    """

    integers = np.float32

    def prepare(self) -> None:
        self.channels, self.prior = self.arrays["codes"].shape[2], tokens.Prior(self)
        self.codec = tokens.TokenCodec(self)

    def self_test_digest(self) -> bytes:
        digest, symbols = hashlib.sha256(), self.arrays["test_symbols"]

        def take(grid: int, rates: np.ndarray, rows: np.ndarray, columns: np.ndarray, member: bool) -> np.ndarray:
            digest.update(rates.astype("<u4").tobytes())
            return symbols[int(member), grid, rows, columns].astype(np.int64)

        for nested in (False, True):
            self.prior.walk(self.arrays["test_map"], nested, take)
        return digest.digest()

    def synthesis(self, y_hat: np.ndarray, level: int, single_thread: bool = False) -> np.ndarray:
        """As that of `OnnxModel`; sides of y_hat even."""
        return self.run(SYNTHESIS, single_thread, y_hat=y_hat[None])[0][0]


CODINGS: dict[str, type[OnnxModel]] = {"latents": LatentModel, "inter": InterModel, "tokens": TokenModel}


def open_model(entry: ModelEntry, threads: int = 0, optimise: bool = True) -> OnnxModel:
    """A model by what its tiles hold; arguments and errors as those of `OnnxModel`."""
    return CODINGS[entry.coding](entry, threads, optimise)


@cache
def load_model(entry: ModelEntry, threads: int = 0) -> OnnxModel:
    """A loaded model, kept for the life of the process."""
    np.empty(LARGE_BLOCK, np.uint8)  # freed at once; from then on glibc keeps the pages of what is freed and smaller
    return open_model(entry, threads)
