"""FORMAT.md: its tables and its example agree with the program.

A second decoder, written from it alone without the program or a float, gives the symbols of every golden file.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest

from pixa.app.bundle import decoder as bundle
from pixa.bitstream.chunks import ANCILLARY, ANY, METADATA, NEVER, ONCE, OPTIONAL, SOME, TABLE, ChunkType
from pixa.bitstream.container import MAGIC, VERSION
from pixa.bitstream.headers import Head
from pixa.models.registry import ModelEntry, find_wire, list_models
from pixa.runtime.model import load_model
from tests.support.golden_files import EXPECTED, read

FORMAT = files("pixa.bitstream").joinpath("FORMAT.md").read_text()
EXAMPLE = FORMAT[FORMAT.index("<!-- example: begin -->") : FORMAT.index("<!-- example: end -->")]
PICTURES = [entry for entry in list_models() if entry.coding == "latents"]


def graphs(entry: ModelEntry) -> list[list[str]]:
    """The table of the graphs of a model."""
    return table(f"graph of `{entry.name}` | inputs | outputs")


def table(header: str) -> list[list[str]]:
    """The cells of the table whose first row begins with `header`."""
    lines = FORMAT[FORMAT.index(f"\n| {header} |") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[2:]]


def pointwise(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.tensordot(weight[:, :, 0, 0], x, 1) + bias[:, None, None]


def depthwise(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), (1, 2))
    return np.einsum("chwij,cij->chw", windows, weight[:, 0]) + bias[:, None, None]


def rescale(total: np.ndarray, shift: int = 6, top: int = 255) -> np.ndarray:
    return np.clip(total + (1 << shift - 1) >> shift, 0, top)


def shuffle(x: np.ndarray) -> np.ndarray:
    channels, height, width = x.shape
    blocks = x.reshape(channels // 4, 2, 2, height, width).transpose(0, 3, 1, 4, 2)
    return blocks.reshape(channels // 4, 2 * height, 2 * width)


class PlainModel:
    """The files of a model, its exact networks in 64-bit integers; arrays are (channel, row, column)."""

    def __init__(self, entry: ModelEntry):
        self.folder, self.name, self.layers = entry.folder, f"{entry.name}.{entry.tag}", cache(self.read_layers)
        self.arrays = dict(np.load(self.folder / "tables.npz", allow_pickle=False))
        ends = np.cumsum(2 * self.arrays["limits"][1:].astype(int) + 2)
        self.frequencies = [[], *(part.tolist() for part in np.split(self.arrays["frequencies"], ends[:-1]))]
        self.starts = [[0, *np.cumsum(frequencies).tolist()] for frequencies in self.frequencies]

        passes = self.arrays["passes"].astype(bool)  # of stem by parity, else by the place in a square
        square = [0, 1, 2, 3] if passes.shape[2] == 4 else [0, 1, 1, 0]
        self.passes = passes[:, :, square].reshape(*passes.shape[:2], 2, 2)

    def read_layers(self, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """(weight, bias) of the convolutions of an exact graph, as they stand there."""
        graph = onnx.load(self.folder / f"{name}.onnx").graph
        values = {c.name: onnx.numpy_helper.to_array(c).astype(np.int64) for c in graph.initializer}
        values |= {n.output[0]: values[n.input[0]] for n in graph.node if n.input[0] in values}
        return [(values[n.input[1]], values[n.input[2]]) for n in graph.node if n.op_type == "Conv"]

    def vector(self, name: str, level: int) -> np.ndarray:
        return self.arrays[name][level].astype(np.int64)[:, None, None]

    def features(self, z: np.ndarray, level: int) -> np.ndarray:
        p1, d2, p3, p4, d5, p6 = self.layers("scale_a")[:6]
        x = np.clip(z * self.vector("z_scale", level), -255, 255)
        x = shuffle(rescale(pointwise(x, *p1)))
        x = rescale(pointwise(rescale(depthwise(x, *d2)), *p3))
        x = rescale(depthwise(shuffle(rescale(pointwise(x, *p4))), *d5))
        return rescale(pointwise(x, *p6) + self.vector("feature_bias", level))

    def scale_a(self, z: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
        """(features, table indexes)."""
        features, (p7, p8) = self.features(z, level), self.layers("scale_a")[6:]
        x = rescale(pointwise(features, *p7))
        return features, rescale(pointwise(x, *p8) + self.vector("index_bias_a", level), top=63)

    def scale(
        self, letter: str, known: list[np.ndarray], magnitude: np.ndarray, level: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(what it makes of magnitudes, table indexes) of any other pass."""
        d1, p2, p3 = self.layers(f"scale_{letter}")
        seen = rescale(depthwise(magnitude, *d1), shift=2)
        x = rescale(pointwise(np.concatenate([*known, seen]), *p2))
        return seen, rescale(pointwise(x, *p3) + self.vector(f"index_bias_{letter}", level), top=63)

    def scales(
        self, z: np.ndarray, level: int, height: int | None = None, width: int | None = None
    ) -> Generator[list[np.ndarray], np.ndarray, None]:
        """Outputs of all scale graphs, pass by pass; takes the magnitudes of a pass before the next."""
        features, index = (x[:, :height, :width] for x in self.scale_a(z, level))
        magnitude_a = yield [features, index]
        _, index = self.scale("b", [features], magnitude_a, level)
        magnitude = yield [magnitude_a, index]
        if self.name.startswith("mlic"):
            yield from self.scales_of_mlic(features, magnitude_a, magnitude, level)
            return
        seen, index = self.scale("c", [features], magnitude_a + magnitude, level)
        magnitude = yield [seen, index]
        yield [self.scale("d", [features, seen], magnitude, level)[1]]

    def scales_of_mlic(
        self, features: np.ndarray, magnitude_a: np.ndarray, magnitude: np.ndarray, level: int
    ) -> Generator[list[np.ndarray], np.ndarray, None]:
        """Those of the passes C to H."""
        memory = {"features": features, "magnitude_a": magnitude_a}
        outputs = {
            name: re.findall(r"(\w+) \(1, ", said) for name, _, said in table("graph of `mlic` | inputs | outputs")
        }
        for name, sums, seen in table("scale_p | what it knows | what was seen")[1:]:
            letter = name[-1]
            memory["magnitude"] = memory[f"magnitude_{chr(ord(letter) - 1)}"] = magnitude
            known = np.concatenate([sum(memory[n] for n in part.split(" + ")) for part in sums.split(", then ")])
            before = [features, *(memory[n] for n in seen.split(", then ") if n)]
            memory[f"seen_{letter}"], memory["index"] = self.scale(letter, before, known, level)
            magnitude = yield [memory[output] for output in outputs[name]]

    def self_test(self) -> bool:
        z, test_magnitude = (self.arrays[f"test_{name}"][0].astype(np.int64) for name in ("z", "magnitude"))
        scales, magnitude, digest = self.scales(z, 100), None, hashlib.sha256()
        for pattern in self.passes:
            for output in scales.send(magnitude):
                digest.update(output.astype(np.uint8).tobytes())
            magnitude = test_magnitude[pattern.any((1, 2))]
        return digest.digest() == self.arrays["test_sha256"].tobytes()


