"""Drawn pictures: a pixel has the colour of a neighbour, the one that the same surroundings had before, or another.

Each such guess is a binary decision, predicted by context mixing: adaptive probabilities, found by hashes of the
surroundings and the guess, are mixed in the logistic domain with weights that learn as they go (Mahoney, "Adaptive
weighing of context models for lossless data compression", 2005). All is integers: probabilities in 1/2**22, chances in
1/65536, logits in 1/256. Colours are uint32 numbers, which `scatter` makes hashes of, one to one.
"""

from __future__ import annotations

from decimal import Context, Decimal
from functools import cache
from typing import Protocol

import numpy as np

from pixa.coding.lossless.symbols import Reader, Writer
from pixa.coding.lossless.wavefront import Wavefront

NEIGHBOURS = [  # nearest first
    *((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-2, -1), (-2, 1), (-1, -2), (-2, -2), (-2, 2), (0, -3)),
    *((-3, 0), (-1, -3), (-3, -1), (-3, 1), (-2, -3), (-3, 2), (-3, -2), (-2, 3), (0, -4), (-4, 0), (-3, 3), (-3, -3)),
]
CONTEXTS = np.array([1, 2, 4, 6, 8, 12, 18, 24])  # how many neighbours each context sees
MEMORIES = [6, 5, 3, 2]  # contexts whose last colour is a guess, before the neighbours W, N, NW, NE
GUESSES = len(MEMORIES) + 4
MODELS = len(CONTEXTS) + 2
LEFT, RIGHT = [0, 1, 0, 2, 1, 4, 5, 3], [2, 2, 1, 3, 3, 0, 1, 7]  # neighbours whose equality shows edges
POWERS = 1 << np.arange(12)

