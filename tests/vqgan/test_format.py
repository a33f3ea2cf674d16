"""Annex A of FORMAT.md against the files of `vqgan`."""

from __future__ import annotations

import math
import re
import struct
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate

import numpy as np

from pixa import Decoder
from tests.test_format_doc import shuffle, table


class TestFormat:
    """FORMAT.md, annex A."""

    def test_every_array_is_described(self, nets):
        words = [word for row in table("array of tokens") for word in re.findall(r"\w+", row[0])]
        for name, array in nets.arrays.items():
            stem = re.sub(r"\d?_(weight|bias)$", "", name)
            assert {name, stem, name.replace("bias", "weight")} & set(words), name
            kinds = {"int8": "weight", "int32": ("bias", "known_group")}
            assert name.endswith(kinds.get(array.dtype.name, name))
        named = [row for row in table("array of tokens") if not row[0].startswith(("enter", "one bias"))]
        for row in named:
            for name in row[0].split(", "):
                assert nets.arrays[name].dtype.name == row[1]

    def test_annex_alone_decodes_a_file(self, nets, files):
        for data in files[0], files[2]:
            decoder = Decoder(data)
            side, tile = 2**decoder.head.tile_log2, decoder.tiles[-1]
            regions = [math.ceil((pixels - 1) % side / 32) for pixels in (decoder.height, decoder.width)]
            plain = PlainTile(tile, *regions, decoder.head.level, nets.arrays)
            sizes = [4 * n for n in regions]
            own = nets.codec.decode(tile, (nets.channels, *sizes), decoder.head.level)
            assert plain.integers() == own.integers()


class PlainTile:
    """The tokens of a tile in Python integers, as annex A has it."""

    def __init__(self, payload: bytes, rows: int, columns: int, level: int, arrays: dict[str, np.ndarray]):
        self.arrays = {name: a.astype(object) if a.dtype.kind in "iu" else a for name, a in arrays.items()}
        self.words = list(struct.unpack(f"<{len(payload) // 4}I", payload))
        self.state = self.words.pop()
        self.refill()
        self.map = np.full((rows + 1, columns + 1), 3)
        for row in range(1, rows + 1):
            for column in range(1, columns + 1):
                above, left = self.map[row - 1, column], self.map[row, column - 1]
                chances = arrays["map_frequencies"][8 * level // 201][above][left].tolist()
                self.map[row, column] = self.symbol(chances)
        self.map = self.map[1:, 1:]
        self.tokens = [np.full((rows << g, columns << g), -1) for g in range(3)]
        nested, m = bool(arrays["nested"][level]), np.array([16 * (self.map == v) for v in range(3)])
        state = self.everywhere(m, lambda x, at: self.layer("top", x))
        for g, tokens in enumerate(self.tokens):
            looks = arrays["group_looks" if nested else "code_looks"][g].astype(int)
            seen = np.zeros((looks.shape[1], *tokens.shape), int)
            exists = np.kron(self.map >= g, np.ones((1 << g, 1 << g), bool))
            for parity in ((0, 0), (1, 1), (0, 1), (1, 0)):
                places = [at for at in zip(*np.nonzero(exists), strict=True) if (at[0] % 2, at[1] % 2) == parity]
                hidden = {
                    at: self.layer(f"mix{g}", self.layer(f"enter{g}", [*around(seen, at), *state[:, *at]]))
                    for at in places
                }
                for at in places:
                    tokens[at] = self.symbol(self.rates(self.layer(f"group{g}", hidden[at])))
                for at in places if not nested else ():
                    known = self.arrays["known_group"][g][tokens[at]]
                    member = self.symbol(
                        self.rates(self.layer(f"member{g}", self.layer(f"inner{g}", hidden[at], known)))
                    )
                    tokens[at] = tokens[at] * len(self.arrays["known_group"][g]) + member
                for at in places:
                    seen[:, *at] = looks[tokens[at]]
            if g < 2:
                finer = self.everywhere(
                    seen, lambda x, at, g=g, state=state: self.layer(f"grow{g}", [*x, *state[:, *at]])
                )
                state = shuffle(finer)
        assert (self.state, self.words) == (1, [])

    def refill(self) -> None:
        if self.state < 1 << 32 and self.words:
            self.state = self.state << 32 | self.words.pop()

    def symbol(self, frequencies: list[int]) -> int:
        quantile = self.state % (1 << 24)
        symbol = bisect_right(list(accumulate(frequencies)), quantile)
        start, frequency = sum(frequencies[:symbol]), frequencies[symbol]
        self.state = (self.state >> 24) * frequency + quantile - start
        self.refill()
        return symbol

    def layer(self, name: str, x: list[int], extra: np.ndarray | int = 0) -> list[int]:
        total = self.arrays[f"{name}_weight"] @ np.array(x, object) + self.arrays[f"{name}_bias"] + extra
        return [min(max((t + 32) // 64, 0), 255) for t in total]

    def rates(self, logits: list[int]) -> list[int]:
        weights = [int(self.arrays["logit_weights"][max(logits) - logit]) for logit in logits]
        rates = [1 + w * (2**24 - len(logits)) // sum(weights) for w in weights]
        rates[rates.index(max(rates))] += 2**24 - sum(rates)
        return rates

    def everywhere(self, x: np.ndarray, function: Callable) -> np.ndarray:
        values = [[function(around(x, (i, j)), (i, j)) for j in range(x.shape[2])] for i in range(x.shape[1])]
        return np.array(values).transpose(2, 0, 1)

    def integers(self) -> bytes:
        return b"".join(plane.astype("<i2").tobytes() for plane in (self.map, *self.tokens))


def around(x: np.ndarray, at: tuple[int, int]) -> list[int]:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    return padded[:, at[0] : at[0] + 3, at[1] : at[1] + 3].ravel().tolist()
