"""The tab that compares video codecs on a short clip."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import gradio as gr

from pixa.app.bench.measurements import read_picture
from pixa.app.page import clips, figures
from pixa.app.page.clips import (
    RIVALS,
    PixaVideo,
    beside,
    code,
    draw_frames,
    list_video_models,
    pan,
    read_clip,
    within_size,
)
from pixa.app.page.curves_tab import LONG
from pixa.app.page.desk import keep, plain_words
from pixa.app.page.picture_tab import PRIVATE, SAMPLES

HEADER = ("codec", "bytes", "kbit/s", "mean PSNR", "encoded frames/s", "decoded frames/s")
HINT = (
    f"The first {clips.MAX_FRAMES} frames are taken, reduced to {clips.MAX_FRAME_PIXELS // 1000} thousand pixels. "
    "Without a clip, a pan over a photograph is used. The player's copy is coded once more, all but without loss; "
    "figures are of the frames themselves."
)


def build() -> None:
    """Lay the tab out and connect it."""
    if not find_spec("av"):
        gr.Markdown("This tab needs FFmpeg's libraries: `pip install 'pixa[video]'`")
        return
    with gr.Row():
        drop = gr.File(label="A short clip", height=130, elem_id="clip", scale=2)
        with gr.Column(scale=2):
            models = [(title, name) for name, title in list_video_models().items()]
            model = gr.Dropdown(models, value=models[0][1], label="pixa's model", elem_id="clip-model")
            quality = gr.Slider(0, 100, 40, step=1, label="Quality; the others get as many bytes")
        with gr.Column(scale=1, min_width=180):
            rival = gr.Dropdown(list(RIVALS), value="x265", label="Beside pixa")
            start = gr.Button("Compare", variant="primary", elem_id="clip-start")
            stop = gr.Button("Stop")
    status = gr.HTML(HINT, elem_classes="progress-line", elem_id="clip-status")
    player = gr.Video(label="Side by side", interactive=False, loop=True, elem_id="clip-player")
    table = gr.HTML(elem_id="clip-table")
    plot = gr.HTML(elem_classes="plot")
    files = gr.File(label="Files", interactive=False, file_count="multiple", height=150, elem_id="clip-files")
    running = start.click(
        run, [drop, model, quality, rival], [status, player, table, plot, files], show_progress_on=status, **LONG
    )
    drop.clear(lambda: HINT, None, status, queue=False, **PRIVATE)
    stop.click(lambda: "Stopped.", None, status, cancels=[running], queue=False, **PRIVATE)


def run(path: str | None, model: str, quality: float, rival: str, request: gr.Request) -> Iterator[tuple]:
    """The table and plot, growing codec by codec, then the player and the files."""
    with plain_words():
        clip = read_clip(path) if path else pan(read_picture(SAMPLES[0]))
        pixa = PixaVideo(model)
        coded = {pixa.title: code(pixa, clip, quality)}
        size = len(coded[pixa.title].data)
        order = sorted(RIVALS, key=lambda name: name != rival)
        for name in order:
            yield progress(clip, coded, f"{RIVALS[name].title} looks for {size:,} bytes …")
            coded[RIVALS[name].title] = within_size(RIVALS[name], clip, size)
        left, right = coded[RIVALS[rival].title].frames, coded[pixa.title].frames
        video = keep(request, "beside.mp4", beside(left, right, clip.rate))
        saved = [keep(request, "clip.pixa", coded[pixa.title].data)]
        saved += [keep(request, f"clip-{name}.mkv", coded[RIVALS[name].title].data) for name in RIVALS]
    height, width = clip.frames[0].shape[:2]
    line = f"{len(clip.frames)} frames of {width} x {height}, {float(clip.rate):g} a second."
    status, _, table, plot, _ = progress(clip, coded, line)
    label = f"left {RIVALS[rival].title}, right {pixa.title}"
    yield status, gr.Video(video, label=label), table, plot, saved


def progress(clip: clips.Clip, coded: dict[str, clips.CodedClip], line: str) -> tuple:
    table = figures.rows_table(HEADER, clips.summarise(clip, coded))
    svg = draw_frames(clip, coded).decode()
    return line, gr.skip(), table, svg[svg.index("<svg") :], gr.skip()
