"""Export of a trained model to what the runtime reads: ONNX graphs, integer tables, a manifest entry.

`python -m pixa.models.export CHECKPOINT TAG WIRE_ID` writes weights/NAME.TAG and its entry of the manifest. The export
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

from pixa.datasets.clips import Clips
from pixa.datasets.pictures import Pictures
from pixa.models.export import native, reduced
from pixa.models.export.architectures import architecture_of, decoder, encoder
from pixa.models.export.backbone_graphs import synthesis
from pixa.models.export.calibrate import calibrated_tables, coded_crops
from pixa.models.export.graph import Network
from pixa.models.export.vector_fit import fit
from pixa.models.nets.backbone import CONTEXT_MAX, Z_MAX, Backbone
from pixa.models.nets.exact import ACT_MAX, EXACT_LIMIT, Exact
from pixa.models.nets.layers import LEVELS
from pixa.models.nets.rates import z_table
from pixa.models.registry import TUNES
from pixa.models.training.checkpoint import load_model
from pixa.models.training.stem_run import coded_groups, motion_symbols

CROPS, CROP = 600, 256
GROUPS, FRAMES = 150, 5


def bias_of(scale: Network) -> str:
    """The level vector that joins the last sum of a scale network."""
    return scale.name.replace("scale", "index_bias")


def level_arrays(model: Backbone) -> dict[str, np.ndarray]:
    """The vectors of every quality level, (201, channels): float32 where pixels are at stake, integers elsewhere."""
    level = torch.arange(LEVELS)
    table = lambda module: module(level)[:, :, 0, 0].detach()
    whole = lambda module, kind: table(module).round().numpy().astype(kind)
    biases = [bias_of(scale) for scale in architecture_of(model).scales(model)]
    past = {}
    if architecture_of(model).inter:
        past = {"bypass": table(model.bypass).numpy()} | model.vectors.arrays()
    planes = {"planes": np.uint8(model.g_s.context.c_in)} if model.g_s.context is not None else {}
    return (
        {
            "gain": table(model.log_gain).exp().numpy(),
            "step": table(model.log_step).exp().numpy(),
            "z_gain": table(model.log_z_gain).exp().numpy(),
            "vector": table(model.vector).numpy(),
            "z_scale": whole(model.h_s.z_scale, np.uint8),
            "z_index": z_table(model.z_index(level)[:, :, 0, 0].detach().round()).numpy().astype(np.uint8),
            "feature_bias": whole(model.h_s.bias, np.int32),
        }
        | {name: whole(model.get_submodule(name), np.int32) for name in biases}
        | past
        | planes
    )


def prove_exact(model: Backbone, arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """The largest magnitude any sum of each exact layer can reach.

    Raises:
        ValueError: one reaches 2**24, so float32 could round it.
    """
    extra = {f"{scale.name}.index": bias_of(scale) for scale in architecture_of(model).scales(model)}
    extra["h_s.pw2"] = "feature_bias"
    bounds = {"z * z_scale": Z_MAX * int(arrays["z_scale"].max())}
    for name, layer in model.named_modules():
        if isinstance(layer, Exact):
            bounds[name] = layer.bound(CONTEXT_MAX if name.endswith(".context") else ACT_MAX)
            bounds[name] += int(np.abs(arrays[extra[name]]).max()) if name in extra else 0
    return exact(bounds)


def exact(bounds: dict[str, int]) -> dict[str, int]:
    """The bounds of sums, all of them small enough for float32.

    Raises:
        ValueError: one reaches 2**24.
    """
    for name, bound in bounds.items():
        if bound >= EXACT_LIMIT:
            raise ValueError(f"{name} can reach {bound}, past 2**24: its arithmetic would not be exact")
    return bounds


@torch.no_grad()
def self_test(model: Backbone, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs of the exact networks at level 100 and the SHA-256 of all their outputs, pass by pass."""
    c, rng, level = model.config, np.random.default_rng(1), 100
    z = rng.integers(-3, 4, (1, c.n, 3, 3)) * rng.integers(1, 12, (1, c.n, 1, 1))
    magnitude = np.minimum(rng.geometric(0.5, (1, c.m, 12, 12)) - 1, CONTEXT_MAX)
    tensor = lambda a: torch.from_numpy(np.asarray(a, np.float32))
    at = lambda name: tensor(arrays[name][level])[None, :, None, None]
    memory = {"z": tensor(z), "z_scale": at("z_scale"), "feature_bias": at("feature_bias")}
    digest, architecture = hashlib.sha256(), architecture_of(model)
    scales, patterns = architecture.scales(model), architecture.passes(model)
    seen = [name for name in ("past_1", "past_2") if name in scales[0].inputs]
    past = {name: np.roll(magnitude, by, 1) for by, name in enumerate(seen, 1)}
    memory |= {name: tensor(values) for name, values in past.items()}
    for network, pattern in zip(scales, patterns, strict=True):
        memory["index_bias"] = at(bias_of(network))
        outputs = network.forward(*(memory[name] for name in network.inputs))
        digest.update(b"".join(output.numpy().astype(np.uint8).tobytes() for output in outputs))
        memory |= zip(network.outputs, outputs, strict=True)
        memory["magnitude"] = tensor(magnitude[:, pattern.any(1)])
    sha256 = np.frombuffer(digest.digest(), np.uint8)
    tests = {f"test_{name}": values.astype(np.uint8) for name, values in {"magnitude": magnitude, **past}.items()}
    return {"test_z": z.astype(np.int8)} | tests | {"test_sha256": sha256}


