"""The container: literal bytes, varints, unknown chunks, and files that are cut, flipped or lie about their lengths."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixa import Decoder
from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import MAX_VARINT, PREFIX, Chunk, read_file, read_varint, write_file, write_varint
from pixa.bitstream.deflate import deflate, inflate, read_metadata, write_metadata
from pixa.bitstream.headers import Head
from pixa.errors import Corrupt, LimitExceeded, NotPixa, PixaError, UnsupportedVersion

GOLDEN = Path(__file__).parent / "golden"
RICH = "rgb-96x64-q20-metadata"
HEAD = Head(width=300, height=2, colour=1, alpha=0, level=75, model=1, model_hash=0xC23E1D6D, tile_log2=10)


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.pixa").read_bytes()


def symbols(name: str) -> str:
    return json.loads((GOLDEN / "expected.json").read_text())[name]["symbols_sha256"]


class TestVarint:
    @pytest.mark.parametrize(
        ("value", "written"),
        [(0, "00"), (127, "7f"), (128, "80 01"), (300, "ac 02"), (16384, "80 80 01"), (MAX_VARINT, "ff ff ff ff 0f")],
    )
    def test_bytes_are_literal(self, value, written):
        assert write_varint(value).hex(" ") == written

    @settings(deadline=None)
    @given(value=st.integers(0, MAX_VARINT), before=st.binary(max_size=3), behind=st.binary(max_size=3))
    def test_any_value_comes_back_with_the_place_behind_it(self, value, before, behind):
        data = before + write_varint(value) + behind
        assert read_varint(data, len(before)) == (value, len(data) - len(behind))

    @settings(deadline=None)
    @given(st.binary(max_size=8))
    def test_only_the_shortest_form_is_read(self, data):
        try:
            value, end = read_varint(data, 0)
        except Corrupt:
            return
        assert write_varint(value) == data[:end]

    @pytest.mark.parametrize("written", ["", "80", "80 00", "ff ff ff ff 10", "80 80 80 80 80 00", "ff ff ff ff ff 0f"])
    def test_anything_else_is_refused(self, written):
        with pytest.raises(Corrupt):
            read_varint(bytes.fromhex(written), 0)


class TestBytes:
    def test_a_file_of_one_chunk(self):
        assert write_file([Chunk(ChunkType.XMP, b"pixa")]).hex(" ") == "9d 50 58 41 01 83 04 70 69 78 61 16 93 0c 2d"

    def test_a_header(self):
        assert HEAD.write().hex(" ") == "00 2c 01 02 00 01 4b 01 00 6d 1d 3e c2 0a"
        assert Head.read(HEAD.write()) == HEAD

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.sampled_from([1, 3, 4, 0x80, 0x83, 0xFF]), st.binary(max_size=200)), max_size=5))
    def test_chunks_come_back_in_order(self, chunks):
        assert list(read_file(write_file(Chunk(*chunk) for chunk in chunks))) == chunks

    def test_a_plain_picture_carries_at_most_forty_bytes_around_its_symbols(self):
        data = golden("rgb-96x64-q37.5")
        (tile,) = Decoder(data).tiles
        _, start = read_varint(tile, 0)
        assert len(data) - len(tile[start:]) <= 40


class TestUnknownChunks:
    @pytest.mark.parametrize("kind", [0x80, 0x84, 0x90, 0xFE, 0xFF])
    def test_ancillary_is_skipped(self, kind):
        head, *rest = read_file(golden(RICH))
        decoder = Decoder(write_file([head, Chunk(kind, b"anything"), *rest, Chunk(kind, b"")]))
        assert decoder.symbols_sha256() == symbols(RICH)
        assert decoder.metadata == Decoder(golden(RICH)).metadata

    @pytest.mark.parametrize("kind", [0x00, 0x06, 0x12, 0x7F])
    @pytest.mark.parametrize("place", [0, 1, 5])
    def test_critical_is_refused(self, kind, place):
        chunks = list(read_file(golden(RICH)))
        with pytest.raises(UnsupportedVersion):
            Decoder(write_file([*chunks[:place], Chunk(kind, b"anything"), *chunks[place:]]))

    @pytest.mark.parametrize("kind", [ChunkType.MODEL, ChunkType.VIDEO, ChunkType.PACKET])
    def test_parts_of_videos_are_none_of_pictures(self, kind):
        with pytest.raises(Corrupt):
            Decoder(write_file([*read_file(golden(RICH)), Chunk(kind, b"anything")]))


class TestDamage:
    @pytest.mark.parametrize("name", [RICH, "rgba-96x64-q37.5", "rgb-1040x24-q37.5"])
    def test_every_cut_is_noticed(self, name):
        data = golden(name)
        for length in range(len(data)):
            with pytest.raises(NotPixa if length < 4 else Corrupt):
                Decoder(data[:length])

    def test_flipped_bits_are_noticed(self):
        data, rng = golden(RICH), np.random.default_rng(1)
        for _ in range(500):
            flipped = bytearray(data)
            for place in rng.integers(0, 8 * len(data), rng.integers(1, 4)):
                flipped[place // 8] ^= 1 << place % 8
            if flipped != data:
                with pytest.raises(PixaError):
                    Decoder(bytes(flipped))

    @pytest.mark.parametrize("name", ["grey-16x16-q20", "grey-alpha-33x17-q60", "rgb-80x80-q100-escapes"])
    def test_flipped_bits_under_right_checksums_give_an_error_or_a_picture(self, name):
        chunks, rng = list(read_file(golden(name))), np.random.default_rng(2)
        refused = 0
        for _ in range(150):
            chosen = int(rng.integers(len(chunks)))
            payload = bytearray(chunks[chosen].payload)
            payload[rng.integers(len(payload))] ^= 1 << int(rng.integers(8))
            changed = [*chunks[:chosen], Chunk(chunks[chosen].type, bytes(payload)), *chunks[chosen + 1 :]]
            try:
                decoder = Decoder(write_file(changed), max_pixels=1 << 16)
                picture = decoder.picture()
            except PixaError:
                refused += 1
            else:
                assert picture.samples.shape == (decoder.height, decoder.width, decoder.channels)
        assert refused > 75

    @settings(deadline=None)
    @given(st.binary(max_size=100))
    def test_noise_behind_the_version_is_refused(self, noise):
        with pytest.raises(PixaError):
            Decoder(PREFIX + noise)

    @settings(deadline=None)
    @given(st.binary(min_size=14, max_size=14))
    def test_any_header_is_read_or_refused(self, payload):
        try:
            head = Head.read(payload)
        except PixaError:
            return
        assert head.write() == payload

    @pytest.mark.parametrize("kind", [ChunkType.HEAD, ChunkType.TILE, ChunkType.ICC])
    def test_a_claimed_length_takes_no_memory(self, kind):
        data = PREFIX + bytes([kind]) + write_varint(MAX_VARINT) + bytes(1000)
        tracemalloc.start()
        try:
            with pytest.raises(Corrupt):
                Decoder(data)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


class TestDeflate:
    @given(st.binary(max_size=300))
    def test_metadata_round_trip(self, content):
        assert read_metadata(write_metadata(content)) == content

    def test_repetitive_metadata_takes_little_room(self):
        assert len(write_metadata(b"<x:xmpmeta/> " * 300)) < 100

    @pytest.mark.parametrize("size", [0, 1, 99, 101, 2**24])
    def test_another_size_than_declared_is_corrupt(self, size):
        with pytest.raises(Corrupt):
            inflate(deflate(bytes(100)), size)

    def test_a_bomb_is_stopped_at_its_declared_size(self):
        bomb = deflate(bytes(1 << 26))
        tracemalloc.start()
        with pytest.raises(Corrupt):
            inflate(bomb, 1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()

    def test_more_than_the_limit_is_refused(self):
        with pytest.raises(LimitExceeded, match="16777217 bytes of metadata"):
            write_metadata(bytes(2**24 + 1))
        with pytest.raises(LimitExceeded, match="16777217 bytes of metadata"):
            read_metadata(write_varint(2**24 + 1))
