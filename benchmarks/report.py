"""What a report costs and how large it is: ``python benchmarks/report.py``, or with ``--quick`` to try it.

The studies are made up: 500 and 10,000 trials of 5 parameters and 25 validations, every fifth pruned and every ninth
failed. The larger is in a journal. The first report of a process is written in one of its own, and imports what draws;
the others are medians. While a study runs, the report waits for its share of the time: a clock is moved on by a second
for each trial, beside the real one.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
from overhead import machine, show

from lightningtune.report.html.writer import ReportWriter, study_report
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.storage import open_storage

TESTS = Path(__file__).parents[1] / "tests"
FIRST = """
import sys, time
sys.path.insert(0, sys.argv[1])
import reported
study = reported.ours(30)
start = time.perf_counter()
from lightningtune.report.html.writer import study_report
study_report(study, sys.argv[2])
print(time.perf_counter() - start)
"""


class Clock:
    """Tells the time, and can be moved on."""

    skipped = 0.0

    def __call__(self):
        return time.monotonic() + self.skipped


def measure_share(trials, folder):
    """Return the share of a study of trials of a second that its reports take, but for the last."""
    clock, study, spent = Clock(), ours(30), 0.0
    writer = ReportWriter(StudyDirectory(folder), clock=clock)
    began, last = clock(), study.trials[-1]
    for _ in range(trials):
        clock.skipped += 1
        start = time.monotonic()
        writer(study, last)
        spent += time.monotonic() - start
    return spent / (clock() - began)


def write_report(study, path):
    """Return the seconds that it takes."""
    start = time.perf_counter()
    study_report(study, path)
    return time.perf_counter() - start


def main(arguments):
    print(machine())
    count, many, repetitions, trials = (60, 1200, 1, 300) if arguments.quick else (500, 10_000, 5, 2000)
    with tempfile.TemporaryDirectory() as folder:
        path, study = Path(folder, "report.html"), ours(count, epochs=25)
        write_report(study, path)  # imports
        seconds = [write_report(study, path) for _ in range(repetitions)]
        show("megabytes of a report of 500 trials", path.stat().st_size / 1e6, 5.0, f"{count} trials")
        show("seconds to write it", statistics.median(seconds), 2.0, f"{count} trials")
        large = optuna.create_study(storage=open_storage(None, Path(folder, "journal.log")), direction="maximize")
        large.add_trials(ours(many, epochs=25).get_trials(deepcopy=False))
        show("seconds to write one of 10,000 trials", write_report(large, path), 10.0, f"{many} trials")
        show("its megabytes", path.stat().st_size / 1e6, 5.0, f"{many} trials")
        command = [sys.executable, "-c", FIRST, TESTS, path]
        first = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        show("seconds to write the first of a process, of 30 trials", float(first), 6.0)
        show(
            "share of reports in a study of 1-second trials",
            measure_share(trials, Path(folder)),
            0.01,
            f"{trials} trials",
        )


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    from reported import ours

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    main(parser.parse_args())
