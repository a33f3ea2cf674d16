"""The tab that takes many pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator

import gradio as gr

from pixa.app.page import batch, figures
from pixa.app.page.comparison import list_codecs
from pixa.app.page.curves_tab import LONG
from pixa.app.page.desk import discard, keep, plain_words
from pixa.app.page.picture_tab import PRIVATE
from pixa.app.page.uploads import MAX_FILES, SUFFIXES, read_batch


def build() -> None:
    """Lay the tab out and connect it."""
    models = [(title, key) for key, title in list_codecs().items() if key.startswith("pixa:")]
    with gr.Row():
        files = gr.File(label=f"Up to {MAX_FILES} pictures, or a .zip of them", file_count="multiple", height=150,
                        file_types=[*SUFFIXES, ".zip"], elem_id="batch-files", scale=2)  # fmt: skip
        folder = gr.File(label="or a folder", file_count="directory", height=150, elem_id="batch-folder", scale=1)
        with gr.Column(scale=1, min_width=200):
            model = gr.Dropdown(models, value="pixa:fast", label="Model")
            quality = gr.Slider(0, 100, 60, step=1, label="Quality")
    with gr.Row():
        start = gr.Button("Compress them", variant="primary", elem_id="batch-start")
        stop = gr.Button("Stop", scale=0)
        result = gr.DownloadButton("Results as .zip", interactive=False, elem_id="batch-result")
    status = gr.HTML(elem_id="batch-status", elem_classes="progress-line")
    table = gr.HTML(elem_id="batch-table")
    inputs, outputs = [files, folder, model, quality], [status, table, result, files, folder]
    running = start.click(run, inputs, outputs, show_progress_on=status, **LONG)
    stop.click(lambda: "Stopped.", None, status, cancels=[running], queue=False, **PRIVATE)


def run(
    files: list[str] | None, folder: list[str] | None, codec: str, quality: float, request: gr.Request
) -> Iterator[tuple]:
    """The table, growing, and at last the archive; the uploads go."""
    paths = [*(files or []), *(folder or [])]
    rows: list[dict] = []
    archive = io.BytesIO()
    try:
        with plain_words():
            for rows in batch.encode_all(read_batch(paths), codec, quality, archive):
                table = figures.rows_table(batch.HEADER, map(batch.display, rows))
                yield f"{len(rows)} done …", table, gr.skip(), gr.skip(), gr.skip()
    finally:
        discard(paths)
    if not rows:
        raise gr.Error("There is no picture among these files.", print_exception=False)
    saved = gr.DownloadButton(value=keep(request, "pixa-results.zip", archive.getvalue()), interactive=True)
    yield batch.summary(rows), gr.skip(), saved, None, None
