"""The streams of a command's data, as `Run.stream` takes them."""

from typing import TYPE_CHECKING

from input_pipeline.bad_records import Faults
from input_pipeline.layout import Layout
from input_pipeline.sources import Source
from launch.flags.command import Command
from trainer.plan.plan import Plan

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.run import MakeDataset


def evaluation_data(command: Command, plan: Plan, source: Source, faults: Faults) -> "MakeDataset":
    """The evaluation data, as `Run.stream` takes it."""
    from input_pipeline.streams import evaluation_stream

    def make(pipeline: int, pipelines: int) -> "tf.data.Dataset":
        replicas = plan.replicas // pipelines
        layout = Layout(plan.eval_batch, 1, replicas, pipelines, pipeline)
        return evaluation_stream(
            source, layout=layout, image_size=command.data.image_size, faults=faults
        )

    return make


def training_data(
    command: Command, plan: Plan, source: Source, first_position: int, faults: Faults
) -> "MakeDataset":
    """The training data from this position on, as `Run.stream` takes it."""
    from input_pipeline.streams import training_stream

    def make(pipeline: int, pipelines: int) -> "tf.data.Dataset":
        return training_stream(
            source,
            layout=Layout(
                plan.global_batch, plan.accumulate, plan.replicas // pipelines, pipelines, pipeline
            ),
            seed=command.settings.run.seed,
            augment=command.data.augment,
            first_position=first_position,
            shuffle_block=command.data.shuffle_block,
            image_size=command.data.image_size,
            mixup=command.data.mixup,
            cutmix=command.data.cutmix,
            faults=faults,
        )

    return make
