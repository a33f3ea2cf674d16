"""What a command says: results, one JSON object each if asked for, messages and a progress bar on standard error."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

BAR_AFTER, BAR_EVERY, BAR_WIDTH = 0.5, 0.1, 30  # seconds, seconds, characters


class Console:
    """The two streams of a command.

    Args:
        as_json: results are JSON objects on standard output, one a line.
        quiet: only errors and JSON.
        bar: show progress, where standard error is a terminal.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, bar: bool = True):
        self.as_json, self.quiet = as_json, quiet
        self.bar = bar and not quiet and sys.stderr.isatty()
        self.bar_shown = False

    def error(self, name: str | None, message: str, exit_code: int) -> None:
        """One line on standard error, and with JSON an object with "error" and "exit_code"."""
        message = " ".join(message.split())
        self.clear_bar()
        print(printable(f"pixa: {message}" if name is None else f"pixa: {name}: {message}"), file=sys.stderr)
        if self.as_json and name is not None:
            print(json.dumps({"input": name, "error": message, "exit_code": exit_code}))

    def warning(self, name: str, message: str) -> None:
        """One line on standard error, unless quiet."""
        self.clear_bar()
        if not self.quiet:
            print(printable(f"pixa: {name}: {message}"), file=sys.stderr)

    def result(self, record: dict, text: str) -> None:
        """What a command was asked for, on standard output."""
        self.clear_bar()
        if self.as_json:
            print(json.dumps(record), flush=True)
        elif not self.quiet:
            print(*map(printable, text.split("\n")), sep="\n", flush=True)

    def note(self, record: dict, text: str) -> None:
        """What a command has done: text on standard error, or JSON on standard output."""
        self.clear_bar()
        if self.as_json:
            self.result(record, text)
        elif not self.quiet:
            print(printable(text), file=sys.stderr)

    def progress(self, label: str) -> Callable[[int, int], None] | None:
        """A callback (done, total) that draws a bar once the work turns out to be long; None where none is shown."""
        if not self.bar:
            return None
        due = time.monotonic() + BAR_AFTER
        label = printable(os.path.basename(label))[-BAR_WIDTH:]

        def draw(done: int, total: int) -> None:
            nonlocal due
            if time.monotonic() < due:
                return
            due = time.monotonic() + BAR_EVERY
            filled = BAR_WIDTH * done // total
            line = f"\r{label} [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {100 * done // total}%"
            print(line, end="", file=sys.stderr, flush=True)
            self.bar_shown = True

        return draw

    def clear_bar(self) -> None:
        if self.bar_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self.bar_shown = False


def printable(text: str) -> str:
    """The text with what is no printable character escaped: control characters, bytes of names that are no UTF-8."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class FrameProgress:
    """A line with the frames done, frames a second and the time left, where the console shows bars."""

    def __init__(self, console: Console, label: str, total: int | None):
        self.console, self.total, self.done = console, total, 0
        self.label = printable(os.path.basename(label))[-30:]
        self.start = self.shown = time.monotonic()

    def __call__(self) -> None:
        """Count a frame."""
        self.done += 1
        now = time.monotonic()
        if not self.console.bar or now < self.shown + 0.2:
            return
        self.shown = now
        fps = self.done / max(now - self.start, 1e-9)
        line = f"{self.label} frame {self.done}"
        if self.total:
            left = round(max(self.total - self.done, 0) / fps)
            line += f" of {self.total}, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        print(f"\r\x1b[K{line}, {fps:.1f} fps", end="", file=sys.stderr, flush=True)
        self.console.bar_shown = True
