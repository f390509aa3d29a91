"""Rates that follow the training: plateau, AdaScale, per-variable multipliers, scaled betas."""

import functools
import math
import pathlib
from typing import Any

import numpy as np
import pytest
from helpers import (
    Ended,
    Gate,
    Run,
    call,
    different_variables,
    finish,
    logged_step,
    train,
    train_in_turn,
)

DIGITS = "--device=cpu --dataset=digits --augment=shift(1) --model=mlp --log_every=1st"
ADASCALE = (
    f"{DIGITS} --lr_scaling=adascale --global_batch=128 --lr_reference_batch=32 "
    "--learning_rate=0.05 --optimizer=sgd --momentum=0.9 --train_for=240st --eval_every=0 "
    "--checkpoint_every=50st"
)
# With a threshold of 1000 % nothing is an improvement: a cut after every second evaluation.
PLATEAU = (
    f"{DIGITS} --replicas=2 --global_batch=32 --learning_rate=0.05 --lr_scaling=none --warmup=0 "
    "--decay=constant --train_for=400st --eval_every=40st --checkpoint_every=100st "
    "--steps_per_loop=5 --plateau=reduce(0.5,patience=1,threshold=10,minimum=0.2)"
)


MULTIPLIERS = (
    f"{DIGITS} --replicas=2 --global_batch=32 --optimizer=sgd --momentum=0 --learning_rate=0.1 "
    "--lr_scaling=none --warmup=0 --decay=constant --weight_decay=0.1 --train_for=1st"
)
RESUMED = f"{DIGITS} --global_batch=32 --train_for=20st --run_dir=run"


def adascale(folder: pathlib.Path, replicas: int) -> Run:
    """AdaScale with four micro-batches."""
    return train(folder, "run", f"{ADASCALE} --micro_batch=32 --replicas={replicas}")


def plateau(folder: pathlib.Path) -> Run:
    """A run that is left alone."""
    return train(folder, "whole", PLATEAU)


def interrupted_plateau(folder: pathlib.Path) -> tuple[Run, Ended]:
    """The same killed behind step 150, then asked to stop, then left alone; and its last end."""
    run = Run(folder / "run")
    command = f"{PLATEAU} --run_dir={run.folder} --resume=exact"
    gate = Gate(run.folder)
    process = gate.start(command, folder)
    # Cuts at 120 and 200; a checkpoint at 100 and at 200.
    gate.pass_until(lambda: logged_step(run.folder) > 150, process)
    gate.kill_behind(process)
    assert run.checkpoints() == [100]
    gate = Gate(run.folder)
    process = gate.start(command, folder)
    gate.pass_until(lambda: logged_step(run.folder) > 250, process)
    gate.stop_behind(process)
    assert finish(process).code == 75
    return run, call(command, folder)


def multipliers(folder: pathlib.Path) -> dict[str, Run]:
    """A step with no multipliers and with several; `none` leaves every variable as it was."""
    commands = {
        "none": f"{MULTIPLIERS} --lr_multiplier=logits=0,dense1=0,dense2=0",
        "plain": MULTIPLIERS,
        "own": f"{MULTIPLIERS} --lr_multiplier=dense1/kernel=0.5,dense2=0",
        "depth": f"{MULTIPLIERS} --layer_decay=0.5",
    }
    return train_in_turn(folder, commands)


def resumed_with_other_flags(folder: pathlib.Path) -> tuple[Run, Ended, Ended]:
    """20 steps, then 20 more at another rate; what became of --resume=exact, and of the rest."""
    run = Run(folder / "run")
    assert call(f"{RESUMED} --learning_rate=0.1", folder).code == 0
    longer = f"{RESUMED} --train_for=40st --learning_rate=0.2"
    refused = call(f"{longer} --resume=exact", folder)
    assert run.checkpoints() == [20]
    return run, refused, call(longer, folder)


def unknown_pattern(folder: pathlib.Path) -> Ended:
    return call(f"{DIGITS} --lr_multiplier=head=0.1 --run_dir=run", folder)


def adascale_with_batch_normalization(folder: pathlib.Path) -> Ended:
    return call(
        f"{ADASCALE} --replicas=2 --model=cnn --batch_norm=synchronized --run_dir=run", folder
    )


STORIES = {
    "interrupted plateau": interrupted_plateau,
    "resumed with other flags": resumed_with_other_flags,
    "multipliers": multipliers,
    "plateau": plateau,
    "1": functools.partial(adascale, replicas=1),
    "2": functools.partial(adascale, replicas=2),
    "4": functools.partial(adascale, replicas=4),
    "unknown pattern": unknown_pattern,
    "adascale with batch normalization": adascale_with_batch_normalization,
}


def test_adascale_is_the_same_to_the_bit_on_any_number_of_replicas(
    stories: dict[str, Any],
) -> None:
    first = stories["1"]
    assert first.plan()["learning_rate"]["adascale"] == 4
    for name in ("2", "4"):
        assert different_variables(first.variables(50), stories[name].variables(50)) == [], name
        assert first.rows_without_times() == stories[name].rows_without_times(), name


