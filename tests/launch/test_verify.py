"""The proof travels with the run: digests, `launch.verify` and `launch.replay` on real runs."""

import json
import pathlib
import shlex
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import (
    REPOSITORY,
    Run,
    call,
    carried_out,
    content,
    different_variables,
    in_parallel,
    train,
)

from launch import replay, verify
from launch.process import cli
from launch.training.re_execution import Ran, command_of, look_into
from trainer.checkpoint import on_disk
from trainer.checkpoint.tensors import write_tensors
from trainer.files.whole_files import append_line

MLP = "--device=cpu --model=mlp --global_batch=64 --lr_scaling=none --learning_rate=0.1"
COMMAND = (
    f"{MLP} --dataset=digits --micro_batch=16 --train_for=40st --eval_every=20st --log_every=5st "
    "--checkpoint_every=20st --check_replicas_every=15st"
)
# After step 6 a bit of a weight flips, on its only device.
FLIPPED = "--steps_per_loop=1 --train_for=12st --log_every=2st --check_replicas_every=4st"
# It has a live change, two rollbacks and, from step 150 on, other flags.
STORY = (
    f"{MLP} --micro_batch=32 --dataset=python:poisoned:wrong_labels --on_divergence=rollback "
    "--checkpoint_every=40st --eval_every=0 --log_every=10st --keep=1 --steps_per_loop=10"
)
COMMANDS = {
    "one": f"launch.train {COMMAND} --run_dir=one",
    "other": f"launch.train {COMMAND} --seed=1 --run_dir=other",
    "flipped": f"flip {COMMAND} {FLIPPED} --run_dir=flipped",
    "audited": f"launch.train {COMMAND} --train_for=8st --audit_every=4st --run_dir=audited",
    "begun": f"launch.train {STORY} --train_for=150st --run_dir=story",
    "story": f"launch.train {STORY} --train_for=180st --weight_decay=0.001 --run_dir=story",
}
LOOKED_AT = {
    "planted": "launch.verify planted --steps=99",
    "flipped": "launch.verify flipped --steps=99",
    "story": "launch.verify story --steps=99",
    "wrongly": "wrongly launch.verify audited --steps=99",
    "wrong replay": "wrongly launch.replay audited --step=7",
    "replay": "launch.replay four --step=20",
    "gone on": "launch.train --flagfile=four/replay/step-20/flags.txt",
}


def on_one_replica(folder: pathlib.Path) -> None:
    """The runs of `COMMANDS`."""
    (folder / "story/control").mkdir(parents=True)
    request = {"id": "a", "action": "scale", "value": 0.5, "who": "a", "when": "b", "reason": ""}
    rates = {"learning_rate_before": 0.1, "learning_rate_after": 0.05}
    ledger = folder / "story/control/applied.jsonl"
    append_line(ledger, {"step": 30, "request": request, **rates})
    codes = {name: ended.code for name, ended in carried_out(folder, COMMANDS).items()}
    assert set(codes.values()) == {0}, codes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of all runs."""
    made = tmp_path_factory.mktemp("runs")
    tasks = {
        "one": lambda: on_one_replica(made),
        "four": lambda: train(made, "four", f"{COMMAND} --replicas=4"),
    }
    in_parallel(tasks)
    return made


def digests(run: Run) -> dict[int, tuple[str, str]]:
    rows = [row for row in run.rows() if row.get("event") == "digest"]
    assert len({row["step"] for row in rows}) == len(rows)
    return {row["step"]: (row["weights"], row["state"]) for row in rows}


def test_runs_on_one_and_on_four_replicas_have_the_same_digests_and_no_other_has(
    folder: pathlib.Path,
) -> None:
    one, four, other = (digests(Run(folder / name)) for name in ("one", "four", "other"))
    assert list(one) == [15, 20, 30, 40]
    assert one == four
    both = set(one.values()) | set(other.values())
    assert len({w for w, _ in both}) == len({s for _, s in both}) == 8
    for step in (20, 40):
        state = on_disk.read_state(folder / f"four/checkpoints/step-{step}")
        assert (state["digest"]["weights"], state["digest"]["state"]) == one[step]


def change_row(run: pathlib.Path, step: int, field: str, change: Callable[[Any], Any]) -> Any:
    """Changes the field of a step's row in the log; returns what it was, and is."""
    log, pairs = run / "metrics.jsonl", []
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for row in rows:
        if row["step"] == step and field in row:
            pairs.append((row[field], change(row[field])))
            row[field] = pairs[-1][1]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (pair,) = pairs
    return pair


def last_bit(value: float) -> float:
    return float(np.nextafter(value, 1.0))


