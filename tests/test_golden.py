"""Files that must decode for ever to the same symbols and pictures, and files that must be refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pixa import Decoder, errors
from pixa.models.registry import find_model, list_models
from tests.support.golden_files import ERRORS, EXPECTED, EXPECTED_ERRORS, FOLDERS, GOLDEN, expectations, read


@pytest.mark.parametrize("folder", [*FOLDERS, ERRORS], ids=lambda folder: folder.name)
def test_every_file_has_an_expectation_and_a_description(folder):
    names = set(expectations(folder))
    assert {path.stem for path in folder.glob("*.pixa")} == names
    described = (GOLDEN / "README.md").read_text()
    assert all(f"| {name}.pixa |" in described for name in names)


def test_every_generation_of_the_models_of_pictures_has_files():
    found = {name: Decoder(read(name)).model for name in EXPECTED}
    default = find_model("fast")
    assert {model for name, model in found.items() if "/" not in name} == {f"fast.{default.tag}"}
    assert all(found[name] == name.partition("/")[0] for name in found if "/" in name)
    pictures = [entry for entry in list_models() if entry.coding == "latents"]
    assert set(found.values()) == {f"{entry.name}.{entry.tag}" for entry in pictures}


@pytest.mark.parametrize("name", EXPECTED)
class TestGolden:
    def test_symbols_are_exact(self, name):
        assert Decoder(read(name)).symbols_sha256() == EXPECTED[name]["symbols_sha256"]

    def test_picture_is_within_tolerance(self, name):
        picture = Decoder(read(name)).picture()
        with Image.open(GOLDEN / f"{name}.png") as image:
            expected = np.atleast_3d(np.array(image))
        assert picture.samples.shape == expected.shape
        difference = picture.samples.astype(float) - expected
        assert np.abs(difference).max() <= 2
        assert np.sqrt(np.square(difference).mean()) <= 0.5
        if picture.alpha is not None:
            assert np.array_equal(picture.alpha, expected[:, :, -1])

    def test_metadata_is_kept_byte_for_byte(self, name):
        metadata = Decoder(read(name)).metadata
        assert {kind: value.hex() for kind, value in metadata.items()} == EXPECTED[name]["metadata"]

    def test_limit_on_pixels_is_kept_to_the_pixel(self, name):
        head = Decoder(read(name)).head
        pixels = head.width * head.height
        assert Decoder(read(name), max_pixels=pixels).head == head
        with pytest.raises(errors.LimitExceeded):
            Decoder(read(name), max_pixels=pixels - 1)


@pytest.mark.parametrize("name", EXPECTED_ERRORS)
def test_broken_file_is_refused_by_name(name):
    with pytest.raises(errors.PixaError) as caught:
        Decoder((ERRORS / f"{name}.pixa").read_bytes()).picture()
    assert type(caught.value).__name__ == EXPECTED_ERRORS[name]
    assert str(caught.value)
