"""The run: strategy, model, optimizer, learning rate, device functions, built from the plan."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from trainer.audit import Audit, make_audit
from trainer.device_loop import DeviceLoop
from trainer.evaluation import Evaluation
from trainer.layers.batch_norm import few_examples_text, synchronized_layers
from trainer.layers.precision import layers_in, set_operations
from trainer.layers.random_layers import make_draws
from trainer.layers.xla import choose_xla
from trainer.learning_rate.gradient_noise import GradientNoise
from trainer.learning_rate.learning_rate import LearningRate
from trainer.locate import make_locator
from trainer.models.check import build, check_model
from trainer.models.hub import pixels_text
from trainer.models.init_from import first_weights
from trainer.models.make_model import make_model
from trainer.models.names import BUILT_IN, DECODERS
from trainer.models.preset_folder import HUB
from trainer.models.taken import Taken
from trainer.optimizer.averaging import WeightAverages
from trainer.optimizer.freezing import Held, freeze
from trainer.optimizer.loss_scale import LossScale
from trainer.optimizer.optimizers import make_optimizer
from trainer.optimizer.variable_groups import Group, group_decays, group_variables
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.plan import Plan
from trainer.plan.settings import LayerSettings, Settings
from trainer.replicas.all_reduce import make_exchange, of_one_process, sparse_text
from trainer.replicas.strategy import make_strategy
from trainer.replicas.streams import Batch, MakeDataset, Stream, distribute
from trainer.replicas.sums import choose_pieces
from trainer.replicas.variables import host_variable, unique_names
from trainer.step import TrainStep
from trainer.tasks.make_task import inputs_spec, make_task
from trainer.tasks.task import Task

# Given a model's name, the dataset and what is to be in its layers, that model; called in scope.
MakeModel = Callable[[str, DatasetFacts, LayerSettings], keras.Model]


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that trains and evaluates."""

    strategy: tf.distribute.Strategy
    task: Task
    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    learning_rate: LearningRate
    noise: GradientNoise
    loss_scale: LossScale | None  # with float16
    audit: Audit | None  # of the devices
    places: Sequence[str]  # what the column `nonfinite_place` counts from 1
    averages: WeightAverages | None
    taken: Taken | None  # of the first weights, where they are from a file
    groups: Sequence[Group]  # of variables by their rate
    decay_groups: Sequence[Group]  # and by their weight decay, where it was given by pattern
    train_loop: DeviceLoop
    most_steps: tf.Variable  # int32 [], of a device loop: set to 1 by any thread, it ends one
    evaluate: Evaluation
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

    @property
    def xla(self) -> str:
        """Whether its passes are compiled: on or off."""
        return "on" if self.train_loop.step.xla else "off"

    def compiled(self) -> "Run":
        """The same run, its variables and all, whose passes are compiled by XLA."""
        return dataclasses.replace(self, train_loop=self.train_loop.compiled())

    def ask_to_stop(self) -> None:
        """Has the device loop end after the step in hand; from any thread.

        Of several workers all end after the same step, to which each brings what it was asked for.
        """
        if self.train_loop.step.stop is None:
            self.most_steps.assign(1)
        else:
            self.train_loop.step.stop.assign(1.0)

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
    set_operations(settings.devices.tf32, settings.run.deterministic, devices.threads)
    strategy = make_strategy(devices, settings.devices.communication.all_reduce)
    return build_run_on(strategy, settings, plan, make_model)


def build_run_on(
    strategy: tf.distribute.Strategy,
    settings: Settings,
    plan: Plan,
    make_model: MakeModel = make_model,
) -> Run:
    """Builds the run on `plan.replicas` replicas, which may be those of several machines."""
    asked, rates = settings.optimizer, settings.learning_rate
    learning_rate, task = LearningRate(plan.learning_rate, strategy), make_task(settings, plan)
    with strategy.scope():
        model = build_model(settings, plan, make_model)
        said = check(model, task, plan)
        first, frozen = settings.fine_tuning.init_from, settings.fine_tuning.freeze
        taken = first_weights(model, first) if first else None
        held = freeze(model, frozen, plan.unfreeze_at)
        variables = model.trainable_variables
        factors, groups = group_variables(model, rates.multipliers, rates.layer_decay)
        decays, decay_groups = group_decays(model, asked.weight_decay, asked.weight_decays)
        optimizer = make_optimizer(
            plan.optimizer,
            plan.optimizer_arguments,
            learning_rate,
            variables,
            factors,
            decays,
            held.held if held else (),
        )
        averages = WeightAverages(asked.ema, optimizer, variables) if asked.ema else None
    step, notes = build_step(
        strategy, task, model, optimizer, learning_rate, averages, settings, plan, held
    )
    most_steps = host_variable(np.int32(tf.int32.max), "most_steps")
    return Run(
        strategy=strategy,
        task=task,
        model=model,
        optimizer=optimizer,
        learning_rate=learning_rate,
        noise=step.noise,
        loss_scale=step.loss_scale,
        audit=step.audit,
        places=step.locator.places if step.locator else (),
        averages=averages,
        taken=taken,
        groups=groups,
        decay_groups=decay_groups,
        train_loop=DeviceLoop(
            step,
            accumulate=plan.accumulate,
            clock=not settings.run.deterministic,
            most_steps=most_steps,
        ),
        most_steps=most_steps,
        evaluate=Evaluation(strategy, model, task, averages),
        notes=[*said, *(taken.lines() if taken else ()), *notes],
    )


