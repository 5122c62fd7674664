"""A study whose processes are killed at random moments, and what must be true of it in the end.

As a command (``make chaos``): ``python tests/chaos.py --kills 40 --seed 0`` prints what it did and what it found, and
ends with 1 where anything is not as in the same study that was left alone. With ``--postgres`` the study is stored in a
PostgreSQL server, which is one of what is killed, and is started again at once.
"""

import argparse
import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import optuna
import torch
from family import children_of, have_ended, marked
from servers import Postgres

from lightningtune.study.reporter import DETAIL, REASON
from lightningtune.study.succession import ATTEMPT, ATTEMPTS, find_successors, get_lineage
from lightningtune.study.tally import TrialTally, count_finished

SCRIPT = Path(__file__).with_name("chaos_study.py")
TRIALS, EPOCHS = 15, 16
KINDS = ("host", "server", "trial", "loader")
DATABASE = "database"
LONGEST_WAIT = 4.0
"""Seconds between two kills."""
PACE = 0.0133
"""Seconds that an epoch takes, for each kill: so that all kills come before the study's end, and not long before."""


@dataclass
class Run:
    """A study that was run to its end.

    Attributes:
        folder: where it is.
        database: the server that it is stored in; None for a journal in the folder.
        kills: what was killed, of which kind, in turn.
        starts: how often the command was started.
        seconds: from the first start to the end.
        faults: what was seen on the way that should not be.
    """

    folder: Path
    database: Postgres | None = None
    kills: list[str] = field(default_factory=list)
    starts: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Attempt:
    """What the model has written down of one trial.

    Attributes:
        begun: when each epoch began, in seconds.
        saving: how long saving took at most, or holding the best, before each epoch, in seconds.
    """

    begun: dict[int, float]
    saving: dict[int, float]

    @property
    def longest_epoch(self) -> float:
        """Seconds."""
        return max((after - before for before, after in pairwise(self.begun.values())), default=0.0)


def leave_alone(folder: Path) -> Run:
    """Run the study undisturbed, with epochs that take no longer than they must."""
    run = Run(folder)
    with _started(run, 0.0, "LEFT_ALONE") as host:
        if host.wait() != 0:
            run.faults.append(f"undisturbed, the command ended with {host.returncode}: {_said(folder)}")
    return run


def disturb(folder: Path, kills: int, seed: int, database: Postgres | None = None) -> Run:
    """Run the study, kill a random process of it so many times at random moments, and start it again each time."""
    chance, run, mark = random.Random(seed), Run(folder, database), f"CHAOS_{secrets.token_hex(4)}"
    began, code = time.monotonic(), None
    while code != 0 and run.starts < 2 * kills + 10:
        with _started(run, PACE * kills, mark) as host:
            _kill_at_random(host, run, kills, chance, mark)
            code = host.wait()
        if code not in (0, -signal.SIGKILL):
            run.faults.append(f"start {run.starts} of the command ended with {code}: {_said(folder)}")
    if not have_ended(marked(mark), seconds=20):
        run.faults.append(f"processes are left: {sorted(marked(mark))}")
    run.seconds = time.monotonic() - began
    return run


def _kill_at_random(host: subprocess.Popen[bytes], run: Run, kills: int, chance: random.Random, mark: str) -> None:
    while len(run.kills) < kills:
        with contextlib.suppress(subprocess.TimeoutExpired):
            host.wait(chance.uniform(0.0, LONGEST_WAIT))
            return
        found = _by_kind(host.pid, mark)
        if not found or ("trial" not in found and chance.random() < 0.75):
            continue  # it still imports: that is killed less often, or a busy machine would get no further
        kinds = [*sorted(found), *([DATABASE] if run.database else [])]
        kind = chance.choices(kinds, [1 / (1 + run.kills.count(kind)) for kind in kinds])[0]  # what lives rarely, too
        if kind == DATABASE and run.database:
            run.database.kill()
            run.database.start()
            run.kills.append(kind)
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(sorted(found[kind])), signal.SIGKILL)
            run.kills.append(kind)


def _by_kind(host: int, mark: str) -> dict[str, list[int]]:
    """Return a study's processes: a server is the host's child, a trial's process the server's, a loader is that's."""
    below = {number: children_of(number) for number in {host, *children_of(host)}}
    found = defaultdict(list)
    for number in below.keys() & marked(mark):
        depth = sum(number in descendants for descendants in below.values())
        found[KINDS[min(depth, len(KINDS) - 1)]].append(number)
    return found


