"""What stands beside pictures: figures of two sides, parts of a file, as HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from pixa.app.page.comparison import ORIGINAL, Result, list_codecs
from pixa.app.page.heatmap import tile_places
from pixa.bitstream.chunks import ChunkType, chunk_name
from pixa.coding.latents import STRIDE
from pixa.image.decoder import Decoder


class Line(NamedTuple):
    """One line of the table of figures.

    Attributes:
        text: how a value is shown.
        better: 1 where more is better, -1 where less is.
        note: what a reader sees who stays on the title.
    """

    title: str
    field: str
    text: Callable[[float], str]
    better: int
    note: str


LINES = (
    Line("file size", "bytes", lambda value: size_text(value), -1, "the whole file, headers included"),
    Line("of the original", "share", "{:.2%}".format, -1, "bytes against the file that was handed in"),
    Line("bits a pixel", "bpp", "{:.4f}".format, -1, "8 times the bytes over the pixels"),
    Line("PSNR", "psnr-rgb", "{:.3f} dB".format, 1, "of the error over R, G and B; higher is nearer to the original"),
    Line("MS-SSIM", "ms-ssim-rgb", "{:.5f}".format, 1, "structure on five scales; 1 is identical"),
    Line("SSIMULACRA 2", "ssimulacra2", "{:.3f}".format, 1, "as people see it: 90 cannot be told apart, 50 is medium"),
    Line("encoding", "encoding_time", lambda value: f"{1000 * value:.0f} ms", -1, "on this machine, all its cores"),
    Line("decoding", "decoding_time", lambda value: f"{1000 * value:.0f} ms", -1, "on this machine, all its cores"),
)
SAME_SHARE, SAME_PSNR, CLEAR_PSNR = 0.05, 0.25, 1.0
SLOW = ("ms-ssim-rgb", "ssimulacra2")


def size_text(size: float) -> str:
    """Bytes as people read them, exact in brackets."""
    return f"{size / 1000:.1f} kB" if size < 1e6 else f"{size / 1e6:.2f} MB"


def title(result: Result) -> str:
    """Codec and quality."""
    return "Original" if result.codec == ORIGINAL else f"{list_codecs()[result.codec]} · quality {result.quality:g}"


def value_of(result: Result, line: Line, original_bytes: int) -> float | None:
    return result.row["bytes"] / original_bytes if line.field == "share" else result.row.get(line.field)


def cell(result: Result, line: Line, value: float | None, wins: bool) -> str:
    """A value with its full digits for those who stay on it; dots while it is being measured."""
    if value is None:
        waits = line.field in SLOW and line.field not in result.row and result.codec != ORIGINAL
        return f"<td>{'<span class=waits>measuring</span>' if waits else '-'}</td>"
    exact = f"{value:,d} bytes" if line.field == "bytes" else repr(value)
    return f'<td{" class=wins" if wins else ""} title="{exact}" data-field="{line.field}">{line.text(value)}</td>'


def winner(line: Line, values: Sequence[float | None]) -> int | None:
    """Which of two values is the better one; none where a reader sees no difference."""
    if None in values or line.text(values[0]) == line.text(values[1]):
        return None
    return int(line.better * (values[1] - values[0]) > 0)


def table(left: Result, right: Result, original_bytes: int) -> str:
    """The figures of both sides around their titles, the better one of each pair marked."""
    sides, rows = (left, right), []
    contest = ORIGINAL not in (left.codec, right.codec)
    for line in LINES:
        values = [value_of(side, line, original_bytes) for side in sides]
        best = winner(line, values) if contest else None
        cells = [cell(side, line, values[i], best == i) for i, side in enumerate(sides)]
        rows.append(f'<tr>{cells[0]}<th title="{escape(line.note)}">{line.title}</th>{cells[1]}</tr>')
    return (
        f"<table class=figures><thead><tr><td>{escape(title(left))}</td><th></th><td>{escape(title(right))}</td></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table>"
    )


def verdict(left: Result, right: Result) -> str:
    """One sentence for someone who reads no tables; nothing beside the original."""
    if ORIGINAL in (left.codec, right.codec):
        return ""
    less, more = sorted((left, right), key=lambda result: result.row["bytes"])
    names = [f"<b>{escape(list_codecs()[result.codec])}</b>" for result in (less, more)]
    share = 1 - less.row["bytes"] / more.row["bytes"]
    smaller = f"{names[0]} is {share:.0%} smaller" if share > SAME_SHARE else ""
    qualities = [result.row.get("psnr-rgb") for result in (less, more)]
    if None in qualities:  # one of them has lost nothing
        return f"{smaller or 'Both files are about equally large'}."
    gap = qualities[0] - qualities[1]
    if abs(gap) < SAME_PSNR:
        return f"{smaller or 'Both files are about equally large'}, and both are equally near to the original."
    nearer = f"{'clearly ' if abs(gap) >= CLEAR_PSNR else ''}nearer to the original ({abs(gap):.2f} dB)"
    if not smaller:
        return f"At about the same size, {names[gap < 0]} is {nearer}."
    return f"{smaller} and {nearer}." if gap > 0 else f"{smaller}, {names[1]} {nearer}."


def facts(*parts: str) -> str:
    """A line about a picture, its name first."""
    name, *others = map(escape, parts)
    return " · ".join([f"<b>{name}</b>", *others])


def file_facts(name: str, decoder: Decoder) -> str:
    """What the header of a .pixa file says."""
    info = decoder.info()
    kind = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGB and alpha"}[info["channels"]]
    model = f"model {info['model']} ({info['model_hash']})"
    size = f"{info['width']} x {info['height']}, {kind}"
    return facts(
        name, size, f"{info['bytes']:,} bytes, {info['bpp']} bits a pixel", f"quality {info['quality']:g}", model
    )


def file_parts(decoder: Decoder, bits: np.ndarray) -> str:
    """The chunks of a .pixa file in order; of tiles where they lie and what they spend."""
    areas = tile_places(decoder)
    rows = []
    for number, chunk in enumerate(decoder.chunks, 1):
        place = rate = ""
        if chunk.type == ChunkType.TILE:
            down, across = next(areas)
            inside = [min(s.stop * STRIDE, side) - s.start * STRIDE
                      for s, side in ((across, decoder.width), (down, decoder.height))]  # fmt: skip
            place = f"{inside[0]} x {inside[1]} pixels at {across.start * STRIDE}, {down.start * STRIDE}"
            rate = f"{bits[down, across].sum() / (inside[0] * inside[1]):.4f}"
        rows.append((number, chunk_name(chunk.type), f"{len(chunk.payload):,}", place, rate))
    return rows_table(("", "chunk", "bytes", "place", "bits a pixel"), rows)


def progress(done: int, total: int, failures: Sequence[str]) -> str:
    """How far a measuring is, and what went wrong."""
    return "<br>".join([f"{done} of {total} files", *map(escape, failures)])


def rows_table(header: Sequence[str], rows: Iterable[Sequence[object]], kind: str = "plain") -> str:
    """An HTML table; every cell is escaped."""
    line = lambda cells, tag: "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells)
    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{line(header, "th")}</tr></thead><tbody>{body}</tbody></table>'
