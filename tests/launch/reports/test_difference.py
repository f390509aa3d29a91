"""Whether a run is better than another by more than chance."""

import csv
import json
import math
import pathlib
import re
import shutil

import numpy as np
import pytest

from launch.reports.difference import apart, branch_text, difference_text, paired, right_answers
from launch.reports.run import read_run


def answers(right: np.ndarray) -> dict[str, bool]:
    return {f"record {number}": bool(one) for number, one in enumerate(right)}


def test_the_interval_is_that_of_drawing_examples_again() -> None:
    one = np.arange(400) % 10 >= 3
    other = one.copy()
    other[:30:10] = True  # 3 more of them
    other[5:400:40] = False  # 10 fewer
    low, high = paired(answers(one), answers(other))
    drawn = np.random.default_rng(1).integers(0, 400, [4_000, 400])
    differences = (other.astype(int) - one)[drawn].mean(axis=1)
    assert [low, high] == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=0.0026)
    # Taken for other examples each, they could lie three times as far apart.
    wide = apart([one.mean(), other.mean()], [400, 400])
    assert wide[1] - wide[0] > 3 * (high - low)


def test_equal_models_differ_in_one_of_twenty_comparisons_and_better_ones_nearly_always() -> None:
    chance = np.random.default_rng(0)

    def told(gain: float) -> float:
        found = []
        for _ in range(300):
            hard = chance.random(1_000)  # what both find hard
            one, other = (hard + 0.2 * chance.normal(size=1_000) < 0.8 + g for g in (0, gain))
            low, high = paired(answers(one), answers(other))
            found.append(not low <= 0 <= high)
        return float(np.mean(found))

    assert 0.01 < told(0.0) < 0.09
    assert told(0.08) > 0.95


def test_an_accuracy_alone_has_the_interval_of_other_examples() -> None:
    low, high = apart([0.9, 0.95], [100, 400])
    reach = 1.96 * math.sqrt(0.9 * 0.1 / 100 + 0.95 * 0.05 / 400)
    assert (low, high) == pytest.approx((0.05 - reach, 0.05 + reach))
    assert paired(answers(np.ones(3)), answers(np.ones(4))) is None
    assert paired({}, {}) is None


def write_answers(run_dir: pathlib.Path, step: int, classes: list[int], right: np.ndarray) -> None:
    folder = run_dir / "evaluation" / f"step-{step}-digits-eval"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "answers.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["example", "class", "answer", "probability", "weight"])
        for number, (label, fits) in enumerate(zip(classes, right, strict=True)):
            rows.writerow([f"record {number}", label, label if fits else label + 1, 0.5, 1])


def test_runs_are_compared_by_their_answers_where_both_have_some(
    runs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    one, other = (pathlib.Path(shutil.copytree(runs / "slow", tmp_path / name)) for name in "ab")
    first, second = read_run(one, "a"), read_run(other, "b")
    said = difference_text(first, second)
    assert "b: accuracy +0.00 points beside a" in said and "launch.evaluate of both" in said
    step, classes = first.log.step, [number % 10 for number in range(360)]
    right = np.arange(360) % 4 > 0
    better = right | (np.arange(360) % 8 == 0)
    write_answers(one, step, classes, right)
    write_answers(other, step, classes, better)
    assert sum(right_answers(second).values()) == better.sum()
    said = difference_text(first, second)
    assert "of the same examples" in said and said.endswith(": more than chance.")
    low = float(re.search(r"([+-][\d.]+) to ", said)[1])
    assert 8 < low < 12.5
    # An evaluation of another step is none of this one.
    write_answers(other, step, classes, right)
    shutil.move(other / "evaluation", tmp_path / "kept")
    write_answers(other, step + 1, classes, better)
    assert right_answers(second) == {}


def test_a_branch_says_what_it_goes_on_from(runs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run_dir = pathlib.Path(shutil.copytree(runs / "slow", tmp_path / "half"))
    assert branch_text(read_run(run_dir, "half")) == ""
    for text, said in (
        (json.dumps({"run_dir": "/runs/whole", "step": 1200}), "half goes on from step 1,200 of "),
        (
            json.dumps({"run_dir": "w/whole", "step": 1200, "request": {"action": "hold"}}),
            "half goes on from step 1,200 of ",
        ),
        ("{", ""),
        ("[]", ""),
        (json.dumps({"run_dir": 3, "step": "x"}), ""),
    ):
        (run_dir / "branch.json").write_text(text, encoding="utf-8")
        assert branch_text(read_run(run_dir, "half")) == (f"{said}whole." if said else "")