def test_adascales_gain_moves_the_progress_and_multiplies_the_rate(
    stories: dict[str, Any],
) -> None:
    rows = stories["2"].rows("gain")
    gains = np.array([row["gain"] for row in rows])
    assert np.all((gains >= 1) & (gains <= 4)) and gains.max() - gains.min() > 0.5
    progress = np.concatenate([[0.0], np.cumsum(gains)])
    np.testing.assert_allclose([row["progress"] for row in rows], progress[1:], rtol=1e-5)
    # The default: 5 % of warmup, then a cosine, of the 240 updates of the reference batch.
    p = progress[:-1]
    curve = np.where(
        p < 12,
        0.05 * np.minimum((p + 1) / 12, 1),
        0.05 * (1 + np.cos(np.pi * np.minimum((p - 12) / 228, 1))) / 2,
    )
    applied = [row["learning_rate"] for row in rows]
    np.testing.assert_allclose(applied, curve * gains, rtol=1e-4, atol=1e-9)
    # The run is over when the work of 240 reference updates is done, and not before.
    assert progress[-2] < 240 - 1e-3 <= progress[-1]
    assert 60 <= len(rows) < 240


def test_adascale_needs_something_to_compare(
    stories: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    alone = call(f"{ADASCALE} --replicas=1 --run_dir={tmp_path / 'run'}", tmp_path)
    assert alone.code == 2 and "use a smaller --micro_batch" in alone.err
    ended = stories["adascale with batch normalization"]
    assert ended.code == 2 and "BatchNormalization" in ended.err


def test_a_plateau_cuts_the_rate_and_a_kill_does_not_change_it(stories: dict[str, Any]) -> None:
    whole, (killed, ended) = stories["plateau"], stories["interrupted plateau"]
    assert ended.code == 0, ended
    cuts = [row for row in whole.rows() if row.get("event") == "plateau"]
    assert [(row["step"], row["scale"]) for row in cuts] == [(120, 0.5), (200, 0.25), (280, 0.2)]
    rates = {row["step"]: row["learning_rate"] for row in whole.rows("learning_rate")}
    for step, rate in [(120, 0.05), (121, 0.025), (201, 0.0125), (281, 0.01), (400, 0.01)]:
        assert math.isclose(rates[step], rate, rel_tol=1e-6), step
    assert different_variables(whole.variables(400), killed.variables(400)) == []
    assert whole.rows_without_times() == killed.rows_without_times()


def test_multipliers_scale_freeze_and_are_logged(stories: dict[str, Any]) -> None:
    runs = stories["multipliers"]
    start, plain, own, depth = (
        runs[name].variables(1) for name in ("none", "plain", "own", "depth")
    )

    def share(moved: dict[str, np.ndarray], name: str) -> float:
        change = np.linalg.norm(moved[name] - start[name])
        return float(change / np.linalg.norm(plain[name] - start[name]))

    for name, factor in [("dense1/kernel", 0.5), ("dense1/bias", 1.0), ("logits/kernel", 1.0)]:
        assert math.isclose(share(own, f"model/{name}"), factor, rel_tol=1e-4), name
    for name in ("model/dense2/kernel", "model/dense2/bias"):
        assert np.array_equal(own[name], start[name]), name
        assert not np.array_equal(plain[name], start[name]), name
    for name, factor in [("dense1/kernel", 0.25), ("dense2/kernel", 0.5), ("logits/kernel", 1.0)]:
        assert math.isclose(share(depth, f"model/{name}"), factor, rel_tol=1e-4), name
    (row,) = runs["own"].rows("learning_rate")
    logged = {name: rate for name, rate in row.items() if name.startswith("learning_rate")}
    wanted = {"": 0.1, "/dense1/kernel": 0.05, "/dense2": 0.0, "/rest": 0.1}
    assert logged == pytest.approx({f"learning_rate{k}": v for k, v in wanted.items()}, rel=1e-6)
    assert "dense2/kernel, dense2/bias" in runs["own"].ended.out


def test_a_pattern_that_takes_no_variable_is_an_error(stories: dict[str, Any]) -> None:
    ended = stories["unknown pattern"]
    assert ended.code == 2 and "'head' took no variable" in ended.err and "dense1" in ended.err


def test_resuming_tells_what_changed_and_exact_refuses_it(stories: dict[str, Any]) -> None:
    run, refused, ended = stories["resumed with other flags"]
    assert refused.code == 2 and "--learning_rate" in refused.err
    assert ended.code == 0, ended
    assert any(line.split() == ["--learning_rate", "0.1", "0.2"] for line in ended.out.splitlines())
    (event,) = [row for row in run.rows() if row.get("event") == "resumed"]
    assert event["step"] == 20 and event["changed"]["learning_rate"] == [0.1, 0.2]
    rates = [row["learning_rate"] for row in run.rows("learning_rate")]
    # From the restored progress, 20, under the new settings: warmup of 2, a cosine over 38.
    peak = 0.2 * 32 / 256
    wanted = [peak * (1 + math.cos(math.pi * (p - 2) / 38)) / 2 for p in range(20, 40)]
    np.testing.assert_allclose(rates[20:], wanted, rtol=1e-6)


def test_stopping_by_signal_is_not_a_change(stories: dict[str, Any]) -> None:
    _, ended = stories["interrupted plateau"]
    assert ended.code == 0 and "from now on" not in ended.out, ended
