"""Pictures through encode and decode: shapes, fidelity, alpha, windows, tiles and targets."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import pixa
from pixa import Decoder
from pixa.app.bench.metrics import psnr_rgb
from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import Chunk, read_file, read_varint, write_file
from pixa.coding import latents
from pixa.coding.latents import STRIDE
from pixa.errors import LimitExceeded, UnsupportedInput, UsageError
from pixa.image import picture as image
from pixa.image.picture import ImageEncoder, tile_slices
from pixa.models.nets.rates import rd_lambda
from pixa.pixels import Picture

GREY, GREY_ALPHA, RGB, RGB_ALPHA = 1, 2, 3, 4


def with_channels(rgb: np.ndarray, channels: int) -> np.ndarray:
    """A picture of 1 to 4 channels made of an RGB one, its alpha a diagonal gradient."""
    colour = rgb if channels >= RGB else rgb[:, :, 1:2]
    rows, columns = np.indices(rgb.shape[:2])
    alpha = (3 * rows + 5 * columns).astype(np.uint8)[:, :, None]
    return colour if channels in (GREY, RGB) else np.concatenate([colour, alpha], 2)


def level_difference(a: np.ndarray, b: np.ndarray) -> int:
    """The largest difference of two uint8 pictures."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


class TestShapes:
    @pytest.mark.parametrize("channels", [GREY, GREY_ALPHA, RGB, RGB_ALPHA])
    @pytest.mark.parametrize("size", [(1, 1), (1, 17), (16, 1), (17, 33), (15, 130), (64, 64), (200, 7)])
    def test_any_size_comes_back_as_itself(self, photo, size, channels):
        original = with_channels(photo[: size[0], : size[1]], channels)
        decoded = pixa.decode(pixa.encode(original, 90))
        assert decoded.shape == original.shape
        assert decoded.dtype == np.uint8
        assert np.abs(decoded.astype(float) - original).mean() < 8

    def test_two_dimensions_are_grey(self, photo):
        data = pixa.encode(photo[:, :, 0], 90)
        assert pixa.info(data)["channels"] == GREY
        assert pixa.decode(data).shape == (256, 320, 1)

    @settings(max_examples=25, deadline=None)
    @given(
        original=arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))),
        quality=st.floats(0, 100),
    )
    def test_any_samples_round_trip(self, original, quality):
        data = pixa.encode(original, quality)
        decoded = pixa.decode(data)
        assert decoded.shape == original.shape
        assert np.array_equal(decoded, pixa.decode(data))
        if original.shape[2] in (GREY_ALPHA, RGB_ALPHA):
            assert np.array_equal(decoded[:, :, -1], original[:, :, -1])

    @pytest.mark.parametrize("value", [0, 1, 128, 255])
    def test_flat_pictures_stay_flat(self, value):
        original = np.full((70, 90, 3), value, np.uint8)
        assert level_difference(pixa.decode(pixa.encode(original, 90)), original) <= 8


class TestRefusals:
    @pytest.mark.parametrize(
        "array",
        [
            np.zeros((8, 8, 3), np.float32),
            np.zeros((8, 8, 3), np.uint16),
            np.zeros((8, 8), bool),
            np.zeros((8, 8, 5), np.uint8),
            np.zeros(8, np.uint8),
            np.zeros((2, 8, 8, 3), np.uint8),
        ],
        ids=["float", "uint16", "bool", "five channels", "one dimension", "a batch"],
    )
    def test_other_arrays_are_refused(self, array):
        with pytest.raises(UnsupportedInput):
            pixa.encode(array)

    @pytest.mark.parametrize("shape", [(0, 8, 3), (8, 0), (1, 65536, 1), (65536, 1)])
    def test_sides_outside_the_format_are_refused(self, shape):
        with pytest.raises(LimitExceeded):
            pixa.encode(np.zeros(shape, np.uint8))

    @pytest.mark.parametrize(
        "arguments",
        [
            {"quality": -0.5},
            {"quality": 100.5},
            {"quality": float("nan")},
            {"quality": 50, "bpp": 1.0},
            {"bpp": 1.0, "psnr": 30.0},
            {"bpp": 0.0},
            {"target_size": -1},
            {"effort": 10},
        ],
        ids=str,
    )
    def test_arguments_out_of_range_are_refused(self, photo, arguments):
        with pytest.raises(UsageError):
            pixa.encode(photo[:16, :16], **arguments)


