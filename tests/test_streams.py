"""A process that was started without its standard streams, as a shell's ``>&-`` does it."""

import subprocess
import sys

import pytest

TELL = """
import os, subprocess, sys
from lightningtune.streams import open_missing_streams
open_missing_streams()
here = [os.fstat(number).st_rdev == os.stat(os.devnull).st_rdev for number in (0, 1, 2)]
assert os.open(os.devnull, os.O_RDONLY) > 2
assert sys.stdin.readable() and not sys.stdin.isatty()
print("out"), print("err", file=sys.stderr)
other = "import sys; assert None not in (sys.stdin, sys.stdout, sys.stderr)"
subprocess.run([sys.executable, "-S", "-c", other], check=True)
open("told", "w").write(repr(here))
"""


@pytest.mark.parametrize(
    ("closed", "lead_nowhere"),
    [("<&-", [True, False, False]), (">&-", [False, True, False]), ("<&- >&- 2>&-", [True, True, True])],
)
def test_what_is_missing_leads_nowhere(tmp_path, closed, lead_nowhere):
    python = ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, TELL]
    ran = subprocess.run(python, stdin=subprocess.PIPE, capture_output=True, text=True, cwd=tmp_path)
    assert (tmp_path / "told").read_text() == repr(lead_nowhere), ran.stderr
    assert ran.returncode == 0
    assert (ran.stdout, ran.stderr) == ("out\n" * (not lead_nowhere[1]), "err\n" * (not lead_nowhere[2]))
