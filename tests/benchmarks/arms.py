"""The arms of `step`: Lockstep's step and its peers, each a process that takes turns."""

import contextlib
import json
import math
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from launch.process import cli
from tests.benchmarks.cells import Cell, endless, make_data, pairs, plan_cell
from tests.benchmarks.interleaved import Turns
from trainer.plan.plan import Plan

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from trainer.run import Run


def train_lockstep(cell: Cell, turns: Turns, extra: Sequence[str] = ()) -> None:
    """Lockstep as `launch.train` drives it, with what it does by default between two blocks."""
    arrays, run, block = build_lockstep(cell, extra)
    block(cell.network.checked)
    report(run.model, run.optimizer, arrays)
    while turns.begin():
        block(turns.units)
        turns.end()


def build_lockstep(
    cell: Cell, extra: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], "Run", Callable[[int], dict[str, np.ndarray]]]:
    """The data, the run, and what trains a block of so many steps and returns their rows.

    The rows reach the host, are looked at for what is not finite or a spike, and go to
    metrics.jsonl and TensorBoard; the replicas are compared, and the time is accounted for.
    """

    from trainer.actions.divergence import Divergence
    from trainer.actions.log import Log
    from trainer.actions.nonfinite import NonFinite
    from trainer.actions.replica_check import replica_check
    from trainer.loop import Block
    from trainer.replicas.streams import spec_of_each
    from trainer.run import build_run
    from trainer.run_folder.account import CHECKPOINT, COMPUTE, EVALUATION, LOGGING, Account
    from trainer.run_folder.history import History
    from trainer.run_folder.journal import Journal
    from trainer.run_folder.metrics_writer import MetricsWriter
    from trainer.xla_choice import choose

    settings, plan, devices = plan_cell(cell, extra)
    run, arrays = build_run(settings, plan, devices), make_data(plan, cell.network.alike)
    data = run.stream(lambda *_: endless(arrays, plan))
    if plan.xla == "auto":
        run, said = choose(run, plan, spec_of_each(data), plan.last_step)
        print(said, file=sys.stderr)
    stream = cli.keep(iter(data))
    folder = pathlib.Path(cli.keep(tempfile.TemporaryDirectory()).name)
    history = History()
    journal = Journal(MetricsWriter(folder, 0), plan, history, print)
    log = Log(plan, history, journal, run.groups, ())
    nonfinite = NonFinite(True, history, run.places, journal)
    divergence = Divergence(nonfinite, history, journal, run.task.chance, rollback=False)
    account = Account(time.perf_counter())
    train_loop = account.steps(run.train_loop, COMPUTE)
    # What is not due is asked every time.
    not_due = [
        account.around(name, lambda block: None) for name in (LOGGING, EVALUATION, CHECKPOINT)
    ]
    host = (divergence, *replica_check(plan, run), account.around(LOGGING, log), *not_due)
    done = 0

    def block(steps: int) -> dict[str, np.ndarray]:
        nonlocal done
        # The time of a step is for the log alone.
        one = Block(done, train_loop(stream, steps), 1.0)
        done = one.last
        for action in host:
            action(one)
        return one.rows

    return arrays, run, block


def train_fit(cell: Cell, turns: Turns) -> None:
    """Keras's `fit` as shipped, with the loss and accuracy that Lockstep gives, and no callback.

    A block is an epoch; what `fit` does between two epochs is not counted.
    """
    strategy, model, optimizer, plan = build_keras(cell)
    arrays = make_data(plan)
    data = strategy.distribute_datasets_from_function(lambda _: endless(pairs(arrays), plan))
    with strategy.scope():
        fit(cell, turns, model, optimizer, data, arrays, steps_per_execution=1)


def train_tuned(cell: Cell, turns: Turns) -> None:
    """`fit` with the device loop that its guide offers, which needs that there be no strategy."""
    if cell.replicas > 1:
        raise ValueError("steps_per_execution raises in Keras under a strategy of several replicas")
    _, model, optimizer, plan = build_keras(cell, distributed=False)
    arrays = make_data(plan)
    data = endless(pairs(arrays), plan)
    fit(cell, turns, model, optimizer, data, arrays, steps_per_execution=cell.loop)


