"""Chromium, for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed: apt-get install chromium")


def launch(driver, options: Sequence[str] = ()):
    """A browser without a window, by a `Playwright`."""
    return driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *options])
