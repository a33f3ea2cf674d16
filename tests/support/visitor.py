"""A visitor of the page: a tab of a browser, and what a person does and sees there."""

from __future__ import annotations

import io
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image
from playwright.sync_api import TimeoutError

SHOWN, MESSAGE = "[data-shown]", ".toast-body"
PATIENCE = 180  # seconds; machines that run tests may be busy


def png(samples):
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "PNG")
    return {"name": "photo.png", "mimeType": "image/png", "buffer": file.getvalue()}


class Visitor:
    """One visitor's tab, with what it asked the network for and what went wrong in it."""

    def __init__(self, browser, address, width=1300, height=1000):
        self.tab = browser.new_page(viewport={"width": width, "height": height})
        self.tab.set_default_timeout(1000 * PATIENCE)
        self.requests, self.errors = [], []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.goto(address)
        self.tab.wait_for_selector(f"#viewer {SHOWN}, #viewer{SHOWN}, {MESSAGE}")
        self.assert_no_message()

    def shown(self, viewer="viewer"):
        """The two pictures in a viewer, as the browser got them."""
        for _ in range(100):
            paths = self.tab.get_attribute(f"#{viewer} {SHOWN}, #{viewer}{SHOWN}", "data-shown").split(" ")
            sources = self.tab.eval_on_selector_all(f"#{viewer} img", "images => images.map((image) => image.src)")
            if [source.endswith(quote(path)) for source, path in zip(sources, paths, strict=True)] == [True, True]:
                break
            self.tab.wait_for_timeout(100)
        else:
            raise AssertionError(f"the viewer says {paths} and shows {sources}")
        answers = [self.tab.request.get(source) for source in sources]
        assert [answer.headers["content-type"] for answer in answers] == ["image/png"] * 2
        return [np.asarray(Image.open(io.BytesIO(answer.body()))) for answer in answers]

    def mark(self, viewer="viewer"):
        """What a viewer shows now, for `wait`."""
        node = f"#{viewer} {SHOWN}, #{viewer}{SHOWN}"
        return node, self.tab.get_attribute(node, "data-shown") if self.tab.query_selector(node) else ""

    def wait(self, mark):
        """Until a viewer shows something else. Every figure of it is on the page by then, but for the slow ones."""
        script = """([node, old, message]) => {
            const n = document.querySelector(node);
            return (n && n.dataset.shown != old) || document.querySelector(message);
        }"""
        self.tab.wait_for_function(script, arg=[*mark, MESSAGE])
        self.assert_no_message()

    def assert_no_message(self):
        """No message of an error is on the screen."""
        assert self.tab.locator(MESSAGE).all_inner_texts() == []

    def after(self, action, viewer="viewer"):
        """Do something that brings new pictures once, and wait for them."""
        mark = self.mark(viewer)
        action()
        self.wait(mark)

    def hand_in(self, file, drop="#drop"):
        self.tab.set_input_files(f"{drop} input[type=file]", file)

    def set_quality(self, side, value):
        self.tab.fill(f"#quality-{side} input[type=number]", str(value))
        self.tab.locator(f"#quality-{side} input[type=number]").blur()

    def pick(self, side, codec):
        self.tab.click(f"#codec-{side} input")
        self.tab.get_by_role("option", name=codec, exact=True).click()

    def lock(self, name):
        self.tab.locator("#lock").get_by_label(name).check()

    def figure(self, field):
        """(left, right) values of the table with all their digits."""
        cells = f"#figures [data-field='{field}']"
        titles = self.tab.eval_on_selector_all(cells, "cells => cells.map((cell) => cell.title)")
        return [float(title.split()[0].replace(",", "")) for title in titles if title]

    def reads(self, place, *words):
        """Wait until all of these words stand somewhere; while something is drawn anew nothing does."""
        script = "([n, words]) => words.every((w) => document.querySelector(n)?.innerText.includes(w))"
        self.tab.wait_for_function(script, arg=[place, words])

    def until(self, field, holds):
        """The values of a figure as soon as something holds for them."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            values = self.figure(field)
            if len(values) == 2 and holds(*values):
                return values
            self.tab.wait_for_timeout(200)
        raise AssertionError(f"{field} stays at {values}")

    def download(self, button):
        with self.tab.expect_download() as download:
            self.tab.click(button)
        return download.value.suggested_filename, Path(download.value.path()).read_bytes()

    def press(self, button, done):
        """Click until something has come of it: a button waits for the server to confirm what was pressed before."""
        end = time.monotonic() + PATIENCE
        while not done() and time.monotonic() < end:
            self.tab.click(button)
            self.tab.wait_for_timeout(1000)

    def choose_tab(self, name, content):
        """Also one for which a narrow screen has no room, which waits behind a button."""
        tab, menu = self.tab.get_by_role("tab", name=name, exact=True), self.tab.locator(".overflow-menu > button")
        end = time.monotonic() + PATIENCE
        while not self.tab.is_visible(content) and time.monotonic() < end:
            with suppress(TimeoutError):  # the tabs are still finding their places
                if not tab.is_visible():
                    menu.click(timeout=2000)
                    tab = self.tab.locator(".overflow-dropdown").get_by_text(name)
                tab.click(timeout=2000)
                self.tab.wait_for_selector(content, timeout=2000)

    def told(self):
        """The message on the screen, which is then closed."""
        toast = self.tab.locator(MESSAGE).first
        text = toast.inner_text()
        toast.get_by_test_id("toast-close").click()
        toast.wait_for(state="detached")
        return text
