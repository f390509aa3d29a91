"""The task of a plan."""

import tensorflow as tf

from trainer.plan.dataset import DatasetFacts
from trainer.plan.plan import Plan
from trainer.plan.settings import Settings
from trainer.tasks.classification import classification
from trainer.tasks.language_model import language_model
from trainer.tasks.multi_label import multi_label
from trainer.tasks.own import own_task
from trainer.tasks.regression import regression
from trainer.tasks.segmentation import segmentation
from trainer.tasks.task import Task


def make_task(settings: Settings, plan: Plan) -> Task:
    """The task that the plan names, for its data.

    Raises:
      ValueError: a task of the user's own cannot be had.
    """
    data = plan.dataset
    if plan.task == "classification":
        return classification(
            data.num_classes, settings.optimizer.label_smoothing, data.class_weights
        )
    if plan.task == "multi_label":
        return multi_label(data.num_classes)
    if plan.task == "regression":
        return regression(data.num_classes, data.target_means, data.target_deviations)
    if plan.task == "segmentation":
        height, width, _ = data.image_shape
        return segmentation(height, width, data.num_classes)
    if plan.task == "language_model":
        length = data.image_shape[0] - 1
        return language_model(length, data.num_classes, data.bytes_per_token)
    return own_task(plan.task, data)


def batch_spec(data: DatasetFacts, examples: int) -> dict[str, tf.TensorSpec]:
    """A batch of so many examples, but for what only some runs have in it."""
    spec = {
        "weight": tf.TensorSpec([examples], tf.float32),
        "position": tf.TensorSpec([examples], tf.int64),
        "record": tf.TensorSpec([examples], tf.int64),
    }
    if data.targets == "tokens":
        return spec | {"tokens": tf.TensorSpec([examples, *data.image_shape], tf.int32)}
    label = tf.TensorSpec([examples, data.num_classes], tf.float32)
    if data.targets == "class":
        label = tf.TensorSpec([examples], tf.int64)
    elif data.targets == "masks":
        label = tf.TensorSpec([examples, *data.image_shape[:2]], tf.uint8)
    image = tf.TensorSpec([examples, *data.image_shape], tf.uint8)
    return spec | {"image": image, "label": label}


def inputs_spec(task: Task, data: DatasetFacts, examples: int) -> tf.TensorSpec:
    """What the task calls the model with, for so many examples: a spec, or a structure of them."""
    inputs = tf.function(task.inputs, autograph=False)
    found = inputs.get_concrete_function(batch_spec(data, examples)).structured_outputs
    return tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), found)
