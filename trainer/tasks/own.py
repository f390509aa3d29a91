"""`--task=python:module:function`: a task of the user's own."""

from trainer.own_code import call_own
from trainer.plan.dataset import DatasetFacts
from trainer.tasks.task import Task


def own_task(name: str, data: DatasetFacts) -> Task:
    """What the function returns for these data.

    Raises:
      ValueError: there is no such function, it fails, or it returns something else.
    """
    task = call_own("task", name, data, "a trainer.plan.dataset.DatasetFacts")
    if not isinstance(task, Task):
        raise ValueError(
            f"--task={name} returned {type(task).__name__}; it must return a "
            "trainer.tasks.task.Task."
        )
    return task
