"""Files of tokens that must decode for ever to the same symbols and pictures: those of the last model, and in folders
named after them those of models before it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixa import Decoder
from pixa.models.registry import list_models
from tests.vqgan.test_exactness import RUNTIMES

GOLDEN = Path(__file__).parents[1] / "golden" / "tokens"
FOLDERS = [GOLDEN, *sorted(path.parent for path in GOLDEN.glob("*/expected.json"))]
EXPECTED = {
    (folder / name).relative_to(GOLDEN).as_posix(): found
    for folder in FOLDERS
    for name, found in json.loads((folder / "expected.json").read_text()).items()
}


def test_every_file_has_an_expectation():
    found = {path.relative_to(GOLDEN).with_suffix("").as_posix() for path in GOLDEN.rglob("*.pixa")}
    assert found == EXPECTED.keys()


def test_every_shipped_model_has_files():
    models = {Decoder((GOLDEN / f"{name}.pixa").read_bytes()).nets.entry for name in EXPECTED}
    assert models == {entry for entry in list_models() if entry.coding == "tokens"}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_symbols_are_exact_and_the_picture_is_within_tolerance(name, runtime):
    decoder = Decoder((GOLDEN / f"{name}.pixa").read_bytes())
    decoder.nets = RUNTIMES[runtime](decoder.nets.entry)
    assert decoder.symbols_sha256() == EXPECTED[name]["symbols_sha256"]
    picture = decoder.picture()
    with Image.open(GOLDEN / f"{name}.png") as image:
        expected = np.atleast_3d(np.array(image))
    difference = picture.samples.astype(float) - expected
    assert np.abs(difference).max() <= 2
    assert np.sqrt(np.square(difference).mean()) <= 0.5
    if picture.alpha is not None:
        assert np.array_equal(picture.alpha, expected[:, :, -1])
