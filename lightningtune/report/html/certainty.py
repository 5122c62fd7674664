"""How sure an answer is, in words: what was measured, and what was not."""

from __future__ import annotations

import statistics

from lightningtune.report.html.answer import TOP, Answer
from lightningtune.wording import counted, short


def gain_line(answer: Answer) -> str:
    """Say how the best trial compares with the untuned defaults.

    Args:
        answer: of a study.
    """
    if answer.baseline is None:
        return "There is no completed trial of the untuned defaults to compare with."
    defaults = short(answer.baseline.value)
    if answer.gain is None:
        return f"The untuned defaults ({defaults}) violate a constraint: there is nothing to compare with."
    if answer.best.number == answer.baseline.number:
        return f"These are the untuned defaults ({defaults}): nothing better was found."
    error = f" ± {answer.gain.error:.2g}" if answer.gain.error is not None else ""
    better = "better" if answer.gain.value >= 0 else "worse"
    return f"{short(abs(answer.gain.value), 3)}{error} {better} than the untuned defaults ({defaults})"


def how_sure(answer: Answer) -> list[str]:
    """Say in sentences what is known of how much that would differ in another training.

    Args:
        answer: of a study.
    """
    best, gain = answer.best, answer.gain
    lines = []
    if len(answer.refits) > 1:
        mean, deviation = statistics.mean(answer.refits), statistics.stdev(answer.refits)
        lines.append(
            f"Trained again with {len(answer.refits)} seeds, trial {best.number} comes to {short(mean)} ± "
            f"{deviation:.2g} (standard deviation)."
        )
        if gain is not None and gain.error is not None:
            trained = counted(gain.seeds[1], "training")
            assumed = ", whose variance is taken to be the same" if gain.seeds[1] == 1 else ""
            lines.append(
                f"The gain compares these with {trained} of the defaults{assumed}; behind ± stands its standard error."
            )
        return lines
    if answer.spread is not None:
        lines.append(f"The {TOP} best tuned trials lie within {short(answer.spread, 2)} of each other.")
        if gain is not None and 0 < gain.value <= answer.spread:
            lines.append("The gain is no larger than that.")
    lines.append(
        "How much one training differs from the next was not measured, and the best of many scores is partly luck."
    )
    return lines
