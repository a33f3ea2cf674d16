"""Damaged files of tokens."""

from __future__ import annotations

import numpy as np
import pytest

import pixa
from pixa import Decoder
from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import Chunk, read_file, write_file
from pixa.errors import Corrupt
from pixa.image.conceal import fill


class TestHostileFiles:
    """Payloads whose checksums are right and whose content is not."""

    def with_tile(self, data: bytes, payload: bytes) -> bytes:
        chunks = list(read_file(data))
        first = next(i for i, chunk in enumerate(chunks) if chunk.type == ChunkType.TILE)
        chunks[first] = Chunk(ChunkType.TILE, payload)
        return write_file(chunks)

    @pytest.mark.parametrize("damage", ["empty", "cut", "longer", "zero", "altered", "random"])
    def test_are_refused(self, files, damage):
        data = files[2]
        tile = Decoder(data).tiles[0]
        payload = {
            "empty": b"",
            "cut": tile[:-4],
            "longer": tile + b"\1\0\0\0",
            "zero": tile[:-4] + bytes(4),
            "altered": bytes([tile[0] ^ 1]) + tile[1:],
            "random": np.random.default_rng(1).bytes(64),
        }[damage]
        with pytest.raises(Corrupt):
            pixa.decode(self.with_tile(data, payload))

    def test_every_length_is_refused_but_the_right_one(self, files):
        data = files[0]
        tile = Decoder(data).tiles[0]
        for length in range(len(tile)):
            with pytest.raises(Corrupt):
                pixa.decode(self.with_tile(data, tile[:length]))

    def test_tiles_of_the_other_coding_are_refused(self, files, photo):
        head = next(read_file(files[0]))
        with pytest.raises(Corrupt):
            pixa.decode(write_file([head, *(Chunk(ChunkType.TILE, b"\1\1\0\0\0") for _ in Decoder(files[0]).tiles)]))


class TestLoss:
    """Damaged files with `keep_going`: 3 x 2 tiles of 256 pixels a side."""

    @pytest.fixture
    def data(self, coffee, weights) -> bytes:
        return pixa.encode(coffee[:400, :600], 70, model="vqgan")

    def damaged(self, data: bytes, number: int) -> bytes:
        """The file with a bit flipped in a tile."""
        broken = bytearray(data)
        broken[tile_starts(data)[number] + 5] ^= 16
        return bytes(broken)

    def test_is_refused_without_it(self, data):
        with pytest.raises(Corrupt):
            pixa.decode(self.damaged(data, 1))

    def test_a_lost_tile_is_predicted_and_told(self, coffee, data):
        whole = pixa.decode(data).astype(int)
        decoder = Decoder(self.damaged(data, 4), keep_going=True)
        samples = decoder.picture().samples.astype(int)
        assert decoder.lost == [4]
        assert np.array_equal(samples[:150, :200], whole[:150, :200])
        hole = samples[270:, 280:500]
        assert np.abs(hole - whole[270:, 280:500]).mean() < np.abs(whole[270:, 280:500] - 128).mean() + 40
        assert hole.std() > 0

    def test_what_is_cut_off_is_lost(self, data):
        starts = tile_starts(data)
        decoder = Decoder(data[: starts[4] + 3], keep_going=True)
        assert decoder.picture().samples.shape == (400, 600, 3)
        assert decoder.lost == [4, 5]

    def test_models_of_latents_go_on_too(self, coffee, monkeypatch):
        monkeypatch.setattr("pixa.coding.latents.TILE_LOG2", 8)
        data = pixa.encode(coffee[:400, :600], 30)
        decoder = Decoder(self.damaged(data, 0), keep_going=True)
        samples = decoder.picture().samples
        assert decoder.lost == [0]
        assert np.abs(samples[:256, :256].astype(int) - coffee[:256, :256]).mean() < 60

    def test_without_any_tile_there_is_no_picture(self, data):
        decoder = Decoder(data[: tile_starts(data)[0] - 2], keep_going=True)
        with pytest.raises(Corrupt, match="no tile"):
            decoder.picture()

    def test_a_damaged_header_is_refused(self, data):
        broken = bytearray(data)
        broken[10] ^= 1
        with pytest.raises(Corrupt):
            Decoder(bytes(broken), keep_going=True)

    @pytest.mark.parametrize("seed", range(30))
    def test_no_damage_is_more_than_a_named_error(self, data, seed):
        rng, broken = np.random.default_rng(seed), bytearray(data[: len(data) - seed * 9])
        for place in rng.integers(5, len(broken), seed % 4):
            broken[place] = rng.integers(256)
        try:
            samples = Decoder(bytes(broken), keep_going=True, max_pixels=2**20).picture().samples
        except pixa.errors.PixaError:
            return
        assert samples.shape[2] in (1, 3)

    def test_holes_continue_their_surroundings(self):
        slope = np.add.outer(np.arange(40.0), 2 * np.arange(30.0))[None].astype(np.float32)
        known = np.ones((40, 30), bool)
        known[10:20, 8:18] = False
        filled = fill(slope, known)
        assert np.array_equal(filled[:, known], slope[:, known])
        assert np.abs(filled - slope).max() < 15
        assert not fill(slope, np.zeros_like(known)).any()


def tile_starts(data: bytes) -> list[int]:
    """Where the payloads of the tiles begin in a file."""
    tiles, starts, place = Decoder(data).tiles, [], 5
    for tile in tiles:
        place = data.index(tile, place)
        starts.append(place)
        place += len(tile)
    return starts
