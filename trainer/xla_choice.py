"""`--xla=auto`: whether a run is faster compiled by XLA, decided by timing its passes both ways.

Which way is faster depends on the network, the size of its micro-batches and the machine: on two
cores XLA made a small convolutional network half as fast again and ResNet-20 slower by a quarter.
A pass assigns nothing, so nothing has to be put back. A short run is not worth compiling, and goes
without. The choice changes last bits: it belongs to the run, and is kept with it.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from trainer.layers.xla import why_not
from trainer.plan.plan import Plan
from trainer.replicas.streams import Batch
from trainer.run import Run
from trainer.step import TrainStep
from trainer.tasks.make_task import inputs_spec

# Of training, below which compiling and timing may take longer than they save.
_WORTH_SECONDS = 300.0
# Compiling and timing takes so many times what lowering did, about, and may be so much of the run.
_COMPILING, _SHARE = 6.0, 0.05
# A compiled pass has to be faster by more than what is chance here.
_FASTER = 0.97
_TURNS, _TIMED_SECONDS = 5, 1.0  # at least so many turns, and so long


def choose(
    run: Run, plan: Plan, spec: Mapping[str, tf.TensorSpec], steps: int
) -> tuple[Run, str | None]:
    """The run as it is or compiled, whichever has the faster passes, and what there is to say.

    Args:
      spec: of a replica's micro-batch by name, as `Run.stream` gives it.
      steps: that are to be trained.
    """
    began = time.perf_counter()
    try:
        plain = timed_pass(run.train_loop.step, plan.accumulate, spec)
        training = statistics.median(plain() for _ in range(3)) * steps
    except Exception:  # a network or task that looks at its numbers: these are made up
        return run, "xla: not compiled; a pass over made-up examples, to be timed, is refused"
    if training < _WORTH_SECONDS:
        return run, None
    lowering = time.perf_counter()
    inputs = inputs_spec(run.task, plan.dataset, plan.micro_batch)
    reason = why_not(run.model, inputs, plan.replicas)
    if reason is not None:
        return run, f"xla: not compiled, {reason}"
    lowering = time.perf_counter() - lowering
    if _COMPILING * lowering > _SHARE * training:
        return run, f"xla: not compiled; it would take a while for a run of some {training:.0f} s"
    faster = run.compiled()
    try:
        compiled = timed_pass(faster.train_loop.step, plan.accumulate, spec)
    except tf.errors.OpError as error:  # of memory, say, which the pass as it is does without
        return run, f"xla: not compiled, it fails here: {error.message.splitlines()[0]}"
    ratio, milliseconds = _compare(plain, compiled)
    seconds = time.perf_counter() - began
    way = "compiled" if ratio < _FASTER else "not compiled"
    said = (
        f"xla: {way}; a pass takes {milliseconds:.3g} ms without and {ratio:.2f} of that with it "
        f"(measured in {seconds:.0f} s), and the run keeps to its choice"
    )
    return (faster if ratio < _FASTER else run), said


def timed_pass(
    step: TrainStep, accumulate: int, spec: Mapping[str, tf.TensorSpec]
) -> Callable[[], float]:
    """What takes the sums of a step's micro-batches, without the update, and returns the seconds.

    It is traced, compiled and called once here.
    """
    strategy = step.strategy
    batches = tuple(
        strategy.experimental_distribute_values_from_function(lambda _: example(spec))
        for _ in range(accumulate)
    )

    def sums(*batches: Batch) -> list[Any]:
        with step.traced():
            sums, _ = strategy.run(step.sum_gradients, args=batches)
        # All of it, or TensorFlow would leave out what nobody sees.
        return [strategy.experimental_local_results(part) for part in tf.nest.flatten(sums)]

    function = tf.function(sums, autograph=False)

    def run() -> float:
        began = time.perf_counter()
        parts = function(*batches)
        # On GPUs the call returns when it is queued.
        tf.nest.map_structure(lambda part: part.numpy(), parts[0])
        return time.perf_counter() - began

    run()
    return run


def example(spec: Mapping[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    """A micro-batch as the data could give it; of constant images, gradients would be denormal."""
    draw = tf.random.Generator.from_seed(0)

    def value(name: str, of: tf.TensorSpec) -> tf.Tensor:
        if name == "weight":
            return tf.ones(of.shape, of.dtype)
        if of.dtype.is_floating:
            return tf.cast(draw.uniform(of.shape), of.dtype)
        if of.dtype == tf.uint8 and name != "label":
            return tf.cast(draw.uniform(of.shape, 0, 256, tf.int32), tf.uint8)
        return tf.zeros(of.shape, of.dtype)

    return {name: value(name, of) for name, of in spec.items()}


def _compare(plain: Callable[[], float], compiled: Callable[[], float]) -> tuple[float, float]:
    """The time compiled over that as it is, the median over turns, and that as it is, in ms."""
    times: list[tuple[float, float]] = []
    while len(times) < _TURNS or sum(map(sum, times)) < _TIMED_SECONDS:
        times.append((plain(), compiled()))
    ratio = statistics.median(after / before for before, after in times)
    return ratio, 1000 * statistics.median(before for before, _ in times)
