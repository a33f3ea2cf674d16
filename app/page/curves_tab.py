"""The tab of rate-distortion curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import gradio as gr

from pixa.app.bench.curves import Curve
from pixa.app.page import figures, live_curves
from pixa.app.page.comparison import Result, Subject, list_codecs
from pixa.app.page.desk import keep, plain_words
from pixa.app.page.live_curves import FIRST, GROUPS, as_csv, as_json, draw, marks, measure_curves
from pixa.app.page.picture_tab import PRIVATE

HINT = """\
The picture of the first tab. Each point is a file, made and decoded now: further left is smaller, higher is nearer to
the original. BD-rate is how many percent more bytes a codec takes for the same nearness; rings are the files that the
first tab shows."""
LONG = PRIVATE | {"concurrency_id": "long", "concurrency_limit": 1}


def build(subject: gr.State, published: Sequence[Curve]) -> None:
    """Lay the tab out and connect it."""
    codecs = [(title, key) for key, title in list_codecs().items()]
    with gr.Row():
        chosen = gr.CheckboxGroup(
            codecs, value=[key for _, key in codecs], label="Codecs", scale=3, elem_id="curve-codecs"
        )
        metric = gr.Dropdown(list(GROUPS), value="PSNR", label="Metric", scale=1, min_width=140)
        points = gr.Slider(3, 9, 5, step=1, label="Points a curve", scale=1, min_width=140, elem_id="curve-points")
        anchor = gr.Dropdown(codecs, value="webp", label="BD-rate against", scale=1, min_width=140)
    with gr.Row():
        start = gr.Button("Draw the curves of this picture", variant="primary", elem_id="curve-start")
        stop = gr.Button("Stop", elem_id="curve-stop", scale=0)
    status = gr.HTML(HINT, elem_id="curve-status", elem_classes="progress-line")
    with gr.Row():
        with gr.Column():
            gr.Markdown("#### This picture")
            plot = gr.HTML(elem_id="curve-plot", elem_classes="plot")
            table = gr.HTML(elem_id="curve-table")
            with gr.Row():
                files = [gr.DownloadButton(kind, size="sm", interactive=False, elem_id=f"curve-{kind.lower()}")
                         for kind in ("JSON", "CSV", "PNG")]  # fmt: skip
        with gr.Column():
            gr.Markdown("#### The 24 Kodak pictures, means")
            kodak = [*live_curves.stored_curves(), *published]
            gr.HTML(svg(kodak, "psnr-rgb"), elem_id="kodak-plot", elem_classes="plot")
            gr.HTML(bd_table(kodak, "webp", "psnr-rgb"), elem_id="kodak-table")

    def run(
        subject: Subject | None, names: list[str], metric: str, points: int, anchor: str, request: gr.Request
    ) -> Iterator[tuple]:
        if subject is None or not names:
            raise gr.Error("Choose a picture and at least one codec first.", print_exception=False)
        group, field = GROUPS[metric], FIRST[GROUPS[metric]]
        current = list(subject.shown)
        with plain_words():
            for step in measure_curves(subject, names, int(points), group):
                shown = marks(with_metric(subject, current, group), field)
                line = figures.progress(step.done, step.total, step.failures)
                yield line, svg(step.curves, field, shown), bd_table(step.curves, anchor, field), *(gr.skip(),) * 3
        png = draw(step.curves, field, shown, subject.name, format="png", transparent=False)
        contents = as_json(step.curves, subject.name), as_csv(step.curves), png
        saved = [keep(request, f"{subject.stem}-curves.{suffix}", content)
                 for suffix, content in zip(("json", "csv", "png"), contents, strict=True)]  # fmt: skip
        line = figures.progress(step.done, step.total, step.failures)
        yield line, gr.skip(), gr.skip(), *(gr.DownloadButton(value=path, interactive=True) for path in saved)

    inputs = [subject, chosen, metric, points, anchor]
    running = start.click(run, inputs, [status, plot, table, *files], show_progress_on=status, **LONG)
    stop.click(lambda: "Stopped.", None, status, cancels=[running], queue=False, **PRIVATE)


def with_metric(subject: Subject, results: Sequence[Result], group: str) -> Sequence[Result]:
    for result in results:
        subject.measure(result, group)
    return results


def svg(curves: Sequence[Curve], metric: str, shown: Sequence = ()) -> str:
    picture = draw(curves, metric, shown).decode()
    return picture[picture.index("<svg") :]


def bd_table(curves: Sequence[Curve], anchor: str, metric: str) -> str:
    rows = live_curves.bd_rows(curves, anchor, metric)
    title = f"BD-rate against {list_codecs().get(anchor, anchor)} (overlap)"
    return figures.rows_table(("codec", title), rows) if rows else ""
