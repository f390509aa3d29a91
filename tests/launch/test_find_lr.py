"""`launch.find_lr` on digits: what it leaves behind, what it leaves alone, what it refuses."""

import functools
import json
import pathlib
import re
import struct
from typing import Any

import numpy as np
import pytest
from helpers import REPOSITORY, Ended, Run, call, content

from launch.flags.command import read_command
from trainer.actions.range_test import MARGIN

FLAGS = (
    "--device=cpu --dataset=digits --augment=shift(1) --model=mlp --global_batch=64 --momentum=0.9 "
    "--weight_decay=0.001 --clip_norm=5 --train_for=3ep --sweep_for=100st"
)
find = functools.partial(call, module="launch.find_lr")


TWICE = "--device=cpu --dataset=digits --global_batch=60 --replicas=3"
OPTIMIZERS = {
    "sgd": "--model=mlp --optimizer=sgd --momentum=0.9 --micro_batch=10",
    "adamw": "--model=cnn --optimizer=adamw --weight_decay=0.01",
}


def sweep_twice(folder: pathlib.Path, more: str) -> Ended:
    """What tests/sweep_twice.py says."""
    modules = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    sweep = "--sweep_for=40st --from_rate=0.0001 --to_rate=1"
    return call(f"{TWICE} {more} {sweep}", folder, modules, module="sweep_twice")


def range_test(folder: pathlib.Path, more: str) -> tuple[pathlib.Path, Ended]:
    return folder, find(f"{FLAGS} {more}", folder)


STORIES = {
    "adamw": functools.partial(sweep_twice, more=OPTIMIZERS["adamw"]),
    "sgd": functools.partial(sweep_twice, more=OPTIMIZERS["sgd"]),
    "1": functools.partial(range_test, more="--replicas=1 --out=out"),
    "2": functools.partial(range_test, more="--replicas=2 --out=out"),
    "narrow": functools.partial(range_test, more="--from_rate=0.4 --to_rate=1.2 --out=out"),
    "diverges": functools.partial(range_test, more="--from_rate=1000 --to_rate=10000"),
}


@pytest.fixture(scope="module")
def found(stories: dict[str, Any]) -> dict[str, tuple[pathlib.Path, Ended]]:
    """A range test on 1 and on 2 replicas, each in a folder of its own."""
    for n in ("1", "2"):
        assert stories[n][1].code == 0, stories[n][1]
    return {n: stories[n] for n in ("1", "2")}


@pytest.mark.parametrize("replicas", ["1", "2"])
def test_it_prints_a_suggestion_at_both_batches(
    found: dict[str, tuple[pathlib.Path, Ended]], replicas: str
) -> None:
    folder, ended = found[replicas]
    assert ended.err == ""
    assert max(map(len, ended.out.splitlines())) <= 80
    pattern = r"suggested: (\S+) at batch 64 = (\S+) at the reference batch 256 \(linear\)"
    here, reference = map(float, re.search(pattern, ended.out).groups())
    assert here == pytest.approx(reference / 4, rel=1e-2)
    # The best rates of a grid: 0.1 and 0.2; it diverges from 0.4 to 0.8.
    assert 0.03 <= here <= 0.3
    result = json.loads((folder / "out" / "range_test.json").read_text(encoding="utf-8"))
    assert result["learning_rate_at_reference_batch"] == reference
    lasting = [trial for trial in result["trials"] if trial["lasts"]]
    best = min(lasting, key=lambda trial: trial["loss"])
    assert here == pytest.approx(MARGIN * best["learning_rate"], rel=0.1)


def test_two_replicas_see_the_same_curve_as_one(
    found: dict[str, tuple[pathlib.Path, Ended]],
) -> None:
    one, two = (Run(found[n][0] / "out").rows("train/") for n in ("1", "2"))
    # Before rounding has grown: there the two trainings are one.
    for a, b in zip(one[:60], two[:60], strict=True):
        assert a["learning_rate"] == b["learning_rate"]
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-4)


def test_the_rates_are_the_sweep_that_was_asked_for(
    found: dict[str, tuple[pathlib.Path, Ended]],
) -> None:
    run = Run(found["1"][0] / "out")
    rows = run.rows("train/")
    expected = np.geomspace(1e-5, 100, 100)[: len(rows)] * 64 / 256
    np.testing.assert_allclose([row["learning_rate"] for row in rows], expected, rtol=1e-6)
    board = run.board("train")
    assert [step for step, _ in board["loss"]] == [row["step"] for row in rows]
    np.testing.assert_allclose([rate for _, rate in board["learning_rate"]], expected, rtol=1e-6)


