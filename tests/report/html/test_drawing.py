import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightningtune.report.html.drawing import CELLS, average_cells

POSITIONS = st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=80, unique=True).map(sorted)


@given(POSITIONS, st.sampled_from([None, "log"]), st.data())
def test_a_coarser_grid_has_the_values_of_the_finer_one(x, kind, data):
    row = data.draw(st.lists(st.floats(-1, 1) | st.just(math.nan), min_size=len(x), max_size=len(x)))
    places, rows, means = average_cells(x, [0, 1], [row, row], (kind, None))
    assert rows == [0, 1]
    assert len(places) == len(means[0]) == min(len(x), CELLS)
    assert places == sorted(places)
    assert places[0] == pytest.approx(x[0])
    assert places[-1] == pytest.approx(x[-1])
    known = [value for value in row if not math.isnan(value)]
    found = [value for value in means[0] if value is not None]
    assert bool(known) == bool(found)
    if known:
        assert min(known) - 1e-12 <= min(found) <= max(found) <= max(known) + 1e-12


def test_names_stay():
    names = [f"choice {index}" for index in range(50)]
    assert average_cells(names, [0], [[1.0] * 50], ("category", None))[0] == names
