"""Files of tokens that must decode for ever to the same symbols and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixa import Decoder
from tests.vqgan.test_exactness import RUNTIMES

GOLDEN = Path(__file__).parents[1] / "golden" / "tokens"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def test_every_file_has_an_expectation():
    assert {path.stem for path in GOLDEN.glob("*.pixa")} == EXPECTED.keys()


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
