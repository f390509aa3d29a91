"""What a log proves: which steps to do again, and whether they came out; no TensorFlow.

targets = choose(steps, starts, 5, seed=0)    # by the step that the re-execution begins from
found = compared(rows, rows_of_the_re_execution, first, last)
"""

import dataclasses
import itertools
import json
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

# The fields of a row that tell of time, and so differ from run to run.
TIMES = {"seconds", "step_ms", "examples_per_second", "input_wait_fraction"}
DIGEST, TRAINING, EVALUATION = "digest", "training", "evaluation"
_FIELDS = {"step", "event"}

Rows = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Something that did not come out again."""

    step: int
    name: str  # of the field
    logged: Any
    again: Any

    def __str__(self) -> str:
        return (
            f"step {self.step:,}: {self.name} is {_text(self.logged)} in the run's log, and comes "
            f"out as {_text(self.again)}"
        )


@dataclasses.dataclass(frozen=True)
class Compared:
    """What a comparison has found."""

    same: Mapping[tuple[int, str], Mapping[str, Any]]  # by step and kind
    differences: Sequence[Difference]  # in the order of their steps
    left_out: Mapping[int, str]  # steps of rows that could not be compared, and why


def kind_of(row: Mapping[str, Any]) -> str | None:
    """What a row of metrics.jsonl is of what can be compared; None: it is another event."""
    if "event" in row:
        return DIGEST if row["event"] == "digest" else None
    return EVALUATION if any(name.startswith("eval/") for name in row) else TRAINING


def comparable(rows: Rows) -> dict[tuple[int, str], dict[str, Any]]:
    """What of the rows comes out again, by step and kind."""
    return {
        (row["step"], kind): {k: v for k, v in row.items() if k not in TIMES | _FIELDS}
        for row in rows
        if (kind := kind_of(row))
    }


def choose(steps: Collection[int], starts: Collection[int], count: int, seed: int) -> list[int]:
    """So many of the steps at random; near ones first, from what there is to start from.

    Near is what is no farther from its start than two starts are from each other. Where there are
    not enough of these, the nearest of the others come with them.
    """
    ordered = sorted(starts)
    gaps = [b - a for a, b in itertools.pairwise(ordered)]
    reach = min(gaps, default=max(steps, default=0))
    distance = {step: step - start_of(step, starts) for step in sorted(steps)}
    near = [step for step in distance if distance[step] <= reach]
    far = sorted((step for step in distance if distance[step] > reach), key=distance.get)
    chosen = random.Random(seed).sample(near, min(count, len(near)))
    return sorted(chosen + far[: count - len(chosen)])


def start_of(step: int, starts: Collection[int]) -> int:
    """The newest start from before the step."""
    return max(start for start in starts if start < step)


def compared(logged: Rows, again: Rows, first: int, last: int) -> Compared:
    """Compares the rows of the steps behind `first`, up to `last`, bit for bit.

    A row of training is of the steps since the row before, so it is compared only where both have
    that at the same step.
    """
    then, now = comparable(logged), comparable(again)
    keys = sorted(key for key in then if first < key[0] <= last)
    steps = {step for step, kind in keys if kind == TRAINING}
    others = {step for step, kind in now if kind == TRAINING and first < step <= last}
    odd = min(steps ^ others, default=None)
    same, differences, left_out = {}, [], {}
    for key in keys:
        step, kind = key
        if kind == TRAINING and odd is not None and step >= odd:
            where = "only the log has" if odd in steps else "the log lacks"
            why = f"{where} a row of step {odd:,}: another --log_every, or a line was lost"
            left_out.setdefault(step, why)
        elif key not in now:
            differences.append(Difference(step, f"the {kind}'s row", "there", "missing"))
        else:
            found = _differences(step, then[key], now[key])
            differences += found
            if not found:
                same[key] = then[key]
    return Compared(same, differences, left_out)


def _differences(
    step: int, logged: Mapping[str, Any], again: Mapping[str, Any]
) -> list[Difference]:
    missing = "missing"
    pairs = {
        name: (logged.get(name, missing), again.get(name, missing)) for name in {**logged, **again}
    }
    # As JSON, which has every bit of a number, and tells 0.0 from -0.0.
    return [
        Difference(step, name, *pair)
        for name, pair in pairs.items()
        if json.dumps(pair[0]) != json.dumps(pair[1])
    ]


def _text(value: Any) -> str:
    return "no number" if value is None else str(value)
