"""Drawn pictures for training."""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image

from pixa.datasets import drawn


def test_writes_pictures_of_every_kind_that_a_seed_repeats(tmp_path, monkeypatch):
    for folder in ("one", "again"):
        words = ["drawn", str(tmp_path / folder), "--count", str(len(drawn.KINDS)), "--seed", "7"]
        monkeypatch.setattr(sys, "argv", words)
        drawn.main()
    one, again = (sorted((tmp_path / folder).iterdir()) for folder in ("one", "again"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in again]
    pictures = [np.asarray(Image.open(path)) for path in one]
    assert {picture.shape for picture in pictures} == {(drawn.SIDE, drawn.SIDE, 3)}
    colours = [len(np.unique(picture.reshape(-1, 3), axis=0)) for picture in pictures]
    assert min(colours) == 1 and max(colours) > 16
