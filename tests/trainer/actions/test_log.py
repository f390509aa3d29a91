"""The rows of the log: means over the steps that have a loss, and nothing that is no number."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from launch.flags.command import read_command
from launch.training.job import plan_command
from trainer.actions.log import Log
from trainer.files.from_json import from_json
from trainer.loop import Block
from trainer.run_folder.history import History
from trainer.run_folder.journal import Journal
from trainer.run_folder.metrics_writer import MetricsWriter

NAN, INF = np.nan, np.inf
# Of eight steps: the third has a batch in which nothing weighs, the fifth is not finite.
ROWS = {
    "train/loss": [4.0, 2.0, NAN, 3.0, INF, 1.0, NAN, NAN],
    "train/accuracy": [0.5, 0.0, NAN, 0.25, 0.0, 1.0, NAN, NAN],
    "gradient_norm": [1.0, 2.0, 0.0, 3.0, NAN, 5.0, 0.0, 0.0],
    "learning_rate": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
    "noise_scale": [INF, INF, INF, 7.0, 7.0, 8.0, 8.0, 8.0],
    "finite": [1, 1, 1, 1, 0, 1, 1, 1],
    "input_wait": [0.0] * 8,
}


def logged(folder: pathlib.Path, blocks: list[int], restarts: bool = False) -> list[dict[str, Any]]:
    """The rows after every second step, the steps coming in blocks of these lengths."""
    plan, _, _ = plan_command(read_command(["--device=cpu", "--dataset=digits"]))
    plan = dataclasses.replace(plan, log_every=2.0)
    folder.mkdir()
    writer, history, first = MetricsWriter(folder, 0), History(), 0
    log = Log(plan, history, Journal(writer, plan, history, print), (), ())
    for length in blocks:
        columns = {n: np.float32(c[first : first + length]) for n, c in ROWS.items()}
        log(Block(first, columns, None))
        first += length
        kept = json.dumps(history.to_json(), allow_nan=False)
        if restarts:
            history = from_json(History, json.loads(kept), "it")
            log = Log(plan, history, Journal(writer, plan, history, print), (), ())
    writer.flush()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_a_step_without_a_loss_is_in_no_mean_of_losses(tmp_path: pathlib.Path) -> None:
    rows = logged(tmp_path / "run", [8])
    assert [row["train/loss"] for row in rows] == [3.0, 3.0, 1.0, None]
    assert [row["train/accuracy"] for row in rows] == [0.25, 0.25, 1.0, None]
    # Its gradient, of 0, was applied.
    assert [row["gradient_norm"] for row in rows] == [1.5, 1.5, 5.0, 0.0]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert [row["noise_scale"] for row in rows] == [None, 7.0, 8.0, 8.0]
    assert not any("weightless" in row for row in rows)


@pytest.mark.parametrize("blocks", [[1] * 8, [3, 3, 2], [5, 1, 2]])
@pytest.mark.parametrize("restarts", [False, True])
def test_blocks_and_restarts_make_no_difference(
    tmp_path: pathlib.Path, blocks: list[int], restarts: bool
) -> None:
    assert logged(tmp_path / "a", blocks, restarts) == logged(tmp_path / "b", [8])
