"""Picture files in and out: conversions, orientation, metadata, refusals."""

import base64
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from pixa.app.bench.metrics import psnr_rgb
from pixa.errors import LimitExceeded, UnsupportedInput, UsageError
from pixa.io.image import image_to_picture, load, picture_to_image, save
from pixa.pixels import Picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d" dc:title="t"/></x:xmpmeta>'
AVIF_10_BIT = base64.b64decode(
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAAD5bWV0YQAAAAAAAAAvaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAFBpY3R1cmVI"
    "YW5kbGVyAAAAAA5waXRtAAAAAAABAAAAHmlsb2MAAAAARAAAAQABAAAAAQAAASEAAAAbAAAAKGlpbmYAAAAAAAEAAAAaaW5mZQIAAAAAAQAAYXYw"
    "MUNvbG9yAAAAAGppcHJwAAAAS2lwY28AAAAUaXNwZQAAAAAAAABAAAAAQAAAABBwaXhpAAAAAAMKCgoAAAAMYXYxQ4EATAAAAAATY29scm5jbHgA"
    "AgACAAIAAAAAF2lwbWEAAAAAAAAAAQABBAECgwQAAAAjbWRhdAoKAAAAAq//jV84CDINEAC6AgssUUEAAAgAgw=="
)


def blocks(channels=3):
    """(48, 64, channels) of flat 16-pixel squares, none like another."""
    colours = np.random.default_rng(1).integers(0, 256, (3, 4, channels), np.uint8)
    return np.kron(colours, np.ones((16, 16, 1), np.uint8))


