"""The tab that decodes a .pixa file and shows what is in it."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from pixa import Decoder
from pixa.app.page import figures
from pixa.app.page.comparison import write_png
from pixa.app.page.desk import discard, keep, plain_words
from pixa.app.page.heatmap import bit_map, bits_scale, block_bits
from pixa.app.page.picture_tab import EVENT, PRIVATE
from pixa.app.page.uploads import MAX_PIXELS, Upload, read_upload
from pixa.app.page.viewer import view, viewer
from pixa.bitstream.packets import is_video
from pixa.errors import UnsupportedInput

HINT = "Drop a .pixa file, or choose “Look inside” under a picture."


def build(pixa_file: gr.State) -> None:
    """Lay the tab out and connect it; whoever sets the state `pixa_file` is shown its content."""
    with gr.Row():
        drop = gr.File(label="Drop or choose a .pixa file", height=120, elem_id="drop-pixa", scale=3)
        png = gr.DownloadButton("Decoded as PNG", elem_id="png-inspect", scale=1, interactive=False)
    facts = gr.HTML(HINT, elem_id="inspected")
    pictures = viewer("inspector")
    scale = gr.HTML(elem_classes="progress-line")
    parts = gr.HTML(elem_id="parts")
    drop.upload(take, drop, [pixa_file, drop], **EVENT).failure(lambda: None, None, drop, queue=False, **PRIVATE)
    pixa_file.change(inspect, pixa_file, [facts, pictures, scale, parts, png], show_progress_on=pictures, **EVENT)


def take(path: str) -> tuple:
    with plain_words():
        try:
            return read_upload(path), None
        finally:
            discard(path)


def inspect(upload: Upload | None, request: gr.Request) -> tuple:
    """The picture beside its bits, what the header says, and the parts of the file."""
    if upload is None:
        return (gr.skip(),) * 5
    with plain_words():
        if is_video(upload.data):
            raise UnsupportedInput(f"{upload.name} is a video: `pixa info` and `pixa decode` take it")
        decoder = Decoder(upload.data, max_pixels=MAX_PIXELS)
        samples = decoder.picture().samples
        bits = block_bits(decoder)
    picture = keep(
        request, f"{Path(upload.name).stem}.png", write_png(samples if samples.shape[2] > 1 else samples[:, :, 0])
    )
    map_file = keep(request, "bits.png", write_png(bit_map(bits, decoder.height, decoder.width)))
    value = view((picture, map_file), ("Decoded", "Bits of each 16x16 block"), decoder.width, decoder.height)
    return (
        figures.file_facts(upload.name, decoder),
        value,
        f"Bits: {bits_scale(bits)}.",
        figures.file_parts(decoder, bits),
        gr.DownloadButton(value=picture, interactive=True),
    )
