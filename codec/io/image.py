"""Picture files: Pillow on one side, `Picture` on the other."""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from pixa.errors import LimitExceeded, PixaError, UnsupportedInput, UsageError
from pixa.io.files import write_whole
from pixa.pixels import Picture

HEIF = {".heic", ".heif"}
SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".tga"}
SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm", *HEIF}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"}
DNG_VERSION, NEW_SUBFILE_TYPE = 0xC612, 0x00FE  # tags of TIFF
STILL = {"MPO", "PSD"}  # further frames are no animation: previews and gain maps of a photo, layers of a drawing
INFO_KEYS = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp"}
EXIF_PREFIX = b"Exif\0\0"
ORIENTATION = 0x0112
EXIF_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # types of EXIF values as `struct` calls them
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What a TIFF says about the picture rather than about its own layout: description, make, model, software, date,
# artist, copyright; then the Exif and GPS directories.
TIFF_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
TIFF_DIRECTORIES = (0x8769, 0x8825)
TIFF_XMP = 0x02BC


@dataclass(frozen=True)
class OutputFormat:
    """A format that pictures are written in, as near to lossless as it goes without extra cost in care."""

    name: str
    suffixes: tuple[str, ...]
    alpha: bool = True
    metadata: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


OUTPUT_FORMATS = (
    OutputFormat("PNG", (".png",)),
    OutputFormat("JPEG", (".jpg", ".jpeg"), alpha=False, options={"quality": 95, "subsampling": "4:4:4"}),
    OutputFormat("WEBP", (".webp",), options={"lossless": True}),
    OutputFormat("AVIF", (".avif",), options={"quality": 95, "subsampling": "4:4:4"}),
    OutputFormat("TIFF", (".tif", ".tiff")),
    OutputFormat("BMP", (".bmp",), alpha=False, metadata=False),
    OutputFormat("PPM", (".ppm", ".pgm"), alpha=False, metadata=False),
)


