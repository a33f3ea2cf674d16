"""Many pictures at once: a table, and an archive of what pixa made of them."""

from __future__ import annotations

import csv
import io
import math
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

from pixa.app.bench.codecs import find_codec
from pixa.app.bench.measurements import time_coding
from pixa.app.bench.metrics import psnr_rgb
from pixa.app.page.comparison import CLOCK
from pixa.app.page.uploads import Upload, read_samples
from pixa.errors import LimitExceeded, PixaError

LIMIT_SECONDS = 600
FIELDS = ("file", "result", "width", "height", "bytes_before", "bytes", "share", "bpp", "psnr-rgb",
          "encoding_time", "decoding_time", "error")  # fmt: skip
HEADER = ("picture", "pixels", "before", "after", "of the original", "bits a pixel", "PSNR", "encoding", "")


class Coded(NamedTuple):
    """What became of one picture: a row with the keys `FIELDS`, and the file unless it failed."""

    row: dict
    data: bytes | None


def encode_one(upload: Upload, codec: str, quality: float, target: str) -> Coded:
    """Encode, decode and measure one picture; what is wrong with it goes into its row."""
    row = dict.fromkeys(FIELDS, "") | {"file": upload.name, "bytes_before": len(upload.data)}
    try:
        samples = read_samples(upload)
        with CLOCK:
            coding = time_coding(find_codec(codec), samples, quality)
    except PixaError as error:
        return Coded(row | {"error": str(error)}, None)
    height, width = samples.shape[:2]
    psnr = psnr_rgb(samples, coding.decoded)
    row |= {"result": target, "width": width, "height": height, "bytes": len(coding.data)}
    row |= {"share": len(coding.data) / len(upload.data), "bpp": 8 * len(coding.data) / (width * height)}
    row |= {"psnr-rgb": psnr if math.isfinite(psnr) else ""}
    row |= {"encoding_time": coding.encoding_time, "decoding_time": coding.decoding_time}
    return Coded(row, coding.data)


def encode_all(uploads: Iterable[Upload], codec: str, quality: float, archive: BinaryIO) -> Iterator[list[dict]]:
    """Write every picture's file and `results.csv` to a zip archive; yields the rows so far after each picture.

    Raises:
        LimitExceeded, UnsupportedInput: from reading the uploads, or `LIMIT_SECONDS` are over.
    """
    rows: list[dict] = []
    names: set[str] = set()
    end = time.monotonic() + LIMIT_SECONDS
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as results:
        for upload in uploads:
            if time.monotonic() > end:
                raise LimitExceeded(f"stopped after {LIMIT_SECONDS} seconds; `pixa encode -r` has no such limit")
            coded = encode_one(upload, codec, quality, target_name(upload.name, names))
            if coded.data is not None:
                results.writestr(coded.row["result"], coded.data)
            rows.append(coded.row)
            yield rows
        results.writestr("results.csv", as_csv(rows))


def target_name(name: str, taken: set[str]) -> str:
    """A relative path for the result of `name` that no other has, without parts that lead elsewhere."""
    path = PurePosixPath(name.replace("\\", "/"))
    parts = [part for part in path.parent.parts if part not in ("/", "..", ".") and ":" not in part]
    stem, number = "/".join([*parts, path.stem]), 1
    target = f"{stem}.pixa"
    while target in taken:
        number += 1
        target = f"{stem}-{number}.pixa"
    taken.add(target)
    return target


def as_csv(rows: Iterable[dict]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, FIELDS)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def display(row: dict) -> list[str]:
    """The cells under `HEADER`."""
    before = f"{row['bytes_before'] / 1000:,.1f} kB"
    if row["error"]:
        return [row["file"], "", before, "", "", "", "", "", row["error"]]
    return [
        row["file"],
        f"{row['width']} x {row['height']}",
        before,
        f"{row['bytes'] / 1000:,.1f} kB",
        f"{row['share']:.1%}",
        f"{row['bpp']:.3f}",
        "lossless" if row["psnr-rgb"] == "" else f"{row['psnr-rgb']:.2f} dB",
        f"{1000 * row['encoding_time']:.0f} ms",
        "",
    ]


def summary(rows: list[dict]) -> str:
    """One sentence about all of them."""
    done = [row for row in rows if not row["error"]]
    if not done:
        return f"None of {len(rows)} pictures could be taken."
    before, after = (sum(row[key] for row in done) for key in ("bytes_before", "bytes"))
    failed = f"; {len(rows) - len(done)} could not be taken" if len(done) < len(rows) else ""
    return f"{len(done)} pictures: {before / 1e6:.2f} MB became {after / 1e6:.2f} MB, {after / before:.1%}{failed}."