class TestFidelity:
    def test_high_quality_looks_like_the_original(self, photo):
        assert psnr_rgb(photo, pixa.decode(pixa.encode(photo, 90))) > 33

    def test_grey_is_as_good_as_colour(self, photo):
        grey = photo[:, :, 1:2]
        decoded = pixa.decode(pixa.encode(grey, 90))
        assert psnr_rgb(grey, decoded) > 33

    def test_quality_buys_fidelity_with_bytes(self, photo):
        files = [pixa.encode(photo, quality) for quality in (0, 20, 40, 60, 80, 100)]
        sizes = [len(file) for file in files]
        scores = [psnr_rgb(photo, pixa.decode(file)) for file in files]
        assert sizes == sorted(set(sizes))
        assert scores == sorted(set(scores))

    def test_quality_is_told_by_the_file(self, photo):
        assert pixa.info(pixa.encode(photo[:32, :32], 37.5))["quality"] == 37.5

    def test_effort_saves_bytes_at_little_loss(self, photo):
        plain, tried = pixa.encode(photo, 50, effort=0), pixa.encode(photo, 50, effort=6)
        assert len(tried) < len(plain)
        assert psnr_rgb(photo, pixa.decode(tried)) > psnr_rgb(photo, pixa.decode(plain)) - 1

    def test_search_is_worth_more_than_rounding(self, photo, monkeypatch):
        """By the rate-distortion cost of the quality level."""
        monkeypatch.setitem(image.SEARCH_STEPS, 7, 30)
        small = photo[:140, :150]
        weight = rd_lambda(torch.tensor(100.0)).item() * small.size / 3

        def cost(data: bytes) -> float:
            return 8 * len(data) + weight * 255**2 * 10 ** (-psnr_rgb(small, pixa.decode(data)) / 10)

        plain, searched = pixa.encode(small, 50), pixa.encode(small, 50, effort=7)
        assert len(searched) < len(plain)
        assert cost(searched) < cost(plain)

    def test_search_crosses_tiles(self, photo, monkeypatch):
        """With tiles of 256 pixels, a picture just wider has a second one of a single column of latents."""
        monkeypatch.setitem(image.SEARCH_STEPS, 7, 2)
        monkeypatch.setattr(latents, "TILE_LOG2", 8)
        wide = photo[:40, :260]
        data = pixa.encode(wide, 50, effort=7)
        assert len(Decoder(data).tiles) == 2
        assert psnr_rgb(wide, pixa.decode(data)) > 25

    def test_search_without_torch_is_refused_in_plain_words(self, photo, monkeypatch):
        monkeypatch.setitem(sys.modules, "pixa.models.training.anneal", None)
        with pytest.raises(UsageError, match=r"effort 7 needs: pip install 'pixa\[train\]'"):
            pixa.encode(photo[:40, :40], effort=7)

    def test_overhead_is_at_most_40_bytes(self, photo):
        data = pixa.encode(photo, 60)
        (tile,) = Decoder(data).tiles
        _, start = read_varint(tile, 0)
        assert len(data) - len(tile[start:]) <= 40


