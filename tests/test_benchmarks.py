"""The benchmark runs and prints every ratio; the figures themselves belong to a quiet machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

OVERHEAD = Path(__file__).parents[1] / "benchmarks" / "overhead.py"


@pytest.mark.slow
def test_overhead_prints_every_ratio():
    done = subprocess.run([sys.executable, str(OVERHEAD), "--quick"], check=True, capture_output=True, text=True)
    line = re.compile(r"^(.+?) +(-?\d+\.\d{3})   target at most (\d\.\d\d)   (ok|MISSED)", re.MULTILINE)
    printed = line.findall(done.stdout)
    assert [(what, target) for what, _, target, _ in printed] == [
        ("callback beside optuna-integration's, in memory", "1.10"),
        ("callback beside optuna-integration's, journal", "1.10"),
        ("facade trial beside Lightning's defaults", "0.80"),
        ("facade trial beside everything off but checkpoints", "1.20"),
        ("import lightningtune, seconds over a bare interpreter", "0.15"),
        ("import lightningtune, torch imported with it", "0.00"),
    ]
    for what, figure, target, verdict in printed:
        assert (verdict == "ok") == (float(figure) <= float(target)), what
    for what, figure, _, _ in printed[:4]:
        assert 0.1 < float(figure) < 10, what


@pytest.mark.slow
def test_packing_needs_a_gpu_and_says_so():
    script = OVERHEAD.with_name("gpu_packing.py")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout == "There is no GPU here: nothing was measured.\n"
