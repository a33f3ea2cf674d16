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
from collections.abc import Iterator
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest

from pixa.backends import OnnxModel
from pixa.bitstream.container import ANCILLARY, MAGIC, VERSION, ChunkType
from pixa.bitstream.headers import Head
from pixa.models.registry import ModelEntry, find_model

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
FORMAT = files("pixa.bitstream").joinpath("FORMAT.md").read_text()
EXAMPLE = FORMAT[FORMAT.index("<!-- example: begin -->") : FORMAT.index("<!-- example: end -->")]
DECODER = ["scale_a.onnx", "scale_b.onnx", "mean_a.onnx", "mean_b.onnx", "synthesis.onnx", "tables.npz"]


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

    def __init__(self, folder: Path):
        self.folder = folder
        self.arrays = dict(np.load(folder / "tables.npz", allow_pickle=False))
        ends = np.cumsum(2 * self.arrays["limits"][1:].astype(int) + 2)
        self.frequencies = [[], *(part.tolist() for part in np.split(self.arrays["frequencies"], ends[:-1]))]
        self.starts = [[0, *np.cumsum(frequencies).tolist()] for frequencies in self.frequencies]

    @cached_property
    def layers(self) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
        """(weight, bias) of the convolutions of the exact graphs, as they stand there."""
        layers = {}
        for name in ("scale_a", "scale_b"):
            graph = onnx.load(self.folder / f"{name}.onnx").graph
            values = {c.name: onnx.numpy_helper.to_array(c).astype(np.int64) for c in graph.initializer}
            values |= {n.output[0]: values[n.input[0]] for n in graph.node if n.input[0] in values}
            layers[name] = [(values[n.input[1]], values[n.input[2]]) for n in graph.node if n.op_type == "Conv"]
        return layers

    def vector(self, name: str, level: int) -> np.ndarray:
        return self.arrays[name][level].astype(np.int64)[:, None, None]

    def scale_a(self, z: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
        """(features, table indexes)."""
        p1, d2, p3, p4, d5, p6, p7, p8 = self.layers["scale_a"]
        x = np.clip(z * self.vector("z_scale", level), -255, 255)
        x = shuffle(rescale(pointwise(x, *p1)))
        x = rescale(pointwise(rescale(depthwise(x, *d2)), *p3))
        x = rescale(depthwise(shuffle(rescale(pointwise(x, *p4))), *d5))
        features = rescale(pointwise(x, *p6) + self.vector("feature_bias", level))
        x = rescale(pointwise(features, *p7))
        return features, rescale(pointwise(x, *p8) + self.vector("index_bias_a", level), top=63)

    def scale_b(self, features: np.ndarray, magnitude: np.ndarray, level: int) -> np.ndarray:
        """Table indexes."""
        d1, p2, p3 = self.layers["scale_b"]
        x = rescale(depthwise(magnitude, *d1), shift=2)
        x = rescale(pointwise(np.concatenate([features, x]), *p2))
        return rescale(pointwise(x, *p3) + self.vector("index_bias_b", level), top=63)


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
    features, index = (x[:, :height, :width] for x in model.scale_a(z, level))
    parity = np.add.outer(np.arange(height), np.arange(width)) % 2
    in_a, in_b = (pattern[:, parity] for pattern in model.arrays["passes"].astype(bool))
    y = np.zeros(index.shape, np.int64)
    y[in_a] = coder.group(index[in_a])
    y[in_b] = coder.group(model.scale_b(features, np.minimum(abs(y), 15), level)[in_b])
    assert coder.at_end()
    return z.astype("<i2").tobytes() + y.astype("<i2").tobytes()


def file_symbols(data: bytes, model: PlainModel) -> str:
    """SHA-256 of the symbols of a file."""
    (_, head), *rest = chunks(data)
    _, width, height, _, level, _, _, tile_log2 = struct.unpack("<BHHBBHIB", head)
    side = 2**tile_log2 // 16
    rows, columns = -(-height // 16), -(-width // 16)
    places = [(top, left) for top in range(0, rows, side) for left in range(0, columns, side)]
    tiles = [payload for kind, payload in rest if kind == 4]
    digest = hashlib.sha256()
    for tile, (top, left) in zip(tiles, places, strict=True):
        digest.update(tile_symbols(tile, min(side, rows - top), min(side, columns - left), level, model))
    return digest.hexdigest()


@pytest.fixture(scope="module")
def entry() -> ModelEntry:
    return find_model("fast")


@pytest.fixture(scope="module")
def plain(entry: ModelEntry) -> PlainModel:
    return PlainModel(entry.folder)


class TestSecondDecoder:
    @pytest.mark.parametrize("name", EXPECTED)
    def test_gives_the_symbols_of_every_golden_file(self, name, plain):
        data = (GOLDEN / f"{name}.pixa").read_bytes()
        assert file_symbols(data, plain) == EXPECTED[name]["symbols_sha256"]

    def test_passes_the_self_test(self, plain):
        features, index_a = plain.scale_a(plain.arrays["test_z"][0].astype(np.int64), 100)
        index_b = plain.scale_b(features, plain.arrays["test_magnitude"][0].astype(np.int64), 100)
        outputs = b"".join(x.astype(np.uint8).tobytes() for x in (features, index_a, index_b))
        assert hashlib.sha256(outputs).digest() == plain.arrays["test_sha256"].tobytes()

    def test_finds_the_model_by_its_hash(self, entry):
        content = b"".join((entry.folder / name).read_bytes() for name in DECODER)
        head = dict(chunks((GOLDEN / "grey-16x16-q20.pixa").read_bytes()))[1]
        assert head[9:13] == hashlib.sha256(content).digest()[3::-1]
        assert struct.unpack("<H", head[7:9]) == (entry.wire_id,)


class TestExample:
    def test_bytes_are_those_of_the_golden_file(self):
        rows = re.findall(r"^    ([0-9a-f]{4})  ((?:[0-9a-f]{2} )+)", EXAMPLE, re.MULTILINE)
        data = b""
        for place, row in rows:
            assert int(place, 16) == len(data)
            data += bytes.fromhex(row)
        assert data == (GOLDEN / "grey-16x16-q20.pixa").read_bytes()

    def test_symbols_are_those_of_the_golden_file(self):
        assert EXPECTED["grey-16x16-q20"]["symbols_sha256"] in EXAMPLE


class TestTables:
    def test_magic_and_version(self):
        magic, version, _ = table("part | bytes | value")
        assert bytes.fromhex(magic[2]) == MAGIC
        assert bytes.fromhex(version[2]) == bytes([VERSION])

    def test_chunk_types(self):
        rows = table("type | name | class | in a file | payload")
        assert {int(number, 16): name for number, name, *_ in rows} == {kind.value: kind.name for kind in ChunkType}
        assert all((int(row[0], 16) & ANCILLARY > 0) == (row[2] == "ancillary") for row in rows)

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

    def test_model_arrays(self, plain):
        sizes: dict[str, int] = {}
        rows = table("array | type | shape | meaning")
        assert {row[0] for row in rows} == set(plain.arrays)
        for name, kind, shape, _ in rows:
            array = plain.arrays[name]
            described = shape.strip("()").split(", ")
            assert (array.dtype.name, array.ndim) == (kind, len(described))
            for word, size in zip(described, array.shape, strict=True):
                assert size == (int(word) if word.isdecimal() else sizes.setdefault(word, size))

    def test_model_graphs(self, model: OnnxModel, plain):
        sizes = {"M": plain.arrays["step"].shape[1], "N": plain.arrays["z_index"].shape[1]}
        rows = table("graph | inputs | outputs")
        assert [f"{row[0]}.onnx" for row in rows] == DECODER[:-1]
        for name, *sides in rows:
            session = model.session(name)
            for side, values in zip(sides, (session.get_inputs(), session.get_outputs()), strict=True):
                described = re.findall(r"(\w+) \(1, (\w+), \w+, \w+\)( uint8)?", side)
                assert [value.name for value in values] == [found[0] for found in described]
                assert [value.type == "tensor(uint8)" for value in values] == [bool(found[2]) for found in described]
                for (_, word, _), value in zip(described, values, strict=True):
                    if isinstance(value.shape[1], int):
                        assert value.shape[1] == sizes.setdefault(word, value.shape[1])
