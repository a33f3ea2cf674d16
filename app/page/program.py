"""`pixa demo`: a page on which people compare codecs on their own pictures."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import gradio as gr
import numpy as np

from pixa.app.bench.codecs import find_codec
from pixa.app.bench.curves import Curve
from pixa.app.page import batch_tab, curves_tab, desk, inspect_tab, picture_tab, video_tab
from pixa.app.page.comparison import list_codecs
from pixa.app.page.uploads import MAX_BYTES
from pixa.errors import PixaError

LOOPBACK = "127.0.0.1"
SESSIONS = 16  # that keep their pictures in memory
WAITING = 24  # jobs in the queue; more are asked to come again
TEMPORARY = (300, 3600)  # look every so many seconds, remove what is older
HEADLINE = """\
<h1>pixa</h1><p>Small picture files, by a neural network. Hand in a picture and drag the edge: another format left, pixa
right, at equal size. Nothing leaves this machine.</p>"""
PASTE = """\
document.addEventListener("paste", (event) => {
  const file = event.clipboardData?.files[0];
  const input = document.querySelector("#drop input[type=file]");
  if (!file || !input) return;
  const transfer = new DataTransfer();
  transfer.items.add(file);
  input.files = transfer.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
});
"""
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none from the network


def build(published: Sequence[Curve] = ()) -> gr.Blocks:
    """The page.

    Args:
        published: curves to draw beside the stored ones.
    """
    with gr.Blocks(title="pixa", analytics_enabled=False, delete_cache=TEMPORARY) as page:
        pixa_file = gr.State(None, time_to_live=TEMPORARY[1])
        gr.HTML(HEADLINE, elem_id="headline")
        with gr.Tabs() as tabs:
            with gr.Tab("Picture", id="picture"):
                shown = picture_tab.build(page, tabs, pixa_file)
            with gr.Tab("Curves", id="curves"):
                curves_tab.build(shown.subject, published)
            with gr.Tab("Video", id="video"):
                video_tab.build()
            with gr.Tab("Batch", id="batch"):
                batch_tab.build()
            with gr.Tab("Inside a file", id="inspect"):
                inspect_tab.build(pixa_file)
        page.unload(desk.clear)
    return page.queue(max_size=WAITING, default_concurrency_limit=1)


def warm_up() -> None:
    """Load every codec, so that the first visitor does not wait for it."""
    black = np.zeros((64, 64, 3), np.uint8)
    for name in list_codecs():
        codec = find_codec(name)
        codec.decode(codec.encode(black, codec.qualities[0]))


def launch(page: gr.Blocks, host: str, port: int | None, browser: bool = False, block: bool = True) -> str:
    """Serve the page; returns its address.

    Raises:
        OSError: the port is taken.
    """
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        prevent_thread_lock=not block,
        share=False,
        quiet=True,
        show_error=True,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        max_file_size=MAX_BYTES,
        state_session_capacity=SESSIONS,
        theme=gr.themes.Default(primary_hue="emerald", neutral_hue="slate", **FONTS),
        css=files(__package__).joinpath("page.css").read_text(),
        js=PASTE,
    )
    return address


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="pixa demo", description="Serve a page that compares codecs on pictures of your own."
    )
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    parser.add_argument("--open", action="store_true", help="open a browser")
    parser.add_argument("--curves", nargs="+", type=Path, default=[], metavar="FILE", help="published curves to draw")
    arguments = parser.parse_args(argv)
    try:
        published = [Curve.read(path) for path in arguments.curves]
        with tempfile.TemporaryDirectory(prefix="pixa-demo-") as folder:
            os.environ["GRADIO_TEMP_DIR"] = folder
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: with nothing left behind
            page = build(published)
            warm_up()
            address = launch(page, arguments.host, arguments.port, arguments.open, block=False)
            print(f"pixa demo: {address} (stop with Ctrl-C)", file=sys.stderr)
            page.block_thread()
    except (PixaError, OSError) as error:
        print(f"pixa demo: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