def build_model(settings: Settings, plan: Plan, make_model: MakeModel) -> keras.Model:
    """Builds the model in the plan's precision, from the run's seed; in a strategy's scope."""
    keras.utils.set_random_seed(settings.run.seed)
    with layers_in(plan.precision):
        return make_model(plan.model, plan.dataset, settings.layers)


def check(model: keras.Model, task: Task, plan: Plan) -> list[str]:
    """Builds the model if it is not yet, and sees that it can be trained; what there is to say.

    Raises:
      ValueError: it cannot be.
    """
    inputs = inputs_spec(task, plan.dataset, 2)
    if plan.model in BUILT_IN or plan.model in DECODERS or plan.model.startswith(("keras:", HUB)):
        build(model, inputs)
        return pixels_text(plan.model) if plan.model.startswith(HUB) else []
    return check_model(model, inputs, task)


def build_step(
    strategy: tf.distribute.Strategy,
    task: Task,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    learning_rate: LearningRate,
    averages: WeightAverages | None,
    settings: Settings,
    plan: Plan,
    held: Held | None = None,
) -> tuple[TrainStep, list[str]]:
    """Builds the step, outside of the strategy's scope; and what there is to say of it.

    Raises:
      ValueError: the model cannot be trained as was asked for.
    """
    noise = GradientNoise(
        plan.global_batch, comparable_micro_batches(model, plan), plan.learning_rate.adascale
    )
    inputs = inputs_spec(task, plan.dataset, plan.micro_batch)
    draws = make_draws(
        model,
        inputs,
        seed=settings.run.seed,
        global_batch=plan.global_batch,
        phase=plan.offset % plan.global_batch,
    )
    check_audit(model, plan)
    locate, devices = settings.run.locate_nonfinite, settings.devices
    xla, xla_note = choose_xla(plan.xla, devices.xla, model, inputs, plan.replicas)
    pack_bytes = devices.communication.pack_bytes
    pieces = choose_pieces(pack_bytes, plan.device, plan.micro_batches, plan.exact)
    step = TrainStep(
        strategy=strategy,
        task=task,
        model=model,
        optimizer=optimizer,
        learning_rate=learning_rate,
        noise=noise,
        loss_scale=LossScale(strategy) if plan.precision == "float16" else None,
        averages=averages,
        held=held,
        locator=make_locator(strategy, task, model, draws) if locate else None,
        audit=make_audit(strategy, plan.audit_every) if plan.audit_every else None,
        draws=draws,
        global_batch=plan.global_batch,
        clipping=settings.optimizer.clipping,
        xla=xla,
        # Not where replicas talk within the pass, nor where sums may be in any order.
        stop=None if of_one_process(strategy) else host_variable(np.float32(0), "stop"),
        alone=bool(plan.exact or plan.audit_every) and not mixes_replicas(model, plan),
        exchange=make_exchange(strategy, pieces, plan.exact, devices.communication, plan.device),
    )
    notes = (xla_note, sparse_text(model), few_examples_text(model, plan.micro_batch))
    return step, [note for note in notes if note]


def mixes_replicas(model: keras.Model, plan: Plan) -> bool:
    """Whether a layer sums over several replicas within the forward pass."""
    return plan.replicas > 1 and bool(synchronized_layers(model))


def comparable_micro_batches(model: keras.Model, plan: Plan) -> int:
    """How many micro-batches of an update have gradients of their own to compare; 1: none has.

    `trainer.learning_rate.gradient_noise` says why they are compared.

    Raises:
      ValueError: AdaScale was asked for and there are none.
    """
    synchronized = mixes_replicas(model, plan)
    if synchronized and plan.learning_rate.adascale > 1:
        raise ValueError(
            "--lr_scaling=adascale compares the replicas' gradients, and the synchronized "
            f"BatchNormalization of {model.name} mixes them; use --batch_norm=local, a model "
            "without it, or one replica."
        )
    return 1 if synchronized else plan.micro_batches


def check_audit(model: keras.Model, plan: Plan) -> None:
    """Sees that a micro-batch can be computed again by itself, where audits were asked for.

    Raises:
      ValueError: it cannot.
    """
    if plan.audit_every and mixes_replicas(model, plan):
        raise ValueError(
            "--audit_every has one replica compute a micro-batch again, and the synchronized "
            f"BatchNormalization of {model.name} mixes those of all; use --batch_norm=local, or "
            "--audit_every=0."
        )