@torch.no_grad()
def check_parity(model: Backbone, folder: Path, arrays: dict[str, np.ndarray], picture: np.ndarray) -> dict[str, float]:
    """Largest difference between torch and onnxruntime on one picture (H, W, 3) uint8, by graph.

    Raises:
        ValueError: an exact graph differs at all, or the synthesis by more than two levels (its weights are float16).
    """
    level = 100
    at = lambda name: arrays[name][level].astype(np.float32).reshape(1, -1, 1, 1)
    memory = {"picture": picture[None]} | {name: at(name) for name in ("z_scale", "feature_bias", "vector")}
    differences = {}

    def compare(network: Network) -> None:
        if "index_bias" in network.inputs:
            memory["index_bias"] = at(bias_of(network))
        session = ort.InferenceSession(folder / f"{network.name}.onnx")
        outputs = session.run(None, {name: memory[name] for name in network.inputs})
        expected = network.forward(*(torch.from_numpy(memory[name]) for name in network.inputs))
        pairs = zip(outputs, expected, strict=True)
        differences[network.name] = max(float(np.abs(a - b.numpy().astype(np.float64)).max()) for a, b in pairs)
        memory.update(zip(network.outputs, outputs, strict=True))

    for network in encoder(model):
        compare(network)
    y = memory["y"]
    memory["z"] = np.floor(memory["z"] * at("z_gain") + 0.5).clip(-Z_MAX, Z_MAX)
    magnitude = np.minimum(np.floor(np.abs(y * at("gain"))), CONTEXT_MAX)
    memory |= {"past_1": magnitude, "past_2": magnitude, "predicted": y, "past_hat_1": y / 2}
    networks, patterns = decoder(model), architecture_of(model).passes(model)
    for network, pattern in zip(networks, (*patterns, *patterns), strict=False):
        compare(network)
        memory |= {"magnitude": magnitude[:, pattern.any(1)], "y_hat": y[:, pattern.any(1)]}
    planes = np.moveaxis(np.concatenate([picture, picture], 2), 2, 0)[None]
    memory |= {"y_hat": y, "context": planes / np.float32(255) - np.float32(0.5)}
    for network in networks[2 * len(patterns) :]:
        compare(network)
    exact = [difference for name, difference in differences.items() if name.startswith("scale")]
    if any(exact) or differences["synthesis"] > 2:
        raise ValueError(f"torch and onnxruntime disagree: {differences}")
    return differences


def decode_macs(model: Backbone) -> float:
    """Multiply-accumulates per pixel of everything the decoder runs."""
    h_s, g_s = model.h_s, model.g_s
    strides = {h_s.up1: 64, h_s.mix1: 32, h_s.pw1: 32, h_s.up2: 32, g_s.context: 8, g_s.high: 8, g_s.head: 8}
    strides |= dict.fromkeys(getattr(model, "g_p", ())[: 1 + model.config.analysis_high], 8)
    total, networks = 0.0, decoder(model)
    if architecture_of(model).inter:  # what the prediction shows is synthesised too
        networks.append(synthesis(model))
        total += 2 * sum(p.numel() for p in model.vectors.parameters()) / 16**2
    for network in networks:
        for layer in network.layers:
            weights = sum(p.numel() for name, p in layer.named_parameters() if name.endswith("weight"))
            products = sum(getattr(module, "products", 0) for module in layer.modules())
            total += (weights + products) / strides.get(layer, 16) ** 2
    return total


