"""The run: strategy, model, optimizer, learning rate, device functions, built from the plan."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from trainer.device_loop import DeviceLoop
from trainer.evaluation import EvaluateBatches, make_evaluation
from trainer.layers.batch_norm import normalizations
from trainer.layers.precision import layers_in, set_operations
from trainer.layers.random_layers import find_draws
from trainer.layers.xla import choose_xla
from trainer.learning_rate.gradient_noise import GradientNoise
from trainer.learning_rate.learning_rate import LearningRate
from trainer.locate import make_locator
from trainer.models.make_model import make_model
from trainer.optimizer.averaging import WeightAverages
from trainer.optimizer.loss_scale import LossScale
from trainer.optimizer.optimizers import make_optimizer
from trainer.optimizer.variable_groups import Group, group_decays, group_variables
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.plan import Plan
from trainer.plan.settings import LayerSettings, Settings
from trainer.replicas.all_reduce import choose_pieces, sparse_text
from trainer.replicas.strategy import make_strategy
from trainer.replicas.streams import Batch, MakeDataset, Stream, distribute
from trainer.replicas.variables import unique_names
from trainer.step import StepSettings, TrainStep

# Given a model's name, the dataset and what is to be in its layers, that model; called in scope.
MakeModel = Callable[[str, DatasetFacts, LayerSettings], keras.Model]


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that trains; `train_loop` and `evaluate` are described in `trainer.step`."""

    strategy: tf.distribute.Strategy
    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    learning_rate: LearningRate
    noise: GradientNoise
    loss_scale: LossScale | None  # with float16
    places: Sequence[str]  # what the column `nonfinite_place` counts from 1
    averages: WeightAverages | None
    groups: Sequence[Group]  # of variables by their rate
    decay_groups: Sequence[Group]  # and by their weight decay, where it was given by pattern
    train_loop: DeviceLoop
    most_steps: tf.Variable  # int32 [], of a device loop: set to 1 by any thread, it ends one
    evaluate: EvaluateBatches
    notes: Sequence[str]  # what there is to say of how it was built

    def variables(self) -> dict[str, dict[str, tf.Variable]]:
        """All variables of the run by group and name: what a checkpoint holds."""
        named = {}
        for group, variables in (
            ("model", self.model.variables),
            ("optimizer", self.optimizer.variables),
        ):
            names = unique_names([v.path for v in variables])
            # A Keras variable is not a tf.Variable, which is what tf.train.Checkpoint tracks.
            named[group] = {n: v.value for n, v in zip(names, variables, strict=True)}
        averages = {"gradient_noise": self.noise.averages}
        named["learning_rate"] = self.learning_rate.variables() | averages
        if self.loss_scale:
            named["loss_scale"] = self.loss_scale.variables()
        if self.averages is not None:
            named["averages"] = dict(self.averages.variables())
        return named

    def trace(self, stream: Iterator[Batch]) -> None:
        """Traces the device loop, which its first call would do."""
        self.train_loop.trace(stream)

    def stream(self, make_dataset: MakeDataset) -> Stream:
        """The dataset with its consecutive micro-batches handed to the replicas in turn."""
        return distribute(self.strategy, make_dataset)


def build_run(
    settings: Settings, plan: Plan, devices: Devices, make_model: MakeModel = make_model
) -> Run:
    """Builds the run on this machine's devices; weights depend on the seed alone."""
    set_operations(settings.devices.tf32, settings.run.deterministic)
    strategy = make_strategy(devices, settings.devices.communication.all_reduce)
    return build_run_on(strategy, settings, plan, make_model)


