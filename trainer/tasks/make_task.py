"""The task of a plan."""

from trainer.plan.plan import Plan
from trainer.plan.settings import Settings
from trainer.tasks.classification import classification
from trainer.tasks.task import Task


def make_task(settings: Settings, plan: Plan) -> Task:
    """The task that the plan names, for its data."""
    smoothing, data = settings.optimizer.label_smoothing, plan.dataset
    return classification(data.num_classes, smoothing, data.class_weights)
