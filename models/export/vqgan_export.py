"""Export of a trained `vqgan`: `python -m pixa.models.export.vqgan_export CHECKPOINT TAG WIRE_ID`, and the way back.

Writes weights/vqgan.TAG and its entry of the manifest, as `pixa.models.export.driver` does for the other models. The
entropy model goes into tables.npz as integers: it is so small, and is asked for so few positions at a time, that
products of matrices serve it better than a graph.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from pixa.bitstream.categorical import frequencies
from pixa.bitstream.tables import integer_frequencies
from pixa.models.export.driver import enter, exact
from pixa.models.export.restore import parameters, stored
from pixa.models.export.vqgan_graphs import analysis, synthesis
from pixa.models.nets.exact import ACT_BITS, ACT_MAX, WEIGHT_BITS, Exact
from pixa.models.nets.layers import LEVELS
from pixa.models.nets.pyramid import GRIDS
from pixa.models.nets.quantizer import MEMORY
from pixa.models.nets.token_prior import TokenPrior, spread
from pixa.models.nets.vqgan import NESTED, Vqgan, VqganConfig
from pixa.models.training import checkpoint

TEST_REGIONS = 3, 4
DESCRIPTION = "tokens of three grids, adversarial and perceptual training; for very small files that look right"


def load(path: Path) -> Vqgan:
    """The model of a checkpoint, with its averaged weights.

    Raises:
        ValueError: its tokens are not settled yet.
    """
    state = checkpoint.load(path, "cpu")
    if not state["settled"]:
        raise ValueError(f"{path} stems from the first part of a run, before its tokens were settled")
    model = Vqgan(VqganConfig(**state["model_config"]))
    checkpoint.fit(model, state["ema"], path)
    model.settled = True
    return model.eval()


@torch.no_grad()
def restore(folder: Path) -> Vqgan:
    """The model whose export lies in `folder`, to go on training; its tokens are not settled.

    Raises:
        ValueError: the files do not have the widths of the stored configuration, or are another model's.
    """
    record = json.loads((folder / "export.json").read_text())
    if record.get("model") != "vqgan":
        raise ValueError(f"{folder} holds no vqgan")
    model = Vqgan(VqganConfig(**record["config"]))
    for network in (analysis(model), synthesis(model)):
        values = stored(folder / f"{network.name}.onnx")
        for (_, _, parameter), value in zip(parameters(*network.layers), values, strict=True):
            parameter.copy_(value.view_as(parameter))
    model.g_a[0].weight.mul_(255)
    model.g_a[0].bias.add_(0.5 * model.g_a[0].weight.sum(1))

    with np.load(folder / "tables.npz", allow_pickle=False) as file:
        arrays = {name: torch.from_numpy(array.astype(np.float32)) for name, array in file.items()}
    pyramid, prior = model.pyramid, model.prior
    for k, down, up in zip((4, 2), pyramid.down, pyramid.up, strict=False):
        for kind in ("weight", "bias"):
            getattr(down, kind).copy_(arrays[f"down{k}_{kind}"])
            getattr(up.pointwise, kind).copy_(arrays[f"up{k}_{kind}"])
    for grid, (book, digits) in enumerate(zip(pyramid.codebooks, prior.digits, strict=True)):
        book.codes.copy_(arrays["codes"][grid])
        book.count.copy_(MEMORY * shares(arrays["codes"][grid], arrays["centroids"][grid]))
        book.total.copy_(book.codes * book.count[:, None])
        digits.code_embedding.copy_(arrays["code_looks"][grid] / 2**ACT_BITS)
        digits.group_embedding.copy_(arrays["group_looks"][grid] / 2**ACT_BITS)
        digits.known_group.copy_(arrays["known_group"][grid] / digits.inner.bias_unit)
    for name, layer in layer_names(prior).items():
        layer.weight.copy_(arrays[f"{name}_weight"] / 2**WEIGHT_BITS)
        layer.bias.copy_(arrays[f"{name}_bias"] / layer.bias_unit)
    prior.map_logits.copy_(arrays["map_frequencies"].log())
    model.log_trade.copy_(arrays["trade"].log())
    return model


def shares(codes: Tensor, centroids: Tensor) -> Tensor:
    """How often codes (K, d) are used, (K,), as evenly as their groups have the centroids (groups, d)."""
    from scipy.optimize import nnls

    groups = codes.view(len(centroids), -1, codes.shape[1]).double()
    away = 1e4 * (groups - centroids[:, None]).mT.numpy()
    even = np.eye(away.shape[2])
    found = [nnls(np.concatenate([a, even]), np.repeat([0.0, 1.0], a.shape))[0] for a in away]
    return torch.from_numpy(np.concatenate(found)).float()


def layer_names(prior: TokenPrior) -> dict[str, Exact]:
    """The exact layers by their names in tables.npz."""
    named = {"top": prior.top} | {f"grow{grid}": layer for grid, layer in enumerate(prior.grow)}
    for grid, digits in enumerate(prior.digits):
        named |= {f"{name}{grid}": layer for name, layer in digits.named_children()}
    return named


@torch.no_grad()
def token_arrays(model: Vqgan) -> dict[str, np.ndarray]:
    """All arrays but the self-test."""
    stack = lambda tensors, kind: torch.stack(list(tensors)).numpy().astype(kind)
    pyramid, prior = model.pyramid, model.prior
    looks = [digits.embeddings() for digits in prior.digits]
    chances = prior.map_logits.softmax(3).numpy().astype(np.float64)
    arrays = {
        "codes": stack((book.codes for book in pyramid.codebooks), np.float32),
        "centroids": stack((book.centroids for book in pyramid.codebooks), np.float32),
        "trade": model.log_trade.exp().numpy(),
        "nested": (np.arange(LEVELS) < NESTED).astype(np.uint8),
        "map_frequencies": np.apply_along_axis(integer_frequencies, 3, chances).astype(np.uint32),
        "logit_weights": np.floor(2**20 * np.exp(-np.arange(ACT_MAX + 1) / 2**ACT_BITS) + 0.5).astype(np.uint32),
        "code_looks": stack((codes for codes, _ in looks), np.uint8),
        "group_looks": stack((groups for _, groups in looks), np.uint8),
        "known_group": stack((digits.group_bias() for digits in prior.digits), np.int32),
    }
    for k, down, up in zip((4, 2), pyramid.down, pyramid.up, strict=False):
        for kind in ("weight", "bias"):
            arrays[f"down{k}_{kind}"] = getattr(down, kind).numpy()
            arrays[f"up{k}_{kind}"] = getattr(up.pointwise, kind).numpy()
    for name, layer in layer_names(prior).items():
        weight, bias = layer.integers()
        arrays |= {f"{name}_weight": weight.numpy().astype(np.int8), f"{name}_bias": bias.numpy().astype(np.int32)}
    return arrays


def prove_exact(prior: TokenPrior, arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """The largest magnitude any sum of each exact layer can reach.

    Raises:
        ValueError: one reaches 2**24, so float32 could round it.
    """
    extra = {f"inner{grid}": int(np.abs(known).max()) for grid, known in enumerate(arrays["known_group"])}
    return exact({name: layer.bound(ACT_MAX) + extra.get(name, 0) for name, layer in layer_names(prior).items()})


@torch.no_grad()
def self_test(model: Vqgan, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A map, digits of tokens for every position, and the SHA-256 of all frequencies that they lead to."""
    rng, groups = np.random.default_rng(1), model.config.groups
    stop = rng.integers(0, 3, TEST_REGIONS)
    symbols = rng.integers(0, groups, (2, len(GRIDS), 4 * TEST_REGIONS[0], 4 * TEST_REGIONS[1]))
    digest = hashlib.sha256()
    found = torch.from_numpy(stop)[None]
    used = [spread(found >= grid, 2**grid) for grid in range(len(GRIDS))]
    for nested in (False, True):
        digits = [torch.from_numpy(symbols[:, grid, : u.shape[1], : u.shape[2]]) for grid, u in enumerate(used)]
        index = [(group if nested else groups * group + member)[None] for group, member in digits]
        for p in model.prior.passes(index, used, found, torch.tensor([nested])):
            for logits in (p.group_logits, p.member_logits)[: 1 if nested else 2]:
                digest.update(rates(logits, arrays["logit_weights"]).astype("<u4").tobytes())
    return {
        "test_map": stop.astype(np.uint8),
        "test_symbols": symbols.astype(np.uint8),
        "test_sha256": np.frombuffer(digest.digest(), np.uint8),
    }