def written(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(width, height, depth, colour_type, rows=None):
    """A PNG file made by hand, all zero."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    raw = bytes(height * (1 + width * channels * depth // 8)) if rows is None else rows
    out = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    for kind, payload in ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")):
        out += struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))
    return out


def rgb16_tiff():
    """A 4x4 RGB TIFF of 16 bits a sample."""
    data = bytes(4 * 4 * 6)
    entries = [
        *((256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((273, 4, 1, 128), (277, 3, 1, 3), (278, 3, 1, 4), (279, 4, 1, len(data))),
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    bits = struct.pack("<HHH", 16, 16, 16)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + bits + data


def exif_bytes(orientation):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    exif[0x8769] = {0x9003: "2020:01:01 00:00:00"}
    return exif.tobytes()


def cmyk_profile(lab):
    """An ICC profile that takes every CMYK colour without black to one Lab colour (8-bit encoded)."""
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    corners = bytes([*lab, 0, 128, 128]) * 8
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + corners + ramp * 3
    header = struct.pack(">I4sI4s4s4s", 128 + 16 + len(table), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return header + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


class Pipe(io.RawIOBase):
    """A binary file that cannot seek."""

    def __init__(self, content):
        self.file = io.BytesIO(content)

    def readable(self):
        return True

    def read(self, size=-1):
        return self.file.read(size)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_samples_are_kept(channels):
    samples = blocks(channels)
    content = io.BytesIO()
    save(Picture(samples), content, "png")
    assert np.array_equal(load(content.getvalue()).samples, samples)


def test_paths_bytes_files_and_pipes_give_the_same(tmp_path):
    content = written(Image.fromarray(blocks()), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with path.open("rb") as file:
        for source in (path, str(path), content, file, Pipe(content)):
            assert np.array_equal(load(source).samples, blocks())


@pytest.mark.parametrize(("mode", "channels"), [("CMYK", 3), ("YCbCr", 3), ("LAB", 3), ("P", 3), ("PA", 4), ("1", 1)])
def test_other_colour_modes_are_converted(mode, channels):
    grey = np.repeat(np.repeat(np.array([[0, 255], [255, 0]], np.uint8), 8, 0), 8, 1)
    image = Image.fromarray(np.dstack([grey] * 3)).convert(mode)
    picture = image_to_picture(image)
    assert picture.samples.shape == (16, 16, channels)
    assert np.abs(picture.samples[:, :, :1].astype(int) - grey[:, :, None]).max() <= 2


def test_palette_transparency_becomes_alpha():
    image = Image.fromarray(np.repeat(np.array([[0, 1, 2]], np.uint8), 4, 0)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    one = load(written(image, "PNG", transparency=1)).samples
    assert one[0].tolist() == [[255, 0, 0, 255], [0, 255, 0, 0], [0, 0, 255, 255]]
    each = load(written(image, "PNG", transparency=bytes([0, 128, 255]))).samples
    assert each[0, :, 3].tolist() == [0, 128, 255]
    gif = load(written(image, "GIF", transparency=2)).samples
    assert gif[0, :, 3].tolist() == [255, 255, 0]


def test_colour_key_becomes_alpha():
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert load(written(image, "PNG", transparency=(4, 5, 6))).samples[0, :, 3].tolist() == [255, 0]
    grey = Image.fromarray(np.array([[7, 8]], np.uint8))
    assert load(written(grey, "PNG", transparency=7)).samples[0].tolist() == [[7, 0], [8, 255]]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(png(8, 8, 16, 0), id="grey PNG"),
        pytest.param(png(8, 8, 16, 2), id="RGB PNG"),
        pytest.param(png(8, 8, 16, 4), id="grey and alpha PNG"),
        pytest.param(png(8, 8, 16, 6), id="RGBA PNG"),
        pytest.param(rgb16_tiff(), id="RGB TIFF"),
        pytest.param(written(Image.fromarray(np.zeros((8, 8), np.uint16)), "TIFF"), id="grey TIFF"),
        pytest.param(written(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"), id="float TIFF"),
        pytest.param(b"P5 4 4 65535\n" + bytes(32), id="PGM"),
        pytest.param(b"P6 4 4 1023\n" + bytes(96), id="10-bit PPM"),
        pytest.param(struct.pack(">HBBHHHH", 474, 0, 2, 3, 4, 4, 3).ljust(512, b"\0") + bytes(96), id="SGI"),
        pytest.param(written(Image.fromarray(np.zeros((64, 64), np.uint16)), "JPEG2000"), id="JPEG 2000"),
        pytest.param(AVIF_10_BIT, id="10-bit AVIF"),
    ],
)
def test_more_than_8_bits_are_refused(content):
    with pytest.raises(UnsupportedInput, match="more than 8 bits"):
        load(content)


def test_more_than_8_bits_are_refused_in_an_opened_image():
    with pytest.raises(UnsupportedInput, match="more than 8 bits"):
        image_to_picture(Image.open(io.BytesIO(png(8, 8, 16, 2))))


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_files_of_several_pictures_are_refused(format):
    first = Image.fromarray(blocks())
    content = written(first, format, save_all=True, append_images=[first.rotate(90)])
    with pytest.raises(UnsupportedInput, match="holds 2 pictures"):
        load(content)


def test_the_first_picture_of_a_camera_jpeg_is_taken():
    first, second = Image.new("RGB", (32, 16), "red"), Image.new("RGB", (32, 16), "blue")
    picture = load(written(first, "MPO", save_all=True, append_images=[second]))
    assert picture.samples[0, 0, 0] > 250 and picture.samples[0, 0, 2] < 5


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(format, orientation):
    stored = blocks()
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).transpose(1, 0, 2),
        8: np.rot90(stored, 1),
    }[orientation]
    best = {"quality": 100, "subsampling": "4:4:4"}
    options = {"JPEG": best, "AVIF": best, "WEBP": {"lossless": True}}.get(format, {})
    exif = Image.Exif()
    exif.load(exif_bytes(orientation))
    picture = load(written(Image.fromarray(stored), format, exif=exif, **options))
    assert picture.samples.shape == upright.shape
    assert np.abs(picture.samples.astype(int) - upright).max() <= 4
    kept = Image.Exif()
    kept.load(picture.metadata["exif"])
    assert kept.get(0x0112, 1) == 1
    assert kept[0x010F] == "Maker"
    assert kept.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"


@pytest.mark.parametrize("order", [b"II", b"MM"])
def test_only_the_orientation_changes_in_exif(order):
    sign = "<" if order == b"II" else ">"
    odd = b"maker's note, at a fixed place"
    exif = order + struct.pack(sign + "HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0) + odd
    picture = load(written(Image.fromarray(blocks()), "PNG", exif=exif))
    assert picture.samples.shape[:2] == (64, 48)
    assert picture.metadata["exif"] == exif.replace(struct.pack(sign + "HH", 6, 0), struct.pack(sign + "HH", 1, 0))


def test_broken_exif_is_no_reason_to_refuse():
    exif = b"II*\0\xff\xff\xff\x7f"
    picture = load(written(Image.fromarray(blocks()), "PNG", exif=exif))
    assert np.array_equal(picture.samples, blocks())
    assert picture.metadata["exif"] == exif


def test_orientation_in_xmp_is_reset_too():
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", (XMP % 6).decode())
    picture = load(written(Image.fromarray(blocks()), "PNG", exif=exif_bytes(6), pnginfo=text))
    assert picture.metadata["xmp"] == XMP % 1


def test_a_profile_for_other_channels_is_dropped():
    grey = written(Image.fromarray(blocks(1)[:, :, 0]), "PNG", icc_profile=SRGB)
    assert "icc" not in load(grey).metadata
    assert load(written(Image.fromarray(blocks()), "PNG", icc_profile=SRGB)).metadata["icc"] == SRGB


def test_a_cmyk_profile_takes_the_picture_to_srgb():
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    grey = load(written(image, "TIFF", icc_profile=cmyk_profile([137, 128, 128])))  # L* = 53.7: sRGB 128
    assert np.abs(grey.samples.astype(int) - 128).max() <= 2
    assert "icc" not in grey.metadata
    broken = load(written(image, "TIFF", icc_profile=cmyk_profile([137, 128, 128])[:300]))
    assert broken.samples[0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("format", ["png", "jpg", "webp", "avif", "tiff"])
def test_saved_files_carry_all_metadata(tmp_path, format):
    exif = exif_bytes(1).removeprefix(b"Exif\0\0")
    picture = Picture(blocks(), {"icc": SRGB, "exif": exif, "xmp": XMP % 1})
    save(picture, tmp_path / f"a.{format}")
    again = load(tmp_path / f"a.{format}")
    assert np.abs(again.samples.astype(int) - picture.samples).max() <= 4
    assert again.metadata["icc"] == SRGB
    assert again.metadata["xmp"] == XMP % 1
    kept = Image.Exif()
    kept.load(again.metadata["exif"])
    assert kept[0x010F] == "Maker"
    assert kept.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"


@pytest.mark.parametrize("format", ["jpg", "bmp", "ppm"])
def test_transparency_is_never_dropped(tmp_path, format):
    with pytest.raises(UnsupportedInput, match="transparency"):
        save(Picture(blocks(4)), tmp_path / f"a.{format}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("format", ["png", "webp", "tiff"])
def test_transparency_is_saved_exactly(tmp_path, format):
    save(Picture(blocks(4)), tmp_path / f"a.{format}")
    assert np.array_equal(load(tmp_path / f"a.{format}").alpha, blocks(4)[:, :, 3])


def test_an_unknown_format_is_a_usage_error(tmp_path):
    for name in ("a.xyz", "a"):
        with pytest.raises(UsageError, match=r"known: \.png"):
            save(Picture(blocks()), tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_side_that_the_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(UnsupportedInput, match="WEBP"):
        save(Picture(np.zeros((1, 20000, 3), np.uint8)), tmp_path / "a.webp")
    assert os.listdir(tmp_path) == []


def test_pillow_images_carry_metadata_both_ways():
    exif = exif_bytes(1).removeprefix(b"Exif\0\0")
    picture = Picture(blocks(), {"icc": SRGB, "exif": exif, "xmp": XMP % 1})
    image = picture_to_image(picture)
    assert image.getexif()[0x010F] == "Maker"
    again = image_to_picture(image)
    assert np.array_equal(again.samples, picture.samples)
    assert again.metadata == picture.metadata


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "JPEG2000", "PPM"])
def test_cut_files_are_refused(format):
    content = written(Image.fromarray(blocks()), format)
    with pytest.raises(UnsupportedInput, match=r"broken or cut|not a picture"):
        load(content[: len(content) * 2 // 3])


def test_what_is_no_picture_is_refused():
    with pytest.raises(UnsupportedInput, match="not a picture"):
        load(b"some text\n" * 20)
    with pytest.raises(UnsupportedInput, match="empty"):
        load(b"")
    with pytest.raises(UnsupportedInput, match="PostScript"):
        load(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")


def test_a_header_with_too_many_pixels_is_refused():
    with pytest.raises(LimitExceeded, match="pixels"):
        load(png(60000, 60000, 8, 2, rows=b""))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4, 8, 9])
def test_the_orientation_is_read_whatever_its_type_and_byte_order(photo, order, kind):
    form = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i"}[kind]
    value = struct.pack(order + form, 6).ljust(4, b"\0")
    header = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    exif = header + struct.pack(order + "HHHI", 1, 0x0112, kind, 1) + value + struct.pack(order + "I", 0)
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG", exif=b"Exif\0\0" + exif)
    picture = load(file.getvalue())
    assert np.array_equal(picture.samples, np.rot90(photo, -1))
    tags = Image.Exif()
    tags.load(picture.metadata["exif"])
    assert tags[0x0112] in (1, b"\1")


def test_raw_photographs_are_refused_rather_than_their_preview_taken(photo):
    for tags in ({0xC612: b"\1\4\0\0"}, {0x00FE: 1}):
        file = io.BytesIO()
        Image.fromarray(photo).save(file, "TIFF", tiffinfo=tags)
        with pytest.raises(UnsupportedInput, match="raw photograph"):
            load(file.getvalue())


def test_heic_is_read_with_its_extra_and_names_it_without(photo, monkeypatch):
    import pillow_heif as heif

    file = io.BytesIO()
    heif.from_pillow(Image.fromarray(photo)).save(file, quality=95)
    assert psnr_rgb(photo, load(file.getvalue()).samples) > 30
    monkeypatch.setattr("pixa.io.image.find_spec", lambda name: None)
    monkeypatch.setattr(Image, "OPEN", {name: opener for name, opener in Image.OPEN.items() if name != "HEIF"})
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    with pytest.raises(UnsupportedInput, match=r"pixa\[heif\]"):
        load(file.getvalue())
