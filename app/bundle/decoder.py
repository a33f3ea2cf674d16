"""Decodes pixa pictures, without pixa: one file, to be read beside FORMAT.md, whose sections stand in brackets.

    pip install numpy onnxruntime constriction
    python decoder.py photo.pixa photo.png
    python decoder.py --self-test

>>> picture = decoder.decode(Path("photo.pixa").read_bytes())  # picture.samples: (H, W, C) uint8

From the top of this file to its end:

    bytes -> chunks         checked one by one [2]: the header [3.1], metadata [3.3], alpha [3.2]
    tile -> symbols         integers; rANS, with tables that networks of exact integer sums choose [6.1 to 6.5]
    symbols -> latents      floats; so many steps from the mean that other networks expect [6.6]
    latents -> samples      one network for the whole picture, here window by window [7]
    samples -> PNG

Copyright (c) 2026 the pixa authors, MIT licence
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import struct
import sys
import zlib
from collections import namedtuple
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from string import ascii_lowercase
from typing import ClassVar, NamedTuple

import numpy as np
from constriction import stream

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reads it when it is imported
import onnxruntime

HERE = Path(__file__).parent
MAX_PIXELS = 1 << 28  # a decoder's choice [2.4]
MAX_METADATA = 1 << 24  # [2.4]
WINDOW = 128  # latent rows and columns that go through the synthesis at a time


class Refused(Exception):
    """A file that is not decoded: the name of the error [8] and why, in one sentence."""

    EXIT_CODES: ClassVar = {"NotPixa": 3, "UnsupportedVersion": 3, "Corrupt": 4, "ModelMissing": 5, "LimitExceeded": 6}

    def __init__(self, name: str, why: str):
        super().__init__(f"{name}: {why}")
        self.name, self.exit_code = name, self.EXIT_CODES.get(name, 1)


# ---- The container [2, 3]

HEAD, ALPHA, TILE, PATCH = 0x01, 0x03, 0x04, 0x05
CRITICAL = {HEAD, 0x02, ALPHA, TILE, PATCH, 0x10, 0x11}  # the numbers are those of videos
METADATA = {0x81: "icc", 0x82: "exif", 0x83: "xmp"}
AT_MOST_ONCE = {*METADATA, 0x86}


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """[2.2] A varint and the place behind it."""
    value = 0
    for digit, byte in enumerate(data[place : place + 5]):
        value |= (byte & 0x7F) << 7 * digit
        if byte < 0x80:
            if value >= 1 << 32 or (digit and not byte):
                raise Refused("Corrupt", "a length is too large or not in its shortest form")
            return value, place + digit + 1
    raise Refused("Corrupt", "a length has no end")


def read_chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """[2, 2.1] Type and payload of every chunk."""
    if data[:4] != b"\x9dPXA":
        raise Refused("NotPixa", "not a pixa file")
    if len(data) < 5:
        raise Refused("Corrupt", "the file ends before its version")
    if data[4] != 1:
        raise Refused("UnsupportedVersion", f"version {data[4]} of the format: this decoder knows version 1")
    place = 5
    while place < len(data):
        kind, (length, start) = data[place], read_varint(data, place + 1)
        end = start + length
        if end + 4 > len(data):
            raise Refused("Corrupt", f"the file is cut: a chunk of {length} bytes runs past its end")
        if zlib.crc32(data[place:end]) != int.from_bytes(data[end : end + 4], "little"):
            raise Refused("Corrupt", "a checksum is wrong: the file is damaged")
        if kind < 0x80 and kind not in CRITICAL:  # bit 7 would make it ancillary
            raise Refused("UnsupportedVersion", f"a critical chunk of the unknown type 0x{kind:02x}")
        yield kind, data[start:end]
        place = end + 4


Head = namedtuple("Head", "kind width height flags level model model_hash tile_log2")  # [3.1]


def read_head(kind: int, payload: bytes) -> Head:
    """[3.1] What the first chunk says."""
    if kind != HEAD or len(payload) != 14:
        raise Refused("Corrupt", "the file does not begin with a header of 14 bytes")
    head = Head(*struct.unpack("<BHHBBHIB", payload))
    if head.kind == 1:
        raise Refused("UnsupportedInput", "this is a video: this decoder is for pictures")
    if head.kind > 1 or head.flags >> 2 not in ((0, 3) if head.model in lossless_ids() else (0,)):
        raise Refused("UnsupportedVersion", "the header asks for what version 1 does not know")
    if not (head.width and head.height and head.level <= 200 and head.model and 8 <= head.tile_log2 <= 12):
        raise Refused("Corrupt", "a field of the header is out of its range")
    if head.width * head.height > MAX_PIXELS:
        raise Refused("LimitExceeded", f"{head.width}x{head.height} is over the limit of {MAX_PIXELS} pixels")
    return head


def tile_places(head: Head) -> list[tuple[slice, slice]]:
    """[5] Latent rows and columns of every tile."""
    side, height, width = 2**head.tile_log2 // 16, -(-head.height // 16), -(-head.width // 16)
    rows = [slice(top, min(top + side, height)) for top in range(0, height, side)]
    columns = [slice(left, min(left + side, width)) for left in range(0, width, side)]
    return [(r, c) for r in rows for c in columns]


def inflate(zipped: bytes, size: int) -> bytes:
    """[3.2, 3.3] One zlib stream of exactly so many bytes; takes no more memory than that."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(zipped, size + 1)  # one byte more shows that there are too many
    except zlib.error as error:
        raise Refused("Corrupt", "a deflated part does not inflate") from error
    if len(data) != size or not inflater.eof or inflater.unused_data:
        raise Refused("Corrupt", "a deflated part is not as large as it should be")
    return data