def rates(logits: Tensor, weights: np.ndarray) -> np.ndarray:
    """Frequencies (n, S) of integer logits (n, S)."""
    below = (logits.amax(1, keepdim=True) - logits).numpy().astype(np.intp)
    return frequencies(weights[below])


@torch.no_grad()
def check_parity(model: Vqgan, folder: Path) -> dict[str, float]:
    """Largest difference between torch and onnxruntime on one picture, by graph.

    Raises:
        ValueError: more than two levels in the synthesis, whose weights are float16.
    """
    picture = np.random.default_rng(2).integers(0, 256, (1, 8, 8, 3)).astype(np.uint8).repeat(16, 1).repeat(16, 2)
    x = torch.from_numpy(picture).permute(0, 3, 1, 2) / 255
    given = {"picture": picture, "y_hat": model.tokenise(x, torch.tensor([100])).y_hat.numpy()}
    differences = {}
    for network in (analysis(model), synthesis(model)):
        inputs = {name: given[name] for name in network.inputs}
        (output,) = ort.InferenceSession(folder / f"{network.name}.onnx").run(None, inputs)
        (expected,) = network.forward(*(torch.from_numpy(value) for value in inputs.values()))
        differences[network.name] = float(np.abs(output - expected.numpy().astype(np.float64)).max())
    if differences["synthesis"] > 2:
        raise ValueError(f"torch and onnxruntime disagree: {differences}")
    return differences


