"""The Pillow plugin: what users of Image.open and Image.save notice."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms, UnidentifiedImageError

import pixa
from pixa.errors import ModelMissing, UnsupportedInput, UsageError

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(autouse=True, scope="module")
def registered():
    pixa.register_pillow()


def scene(mode="RGB"):
    y, x = np.mgrid[:80, :112] / 30
    samples = np.stack([127 + 120 * np.sin(x + y), 127 + 100 * np.cos(y), 40 + 60 * x, 60 * y], 2)
    return Image.fromarray(samples.clip(0, 255).astype(np.uint8)).convert(mode)


def saved(image, **options):
    file = io.BytesIO()
    image.save(file, "PIXA", **options)
    return file.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_file_opens_with_the_pixels_of_decode(tmp_path, mode):
    scene(mode).save(tmp_path / "a.pixa")
    with Image.open(tmp_path / "a.pixa") as image:
        assert (image.format, image.mode, image.size) == ("PIXA", mode, (112, 80))
        assert image.get_format_mimetype() == "image/x-pixa"
        samples = pixa.decode((tmp_path / "a.pixa").read_bytes())
        assert np.array_equal(np.asarray(image).reshape(samples.shape), samples)


def test_opening_loads_no_model_and_pixels_do(tmp_path):
    scene().save(tmp_path / "a.pixa")
    script = """
import sys, pixa
from PIL import Image
pixa.register_pillow()
image = Image.open(sys.argv[1])
print(image.size, "onnxruntime" in sys.modules)
image.load()
print("onnxruntime" in sys.modules, "torch" in sys.modules)
"""
    command = [sys.executable, "-c", script, tmp_path / "a.pixa"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(112, 80) False", "True False"]


def test_quality_is_that_of_encode():
    assert saved(scene(), quality=20) == pixa.encode(scene(), quality=20)
    assert len(saved(scene(), quality=20)) < len(saved(scene())) < len(saved(scene(), quality=95))


@pytest.mark.parametrize(
    ("options", "error"), [({"quality": 101}, UsageError), ({"effort": 10}, UsageError), ({"model": "x"}, ModelMissing)]
)
def test_wrong_options_leave_no_file(tmp_path, options, error):
    with pytest.raises(error):
        scene().save(tmp_path / "a.pixa", **options)
    assert not (tmp_path / "a.pixa").exists()


@pytest.mark.parametrize(("mode", "expected"), [("P", "RGB"), ("CMYK", "RGB"), ("1", "L")])
def test_other_modes_are_converted(mode, expected):
    assert opened(saved(scene().convert(mode))).mode == expected


def test_16_bits_are_refused():
    with pytest.raises(UnsupportedInput, match="8 bits"):
        saved(Image.fromarray(np.zeros((8, 8), np.uint16)))


def test_metadata_goes_both_ways():
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    image = opened(saved(scene(), icc_profile=SRGB, exif=exif, xmp=b"<x:xmpmeta/>"))
    assert image.info["icc_profile"] == SRGB
    assert image.info["xmp"] == b"<x:xmpmeta/>"
    assert image.getexif()[0x010F] == "Maker"
    again = opened(saved(image))
    assert again.info == image.info
    assert opened(saved(image, exif=None, xmp=None)).info == {"icc_profile": SRGB}


def test_orientation_is_applied_when_saved():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = opened(saved(scene(), exif=exif.tobytes(), quality=95))
    assert image.size == (80, 112)
    assert image.getexif()[0x0112] == 1
    assert np.abs(np.asarray(image) - np.rot90(np.asarray(scene()), -1).astype(float)).mean() < 8


def test_other_files_still_open_and_rubbish_does_not(tmp_path):
    scene().save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").format == "PNG"
    with pytest.raises(UnidentifiedImageError):
        opened(b"no picture at all")


def test_a_damaged_file_is_an_oserror():
    data = saved(scene())
    for damaged in (data[:-10], data[:40], data[:60] + bytes([data[60] ^ 255]) + data[61:]):
        with pytest.raises(OSError, match=r"file|checksum"):
            opened(damaged)


def test_an_opened_picture_can_be_worked_with():
    image = opened(saved(scene()))
    assert image.resize((56, 40)).size == (56, 40)
    assert image.crop((0, 0, 10, 20)).convert("L").size == (10, 20)
    image.thumbnail((20, 20))
    assert image.width == 20