class PlainCoder:
    """The words and escapes of a tile."""

    def __init__(self, payload: bytes, model: PlainModel):
        self.model, self.payload = model, payload
        count, start = varint(payload, 0)
        self.escapes = start + 4 * count
        self.words = list(struct.unpack(f"<{count}I", payload[start : self.escapes]))
        self.state = self.words.pop()
        self.refill()

    def refill(self) -> None:
        if self.state < 1 << 32 and self.words:
            self.state = self.state << 32 | self.words.pop()

    def symbol(self, index: int) -> int:
        """The next symbol, of table `index`."""
        quantile = self.state % (1 << 24)
        entry = bisect_right(self.model.starts[index], quantile) - 1
        start = self.model.starts[index][entry]
        self.state = (self.state >> 24) * self.model.frequencies[index][entry] + quantile - start
        self.refill()
        limit = int(self.model.arrays["limits"][index])
        if entry <= 2 * limit:
            return entry - limit
        value, self.escapes = varint(self.payload, self.escapes)
        return -(value >> 1) if value & 1 else value >> 1

    def group(self, indexes: np.ndarray) -> np.ndarray:
        """Symbols of flat table indexes."""
        symbols = np.zeros(indexes.shape, np.int64)
        for index in range(1, len(self.model.arrays["limits"])):
            for place in np.flatnonzero(indexes == index):
                symbols[place] = self.symbol(index)
        return symbols

    def at_end(self) -> bool:
        return self.state == 1 and not self.words and self.escapes == len(self.payload)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, place behind it)."""
    value = shift = 0
    while data[at] >= 128:
        value, shift, at = value + (data[at] - 128 << shift), shift + 7, at + 1
    return value + (data[at] << shift), at + 1


def chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of every chunk, its checksum compared."""
    assert data[:5] == bytes.fromhex("9d 50 58 41 01")
    at = 5
    while at < len(data):
        length, start = varint(data, at + 1)
        end = start + length
        assert struct.unpack_from("<I", data, end) == (zlib.crc32(data[at:end]),)
        yield data[at], data[start:end]
        at = end + 4