def decode_macs(model: Vqgan) -> float:
    """Multiply-accumulates per pixel of everything the decoder runs where every region has all tokens."""
    g_s, prior = model.g_s, model.prior
    weights = lambda part: sum(p.numel() for name, p in part.named_parameters() if name.endswith("weight"))
    detour, high = g_s.trunk
    quarter = weights(g_s.quarter) - weights(g_s.quarter[0])
    picture = weights(g_s.enter) + weights(high) + weights(g_s.head) + weights(g_s.quarter[0])
    grids = zip(prior.digits, (*prior.grow, nn.Identity()), (16, 4, 1), strict=True)
    tokens = sum((weights(digits) + weights(grow)) / share for digits, grow, share in grids)
    return (picture + weights(detour) / 4 + 4 * (quarter + weights(g_s.details)) + tokens) / 64


def export(model: Vqgan, tag: str, wire_id: int, weights: Path) -> dict:
    """Write the files of `vqgan.TAG` and its manifest entry; returns the entry."""
    arrays = token_arrays(model)
    bounds = prove_exact(model.prior, arrays)
    arrays |= self_test(model, arrays)
    folder = weights / f"vqgan.{tag}"
    folder.mkdir(parents=True, exist_ok=True)
    for network in (analysis(model), synthesis(model)):
        (folder / f"{network.name}.onnx").write_bytes(network.graph())
    np.savez_compressed(folder / "tables.npz", **arrays)
    config = model.config
    record = {
        "model": "vqgan",
        "config": config.as_dict(),
        "bounds": bounds,
        "torch_against_onnxruntime": check_parity(model, folder),
    }
    (folder / "export.json").write_text(json.dumps(record, indent=1) + "\n")

    needed = ["synthesis.onnx", "tables.npz"]
    digest = hashlib.sha256(b"".join((folder / file).read_bytes() for file in needed)).hexdigest()
    halo = lambda reach: 4 * -(-(reach + 1) // 4)
    entry = {
        "name": "vqgan",
        "tag": tag,
        "wire_id": wire_id,
        "tune": "eye",
        "hash": digest[:8],
        "description": DESCRIPTION,
        "decode_kmac_per_pixel": round(decode_macs(model) / 1000, 2),
        "parameters": sum(p.numel() for p in model.parameters()) + 3 * model.pyramid.codebooks[0].codes.numel(),
        "analysis_halo": halo(2 * config.analysis + 2 * config.analysis_low),
        "synthesis_halo": halo(2 * config.low + config.high + -(-config.quarter // 2)),
        "decoder": needed,
        "encoder": ["analysis.onnx"],
        "coding": "tokens",
        "can": ["pictures"],
    }
    enter(entry, weights)
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("tag")
    parser.add_argument("wire_id", type=int)
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    args = parser.parse_args()
    print(json.dumps(export(load(args.checkpoint), args.tag, args.wire_id, args.weights), indent=1))


if __name__ == "__main__":
    main()
