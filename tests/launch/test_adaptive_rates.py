"""Rates that follow the training: plateau, AdaScale, per-variable multipliers, scaled betas."""

import math
import pathlib
import signal

import numpy as np
import pytest
from helpers import (
    Run,
    call,
    different_variables,
    finish,
    logged_step,
    start,
    train_all,
    wait_until,
    worst_difference,
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


@pytest.fixture(scope="module")
def adascale_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """AdaScale on REPLICASxMICRO_BATCHES, four micro-batches each."""
    commands = {
        f"{r}x{a}": f"{ADASCALE} --replicas={r} --accumulate={a}"
        for r, a in [(1, 4), (2, 2), (4, 1)]
    }
    return train_all(tmp_path_factory.mktemp("adascale"), commands)


def test_adascale_is_the_same_for_an_equal_number_of_micro_batches(
    adascale_runs: dict[str, Run],
) -> None:
    first = adascale_runs["1x4"]
    assert first.plan()["learning_rate"]["adascale"] == 4
    for name in ("2x2", "4x1"):
        worst, where = worst_difference(first.variables(50), adascale_runs[name].variables(50))
        assert worst <= 1e-5, f"{name}: {where} differs by {worst}"


def test_adascales_gain_moves_the_progress_and_multiplies_the_rate(
    adascale_runs: dict[str, Run],
) -> None:
    rows = adascale_runs["2x2"].rows("gain")
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


def test_adascale_needs_something_to_compare(tmp_path: pathlib.Path) -> None:
    alone = call(f"{ADASCALE} --replicas=1 --run_dir={tmp_path / 'run'}", tmp_path)
    assert alone.code == 2 and "--accumulate=2" in alone.err
    mixed = f"{ADASCALE} --replicas=2 --model=cnn --run_dir={tmp_path / 'run'}"
    ended = call(mixed, tmp_path)
    assert ended.code == 2 and "BatchNormalization" in ended.err


def test_a_plateau_cuts_the_rate_and_a_kill_does_not_change_it(tmp_path: pathlib.Path) -> None:
    whole, killed = Run(tmp_path / "whole"), Run(tmp_path / "killed")
    process = start(f"{PLATEAU} --run_dir={killed.folder}", tmp_path)
    # Cuts at 120 and 200; a checkpoint at 100 and at 200.
    wait_until(lambda: logged_step(killed.folder) > 150, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for run in (whole, killed):
        ended = call(f"{PLATEAU} --run_dir={run.folder}", tmp_path)
        assert ended.code == 0, ended
    cuts = [row for row in whole.rows() if row.get("event") == "plateau"]
    assert [(row["step"], row["scale"]) for row in cuts] == [(120, 0.5), (200, 0.25), (280, 0.2)]
    rates = {row["step"]: row["learning_rate"] for row in whole.rows("learning_rate")}
    for step, rate in [(120, 0.05), (121, 0.025), (201, 0.0125), (281, 0.01), (400, 0.01)]:
        assert math.isclose(rates[step], rate, rel_tol=1e-6), step
    assert different_variables(whole.variables(400), killed.variables(400)) == []
    assert whole.rows_without_times() == killed.rows_without_times()


def test_multipliers_scale_freeze_and_are_logged(tmp_path: pathlib.Path) -> None:
    common = (
        f"{DIGITS} --replicas=2 --global_batch=32 --optimizer=sgd --momentum=0 --learning_rate=0.1 "
        "--lr_scaling=none --warmup=0 --decay=constant --weight_decay=0.1 --train_for=1st"
    )
    runs = train_all(
        tmp_path,
        {
            "none": f"{common} --lr_multiplier=logits=0,dense1=0,dense2=0",
            "plain": common,
            "own": f"{common} --lr_multiplier=dense1/kernel=0.5,dense2=0",
            "depth": f"{common} --layer_decay=0.5",
        },
    )
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


def test_a_pattern_that_takes_no_variable_is_an_error(tmp_path: pathlib.Path) -> None:
    ended = call(f"{DIGITS} --lr_multiplier=head=0.1 --run_dir={tmp_path / 'run'}", tmp_path)
    assert ended.code == 2 and "'head' took no variable" in ended.err and "dense1" in ended.err


def test_resuming_tells_what_changed_and_exact_refuses_it(tmp_path: pathlib.Path) -> None:
    run = Run(tmp_path / "run")
    command = f"{DIGITS} --global_batch=32 --train_for=20st --run_dir={run.folder}"
    assert call(f"{command} --learning_rate=0.1", tmp_path).code == 0
    longer = f"{command} --train_for=40st --learning_rate=0.2"
    refused = call(f"{longer} --resume=exact", tmp_path)
    assert refused.code == 2 and "--learning_rate" in refused.err
    assert run.checkpoints() == [20]
    ended = call(longer, tmp_path)
    assert ended.code == 0, ended
    assert any(line.split() == ["--learning_rate", "0.1", "0.2"] for line in ended.out.splitlines())
    (event,) = [row for row in run.rows() if row.get("event") == "resumed"]
    assert event["step"] == 20 and event["changed"]["learning_rate"] == [0.1, 0.2]
    rates = [row["learning_rate"] for row in run.rows("learning_rate")]
    # From the restored progress, 20, under the new settings: warmup of 2, a cosine over 38.
    peak = 0.2 * 32 / 256
    wanted = [peak * (1 + math.cos(math.pi * (p - 2) / 38)) / 2 for p in range(20, 40)]
    np.testing.assert_allclose(rates[20:], wanted, rtol=1e-6)


def test_stopping_by_signal_is_not_a_change(tmp_path: pathlib.Path) -> None:
    run = Run(tmp_path / "run")
    command = f"{PLATEAU} --run_dir={run.folder} --resume=exact"
    process = start(command, tmp_path)
    wait_until(lambda: logged_step(run.folder) > 10, process)
    process.send_signal(signal.SIGTERM)
    assert finish(process).code == 75
    ended = call(command, tmp_path)
    assert ended.code == 0 and "from now on" not in ended.out, ended
