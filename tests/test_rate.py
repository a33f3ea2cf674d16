"""The search for a level: whatever the curve, the level is the right one and is measured."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import pixa
from pixa.image.picture import ImageEncoder
from pixa.image.rate import LEVELS, SIZE_SLOPE, RateSearch, first_above
from pixa.pixels import Picture

STEPS = st.lists(st.sampled_from([0.0, 0.0, 0.001, SIZE_SLOPE, 0.3, 50.0]), min_size=201, max_size=201)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.floats(-5, 1000), st.integers(1, 9), st.none() | st.integers(0, 200), st.sets(st.integers(0, 200)))
def test_any_rising_curve_is_searched_to_the_level(steps, target, stride, start, before):
    curve, levels = np.cumsum(steps).tolist(), LEVELS[::stride]
    known = {level: curve[level] for level in before}
    asked = []
    first = first_above(target, lambda level: asked.append(level) or curve[level], SIZE_SLOPE, levels, known, start)
    assert first == bisect_right([curve[level] for level in levels], target)
    assert all(levels[i] in known for i in (first - 1, first) if 0 <= i < len(levels))
    assert len(set(asked)) == len(asked) and not before & set(asked)


def test_even_curves_take_few_measurements():
    for slope in (0.007, SIZE_SLOPE, 0.03):
        known = {}
        assert first_above(1.2345, lambda level, slope=slope: slope * level, SIZE_SLOPE, LEVELS, known) > 0
        assert len(known) <= 5


def test_a_ladder_remembers(photo):
    ladder = RateSearch(ImageEncoder(Picture(photo[:128, :128]), jobs=1))
    level = ladder.within(3000)
    assert ladder.files[level] == pixa.encode(photo[:128, :128], level / 2) and len(ladder.files[level]) <= 3000
    ladder.files.clear()
    assert ladder.within(3000) == level and not ladder.files
    assert ladder.file(level) == pixa.encode(photo[:128, :128], level / 2)
