"""Every schedule with every warmup: the rate applied at each step is the closed formula's."""

import functools
import itertools
import math
import os
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import Run, train_in_turn
from keras import ops

from input_pipeline.layout import Layout
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from input_pipeline.streams import training_stream
from trainer.learning_rate.learning_rate import LearningRate
from trainer.plan import curves
from trainer.plan.curve_settings import parse_decay, parse_warmup
from trainer.plan.durations import parse_duration
from trainer.plan.learning_rate import plan_learning_rate
from trainer.plan.settings import LearningRateSettings

STEPS, PEAK, END = 60, 0.4, 0.02
COMMON = (
    "--device=cpu --dataset=digits --augment=shift(1) --model=mlp --global_batch=64 "
    f"--train_for={STEPS}st --optimizer=sgd --momentum={{momentum}} --learning_rate={PEAK} "
    f"--end_learning_rate={END} --lr_scaling=none --log_every=1st --eval_every=0 "
    "--checkpoint_every=10st --steps_per_loop=10"
)
# Each with its warmup of 8 steps, as functions of p, the updates done, and the first decayed rate.
WARMUPS = {
    "none": None,
    "8st": lambda p, first: first * (p + 1) / 8,
    "linear(8st,start=0.1)": lambda p, first: 0.1 + (first - 0.1) * (p + 1) / 8,
    "exponential(8st,start=0.001)": lambda p, first: 0.001 * (first / 0.001) ** ((p + 1) / 8),
    "constant(8st,start=0.03)": lambda p, first: 0.03,
}


def _cosine(share: float) -> float:
    return END + (PEAK - END) * (1 + math.cos(math.pi * share)) / 2


def _restarts(q: int) -> float:
    begin, length, height = 0, 12, 1.0
    while q >= begin + length:
        begin, length, height = begin + length, 2 * length, 0.5 * height
    return END + (PEAK - END) * height * (1 + math.cos(math.pi * (q - begin) / length)) / 2


def _one_cycle(q: int, length: int) -> float:
    if q < 15:
        return PEAK + (PEAK / 10 - PEAK) * (1 + math.cos(math.pi * q / 14)) / 2
    share = (q - 14) / (length - 15)
    return END + (PEAK - END) * (1 + math.cos(math.pi * share)) / 2


