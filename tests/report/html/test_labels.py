import html

from hypothesis import given
from hypothesis import strategies as st

from lightningtune.report.html.labels import end_of, middle_out, plain, thinned


@given(st.text(), st.integers(8, 30))
def test_what_is_shortened_fits_and_stays_escaped(text, most):
    for short in (middle_out(html.escape(text, quote=False), most), end_of(html.escape(text, quote=False), most)):
        assert len(html.unescape(html.unescape(short))) <= most
        assert not {*"<>"} & {*short}


@given(st.lists(st.integers(), min_size=1), st.integers(1, 20))
def test_what_is_thinned_keeps_its_first_and_its_order(things, most):
    kept = thinned(things, most)
    assert 1 <= len(kept) <= most
    assert kept[0] == things[0]


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()))
def test_a_choice_is_written_as_str_does(choice):
    assert plain(repr(choice)) == str(choice)
