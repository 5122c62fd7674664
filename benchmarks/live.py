"""What the live view costs: ``python benchmarks/live.py``, or with ``--quick`` to try it.

Trials of a second, of ten validations each, are shown on a pseudo-terminal of 80 columns that a process of its own
empties. Nothing trains: this process only shows, and sleeps. Its CPU time, that of rich's thread included, less what
the same takes with nothing shown, is divided by the time that has passed. Both take turns.
"""

import argparse
import os
import statistics
import time

from overhead import machine, show, unseen_terminal
from rich.console import Console

from lightningtune.report.live import LiveView
from lightningtune.study.events import StudyBegan, TrialEnded, TrialStarted, ValuesReported
from lightningtune.study.results import StudyResults, TrialResult

VALIDATIONS = 10
PARAMS = {"model.lr": 0.00123, "model.width": 128, "model.dropout": 0.1, "data.batch_size": 32}


def ended(number, value):
    epochs = VALIDATIONS
    return TrialResult(
        number, "complete", (value,), PARAMS, "completed", "", epochs, 1.0, number == 0, directory=None, checkpoint=None
    )


def cpu_share(trials, lanes, is_shown):
    """Return the share of CPU time in the time that a study takes."""
    with unseen_terminal():
        console = Console(highlight=False, quiet=not is_shown, width=80)
        assert console.is_interactive
        view = LiveView(("val_acc",), console)
        began, cpu = time.perf_counter(), time.process_time()
        with view:
            view(
                StudyBegan(StudyResults("mine", ("val_acc",), ("maximize",), (), ()), 0, trials * lanes, "Study 'mine'")
            )
            best = ended(0, 0.0)
            for trial in range(trials):
                numbers = range(trial * lanes, (trial + 1) * lanes)
                for number in numbers:
                    view(TrialStarted(number, PARAMS, trainer={"max_epochs": VALIDATIONS}))
                for step in range(VALIDATIONS):
                    time.sleep(1 / VALIDATIONS)
                    for number in numbers:
                        view(ValuesReported(number, (step / (number + 1),), step))
                for number in numbers:
                    best = ended(number, number / 10)
                    view(TrialEnded(best, (best,), number + 1))
        return (time.process_time() - cpu) / (time.perf_counter() - began)


def main(arguments):
    print(machine())
    os.environ["TERM"] = "xterm-256color"
    trials, repetitions = (2, 1) if arguments.quick else (10, 5)
    for lanes, what in ((1, "one at a time"), (4, "four at a time")):
        cpu_share(1, lanes, is_shown=True)  # the first imports
        shown, quiet = [], []
        for _ in range(repetitions):
            shown.append(cpu_share(trials, lanes, is_shown=True))
            quiet.append(cpu_share(trials, lanes, is_shown=False))
        own, others = statistics.median(shown), statistics.median(quiet)
        detail = f"{1000 * own:.1f} and {1000 * others:.1f} ms of CPU time a second"
        show(f"share of the live view, 1-second trials, {what}", own - others, 0.01, detail)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    main(parser.parse_args())
