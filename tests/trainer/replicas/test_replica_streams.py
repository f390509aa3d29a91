"""Both ways to hand micro-batches to replicas give the same ones to the same replicas."""

import json

from helpers import run_program

PROGRAM = """
import json
from launch.process import cli
cli.import_tensorflow(0)
import tensorflow as tf
from trainer.replicas.strategy import make_strategy
from trainer.replicas.streams import distribute, next_of_each
from trainer.plan.devices import Devices

strategy = make_strategy(Devices("CPU", 3, "the test"))

def dataset(pipeline=0, pipelines=1):
    return tf.data.Dataset.range(100).map(lambda n: {"number": n, "square": n * n})

@tf.function
def step(iterator):
    batch = next_of_each(strategy, iterator)()
    return strategy.run(lambda batch: batch["number"] + batch["square"], args=(batch,))

def sums(iterator):
    rows = (strategy.experimental_local_results(step(iterator)) for _ in range(5))
    return [[int(value) for value in row] for row in rows]

own = distribute(strategy, dataset)
theirs = strategy.distribute_datasets_from_function(lambda context: dataset())
print(json.dumps([isinstance(own, tf.data.Dataset), sums(iter(own)), sums(iter(theirs))]))
"""


def test_replicas_take_turns_as_those_of_tf_distribute_do() -> None:
    (line,) = run_program(PROGRAM)
    plain, own, theirs = json.loads(line)
    assert plain, "CPU replicas share an iterator"
    assert own == theirs == [[n + n * n for n in range(3 * s, 3 * s + 3)] for s in range(5)]
