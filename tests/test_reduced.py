"""Small pictures: what decoding at 1/2, 1/4 and 1/8 gives, by itself and from thumbnails in files."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import pixa
from pixa import Decoder
from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import Chunk, read_file, write_file
from pixa.errors import Corrupt, ModelMissing, UsageError
from pixa.image.decoder import REDUCTIONS
from pixa.image.reduced import synthesis
from pixa.models.export.reduced import fit
from pixa.models.export.restore import restore
from pixa.models.registry import find_model
from pixa.runtime.model import open_model

SMALLER = REDUCTIONS[1:]


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2))


def averaged(samples, factor):
    """Means of squares, as Pillow makes them, without its weighting by alpha."""
    planes = [Image.fromarray(np.ascontiguousarray(samples[:, :, c])).reduce(factor) for c in range(samples.shape[2])]
    return np.stack([np.asarray(plane) for plane in planes], 2)


@pytest.fixture(scope="module", params=[30, 60, 95])
def coded(coffee, request):
    data = pixa.encode(coffee, quality=request.param)
    return data, pixa.decode(data)


@pytest.mark.parametrize("factor", SMALLER)
def test_a_reduced_picture_is_the_whole_one_averaged(coded, factor):
    data, whole = coded
    assert psnr(pixa.decode(data, reduce=factor), averaged(whole, factor)) > {2: 35, 4: 37, 8: 33}[factor]


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (8, 8), (40, 5)])
@pytest.mark.parametrize("factor", SMALLER)
def test_sides_are_rounded_up(photo, size, factor):
    data = pixa.encode(photo[: size[0], : size[1]], jobs=1)
    assert pixa.decode(data, reduce=factor).shape == (-(-size[0] // factor), -(-size[1] // factor), 3)


@pytest.mark.parametrize("factor", SMALLER)
def test_tiles_and_strips_leave_no_seam(photo, factor):
    tall = np.tile(photo[:, :64], (5, 1, 1))[:1100]
    data = pixa.encode(tall, quality=80)
    assert len(Decoder(data).tiles) == 2
    assert psnr(pixa.decode(data, reduce=factor), averaged(pixa.decode(data), factor)) > {2: 36, 4: 36, 8: 30}[factor]


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_grey_and_alpha(photo, channels):
    alpha = np.tile(np.arange(320, dtype=np.uint8)[None, :, None], (256, 1, 1))
    samples = np.concatenate([photo[:, :, : channels - 1 + channels % 2], *([alpha] if channels % 2 == 0 else [])], 2)
    data = pixa.encode(samples, quality=90)
    small = pixa.decode(data, reduce=4)
    assert small.shape == (64, 80, channels)
    assert psnr(small, averaged(pixa.decode(data), 4)) > 36
    if channels % 2 == 0:
        assert np.abs(small[:, :, -1].astype(int) - averaged(samples, 4)[:, :, -1]).max() <= 1


def test_metadata_stays(photo):
    image = Image.fromarray(photo)
    image.info["xmp"] = b"<x:xmpmeta/>"
    assert pixa.open_image(pixa.encode(image), reduce=8).info == image.info


@pytest.mark.parametrize("factor", [0, 3, 16, -2])
def test_other_factors_are_refused(photo, factor):
    with pytest.raises(UsageError, match="1, 2, 4 or 8"):
        pixa.decode(pixa.encode(photo), reduce=factor)


def test_lost_tiles_are_guessed(photo):
    wide = np.tile(photo[:64], (1, 4, 1))[:, :1100]
    *chunks, _ = read_file(pixa.encode(wide))
    decoder = Decoder(write_file(chunks), keep_going=True)
    assert decoder.picture(reduce=8).samples.shape == (8, 138, 3)


@pytest.fixture(scope="module")
def data(coffee):
    return pixa.encode(coffee, thumbnail=True)


class TestThumbnail:
    def test_it_shows_the_picture(self, data):
        assert psnr(pixa.decode(data, reduce=8), averaged(pixa.decode(data), 8)) > 30

    def test_it_is_shown_without_decoding_the_rest(self, data):
        head, thumbnail, _ = read_file(data)
        broken = write_file([head, thumbnail, Chunk(ChunkType.TILE, b"broken")])
        assert np.array_equal(pixa.decode(broken, reduce=8), pixa.decode(data, reduce=8))
        with pytest.raises(Corrupt):
            pixa.decode(broken, reduce=4)

    def test_the_rest_is_as_without_it(self, coffee, data):
        plain = pixa.encode(coffee)
        assert [chunk for chunk in read_file(data) if chunk.type != ChunkType.THUMBNAIL] == list(read_file(plain))
        assert np.array_equal(pixa.decode(data), pixa.decode(plain))
        assert np.array_equal(pixa.decode(data, reduce=4), pixa.decode(plain, reduce=4))
        assert len(data) < 1.1 * len(plain)

    def test_info_tells_it(self, data):
        assert [chunk["type"] for chunk in pixa.info(data)["chunks"]] == ["HEAD", "THUMBNAIL", "TILE"]

    def test_alpha_goes_along(self, photo):
        samples = np.concatenate([photo, photo[:, :, :1]], 2)
        assert pixa.decode(pixa.encode(samples, thumbnail=True), reduce=8).shape == (32, 40, 4)

    def test_pillow_writes_and_uses_it(self, coffee, data):
        pixa.register_pillow()
        file = io.BytesIO()
        Image.fromarray(coffee).save(file, "PIXA", thumbnail=True)
        assert file.getvalue() == data
        image = Image.open(file)
        image.draft(None, (75, 50))
        assert np.array_equal(np.asarray(image), pixa.decode(data, reduce=8))

    def test_of_another_picture_it_is_corrupt(self, coffee, data):
        head, _, *rest = read_file(data)
        for other in (coffee[:8, :8], coffee[:50, :75, 0], b"rubbish"):
            payload = other if isinstance(other, bytes) else pixa.encode(other)
            wrong = write_file([head, Chunk(ChunkType.THUMBNAIL, payload), *rest])
            with pytest.raises(pixa.errors.PixaError):
                pixa.decode(wrong, reduce=8)
            assert pixa.decode(wrong).shape == coffee.shape

    def test_twice_is_corrupt(self, data):
        head, thumbnail, *rest = read_file(data)
        with pytest.raises(Corrupt):
            Decoder(write_file([head, thumbnail, thumbnail, *rest]))

    @pytest.mark.parametrize("target", [{"bpp": 1.0}, {"target_size": 10_000}])
    def test_not_within_a_size(self, photo, target):
        with pytest.raises(UsageError, match="thumbnail"):
            pixa.encode(photo, thumbnail=True, **target)


class TestCommandLine:
    @pytest.fixture
    def picture(self, photo, tmp_path):
        Image.fromarray(photo).save(tmp_path / "a.png")
        return tmp_path / "a.png"

    @pytest.mark.parametrize("factor", SMALLER)
    def test_scale(self, run, picture, photo, factor):
        small = picture.with_name("small.png")
        assert (
            run("encode", picture)[0]
            == run("decode", picture.with_suffix(".pixa"), "-o", small, "--scale", f"1/{factor}")[0]
            == 0
        )
        expected = pixa.decode(picture.with_suffix(".pixa").read_bytes(), reduce=factor)
        assert np.array_equal(np.asarray(Image.open(small)), expected)

    def test_thumbnail(self, run, picture, photo):
        assert run("encode", picture, "--thumbnail")[0] == 0
        assert picture.with_suffix(".pixa").read_bytes() == pixa.encode(photo, thumbnail=True)

    @pytest.mark.parametrize(
        "arguments", [("decode", "--scale", "1/3"), ("decode", "--scale", "8"), ("encode", "--thumbnail", "--bpp", "1")]
    )
    def test_misuse(self, run, picture, arguments):
        code, _, err = run(*arguments, picture)
        assert code == 2
        assert err

    def test_videos_are_refused(self, run, photo, tmp_path):
        pixa.write_video(tmp_path / "a.pixa", [photo], model="fast")
        code, _, (message,) = run("decode", tmp_path / "a.pixa", "-o", tmp_path / "a.png", "--scale", "1/2")
        assert code == 2
        assert "pictures" in message


class TestWeights:
    def test_they_are_what_the_export_makes(self):
        entry = find_model("fast")
        fitted = fit(restore(entry.folder))
        weight, bias = synthesis(entry, 2)
        latents = np.abs(np.load(entry.folder / "tables.npz")["step"][100])
        difference = fitted["weight"].astype(np.float32) - weight[:, 0, 0]
        assert np.abs(difference * latents[:, None, None, None]).max() < 0.75
        assert np.abs(fitted["bias"] - bias).max() < 0.5

    @pytest.fixture
    def copied(self, tmp_path, monkeypatch):
        entry = find_model("fast")
        shutil.copytree(entry.folder, tmp_path / entry.folder.name)
        monkeypatch.setattr("pixa.models.registry.weights_folder", lambda: tmp_path)
        synthesis.cache_clear()
        yield entry
        synthesis.cache_clear()

    @pytest.mark.parametrize("altered", [True, False])
    def test_altered_or_missing_ones_are_refused(self, photo, copied, altered):
        file, data = copied.folder / "reduced.npz", pixa.encode(photo)
        file.write_bytes(file.read_bytes()[:-1] + b"x") if altered else file.unlink()
        assert pixa.decode(data).shape == photo.shape
        with pytest.raises(ModelMissing, match=r"reduced\.npz"):
            pixa.decode(data, reduce=4)

    def test_without_them_the_whole_picture_is_averaged(self, photo):
        decoder = Decoder(pixa.encode(photo[:100, :100]))
        whole = decoder.picture().samples
        decoder.nets = open_model(replace(find_model("fast"), reduced=""), 1)
        padded = np.pad(whole, ((0, 4), (0, 4), (0, 0)), mode="edge")
        assert np.abs(decoder.picture(reduce=8).samples.astype(int) - averaged(padded, 8)).max() <= 1
