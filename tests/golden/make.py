"""Writes the golden files, the files that must be refused, the README beside them and the worked example of FORMAT.md.

    python tests/golden/make.py

Run it after the shipped weights have changed, and look at the difference before it is committed. What older models
coded stays as it is, in folders named after them.
"""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
from PIL import Image

from pixa.bitstream.chunks import ChunkType, chunk_name
from pixa.bitstream.container import MAGIC, PREFIX, Chunk, read_file, read_varint, write_file, write_varint
from pixa.bitstream.entropy import AnsCoder
from pixa.bitstream.headers import Head
from pixa.coding import latents
from pixa.image import picture as image
from pixa.image.decoder import Decoder
from pixa.io.image import picture_to_image
from pixa.models.registry import find_model, list_models
from pixa.pixels import Picture

HERE = Path(__file__).parent
ERRORS = HERE / "errors"
FORMAT = HERE.parents[1] / "bitstream" / "FORMAT.md"
SAMPLES = HERE.parents[1] / "app" / "samples"
EXAMPLE = "grey-16x16-q20"
SOME = ("grey-1x1-q60", "rgb-96x64-q0", "rgb-96x64-q37.5", "rgb-96x64-q100", "rgb-41x67-q60", "rgb-1040x24-q37.5")
BEGIN, END = "<!-- example: begin -->\n", "<!-- example: end -->"
README = """# Golden files

Written by `python tests/golden/make.py`. A decoder must give the symbols of `expected.json` exactly and the pictures
`*.png` within a peak difference of 2 and a root mean square difference of 0.5. It must refuse every file in `errors/`
with the error that `errors/expected.json` names.

They are files of the default model. Folders of other models hold some of them, and are never written again: what was a
file once stays one. Before another model becomes the default, pictures and `expected.json` of this one go into a folder
of its name.

| file | what |
|---|---|
{golden}
| file in `errors/` | error | what |
|---|---|---|
{errors}"""


class Broken(NamedTuple):
    """A file that must be refused: the name of the error, what is wrong, and the bytes."""

    error: str
    what: str
    data: bytes


