import re

from hypothesis import example, given
from hypothesis import strategies as st

from lightningtune.wording import clock, format_duration

UNITS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}


@given(st.integers(0, 10**6))
def test_a_clock_reads_back(seconds):
    parts = [int(part) for part in clock(seconds).split(":")]
    assert sum(part * 60**place for place, part in enumerate(reversed(parts))) == seconds


@given(st.floats(0.001, 10**6))
@example(0.0996)
@example(9.96)
@example(59.6)
@example(3599.7)
def test_a_time_reads_back_to_two_units(seconds):
    said = format_duration(seconds)
    assert re.fullmatch(r"[\d.]+ (ms|s|min|h|d)( \d+ (s|min|h))?", said)
    words = said.split()
    read = sum(float(number) * UNITS[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
    assert abs(read - seconds) <= 0.06 * seconds
