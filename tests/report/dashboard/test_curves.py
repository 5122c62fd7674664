import math
import xml.etree.ElementTree as ElementTree

from hypothesis import given
from hypothesis import strategies as st

from lightningtune.report.dashboard.curves import draw_curves, read_metrics

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture):
    return [text.text for text in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def lines(picture):
    return [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in ElementTree.fromstring(picture).iter(f"{SVG}polyline")
    ]


def test_what_a_csv_logger_has_written_is_read(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train_loss,val_loss\n0,9,0.5,\n0,9,,0.7\n1,19,nan,\n\0\0\0\n1,19,,0.6\n2,29,,0.5")
    curves = read_metrics(path)
    assert curves["val_loss"] == [(9, 0.7), (19, 0.6)]
    assert curves["train_loss"][0] == (9, 0.5)
    assert math.isnan(curves["train_loss"][1][1])
    assert {*curves} == {"train_loss", "val_loss"}


def test_each_metric_has_a_panel_what_is_tuned_first():
    picture = draw_curves({"a": [(0, 1.0)], "val_loss": [(0, 0.5), (1, 0.25)]}, ["val_loss"])
    assert texts(picture) == ["val_loss, 0.5 to 0.25; lowest 0.25, highest 0.5", "a, 1 to 1; lowest 1, highest 1"]
    (high, low), _ = lines(picture)
    assert high[0] < low[0]
    assert high[1] < low[1], "what is higher is drawn higher"


def test_names_are_text_and_what_is_not_finite_is_left_out():
    picture = draw_curves({"<script>": [(0, math.nan), (1, math.inf)], "b": [(0, math.nan), (1, 2.0)]})
    assert texts(picture) == ["<script>: never finite", "b, 2 to 2; lowest 2, highest 2"]


def test_nothing_is_a_picture_too(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("")
    assert read_metrics(path) == {}
    assert texts(draw_curves({})) == ["nothing was logged"]


@given(st.lists(st.tuples(st.floats(), st.floats()), min_size=1, max_size=2000))
def test_any_curve_stays_in_the_picture(curve):
    drawn = lines(draw_curves({"x": curve}))
    for line in drawn:
        assert len(line) <= 401
        assert all(0 <= x <= 520 and 0 <= y <= 110 for x, y in line)
