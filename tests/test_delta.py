"""Files told by others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixa.bitstream.delta import SHORTEST, read_delta, write_delta

blocks = st.lists(st.sampled_from([bytes(range(100)), bytes(range(100, 255)), b"\0" * 70, b"ab", b""]), max_size=6)


@given(blocks.map(b"".join), blocks.map(b"".join))
def test_every_file_comes_back(data, source):
    assert read_delta(*write_delta(data, source), source) == data


@pytest.mark.parametrize("shift", [0, 1, SHORTEST - 1])
def test_what_is_there_already_is_not_told_again(shift):
    rows = np.random.default_rng(1).integers(0, 256, (20, 300), np.uint8)
    source, data = b"x" * shift + rows.tobytes(), b"new" + rows[::-1].tobytes() + b"end"
    runs, own = write_delta(data, source)
    assert own.tobytes() == b"newend"
    assert len(runs) == 22
