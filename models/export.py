"""Export of a trained `fast` to what the runtime reads: ONNX graphs, integer tables, a manifest entry.

`python -m pixa.models.export CHECKPOINT TAG WIRE_ID` writes weights/fast.TAG and its entry of the manifest. The export
proves, layer by layer, that no sum of the exact networks can reach 2**24, compares every graph with torch, and stores
a self-test that every decoder runs when it loads the model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from onnx import TensorProto
from torch import nn

from pixa.datasets.pictures import Pictures
from pixa.models.backbone import CONTEXT_MAX, Z_MAX
from pixa.models.calibrate import calibrated_tables
from pixa.models.exact import ACT_BITS, ACT_MAX, EXACT_LIMIT, Exact
from pixa.models.fast import Fast, FastConfig, pass_mask
from pixa.models.graph import Graph
from pixa.models.layers import LEVELS, Down
from pixa.models.rates import z_table

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
DECODER = ["scale_a.onnx", "scale_b.onnx", "mean_a.onnx", "mean_b.onnx", "synthesis.onnx", "tables.npz"]
ENCODER = ["analysis.onnx", "hyper.onnx"]
CROPS, CROP = 600, 256


def spatial(channels: int) -> tuple:
    return FLOAT, (1, channels, "height", "width")


def vector(channels: int) -> tuple:
    return FLOAT, (1, channels, 1, 1)


def analysis_graph(model: Fast) -> bytes:
    """picture (1, H, W, 3) uint8 -> y (1, M, H/16, W/16); the scaling to [-0.5, 0.5] is folded into the first layer."""
    g = Graph("analysis", {"picture": (UINT8, (1, "height", "width", 3))})
    first = Down(3, model.config.c, 8)
    with torch.no_grad():
        first.weight.copy_(model.g_a[0].weight / 255)
        first.bias.copy_(model.g_a[0].bias - 0.5 * model.g_a[0].weight.sum(1))
    x = g.op("Transpose", g.op("Cast", "picture", to=FLOAT), perm=[0, 3, 1, 2])
    return g.finish({"y": (g.layer(nn.Sequential(first, *model.g_a[1:]), x), FLOAT)})


def hyper_graph(model: Fast) -> bytes:
    """y (1, M, 4h, 4w) -> z (1, N, h, w), neither scaled nor rounded."""
    g = Graph("hyper", {"y": spatial(model.config.m)})
    return g.finish({"z": (g.layer(model.h_a, "y"), FLOAT)})


def scale_a_graph(model: Fast) -> bytes:
    """Exact: z integers -> features and table indexes of pass A, both at four times the resolution."""
    c, h = model.config, model.h_s
    inputs = {"z": spatial(c.n), "z_scale": vector(c.n), "feature_bias": vector(c.f), "index_bias": vector(c.m)}
    g = Graph("scale_a", inputs)
    x = g.op("Clip", g.op("Mul", "z", "z_scale"), g.scalar(-ACT_MAX), g.scalar(ACT_MAX))
    x = g.layer(h.pw1, g.layer(h.mix1, g.shuffle(g.layer(h.up1, x), 2)))
    features = g.layer(h.pw2, g.layer(h.mix2, g.shuffle(g.layer(h.up2, x), 2)), "feature_bias")
    index = g.layer(model.scale_a.index, g.layer(model.scale_a.hidden, features), "index_bias")
    return g.finish({"features": (features, FLOAT), "index": (g.op("Cast", index, to=UINT8), UINT8)})


def scale_b_graph(model: Fast) -> bytes:
    """Exact: features and symbol magnitudes of pass A -> table indexes of pass B."""
    c, net = model.config, model.scale_b
    g = Graph("scale_b", {"features": spatial(c.f), "magnitude": spatial(c.m), "index_bias": vector(c.m)})
    joint = g.op("Concat", "features", g.layer(net.context, "magnitude"), axis=1)
    index = g.layer(net.index, g.layer(net.hidden, joint), "index_bias")
    return g.finish({"index": (g.op("Cast", index, to=UINT8), UINT8)})


def mean_a_graph(model: Fast) -> bytes:
    """features -> state (1, K, h, w) and means of pass A (1, M, h, w)."""
    g, net = Graph("mean_a", {"features": spatial(model.config.f)}), model.mean_a
    state = g.layer(net.block, g.layer(net.enter, g.op("Mul", "features", g.scalar(2.0**-ACT_BITS))))
    return g.finish({"state": (state, FLOAT), "mean": (g.layer(net.mean, state), FLOAT)})


def mean_b_graph(model: Fast) -> bytes:
    """state and the latents rebuilt by pass A -> means of pass B."""
    g, net = Graph("mean_b", {"state": spatial(model.config.k), "y_hat": spatial(model.config.m)}), model.mean_b
    x = g.op("Add", "state", g.layer(net.enter, "y_hat"))
    return g.finish({"mean": (g.layer(net.mean, g.layer(net.blocks, x)), FLOAT)})


def synthesis_graph(model: Fast) -> bytes:
    """y_hat (1, M, h, w) and the level's vector -> picture (1, 16h, 16w, 3) uint8."""
    g, net = Graph("synthesis", {"y_hat": spatial(model.config.m), "vector": vector(model.config.c)}), model.g_s
    x = g.op("Mul", g.layer(net.up, g.layer(net.low, "y_hat")), "vector")
    x = g.layer(net.head, g.layer(net.high, x))
    x = g.op("Add", g.op("Mul", x, g.scalar(255.0)), g.scalar(128.0))  # 255 * 0.5, and 0.5 to round
    x = g.op("Cast", g.op("Clip", g.op("Floor", x), g.scalar(0.0), g.scalar(255.0)), to=UINT8)
    return g.finish({"picture": (g.op("Transpose", x, perm=[0, 2, 3, 1]), UINT8)})