# As functions of q, the updates since the warmup, and the number of updates after it.
DECAYS = {
    "constant": lambda q, n: PEAK,
    "cosine": lambda q, n: _cosine(q / n),
    "linear": lambda q, n: PEAK + (END - PEAK) * q / n,
    "polynomial(power=3)": lambda q, n: END + (PEAK - END) * (1 - q / n) ** 3,
    "exponential(period=15st,rate=0.5)": lambda q, n: max(END, PEAK * 0.5 ** (q / 15)),
    "exponential(15st,0.3,staircase=true)": lambda q, n: max(END, PEAK * 0.3 ** (q // 15)),
    "inverse_time(period=10st,rate=0.5)": lambda q, n: max(END, PEAK / (1 + 0.5 * q / 10)),
    "inverse_time(10st,9,staircase=true)": lambda q, n: max(END, PEAK / (1 + 9 * (q // 10))),
    "cosine_restarts(period=12st,longer=2,lower=0.5)": lambda q, n: _restarts(q),
    "inverse_sqrt(timescale=5st)": lambda q, n: max(END, PEAK * math.sqrt(5 / (5 + q))),
    "wsd(cooldown=20st)": lambda q, n: END + (PEAK - END) * min(1, (n - q) / 20),
    "wsd(20st,cosine)": lambda q, n: _cosine(max(0, q - (n - 20)) / 20),
    "wsd(20st,sqrt)": lambda q, n: END + (PEAK - END) * (1 - math.sqrt(max(0, q - (n - 20)) / 20)),
    "one_cycle(rise=15st,start=10,end=1e4)": _one_cycle,
    # Milestones count from the start of the run.
    "step(20st:0.5,40st:0.01)": lambda q, n: (
        PEAK * 0.5 ** (q + STEPS - n >= 20) if q + STEPS - n < 40 else END
    ),
}
PRODUCT = list(itertools.product(DECAYS, WARMUPS))
# The first half of the cells train on one replica, the second half on two.
if os.environ.get("LOCKSTEP_EVERY_SCHEDULE"):
    GRID = [*PRODUCT, *PRODUCT]
else:
    # Real runs of every decay with the linear warmup and with one of the others in turn; the whole
    # product is checked on the device without a model.
    GRID = [
        (decay, warmup)
        for number, decay in enumerate(DECAYS)
        for warmup in ("8st", [w for w in WARMUPS if w != "8st"][number % 4])
    ]
PER_PROCESS = len(GRID) // 2


def expected(decay: str, warmup: str) -> list[float]:
    """The closed formula's rate of every update."""
    first = 0 if warmup == "none" else 8
    after = [DECAYS[decay](q, STEPS - first) for q in range(STEPS - first)]
    return [WARMUPS[warmup](p, after[0]) for p in range(first)] + after


def command(number: int) -> str:
    """The command of a cell of the grid; half of them train on two replicas."""
    decay, warmup = GRID[number]
    momentum = 0.9 if decay.startswith("one_cycle") else 0
    replicas = 1 + number // PER_PROCESS
    return (
        f"{COMMON.format(momentum=momentum)} --replicas={replicas} '--decay={decay}' "
        f"'--warmup={warmup}'"
    )


def cells(folder: pathlib.Path, first: int) -> dict[str, Run]:
    """A real run of every cell from this one on that trains on as many replicas."""
    numbers = range(first, first + PER_PROCESS)
    return train_in_turn(folder, {str(number): command(number) for number in numbers})


STORIES = {str(n): functools.partial(cells, first=n) for n in range(0, len(GRID), PER_PROCESS)}


@pytest.fixture(scope="module")
def runs(stories: dict[str, dict[str, Run]]) -> list[Run]:
    """A real run of every cell of the grid."""
    return [run for some in stories.values() for run in some.values()]


def test_every_applied_rate_is_the_closed_formula(runs: list[Run]) -> None:
    for (decay, warmup), run in zip(GRID, runs, strict=True):
        rows = [row for row in run.rows("learning_rate") if "event" not in row]
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        applied = [row["learning_rate"] for row in rows]
        np.testing.assert_allclose(
            applied, expected(decay, warmup), rtol=1e-6, err_msg=f"{decay} after {warmup}"
        )


def planned_rate(decay: str, warmup: str) -> curves.LearningRatePlan:
    return plan_learning_rate(
        LearningRateSettings(PEAK, "none", 64, parse_warmup(warmup), parse_decay(decay), END),
        global_batch=64,
        examples=640,
        train_for=parse_duration(f"{STEPS}st"),
    )


def test_every_decay_with_every_warmup_is_the_closed_formula_on_the_device() -> None:
    for decay, warmup in PRODUCT:
        plan = planned_rate(decay, warmup)
        wanted = expected(decay, warmup)
        planned = curves.rate(plan, np.arange(STEPS))
        on_device = [curves.rate(plan, tf.constant(p, tf.float64), ops) for p in range(STEPS)]
        device = [float(rate) for rate in on_device]
        for found in (planned, device):
            np.testing.assert_allclose(found, wanted, rtol=1e-6, err_msg=f"{decay}, {warmup}")


def test_the_bits_of_a_rate_do_not_depend_on_where_its_loop_began() -> None:
    for decay, warmup in PRODUCT:
        rate = LearningRate(planned_rate(decay, warmup), tf.distribute.get_strategy())
        # Those of the float64s that the applied ones are rounded from, which seldom show in them.
        together = rate._planned(tf.constant(0.0, tf.float64), tf.constant(STEPS)).numpy()
        for first, updates in ((0, 1), (5, 3), (6, 7), (13, 18), (59, 1)):
            begin = tf.constant(first, tf.float64)
            found = rate._planned(begin, tf.constant(updates)).numpy()[:updates]
            assert found.tolist() == together[first : first + updates].tolist(), (decay, warmup)


def test_an_update_gets_its_own_rate_where_the_run_now_counts_in_other_steps() -> None:
    plan = curves.LearningRatePlan(PEAK, END, STEPS, "none", 0, 0.0, "linear")
    rate = LearningRate(plan, tf.distribute.get_strategy())
    rate.progress.assign(1.0)
    rate.steering[1].assign(151.0)  # where a cooldown ends the run
    rate.count_in_steps(1 / 3)
    first = rate.progress.numpy()
    assert first == pytest.approx(1 / 3, abs=1e-6)
    assert rate.look_ahead(tf.constant(60)).numpy() == 50
    rate.steering[1].assign(1e18)
    rate.look_ahead(tf.constant(60))
    for update in range(50):
        assert rate.progress.numpy() - first == update
        rate.set_applied(tf.ones([], tf.float64))
        wanted = PEAK + (END - PEAK) * (1 / 3 + update) / STEPS
        assert rate.applied.numpy() == pytest.approx(wanted, rel=1e-5)
        rate.progress.assign_add(1.0)


def test_one_cycle_moves_the_momentum_against_the_rate(runs: list[Run]) -> None:
    number = GRID.index(("one_cycle(rise=15st,start=10,end=1e4)", "8st"))
    moved = [row["momentum"] for row in runs[number].rows("momentum")]
    after = range(STEPS - 8)
    shares = [q / 14 if q < 15 else 1 - (q - 14) / (STEPS - 23) for q in after]
    wanted = [0.95] * 8 + [0.85 + 0.1 * (1 + math.cos(math.pi * share)) / 2 for share in shares]
    np.testing.assert_allclose(moved, wanted, rtol=1e-6)


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_weights_moved_by_the_logged_rate_times_the_summed_gradient(
    runs: list[Run], replicas: int
) -> None:
    first = (replicas - 1) * PER_PROCESS
    # One-cycle moves the momentum, which it therefore has.
    cells = [
        number
        for number in range(first, first + PER_PROCESS)
        if not GRID[number][0].startswith("one_cycle")
    ]
    assert len(cells) > 10
    batches = batches_after(40)
    for number in cells:
        assert runs[number].plan()["replicas"] == replicas
        check_moves(runs[number], batches, " after ".join(GRID[number]))


def batches_after(step: int) -> list[dict[str, tf.Tensor]]:
    """The ten global batches after a step, each in one piece."""
    stream = training_stream(
        open_source(DataSettings("digits"), "train"),
        layout=Layout(64),
        seed=0,
        augment="shift(1)",
        first_position=64 * step,
    )
    return list(stream.take(10))


def check_moves(run: Run, batches: list[dict[str, tf.Tensor]], cell: str) -> None:
    """Follows a run from step 40 to step 50 in plain Keras.

    Between these two checkpoints lies one loop of ten steps on the device. Plain Keras takes the
    gradient of the whole global batch and the logged rates, and must arrive where the run did.
    """
    model = keras.models.load_model(run.folder / "model.keras")
    names = [f"model/{v.path}" for v in model.trainable_variables]
    before, after = run.variables(40), run.variables(50)
    for name, variable in zip(names, model.trainable_variables, strict=True):
        variable.assign(before[name])
    rates = {row["step"]: row["learning_rate"] for row in run.rows("learning_rate")}
    for step, batch in enumerate(batches, start=41):
        with tf.GradientTape() as tape:
            losses = keras.losses.sparse_categorical_crossentropy(
                batch["label"], model(batch["image"]), from_logits=True
            )
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            variable.assign_sub(rates[step] * gradient)
    for name, variable in zip(names, model.trainable_variables, strict=True):
        moved, followed = after[name] - before[name], variable.numpy() - before[name]
        difference = np.linalg.norm(moved - followed)
        assert difference <= 1e-4 * np.linalg.norm(moved), f"{name}, {cell}"