def test_it_leaves_a_picture_and_nothing_but_its_results(
    found: dict[str, tuple[pathlib.Path, Ended]],
) -> None:
    folder, _ = found["1"]
    assert [path.name for path in folder.iterdir()] == ["out"]
    png = (folder / "out" / "range_test.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    assert width > 800 and height > 400
    events = b"".join(path.read_bytes() for path in (folder / "out" / "train").iterdir())
    assert png in events


def test_the_flagfile_found_trains_at_the_rate_found(
    found: dict[str, tuple[pathlib.Path, Ended]], tmp_path: pathlib.Path
) -> None:
    flagfile = found["2"][0] / "out" / "found.flags"
    result = json.loads((flagfile.parent / "range_test.json").read_text(encoding="utf-8"))
    command = read_command([f"--flagfile={flagfile}"])
    rate = command.settings.learning_rate.learning_rate
    assert rate == result["learning_rate_at_reference_batch"]
    asked = read_command(FLAGS.replace("--sweep_for=100st", "--replicas=2").split())
    changed = {
        name for name in asked.values if asked.values[name].value != command.values[name].value
    }
    assert changed <= {"learning_rate", "run_dir"}
    ended = call(f"--flagfile={flagfile} --run_dir=run --warmup=none --log_every=1st", tmp_path)
    assert ended.code == 0, ended
    rows = Run(tmp_path / "run").rows("train/")
    assert rows[0]["learning_rate"] == pytest.approx(rate / 4, rel=1e-6)
    assert rows[-1]["train/loss"] < rows[0]["train/loss"] / 2


def test_a_second_range_test_takes_the_place_of_the_first(
    found: dict[str, tuple[pathlib.Path, Ended]],
) -> None:
    folder, _ = found["1"]
    before = (folder / "out" / "metrics.jsonl").read_text(encoding="utf-8")
    command = f"{FLAGS} --out=out --sweep=linear --to_rate=8 --lr_scaling=none"
    ended = find(command, folder)
    assert ended.code == 0, ended
    assert "suggested" in ended.out
    after = Run(folder / "out").rows("train/")
    assert (folder / "out" / "metrics.jsonl").read_text(encoding="utf-8") != before
    expected = np.linspace(1e-5, 8, 100)[: len(after)]
    np.testing.assert_allclose([row["learning_rate"] for row in after], expected, rtol=1e-6)
    assert len(Run(folder / "out").board("train")["loss"]) == len(after)


def test_a_sweep_that_begins_at_good_rates_looks_below_them(stories: dict[str, Any]) -> None:
    folder, ended = stories["narrow"]
    assert ended.code == 0, ended
    result = json.loads((folder / "out" / "range_test.json").read_text(encoding="utf-8"))
    assert 0.02 < result["learning_rate"] < 0.4
    tried = [trial["learning_rate"] for trial in result["trials"]]
    assert min(tried) < 0.1 < result["edge"]  # which is the sweep's first rate


def test_what_does_not_succeed_leaves_what_was_there(
    found: dict[str, tuple[pathlib.Path, Ended]],
) -> None:
    folder, _ = found["2"]
    before = content(folder)
    assert find(f"{FLAGS} --out=out --from_rate=1000 --to_rate=10000", folder).code == 76
    assert content(folder) == before


def test_a_sweep_that_only_diverges_gives_no_suggestion(stories: dict[str, Any]) -> None:
    folder, ended = stories["diverges"]
    assert ended.code == 76
    assert "no suggestion" in ended.out and "a lower --from_rate" in ended.out
    assert not (folder / "runs/find_lr/digits-mlp/found.flags").exists()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_state_is_put_back_bit_for_bit(stories: dict[str, Any], optimizer: str) -> None:
    ended = stories[optimizer]
    assert ended.code == 0, ended.err
    result = json.loads(ended.out)
    # Weights and slots of three replicas, and what steers the rate.
    assert len(result["changed"]) > result["variables"] / 2
    assert result["not put back"] == []
    assert result["other rows"] == []


WRONG = {
    "--sweep=quadratic": ["--sweep=quadratic", "exponential, linear"],
    "--from_rate=1 --to_rate=0.1": ["--from_rate=1", "--to_rate=0.1", "larger"],
    "--from_rate=0": ["--from_rate=0", "above 0"],
    "--sweep_for=5st": ["--sweep_for=5st", "20st"],
    "--sweep_for=3000000000st": ["3,000,000,000 steps", "at most 1000000st"],
    "--optimizer=ftrl --warmup=none --decay=constant": ["--optimizer=ftrl", "of your own"],
    "--sweep_for=5": ["--sweep_for", "'5'", "has no unit"],
    "--lr_scaling=adascale --micro_batch=32 --lr_reference_batch=32": [
        "--lr_scaling=adascale",
        "--global_batch=32 --lr_scaling=none",
    ],
    "--out=used": ["--out=used", "other things"],
    "--learning_rat=1": ["learning_rat", "learning_rate"],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_command_is_one_sentence(wrong: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "flags.txt").write_text("--seed=0\n", encoding="utf-8")
    ended = find(f"--device=cpu {wrong}", tmp_path)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1
    for part in WRONG[wrong]:
        assert part in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["used"]