class TestAlpha:
    @pytest.mark.parametrize("kind", ["random", "transparent", "opaque", "half", "gradient"])
    @pytest.mark.parametrize("channels", [GREY_ALPHA, RGB_ALPHA])
    def test_alpha_is_lossless_at_every_quality(self, photo, kind, channels):
        height, width = 61, 83
        rows, columns = np.indices((height, width))
        alpha = {
            "random": np.random.default_rng(1).integers(0, 256, (height, width)),
            "transparent": np.zeros((height, width)),
            "opaque": np.full((height, width), 255),
            "half": (columns > width // 2) * 255,
            "gradient": rows * 255 // (height - 1),
        }[kind].astype(np.uint8)
        original = with_channels(photo[:height, :width], channels).copy()
        original[:, :, -1] = alpha
        decoded = pixa.decode(pixa.encode(original, 5))
        assert np.array_equal(decoded[:, :, -1], alpha)

    def test_alpha_leaves_the_colours_alone(self, photo):
        opaque = with_channels(photo, RGB_ALPHA)
        assert np.array_equal(pixa.decode(pixa.encode(opaque))[:, :, :3], pixa.decode(pixa.encode(photo)))


class TestWindows:
    """A picture analysed and rebuilt in many windows equals the one done whole."""

    @pytest.fixture
    def small_windows(self, monkeypatch):
        return lambda: monkeypatch.setattr("pixa.image.picture.WINDOW", 7)

    def test_analysis_has_no_seams(self, coffee, small_windows):
        picture = Picture(coffee[:391, :577])
        whole = ImageEncoder(picture).y
        small_windows()
        assert np.abs(ImageEncoder(picture).y - whole).max() < 1e-4

    @pytest.mark.parametrize("channels", [GREY, RGB])
    def test_synthesis_has_no_seams(self, coffee, small_windows, channels):
        data = pixa.encode(with_channels(coffee[:391, :577], channels), 80)
        whole = pixa.decode(data)
        small_windows()
        assert level_difference(pixa.decode(data), whole) <= 1

    def test_every_window_is_reported(self, photo, small_windows):
        small_windows()
        calls = []
        data = ImageEncoder(Picture(photo), progress=lambda *call: calls.append(call)).encode(100)[0]
        Decoder(data).picture(progress=lambda *call: calls.append(call))
        assert calls == [(done, 9) for done in range(1, 10)] * 2


class TestTiles:
    """Entropy tiles of 256 pixels a side: 2 x 3 of them."""

    @pytest.fixture
    def data(self, coffee, monkeypatch):
        monkeypatch.setattr("pixa.coding.latents.TILE_LOG2", 8)
        return pixa.encode(coffee, 60)

    def test_tiled_picture_is_as_good(self, coffee, data):
        assert len(Decoder(data).tiles) == 6
        assert psnr_rgb(coffee, pixa.decode(data)) > 31

    def test_a_tile_decodes_alone(self, data, model):
        decoder = Decoder(data)
        places = list(tile_slices(decoder.head, model.codec))
        shapes = [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in places]
        level = decoder.head.level

        def symbols(tile: int) -> bytes:
            return model.codec.decode(decoder.tiles[tile], (model.channels, *shapes[tile]), level).integers()

        forwards = [symbols(tile) for tile in range(6)]
        assert [symbols(tile) for tile in reversed(range(6))] == forwards[::-1]
        assert shapes == [(16, 16), (16, 16), (16, 6), (9, 16), (9, 16), (9, 6)]

    def test_another_tile_changes_only_its_own_part(self, coffee, data, model):
        foreign = Decoder(pixa.encode(255 - coffee, 60)).tiles
        chunks = list(read_file(data))
        first = next(i for i, chunk in enumerate(chunks) if chunk.type == ChunkType.TILE)
        chunks[first] = Chunk(ChunkType.TILE, foreign[0])
        mixed, whole = pixa.decode(write_file(chunks)), pixa.decode(data)
        reach = 256 + model.entry.synthesis_halo * STRIDE
        assert level_difference(mixed[:256, :256], 255 - whole[:256, :256]) < level_difference(mixed, whole)
        assert level_difference(mixed[reach:], whole[reach:]) <= 1
        assert level_difference(mixed[:, reach:], whole[:, reach:]) <= 1


class TestTargets:
    @pytest.mark.parametrize("target", [{"target_size": 6000}, {"target_size": 12345}, {"bpp": 0.5}, {"bpp": 1.25}])
    def test_a_size_is_used_up_and_never_exceeded(self, photo, target):
        limit = target.get("target_size") or target["bpp"] * photo.shape[0] * photo.shape[1] / 8
        data = pixa.encode(photo, **target)
        quality = pixa.info(data)["quality"]
        assert len(data) <= limit
        assert 0 < quality < 100
        assert len(pixa.encode(photo, quality + 0.5)) > limit

    @pytest.mark.parametrize("channels", [GREY, RGB, RGB_ALPHA])
    def test_a_psnr_is_reached_and_hardly_passed(self, photo, channels):
        original = with_channels(photo, channels)
        colour = slice(0, 1 if channels == GREY else 3)

        def score(file: bytes) -> float:
            return psnr_rgb(original[:, :, colour], pixa.decode(file)[:, :, colour])

        data = pixa.encode(original, psnr=31.5)
        assert score(data) >= 31.5
        assert score(pixa.encode(original, pixa.info(data)["quality"] - 0.5)) < 31.5

    @pytest.mark.parametrize(
        ("target", "quality"),
        [({"target_size": 1}, 0), ({"bpp": 1e-6}, 0), ({"psnr": 1}, 0), ({"bpp": 64}, 100), ({"psnr": 99}, 100)],
        ids=str,
    )
    def test_a_target_out_of_reach_gives_the_nearest_end(self, photo, target, quality):
        assert pixa.info(pixa.encode(photo[:64, :64], **target))["quality"] == quality