def rewrite(checkpoint: pathlib.Path, name: str) -> None:
    """Changes one weight of a checkpoint, which is whole again afterwards."""
    run, step = Run(checkpoint.parents[1]), int(checkpoint.name.removeprefix("step-"))
    values = run.variables(step)
    values[name][0, 0] += 1e-3
    for path in [*checkpoint.glob("variables*"), checkpoint / "manifest.json"]:
        path.unlink()
    write_tensors(checkpoint, list(values), list(values.values()))
    on_disk.seal(checkpoint)


def plant(folder: pathlib.Path) -> dict[str, Any]:
    """Plants faults in a copy of a run; what the values were and are."""
    planted = folder / "planted"
    shutil.copytree(folder / "one", planted)
    faults = {
        "loss": change_row(planted, 10, "train/loss", last_bit),
        "digest": change_row(planted, 15, "state", lambda text: "0" * 16),
    }
    rewrite(planted / "checkpoints/step-20", "model/dense1/kernel")
    return faults


@pytest.fixture(scope="module")
def found(folder: pathlib.Path) -> dict[str, Any]:
    """What the commands say of the runs, what was planted, and the folder `four` beside it."""
    faults = plant(folder)
    shutil.copytree(folder / "four", folder / "looked at")
    before = content(folder / "looked at")
    several = in_parallel(
        {
            "all": lambda: carried_out(folder, LOOKED_AT),
            "four": lambda: call(
                "'looked at' --steps=2 --replicas=2", folder, module="launch.verify"
            ),
        }
    )
    changed = content(folder / "looked at") != before
    return {**several["all"], "four": several["four"], "faults": faults, "changed": changed}


def told(found: dict[str, Any], name: str) -> str:
    """What a command has printed, on one line."""
    return " ".join(found[name].out.split())


def test_a_run_on_four_replicas_is_verified_on_two_and_nothing_is_written(
    found: dict[str, Any],
) -> None:
    ended = found["four"]
    assert (ended.code, ended.err) == (0, ""), ended
    assert not found["changed"]
    assert "2 of 8 steps in its log" in ended.out and "--replicas=2" in ended.out
    assert ended.out.endswith("looked at: the same again, bit for bit\n")


def test_a_flipped_bit_of_a_row_and_of_a_digest_are_named(found: dict[str, Any]) -> None:
    out, faults = told(found, "planted"), found["faults"]
    assert found["planted"].code == cli.FAILED
    was, now = faults["loss"]
    assert f"step 10: train/loss is {now} in the run's log, and comes out as {was}" in out
    was, now = faults["digest"]
    assert f"step 15: state is {now} in the run's log, and comes out as {was}" in out
    assert "does not come out again; first step 10: train/loss is" in out
    assert "from step 0 to step 20: 4 rows and 1 digest are the same again" in out
    assert "step 5: " not in out


def test_a_checkpoint_with_another_weight_is_named(found: dict[str, Any]) -> None:
    out = told(found, "planted")
    assert "step 20: weights (of the checkpoint) is" in out
    assert "step 25: train/loss is" in out  # what follows from it is not what the run went on with


def test_a_weight_that_was_disturbed_in_mid_run_is_found_and_its_step_named(
    found: dict[str, Any],
) -> None:
    out = told(found, "flipped")
    assert found["flipped"].code == cli.FAILED
    # The row of step 6 is from before the bit has flipped.
    assert "from step 0 to step 12: 3 rows and 1 digest are the same again" in out
    assert "first step 8: " in out and "step 6: " not in out and "step 4: " not in out


def test_a_device_that_computes_wrongly_while_it_does_them_again_is_named(
    found: dict[str, Any],
) -> None:
    for name in ("wrongly", "wrong replay"):
        assert found[name].code == cli.FAILED
        assert "error: step 4: replica 0 (CPU:0) computes wrongly" in told(found, name)


def resumed_at_20(folder: pathlib.Path, out: pathlib.Path, changed: dict[str, Any]) -> Ran:
    """The run `one` with an event in its log: that it was resumed with other flags."""
    shutil.copytree(folder / "one", out)
    log = out / "metrics.jsonl"
    event = {"step": 20, "event": "resumed", "changed": changed}
    lines = log.read_text().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if json.loads(line)["step"] > 20)
    log.write_text("".join([*lines[:place], json.dumps(event) + "\n", *lines[place:]]))
    return look_into(out)


BEHIND, BEFORE = [25, 30, 35, 40], [5, 10, 15, 20]


