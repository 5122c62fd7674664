"""What a study found, in a few lines for a person."""

from __future__ import annotations

from lightningtune.contract import Objective
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.results import StudyResults, TrialResult
from lightningtune.wording import counted, format_value


def headline(study_name: str, objective: Objective, done: int, total: int) -> str:
    """Say what is about to run."""
    verbs = {"min": "minimize", "max": "maximize"}
    aims = ", ".join(f"{verbs[mode]} {name}" for name, mode in zip(objective.monitor, objective.mode, strict=True))
    if done >= total:
        return f"Study '{study_name}': {aims}. It has its {counted(total, 'trial')}; raise n_trials to go on."
    return f"Study '{study_name}': {aims}, {counted(total, 'trial')}" + (f", going on after {done}." if done else ".")


def summary(results: StudyResults, directory: StudyDirectory) -> str:
    """Write the best parameters and score, the comparison with the untuned defaults, and where the files lie."""
    counts = ", ".join(f"{count} {state}" for state, count in results.counts.items())
    lines = [f"Study '{results.study_name}': {counts or 'no trials'}"]
    if not results.best_trials:
        return "\n".join([*lines, results.why_none()])
    for trial in results.best_trials:
        lines.append(f"Best: trial {trial.number}  {_values(results, trial)}")
        width = max(map(len, trial.params), default=0)
        lines += [f"  {name:<{width}}  {format_value(value)}" for name, value in trial.params.items()]
    baseline = results.baseline
    if baseline is not None and baseline.state == "complete":
        gain = _gain(results) if baseline.is_feasible else "  (infeasible: not compared with)"
        lines.append(f"Untuned defaults: {_values(results, baseline)}{gain}")
    if len(results.best_trials) == 1 and len(results.directions) == 1:
        lines.append(f"Config:     {directory.best_config}")
        if directory.best_checkpoint.exists():
            lines.append(f"Checkpoint: {directory.best_checkpoint}")
    else:
        lines.append(f"Configs and checkpoints: {directory.root / 'trials'}")
    if directory.report.exists():
        lines.append(f"Report:     {directory.report}")
    return "\n".join(lines)


def _gain(results: StudyResults) -> str:
    if len(results.directions) > 1 or results.improvement is None:
        return ""
    if results.improvement == 0:
        return "  (nothing better was found)"
    return f"  (better by {results.improvement:.4g})"


def _values(results: StudyResults, trial: TrialResult) -> str:
    return "  ".join(f"{m} = {v:.6g}" for m, v in zip(results.metrics, trial.values or (), strict=True))
