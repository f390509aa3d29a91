"""The facts of a command's data that its plan is made from; no TensorFlow."""

import numpy as np

from input_pipeline.checks import check_data
from input_pipeline.label_checks import check_labels
from input_pipeline.labels import count_labels, labels_digest
from input_pipeline.sources import Source
from launch.flags.command import Command
from launch.flags.parsing import parsed
from trainer.plan.class_weights import class_weights
from trainer.plan.dataset import DatasetFacts, SplitDigests
from trainer.plan.tasks import choose_task


def dataset_facts(command: Command, sources: dict[str, Source]) -> DatasetFacts:
    """The facts of the sources that the plan is made from.

    Raises:
      ValueError: they do not suit the data's settings or each other.
    """
    train, evaluation = sources["train"], sources["eval"]
    said = check_labels(train, evaluation, command.data.max_bad_records)

    task = choose_task(command.settings.task, train.targets)
    if command.values.class_weights and task != "classification":
        raise ValueError(
            f"--class_weights={command.values.class_weights} weighs the classes of a "
            f"classification, and the task is {task}; leave it out."
        )

    def weights(text: str) -> tuple[float, ...]:
        return class_weights(
            text, train.class_names, train.num_classes, lambda: count_labels(train)
        )

    return DatasetFacts(
        name=train.name.removesuffix("/train"),
        train_examples=train.length,
        eval_examples=evaluation.length,
        num_classes=train.num_classes,
        image_shape=check_data(command.data, train, evaluation),
        shuffle_block=command.data.shuffle_block,
        left_out=sum(source.left_out for source in sources.values()),
        notes=train.notes + evaluation.notes + said,
        class_weights=parsed(command.values, "class_weights", weights),
        class_names=train.class_names,
        train=digests(train),
        evaluation=digests(evaluation),
        targets=train.targets,
        bytes_per_token=evaluation.bytes_per_token,
        as_given=train.dataset is not None,
        **spread(train),
    )


def spread(source: Source) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation of targets that are numbers, where they are known."""
    if source.targets != "values" or source.labels is None:
        return {}
    values = source.labels.astype(np.float64)
    deviations = values.std(axis=0)
    return {
        "target_means": tuple(values.mean(axis=0).tolist()),
        # One that is the same everywhere is told by its mean.
        "target_deviations": tuple(np.where(deviations > 0, deviations, 1.0).tolist()),
    }


def digests(source: Source) -> SplitDigests:
    """The digests that tell the examples of a split from others."""
    return SplitDigests(labels_digest(source), source.order, source.contents)
