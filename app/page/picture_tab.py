"""The picture tab: two codecs side by side on a visitor's picture."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import gradio as gr
import numpy as np

import pixa
from pixa.app.page import figures
from pixa.app.page.comparison import (
    LOCKS,
    ORIGINAL,
    SAME_SIZE,
    Result,
    Subject,
    compare,
    list_codecs,
    suffix_of,
    write_png,
)
from pixa.app.page.desk import discard, keep, plain_words
from pixa.app.page.heatmap import bit_map, block_bits, error_map
from pixa.app.page.uploads import Upload, read_samples, read_upload
from pixa.app.page.viewer import view, viewer

SAMPLES = sorted((Path(__file__).parent.parent / "samples").glob("*.png"))
PICTURE, ERRORS, BITS = LAYERS = ("pictures", "errors", "bits (.pixa)")
FIRST_CODECS, FIRST_QUALITIES = ("jpeg", "pixa:fast"), (30, 40)
SLOW_METRICS = ("ms-ssim", "ssimulacra2")
SETTLE_SECONDS = 0.7
PRIVATE = {"api_visibility": "private"}
EVENT = PRIVATE | {"concurrency_id": "coding", "concurrency_limit": 1}


class Side(NamedTuple):
    """The controls of one side."""

    codec: gr.Dropdown
    quality: gr.Slider
    file: gr.DownloadButton
    png: gr.DownloadButton
    inside: gr.Button


class Shown(NamedTuple):
    """What other tabs use.

    Attributes:
        subject: a state that holds the `Subject`.
        pixa_file: a state that holds an `Upload` to look into.
    """

    subject: gr.State
    pixa_file: gr.State


def build_side(name: str, codec: str, quality: float) -> Side:
    codecs = [("Original", ORIGINAL), *((title, key) for key, title in list_codecs().items())]
    with gr.Column(elem_classes=f"side-{name}", min_width=260):
        picker = gr.Dropdown(codecs, value=codec, label=f"{name.title()} side", elem_id=f"codec-{name}")
        slider = gr.Slider(0, 100, quality, step=1, label="Quality", elem_id=f"quality-{name}")
        with gr.Row():
            file = gr.DownloadButton("File", size="sm", elem_id=f"file-{name}", min_width=80)
            png = gr.DownloadButton("PNG", size="sm", elem_id=f"png-{name}", min_width=80)
            inside = gr.Button("Look inside", size="sm", elem_id=f"inside-{name}", min_width=80)
    return Side(picker, slider, file, png, inside)


def build(page: gr.Blocks, tabs: gr.Tabs, pixa_file: gr.State) -> Shown:
    """Lay the tab out and connect it."""
    subject = gr.State(None, time_to_live=3600)
    with gr.Row(equal_height=True):
        drop = gr.File(label="Drop, paste or choose a picture or a .pixa file", height=100, elem_id="drop", scale=4)
        with gr.Column(min_width=170, scale=0, elem_id="samples"):
            samples = [gr.Button(f"Try {path.stem}", icon=str(path), size="sm") for path in SAMPLES]
    with gr.Row(elem_id="about"):
        facts = gr.HTML(elem_id="facts")
        verdict = gr.HTML(elem_id="verdict")
    pictures = viewer("viewer")
    layer = gr.Radio(LAYERS, value=PICTURE, show_label=False, container=False, elem_id="layer")
    with gr.Row(equal_height=True, elem_id="sides"):
        left = build_side("left", FIRST_CODECS[0], FIRST_QUALITIES[0])
        with gr.Column(min_width=170, scale=0):
            lock = gr.Radio(LOCKS, value=SAME_SIZE, label="Lock the sides at", elem_id="lock")
        right = build_side("right", FIRST_CODECS[1], FIRST_QUALITIES[1])
    table = gr.HTML(elem_id="figures")

    controls = [subject, left.codec, left.quality, right.codec, right.quality, lock, layer]
    outputs = [pictures, verdict, table, left.quality, right.quality, left.file, left.png, left.inside]
    outputs += [right.file, right.png, right.inside]

    def refresh(event: gr.events.Dependency, leader: int = 1) -> None:
        shown = event.success(show, [gr.State(leader), *controls], outputs, show_progress_on=pictures, **EVENT)
        measured = PRIVATE | {"concurrency_id": "metrics", "concurrency_limit": 1}
        measured |= {"show_progress": "hidden"}
        shown.success(measure, subject, table, **measured)

    taken = [subject, facts, drop, pixa_file, tabs]
    uploaded = drop.upload(take_upload, [drop, subject], taken, **EVENT)
    refresh(uploaded)
    uploaded.failure(lambda: None, None, drop, queue=False, **PRIVATE)
    refresh(page.load(partial(take_sample, SAMPLES[0]), subject, taken, show_progress="hidden", **EVENT))
    for button, path in zip(samples, SAMPLES, strict=True):
        refresh(button.click(partial(take_sample, path), subject, taken, show_progress="hidden", **EVENT))
    listen = {"show_progress": "hidden", "queue": False} | PRIVATE
    for number, side in enumerate((left, right)):
        refresh(side.quality.release(None, **listen), number)
        refresh(side.codec.select(None, **listen), 1 - number)
        side.inside.click(look_inside, [gr.State(number), subject], [pixa_file, tabs], **EVENT)
    for radio in (lock, layer):
        refresh(radio.input(None, **listen))
    return Shown(subject, pixa_file)


def take_upload(path: str, before: Subject | None) -> tuple:
    """A picture becomes the subject; a .pixa file goes to the tab that looks into it."""
    with plain_words():
        try:
            upload = read_upload(path)
        finally:
            discard(path)
        if upload.is_pixa:
            return gr.skip(), gr.skip(), None, upload, gr.Tabs(selected="inspect")
        return take(upload, before)


def take_sample(path: Path, before: Subject | None) -> tuple:
    return take(read_upload(path), before)


def take(upload: Upload, before: Subject | None) -> tuple:
    with plain_words():
        subject = Subject(upload.name, upload.data, read_samples(upload))
    if before:
        before.leave()
    height, width = subject.samples.shape[:2]
    facts = figures.facts(upload.name, f"{width} x {height}", figures.size_text(len(upload.data)))
    return subject, facts, None, gr.skip(), gr.skip()


def show(
    leader: int,
    subject: Subject | None,
    left_codec: str,
    left_quality: float,
    right_codec: str,
    right_quality: float,
    lock: str,
    layer: str,
    request: gr.Request,
) -> list:
    """Both sides as the outputs of `build` need them."""
    if subject is None:
        return gr.skip()
    with plain_words():
        chosen = (left_codec, left_quality), (right_codec, right_quality)
        results = compare(subject, *chosen, lock, leader)
        with ThreadPoolExecutor() as pool:
            contents = pool.map(attrgetter("png"), results)
        pngs = [
            keep(request, f"{label(subject, result)}.png", png) for result, png in zip(results, contents, strict=True)
        ]
        paths = pngs
        if layer != PICTURE:
            maps = [layer_of(subject, result, layer) for result in results]
            paths = [keep(request, "map.png", write_png(samples)) for samples in maps]
    height, width = subject.samples.shape[:2]
    value = view(tuple(paths), tuple(figures.title(result) for result in results), width, height)
    outputs = [value, figures.verdict(*results), figures.table(*results, len(subject.original.data))]
    outputs += [slider(result, quality) for result, (_, quality) in zip(results, chosen, strict=True)]
    for result, png in zip(results, pngs, strict=True):
        original = result.codec == ORIGINAL
        name = subject.name if original else label(subject, result) + suffix_of(result.codec)
        file = keep(request, name, result.data)
        size = figures.size_text(len(result.data))
        outputs += [
            gr.DownloadButton(f"{Path(name).suffix} · {size}", value=file),
            gr.DownloadButton(value=png),
            gr.Button(visible=result.codec.startswith("pixa:")),
        ]
    return outputs


def slider(result: Result, asked: float) -> gr.Slider:
    """What becomes of a side's slider: moved only by the lock, so that one in a visitor's hand stays there."""
    moved = {} if result.quality == asked else {"value": result.quality}
    return gr.Slider(interactive=False) if result.codec == ORIGINAL else gr.Slider(interactive=True, **moved)


def label(subject: Subject, result: Result) -> str:
    """Name of a result's file without its suffix."""
    if result.codec == ORIGINAL:
        return subject.stem
    return f"{subject.stem}-{result.codec.replace(':', '-')}-q{result.quality:g}"


def layer_of(subject: Subject, result: Result, layer: str) -> np.ndarray:
    """What the viewer shows of a side besides the picture itself; the picture where there is no such layer."""
    if layer == ERRORS:
        return error_map(subject.samples, result.decoded)
    if result.codec.startswith("pixa:"):
        return bit_map(block_bits(pixa.Decoder(result.data)), *result.decoded.shape[:2])
    return result.decoded


def measure(subject: Subject | None) -> Iterator[str]:
    """The table again after each slow metric, once a visitor has looked at a pair for a moment."""
    if subject is None:
        return
    shown = subject.shown
    time.sleep(SETTLE_SECONDS)
    if subject.shown is shown:
        with plain_words():
            for results in subject.measure_shown(SLOW_METRICS):
                yield figures.table(*results, len(subject.original.data))


def look_inside(number: int, subject: Subject | None) -> tuple:
    """A side's .pixa file to the tab that looks into it."""
    if subject is None:
        return gr.skip(), gr.skip()
    result = subject.shown[number]
    return Upload(label(subject, result) + suffix_of(result.codec), result.data), gr.Tabs(selected="inspect")
