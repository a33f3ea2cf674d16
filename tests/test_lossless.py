"""Lossless pictures: every sample comes back, whatever the picture; hostile tiles are refused by name."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import pixa
from pixa import errors
from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import Chunk, read_file, write_file
from pixa.cli import main
from pixa.coding.lossless import drawings, tile
from pixa.coding.lossless.symbols import Reader, Writer
from pixa.coding.lossless.wavefront import Wavefront
from pixa.image.lossless import load
from pixa.models.registry import find_model

GOLDEN = Path(__file__).parent / "golden" / "lossless"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
MODEL = load(find_model("lossless"))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """(64, 80, 3)"""
    with Image.open(Path(__file__).parents[1] / "app" / "samples" / "chelsea.png") as image:
        return np.array(image.convert("RGB"))[90:154, 200:280]


@pytest.mark.parametrize("name", EXPECTED)
def test_golden_files_decode_to_the_same_samples(name):
    assert pixa.Decoder((GOLDEN / f"{name}.pixa").read_bytes()).symbols_sha256() == EXPECTED[name]["symbols_sha256"]


def test_golden_files_hold_every_kind_of_tile():
    kinds = {t[0] for path in GOLDEN.glob("*.pixa") for t in pixa.Decoder(path.read_bytes()).tiles}
    assert kinds == set(tile.Kind)


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([np.uint8, np.uint16]).flatmap(lambda dtype: arrays(dtype, SHAPES)))
def test_any_samples_come_back(samples):
    decoded = pixa.decode(pixa.encode(samples, lossless=True, jobs=1), jobs=1)
    assert decoded.dtype == samples.dtype
    assert np.array_equal(decoded, samples)


@settings(max_examples=10, deadline=None)
@given(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.integers(0, 2**32 - 1), st.integers(1, 4), st.booleans())
def test_every_kind_of_tile_codes_any_samples(size, seed, channels, few):
    samples = np.random.default_rng(seed).integers(0, 3 if few else 256, (*size, channels)).astype(np.uint8)
    packed = tile.pack(samples)
    colours, numbers = np.unique(packed, return_inverse=True)
    palette = tile.encode_palette(colours, numbers.reshape(size).astype(np.uint32), samples)
    photograph = tile.encode_photograph(samples, MODEL)
    components = tile.encode_components(packed.astype(np.uint32), channels)
    payloads = {
        tile.Kind.GRADIENT: tile.encode_gradient(samples),
        tile.Kind.PALETTE: palette,
        tile.Kind.COMPONENTS: components,
        tile.Kind.PHOTOGRAPH: photograph,
    }
    for kind, payload in payloads.items():
        assert np.array_equal(tile.decode_tile(bytes([kind]) + payload, samples.shape, np.uint8, MODEL), samples)


def test_a_photograph_is_smaller_than_as_webp(photo):
    webp = BytesIO()
    Image.fromarray(photo).save(webp, "WEBP", lossless=True, quality=100, method=6)
    assert len(pixa.encode(photo, lossless=True)) < webp.tell()


def test_a_drawing_takes_few_bytes():
    rows, columns = np.mgrid[:128, :192]
    stripes = np.where(((rows + columns) // 4 % 2 == 0)[..., None], np.uint8([255, 0, 0]), np.uint8([0, 0, 255]))
    assert len(pixa.encode(stripes, lossless=True)) < 250


def test_tiles_are_independent_and_sides_may_be_odd():
    samples = np.random.default_rng(1).integers(0, 2, (3, 2050), np.uint8) * 255
    data = pixa.encode(samples, lossless=True)
    assert pixa.info(data)["tiles"] == 3
    assert np.array_equal(pixa.decode(data)[:, :, 0], samples)
    whole = list(read_file(data))
    broken = [c._replace(payload=b"\x09") if k == 2 else c for k, c in enumerate(whole)]
    with pytest.raises(errors.Corrupt):
        pixa.decode(write_file(broken))
    decoder = pixa.Decoder(write_file(broken), keep_going=True)
    shown = decoder.picture().samples[:, :, 0]
    assert decoder.lost == [1]
    assert np.array_equal(shown[:, :1024], samples[:, :1024]) and np.array_equal(shown[:, 2048:], samples[:, 2048:])


def test_hidden_colours_and_metadata_are_kept(photo):
    hidden = np.concatenate([photo, np.zeros_like(photo[..., :1])], 2)
    image = Image.fromarray(hidden)
    image.info["xmp"] = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    opened = pixa.open_image(pixa.encode(image, lossless=True))
    assert np.array_equal(np.asarray(opened), hidden)
    assert opened.info["xmp"] == image.info["xmp"]


def test_the_headers_say_so(photo):
    facts = pixa.info(pixa.encode(photo.astype(np.uint16), lossless=True))
    assert facts["lossless"] and facts["depth"] == 16 and facts["model"] == "lossless.1"


def test_reduced_pictures_are_averages(photo):
    small = pixa.decode(pixa.encode(photo, lossless=True), reduce=8)
    assert small.shape == (8, 10, 3)
    assert abs(small.mean() - photo.mean()) < 1


@pytest.mark.parametrize("settings", [{"quality": 50}, {"bpp": 1.0}, {"target_size": 100}, {"psnr": 40.0}])
def test_no_quality_without_loss(photo, settings):
    with pytest.raises(errors.UsageError):
        pixa.encode(photo, lossless=True, **settings)


def test_sixteen_bits_are_for_lossless_alone(photo):
    with pytest.raises(errors.UnsupportedInput):
        pixa.encode(photo.astype(np.uint16))
    head, *rest = read_file(pixa.encode(photo, 20))
    deep = bytearray(head.payload)
    deep[5] |= 3 << 2
    with pytest.raises(errors.UnsupportedVersion):
        pixa.decode(write_file([Chunk(ChunkType.HEAD, bytes(deep)), *rest]))


def test_command_line_round_trip(photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "a.png")
    assert main(["encode", "--lossless", str(tmp_path / "a.png")]) == 0
    assert main(["decode", str(tmp_path / "a.pixa"), "-o", str(tmp_path / "b.png")]) == 0
    with Image.open(tmp_path / "b.png") as image:
        assert np.array_equal(np.asarray(image), photo)


def test_pillow_saves_and_opens_grey_of_sixteen_bits(photo):
    pixa.register_pillow()
    deep = photo[..., 0].astype(np.uint16) * 257
    file = BytesIO()
    Image.fromarray(deep).save(file, "PIXA", lossless=True)
    with Image.open(file) as image:
        assert np.array_equal(np.asarray(image), deep)


@pytest.mark.parametrize("name", EXPECTED)
def test_damage_within_a_tile_gives_a_named_error_or_a_picture(name):
    """Checksums are made to match, so that the tile decoder sees the damage."""
    chunks = list(read_file((GOLDEN / f"{name}.pixa").read_bytes()))
    place = next(k for k, chunk in enumerate(chunks) if chunk.type == ChunkType.TILE)
    payload, rng = chunks[place].payload, np.random.default_rng(3)
    for number in range(12):
        hurt = bytearray(payload)
        if number % 3 == 0:
            hurt = hurt[: rng.integers(0, len(hurt))]
        else:
            hurt[rng.integers(0, min(len(hurt), 12 if number % 3 == 1 else 1 << 20))] ^= 1 << rng.integers(0, 8)
        chunks[place] = Chunk(ChunkType.TILE, bytes(hurt))
        try:
            pixa.decode(write_file(chunks), jobs=1)
        except errors.PixaError as error:
            assert str(error)


@settings(max_examples=20, deadline=None)
@given(arrays(np.uint32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 5)))
def test_a_walk_reads_what_it_wrote(colours):
    wave, writer = Wavefront(*colours.shape), Writer()
    assert np.array_equal(drawings.walk(wave, writer, drawings.Palette(6), colours), colours)
    reader = Reader(writer.payload())
    assert np.array_equal(drawings.walk(wave, reader, drawings.Palette(6)), colours)
    reader.finish()
