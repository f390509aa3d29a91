"""The run: strategy, model, optimizer, learning rate, device functions, built from the plan."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from trainer.checkpoints import unique_names
from trainer.devices import make_strategy
from trainer.evaluation import make_evaluation
from trainer.gradient_noise import GradientNoise
from trainer.learning_rate import LearningRate
from trainer.losses import Batch
from trainer.models import make_model
from trainer.multipliers import Group, group_variables
from trainer.optimizers import make_optimizer
from trainer.plan import DatasetFacts, Devices, Plan
from trainer.settings import Settings
from trainer.step import StepSettings, make_train_loop

# Given a pipeline's number and the number of pipelines (one a worker), that pipeline's data.
MakeDataset = Callable[[int, int], tf.data.Dataset]
# Given a model's name and the dataset, that model; called in the strategy's scope.
MakeModel = Callable[[str, DatasetFacts], keras.Model]


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that trains; `train_loop` and `evaluate` are described in `trainer.step`."""

    strategy: tf.distribute.Strategy
    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    learning_rate: LearningRate
    noise: GradientNoise
    groups: Sequence[Group]  # of variables by their rate
    train_loop: Callable[[Iterator[Batch], tf.Tensor], dict[str, tf.Tensor]]
    evaluate: Callable[[Iterator[Batch], tf.Tensor], tf.Tensor]

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
        return named

    def stream(self, make_dataset: MakeDataset) -> tf.distribute.DistributedDataset:
        """The dataset with its consecutive micro-batches handed to the replicas in turn."""
        return self.strategy.distribute_datasets_from_function(
            lambda context: make_dataset(context.input_pipeline_id, context.num_input_pipelines)
        )


def build_run(
    settings: Settings, plan: Plan, devices: Devices, make_model: MakeModel = make_model
) -> Run:
    """Builds the run; weights depend on the seed alone."""
    strategy = make_strategy(devices)
    with strategy.scope():
        keras.utils.set_random_seed(settings.run.seed)
        model = make_model(plan.model, plan.dataset)
        learning_rate = LearningRate(plan.learning_rate)
        factors, groups = group_variables(
            model, settings.learning_rate.multipliers, settings.learning_rate.layer_decay
        )
        optimizer = make_optimizer(
            settings.optimizer, plan.betas, learning_rate, model.trainable_variables, factors
        )
        noise = GradientNoise(
            plan.global_batch, comparable_micro_batches(model, plan), plan.learning_rate.adascale
        )
    step = StepSettings(
        global_batch=plan.global_batch,
        accumulate=plan.accumulate,
        clip_norm=settings.optimizer.clip_norm,
        label_smoothing=settings.optimizer.label_smoothing,
        adascale=plan.learning_rate.adascale > 1,
    )
    return Run(
        strategy=strategy,
        model=model,
        optimizer=optimizer,
        learning_rate=learning_rate,
        noise=noise,
        groups=groups,
        train_loop=make_train_loop(strategy, model, optimizer, learning_rate, noise, step),
        evaluate=make_evaluation(strategy, model),
    )


def comparable_micro_batches(model: keras.Model, plan: Plan) -> int:
    """The micro-batches of an update whose gradients can be compared; see `trainer.gradient_noise`.

    Raises:
      ValueError: AdaScale was asked for and there are none.
    """
    synchronized = plan.replicas > 1 and any(
        getattr(layer, "synchronized", False) for layer in model._flatten_layers()
    )
    if synchronized and plan.learning_rate.adascale > 1:
        raise ValueError(
            "--lr_scaling=adascale compares the replicas' gradients, and the synchronized "
            f"BatchNormalization of {model.name} mixes them; use a model without it, or one "
            "replica with --accumulate=2 or more."
        )
    return 1 if synchronized else plan.replicas * plan.accumulate