def read_metadata(payload: bytes) -> bytes:
    """[3.3]"""
    size, start = read_varint(payload, 0)
    if size > MAX_METADATA:
        raise Refused("LimitExceeded", f"{size} bytes of metadata are over the limit of {MAX_METADATA}")
    return inflate(payload[start:], size)


def read_alpha(payload: bytes, head: Head) -> np.ndarray:
    """[3.2] The alpha plane (H, W, 1): a sample is the sum, modulo 256, of the residuals down to it."""
    length, start = read_varint(payload, 0)
    if start + length != len(payload):
        raise Refused("Corrupt", "the alpha plane is not as long as it says")
    residuals = np.frombuffer(inflate(payload[start:], head.width * head.height), np.uint8)
    return np.add.accumulate(residuals.reshape(head.height, head.width, 1), axis=0, dtype=np.uint8)


# ---- Models [4]


class Model:
    """[4] Graphs, arrays and tables, proven to be the ones that files need.

    What is `known` of a tile goes by the names of the graphs' inputs and outputs [4.1], in arrays (channels, rows,
    columns); a vector of the level is (channels, 1, 1).
    """

    def __init__(self, entry: dict):
        files = read_files(entry)
        load = lambda graph: onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.graphs = {name[:-5]: load(data) for name, data in files.items() if name.endswith(".onnx")}
        self.arrays = dict(np.load(BytesIO(files["tables.npz"]), allow_pickle=False))
        passes = self.arrays["passes"].astype(bool)  # [6.1]
        self.passes = list(zip(ascii_lowercase, passes, strict=False))
        self.channels, self.halo = passes.shape[1], entry["synthesis_halo"]
        self.limits = self.arrays["limits"].astype(int).tolist()
        # [6.2] constriction makes of weights that sum to 2^24 - n, n entries, frequencies floor(weight) + 1.
        rows = np.split(self.arrays["frequencies"], np.cumsum([2 * limit + 2 for limit in self.limits[1:-1]]))
        self.tables = [None] + [stream.model.Categorical(row - 1.0, perfect=False) for row in rows]
        self.self_test()

    def vector(self, name: str, level: int) -> np.ndarray:
        """[4.1] The row of a level, by channel."""
        return self.arrays[name][level].astype(np.float32)[:, None, None]

    def run(self, graph: str, known: dict, height: int | None = None, width: int | None = None) -> list[np.ndarray]:
        """The outputs of a graph, of which the first rows and columns are kept [5]; they join what is known."""
        session = self.graphs[graph]
        inputs = {i.name: np.ascontiguousarray(known[i.name], np.float32)[None] for i in session.get_inputs()}
        outputs = [output[0, :, :height, :width] for output in session.run(None, inputs)]
        known |= zip((o.name for o in session.get_outputs()), outputs, strict=True)
        return outputs

    def scale(self, letter: str, known: dict, level: int, *size: int) -> list[np.ndarray]:
        """[6.5] The outputs of the scale graph of a pass; the last are table indexes."""
        vectors = {"z_scale": "z_scale", "feature_bias": "feature_bias", "index_bias": f"index_bias_{letter}"}
        known |= {name: self.vector(array, level) for name, array in vectors.items()}
        return self.run(f"scale_{letter}", known, *size)

    def self_test(self) -> None:
        """[4.2] Tries the exact networks on stored inputs."""
        digest, known = hashlib.sha256(), {"z": self.arrays["test_z"][0]}
        for letter, pattern in self.passes:
            for output in self.scale(letter, known, 100):
                digest.update(output.astype(np.uint8).tobytes())
            known["magnitude"] = self.arrays["test_magnitude"][0, pattern.any(1)]
        if digest.digest() != self.arrays["test_sha256"].tobytes():
            raise Refused("ModelMissing", "the self-test of the model failed: arithmetic here is not exact")


