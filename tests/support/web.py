"""The browser decoder in a browser: a server for its files, tabs that use it, and what they say of a picture."""

from __future__ import annotations

import functools
import http.server
import threading
from base64 import b64decode
from contextlib import contextmanager
from pathlib import Path

import numpy as np

DECODE = """async ({ bytes, options }) => {
    const { decode } = await import("./pixa.js");
    try {
        const { data, metadata, ...facts } = await decode(new Uint8Array(bytes), options);
        const samples = btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join(""));
        const kinds = Object.entries(metadata).map(([kind, value]) => [kind, [...value]]);
        return { ...facts, samples, metadata: Object.fromEntries(kinds) };
    } catch (error) {
        return { error: error.name, message: error.message };
    }
}"""
CANVAS = """(element) => {
    const canvas = element.shadowRoot.querySelector("canvas");
    const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return { width, height, samples: btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join("")) };
}"""
DROP = """([name, bytes]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], name));
    document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and remembers what was asked for, and how many bytes that was."""

    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }
    served: list

    def log_request(self, code="-", size="-"):
        path = Path(self.translate_path(self.path))
        self.served.append((self.path, path.stat().st_size if path.is_file() else 0))


@contextmanager
def serving(folder):
    """The address of a folder, and a list of (path, bytes) that grows."""
    handler = type("Served", (Handler,), {"served": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", handler.served
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def tab_of(browser):
    """A tab with an empty cache, in which nothing goes wrong unnoticed."""
    context, errors = browser.new_context(viewport={"width": 1000, "height": 900}), []
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield tab
    finally:
        context.close()
    assert errors == []


def decode(tab, data, **options):
    """What the package makes of a file; samples as (H, W, 4)."""
    return with_samples(tab.evaluate(DECODE, {"bytes": list(data), "options": options}))


def with_samples(answer):
    if "samples" in answer:
        samples = np.frombuffer(b64decode(answer["samples"]), np.uint8)
        answer["samples"] = samples.reshape(answer["height"], answer["width"], 4)
    return answer


def rgba(samples):
    """Samples (H, W, 1 to 4) as a browser has them."""
    colour = samples[:, :, : 1 if samples.shape[2] < 3 else 3]
    alpha = samples[:, :, -1:] if samples.shape[2] in (2, 4) else np.full_like(samples[:, :, :1], 255)
    return np.concatenate([np.broadcast_to(colour, (*colour.shape[:2], 3)), alpha], 2)


def difference(one, other):
    """The largest difference between samples of the same shape."""
    assert one.shape == other.shape
    return np.abs(one.astype(int) - other).max()


def show(tab, elements):
    """Put elements into the page and wait until each has sent an event: (type, message) of all."""
    script = """(html) => {
        document.body.innerHTML = html;
        return Promise.all([...document.querySelectorAll("pixa-img")].map((element) => new Promise((done) => {
            for (const type of ["load", "error"])
                element.addEventListener(type, ({ message }) => done([type, message]), { once: true });
        })));
    }"""
    return tab.evaluate(script, elements)
