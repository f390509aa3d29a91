"""An all-reduce of known values: right, wrong, failed and hanging, each in a process of its own."""

import json

import pytest

from tests.helpers import run_program
from trainer.replicas.preflight import AllReduceError

PROGRAM = """
import time
from launch.process import cli
cli.import_tensorflow(0)
import tensorflow as tf
from trainer.plan.devices import Devices
from trainer.replicas.preflight import A_FEW, AllReduceError, check_all_reduce, sum_over_replicas
from trainer.replicas.strategy import make_strategy

strategy = make_strategy(Devices("CPU", {replicas}, ""), "{all_reduce}")

def own():
    return tf.distribute.get_replica_context().replica_id_in_sync_group

def right(values):
    return sum_over_replicas(values)

def nothing_is_summed(values):
    return values

def one_number_is_wrong(values):
    total = sum_over_replicas(values)
    wrong = tf.logical_and(tf.range(tf.size(total)) == 300, own() == 1)
    return tf.where(wrong, total + 1, total)

def not_a_number(values):
    return sum_over_replicas(values) * float("nan")

def hangs(values):
    return tf.numpy_function(lambda v: (time.sleep(1000), v)[1], [values], tf.float32)

def fails(values):
    with tf.control_dependencies([tf.debugging.assert_less(values, 0.0, "the link is down")]):
        return tf.identity(values)

called = []

def counted(values):
    def count(array):
        called.append(len(array))
        return array
    # Without an effect of its own, as a plain addition is, which may be computed beforehand.
    return sum_over_replicas(tf.numpy_function(count, [values], tf.float32, stateful=False))

try:
    took = check_all_reduce(strategy, (A_FEW, 1_000), {seconds}, {reduce})
    print(len(took) == 2 and all(0 < one < {seconds} for one in took))
    if called:
        print([called.count(size) for size in (A_FEW, 1_000)])
except AllReduceError as error:
    print(error.hangs)
    print(error)
"""

# A sum by itself, as launch.benchmark times it, in what the gradients travel in.
TIMED = """
import functools, time
from launch.process import cli
cli.import_tensorflow(0)
import tensorflow as tf
from trainer.plan.devices import Devices
from trainer.plan.settings import Communication
from trainer.replicas.all_reduce import make_exchange
from trainer.replicas.preflight import A_FEW, check_all_reduce, time_all_reduce
from trainer.replicas.strategy import make_strategy

strategy = make_strategy(Devices("CPU", 2, ""), "auto")
exchange = make_exchange(strategy, "one", False, Communication(gradient_dtype="bfloat16"), "CPU")
dtypes, called = [], []

def slow(values):
    _, total = exchange.over_replicas([values[:1], values])
    def wait(array):
        called.append(float(array[0]))
        time.sleep(0.02)
        return array
    return tf.numpy_function(wait, [total], tf.float32, stateful=False)

print(0.02 <= time_all_reduce(strategy, 1_000, 120, slow) <= 0.06)
print(len(called) >= 2 * 6 * 8 and len(set(called)) >= 8)
# Statistics by themselves, by which a run on several GPUs sees whether they can sum.
alone = lambda values: exchange.over_replicas([values])[0]
print(check_all_reduce(strategy, [A_FEW], 120, alone)[0] > 0)
"""


def outcome(
    reduce: str, seconds: int = 120, replicas: int = 2, all_reduce: str = "auto"
) -> list[str]:
    return run_program(
        PROGRAM.format(reduce=reduce, seconds=seconds, replicas=replicas, all_reduce=all_reduce)
    )


@pytest.mark.parametrize(
    ("replicas", "all_reduce"), [(1, "auto"), (2, "auto"), (3, "ring"), (4, "hierarchical_copy")]
)
def test_sums_that_are_right(replicas: int, all_reduce: str) -> None:
    assert outcome("right", replicas=replicas, all_reduce=all_reduce) == ["True"]


def test_what_is_timed_is_computed_every_time() -> None:
    said, counts = outcome("counted")
    # One to compare, one that traces and five that are timed, on each of two replicas; the first
    # may be computed as its graph is made.
    few, many = json.loads(counts)
    assert said == "True" and few >= 12 and many >= 12


def test_sums_in_a_row_are_timed_one_by_one_and_in_bfloat16_too() -> None:
    assert run_program(TIMED) == ["True", "True", "True"]


def test_one_wrong_number_is_found() -> None:
    hangs, said = outcome("one_number_is_wrong")
    assert hangs == "False"
    # The 300th is 1 + 300 mod 251 on the first replica, and twice that on the second.
    assert said == (
        "the all-reduce of 0.004 MB over 2 replicas came back with 1 wrong numbers on replica 1, "
        "the first 151 instead of 150"
    )


@pytest.mark.parametrize("reduce", ["nothing_is_summed", "not_a_number"])
def test_numbers_that_are_all_wrong(reduce: str) -> None:
    hangs, said = outcome(reduce)
    assert hangs == "False" and "of a few numbers" in said and "7 wrong numbers" in said


def test_what_fails_says_why() -> None:
    hangs, said, *_ = outcome("fails")
    assert hangs == "False" and "failed: " in said


def test_what_hangs_is_given_up_in_time() -> None:
    hangs, said = outcome("hangs", seconds=2)
    assert hangs == "True"
    assert said.endswith("of a few numbers over 2 replicas did not come back within 2 s")


def test_an_error_is_one_sentence() -> None:
    error = AllReduceError(8, 6_250_000, True, "did not come back within 60 s")
    assert str(error) == "the all-reduce of 25 MB over 8 replicas did not come back within 60 s"