def level_arrays(model: Fast) -> dict[str, np.ndarray]:
    """The vectors of every quality level, (201, channels): float32 where pixels are at stake, integers elsewhere."""
    level = torch.arange(LEVELS)
    table = lambda module: module(level)[:, :, 0, 0].detach()
    whole = lambda module, kind: table(module).round().numpy().astype(kind)
    return {
        "gain": table(model.log_gain).exp().numpy(),
        "step": table(model.log_step).exp().numpy(),
        "z_gain": table(model.log_z_gain).exp().numpy(),
        "vector": table(model.vector).numpy(),
        "z_scale": whole(model.h_s.z_scale, np.uint8),
        "z_index": z_table(model.z_index(level)[:, :, 0, 0].detach().round()).numpy().astype(np.uint8),
        "feature_bias": whole(model.h_s.bias, np.int32),
        "index_bias_a": whole(model.index_bias_a, np.int32),
        "index_bias_b": whole(model.index_bias_b, np.int32),
    }


def prove_exact(model: Fast, arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """The largest magnitude any sum of each exact layer can reach.

    Raises:
        ValueError: one reaches 2**24, so float32 could round it.
    """
    extra = {
        "h_s.pw2": np.abs(arrays["feature_bias"]).max(),
        "scale_a.index": np.abs(arrays["index_bias_a"]).max(),
        "scale_b.index": np.abs(arrays["index_bias_b"]).max(),
    }
    bounds = {"z * z_scale": Z_MAX * int(arrays["z_scale"].max())}
    for name, layer in model.named_modules():
        if isinstance(layer, Exact):
            bounds[name] = layer.bound(CONTEXT_MAX if name == "scale_b.context" else ACT_MAX) + int(extra.get(name, 0))
    for name, bound in bounds.items():
        if bound >= EXACT_LIMIT:
            raise ValueError(f"{name} can reach {bound}, past 2**24: its arithmetic would not be exact")
    return bounds


@torch.no_grad()
def self_test(model: Fast, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs of the exact networks at level 100 and the SHA-256 of their outputs (features, indexes A, indexes B)."""
    c, rng, level = model.config, np.random.default_rng(1), 100
    z = rng.integers(-3, 4, (1, c.n, 3, 3)) * rng.integers(1, 12, (1, c.n, 1, 1))
    magnitude = rng.geometric(0.5, (1, c.m, 12, 12)) - 1
    tensor = lambda a: torch.from_numpy(np.asarray(a, np.float32))
    at = lambda name: tensor(arrays[name][level])[None, :, None, None]
    features = model.h_s(tensor(z), at("z_scale"), at("feature_bias"))
    index_a = model.scale_a(features, at("index_bias_a"))
    magnitude = np.minimum(magnitude, CONTEXT_MAX)
    index_b = model.scale_b(features, tensor(magnitude), at("index_bias_b"))
    outputs = b"".join(t.numpy().astype(np.uint8).tobytes() for t in (features, index_a, index_b))
    digest = np.frombuffer(hashlib.sha256(outputs).digest(), np.uint8)
    return {"test_z": z.astype(np.int8), "test_magnitude": magnitude.astype(np.uint8), "test_sha256": digest}


@torch.no_grad()
def check_parity(model: Fast, folder: Path, arrays: dict[str, np.ndarray], picture: np.ndarray) -> dict[str, float]:
    """Largest difference between torch and onnxruntime on one picture (H, W, 3) uint8, by graph.

    Raises:
        ValueError: an exact graph differs at all, or the synthesis by more than two levels (its weights are float16).
    """
    level = 100
    at = lambda name: arrays[name][level].astype(np.float32).reshape(1, -1, 1, 1)
    run = lambda name, **inputs: ort.InferenceSession(folder / f"{name}.onnx").run(None, inputs)
    tensor = torch.from_numpy
    largest = lambda a, b: float(np.abs(a.numpy().astype(np.float64) - b).max())

    y = run("analysis", picture=picture[None])[0]
    z = run("hyper", y=y)[0]
    vectors = {"z_scale": at("z_scale"), "feature_bias": at("feature_bias"), "index_bias": at("index_bias_a")}
    z_int = np.floor(z * at("z_gain") + 0.5).clip(-Z_MAX, Z_MAX)
    features, index_a = run("scale_a", z=z_int, **vectors)
    magnitude = np.minimum(np.floor(np.abs(y * at("gain"))), CONTEXT_MAX)
    (index_b,) = run("scale_b", features=features, magnitude=magnitude, index_bias=at("index_bias_b"))
    state, mean_a = run("mean_a", features=features)
    (mean_b,) = run("mean_b", state=state, y_hat=y)
    (decoded,) = run("synthesis", y_hat=y, vector=at("vector"))

    t_features = model.h_s(tensor(z_int), tensor(at("z_scale")), tensor(at("feature_bias")))
    t_state, t_mean_a = model.mean_a(t_features)
    t_index_b = model.scale_b(t_features, tensor(magnitude), tensor(at("index_bias_b")))
    t_decoded = model.g_s(tensor(y), tensor(at("vector"))).mul(255).round().clamp(0, 255).permute(0, 2, 3, 1)
    differences = {
        "analysis": largest(model.g_a(tensor(picture[None]).permute(0, 3, 1, 2) / 255 - 0.5), y),
        "hyper": largest(model.h_a(tensor(y)), z),
        "features": largest(t_features, features),
        "index_a": largest(model.scale_a(t_features, tensor(at("index_bias_a"))), index_a),
        "index_b": largest(t_index_b, index_b),
        "mean_a": largest(t_mean_a, mean_a),
        "mean_b": largest(model.mean_b(t_state, tensor(y)), mean_b),
        "synthesis": largest(t_decoded, decoded),
    }
    if differences["features"] or differences["index_a"] or differences["index_b"] or differences["synthesis"] > 2:
        raise ValueError(f"torch and onnxruntime disagree: {differences}")
    return differences


def decode_macs(model: Fast) -> float:
    """Multiply-accumulates per pixel of everything the decoder runs."""
    total = 0.0
    at_16 = [model.scale_a, model.scale_b, model.mean_a, model.mean_b, model.g_s.low, model.g_s.up, model.h_s.mix2,
             model.h_s.pw2]  # fmt: skip
    resolutions = [(module, 16) for module in at_16]
    resolutions += [(model.g_s.high, 8), (model.g_s.head, 8), (model.h_s.up1, 64)]
    resolutions += [(module, 32) for module in (model.h_s.mix1, model.h_s.pw1, model.h_s.up2)]
    for module, stride in resolutions:
        total += sum(p.numel() for n, p in module.named_parameters() if n.endswith("weight")) / stride**2
    return total


def export(model: Fast, tag: str, wire_id: int, weights: Path) -> dict:
    """Write the files of `fast.TAG` and its manifest entry; returns the entry."""
    model.eval()
    arrays = level_arrays(model)
    bounds = prove_exact(model, arrays)
    tables = model.tables
    tables.check()
    frequencies = np.concatenate(tables.frequencies[1:]).astype(np.uint32)
    passes = pass_mask(1, 2, model.config.m)[0, :, 0].numpy()
    arrays |= {"limits": tables.limits.astype(np.uint16), "frequencies": frequencies}
    arrays |= {"passes": np.stack([passes, ~passes]).astype(np.uint8)} | self_test(model, arrays)

    folder = weights / f"fast.{tag}"
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {"analysis": analysis_graph, "hyper": hyper_graph, "scale_a": scale_a_graph, "scale_b": scale_b_graph,
              "mean_a": mean_a_graph, "mean_b": mean_b_graph, "synthesis": synthesis_graph}  # fmt: skip
    for name, build in graphs.items():
        (folder / f"{name}.onnx").write_bytes(build(model))
    np.savez_compressed(folder / "tables.npz", **arrays)
    picture = np.random.default_rng(2).integers(0, 256, (8, 8, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    record = {
        "config": model.config.as_dict(),
        "bounds": bounds,
        "torch_against_onnxruntime": check_parity(model, folder, arrays, picture),
    }
    (folder / "export.json").write_text(json.dumps(record, indent=1) + "\n")

    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in DECODER)).hexdigest()
    c = model.config
    entry = {
        "name": "fast",
        "tag": tag,
        "wire_id": wire_id,
        "hash": digest[:8],
        "description": "transforms at 1/8 and 1/16 resolution, exact scales, two-pass means; the default",
        "decode_kmac_per_pixel": round(decode_macs(model) / 1000, 2),
        "parameters": sum(p.numel() for p in model.parameters()),
        "analysis_halo": -(-(c.analysis_high + 2 * c.analysis_low) // 2),
        "synthesis_halo": -(-(c.synthesis_high + 2 * c.synthesis_low) // 2),
        "decoder": DECODER,
        "encoder": ENCODER,
    }
    manifest = weights / "manifest.json"
    models = json.loads(manifest.read_text())["models"] if manifest.exists() else []
    models = [m for m in models if (m["name"], m["tag"]) != ("fast", tag)] + [entry]
    manifest.write_text(json.dumps({"models": models}, indent=1) + "\n")
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("tag")
    parser.add_argument("wire_id", type=int)
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--calibrate", nargs="+", default=[], metavar="DATA", help="fit the tables to these pictures")
    parser.add_argument("--held-out", type=int, default=32, help="pictures at their start not to look at (%(default)s)")
    args = parser.parse_args()
    state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    model = Fast(FastConfig(**state["model_config"]))
    model.load_state_dict(state["ema"])
    if args.calibrate:
        model.set_tables(calibrated_tables(model, Pictures(args.calibrate, CROP), args.held_out, CROPS, CROP))
    print(json.dumps(export(model, args.tag, args.wire_id, args.weights), indent=1))


if __name__ == "__main__":
    main()
