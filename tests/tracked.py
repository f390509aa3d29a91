"""What MLflow and W&B have of a run, by their own readers or files."""

import collections
import os
import pathlib
from typing import Any

from tests import wandb_files
from tests.helpers import Run

Series = dict[str, list[tuple[int, float]]]  # steps and values, by name


def client(run: Run) -> Any:
    """MLflow's own, of the store beside a run's folder."""
    import mlflow

    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    return mlflow.MlflowClient((run.folder.parent / "mlruns").as_uri())


def mlflow_run(run: Run) -> Any:
    """The one run of MLflow's that a run is."""
    found = [
        one
        for one in client(run).search_runs(
            [e.experiment_id for e in client(run).search_experiments()]
        )
        if one.info.run_name == run.folder.name
    ]
    assert len(found) == 1
    return found[0]


def of_mlflow(run: Run) -> Series:
    """What MLflow has of a run."""
    found = mlflow_run(run)
    return {
        name: [
            (one.step, one.value) for one in client(run).get_metric_history(found.info.run_id, name)
        ]
        for name in found.data.metrics
    }


def wandb_file(run: Run) -> pathlib.Path:
    """The one that `wandb sync` would send."""
    (path,) = run.folder.glob("wandb/offline-run-*/run-*.wandb")
    return path


def of_wandb(run: Run) -> Series:
    """What W&B has of a run, whose rows are of one step each."""
    series = collections.defaultdict(list)
    rows = wandb_files.history(wandb_file(run))
    assert [step for step, _ in rows] == sorted({step for step, _ in rows})
    for step, values in rows:
        for name, value in values.items():
            series[name].append((step, value))
    return dict(series)


def state_of(run: Run, tracker: str) -> Any:
    """MLflow's status, or W&B's exit code and whether it was preempted."""
    if tracker == "mlflow":
        return mlflow_run(run).info.status
    found = wandb_files.run(wandb_file(run))
    return found["code"], found["preempting"]


READERS = {"mlflow": of_mlflow, "wandb": of_wandb}
