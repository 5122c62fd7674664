"""The benchmarks run and print every ratio; the figures themselves belong to a quiet machine."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LINE = re.compile(r"^(.+?) +(-?\d+\.\d{3})   target at most +(\d+\.\d\d)   (ok|MISSED)", re.MULTILINE)


def printed_by(name):
    """Return what a benchmark measures, the figures and the targets, as it prints them."""
    done = subprocess.run([sys.executable, BENCHMARKS / name, "--quick"], check=True, capture_output=True, text=True)
    assert re.match(r".*, \d+ cores, Python 3", done.stdout), "the machine comes first"
    printed = LINE.findall(done.stdout)
    for what, figure, target, verdict in printed:
        assert (verdict == "ok") == (float(figure) <= float(target)), what
    return {what: (float(figure), target) for what, figure, target, _ in printed}


@pytest.mark.slow
def test_overhead_prints_every_ratio():
    printed = printed_by("overhead.py")
    assert {what: target for what, (_, target) in printed.items()} == {
        "callback beside optuna-integration's, in memory": "1.10",
        "callback beside optuna-integration's, journal": "1.10",
        "facade trial beside Lightning's defaults": "0.80",
        "facade trial beside everything off but checkpoints": "1.20",
        "import lightningtune, seconds over a bare interpreter": "0.15",
        "import lightningtune, torch imported with it": "0.00",
    }
    for what, (figure, _) in [*printed.items()][:4]:
        assert 0 < figure < 100, what


@pytest.mark.slow
def test_parallel_prints_every_ratio():
    printed = printed_by("parallel.py")
    expected = {
        "a report to the host and back, milliseconds": "1.00",
        "an isolated trial, seconds over one in this process": "0.06",
        "memory after 8 isolated trials beside that after 2": "1.05",
        "2 jobs beside 1, trials of 0.1 s of one thread": "0.56",
    }
    with_ray = {
        "2 tiny trials, 2 at a time, beside Ray Tune": "0.12",
        "the same beside Ray Tune with actors used again": "1.00",
    }
    if importlib.util.find_spec("ray") is not None:
        expected.update(with_ray)
    assert {what: target for what, (_, target) in printed.items()} == expected


@pytest.mark.slow
def test_durability_prints_every_figure():
    printed = printed_by("durability.py")
    kills = ("the host, one process", "the host, isolated", "the trial")
    assert {what: target for what, (_, target) in printed.items()} == {
        "share of checkpoints, epochs of 0.1 s that all improve": "0.02",
        "share of checkpoints, epochs of 3 s that all improve": "0.02",
        **{f"killed: {what}; seconds until it trains again": "1.00" for what in kills},
        **{f"killed: {what}; seconds of training lost": "30.00" for what in kills},
    }


@pytest.mark.slow
def test_report_prints_every_figure():
    printed = printed_by("report.py")
    assert {what: target for what, (_, target) in printed.items()} == {
        "megabytes of a report of 500 trials": "5.00",
        "seconds to write it": "2.00",
        "seconds to write one of 10,000 trials": "10.00",
        "its megabytes": "5.00",
        "seconds to write the first of a process, of 30 trials": "6.00",
        "share of reports in a study of 1-second trials": "0.01",
    }


@pytest.mark.slow
def test_growth_prints_every_figure():
    printed = printed_by("growth.py")
    assert {what: target for what, (_, target) in printed.items()} == {
        "host time of a trial in the largest study, to that in an empty one": "3.00",
        "seconds of a report of 100 trials": "10.00",
        "its megabytes": "5.00",
    }


@pytest.mark.slow
def test_live_prints_every_share():
    printed = printed_by("live.py")
    assert {what: target for what, (_, target) in printed.items()} == {
        f"share of the live view, 1-second trials, {what}": "0.01" for what in ("one at a time", "four at a time")
    }


@pytest.mark.slow
def test_trackers_print_every_share():
    printed = printed_by("trackers.py")
    assert {what: target for what, (_, target) in printed.items()} == {
        f"added to a 1-second trial with {name}": "0.01" for name in ("CSV", "TensorBoard")
    }


@pytest.mark.slow
def test_command_line_prints_every_figure():
    printed = printed_by("command_line.py")
    assert {what: target for what, (_, target) in printed.items()} == {
        "lightningtune --help, seconds": "0.30",
        "status of 30 trials, seconds": "1.00",
        "torch imported for --help": "0.00",
        "torch imported for status": "0.00",
    }
    assert printed["torch imported for status"][0] == 0


@pytest.mark.slow
def test_packing_needs_a_gpu_and_says_so():
    script = BENCHMARKS / "gpu_packing.py"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout == "There is no GPU here: nothing was measured.\n"