BITS = 18  # of a slot's number
SEEN_MAX = 255
BUCKETS = 8
RATES = np.array([(1 << 17) // (2 * n + 3) for n in range(SEEN_MAX + 1)])  # in 1/65536, by how often a slot was seen
BUCKET = np.array([min(n.bit_length(), BUCKETS - 1) for n in range(SEEN_MAX + 1)])
START = [0, 14000, 18000, 22000, 26000, 28000, 30000, 30000]  # weights in 1/65536, by bucket
LEARNING = 16  # bits that a step of the weights is shifted by
LOGIT_MAX = 2816
NONE, RARE, GUESS = np.uint32(0), np.uint32(0x01C35AA5), np.uint32(0x2545F491)
PRIMES = (2654435761 * np.arange(1, 49, 2) % (1 << 32)).astype(np.uint32)


def scatter(x: np.ndarray) -> np.ndarray:
    """Hashes of uint32 numbers, no two the same (the finaliser `lowbias32` of Wellons)."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def gather(x: np.ndarray) -> np.ndarray:
    """The inverse of `scatter`."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(pow(0x846CA68B, -1, 1 << 32))
    x = (x ^ (x >> np.uint32(15)) ^ (x >> np.uint32(30))) * np.uint32(pow(0x7FEB352D, -1, 1 << 32))
    return x ^ (x >> np.uint32(16))


def hashed(colours: np.ndarray) -> np.ndarray:
    """Hashes of colours, NONE for one that hardly any picture has."""
    return scatter(colours ^ RARE)


def unhashed(hashes: np.ndarray) -> np.ndarray:
    return gather(hashes) ^ RARE


@cache
def logistic() -> tuple[np.ndarray, np.ndarray]:
    """Chances of the logits -LOGIT_MAX..LOGIT_MAX, and logits of the probabilities (p + 1/2) / 4096.

    In decimal arithmetic, which rounds correctly and therefore alike everywhere.
    """
    exact = Context(prec=30)
    logits = range(-LOGIT_MAX, LOGIT_MAX + 1)
    chances = [round(65536 / (1 + (Decimal(-x) / 256).exp(exact))) for x in logits]
    stretched = [round(256 * (Decimal(2 * p + 1) / (8191 - 2 * p)).ln(exact)) for p in range(4096)]
    return np.clip(chances, 2, 65534), np.array(stretched)


class Mixer:
    """Adaptive probabilities and how often they were seen, by slot; weights by set, model and bucket of sightings."""

    def __init__(self, sets: int):
        self.probabilities = np.full(MODELS << BITS, 1 << 21)
        self.seen = np.zeros(MODELS << BITS, np.uint8)
        self.weights = np.tile(START, sets * MODELS)
        self.squash, self.stretch = logistic()
        self.bases, self.columns = np.arange(MODELS) << BITS, np.arange(MODELS) * BUCKETS

    def predict(self, hashes: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Chances (n,) that decisions are 1, by hashes (n, MODELS) uint32 and sets of weights (n,)."""
        self.slots = (hashes >> np.uint32(32 - BITS)) + self.bases
        self.old, self.times = self.probabilities[self.slots], self.seen[self.slots]
        self.logits = self.stretch[self.old >> 10]
        self.used = (sets * (MODELS * BUCKETS))[:, None] + self.columns + BUCKET[self.times]
        total = (self.weights[self.used] * self.logits).sum(1) >> 16
        self.chances = self.squash[np.clip(total, -LOGIT_MAX, LOGIT_MAX) + LOGIT_MAX]
        return self.chances

    def learn(self, bits: np.ndarray) -> None:
        """Take in the decisions last predicted. Of those that share a slot the last one counts; all change weights."""
        error = (bits << 16) - self.chances
        np.add.at(self.weights, self.used, (self.logits * error[:, None]) >> LEARNING)
        self.probabilities[self.slots] = self.old + ((((bits << 22)[:, None] - self.old) * RATES[self.times]) >> 16)
        self.seen[self.slots] = np.minimum(self.times, SEEN_MAX - 1) + 1


class Others(Protocol):
    """Codes colours that no guess met."""

    def __call__(self, coder: Writer | Reader, around: np.ndarray, colours: np.ndarray) -> np.ndarray:
        """Colours (n,), of which only the number counts when reading, by their neighbours (n, 24)."""


class Palette:
    """Colours that are numbers below `size`: by how often each was coded."""

    def __init__(self, size: int):
        self.counts = np.ones(size, np.int64)

    def __call__(self, coder: Writer | Reader, around: np.ndarray, colours: np.ndarray) -> np.ndarray:
        colours = coder.choose(self.counts[None], colours)
        np.add.at(self.counts, colours, 12)
        return colours.astype(np.uint32)


class Components:
    """Colours of several samples of 8 bits: differences to the median of W, N and W + N - NW (as in LOCO-I) less that
    of the component before, adaptive frequencies by how much W, N and NW differ and how large the last difference was.
    """

    def __init__(self, channels: int):
        distance = np.minimum(np.arange(256), 256 - np.arange(256))
        self.shifts = 8 * np.arange(channels)
        self.counts = np.tile(2 + 1024 // (1 + distance**2), (channels * 64, 1))

    def __call__(self, coder: Writer | Reader, around: np.ndarray, colours: np.ndarray) -> np.ndarray:
        split = lambda packed: packed[:, None].astype(np.int64) >> self.shifts & 255
        west, north, corner, samples = (split(a) for a in (*around[:, :3].T, colours))
        median = np.clip(west + north - corner, np.minimum(west, north), np.maximum(west, north))
        rough = (np.abs(west - corner) + np.abs(north - corner)).sum(1)
        rough, last = np.searchsorted([1, 4, 10, 24, 60, 130, 250], rough, side="right"), np.zeros(len(rough), np.int64)
        found = np.zeros(len(rough), np.int64)
        for channel, shift in enumerate(self.shifts):
            size = np.searchsorted([1, 2, 4, 8, 16, 32, 64], np.abs(last), side="right")
            rows = channel * 64 + rough * 8 + size
            expected = median[:, channel] + last
            difference = coder.choose(self.counts[rows], (samples[:, channel] - expected) & 255)
            np.add.at(self.counts, (rows, difference), 48)
            heavy = self.counts.sum(1) > 1 << 14
            self.counts[heavy] = (self.counts[heavy] >> 1) + 1
            sample = (expected + difference) & 255
            last = sample - median[:, channel]
            found |= sample << shift
        return found.astype(np.uint32)


def walk(wave: Wavefront, coder: Writer | Reader, others: Others, colours: np.ndarray | None = None) -> np.ndarray:
    """Write the colours (height, width) uint32 of a tile, or read them; returns them."""
    blank = hashed(np.zeros(1, np.uint32))[0]
    plane = np.full(wave.shape, blank) if colours is None else wave.skew(hashed(colours), blank)
    flat, offsets = plane.ravel(), wave.offsets(NEIGHBOURS)
    mixer, seen = Mixer(GUESSES * 16), CONTEXTS - 1
    memory, bases = np.zeros(len(MEMORIES) << BITS, np.uint32), np.arange(len(MEMORIES)) << BITS
    for step in range(wave.steps):
        places = wave.places(step)
        if len(places):
            around = flat[places[:, None] + offsets]
            contexts = np.cumsum(around * PRIMES, 1, np.uint32)[:, seen]
            slots = (scatter(contexts[:, MEMORIES]) >> np.uint32(32 - BITS)) + bases
            guesses = np.concatenate([memory[slots], around[:, :4]], 1)
            truth = flat[places]
            found = guess(coder, mixer, around, contexts, guesses, None if colours is None else truth)
            missed = np.flatnonzero(found == NONE)
            if len(missed):
                found[missed] = hashed(others(coder, unhashed(around[missed]), unhashed(truth[missed])))
            flat[places] = found
            memory[slots] = found[:, None]
        wave.fill(plane, step)
    return unhashed(wave.straighten(plane))


def guess(
    coder: Writer | Reader,
    mixer: Mixer,
    around: np.ndarray,
    contexts: np.ndarray,
    guesses: np.ndarray,
    truth: np.ndarray | None,
) -> np.ndarray:
    """Hashes of the colours (n,) of a step's pixels, NONE where no guess is right.

    Args:
        around: hashes of neighbours (n, 24).
        contexts: hashes of what each context sees (n, CONTEXTS).
        guesses: hashes (n, GUESSES), tried in this order; NONE and what was tried before is left out.
        truth: hashes (n,) of the colours when writing.
    """
    found = np.full(len(guesses), NONE)
    for number in range(GUESSES):
        new = (guesses[:, number, None] != guesses[:, :number]).all(1) & (guesses[:, number] != NONE) & (found == NONE)
        tried = np.flatnonzero(new)
        if not len(tried):
            continue
        colour, near = guesses[tried, number], around[tried]
        equal = (near[:, :12] == colour[:, None]) @ POWERS
        edges = (near[:, LEFT] == near[:, RIGHT]) @ POWERS[:8]
        keys = np.empty((len(tried), MODELS), np.uint32)
        keys[:, :-2] = contexts[tried] + (colour * GUESS)[:, None]
        keys[:, -2] = equal + (number << 12)
        keys[:, -1] = (equal & 15) + (edges << 4) + (number << 12) + (1 << 20)
        chances = mixer.predict(scatter(keys), number * 16 + (equal & 15))
        bits = coder.decide(chances, None if truth is None else (truth[tried] == colour).astype(np.int64))
        mixer.learn(bits)
        found[tried] = np.where(bits, colour, NONE)
    return found
