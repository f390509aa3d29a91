"""What happened, as TensorBoard tells it: one table a step, whatever was killed in between."""

import pathlib
from typing import Any

import pytest
from helpers import Run

from trainer.run_folder.happened import Happened, Phase
from trainer.run_folder.journal import Row
from trainer.run_folder.metrics_writer import MetricsWriter

CONTROL = {"event": "control", "action": "scale", "value": 0.5, "who": "ann@pc"}


def told(*events: tuple[int, dict[str, Any]]) -> str:
    """The table of these events."""
    tables: list[str] = []
    happened = Happened((), lambda step, table: tables.append(table))
    happened.begin(0)
    for step, event in events:
        happened.note(step, event)
    happened.close()
    return tables[-1]


@pytest.mark.parametrize(
    "event, text",
    [
        (
            CONTROL | {"learning_rate_before": 0.2, "learning_rate_after": 0.1, "reason": "a\n|b"},
            "**control** `--scale=0.5` by ann@pc, rate 0.2 → 0.1: a \\|b",
        ),
        ({**CONTROL, "action": "hold", "value": None}, "**control** `--hold` by ann@pc"),
        (
            {"event": "resumed", "changed": {"warmup": ["5st", "9st"]}, "data": []},
            "**resumed** with `--warmup` 5st → 9st data: []",
        ),
        ({"event": "started", "imports_s": 2.0, "data_s": 0.5, "steps": 1}, "**started** in 2.5 s"),
        ({"event": "plateau", "scale": 0.1234567}, "**plateau** scale: 0.12346"),
        ({"event": "monitor", "advice": ""}, "**monitor**"),
    ],
)
def test_an_event_is_a_line(event: dict[str, Any], text: str) -> None:
    assert told((7, event)).splitlines() == [
        "| step | what happened |",
        "|---:|---|",
        f"| 7 | {text} |",
    ]


def test_of_many_events_the_newest_are_told() -> None:
    table = told(*((step, {"event": "nonfinite"}) for step in range(1, 101))).splitlines()
    assert table[0] == "50 earlier ones are in metrics.jsonl."
    assert [line.split(" ")[1] for line in table[4:]] == [str(step) for step in range(51, 101)]


def test_digests_are_nothing_that_happened() -> None:
    assert "digest" not in told((1, CONTROL), (2, {"event": "digest", "weights": "0"}))


def test_a_table_is_told_of_the_newest_step_and_of_none_before_the_first() -> None:
    tables: list[tuple[int, str]] = []
    happened = Happened((), lambda step, table: tables.append((step, table)))
    happened.note(2, CONTROL)  # of before, which is told with where the run goes on
    happened.begin(4)
    happened.reach(5)
    assert [step for step, _ in tables] == [4] and "| 2 |" in tables[0][1]
    happened.note(7, CONTROL)
    happened.note(6, CONTROL)  # by another thread, a little later
    happened.close()
    assert [step for step, _ in tables] == [4, 7]
    assert [line.split()[1] for line in tables[1][1].splitlines()[2:]] == ["2", "6", "7"]
    new = Happened((), lambda step, table: tables.append((step, table)))
    new.begin(0)
    new.note(0, CONTROL)  # TensorBoard has a step of its own for what is written once
    new.close()
    assert tables[-1][0] == 1


def write(folder: pathlib.Path, resumed_at: int, steps: range) -> None:
    """Rows and, at every third step, two requests, as a run that goes on from a step has them."""
    writer = MetricsWriter(folder, resumed_at, phases=[Phase(1, "warmup"), Phase(5, "cosine")])
    if resumed_at % 3 == 0 and resumed_at:  # behind the checkpoint: they are done again
        for _ in range(2):
            writer.note(resumed_at, resumed_at / 4, resumed_at, CONTROL)
    for step in steps:
        writer.write_all([Row(step, step / 4, step, {"train/loss": float(step)})])
        if step % 3 == 0:
            for _ in range(2):
                writer.note(step, step / 4, step, CONTROL)
    writer.flush()
    writer.close()


@pytest.mark.parametrize("resumed_at", [0, 2, 3, 4, 6])
def test_a_run_that_was_killed_tells_what_another_tells(
    tmp_path: pathlib.Path, resumed_at: int
) -> None:
    write(tmp_path / "whole", 0, range(1, 10))
    write(tmp_path / "killed", 0, range(1, 8))
    write(tmp_path / "killed", resumed_at, range(resumed_at + 1, 10))
    whole, killed = (Run(tmp_path / name) for name in ("whole", "killed"))
    assert [mark for _, mark in whole.board("train")["events"]] == [1, 0, 0, 2, 1, 0, 2, 0, 0]
    assert killed.board("train")["events"] == whole.board("train")["events"]
    texts = [run.texts("plan")["2_events"] for run in (whole, killed)]
    assert [step for step, _ in texts[0]] == [1, 3, 5, 6, 9]
    steps = [step for step, _ in texts[1]]
    assert steps == sorted(set(steps)) and set(steps) <= {1, 3, 5, 6, 9, resumed_at}
    assert texts[1][-1] == texts[0][-1]
    assert texts[0][-1][1].count("**control**") == 6