@cache
def load_model(wire_id: int, model_hash: int) -> Model:
    """[4] The model that a header names."""
    return Model(find_entry(wire_id, model_hash))


def read_files(entry: dict) -> dict[str, bytes]:
    """[4] The files of a model by name, proven to be the right ones."""
    folder = HERE / f"{entry['name']}.{entry['tag']}"
    files = {name: (folder / name).read_bytes() for name in entry["decoder"]}
    if hashlib.sha256(b"".join(files.values())).hexdigest()[:8] != entry["hash"]:
        raise Refused("ModelMissing", f"the files of {folder.name} are altered: their hash is another")
    return files


def find_entry(wire_id: int, model_hash: int) -> dict:
    """[4] What the manifest says of the model that a header names."""
    for entry in manifest():
        if (entry["wire_id"], int(entry["hash"], 16)) == (wire_id, model_hash):
            return entry
    raise Refused("ModelMissing", f"the file needs model {wire_id} with the hash {model_hash:08x}, which is not here")


# ---- Tiles [6]


class EntropyDecoder:
    """[6.3] The symbols of a tile; AnsCoder is the coder of that section."""

    def __init__(self, payload: bytes, model: Model):
        count, start = read_varint(payload, 0)
        self.next_escape = start + 4 * count
        if self.next_escape > len(payload):
            raise Refused("Corrupt", "a tile is shorter than it says")
        words = np.frombuffer(payload, "<u4", count, start).astype(np.uint32)
        if not count or not words[-1]:
            raise Refused("Corrupt", "a tile does not end in a word other than zero")
        self.payload, self.model, self.coder = payload, model, stream.stack.AnsCoder(words)

    def group(self, indexes: np.ndarray) -> np.ndarray:
        """[6.1] The symbols at positions with these table indexes: table by table, in raster order."""
        symbols = np.zeros(indexes.size, np.int32)
        for table in np.unique(indexes[indexes > 0]):
            places, limit = np.flatnonzero(indexes == table), self.model.limits[table]
            try:
                entries = self.coder.decode(self.model.tables[table], len(places))
            except AssertionError as error:
                raise Refused("Corrupt", "a tile does not decode") from error
            symbols[places] = entries - limit
            for place in places[entries == 2 * limit + 1]:
                symbols[place] = self.escape(limit)
        return symbols.reshape(indexes.shape)

    def escape(self, limit: int) -> int:
        """[6.4] The next value that its table does not hold."""
        value, self.next_escape = read_varint(self.payload, self.next_escape)
        if not limit < value >> 1 <= 32767:
            raise Refused("Corrupt", "an escaped value is out of range")
        return -(value >> 1) if value & 1 else value >> 1

    def finish(self) -> None:
        """[6.3] No words and no escapes may be left, and the state is the one that encoders begin with."""
        if self.coder.pos() != (0, 1) or self.next_escape != len(self.payload):
            raise Refused("Corrupt", "a tile holds more or less than its symbols")