def fit(
    cell: Cell,
    turns: Turns,
    model: "keras.Model",
    optimizer: "keras.optimizers.Optimizer",
    data: Any,
    arrays: dict[str, np.ndarray],
    steps_per_execution: int,
) -> None:
    """Compiles, trains the checked steps, and takes turns."""
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)

    def begin(epoch: int, logs: Any = None) -> None:
        # After the last turn `fit` does one step more before it looks at this.
        model.stop_training = not turns.begin()

    def end(epoch: int, logs: Any = None) -> None:
        if not model.stop_training:
            turns.end()

    clock = keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)
    arguments = {"shuffle": False, "verbose": 0}
    model.fit(data, steps_per_epoch=cell.network.checked, **arguments)
    model.steps_per_execution = steps_per_execution
    model.make_train_function(force=True)
    report(model, optimizer, arrays)
    model.fit(data, steps_per_epoch=turns.units, epochs=10**9, callbacks=[clock], **arguments)


def train_bare(cell: Cell, turns: Turns) -> None:
    """The loop that one would write by hand for speed: it reports nothing and checks nothing."""
    strategy, model, optimizer, plan = build_keras(cell)
    train = make_bare_loop(strategy, model, optimizer, plan)
    take_turns(cell, turns, strategy, model, optimizer, make_data(plan), train)


def make_bare_loop(
    strategy: Any, model: "keras.Model", optimizer: "keras.optimizers.Optimizer", plan: Plan
) -> Any:
    """The device loop of `train_bare`: `(iterator, steps)`."""
    import tensorflow as tf

    from trainer.tasks.classification import make_losses

    variables, losses = model.trainable_variables, make_losses(0.0)
    weights = [variable.value for variable in variables]

    def step(image: "tf.Tensor", label: "tf.Tensor") -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(losses(label, model(image, training=True))) / plan.global_batch
        # Keras sums the gradients over the replicas in `apply`.
        optimizer.apply(tape.gradient(loss, weights), variables)

    @tf.function
    def train(iterator: Any, steps: "tf.Tensor") -> None:
        for _ in tf.range(steps):
            strategy.run(step, args=next(iterator))

    return train


def train_same(cell: Cell, turns: Turns) -> None:
    """The bare loop with the numbers that Lockstep gives: every step's loss, accuracy and norm.

    It sums once what Keras would sum in `apply`, and gets by without a test for finiteness, without
    a learning rate that can be steered and without the host's actions.
    """
    import tensorflow as tf

    from trainer.tasks.classification import make_losses

    strategy, model, optimizer, plan = build_keras(cell)
    variables, losses = model.trainable_variables, make_losses(0.0)
    weights = [variable.value for variable in variables]
    optimizer._all_reduce_sum_gradients = lambda pairs: pairs

    def step(image: "tf.Tensor", label: "tf.Tensor") -> "tf.Tensor":
        with tf.GradientTape() as tape:
            logits = model(image, training=True)
            loss = tf.reduce_sum(losses(label, logits)) / plan.global_batch
        right = tf.reduce_mean(tf.cast(tf.argmax(logits, -1) == label, tf.float32))
        context = tf.distribute.get_replica_context()
        parts = [*tape.gradient(loss, weights), tf.stack([loss, right / plan.replicas])]
        *gradients, numbers = context.all_reduce(tf.distribute.ReduceOp.SUM, parts)
        optimizer.apply(gradients, variables)
        return tf.concat([numbers, tf.linalg.global_norm(gradients)[None]], axis=0)

    @tf.function
    def train(iterator: Any, steps: "tf.Tensor") -> "tf.Tensor":
        rows = tf.TensorArray(tf.float32, size=steps)
        for number in tf.range(steps):
            row = strategy.run(step, args=next(iterator))
            rows = rows.write(number, strategy.experimental_local_results(row)[0])
        return rows.stack()

    take_turns(
        cell, turns, strategy, model, optimizer, make_data(plan), lambda *a: train(*a).numpy()
    )