@contextlib.contextmanager
def _started(run, pace, mark):
    (run.folder / "tmp").mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(path for path in (str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH")) if path)
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(run.folder / "tmp"), mark: "1"}
    stored = [] if run.database is None else [run.database.url]
    command = [sys.executable, str(SCRIPT), str(run.folder), str(TRIALS), str(EPOCHS), str(pace), *stored]
    run.starts += 1
    with (run.folder / "said").open("ab") as said:
        host = subprocess.Popen(command, env=environment, stdout=said, stderr=said, cwd=run.folder)
    try:
        yield host
    finally:
        host.kill()
        host.wait()


def _said(folder: Path) -> str:
    return " | ".join((folder / "said").read_text().splitlines()[-5:])


def opened(run: Run) -> optuna.Study:
    """Open the study with nothing but Optuna."""
    if run.database is not None:
        return optuna.load_study(study_name="chaos", storage=run.database.url)
    journal = optuna.storages.journal.JournalFileBackend(str(run.folder / "chaos/journal.log"))
    return optuna.load_study(study_name="chaos", storage=optuna.storages.JournalStorage(journal))


def counted(study: optuna.Study) -> dict[int, optuna.trial.FrozenTrial]:
    """Return the trial that counts of each training, by the training's place."""
    replaced = find_successors(study.trials)
    return {TrialTally(study).get_place(t.number): t for t in study.trials if t.number not in replaced}


def attempts(folder: Path) -> dict[int, Attempt]:
    """Read what the model has written down, by trial."""
    begun, saving = defaultdict(dict), defaultdict(dict)
    for line in (folder / "epochs").read_text().splitlines():
        trial, epoch, when, saved = (float(value) for value in line.split()[1:])
        begun[int(trial)][int(epoch)] = when
        saving[int(trial)][int(epoch)] = saved
    return {trial: Attempt(epochs, saving[trial]) for trial, epochs in begun.items()}


def given_up(study: optuna.Study) -> list[int]:
    """Return the trainings that have failed since so many attempts in a row got no further."""
    return [
        place
        for place, trial in counted(study).items()
        if trial.state.name == "FAIL"
        and trial.user_attrs.get(REASON) == "killed"
        and trial.user_attrs.get(ATTEMPT) == ATTEMPTS
    ]


def extra_epochs(run: Run) -> tuple[int, list[str]]:
    """Count the epochs that were trained more than once, and say where a checkpoint was missing.

    An attempt that was cut short may lose what it did since it last saved: 50 times as long as that took, and holding
    the best since then, and the epochs in which that time began and ended.
    """
    study, wrote, extra, faults = opened(run), attempts(run.folder), 0, []
    for last in counted(study).values():
        line = [wrote[t.number] for t in get_lineage(study.trials, last.number) if t.number in wrote]
        for cut, following in pairwise(line):
            start = min(following.begun)
            again = [when for epoch, when in cut.begun.items() if epoch >= start]
            extra += len(again)
            lost = max(again) - min(again) if again else 0.0
            held = sum(saved for epoch, saved in cut.saving.items() if epoch > start)
            allowed = 50 * (max(cut.saving.values()) + held) + 2 * cut.longest_epoch
            if lost > allowed:
                faults.append(f"{len(again)} epochs, {lost:.2f} s, were lost at once, of {allowed:.2f} s allowed")
    return extra, faults


def faults_of(run: Run, undisturbed: Run) -> list[str]:
    """Say what is not as it should be after all; nothing where all is."""
    study, other = opened(run), opened(undisturbed)
    found, expected, lost = counted(study), counted(other), given_up(study)
    faults = [*undisturbed.faults, *run.faults]
    states = Counter(trial.state.name for trial in study.trials)
    if states["RUNNING"] or states["WAITING"]:
        faults.append(f"trials are open: {dict(states)}")
    if count_finished(study) != TRIALS or sorted(found) != [*range(TRIALS)]:
        faults.append(f"{count_finished(study)} trials count, of the trainings {sorted(found)}")
    for place in sorted(found.keys() & expected.keys() - {*lost}):
        faults.extend(_difference(place, found[place], expected[place]))
    if study.best_value != other.best_value and TrialTally(other).get_place(other.best_trial.number) not in lost:
        faults.append(f"the best value is {study.best_value}, and undisturbed {other.best_value}")
    elif study.best_value == other.best_value:
        faults.extend(_other_winner(run.folder / "chaos/best", undisturbed.folder / "chaos/best"))
    if run.database is None:  # a database has one row for each step
        faults.extend(_reported_twice(run.folder / "chaos/journal.log"))
    faults.extend(f"{path} is left" for path in _left(run.folder, study.best_trial.number))
    return [*faults, *extra_epochs(run)[1]]


def _difference(place: int, found: optuna.trial.FrozenTrial, expected: optuna.trial.FrozenTrial) -> list[str]:
    """Say in what a training differs from the undisturbed one, to the last bit."""
    where = f"training {place} (trial {found.number})"
    if found.state != expected.state:
        return [f"{where} is {found.state.name}: {found.user_attrs.get(DETAIL)}"]
    faults = []
    if (found.params, found.values) != (expected.params, expected.values):
        faults.append(f"{where} has {found.params} and {found.values}, not {expected.params} and {expected.values}")
    steps = {*found.intermediate_values} ^ {*range(EPOCHS)}
    parts = [s for s, value in expected.intermediate_values.items() if found.intermediate_values.get(s) != value]
    if steps or parts:
        faults.append(f"{where}: steps {sorted(steps)} are missing, or too many; steps {parts} have other values")
    return faults


def _other_winner(found: Path, expected: Path) -> list[str]:
    faults = []
    if (found / "config.yaml").read_bytes() != (expected / "config.yaml").read_bytes():
        faults.append("best/config.yaml is not the undisturbed one")
    weights, others = (torch.load(path / "model.ckpt")["state_dict"] for path in (found, expected))
    if not all(torch.equal(weights[name], others[name]) for name in others):
        faults.append("the weights in best/ are not the undisturbed ones")
    return faults


def _reported_twice(journal: Path) -> list[str]:
    """Say which step was written down more than once, even where Optuna would pass over it."""
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    steps = Counter((record["trial_id"], record["step"]) for record in records if "intermediate_value" in record)
    return [
        f"step {step} of trial {trial} was reported {count} times"
        for (trial, step), count in steps.items()
        if count > 1
    ]


def _left(folder: Path, best: int) -> list[Path]:
    """Return the files that should be gone: temporary ones, locks, and the checkpoints of all but the best."""
    kept = folder / "chaos/trials" / f"{best:04d}" / "best.ckpt"
    study = [path for path in (folder / "chaos").rglob("*") if path.suffix in {".tmp", ".lock", ".ckpt"}]
    others = [path for path in study if path not in {kept, folder / "chaos/best/model.ckpt"}]
    # multiprocessing's own folder is left where a kill comes between its making and the host's hearing of it
    temporary = (path for path in (folder / "tmp").iterdir() if not path.name.startswith(("torchinductor_", "pymp-")))
    return [*others, *temporary]


def report(run: Run) -> str:
    """Say what was done."""
    study, kinds = opened(run), Counter(run.kills)
    killed = ", ".join(f"{kinds[kind]} {kind}" for kind in (*KINDS, *([DATABASE] if run.database else [])))
    most = max(len(get_lineage(study.trials, trial.number)) for trial in counted(study).values())
    return (
        f"{len(run.kills)} kills ({killed}), {run.starts} starts, {run.seconds:.0f} s; {len(study.trials)} trials for "
        f"{TRIALS} trainings, at most {most} for one, {len(given_up(study))} given up; {extra_epochs(run)[0]} of "
        f"{TRIALS * EPOCHS} epochs trained again"
    )


def main() -> int:
    """Run the study twice, once disturbed, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgres", action="store_true", help="store the study in a PostgreSQL server, killed too")
    parser.add_argument("--keep", type=Path, help="a folder to work in, which is kept")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        undisturbed = leave_alone(folder / "undisturbed")
        database = stack.enter_context(contextlib.closing(Postgres())) if given.postgres else None
        run = disturb(folder / "disturbed", given.kills, given.seed, database)
        print(report(run))
        faults = faults_of(run, undisturbed)
    print("\n".join(faults) or "Nothing lost, nothing doubled, and all as it would have been.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