def sample(name: str, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A crop of a bundled photograph, (height, width, 3)."""
    with Image.open(SAMPLES / f"{name}.png") as photo:
        return np.array(photo.convert("RGB"))[top : top + height, left : left + width]


def disc(height: int, width: int) -> np.ndarray:
    """An alpha plane (height, width, 1): opaque in the middle, transparent outside, soft between."""
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - height / 2, columns - width / 2)
    return np.clip(40 * (min(height, width) / 2 - distance), 0, 255).astype(np.uint8)[:, :, None]


def waves(height: int, width: int) -> np.ndarray:
    """A smooth colourful picture (height, width, 3)."""
    rows, columns = np.mgrid[:height, :width]
    phases = (columns / 60, rows / 15 + columns / 200, (rows + columns) / 90)
    return np.stack([128 + 100 * np.sin(phase) for phase in phases], 2).astype(np.uint8)


def speck() -> np.ndarray:
    """A black picture (80, 80, 3) with a patch of coloured noise, which no model expects."""
    picture = np.zeros((80, 80, 3), np.uint8)
    picture[32:48, 32:48] = np.random.default_rng(0).choice([0, 255], (16, 16, 3))
    return picture


def metadata() -> dict[str, bytes]:
    """An ICC profile of no tags, EXIF that says upright, and an XMP packet of nothing."""
    icc = bytearray(132)
    icc[0:4], icc[8:24], icc[36:40] = struct.pack(">I", 132), b"\x04\0\0\0mntrRGB XYZ ", b"acsp"
    exif = struct.pack("<4sIHHHIHHI", b"II*\0", 8, 1, 0x0112, 3, 1, 1, 0, 0)
    return {"icc": bytes(icc), "exif": exif, "xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"}


def encoded(
    samples: np.ndarray, quality: float, tile_log2: int = latents.TILE_LOG2, model: str = "fast", **fields
) -> bytes:
    with mock.patch.object(latents, "TILE_LOG2", tile_log2):
        return image.encode_picture(Picture(samples, **fields), quality, model=model)


def golden_files(model: str = "fast") -> dict[str, tuple[str, bytes]]:
    """(what, bytes) by name."""
    encode = partial(encoded, model=model)
    gradient = np.tile(np.arange(0, 256, 16, dtype=np.uint8), (16, 1))
    coffee, chelsea = sample("coffee", 120, 240, 64, 96), sample("chelsea", 90, 200, 67, 41)
    example = encode(gradient, 20)
    unknown = Chunk(0xFE, b"a later version, or someone else, put this here")
    return {
        EXAMPLE: ("grey, a horizontal gradient; the worked example of FORMAT.md", example),
        "grey-1x1-q60": ("grey, a single pixel", encode(np.full((1, 1), 200, np.uint8), 60)),
        "grey-alpha-33x17-q60": (
            "grey and alpha, one pixel more than whole latents",
            encode(np.concatenate([chelsea[:17, :33, 1:2], disc(17, 33)], 2), 60),
        ),
        "rgb-96x64-q0": ("RGB, a photograph at the lowest quality", encode(coffee, 0)),
        "rgb-96x64-q37.5": ("RGB, at a quality between two whole ones", encode(coffee, 37.5)),
        "rgb-96x64-q100": ("RGB, at the highest quality", encode(coffee, 100)),
        "rgb-41x67-q60": ("RGB, both sides odd", encode(chelsea, 60)),
        "rgb-1040x24-q37.5": ("RGB, two tiles side by side", encode(waves(24, 1040), 37.5)),
        "grey-260x270-q20-tile256": (
            "grey, four tiles with sides of 256 pixels",
            encode(waves(270, 260)[:, :, 2], 20, tile_log2=8),
        ),
        "rgb-80x80-q100-escapes": ("RGB, noise on black: symbols past the ends of their tables", encode(speck(), 100)),
        "rgba-96x64-q37.5": ("RGB and alpha", encode(np.concatenate([coffee, disc(64, 96)], 2), 37.5)),
        "rgb-96x64-q20-metadata": ("RGB with ICC, EXIF and XMP", encode(coffee, 20, metadata=metadata())),
        "grey-16x16-q20-unknown": ("an ancillary chunk of unknown type, to be skipped", insert(example, 1, unknown)),
    }


def insert(data: bytes, place: int, *chunks: Chunk) -> bytes:
    """The file with chunks put in front of chunk number `place`."""
    old = list(read_file(data))
    return write_file([*old[:place], *chunks, *old[place:]])


def without(data: bytes, kind: ChunkType) -> bytes:
    """The file without its first chunk of a type."""
    chunks = list(read_file(data))
    chunks.remove(next(chunk for chunk in chunks if chunk.type == kind))
    return write_file(chunks)


def with_payload(data: bytes, kind: ChunkType, payload: bytes) -> bytes:
    """The file with other payloads, and right checksums, in the chunks of a type."""
    return write_file(Chunk(c.type, payload if c.type == kind else c.payload) for c in read_file(data))


def with_head(data: bytes, **fields) -> bytes:
    """The file with other header fields, whatever their values."""
    return with_payload(data, ChunkType.HEAD, replace(Decoder(data).head, **fields).write())


def with_tile(data: bytes, words: list[int] | None = None, escapes: bytes | None = None) -> bytes:
    """The file with other words or escapes in its tile."""
    old_words, old_escapes = split_tile(Decoder(data).tiles[0])
    words, escapes = old_words if words is None else words, old_escapes if escapes is None else escapes
    payload = write_varint(len(words)) + struct.pack(f"<{len(words)}I", *words) + escapes
    return with_payload(data, ChunkType.TILE, payload)


def split_tile(payload: bytes) -> tuple[list[int], bytes]:
    """(words, escapes) of a tile."""
    count, start = read_varint(payload, 0)
    end = start + 4 * count
    return list(struct.unpack(f"<{count}I", payload[start:end])), payload[end:]


def with_alpha(data: bytes, raw: bytes) -> bytes:
    """The file with other bytes in its alpha plane."""
    packed = zlib.compress(raw, 9)
    return with_payload(data, ChunkType.ALPHA, write_varint(len(packed)) + packed)


def with_length(data: bytes, length: bytes) -> bytes:
    """The file with other bytes as the length of its first chunk, and the checksum to match."""
    payload = next(read_file(data)).payload
    body = bytes([ChunkType.HEAD]) + length + payload
    return PREFIX + body + struct.pack("<I", zlib.crc32(body)) + write_file(list(read_file(data))[1:])[len(PREFIX) :]


def broken_files(golden: dict[str, bytes]) -> dict[str, Broken]:
    """Files that must be refused, by name."""
    plain, rgba, escapes = golden[EXAMPLE], golden["rgba-96x64-q37.5"], golden["rgb-80x80-q100-escapes"]
    tiles, rich = golden["rgb-1040x24-q37.5"], golden["rgb-96x64-q20-metadata"]
    head, tile = read_file(plain)
    _, alpha, coloured = read_file(rgba)
    length, start = read_varint(alpha.payload, 0)
    words, values = split_tile(Decoder(escapes).tiles[0])
    _, first = read_varint(values, 0)
    flipped = bytearray(plain)
    flipped[-12] ^= 0x10
    icc = next(chunk for chunk in read_file(rich) if chunk.type == ChunkType.ICC)
    icc_size, icc_start = read_varint(icc.payload, 0)
    grown_icc = write_varint(icc_size + 1) + icc.payload[icc_start:]
    foreign, newer, corrupt = (partial(Broken, name) for name in ("NotPixa", "UnsupportedVersion", "Corrupt"))
    missing, limit = (partial(Broken, name) for name in ("ModelMissing", "LimitExceeded"))
    return {
        "empty": foreign("an empty file", b""),
        "text": foreign("a text file", b"This is not a picture.\n"),
        "seven-bits": foreign("bit 7 of every byte cleared", bytes(byte & 0x7F for byte in plain)),
        "magic-only": corrupt("the magic and nothing else", MAGIC),
        "no-chunks": corrupt("magic and version and nothing else", PREFIX),
        "version-newer": newer("a newer format version", MAGIC + b"\x02" + plain[5:]),
        "critical-unknown": newer("a critical chunk of unknown type", insert(plain, 1, Chunk(0x7E, b""))),
        "kind-reserved": newer("HEAD of a reserved kind", with_head(plain, kind=2)),
        "depth-reserved": newer("HEAD with a reserved depth", with_head(plain, depth=1)),
        "flag-reserved": newer("HEAD with the last reserved flag bit", with_head(plain, depth=32)),
        "cut-in-head": corrupt("cut within HEAD", plain[:12]),
        "cut-in-tile": corrupt("cut within the tile", plain[:-20]),
        "bytes-behind": corrupt("a byte behind the last chunk", plain + b"\0"),
        "bit-flipped": corrupt("a flipped bit in the tile", bytes(flipped)),
        "crc-wrong": corrupt("another checksum", plain[:-1] + bytes([plain[-1] ^ 1])),
        "length-4gib": corrupt("a chunk that says it has 4 GiB", with_length(plain, b"\xff\xff\xff\xff\x0f")),
        "varint-long": corrupt("a length in more bytes than it needs", with_length(plain, b"\x8e\x00")),
        "varint-large": corrupt("a length above 2^32 - 1", with_length(plain, b"\xff\xff\xff\xff\x1f")),
        "varint-endless": corrupt("a length without a last byte", PREFIX + b"\x01" + b"\xff" * 40),
        "head-short": corrupt("HEAD of 13 bytes", with_payload(plain, ChunkType.HEAD, head.payload[:-1])),
        "head-twice": corrupt("HEAD twice", insert(plain, 1, head)),
        "head-second": corrupt("metadata before HEAD", insert(plain, 0, icc)),
        "width-zero": corrupt("a width of 0", with_head(plain, width=0)),
        "level-201": corrupt("a level above 200", with_head(plain, level=201)),
        "tile-log2-13": corrupt("tiles of 8192 pixels", with_head(plain, tile_log2=13)),
        "size-65535": limit("HEAD of 65535x65535 pixels", with_head(plain, width=65535, height=65535)),
        "model-unknown": missing("a wire id that no model has", with_head(plain, model=65535)),
        "model-hash": missing("another hash of the model", with_head(plain, model_hash=0)),
        "level-other": corrupt("another level than the tile was coded at", with_head(plain, level=160)),
        "tile-missing": corrupt("one of two tiles is missing", without(tiles, ChunkType.TILE)),
        "tile-extra": corrupt("a tile too many", insert(plain, 1, tile)),
        "tile-empty": corrupt("a tile of no bytes", with_payload(plain, ChunkType.TILE, b"")),
        "metadata-twice": corrupt("two ICC profiles", insert(rich, 1, icc)),
        "metadata-bomb": limit(
            "an ICC profile of 4 GiB less a byte",
            with_payload(rich, icc.type, write_varint(2**32 - 1) + icc.payload[icc_start:]),
        ),
        "metadata-short": corrupt("metadata of fewer bytes than it says", with_payload(rich, icc.type, grown_icc)),
        "order": corrupt("alpha behind the tile", write_file([next(read_file(rgba)), coloured, alpha])),
        "alpha-missing": corrupt("alpha announced but missing", without(rgba, ChunkType.ALPHA)),
        "alpha-unannounced": corrupt("alpha that HEAD does not announce", with_head(rgba, alpha=0)),
        "alpha-bomb": corrupt("alpha that inflates to a megabyte", with_alpha(rgba, bytes(1 << 20))),
        "alpha-short": corrupt("alpha of too few samples", with_alpha(rgba, bytes(96 * 64 - 1))),
        "alpha-length": corrupt("alpha longer than it says", with_payload(rgba, alpha.type, alpha.payload + b"\0")),
        "alpha-trailing": corrupt(
            "bytes behind the zlib stream",
            with_payload(rgba, alpha.type, write_varint(length + 1) + alpha.payload[start:] + b"\0"),
        ),
        "alpha-not-zlib": corrupt("alpha that is no zlib stream", with_payload(rgba, alpha.type, b"\x04pixa")),
        "words-none": corrupt("a tile without words", with_tile(escapes, words=[])),
        "words-fewer": corrupt("the first word is missing", with_tile(escapes, words=words[1:])),
        "words-more": corrupt("a word too many", with_tile(escapes, words=[1, *words])),
        "words-count": corrupt(
            "a count beyond the end of the tile", with_payload(plain, ChunkType.TILE, b"\x7f" + tile.payload[1:])
        ),
        "word-zero": corrupt("the last word is zero", with_tile(escapes, words=[*words, 0])),
        "escape-small": corrupt(
            "an escape within its table", with_tile(escapes, escapes=write_varint(0) + values[first:])
        ),
        "escape-large": corrupt(
            "an escape of 32768", with_tile(escapes, escapes=write_varint(2 * 32768) + values[first:])
        ),
        "escapes-fewer": corrupt("the last escape is missing", with_tile(escapes, escapes=values[:-1])),
        "escapes-more": corrupt("an escape too many", with_tile(escapes, escapes=values + write_varint(2000))),
    }


def annotate(data: bytes) -> Iterator[str]:
    """The lines of the worked example: every byte and its meaning, then the first steps of the entropy decoder."""
    offset = 0

    def row(size: int, meaning: str) -> str:
        nonlocal offset
        offset += size
        return f"{offset - size:04x}  {data[offset - size : offset].hex(' '):<47}  {meaning}"

    yield "at    bytes                                            meaning"
    yield row(4, "magic")
    yield row(1, "version 1")
    for kind, payload in read_file(data):
        yield row(1, f"type: {chunk_name(kind)}")
        yield row(len(write_varint(len(payload))), f"length: {len(payload)}")
        if kind == ChunkType.HEAD:
            for field, value in zip(Head.FIELDS, Head.LAYOUT.unpack(payload), strict=True):
                shown = f"{value:08x}" if field.name == "model_hash" else value
                yield row(struct.calcsize(field.code), f"{field.name}: {shown}")
        else:
            words, escapes = split_tile(payload)
            yield row(len(write_varint(len(words))), f"count: {len(words)}")
            for first in range(0, len(words), 4):
                last = min(first + 4, len(words)) - 1
                yield row(4 * (last - first + 1), f"words {first} to {last}" if last > first else f"word {last}")
            if escapes:
                yield row(len(escapes), "escapes")
        yield row(4, "crc")
    yield from first_steps(data)


def first_steps(data: bytes, steps: int = 4) -> Iterator[str]:
    """The beginning of the entropy decoder's way through a tile, and what the tile holds."""
    decoder = Decoder(data)
    nets, level = decoder.nets, decoder.head.level
    tables = nets.tables
    z_index = np.sort(nets.arrays["z_index"][level])
    coder = AnsCoder(np.array(split_tile(decoder.tiles[0])[0], np.uint32))
    yield ""
    for table in z_index[z_index > 0][:steps]:
        state = coder.pos()[1]
        symbol = coder.decode(tables.categorical[table], 1)[0] - tables.limits[table]
        yield f"state {state:016x}  quantile {state % 2**24:8d}  table {table:2d}  symbol {symbol:2d} of z"
    symbols = nets.codec.decode(decoder.tiles[0], (nets.channels, 1, 1), level)
    for name, values in (("z", symbols.z), ("y", symbols.y)):
        yield f"symbols of {name} other than zero: {np.count_nonzero(values)} of {values.size}"
    yield f"SHA-256 of the symbols: {decoder.symbols_sha256()}"


def expectation(data: bytes) -> dict:
    decoder = Decoder(data)
    return {
        "symbols_sha256": decoder.symbols_sha256(),
        "metadata": {name: value.hex() for name, value in decoder.metadata.items()},
    }


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def write_golden(folder: Path, golden: dict[str, tuple[str, bytes]]) -> None:
    folder.mkdir(exist_ok=True)
    for name, (_, data) in golden.items():
        (folder / f"{name}.pixa").write_bytes(data)
        picture_to_image(Decoder(data).picture()).save(folder / f"{name}.png", optimize=True)
    write_json(folder / "expected.json", {name: expectation(data) for name, (_, data) in golden.items()})


def main() -> None:
    shutil.rmtree(ERRORS, ignore_errors=True)
    ERRORS.mkdir()
    for old in (*HERE.glob("*.pixa"), *HERE.glob("*.png")):
        old.unlink()

    golden = golden_files()
    write_golden(HERE, golden)
    for name in {entry.name for entry in list_models() if entry.coding == "latents"} - {"fast"}:
        files = golden_files(name)
        write_golden(HERE / f"{name}.{find_model(name).tag}", {file: files[file] for file in SOME})

    broken = broken_files({name: data for name, (_, data) in golden.items()})
    for name, file in broken.items():
        (ERRORS / f"{name}.pixa").write_bytes(file.data)
    write_json(ERRORS / "expected.json", {name: file.error for name, file in broken.items()})

    rows = "".join(f"| {name}.pixa | {what} |\n" for name, (what, _) in golden.items())
    error_rows = "".join(f"| {name}.pixa | {file.error} | {file.what} |\n" for name, file in broken.items())
    (HERE / "README.md").write_text(README.format(golden=rows, errors=error_rows))

    before, _, rest = FORMAT.read_text().partition(BEGIN)
    block = "".join(f"    {line}".rstrip() + "\n" for line in annotate(golden[EXAMPLE][1]))
    FORMAT.write_text(before + BEGIN + "\n" + block + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
