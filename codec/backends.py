"""Models loaded into onnxruntime: the only place that runs a network."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import onnxruntime as ort

from pixa.bitstream.tables import Tables
from pixa.errors import ModelMissing
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
        self.self_test()

    @property
    def channels(self) -> int:
        """Latent channels M."""
        return self.arrays["gain"].shape[1]

    def self_test(self) -> None:
        features, index_a = self.scale_a(self.arrays["test_z"], SELF_TEST_LEVEL)
        index_b = self.scale_b(features, self.arrays["test_magnitude"], SELF_TEST_LEVEL)
        outputs = b"".join(a.astype(np.uint8).tobytes() for a in (features, index_a, index_b))
        if hashlib.sha256(outputs).digest() != self.arrays["test_sha256"].tobytes():
            raise ModelMissing("the self-test of the model failed: this machine's arithmetic is not exact")

    def run(self, graph: str, **inputs: np.ndarray) -> list[np.ndarray]:
        return self.session(graph).run(None, inputs)

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

    def scale_a(self, z: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
        vectors = {"z_scale": "z_scale", "feature_bias": "feature_bias", "index_bias": "index_bias_a"}
        inputs = {name: self.vector(stored, level) for name, stored in vectors.items()}
        return tuple(self.run("scale_a", z=z.astype(np.float32), **inputs))

    def scale_b(self, features: np.ndarray, magnitude: np.ndarray, level: int) -> np.ndarray:
        bias = self.vector("index_bias_b", level)
        return self.run("scale_b", features=features, magnitude=magnitude.astype(np.float32), index_bias=bias)[0]

    def mean_a(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return tuple(self.run("mean_a", features=features))

    def mean_b(self, state: np.ndarray, y_hat: np.ndarray) -> np.ndarray:
        return self.run("mean_b", state=state, y_hat=y_hat)[0]


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
