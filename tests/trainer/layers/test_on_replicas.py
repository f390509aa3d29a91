"""Random layers, averages, a regularizer, unequal weights: the same bits on 1 and 4 replicas.

And BatchNormalization, local and synchronized.
"""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from helpers import REPOSITORY, in_parallel, relative_difference
from train_in_memory import BATCH, examples

TOLERANCE = 1e-5
FLAGS = (
    "7 5 --ema=0.9 --l2=0.001 --class_weights=1=2.5,3=0.2 --label_smoothing=0.1 --clip_norm=1 "
    "--weight_decay=0.01 --learning_rate=0.3"
)
# A synchronized BatchNormalization sees the micro-batches of all replicas: here, twice 16 examples.
SYNCHRONIZED = f"{FLAGS} --batch_norm=synchronized"
RUNS = {
    "1": f"{FLAGS} --micro_batch=4",
    "4": f"{FLAGS} --micro_batch=4 --replicas=4",
    "2": f"{FLAGS} --micro_batch=16 --replicas=2",
    "1, synchronized": f"{SYNCHRONIZED} --micro_batch=16",
    "4, synchronized": f"{SYNCHRONIZED} --micro_batch=4 --replicas=4",
}
NOISE = "learning_rate/gradient_noise"


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a run left: arrays by STEP/GROUP/NAME."""

    arrays: dict[str, np.ndarray]

    def variables(self, when: str) -> dict[str, np.ndarray]:
        """All variables at a time, [replicas, …]."""
        return {
            name.removeprefix(f"{when}/"): array
            for name, array in self.arrays.items()
            if name.startswith(f"{when}/") and "rows/" not in name
        }

    def rows(self, when: str) -> dict[str, np.ndarray]:
        """The columns of the log up to a time since the time before, but those of time."""
        prefix = f"{when}/rows/"
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix) and not name.endswith("input_wait")
        }


@pytest.fixture(name="runs", scope="module")
def trained_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """12 steps each, with a checkpoint after the 7th."""
    folder = tmp_path_factory.mktemp("in_memory")

    def train(name: str) -> Trained:
        ended = subprocess.run(
            [sys.executable, "-m", "tests.train_in_memory", folder / name, *RUNS[name].split()],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert ended.returncode == 0, ended.stderr
        return Trained(dict(np.load(folder / f"{name}.npz")))

    return in_parallel({name: lambda name=name: train(name) for name in RUNS})


@pytest.mark.parametrize("when", ["7", "12"])
def test_four_replicas_train_to_the_bit_as_one_does(runs: dict[str, Trained], when: str) -> None:
    one, four = (runs[name].variables(when) for name in ("1", "4"))
    assert one.keys() == four.keys()
    assert {name.partition("/")[0] for name in one} >= {"model", "optimizer", "averages"}
    for name, (value,) in one.items():
        for copy in four[name]:
            assert copy.tobytes() == value.tobytes(), name
    rows, others = (runs[name].rows(when) for name in ("1", "4"))
    assert rows.keys() == others.keys()
    assert [n for n in rows if rows[n].tobytes() != others[n].tobytes()] == []


@pytest.mark.parametrize("when", ["7", "12"])
def test_synchronized_they_do_up_to_rounding(runs: dict[str, Trained], when: str) -> None:
    """But for the noise of the gradient, which is not taken where the replicas are mixed."""
    one, four = (runs[f"{name}, synchronized"].variables(when) for name in ("1", "4"))
    assert one.keys() == four.keys()
    for name, (value,) in one.items():
        for copy in four[name]:
            assert np.array_equal(copy, four[name][0]), name
        if name != NOISE:
            assert relative_difference(value, four[name][0]) <= TOLERANCE, name
    for name, column in runs["1, synchronized"].rows(when).items():
        if name != "noise_scale":
            wanted = pytest.approx(column, rel=TOLERANCE, nan_ok=True)
            assert runs["4, synchronized"].rows(when)[name] == wanted, name


def test_what_is_compared_was_at_work(runs: dict[str, Trained]) -> None:
    """Without this the test above could pass on runs in which nothing happened."""
    after = runs["1"].variables("12")
    assert after["optimizer/sgd/iteration"] == 12  # step 4, of no weight at all, too
    rows = runs["1"].rows("7")
    assert np.flatnonzero(np.isnan(rows["train/loss"])).tolist() == [3]
    assert rows["finite"].all() and rows["gradient_norm"][3] == 0
    noise = rows["noise_scale"]
    assert noise[2] == noise[3] != noise[4]
    for name, average in runs["1"].variables("12").items():
        if name.startswith("averages/"):
            assert relative_difference(after[name.replace("averages", "model")], average) > 1e-3


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_goes_on_from_a_checkpoint_draws_and_averages_the_same(
    runs: dict[str, Trained], name: str
) -> None:
    """From the 7th step, at which nothing but the checkpoint was due."""
    run = runs[name]
    for whole, again in (
        (run.variables("12"), run.variables("again")),
        (run.rows("12"), run.rows("again")),
    ):
        assert whole.keys() == again.keys()
        assert [n for n in whole if not np.array_equal(whole[n], again[n])] == []


def test_local_statistics_are_the_mean_of_the_micro_batches_after_every_step(
    runs: dict[str, Trained],
) -> None:
    """The layer sees the pixels themselves, so its statistics follow from the examples alone."""
    pixels = examples()["image"].astype(np.float64) / 63.75 - 1.8
    for when in (7, 12):
        mean, variance = np.zeros(2), np.ones(2)
        for step in range(when):
            halves = pixels[step * BATCH : (step + 1) * BATCH].reshape(2, -1, 2)
            mean = 0.9 * mean + 0.1 * halves.mean(axis=1).mean(axis=0)
            variance = 0.9 * variance + 0.1 * halves.var(axis=1).mean(axis=0)
        variables = runs["2"].variables(str(when))
        for copy in range(2):
            moving = variables["model/norm/moving_mean"][copy]
            assert moving == pytest.approx(mean, rel=1e-4, abs=1e-5)
            moving = variables["model/norm/moving_variance"][copy]
            assert moving == pytest.approx(variance, rel=1e-4)
        once = {name for name, copies in variables.items() if len(copies) == 1}
        assert once == {
            f"learning_rate/{name}" for name in ("gradient_noise", "progress", "scale", "steering")
        }
        for name in variables.keys() - once:
            assert np.array_equal(*variables[name]), name


def test_local_normalization_leaves_replicas_whose_gradients_can_be_compared(
    runs: dict[str, Trained],
) -> None:
    assert "noise_scale" in runs["4"].rows("12")
    assert "noise_scale" not in runs["4, synchronized"].rows("12")
