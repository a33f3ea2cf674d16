"""Where the files lie that a visitor is shown, for as long as the visit lasts."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder

from pixa.errors import PixaError

KEPT_FILES = 24
NUMBERS = count()


def folder_of(request: gr.Request) -> Path:
    """The folder of a session, in the one that Gradio serves."""
    name = hashlib.sha256(str(request.session_hash).encode()).hexdigest()[:24]
    return Path(get_upload_folder()) / f"desk-{name}"


def keep(request: gr.Request, name: str, data: bytes) -> str:
    """Write a file for a visitor to see or take away; the oldest of more than `KEPT_FILES` go.

    Args:
        name: what it is called when it is downloaded.
    """
    folder = folder_of(request)
    place = folder / f"{next(NUMBERS):08d}"
    place.mkdir(parents=True)
    path = place / re.sub(r"[^\w.@-]+", "_", name)[-100:]
    path.write_bytes(data)
    for old in sorted(folder.iterdir())[:-KEPT_FILES]:
        shutil.rmtree(old, ignore_errors=True)
    return str(path)


def clear(request: gr.Request) -> None:
    """Remove what a visitor has left."""
    shutil.rmtree(folder_of(request), ignore_errors=True)


def discard(paths: str | list[str] | None) -> None:
    """Remove uploads that have been read."""
    for path in [paths] if isinstance(paths, str) else paths or []:
        if os.path.realpath(path).startswith(os.path.realpath(get_upload_folder()) + os.sep):
            Path(path).unlink(missing_ok=True)


@contextmanager
def plain_words() -> Iterator[None]:
    """Tell a visitor what is wrong instead of showing a traceback."""
    try:
        yield
    except PixaError as error:
        raise gr.Error(str(error), title="This does not work", duration=15, print_exception=False) from error
    except MemoryError as error:
        raise gr.Error("There is not enough memory for this", duration=15, print_exception=False) from error
