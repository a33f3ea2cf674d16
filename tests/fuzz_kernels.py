"""Kernels under AddressSanitizer and UndefinedBehaviorSanitizer: `python tests/fuzz_kernels.py [SECONDS]` calls them
with arrays of wrong sizes and values out of range, which they must refuse or take, and never read or write beyond."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pixa.bitstream import entropy
from pixa.models.registry import find_model
from pixa.motion import search, vectors
from pixa.native import Damaged, Kernels
from pixa.native.build import build, compiler
from pixa.runtime.model import load_model
from pixa.runtime.transforms import packed

SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
NUMBERS = (-(2**31), -1, 0, 1, 2, 7, 16, 255, 4096, 2**31 - 1)
LEVEL = 100


def calls(rng: np.random.Generator) -> dict[str, list]:
    """Arguments that kernels take, by kernel."""
    nets = load_model(find_model("stem"), 1)
    height, width = rng.integers(1, 5, 2).tolist()
    blocks, size = height * width, (16 * height, 16 * width, 3)
    floats = lambda *shape: rng.normal(0, 1, shape).astype(np.float32)
    integers = lambda low, high, *shape: rng.integers(low, high, shape).astype(np.int32)
    picture, past = rng.integers(0, 256, (2, *size), np.uint8)
    field, before = integers(-256, 257, height, width, 2), integers(-256, 257, height, width, 2)
    skip, activity = rng.integers(0, 2, (height, width), np.uint8), integers(0, 99, height, width)
    known = before, skip, activity, LEVEL
    prices = vectors.Prices(nets.vectors, nets.tables, before, activity, LEVEL)
    mask = (8 * search.root_window()).astype(np.int16)
    costs = mask, search.TURNS, search.DEPARTURE, search.DISTANCE
    indexes = rng.integers(0, len(nets.tables.limits), 50, np.uint8)
    symbols = integers(-300, 300, 50) * (indexes > 0)
    payload = bytearray(entropy.encode([(symbols, indexes)], nets.tables))
    payload[rng.integers(len(payload))] ^= int(rng.integers(256))
    place = np.array([rng.integers(2**63), len(payload) // 5, len(payload) // 2], np.uint64)
    reading = np.frombuffer(bytes(payload), np.uint8), 1, place, *nets.tables.flat
    ends, net = np.array([20, 50]), nets.vectors.flat
    coded, tables = integers(0, 1, 2 * blocks), np.empty(2 * blocks, np.uint8)
    words, escapes = np.empty(52, np.uint32), np.empty(250, np.uint8)
    side, channels = int(rng.choice([1, 2, 8])), int(rng.choice([3, 16, 32]))
    places, spread = integers(0, blocks, 5), int(rng.choice([1, 2]))
    layer = packed(floats(side**2 * channels, 16 * spread**2), floats(16 * spread**2))
    source, target = floats(side * height, side * width, channels), floats(spread * height, spread * width, 16)
    block = floats(10, 16), packed(floats(16, 32), floats(32)), packed(floats(32, 16), floats(16))
    squares, shown = (height, width, places), floats(8 * height, 8 * width, 3)
    samples, context = np.zeros(shown.shape, np.uint8), floats(8 * height, 8 * width, 6)
    return {
        "search": [picture, past, height, width, 4.0, *costs, before, *net, prices.bits, activity, LEVEL, field],
        "compensate": [past, height, width, field, picture],
        "vector_symbols": [field, height, width, *net, *known, coded, tables],
        "decode_vectors": [*reading, field, height, width, *net, *known],
        "decode_symbols": [*reading, indexes, symbols],
        "encode_symbols": [symbols, indexes, ends, *nets.tables.flat, words, escapes, ends.copy()],
        "convolve": [source, height, width, channels, side, places, layer, spread, 0, target],
        "block": [floats(height, width, 16), height, width, 16, places, *block, floats(height, width, 16)],
        "carry": [samples, *squares, skip, 0.7, shown, context],
        "show": [shown, shown.copy(), *squares, samples],
    }


def spoilt(argument: object, rng: np.random.Generator) -> object:
    """An argument of another size, or with other values."""
    if isinstance(argument, float):
        return float(rng.choice([-1.0, 0.0, 1e300, np.nan, np.inf]))
    if argument is None:
        return None
    if not isinstance(argument, np.ndarray):
        return int(rng.choice(NUMBERS))
    way, flat = rng.integers(4), argument.ravel()
    if way == 0:
        return None
    if way == 1:
        return flat[: rng.integers(flat.size + 1)].copy()
    if way == 2:
        return np.concatenate([flat, flat[: rng.integers(flat.size + 1)]])
    noise = np.frombuffer(rng.bytes(flat.nbytes), flat.dtype)
    return np.where(rng.random(flat.size) < rng.choice([0.02, 1.0]), noise, flat)


def run(library: str, seconds: float) -> None:
    kernels, rng = Kernels(ctypes.CDLL(library), "plain"), np.random.default_rng()
    end, outcomes = time.monotonic() + seconds, {}
    while time.monotonic() < end:
        for name, arguments in calls(rng).items():
            for times in (0, 1, 1, 2):
                for place in rng.integers(0, len(arguments), times):
                    arguments = [spoilt(a, rng) if i == place else a for i, a in enumerate(arguments)]
                outcome = outcome_of(getattr(kernels, name), arguments)
                outcomes.setdefault(name, {}).setdefault(outcome, 0)
                outcomes[name][outcome] += 1
    for name, counts in outcomes.items():
        print(name, counts)


def outcome_of(kernel: Callable, arguments: list) -> str:
    try:
        kernel(*arguments)
    except (Damaged, ValueError, MemoryError) as error:
        return type(error).__name__
    return "done"


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as folder:
        library = build(Path(folder, "kernels.so"), SANITIZE)
        preload = subprocess.check_output([*compiler(), "-print-file-name=libasan.so"], text=True).strip()
        environment = os.environ | {"LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1"}
        code = f"from fuzz_kernels import run; run({str(library)!r}, {seconds})"
        return subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
