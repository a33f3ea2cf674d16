"""Models loaded into onnxruntime: the only place that runs a network."""

from __future__ import annotations

import hashlib
from functools import cache
from string import ascii_lowercase

import numpy as np
import onnxruntime as ort

from pixa.bitstream.tables import Tables
from pixa.errors import ModelMissing
from pixa.latents import Memory
from pixa.models.registry import ModelEntry

ort.set_default_logger_severity(3)
SELF_TEST_LEVEL = 100


class OnnxModel:
    """A model's sessions, level vectors and tables.

    The exact networks are tried on a stored vector first, so that a runtime whose arithmetic differs is refused
    instead of decoding garbage.

    Args:
        entry: which model.
        threads: threads of onnxruntime, 0 for all cores.
        optimise: let onnxruntime rewrite the graphs.

    Raises:
        ModelMissing: a file is missing or altered, or the self-test fails.
    """

    def __init__(self, entry: ModelEntry, threads: int = 0, optimise: bool = True):
        self.entry = entry
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not optimise:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = cache(
            lambda name: ort.InferenceSession(
                (entry.folder / f"{name}.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        )
        check_files(entry)
        with np.load(entry.folder / "tables.npz", allow_pickle=False) as arrays:
            self.arrays = dict(arrays)
        self.tables = Tables(self.arrays["limits"], self.arrays["frequencies"])
        self.passes = self.arrays["passes"].astype(bool)
        self.self_test()

    @property
    def channels(self) -> int:
        """Latent channels M."""
        return self.arrays["gain"].shape[1]

    def self_test(self) -> None:
        memory, digest = {"z": self.arrays["test_z"].astype(np.float32)}, hashlib.sha256()
        for p, pattern in enumerate(self.passes):
            index = self.scale(p, memory, SELF_TEST_LEVEL)
            for output in (*(memory[name] for name in self.outputs(f"scale_{ascii_lowercase[p]}")[:-1]), index):
                digest.update(output.astype(np.uint8).tobytes())
            memory["magnitude"] = self.arrays["test_magnitude"][:, pattern.any(1)].astype(np.float32)
        if digest.digest() != self.arrays["test_sha256"].tobytes():
            raise ModelMissing("the self-test of the model failed: this machine's arithmetic is not exact")

    def run(self, graph: str, **inputs: np.ndarray) -> list[np.ndarray]:
        return self.session(graph).run(None, inputs)

    def inputs(self, graph: str) -> list[str]:
        return [i.name for i in self.session(graph).get_inputs()]

    def outputs(self, graph: str) -> list[str]:
        return [o.name for o in self.session(graph).get_outputs()]

    def vector(self, name: str, level: int) -> np.ndarray:
        return self.arrays[name][level].astype(np.float32).reshape(1, -1, 1, 1)

    def analysis(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8, sides multiples of 16 -> y (M, H/16, W/16)."""
        return self.run("analysis", picture=picture[None])[0][0]

    def synthesis(self, y_hat: np.ndarray, level: int) -> np.ndarray:
        """y_hat (M, h, w) -> (16h, 16w, 3) uint8."""
        return self.run("synthesis", y_hat=y_hat[None], vector=self.vector("vector", level))[0][0]

    def hyper(self, y: np.ndarray) -> np.ndarray:
        return self.run("hyper", y=y)[0]

    def scale(self, p: int, memory: Memory, level: int) -> np.ndarray:
        """See `pixa.latents.Nets`."""
        graph = f"scale_{ascii_lowercase[p]}"
        vectors = {
            "index_bias": f"index_bias_{ascii_lowercase[p]}",
            "z_scale": "z_scale",
            "feature_bias": "feature_bias",
        }
        known = memory | {name: self.vector(vectors[name], level) for name in self.inputs(graph) if name in vectors}
        return self.recall(graph, known, memory)

    def mean(self, p: int, memory: Memory) -> np.ndarray:
        """See `pixa.latents.Nets`."""
        return self.recall(f"mean_{ascii_lowercase[p]}", memory, memory)

    def recall(self, graph: str, known: Memory, memory: Memory) -> np.ndarray:
        """Run a graph on what is known and keep what it says; the last output is the answer and is not kept."""
        *kept, answer = self.run(graph, **{name: known[name] for name in self.inputs(graph)})
        memory |= zip(self.outputs(graph), kept, strict=False)
        return answer


def check_files(entry: ModelEntry) -> None:
    """Compare the decoder's files with the hash that names them.

    Raises:
        ModelMissing: a file is missing or altered.
    """
    digest = hashlib.sha256()
    for name in entry.decoder:
        path = entry.folder / name
        if not path.is_file():
            raise ModelMissing(f"the weights of {entry.name}.{entry.tag} are incomplete: {name} is missing")
        digest.update(path.read_bytes())
    if digest.hexdigest()[:8] != entry.hash:
        raise ModelMissing(f"the weights of {entry.name}.{entry.tag} are altered: their hash does not match")


@cache
def load_model(entry: ModelEntry, threads: int = 0) -> OnnxModel:
    """A loaded model, kept for the life of the process."""
    return OnnxModel(entry, threads)