def tile_symbols(payload: bytes, height: int, width: int, level: int, model: PlainModel) -> bytes:
    """z and y of a tile of (height, width) latents as int16 in raster order."""
    coder = PlainCoder(payload, model)
    z_index = model.vector("z_index", level)
    z_index = np.broadcast_to(z_index, (len(z_index), -(-height // 4), -(-width // 4)))
    z = np.clip(coder.group(z_index.ravel()).reshape(z_index.shape), -127, 127)
    y = np.zeros((model.passes.shape[1], height, width), np.int64)
    scales, magnitude = model.scales(z, level, height, width), None
    for pattern in model.passes:
        channels, (row, column) = pattern.any((1, 2)), np.indices((height, width)) % 2
        *_, index = scales.send(magnitude)
        mask, symbols = pattern[channels][:, row, column], np.zeros(index.shape, np.int64)
        symbols[mask] = coder.group(index[mask])
        magnitude = np.minimum(abs(symbols), 15)
        y[channels] += symbols
    assert coder.at_end()
    return z.astype("<i2").tobytes() + y.astype("<i2").tobytes()


@cache
def plain(wire_id: int, model_hash: int) -> PlainModel:
    return PlainModel(find_wire(wire_id, model_hash))


def file_symbols(data: bytes) -> str:
    """SHA-256 of the symbols of a file."""
    (_, head), *rest = chunks(data)
    _, width, height, _, level, wire_id, model_hash, tile_log2 = struct.unpack("<BHHBBHIB", head)
    model = plain(wire_id, model_hash)
    side = 2**tile_log2 // 16
    rows, columns = -(-height // 16), -(-width // 16)
    places = [(top, left) for top in range(0, rows, side) for left in range(0, columns, side)]
    tiles = [payload for kind, payload in rest if kind == 4]
    digest = hashlib.sha256()
    for tile, (top, left) in zip(tiles, places, strict=True):
        digest.update(tile_symbols(tile, min(side, rows - top), min(side, columns - left), level, model))
    return digest.hexdigest()


@pytest.fixture(scope="module", params=PICTURES, ids=lambda entry: f"{entry.name}.{entry.tag}")
def entry(request) -> ModelEntry:
    return request.param


@pytest.fixture(scope="module")
def model(entry: ModelEntry) -> PlainModel:
    return plain(entry.wire_id, int(entry.hash, 16))


class TestSecondDecoder:
    @pytest.mark.parametrize("name", EXPECTED)
    def test_gives_the_symbols_of_every_golden_file(self, name):
        assert file_symbols(read(name)) == EXPECTED[name]["symbols_sha256"]

    def test_passes_the_self_test(self, model):
        assert model.self_test()

    def test_finds_the_model_by_its_hash(self, entry):
        decoder = [*(f"{row[0]}.onnx" for row in graphs(entry)), "tables.npz"]
        digest = hashlib.sha256(b"".join((entry.folder / name).read_bytes() for name in decoder)).digest()
        heads = [next(chunks(read(name)))[1] for name in EXPECTED]
        assert struct.pack("<H", entry.wire_id) + digest[3::-1] in {head[7:13] for head in heads}


class TestExample:
    def test_bytes_are_those_of_the_golden_file(self):
        rows = re.findall(r"^    ([0-9a-f]{4})  ((?:[0-9a-f]{2} )+)", EXAMPLE, re.MULTILINE)
        data = b""
        for place, row in rows:
            assert int(place, 16) == len(data)
            data += bytes.fromhex(row)
        assert data == read("grey-16x16-q20")

    def test_symbols_are_those_of_the_golden_file(self):
        assert EXPECTED["grey-16x16-q20"]["symbols_sha256"] in EXAMPLE


class TestTables:
    def test_magic_and_version(self):
        magic, version, _ = table("part | bytes | value")
        assert bytes.fromhex(magic[2]) == MAGIC
        assert bytes.fromhex(version[2]) == bytes([VERSION])

    def test_chunk_types(self):
        rows = table("type | name | class | in a file | payload")
        words = {ONCE: "1", OPTIONAL: "0 or 1", SOME: "1 or more", ANY: "0 or more"}
        for row, (number, name, kind, often, _) in zip(TABLE, rows, strict=True):
            assert (row.type, row.name) == (int(number, 16), name)
            assert (kind == "ancillary") == bool(row.type & ANCILLARY)
            where = {"pictures": (row.pictures, NEVER), "videos": (NEVER, row.videos)}
            count, _, only = often.partition(", ")
            assert (row.pictures, row.videos) == where.get(only, (row.pictures, row.pictures))
            assert count == words[row.videos if row.pictures == NEVER else row.pictures]

    def test_the_decoder_alone_and_the_one_in_a_browser_know_the_same_types(self):
        source = (Path(__file__).parents[1] / "app" / "web" / "src" / "container.ts").read_text()
        listed = source[source.index("export const ChunkType") :].partition("}")[0]
        assert {
            name: int(number, 16) for name, number in re.findall(r"(\w+): (0x\w+)", listed)
        } == ChunkType.__members__
        assert {row.type for row in TABLE if not row.type & ANCILLARY} == bundle.CRITICAL
        assert bundle.METADATA == METADATA
        once = {row.type for row in TABLE if row.type & ANCILLARY and row.pictures == OPTIONAL}
        assert once == bundle.AT_MOST_ONCE

    def test_reserved_chunk_types_are_free(self):
        numbers = [int(number, 16) for row in table("number | name | for") for number in re.findall(r"0x(..)", row[0])]
        assert len(numbers) > 6
        assert not set(numbers) & set(ChunkType)

    def test_header_fields(self):
        described = [
            (int(offset), name, int(size), *json.loads(allowed))
            for offset, name, size, allowed, _ in table("offset | field | bytes | allowed | meaning")
        ]
        places = np.cumsum([0] + [struct.calcsize(field.code) for field in Head.FIELDS]).tolist()
        assert described == [
            (place, field.name, struct.calcsize(field.code), field.low, field.high)
            for place, field in zip(places, Head.FIELDS, strict=False)
        ]
        assert f"Exactly {places[-1]} bytes" in FORMAT

    def test_model_arrays(self, model):
        sizes: dict[str, int] = {}
        rows = {name: rest for name, *rest in table("array | type | shape | meaning")}
        rows |= {
            name: rest for name, *rest in table(f"array of `{model.name.partition('.')[0]}` | type | shape | meaning")
        }
        assert set(rows) == set(model.arrays)
        for name, (kind, shape, _) in rows.items():
            array = model.arrays[name]
            described = shape.strip("()").split(", ")
            assert (array.dtype.name, array.ndim) == (kind, len(described))
            for word, size in zip(described, array.shape, strict=True):
                assert size == (int(word) if word.isdecimal() else sizes.setdefault(word, size))

    def test_model_graphs(self, entry, model):
        channels, first = model.arrays["step"].shape[1], int(model.passes[0].any((1, 2)).sum())
        sizes = {"M": channels, "N": model.arrays["z_index"].shape[1], "U": first}
        sizes["V" if entry.name == "fast" else "V+W+X"] = channels - first
        stated = load_model(replace(entry, native=()), 1)
        for name, *sides in graphs(entry):
            session = stated.session(name)
            for side, values in zip(sides, (session.get_inputs(), session.get_outputs()), strict=True):
                described = re.findall(r"(\w+) \(1, ([\w+]+), \w+, \w+\)( uint8)?", side)
                assert [value.name for value in values] == [found[0] for found in described]
                assert [value.type == "tensor(uint8)" for value in values] == [bool(found[2]) for found in described]
                for (_, word, _), value in zip(described, values, strict=True):
                    if isinstance(value.shape[1], int):
                        assert value.shape[1] == sizes.setdefault(word, value.shape[1])
