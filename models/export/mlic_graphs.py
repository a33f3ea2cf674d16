"""The networks of the passes of `mlic`, for export.

What a pass left is given to the next one as "magnitude" and "y_hat"; that one hands on, as "magnitude_c" and "y_hat_c"
where pass c left it, what passes behind it will ask for.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pixa.models.export.backbone_graphs import hyper_inputs, hyper_layers, write_features, write_index
from pixa.models.export.fast_graphs import write_between
from pixa.models.export.graph import FLOAT, UINT8, Graph, Network, spatial, vector
from pixa.models.nets.exact import ACT_BITS
from pixa.models.nets.mlic import Mean, Mlic, Pass, pass_mask

Inputs = dict[str, tuple]


def passes(model: Mlic) -> np.ndarray:
    """(P, M, 4) booleans: whether a pass codes a channel at each position of a square of 2x2, row by row."""
    config = model.config
    patterns = np.zeros((len(config.passes), config.m, 4), bool)
    for pattern, p in zip(patterns, config.passes, strict=True):
        pattern[config.channels[p.part]] = pass_mask(p, 2, 2, config).flatten(1).numpy()
    return patterns


def before(model: Mlic, p: Pass) -> list[Pass]:
    """The passes in front of p."""
    return model.config.passes[: model.config.passes.index(p)]


def told(model: Mlic, p: Pass, what: str) -> list[list[str]]:
    """Names of "magnitude" or "y_hat" of what pass p knows, by slice: the parts that add up to each."""
    earlier = before(model, p)
    name = lambda q: what if q is earlier[-1] else f"{what}_{q.letter}"
    return [[name(q) for q in earlier if q.part == part] for part in p.known]


def handed(model: Mlic, p: Pass, what: str) -> list[str]:
    """The name by which pass p hands on what the pass in front of it left, if another asks for it."""
    earlier = before(model, p)
    return [f"{what}_{earlier[-1].letter}"] if earlier and earlier[-1].first and not p.turns else []


def told_inputs(model: Mlic, p: Pass, what: str) -> Inputs:
    """What pass p is given for `told` and `handed`."""
    widths = {what: model.config.slices[before(model, p)[-1].part]}
    for part, names in zip(p.known, told(model, p, what), strict=True):
        widths |= dict.fromkeys(names, model.config.slices[part])
    return {name: spatial(width) for name, width in widths.items()}


def joined(values: dict[str, Tensor], names: list[list[str]]) -> Tensor:
    """(1, C', h, w) of the parts that `told` names."""
    return torch.cat([sum(values[name] for name in parts) for parts in names], 1)


def write_joined(g: Graph, names: list[list[str]]) -> str:
    whole = [parts[0] if len(parts) == 1 else g.op("Add", *parts) for parts in names]
    return whole[0] if len(whole) == 1 else g.op("Concat", *whole, axis=1)


def scales(model: Mlic) -> list[Network]:
    """Table indexes of every pass; A also gives the features, the others what those behind them see."""
    first, *others = model.config.passes
    return [scale_first(model, first), *(scale_next(model, p) for p in others)]


def scale_first(model: Mlic, p: Pass) -> Network:
    net = model.get_submodule(f"scale_{p.letter}")

    def forward(z: Tensor, z_scale: Tensor, feature_bias: Tensor, index_bias: Tensor) -> list[Tensor]:
        features = model.h_s(z, z_scale, feature_bias)
        return [features, net([features], index_bias)]

    def write(g: Graph, z: str, z_scale: str, feature_bias: str, index_bias: str) -> list[str]:
        features = write_features(g, model, z, z_scale, feature_bias)
        return [features, write_index(g, g.layer(net.index, g.layer(net.hidden, features), index_bias))]

    inputs = hyper_inputs(model) | {"index_bias": vector(len(net.index.bias))}
    return Network(f"scale_{p.letter}", inputs, {"features": FLOAT, "index": UINT8}, [*hyper_layers(model), net],
                   forward, write)  # fmt: skip


def scale_next(model: Mlic, p: Pass) -> Network:
    net, known = model.get_submodule(f"scale_{p.letter}"), told(model, p, "magnitude")
    widths = {q.letter: len(model.get_submodule(f"scale_{q.letter}").context.bias) for q in before(model, p) if q.known}
    inputs = {"features": spatial(model.config.f)} | {f"seen_{letter}": spatial(widths[letter]) for letter in p.seen}
    memory = list(inputs)
    inputs |= told_inputs(model, p, "magnitude") | {"index_bias": vector(len(net.index.bias))}
    kept = handed(model, p, "magnitude")
    remembered = [f"seen_{p.letter}"] * any(p.letter in q.seen for q in model.config.passes)

    def forward(*arrays: Tensor) -> list[Tensor]:
        values = dict(zip(inputs, arrays, strict=True))
        context = net.context(joined(values, known))
        index = net([*(values[name] for name in memory), context], values["index_bias"])
        return [values["magnitude"] for _ in kept] + [context for _ in remembered] + [index]

    def write(g: Graph, *names: str) -> list[str]:
        context = g.layer(net.context, write_joined(g, known))
        index = g.layer(net.index, g.layer(net.hidden, g.op("Concat", *memory, context, axis=1)), "index_bias")
        return ["magnitude" for _ in kept] + [context for _ in remembered] + [write_index(g, index)]

    outputs = dict.fromkeys([*kept, *remembered], FLOAT) | {"index": UINT8}
    layers = [net.context, net.hidden, net.index]
    return Network(f"scale_{p.letter}", inputs, outputs, layers, forward, write)


def write_mean(g: Graph, net: Mean, state: str, known: str) -> list[str]:
    """State and means."""
    for addition in [g.layer(context, state, known) for context in net.contexts.values()]:
        state = g.op("Add", state, addition)
    state = g.layer(net.block, g.layer(net.gate, state))
    return [state, g.layer(net.mean, state)]


def means(model: Mlic) -> list[Network]:
    """Means of every pass, their state for the next one, and what those behind them know."""
    return [mean(model, p) for p in model.config.passes]


def mean(model: Mlic, p: Pass) -> Network:
    """That of A and of the first anchors behind the first slice enter by the features, the others by the state."""
    net, known = model.get_submodule(f"mean_{p.letter}"), told(model, p, "y_hat")
    passes, config = model.config.passes, model.config
    enter = {passes[0]: model.enter_low, passes[2]: model.enter}.get(p)
    state = "features" if enter else f"state_{before(model, p)[-1].letter}"
    width = config.f if enter else config.k if p.part else config.low_k
    inputs = {state: spatial(width)} | (told_inputs(model, p, "y_hat") if p.known else {})
    kept = handed(model, p, "y_hat")
    between, last = p == passes[1], p == passes[-1]
    outputs = [*kept, *([] if between or last else [f"state_{p.letter}"]), "mean"]

    def forward(*arrays: Tensor) -> list[Tensor]:
        values = dict(zip(inputs, arrays, strict=True))
        entered = model.first_state(values[state], enter) if enter else values[state]
        news = joined(values, known) if p.known else entered
        parts = net(entered, news)
        said = [parts] if between else list(parts)[last:]
        return [values["y_hat"] for _ in kept] + said

    def write(g: Graph, *names: str) -> list[str]:
        entered = g.layer(enter, g.op("Mul", state, g.scalar(2.0**-ACT_BITS))) if enter else state
        news = write_joined(g, known) if p.known else entered
        said = [write_between(g, net, entered, news)] if between else write_mean(g, net, entered, news)[last:]
        return ["y_hat" for _ in kept] + said

    layers = [enter, net] if enter else [net]
    return Network(f"mean_{p.letter}", inputs, dict.fromkeys(outputs, FLOAT), layers, forward, write)
