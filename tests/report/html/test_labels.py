import html

import plotly.graph_objects as go
from hypothesis import given
from hypothesis import strategies as st

from lightningtune.report.html.labels import end_of, middle_out, plain, thinned, tick_choices


@given(st.text(), st.integers(8, 30))
def test_what_is_shortened_fits_and_stays_escaped(text, most):
    for short in (middle_out(html.escape(text, quote=False), most), end_of(html.escape(text, quote=False), most)):
        assert len(html.unescape(html.unescape(short))) <= most
        assert not {*"<>"} & {*short}


def test_choices_that_would_look_alike_are_written_in_full():
    choices = ["[64, 128, 128, 256]", "[64, 256, 128, 256]", "[64, 128, 128, 128, 512]"]
    axis = go.layout.XAxis()
    tick_choices(axis, [(choice, choice) for choice in choices], room=1000, most=10)
    assert axis.ticktext == (*choices[:2], "[64, …28, 512]")


@given(st.lists(st.integers(), min_size=1), st.integers(1, 20))
def test_what_is_thinned_keeps_its_first_and_its_order(things, most):
    kept = thinned(things, most)
    assert 1 <= len(kept) <= most
    assert kept[0] == things[0]


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()))
def test_a_choice_is_written_as_str_does(choice):
    assert plain(repr(choice)) == str(choice)