@pytest.mark.parametrize(
    ("changed", "steps", "said"),
    [
        ({"threads": (99, 2)}, BEHIND, "4 steps with --threads=99, which a process cannot change"),
        ({"deterministic": (True, False)}, BEHIND, "4 steps with --deterministic=True, which"),
        (
            {"exact_sums": ("off", "on"), "replicas": (2, 1)},
            BEHIND,
            "4 steps with --replicas=2, which a process cannot change",
        ),
        ({"exact_sums": ("off", "on")}, BEHIND, "the log does not say on how many replicas"),
        ({"device": ("gpu", "cpu")}, BEHIND, "until step 20 its --device was gpu, which has other"),
        ({"xla": ("on", "off")}, BEFORE + BEHIND, ""),
    ],
)
def test_what_a_process_or_a_machine_cannot_do_again_is_not_judged(
    folder: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, Any],
    steps: list[int],
    said: str,
) -> None:
    ran = resumed_at_20(folder, tmp_path / "resumed", changed)
    chosen = verify.chosen(ran, 99, 0)
    assert sorted(step for some in chosen.values() for step in some) == steps
    out = capsys.readouterr().out
    assert said in out and ("could not be judged" in out) == bool(said)


def test_a_way_on_which_a_process_would_change_its_threads_is_refused(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    ran = resumed_at_20(folder, tmp_path / "resumed", {"threads": (1, 99)})
    assert ran.why_not(0, 20) == "" == ran.why_not(20, 40)
    assert "--threads changed at step 20" in ran.why_not(0, 40)


def test_a_leg_has_the_replicas_that_its_sums_were_of(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """And exact sums have whatever number is asked for."""
    given, commands = ["--device=cpu", "--replicas=1"], {}
    for then, now in (("off", "on"), ("on", "off")):
        changed = {"exact_sums": (then, now), "replicas": (2, 1), "device": ("cpu", "cpu")}
        ran = resumed_at_20(folder, tmp_path / then, changed)
        commands[then] = command_of(ran, tmp_path / "out", ran.way(0, 10)[0], given)
    replicas = {then: command.settings.devices.replicas for then, command in commands.items()}
    assert replicas == {"off": 2, "on": 1}


def test_live_changes_rollbacks_and_other_flags_are_done_again(
    folder: pathlib.Path, found: dict[str, Any]
) -> None:
    run = Run(folder / "story")
    assert {"control", "rollback", "resumed"} <= {row.get("event") for row in run.rows()}
    assert run.checkpoints() == [180]  # the way from the beginning leads over all of them
    assert found["story"].code == 0, found["story"].out
    assert "18 of 18 steps in its log" in told(found, "story")


def test_a_replay_reaches_the_very_bits_and_says_so(
    folder: pathlib.Path, found: dict[str, Any]
) -> None:
    run, four = Run(folder / "four/replay/step-20"), Run(folder / "four")
    assert found["replay"].code == 0, found["replay"]
    assert different_variables(run.variables(20), four.variables(20)) == []
    out, (weights, state) = told(found, "replay"), digests(four)[20]
    assert "step 20, 20 steps from the beginning" in out
    assert f"weights {weights}, state {state}" in out
    assert "has the same digest and evaluation and training, bit for bit; so do 4 rows" in out
    (row,) = [row for row in four.rows("train/loss") if row["step"] == 20]
    assert f"learning_rate {row['learning_rate']:.9g}" in out


def test_a_replayed_run_goes_on_to_the_same_end(
    folder: pathlib.Path, found: dict[str, Any]
) -> None:
    assert found["gone on"].code == 0, found["gone on"]
    gone_on, four = Run(folder / "four/replay/step-20"), Run(folder / "four")
    assert different_variables(gone_on.variables(40), four.variables(40)) == []
    assert gone_on.rows_without_times() == four.rows_without_times()


WRONG = {
    "verify nowhere": ["nowhere holds no run", "--run_dir"],
    "verify": ["give one run folder"],
    "verify one --replicas=3": ["4 micro-batches of 16", "3 replicas cannot share", "1, 2 or 4"],
    "verify one --device=gpu": ["was trained on CPUs", "--device=cpu"],
    "verify one --steps=0": ["steps", "from 1"],
    "replay nowhere --step=3": ["nowhere holds no run"],
    "replay one --step=41": ["--step=41", "the steps 1 to 40"],
    "replay one": ["--step=0", "the steps 1 to 40"],
    "replay lost --step=50": ["step 50", "cannot be come to", "--scale=0.5 of step 30"],
    "replay one --step=3 --out=one": ["one holds other things", "--out"],
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_is_answered_with_a_sentence(
    line: str, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests"))
    if not (folder / "lost").exists():  # a run whose live change nobody knows of any more
        shutil.copytree(folder / "story", folder / "lost")
        (folder / "lost/control/applied.jsonl").unlink()
    before = content(folder)
    name, *arguments = shlex.split(line)
    with pytest.raises(cli.WrongCommandError) as error:
        {"verify": verify, "replay": replay}[name].main(arguments)
    assert all(part in str(error.value) for part in WRONG[line]), error.value
    assert "\n" not in str(error.value)
    assert content(folder) == before
