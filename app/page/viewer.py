"""The viewer: two pictures of one size under a slider, with zoom, as a component of Gradio."""

from __future__ import annotations

from importlib.resources import files

import gradio as gr

TEMPLATE = """\
<div class="stage" tabindex="0" aria-label="two pictures, compared: arrow keys move the edge, 0, 1 and 4 zoom">
  <div class="half"><img alt=""></div>
  <div class="half"><img alt=""></div>
  <span class="tag one"></span><span class="tag two"></span>
  <div class="handle" role="slider" aria-label="edge between the two" aria-valuemin="0" aria-valuemax="100"></div>
</div>
<div class="bar">
  <button data-split="1" title="only the left picture">◧ left</button>
  <button data-split="0.5">half</button>
  <button data-split="0" title="only the right picture">right ◨</button>
  <span class="space"></span>
  <button data-zoom="0">fit</button>
  <button data-zoom="1" title="one picture pixel is one screen pixel">1:1</button>
  <button data-zoom="4">4x</button>
  <output></output>
</div>
"""


def viewer(elem_id: str) -> gr.HTML:
    """A component that shows what `view` gives."""
    folder = files(__package__)
    return gr.HTML(
        html_template=TEMPLATE,
        css_template=folder.joinpath("viewer.css").read_text(),
        js_on_load=folder.joinpath("viewer.js").read_text(),
        elem_id=elem_id,
    )


def view(paths: tuple[str, str], titles: tuple[str, str], width: int, height: int) -> dict:
    """The value of a `viewer`.

    Args:
        paths: two PNG files of that size in the folder that Gradio serves.
    """
    sides = [{"path": path, "title": title} for path, title in zip(paths, titles, strict=True)]
    return {"sides": sides, "width": width, "height": height}
