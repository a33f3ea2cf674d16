"""Shared fixtures: natural pictures and the shipped model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixa.cli import main
from pixa.models.registry import find_model, list_models
from pixa.runtime.model import OnnxModel, load_model
from tests.support.browser import launch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of torch cost more than they bring on pictures this small
SAMPLES = Path(__file__).parents[1] / "app" / "samples"


def without_silence(report: pytest.TestReport | pytest.CollectReport) -> pytest.TestReport | pytest.CollectReport:
    """Where CI is set everything is installed, so a test that was skipped has failed."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"no test may be skipped where CI is set: {report.longrepr[2]}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return without_silence((yield))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    return report if item.get_closest_marker("outside_data") else without_silence(report)


def sample(name: str) -> np.ndarray:
    """A bundled photograph, (H, W, 3) uint8, read-only."""
    with Image.open(SAMPLES / name) as image:
        pixels = np.array(image.convert("RGB"))
    pixels.setflags(write=False)
    return pixels


@pytest.fixture(scope="session")
def coffee() -> np.ndarray:
    """A photograph, (400, 600, 3)."""
    return sample("coffee.png")


@pytest.fixture(scope="session")
def photo(coffee: np.ndarray) -> np.ndarray:
    """A crop of a photograph with edges, texture and flat parts, (256, 320, 3)."""
    return coffee[100:356, 200:520]


@pytest.fixture(scope="session")
def chelsea() -> np.ndarray:
    """A photograph, (300, 451, 3)."""
    return sample("chelsea.png")


@pytest.fixture(scope="session")
def model() -> OnnxModel:
    """The shipped default model, on one thread."""
    return load_model(find_model("fast"), 1)


@pytest.fixture
def run(capsysbinary):
    """Runs a command line: (exit code, standard output, lines on standard error)."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsysbinary.readouterr()
        return code, out, err.decode().splitlines()

    return run


@pytest.fixture
def install_models(monkeypatch) -> Iterator[Callable[[Path], None]]:
    """Puts the models of a folder in the place of the shipped ones."""

    def install(folder: Path) -> None:
        monkeypatch.setattr("pixa.models.registry.weights_folder", lambda: folder)
        list_models.cache_clear()

    yield install
    list_models.cache_clear()


@pytest.fixture
def installed(folder, install_models):
    """Makes the models in `folder`, a fixture of the test's own, the only ones there are."""
    install_models(folder)


@pytest.fixture(scope="module")  # its event loop runs as long as it does, beside which no other can
def driver():
    """Playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def browser(driver):
    """Chromium."""
    browser = launch(driver)
    yield browser
    browser.close()
