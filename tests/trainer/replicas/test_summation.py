"""The order of summation: a binary tree over the micro-batch's number, whoever adds what."""

import functools
import operator
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from helpers import in_parallel, run_program

from trainer.plan.traffic import is_subtree
from trainer.replicas.summation import add, sum_in_order

ORDERS = {
    1: "0",
    2: "(0+1)",
    3: "((0+1)+2)",
    4: "((0+2)+(1+3))",
    5: "((((0+1)+2)+3)+4)",
    6: "(((0+2)+4)+((1+3)+5))",
    7: "((((((0+1)+2)+3)+4)+5)+6)",
    8: "(((0+4)+(2+6))+((1+5)+(3+7)))",
    10: "((((0+2)+4)+6)+8)+((((1+3)+5)+7)+9)",
    12: "((((0+4)+8)+((2+6)+10))+(((1+5)+9)+((3+7)+11)))",
    16: "((((0+8)+(4+12))+((2+10)+(6+14)))+(((1+9)+(5+13))+((3+11)+(7+15))))",
}


def numbers(count: int) -> np.ndarray:
    """Float32 [count, 1000] whose sums depend on their order, nearly all of them."""
    random = np.random.default_rng(count)
    scale = 10.0 ** random.uniform(-3, 3, [count, 1000])
    return (random.normal(size=[count, 1000]) * scale).astype(np.float32)


def tree(parts: np.ndarray) -> np.ndarray:
    return sum_in_order(list(parts), operator.add)


@pytest.mark.parametrize("count", ORDERS)
def test_the_order_is_the_tree_over_the_number(count: int) -> None:
    order = sum_in_order(list(map(str, range(count))), lambda a, b: f"({a}+{b})")
    assert order.strip("()") == ORDERS[count].strip("()")


@pytest.mark.parametrize("count", range(1, 17))
def test_each_is_added_once(count: int) -> None:
    assert sorted(sum_in_order([[n] for n in range(count)], operator.add)) == list(range(count))


@pytest.mark.parametrize("count", [2, 4, 6, 8, 12, 16, 24, 64])
def test_what_replicas_add_up_themselves_is_a_part_of_the_same_tree(count: int) -> None:
    parts = numbers(count)
    whole, shared = tree(parts), 0
    for replicas in range(1, count + 1):
        if count % replicas or not is_subtree(replicas):
            continue
        own = np.stack([tree(parts[replica::replicas]) for replica in range(replicas)])
        assert np.array_equal(tree(own), whole), replicas
        shared += 1
    assert shared >= 2
    # Otherwise any order would have passed.
    if count > 2:
        assert not np.array_equal(functools.reduce(operator.add, parts), whole)


@pytest.mark.parametrize("replicas", [3, 6, 12])
def test_what_is_no_power_of_two_is_no_part_of_it(replicas: int) -> None:
    parts = numbers(12)
    own = np.stack([tree(parts[replica::replicas]) for replica in range(replicas)])
    same = np.array_equal(tree(own), tree(parts))
    assert not is_subtree(replicas) and same == (replicas == 12)


def test_a_part_is_made_when_it_is_needed_and_few_are_held() -> None:
    held, most, made = 0, 0, []

    def make(number: int) -> int:
        nonlocal held, most
        held, most = held + 1, max(most, held + 1)
        made.append(number)
        return number

    def add_up(one: int, other: int) -> int:
        nonlocal held
        held -= 1
        return one + other

    assert sum_in_order(range(64), add_up, make) == sum(range(64))
    assert sorted(made) == list(range(64)) and most == 7  # log2(64) sums and the part in hand


def in_a_graph(parts: np.ndarray, add: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> np.ndarray:
    """The sum of parts that a graph makes, as a step does, and TensorFlow optimizes."""

    @tf.function(autograph=False)
    def total(parts: tf.Tensor) -> tf.Tensor:
        return sum_in_order(tf.unstack(parts), add)

    return total(tf.constant(parts)).numpy()


def test_tensorflow_keeps_the_order_in_a_graph() -> None:
    parts = numbers(8)
    assert np.array_equal(in_a_graph(parts, add), tree(parts))
    # What `add` is for: plain additions become one, in an order of its own.
    assert not np.array_equal(in_a_graph(parts, operator.add), tree(parts))


# On so many logical CPUs: parts of twelve micro-batches by `Exchange`, as a step adds them.
EXCHANGED = """
import numpy as np
import tensorflow as tf
from trainer.plan.devices import Devices
from trainer.plan.settings import Communication
from trainer.replicas.all_reduce import make_exchange
from trainer.replicas.strategy import make_strategy
from trainer.replicas.sums import Sums, join
strategy = make_strategy(Devices("CPU", {replicas}, "the test"), "{all_reduce}")
exchange = make_exchange(strategy, {pieces!r}, True, Communication("{all_reduce}"), "{kind}")
parts = tf.constant(np.load({path!r}))
def part(number):
    values = tf.gather(parts, number)
    shapes = [values[4:200], tf.reshape(values[200:500], [3, 100]), values[500:]]
    scores = {{"accuracy": values[3]}}
    return Sums(
        *tf.unstack(values[:3]), tf.zeros([]), scores, {{7: values[:40]}}, join(shapes, {pieces!r})
    )
@tf.function(autograph=False)
def total():
    def on_each():
        first = tf.distribute.get_replica_context().replica_id_in_sync_group
        mine = range(0, 12, {replicas})
        sums = exchange.add_up([lambda n=n: part(first + n) for n in mine])
        gradient = tf.concat([tf.reshape(piece, [-1]) for piece in sums.gradient], 0)
        scalars = tf.stack([*sums[:3], sums.scores["accuracy"]])
        return tf.concat([scalars, gradient, sums.state[7]], 0)
    return strategy.experimental_local_results(strategy.run(on_each))
for sums in total():
    print(sums.numpy().tobytes().hex())
"""


def test_every_way_over_the_replicas_has_this_order(tmp_path: pathlib.Path) -> None:
    parts = numbers(12)
    path = str(tmp_path / "parts.npy")
    np.save(path, parts)
    whole = tree(parts)
    wanted = np.concatenate([whole, whole[:40]]).tobytes().hex()
    # Asked as if they were GPUs, four replicas gather what each has added up.
    ways = [(2, "CPU"), (6, "CPU"), (4, "GPU")]

    def lines(replicas: int, kind: str) -> list[str]:
        pieces = 600 if kind == "CPU" else "one"
        return run_program(
            EXCHANGED.format(
                replicas=replicas, kind=kind, pieces=pieces, path=path, all_reduce="auto"
            )
        )

    found = in_parallel({way: functools.partial(lines, *way) for way in ways})
    for way, copies in found.items():
        assert len(copies) == way[0]
        assert all(copy == wanted for copy in copies), way
