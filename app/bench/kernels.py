"""What kernels gain: `python -m pixa.app.bench.kernels [--threads N]` times each against what it takes the place of,
NumPy or onnxruntime, on a picture of 1280x720 that moves."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from pixa.bitstream import entropy
from pixa.models.registry import find_model
from pixa.motion import overlap, vectors
from pixa.motion.fields import BLOCK
from pixa.motion.search import search
from pixa.runtime.model import load_model

HEIGHT, WIDTH, LEVEL, WORTH = 45, 80, 80, 4.0  # blocks of a picture, its quality level, what a bit is worth
CODED = 0.1  # share of the blocks that are coded, in runs
ROUNDS = 3  # the quickest counts


def moving_pictures(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two pictures (16h, 16w, 3) uint8: squares of several sizes that have moved, and some noise."""
    height, width = BLOCK * HEIGHT, BLOCK * WIDTH
    scene = sum(rng.integers(0, 85, (1024 // n, 1536 // n, 3)).repeat(n, 0).repeat(n, 1) for n in (4, 16, 64))
    noise = rng.integers(-4, 5, (2, height, width, 3))
    parts = [scene[y : y + height, x : x + width] for y, x in ((9, 4), (12, 11))]
    return tuple((part + extra).clip(0, 255).astype(np.uint8) for part, extra in zip(parts, noise, strict=True))


def works(threads: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    rng = np.random.default_rng(1)
    nets, (past, picture) = load_model(find_model("stem"), threads), moving_pictures(rng)
    size, everywhere = (HEIGHT, WIDTH), np.ones((HEIGHT, WIDTH), bool)
    coded = (rng.random((-(-HEIGHT // 3), -(-WIDTH // 5))) < CODED).repeat(3, 0).repeat(5, 1)[:HEIGHT, :WIDTH]
    field = rng.integers(-6, 7, (*size, 2)).astype(np.int32)
    known = vectors.Past(np.roll(field, 1, 0), ~coded, rng.integers(0, 9, size), LEVEL)
    prices = vectors.Prices(nets.vectors, nets.tables, known.field, known.activity, LEVEL)
    payload = entropy.encode(vectors.coded(field, known, nets.vectors), nets.tables)
    indexes = rng.integers(1, 64, 250_000, np.uint8)
    groups = [(np.rint(rng.normal(0, 1, indexes.size)), indexes)]
    symbols = entropy.encode(groups, nets.tables)
    predicted = nets.predict(past, LEVEL, everywhere)[0]
    last = np.ascontiguousarray(predicted.transpose(1, 2, 0))

    def synthesise() -> object:
        if os.environ["PIXA_KERNELS"] == "numpy":
            return [nets.synthesis(predicted, LEVEL) for _ in range(2)]
        return nets.show(last, last, LEVEL, coded, past, past.shape[:2])

    return {
        "search for motion": lambda: search(picture[None], past[None], WORTH, prices, known.field[None]),
        "compensation": lambda: overlap.moved(past, field),
        "vectors to symbols": lambda: vectors.coded(field, known, nets.vectors),
        "vectors decoded": lambda: vectors.decoded(entropy.Decoder(payload, nets.tables), known, nets.vectors),
        "250,000 symbols coded": lambda: entropy.encode(groups, nets.tables),
        "250,000 symbols decoded": lambda: entropy.Decoder(symbols, nets.tables).decode(indexes),
        "analysis": lambda: nets.analysis(picture),
        f"prediction, {CODED:.0%} coded": lambda: nets.predict(past, LEVEL, coded),
        f"both syntheses, {CODED:.0%} coded": synthesise,
    }


def quickest(work: Callable[[], object], choice: str) -> float:
    """Seconds."""
    os.environ["PIXA_KERNELS"] = choice
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pixa.app.bench.kernels", description=__doc__)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the networks (1)")
    threads = parser.parse_args(argv).threads
    print(f"| 1280x720, networks on {threads} threads | without, ms | with kernels, ms | gain |\n|---|---:|---:|---:|")
    for name, work in works(threads).items():
        before, after = (1000 * quickest(work, choice) for choice in ("numpy", "native"))
        print(f"| {name} | {before:.1f} | {after:.1f} | {before / after:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