def output_format(name: str) -> OutputFormat:
    """The format with this name or suffix ("png", ".png").

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    suffix = "." + name.lower().removeprefix(".")
    for entry in OUTPUT_FORMATS:
        if suffix in entry.suffixes:
            return entry
    known = " ".join(suffix for entry in OUTPUT_FORMATS for suffix in entry.suffixes)
    raise UsageError(f"pictures are not written as {name or 'a file without a suffix'!r}; known: {known}")


def load(source: str | os.PathLike | bytes | BinaryIO, deep: bool = False) -> Picture:
    """Reads a picture file of any format that Pillow knows.

    The samples are turned upright and converted as `image_to_picture` says; ICC, EXIF and XMP come along. Of a phone's
    or camera's JPEG with further pictures behind the first (MPO) the first is taken.

    Args:
        source: a path, the content of a file, or a binary file (a pipe may be one).

    Raises:
        UnsupportedInput: no picture, a broken or cut one, an animation, or more than 8 bits a sample.
        LimitExceeded: more pixels than Pillow opens, twice `PIL.Image.MAX_IMAGE_PIXELS` (179 million).
        OSError: the file cannot be opened.
    """
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return load(file, deep)
    if isinstance(source, bytes):
        return load(io.BytesIO(source), deep)
    if not source.seekable():
        return load(io.BytesIO(source.read()), deep)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read(source, deep)
    except (PixaError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise LimitExceeded(f"the picture claims more than {2 * Image.MAX_IMAGE_PIXELS} pixels") from error
    except Image.UnidentifiedImageError as error:
        source.seek(0)
        start = source.read(12)
        if start[4:8] == b"ftyp" and start[8:] in HEIF_BRANDS:
            raise UnsupportedInput("HEIC pictures need: pip install 'pixa[heif]'") from error
        if source.seek(0, os.SEEK_END) == 0:
            raise UnsupportedInput("the file is empty") from error
        raise UnsupportedInput("not a picture, or in a format that Pillow does not read") from error
    except Exception as error:  # Pillow's readers raise many types for broken data
        raise UnsupportedInput(f"the picture is broken or cut: {error}") from error


def _read(file: BinaryIO, deep: bool) -> Picture:
    if find_spec("pillow_heif"):
        import_module("pillow_heif").register_heif_opener()
    with Image.open(file) as image:
        if image.format == "TIFF" and (DNG_VERSION in image.tag_v2 or image.tag_v2.get(NEW_SUBFILE_TYPE, 0) & 1):
            raise UnsupportedInput("a raw photograph, of which only a preview could be taken: develop it first")
        if image.format == "EPS":
            raise UnsupportedInput("PostScript is a program, not a picture: convert it first")
        if (frames := getattr(image, "n_frames", 1)) > 1 and image.format not in STILL:
            raise UnsupportedInput(f"the file holds {frames} pictures; pixa takes files of one")
        if image.format in ("AVIF", "JPEG2000"):
            file.seek(0)
            _refuse_deep(_coded_deep(file.read()))
        return image_to_picture(image, deep=deep)


def image_to_picture(image: Image.Image, info: Mapping[str, Any] | None = None, deep: bool = False) -> Picture:
    """Pillow's image as a `Picture`.

    * Palette, YCbCr, LAB, HSV and CMYK become RGB; 1 bit becomes grey; any kind of transparency becomes an alpha plane.
    * The orientation in the EXIF data (all 8 cases) is applied to the samples; the tag then says upright, and so does
      its copy in the XMP data. All else in EXIF and XMP stays byte for byte.
    * An ICC profile that speaks of other channels than the samples have is not carried along: that of a CMYK picture
      takes it to sRGB (which is what samples without a profile are), any other is dropped, as viewers ignore it too.

    Args:
        info: where "icc_profile", "exif" and "xmp" are taken from; by default `image.info`.
        deep: take grey samples of 16 bits as they are.

    Raises:
        UnsupportedInput: more than 8 bits a sample, floating-point samples.
        LimitExceeded: a side of 0 or more than 65535.
    """
    deep = deep and image.mode.startswith("I;16")
    _refuse_deep(not deep and _sampled_deep(image))
    image.load()
    info = image.info if info is None else info
    icc, exif, xmp = info.get("icc_profile") or b"", _exif(image, info), info.get("xmp") or b""
    if image.mode == "CMYK":
        image = _cmyk_to_srgb(image, icc)
    mode = "L" if deep or image.mode in ("1", "L", "LA", "La") else "RGB"
    if icc[16:20] != {"L": b"GRAY", "RGB": b"RGB "}[mode]:
        icc = b""
    if image.has_transparency_data and not deep:
        mode += "A"
    if image.mode != mode and not deep:
        image = image.convert(mode)
    orientation, exif = _take_orientation(exif)
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    xmp = re.sub(rb"""(tiff:Orientation(?:>|\s*=\s*["']))[2-8]""", rb"\g<1>1", xmp)
    metadata = {"icc": icc, "exif": exif, "xmp": xmp}
    samples = np.asarray(image).astype(np.uint16) if deep else np.asarray(image)
    return Picture(samples, {name: payload for name, payload in metadata.items() if payload})


def picture_to_image(picture: Picture) -> Image.Image:
    """The picture as Pillow's image (L, I;16, LA, RGB or RGBA) with "icc_profile", "exif" and "xmp" in its `info`.

    Raises:
        UnsupportedInput: 16 bits a sample in colour or with transparency, which Pillow has no image for.
    """
    if picture.samples.dtype == np.uint16 and picture.samples.shape[2] > 1:
        raise UnsupportedInput("Pillow has no images of 16 bits a sample but grey ones: use pixa.decode for an array")
    samples = picture.samples[:, :, 0] if picture.samples.shape[2] == 1 else picture.samples
    image = Image.fromarray(np.ascontiguousarray(samples))
    image.info.update(metadata_info(picture.metadata))
    return image


def metadata_info(metadata: Mapping[str, bytes]) -> dict[str, bytes]:
    """The metadata of a `Picture` under the names and in the form that Pillow's `info` has."""
    info = {INFO_KEYS[name]: payload for name, payload in metadata.items()}
    return info | ({"exif": EXIF_PREFIX + info["exif"]} if "exif" in info else {})


def save(picture: Picture, target: str | os.PathLike | BinaryIO, format: str | None = None) -> None:
    """Writes a picture file, whole or not at all, with the metadata that its format can hold.

    PNG, WebP, TIFF, BMP and PPM keep every sample; JPEG and AVIF are written at quality 95 without chroma subsampling.

    Args:
        target: a path, which is replaced if it exists, or a binary file.
        format: "png", "jpg", "webp", "avif", "tiff", "bmp" or "ppm"; by default the suffix of the path decides.

    Raises:
        UsageError: an unknown format.
        UnsupportedInput: the format cannot hold the picture (transparency in JPEG, BMP or PPM; too large a side).
        PixaError: the file cannot be written.
    """
    is_path = isinstance(target, str | os.PathLike)
    chosen = output_format(format or (Path(target).suffix if is_path else ""))
    if picture.alpha is not None and not chosen.alpha:
        raise UnsupportedInput(f"{chosen.name} cannot hold transparency: write PNG, WebP, AVIF or TIFF")
    image = picture_to_image(picture)
    content = io.BytesIO()
    try:
        image.save(content, chosen.name, **chosen.options, **_metadata_options(image, chosen))
    except (OSError, ValueError, struct.error) as error:
        raise UnsupportedInput(f"the picture cannot be written as {chosen.name}: {error}") from error
    if is_path:
        write_whole(target, content.getvalue())
    else:
        target.write(content.getbuffer())


def _metadata_options(image: Image.Image, chosen: OutputFormat) -> dict[str, Any]:
    if not chosen.metadata:
        return {}
    options = {key: image.info[key] for key in INFO_KEYS.values() if key in image.info}
    if chosen.name == "PNG" and "xmp" in options:
        chunk = PngImagePlugin.PngInfo()
        chunk.add(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + options.pop("xmp"))
        options["pnginfo"] = chunk
    if chosen.name == "TIFF" and "xmp" in options:
        tags = Image.Exif()
        tags.load(options.get("exif", b""))
        tags[TIFF_XMP] = options.pop("xmp")
        options["exif"] = tags
    return options


def _refuse_deep(deep: bool) -> None:
    if deep:
        raise UnsupportedInput("the picture has more than 8 bits a sample, which pixa does not cut: convert it first")


def _sampled_deep(image: Image.Image) -> bool:
    """More than 8 bits a sample, by Pillow's mode and, until the pixels are loaded, by the layout of the file."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16") or image.info.get("bit_depth", 8) > 8:
        return True
    for codec, _, _, args in getattr(image, "tile", ()):
        layout, *rest = args if isinstance(args, tuple) else (args,)
        if codec == "SGI16" or re.search(";16[BLNR]", str(layout)):
            return True
        if codec in ("ppm", "ppm_plain") and rest and rest[0] > 255:
            return True
    return False


def _coded_deep(content: bytes) -> bool:
    """More than 8 bits a sample in an AVIF (its av1C box) or JPEG 2000 file (its SIZ marker); Pillow cuts both."""
    if match := re.search(rb"av1C\x81.(.)", content, re.DOTALL):
        return bool(match[1][0] & 0x40)
    if match := re.search(rb"\xff\x4f\xff\x51.{36}(..)", content, re.DOTALL):
        components = content[match.end() :][: 3 * int.from_bytes(match[1], "big") : 3]
        return any((depth & 0x7F) >= 8 for depth in components)
    return False


def _exif(image: Image.Image, info: Mapping[str, Any]) -> bytes:
    """EXIF data as it begins with its byte order, without prefix; b"" when there is none."""
    exif = info.get("exif") or b""
    if isinstance(exif, Image.Exif):
        exif = exif.tobytes()
    if not exif and "Raw profile type exif" in info:
        exif = bytes.fromhex("".join(info["Raw profile type exif"].split("\n")[3:]))
    if not exif and image.format == "TIFF":
        every, kept = image.getexif(), Image.Exif()
        kept.update({tag: every[tag] for tag in TIFF_TAGS if tag in every})
        kept.update({tag: directory for tag in TIFF_DIRECTORIES if (directory := every.get_ifd(tag))})
        exif = kept.tobytes() if len(kept) else b""
    return exif.removeprefix(EXIF_PREFIX)


def _take_orientation(exif: bytes) -> tuple[int, bytes]:
    """(orientation, the same EXIF data with the orientation set to 1)."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1, exif
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", exif, entry)
            if tag == ORIENTATION and kind in EXIF_INTEGERS:
                form = order + EXIF_INTEGERS[kind]
                (value,), behind = struct.unpack_from(form, exif, entry + 8), entry + 8 + struct.calcsize(form)
                return value, exif[: entry + 8] + struct.pack(form, 1) + exif[behind:]
    except struct.error:
        pass
    return 1, exif


def _cmyk_to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    if icc[16:20] == b"CMYK":
        try:
            profiles = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
            return ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ImportError):
            pass
    return image.convert("RGB")