def train_orbit(cell: Cell, turns: Turns) -> None:
    """Orbit's inner loop (`StandardTrainer`), without the logging of its `Controller`."""
    import keras
    import orbit
    import tensorflow as tf

    from trainer.tasks.classification import make_losses

    strategy, model, optimizer, plan = build_keras(cell)
    variables, losses = model.trainable_variables, make_losses(0.0)
    weights = [variable.value for variable in variables]
    with strategy.scope():
        means = keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy()

    class Trainer(orbit.StandardTrainer):
        """As in Orbit's examples."""

        def train_loop_begin(self) -> None:
            for mean in means:
                mean.reset_state()

        def train_step(self, iterator: Any) -> None:
            strategy.run(self.step, args=next(iterator))

        def step(self, image: "tf.Tensor", label: "tf.Tensor") -> None:
            with tf.GradientTape() as tape:
                logits = model(image, training=True)
                loss = tf.reduce_sum(losses(label, logits)) / plan.global_batch
            optimizer.apply(tape.gradient(loss, weights), variables)
            means[0].update_state(loss)
            means[1].update_state(label, logits)

        def train_loop_end(self) -> dict[str, float]:
            return {mean.name: float(mean.result()) for mean in means}

    arrays = make_data(plan)
    trainer = Trainer(
        strategy.distribute_datasets_from_function(lambda _: endless(pairs(arrays), plan)),
        options=orbit.StandardTrainerOptions(use_tf_while_loop=True),
    )
    trainer.train(tf.constant(cell.network.checked))
    report(model, optimizer, arrays)
    while turns.begin():
        trainer.train(tf.constant(turns.units))
        turns.end()


def take_turns(
    cell: Cell,
    turns: Turns,
    strategy: Any,
    model: "keras.Model",
    optimizer: "keras.optimizers.Optimizer",
    arrays: dict[str, np.ndarray],
    train: Any,
) -> None:
    """Trains the checked steps with `train(iterator, steps)`, and takes turns."""
    import tensorflow as tf

    plan = plan_cell(cell)[1]
    data = strategy.distribute_datasets_from_function(lambda _: endless(pairs(arrays), plan))
    stream = cli.keep(iter(data))
    train(stream, tf.constant(cell.network.checked))
    report(model, optimizer, arrays)
    while turns.begin():
        train(stream, tf.constant(turns.units))
        turns.end()


ARMS = {
    "lockstep": train_lockstep,
    "fit": train_fit,
    "tuned": train_tuned,
    "orbit": train_orbit,
    "bare": train_bare,
    "same": train_same,
    "control": train_lockstep,
}


def units(arm: str, cell: Cell) -> int:
    """Steps of a block of an arm: of the device loop, or of an epoch of `fit`, which has none."""
    if arm == "tuned":
        return cell.loop * max(1, cell.network.steps // cell.loop)
    return max(cell.loop, cell.network.steps) if arm == "fit" else cell.loop


def build_keras(
    cell: Cell, distributed: bool = True
) -> tuple[Any, "keras.Model", "keras.optimizers.Optimizer", Plan]:
    """Lockstep's strategy, model, learning rate; and the same optimizer as Keras ships it."""
    import keras
    import tensorflow as tf

    from trainer.models.make_model import make_model
    from trainer.plan import curves
    from trainer.replicas.strategy import make_strategy

    class Planned(keras.optimizers.schedules.LearningRateSchedule):
        """The plan's rate as Keras takes it."""

        def __call__(self, step: tf.Tensor) -> tf.Tensor:
            progress = tf.cast(step, tf.float64)
            return tf.cast(curves.rate(plan.learning_rate, progress, keras.ops), tf.float32)

    settings, plan, devices = plan_cell(cell)
    # The peers sum as TensorFlow does unless told otherwise.
    strategy = make_strategy(devices, "ring") if distributed else tf.distribute.get_strategy()
    with strategy.scope() if distributed else contextlib.nullcontext():
        keras.utils.set_random_seed(settings.run.seed)
        model = make_model(plan.model, plan.dataset, settings.layers)
        optimizer = keras.optimizers.SGD(
            Planned(),
            momentum=settings.optimizer.arguments["momentum"],
            nesterov=True,
            weight_decay=settings.optimizer.weight_decay,
        )
        variables = model.trainable_variables
        optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
        optimizer.build(variables)
    return strategy, model, optimizer, plan


def report(
    model: "keras.Model", optimizer: "keras.optimizers.Optimizer", arrays: dict[str, np.ndarray]
) -> None:
    """Prints what the first steps came to: the loss, and the norms of all weights and slots."""
    import keras

    image, label = pairs(arrays)
    logits = model(image.reshape(-1, *image.shape[2:]), training=False)
    losses = keras.losses.sparse_categorical_crossentropy(label.ravel(), logits, from_logits=True)

    def norm(variables: Sequence[Any]) -> float:
        values = [v.numpy().astype("float64") for v in variables if v.dtype == "float32"]
        return math.sqrt(sum(float(np.square(value).sum()) for value in values))

    loss, slots = float(np.mean(losses)), norm(optimizer.variables)
    print(json.dumps({"loss": loss, "weights": norm(model.variables), "slots": slots}), flush=True)