def decode_tile(payload: bytes, height: int, width: int, level: int, model: Model) -> tuple[bytes, np.ndarray]:
    """[6] The symbols of a tile of so many latent rows and columns, int16, and its latents (M, height, width)."""
    entropy = EntropyDecoder(payload, model)
    z_index = model.arrays["z_index"][level][:, None, None]
    z = entropy.group(np.tile(z_index, (1, -(-height // 4), -(-width // 4)))).clip(-127, 127)

    # [6.1] Every pass is told of the symbols before it. Floats have no say in this.
    known, codes = {"z": z}, []
    place = np.add.outer(2 * (np.arange(height) % 2), np.arange(width) % 2)
    y = np.zeros((model.channels, height, width), np.int32)
    for letter, pattern in model.passes:
        channels = np.flatnonzero(pattern.any(1))
        mask = pattern[channels][:, place]
        *_, index = model.scale(letter, known, level, height, width)
        symbols = entropy.group(index * mask)
        known["magnitude"] = np.minimum(abs(symbols), 15)
        y[channels] += symbols
        codes.append((letter, channels, mask, symbols.astype(np.float32)))
    entropy.finish()

    # [6.6, 6.8] A symbol counts steps from the mean, which from the second pass on is told of latents, too.
    step, y_hat = model.vector("step", level), np.zeros(y.shape, np.float32)
    for letter, channels, mask, symbols in codes:
        *_, mean = model.run(f"mean_{letter}", known, height, width)
        known["y_hat"] = (symbols * step[channels] + mean) * mask
        y_hat[channels] += known["y_hat"]
    return z.astype("<i2").tobytes() + y.astype("<i2").tobytes(), y_hat


# ---- Pictures [7]


class Picture(NamedTuple):
    """Samples (H, W, C) uint8, or uint16 without loss; metadata by icc, exif, xmp.

    C is 1 for grey, 2 for grey and alpha, 3 for RGB, 4 for RGB and alpha.
    """

    samples: np.ndarray
    metadata: dict[str, bytes]
    symbols_sha256: str


def decode(data: bytes) -> Picture:
    """The picture in a file. Raises Refused with the first error that it meets on the way that section 8 tells."""
    chunks = read_chunks(data)
    head = read_head(*next(chunks, (0, b"")))
    chunks, places = list(chunks), tile_places(head)
    kinds = [kind for kind, _ in chunks]
    critical, lossless = [kind for kind in kinds if kind < 0x80], head.model in lossless_ids()
    expected = [ALPHA] * (head.flags >> 1 & 1 and not lossless) + [TILE] * len(places)
    expected += [PATCH] * (critical.count(PATCH) if not lossless else 0)
    if critical != expected or any(kinds.count(kind) > 1 for kind in AT_MOST_ONCE):
        raise Refused("Corrupt", "a part of the file is missing, out of place or one too many")  # [2.3]
    metadata = {METADATA[kind]: read_metadata(payload) for kind, payload in chunks if kind in METADATA}
    alpha = [read_alpha(payload, head) for kind, payload in chunks if kind == ALPHA]

    payloads = [payload for kind, payload in chunks if kind == TILE]
    if lossless:
        samples = decode_lossless(head, payloads)
        return Picture(samples, metadata, hashlib.sha256(samples.astype("<u2").tobytes()).hexdigest())
    model = load_model(head.model, head.model_hash)
    y_hat = np.zeros((model.channels, *(edge.stop for edge in places[-1])), np.float32)
    digest = hashlib.sha256()
    for payload, (rows, columns) in zip(payloads, places, strict=True):
        shape = y_hat[0, rows, columns].shape
        symbols, y_hat[:, rows, columns] = decode_tile(payload, *shape, head.level, model)
        digest.update(symbols)
    samples, last = synthesise(y_hat, head, model), -1
    for payload in (payload for kind, payload in chunks if kind == PATCH):
        last, patch = paint_patch(payload, head, samples, last)
        digest.update(patch.astype("<i2").tobytes())
    return Picture(np.concatenate([samples, *alpha], 2), metadata, digest.hexdigest())


def synthesise(y_hat: np.ndarray, head: Head, model: Model) -> np.ndarray:
    """[7] Colour samples (H, W, 1 or 3). A window is told of the latents around it that reach into it."""
    synthesis, halo, vector = model.graphs["synthesis"], model.halo, model.vector("vector", head.level)[None]
    colour = head.flags & 1
    samples = np.empty((head.height, head.width, 3 if colour else 1), np.uint8)
    for top in range(0, y_hat.shape[1], WINDOW):
        for left in range(0, y_hat.shape[2], WINDOW):
            above, before = min(top, halo), min(left, halo)
            part = y_hat[:, top - above : top + WINDOW + halo, left - before : left + WINDOW + halo]
            rgb = synthesis.run(["picture"], {"y_hat": np.ascontiguousarray(part[None]), "vector": vector})[0]
            place = samples[16 * top : 16 * (top + WINDOW), 16 * left : 16 * (left + WINDOW)]
            rgb = rgb[0, 16 * above :, 16 * before :][: place.shape[0], : place.shape[1]]
            place[:] = rgb if colour else (rgb.sum(2, dtype=np.uint16, keepdims=True) + 1) // 3
    return samples


# ---- Samples that are coded themselves [3.10, annex B], by the modules of pixa in the folder `lossless`


@cache
def manifest() -> list[dict]:
    """[4] The models that are here."""
    return json.loads((HERE / "manifest.json").read_text())["models"]


def lossless_ids() -> set[int]:
    return {entry["wire_id"] for entry in manifest() if entry["coding"] == "lossless"}


@cache
def lossless_model(wire_id: int, model_hash: int):
    """The trained part, and what decodes tiles with it: (payload, shape, dtype) -> samples."""
    entry = find_entry(wire_id, model_hash)
    if entry["coding"] != "lossless":
        raise Refused("Corrupt", "a patch names a model that is not lossless")
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    from lossless import errors, photographs, tile

    arrays = np.load(BytesIO(read_files(entry)["model.npz"]), allow_pickle=False)
    model = photographs.Model(dict(arrays))

    def decode(payload: bytes, shape: tuple[int, int, int], dtype: type) -> np.ndarray:
        try:
            return tile.decode_tile(payload, shape, dtype, model)
        except (errors.Corrupt, errors.LimitExceeded) as error:
            raise Refused(type(error).__name__, str(error)) from error

    return decode


def decode_lossless(head: Head, payloads: list[bytes]) -> np.ndarray:
    """[B] All samples (H, W, C), uint8 or uint16."""
    decode, dtype = lossless_model(head.model, head.model_hash), np.uint16 if head.flags >> 2 else np.uint8
    channels = 1 + 2 * (head.flags & 1) + (head.flags >> 1 & 1)
    samples, side, tiles = np.zeros((head.height, head.width, channels), dtype), 1 << head.tile_log2, iter(payloads)
    for top in range(0, head.height, side):
        for left in range(0, head.width, side):
            place = samples[top : top + side, left : left + side]
            place[:] = decode(next(tiles), place.shape, dtype)
    return samples


def paint_patch(payload: bytes, head: Head, samples: np.ndarray, last: int) -> tuple[int, np.ndarray]:
    """[3.10] Lays a patch over samples (H, W, C); returns the number of its area and all samples of that."""
    area, start = read_varint(payload, 0)
    across = -(-head.width // 1024)
    if not last < area < across * -(-head.height // 1024):
        raise Refused("Corrupt", "a patch is out of order or outside the picture")
    top, left = 1024 * (area // across), 1024 * (area % across)
    target = samples[top : top + 1024, left : left + 1024]
    rows, columns = -(-target.shape[0] // 64), -(-target.shape[1] // 64)
    end = start + 6 + -(-rows * columns // 8)
    if len(payload) < end:
        raise Refused("Corrupt", "a patch is shorter than its header")
    wire_id, model_hash = struct.unpack_from("<HI", payload, start)
    bits = np.unpackbits(np.frombuffer(payload[start + 6 : end], np.uint8)).astype(bool)
    blocks = bits[: rows * columns].reshape(rows, columns)
    if not blocks.any() or bits[rows * columns :].any():
        raise Refused("Corrupt", "a patch has no blocks, or some that its area has not")
    mask = blocks.repeat(64, 0).repeat(64, 1)[: target.shape[0], : target.shape[1]]
    kept = np.ix_(mask.any(1), mask.any(0))
    patch = np.zeros_like(target)
    shape = (*mask[kept].shape, target.shape[2])
    patch[kept] = lossless_model(wire_id, model_hash)(payload[end:], shape, np.uint8)
    target[mask] = patch[mask]
    return area, patch


# ---- Programs


def save(picture: Picture, target: Path) -> None:
    """Writes a PNG (https://www.w3.org/TR/png-3/), metadata included, whole or not at all."""
    chunk = lambda kind, data: struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))
    height, width, channels = picture.samples.shape
    kinds = 8 * picture.samples.itemsize, (0, 4, 2, 6)[channels - 1]
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *kinds, 0, 0, 0))]
    if "icc" in picture.metadata:
        parts.append(chunk(b"iCCP", b"ICC\0\0" + zlib.compress(picture.metadata["icc"])))
    for name, kind, prefix in (("exif", b"eXIf", b""), ("xmp", b"iTXt", b"XML:com.adobe.xmp" + bytes(5))):
        if name in picture.metadata:
            parts.append(chunk(kind, prefix + picture.metadata[name]))
    rows = picture.samples.astype(picture.samples.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    lines = np.full((height, 1 + rows.shape[1]), 2, np.uint8)  # filter 2: a row minus the one above
    lines[:, 1:] = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    temporary = Path(f"{target}.{os.getpid()}.part")
    try:
        parts += [chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
        temporary.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def self_test() -> None:
    """Decodes the golden file of this folder and compares."""
    picture = decode((HERE / "golden.pixa").read_bytes())
    if picture.symbols_sha256 != json.loads((HERE / "golden.json").read_text())["symbols_sha256"]:
        raise Refused("SelfTest", "the symbols of golden.pixa are wrong")
    difference = np.abs(picture.samples.astype(int) - np.load(HERE / "golden.npy", allow_pickle=False)).max()
    if difference > 1:
        raise Refused("SelfTest", f"the samples of golden.pixa are up to {difference} levels wrong")
    print("self-test: ok")


def main() -> int:
    parser = argparse.ArgumentParser(description="Decodes a pixa picture to PNG.")
    parser.add_argument("source", nargs="?", metavar="FILE.pixa", type=Path)
    parser.add_argument("target", nargs="?", metavar="FILE.png", type=Path)
    parser.add_argument("--self-test", action="store_true", help="decode the golden file and compare")
    args = parser.parse_args()
    if bool(args.target) == args.self_test:
        parser.error("name a file and what to write, or --self-test")
    try:
        if args.self_test:
            self_test()
        else:
            picture = decode(args.source.read_bytes())
            save(picture, args.target)
            print(f"{args.target}: {picture.samples.shape} samples, symbols {picture.symbols_sha256}")
    except (Refused, OSError, MemoryError) as error:
        print(f"{args.source or 'self-test'}: {str(error) or 'out of memory'}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
