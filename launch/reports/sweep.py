"""A sweep's runs by what they set: a score of each, and a table with means over the seeds."""

import math
import statistics
from collections.abc import Iterable, Sequence

from launch.flags.sweep import SweptRun
from launch.reports.run import RunFacts
from launch.terminal.columns import Texts, columns_text

Settings = tuple[tuple[str, str], ...]


def by_settings(runs: Iterable[SweptRun]) -> dict[Settings, list[SweptRun]]:
    """The runs of each setting, one for each seed."""
    found: dict[Settings, list[SweptRun]] = {}
    for run in runs:
        found.setdefault(run.settings, []).append(run)
    return found


def score_at(run: RunFacts, step: float = math.inf) -> float:
    """The headline's score in the last evaluation up to a step; -inf where there is none."""
    there = [values for at, values in run.log.evaluations if at <= step]
    score = run.headline.score(there[-1]) if there else None
    return -math.inf if score is None else score


def mean_score(scores: Sequence[float]) -> float:
    """The mean over the seeds, of which one that has failed makes all fail."""
    return statistics.mean(scores) if all(map(math.isfinite, scores)) else -math.inf


def sweep_text(found: Sequence[tuple[SweptRun, RunFacts]], width: int) -> str:
    """The settings from the best to the worst: the headline as mean ± deviation over the seeds.

    What came further stands above what was stopped before.
    """
    facts = {run.name: one for run, one in found}
    groups = by_settings(run for run, _ in found)
    names = [name for name, _ in next(iter(groups), ())]

    def rank(settings: Settings) -> tuple[float, float]:
        of = [facts[run.name] for run in groups[settings]]
        return min(one.log.step for one in of), mean_score([score_at(one) for one in of])

    order = sorted(groups, key=rank, reverse=True)
    rows = [[facts[run.name] for run in groups[settings]] for settings in order]
    headline = rows[0][0].headline.name if rows else ""
    columns = [
        *(Texts(name, [dict(settings)[name] for settings in order], True, 0) for name in names),
        Texts(headline, [_value(of) for of in rows], True, 0),
        Texts("at step", [f"{min(one.log.step for one in of):,}" for of in rows], True, 1),
        Texts("runs", [_states(of) for of in rows], False, 2),
    ]
    return columns_text(columns, width)[0]


def _value(runs: Sequence[RunFacts]) -> str:
    """The headline of the last evaluations."""
    headline = runs[0].headline
    values = [headline.of(run.final) for run in runs]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return "-"
    text = headline.text(statistics.mean(known))
    return text if len(known) == 1 else f"{text} ± {headline.text(statistics.stdev(known))}"


def _states(runs: Sequence[RunFacts]) -> str:
    """How many have ended how."""
    states = [run.state for run in runs]
    if len(states) == 1:
        return states[0]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
