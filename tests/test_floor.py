"""The floor under quality: no picture comes back as another one, and photographs pay nothing for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

import pixa
from pixa import errors
from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import Chunk, read_file, write_file
from pixa.cli import main
from pixa.image.floor import promised
from pixa.models.registry import find_model


def stripes(height: int = 70, width: int = 150) -> np.ndarray:
    """Diagonal ones of 4 pixels, pure red and blue."""
    rows, columns = np.mgrid[:height, :width]
    return np.where(((rows + columns) // 4 % 2 == 0)[..., None], np.uint8([255, 0, 0]), np.uint8([0, 0, 255]))


def words(height: int = 128, width: int = 192) -> np.ndarray:
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for k, colour in enumerate(("red", "blue", "lime", "black", "magenta", "cyan")):
        draw.rectangle((24 * k, 18 * k, 24 * k + 40, 18 * k + 12), fill=colour)
        draw.text((5 + 9 * k, 20 * k), "pure colours", fill=colour)
    return np.array(image)


def photo() -> np.ndarray:
    with Image.open(Path(__file__).parents[1] / "app" / "samples" / "chelsea.png") as image:
        return np.array(image.convert("RGB"))


def noise(height: int, width: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-9))


def patches(data: bytes) -> list[bytes]:
    return [chunk.payload for chunk in read_file(data) if chunk.type == ChunkType.PATCH]


def with_patches(data: bytes, payloads: list[bytes]) -> bytes:
    rest = [chunk for chunk in read_file(data) if chunk.type != ChunkType.PATCH]
    return write_file([*rest, *(Chunk(ChunkType.PATCH, payload) for payload in payloads)])


@pytest.mark.parametrize("model", ["fast", "mlic"])
@pytest.mark.parametrize("picture", [stripes(), words()], ids=["stripes", "words"])
def test_drawings_come_back_exactly_in_fewer_bytes_than_the_model_takes(picture, model):
    data, plain = pixa.encode(picture, model=model), pixa.encode(picture, model=model, floor=False)
    assert np.array_equal(pixa.decode(data), picture)
    assert len(data) < len(plain) and psnr(pixa.decode(plain), picture) < 30


def test_noise_is_as_good_as_quality_says():
    low, high = (psnr(pixa.decode(pixa.encode(noise(100, 90), quality)), noise(100, 90)) for quality in (60, 100))
    assert low > 33 and high > 41.5


@pytest.mark.parametrize("quality", [10, 60, 100])
def test_photographs_pay_nothing(quality):
    assert pixa.encode(photo(), quality) == pixa.encode(photo(), quality, floor=False)


def test_only_what_fails_is_patched():
    picture = photo()
    picture[64:128, 128:256] = noise(64, 128)
    decoded = pixa.decode(pixa.encode(picture))
    assert psnr(decoded[64:128, 128:256], picture[64:128, 128:256]) > 33
    assert not np.array_equal(decoded[200:], picture[200:])


PARTS = {
    "stripes": lambda h, w, seed: stripes(h, w),
    "noise": noise,
    "flat": lambda h, w, seed: np.full((h, w, 3), [seed % 256, seed // 7 % 256, seed // 3 % 256], np.uint8),
    "pixels": lambda h, w, seed: noise(-(-h // 3), -(-w // 3), seed).repeat(3, 0).repeat(3, 1)[:h, :w],
    "photo": lambda h, w, seed: photo()[:h, :w],
}


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 140),
    st.integers(1, 140),
    st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=3),
    st.integers(0, 999),
    st.sampled_from([0, 5, 30, 60, 95, 100]),
    st.booleans(),
)
def test_no_block_is_below_its_promise(height, width, parts, seed, quality, grey):
    picture = np.zeros((height, width, 3), np.uint8)
    for k, part in enumerate(parts):
        left = width * k // len(parts)
        picture[:, left:] = PARTS[part](height, width - left, seed)
    picture = picture[:, :, :1] if grey else picture
    decoded = pixa.decode(pixa.encode(picture, quality))
    error = np.square(picture.astype(float) - decoded).mean(2)
    for top in range(0, height, 16):
        for left in range(0, width, 16):
            assert error[top : top + 16, left : left + 16].mean() <= promised(round(2 * quality)) + 0.5


def test_a_size_is_met_with_the_floor_too():
    data = pixa.encode(words(), target_size=4000)
    assert len(data) <= 4000 and np.array_equal(pixa.decode(data), words())


def test_grey_alpha_and_small_pictures():
    alpha = np.full((70, 150, 1), 90, np.uint8)
    for picture in (stripes()[:, :, :1], np.concatenate([stripes(), alpha], 2)):
        data = pixa.encode(picture, thumbnail=True)
        assert np.array_equal(pixa.decode(data), picture)
        for reduce in (2, 4, 8):
            small = pixa.decode(data, reduce=reduce)
            assert small.shape[:2] == (-(-70 // reduce), -(-150 // reduce))
            assert abs(small.mean() - picture.mean()) < 4


def test_the_hash_of_symbols_covers_patches():
    data = pixa.encode(stripes())
    other = with_patches(data, patches(pixa.encode(words(70, 150))))
    assert pixa.Decoder(data).symbols_sha256() != pixa.Decoder(other).symbols_sha256()


def test_damaged_patches_are_refused_or_left_out():
    data = pixa.encode(stripes())
    (payload,) = patches(data)
    wire_id, fast = payload[1:3], find_model("fast").wire_id.to_bytes(2, "little")
    hurt = {
        "outside": b"\x01" + payload[1:],
        "no blocks": payload[:7] + b"\0" + payload[8:],
        "a block too many": payload[:7] + bytes([payload[7] | 1]) + payload[8:],
        "cut": payload[:9],
        "header only": payload[:4],
        "no such kind": payload[:8] + b"\x09" + payload[9:],
    }
    for payloads in [[payload, payload], *([each] for each in hurt.values())]:
        with pytest.raises(errors.Corrupt):
            pixa.decode(with_patches(data, payloads))
        shown = pixa.Decoder(with_patches(data, payloads), keep_going=True).picture().samples
        assert shown.shape == stripes().shape
    with pytest.raises(errors.ModelMissing):
        pixa.decode(with_patches(data, [payload[:1] + b"\xff\xff" + payload[3:]]))
    named = find_model("fast").hash
    with pytest.raises(errors.Corrupt):
        pixa.decode(
            with_patches(
                data, [payload.replace(wire_id, fast, 1).replace(payload[3:7], int(named, 16).to_bytes(4, "little"), 1)]
            )
        )


def test_a_lossless_picture_has_no_patches():
    (payload,) = patches(pixa.encode(stripes()))
    with pytest.raises(errors.Corrupt):
        pixa.decode(with_patches(pixa.encode(stripes(), lossless=True), [payload]))


@pytest.mark.parametrize("near", [1, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_near_lossless_keeps_every_sample_near(near, dtype):
    picture = photo()[:80, :100].astype(dtype)
    data = pixa.encode(picture, lossless=True, near=near)
    assert np.abs(pixa.decode(data).astype(int) - picture).max() == near
    assert len(data) < len(pixa.encode(picture, lossless=True))


@pytest.mark.parametrize(("arguments", "code"), [(["--near", "2"], 2), (["--lossless", "--near", "200"], 2)])
def test_near_is_checked(arguments, code, tmp_path, capsys):
    Image.fromarray(words()).save(tmp_path / "a.png")
    assert main(["encode", *arguments, str(tmp_path / "a.png")]) == code
    assert "near" in capsys.readouterr().err or code


def test_the_command_line_leaves_the_floor_out(tmp_path):
    Image.fromarray(stripes()).save(tmp_path / "a.png")
    for name, more in (("with", []), ("without", ["--no-floor"])):
        assert main(["encode", str(tmp_path / "a.png"), "-o", str(tmp_path / f"{name}.pixa"), *more]) == 0
    assert patches((tmp_path / "with.pixa").read_bytes()) and not patches((tmp_path / "without.pixa").read_bytes())