def export(model: Backbone, tag: str, wire_id: int, weights: Path, intra: str = "", tune: str = "psnr") -> dict:
    """Write the files of `NAME.TAG` and its manifest entry; returns the entry.

    Args:
        intra: the `name.tag` of the image model of key frames, for a model of frames that follow others.
        tune: what the model was trained for, "eye" or "psnr".
    """
    model.eval()
    architecture = architecture_of(model)
    name = architecture.name
    arrays = level_arrays(model)
    bounds = prove_exact(model, arrays)
    tables = model.tables
    tables.check()
    frequencies = np.concatenate(tables.frequencies[1:]).astype(np.uint32)
    arrays |= {"limits": tables.limits.astype(np.uint16), "frequencies": frequencies}
    arrays |= {"passes": architecture.passes(model).astype(np.uint8)} | self_test(model, arrays)

    folder = weights / f"{name}.{tag}"
    folder.mkdir(parents=True, exist_ok=True)
    for network in [*encoder(model), *decoder(model)]:
        (folder / f"{network.name}.onnx").write_bytes(network.graph())
    np.savez_compressed(folder / "tables.npz", **arrays)
    picture = np.random.default_rng(2).integers(0, 256, (8, 8, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    record = {
        "model": architecture.key,
        "config": model.config.as_dict(),
        "bounds": bounds,
        "torch_against_onnxruntime": check_parity(model, folder, arrays, picture),
    }
    (folder / "export.json").write_text(json.dumps(record, indent=1) + "\n")

    needed = [*(f"{network.name}.onnx" for network in decoder(model)), "tables.npz"]
    digest = hashlib.sha256(b"".join((folder / file).read_bytes() for file in needed)).hexdigest()
    c = model.config
    entry = {
        "name": name,
        "tag": tag,
        "wire_id": wire_id,
        "tune": tune,
        "hash": digest[:8],
        "description": architecture.description,
        "decode_kmac_per_pixel": round(decode_macs(model) / 1000, 2),
        "parameters": sum(p.numel() for p in model.parameters()),
        "analysis_halo": -(-(c.analysis_high + 2 * c.analysis_low) // 2),
        "synthesis_halo": -(-(c.synthesis_high + 2 * c.synthesis_low) // 2),
        "decoder": needed,
        "encoder": [f"{network.name}.onnx" for network in encoder(model)],
        "coding": architecture.coding,
        "can": list(architecture.can),
    }
    entry |= native.write(model, folder, native.NOTHING if intra else native.find_dead_blocks(model))
    entry |= {"key_model": intra} if intra else {"reduced": reduced.write(model, folder)}
    enter(entry, weights)
    return entry


def enter(entry: dict, weights: Path) -> None:
    """Put an entry behind all others of the manifest, in the place of that of the same name and tag."""
    manifest = weights / "manifest.json"
    models = json.loads(manifest.read_text())["models"] if manifest.exists() else []
    models = [m for m in models if (m["name"], m["tag"]) != (entry["name"], entry["tag"])] + [entry]
    manifest.write_text(json.dumps({"models": models}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("tag")
    parser.add_argument("wire_id", type=int)
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--tune", choices=TUNES, default="psnr", help="what it was trained for (%(default)s)")
    parser.add_argument("--intra", default="", metavar="NAME.TAG", help="of a video model: the model of key frames")
    parser.add_argument("--calibrate", nargs="+", default=[], metavar="DATA", help="fit the tables to these files")
    parser.add_argument("--held-out", type=int, default=32, help="of them at their start not to look at (%(default)s)")
    args = parser.parse_args()
    model = load_model(args.checkpoint, "cpu")
    if architecture_of(model).inter != bool(args.intra):
        parser.error("--intra is for a model of frames that follow others, and only for that")
    if args.calibrate and args.intra:
        clips = Clips([Path(path) for path in args.calibrate], FRAMES, CROP)
        intra = load_model(args.weights / args.intra, "cpu")
        model.continue_tables(model.tables)
        for priced in (False, True):  # the second time as an encoder finds them, by what the first has taught
            coded = list(coded_groups(model, intra, clips, args.held_out, GROUPS, FRAMES, CROP, priced))
            model.vectors = fit(model.config.vectors, [found for _, found in coded])
        for out, found in coded:
            out["symbols"]["motion"], out["indexes"]["motion"] = motion_symbols(*found, model)
        model.set_tables(calibrated_tables(model.tables, (out for out, _ in coded)))
    elif args.calibrate:
        coded = coded_crops(model, Pictures(args.calibrate, CROP), args.held_out, CROPS, CROP)
        model.set_tables(calibrated_tables(model.tables, coded))
    print(json.dumps(export(model, args.tag, args.wire_id, args.weights, args.intra, args.tune), indent=1))


if __name__ == "__main__":
    main()