def build_run_on(
    strategy: tf.distribute.Strategy,
    settings: Settings,
    plan: Plan,
    make_model: MakeModel = make_model,
) -> Run:
    """Builds the run on `plan.replicas` replicas, which may be those of several machines."""
    learning_rate = LearningRate(plan.learning_rate, strategy)
    loss_scale = LossScale(strategy) if plan.precision == "float16" else None
    with strategy.scope():
        trained = build_trained(settings, plan, make_model, learning_rate)
    model, optimizer, averages = trained.model, trained.optimizer, trained.averages
    noise = GradientNoise(
        plan.global_batch, comparable_micro_batches(model, plan), plan.learning_rate.adascale
    )
    images = tf.TensorSpec([plan.micro_batch, *plan.dataset.image_shape], tf.uint8)
    draws = find_draws(model, images)
    locator = None
    if settings.run.locate_nonfinite:
        locator = make_locator(
            strategy,
            model,
            seed=settings.run.seed,
            global_batch=plan.global_batch,
            draws=draws,
            phase=plan.offset % plan.global_batch,
        )
    xla, xla_note = choose_xla(settings.devices.xla, model, plan.replicas, plan.micro_batch)
    step = TrainStep(
        strategy,
        model,
        optimizer,
        learning_rate,
        noise,
        loss_scale,
        averages,
        locator,
        step_settings(settings, plan, xla, draws),
    )
    with tf.device("CPU:0"):
        most_steps = tf.Variable(tf.int32.max, trainable=False, name="most_steps")
    return Run(
        strategy=strategy,
        model=model,
        optimizer=optimizer,
        learning_rate=learning_rate,
        noise=noise,
        loss_scale=loss_scale,
        places=locator.places if locator else (),
        groups=trained.groups,
        decay_groups=trained.decay_groups,
        train_loop=DeviceLoop(step, learning_rate, most_steps),
        most_steps=most_steps,
        evaluate=make_evaluation(strategy, model, averages),
        notes=[note for note in (xla_note, sparse_text(model)) if note],
        averages=averages,
    )


class Trained(NamedTuple):
    """What is on every replica, and how the optimizer groups it."""

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    averages: WeightAverages | None
    groups: Sequence[Group]  # of variables by their rate
    decay_groups: Sequence[Group]


def build_trained(
    settings: Settings, plan: Plan, make_model: MakeModel, learning_rate: LearningRate
) -> Trained:
    """Builds the model, its optimizer and the averages of its weights; in a strategy's scope."""
    keras.utils.set_random_seed(settings.run.seed)
    with layers_in(plan.precision):
        model = make_model(plan.model, plan.dataset, settings.layers)
    factors, groups = group_variables(
        model, settings.learning_rate.multipliers, settings.learning_rate.layer_decay
    )
    decays, decay_groups = group_decays(
        model, settings.optimizer.weight_decay, settings.optimizer.weight_decays
    )
    variables = model.trainable_variables
    optimizer = make_optimizer(
        plan.optimizer, plan.optimizer_arguments, learning_rate, variables, factors, decays
    )
    averages = None
    if settings.optimizer.ema:
        averages = WeightAverages(settings.optimizer.ema, optimizer, variables)
    return Trained(model, optimizer, averages, groups, decay_groups)


def step_settings(
    settings: Settings, plan: Plan, xla: bool, draws: tuple[bool, ...]
) -> StepSettings:
    """The numbers of the step; `xla`: whether its passes are compiled; `draws`: `find_draws`'s."""
    return StepSettings(
        global_batch=plan.global_batch,
        accumulate=plan.accumulate,
        clipping=settings.optimizer.clipping,
        label_smoothing=settings.optimizer.label_smoothing,
        adascale=plan.learning_rate.adascale > 1,
        xla=xla,
        communication=choose_pieces(settings.devices.communication, plan.device, plan.replicas),
        class_weights=plan.dataset.class_weights,
        seed=settings.run.seed,
        draws=draws,
        phase=plan.offset % plan.global_batch,
        clock=not settings.run.deterministic,
    )


def comparable_micro_batches(model: keras.Model, plan: Plan) -> int:
    """The micro-batches of an update whose gradients can be compared.

    What for is told in `trainer.learning_rate.gradient_noise`.

    Raises:
      ValueError: AdaScale was asked for and there are none.
    """
    synchronized = plan.replicas > 1 and any(layer.synchronized for layer in normalizations(model))
    if synchronized and plan.learning_rate.adascale > 1:
        raise ValueError(
            "--lr_scaling=adascale compares the replicas' gradients, and the synchronized "
            f"BatchNormalization of {model.name} mixes them; use --batch_norm=local, a model "
            "without it, or one replica with --accumulate=2 or more."
        )
    return 1 if synchronized else plan.replicas * plan.accumulate
