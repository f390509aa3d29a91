"""Real runs to report on: two rates, one of them resumed and evaluated, and an odd name."""

import json
import pathlib
import re
import shutil
from typing import Any

from helpers import carried_out

TRAIN = (
    "launch.train --device=cpu --dataset=digits --model=mlp --global_batch=64 --micro_batch=64 "
    "--lr_scaling=none --log_every=5st --eval_every=1ep --checkpoint_every=1ep"
)
LINES = {
    "slow": f"{TRAIN} --learning_rate=0.02 --train_for=3ep --run_dir=runs/slow",
    "begun": f"{TRAIN} --learning_rate=0.2 --train_for=2ep --run_dir=runs/resumed",
    "resumed": f"{TRAIN} --learning_rate=0.2 --train_for=4ep --run_dir=runs/resumed",
    "evaluated": "launch.evaluate runs/resumed",
}
ODD = "<img src=x onerror=alert(1)> & \"'</script>".replace("/", "∕")


def make_runs(folder: pathlib.Path) -> pathlib.Path:
    """The folder of the runs: `slow`, `resumed` and `ODD`, a copy of `slow` with another label."""
    ended = carried_out(folder, LINES)
    assert {one.code for one in ended.values()} == {0}, ended
    runs = folder / "runs"
    shutil.copytree(runs / "slow", runs / ODD)
    flags = (runs / ODD / "flags.txt").read_text()
    (runs / ODD / "flags.txt").write_text(flags.replace("--seed=0", "--seed=<b>1</b>"))
    write_row(runs / ODD, step=40, event="control", action="scale", reason="</script><b>bold</b>")
    return runs


def write_row(run_dir: pathlib.Path, **row: Any) -> None:
    """Adds a row to a log."""
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def rows_of(run_dir: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a log."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def data_of(page: str) -> dict[str, Any]:
    """The numbers within a report."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page)[1])


def line_of(data: dict[str, Any], title: str, run: int, kind: str) -> dict[float, float]:
    """A curve of a report: its values by step."""
    (chart,) = (one for one in data["charts"] if one["title"] == title)
    (line,) = (one for one in chart["lines"] if (one["run"], one["kind"]) == (run, kind))
    return dict(zip(line["s"], line["v"], strict=True))
