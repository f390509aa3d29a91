"""Every optimizer and every clipping: replicated, restored, with rates and decays of their own."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from helpers import REPOSITORY, different_variables, in_parallel, worst_difference

from trainer.plan.optimizers import MOVING, OPTIMIZERS

TOLERANCE = 1e-5  # floating-point summation order; never to be widened
RATES = {"sgd": 0.05, "lars": 5.0, "lion": 0.001, "muon": 0.01, "adagrad": 0.02, "adadelta": 1.0}
OWN = "--lr_multiplier=dense2/.*=0.5,logits/bias=0 --weight_decay=0.02,dense1/.*=0.05"
# Without momentum, so that the first update is the learning rate times the clipped gradient.
PLAIN = "--optimizer=sgd --momentum=0 --learning_rate=0.5 --warmup=none --decay=constant"
CLIPS = {
    "unclipped": PLAIN,
    "clip_value": f"{PLAIN} --clip_value=0.002",
    "clip_adaptive": f"{PLAIN} --clip_adaptive=0.01",
}
LAYERS = ("dense1", "dense2", "logits")
Moments = dict[str, dict[str, np.ndarray]]


def flags(name: str) -> str:
    """Momenta move where they can, but adamw's; everything else has a cosine, ftrl a constant."""
    decay = "--warmup=2st --decay=cosine"
    if name in MOVING and name != "adamw":
        decay = "--warmup=none --decay=one_cycle(rise=2st)"
    if name == "ftrl":
        decay = "--warmup=none --decay=constant"
    return f"--optimizer={name} --learning_rate={RATES.get(name, 0.003)} {decay} {OWN}"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Moments]]:
    """By replicas and name of the case: its variables at every moment."""
    folder = tmp_path_factory.mktemp("optimizers")
    commands = {name: flags(name) for name in OPTIMIZERS} | CLIPS
    (folder / "cases.json").write_text(json.dumps(commands))

    def run(replicas: str) -> dict[str, Moments]:
        script, out = (
            REPOSITORY / "tests/trainer/optimizer/each_optimizer.py",
            folder / f"{replicas}.npz",
        )
        ended = subprocess.run(
            [sys.executable, str(script), replicas, str(folder / "cases.json"), str(out)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return by_case(out)

    return in_parallel({replicas: functools.partial(run, replicas) for replicas in ("1", "2")})


def by_case(path: pathlib.Path) -> dict[str, Moments]:
    found: dict[str, Moments] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            name, moment, variable = key.split("|")
            found.setdefault(name, {}).setdefault(moment, {})[variable] = arrays[key]
    return found


@pytest.mark.parametrize("name", [*OPTIMIZERS, *CLIPS])
def test_one_replica_and_two_give_the_same_variables(
    cases: dict[str, dict[str, Moments]], name: str
) -> None:
    one, two = (cases[replicas][name]["six"] for replicas in ("1", "2"))
    difference, where = worst_difference(one, two)
    assert difference <= TOLERANCE, where


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_restored_it_goes_on_bit_for_bit(cases: dict[str, dict[str, Moments]], name: str) -> None:
    moments = cases["2"][name]
    assert different_variables(moments["three"], moments["restored"]) == []
    assert different_variables(moments["six"], moments["again"]) == []


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_compared_was_trained_but_for_what_is_frozen(
    cases: dict[str, dict[str, Moments]], name: str
) -> None:
    """Without this the tests above could pass on optimizers that do nothing, or keep no state."""
    moments = cases["2"][name]
    moved = set(different_variables(moments["three"], moments["six"]))
    weights = {f"model/{layer}/{part}" for layer in LAYERS for part in ("kernel", "bias")}
    assert weights - moved == {"model/logits/bias"}
    assert np.array_equal(
        moments["before"]["model/logits/bias"], moments["six"]["model/logits/bias"]
    )
    # Ftrl begins from weights of 0, whatever they were, and has no gradients to accumulate.
    slot = "linear" if name == "ftrl" else ""
    slots = {key for key in moments["six"] if key.startswith("optimizer/") and "dense1" in key}
    slots = {key for key in slots if slot in key}
    assert slots and slots <= moved


def first_gradient(moments: Moments, name: str) -> np.ndarray:
    """What the first update subtracted, over its rate."""
    before, after = (np.float64(moments[when][f"model/{name}"]) for when in ("before", "one"))
    return (before - after) / 0.5


@pytest.mark.parametrize("replicas", ["1", "2"])
def test_values_are_clipped_in_the_sum(cases: dict[str, dict[str, Moments]], replicas: str) -> None:
    found, clipped = cases[replicas], 0
    for layer in LAYERS:
        name = f"{layer}/kernel"
        gradient = first_gradient(found["unclipped"], name)
        expected = np.clip(gradient, -0.002, 0.002)
        clipped += int(np.sum(gradient != expected))
        np.testing.assert_allclose(
            first_gradient(found["clip_value"], name), expected, rtol=1e-3, atol=1e-6
        )
    assert clipped > 100


@pytest.mark.parametrize("replicas", ["1", "2"])
def test_units_are_clipped_in_the_sum_but_for_the_output_layers(
    cases: dict[str, dict[str, Moments]], replicas: str
) -> None:
    found, clipped = cases[replicas], 0
    for layer in LAYERS:
        for part in ("kernel", "bias"):
            name = f"{layer}/{part}"
            gradient = first_gradient(found["unclipped"], name)
            weight = found["unclipped"]["before"][f"model/{name}"]
            axis = 0 if part == "kernel" else None
            most = 0.01 * np.maximum(np.linalg.norm(weight, axis=axis, keepdims=True), 1e-3)
            norms = np.linalg.norm(gradient, axis=axis, keepdims=True)
            short = np.where(norms > most, most / norms, 1.0)
            clipped += int(np.sum(short < 1))
            expected = gradient * (short if layer != "logits" else 1.0)
            np.testing.assert_allclose(
                first_gradient(found["clip_adaptive"], name), expected, rtol=1e-3, atol=1e-6
            )
    assert clipped > 10
