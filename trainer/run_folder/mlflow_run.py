"""A run in MLflow: at MLFLOW_TRACKING_URI, else in a folder of files beside the run's.

No run is the active one of this process: each call names it.
"""

import contextlib
import fcntl
import os
import pathlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer.run_folder.trackers import Sent, keep_id, lacking, read_id, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MOST_VALUES, _MOST_FLAGS, _LONGEST = 1000, 100, 6000  # that MLflow takes at once
_STATUS = {"finished": "FINISHED", "stopped": "KILLED"}


class MlflowRun:
    """See `trainer.run_folder.trackers.Store`.

    Args:
      run_dir: the run's folder, which names it; the folder around it names the experiment.
      flags: of the run, its parameters. Those that are there already cannot change.
    """

    def __init__(self, run_dir: pathlib.Path, flags: Mapping[str, Any]) -> None:
        # What cannot be reached is tried again by us.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        # Files need no other package and no server; MLflow wants to be told that they are meant.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        from mlflow import MlflowClient

        run_dir = run_dir.absolute()
        local = run_dir.parent / "mlruns"
        uri = os.environ.get("MLFLOW_TRACKING_URI") or local.as_uri()
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run_dir.parent.name or "lockstep"
        place = without_password(uri)
        self._client = MlflowClient(uri)
        self._id = self._known(read_id(run_dir, place))
        if not self._id:
            around = _alone(local) if uri == local.as_uri() else contextlib.nullcontext()
            with around:
                number = _experiment(self._client, experiment)
            self._id = self._client.create_run(number, run_name=run_dir.name).info.run_id
            keep_id(run_dir, place, self._id)
        found = self._client.get_run(self._id).data
        self.held = {name: self._last_step(name) for name in found.metrics}
        self._keep_flags({n: value for n, value in flags.items() if n not in found.params})
        self._client.update_run(self._id, status="RUNNING")
        self.where = f"MLflow run {run_dir.name} of experiment {experiment}, {place}"

    def allowed(self, name: str) -> str:
        """A metric's name as MLflow takes it: no other signs, nor below another metric."""
        group, slash, rest = name.partition("/")
        if group == "learning_rate" and slash:  # its files are named so, and there is that rate
            return "learning_rate_of/" + re.sub(r"[^\w -]", "_", rest)
        return re.sub(r"[^\w./ -]", "_", name)

    def add(self, rows: Sequence[Sent]) -> None:
        """Sends rows."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [
            Metric(name, value, now, step)
            for step, values in rows
            for name, value in values.items()
        ]
        for first in range(0, len(metrics), _MOST_VALUES):
            self._client.log_batch(self._id, metrics=metrics[first : first + _MOST_VALUES])

    def end(self, state: str, best: Mapping[str, float]) -> None:
        """Sends the best evaluation as `best/NAME`, and the state."""
        names = {f"best/{name}": value for name, value in best.items() if name != "step"}
        row = lacking({"step": best.get("step", 0), **names}, self)
        if row:
            self.add([row])
        self._client.set_tag(self._id, "lockstep.state", state)
        self._client.set_terminated(self._id, _STATUS.get(state, "FAILED"))

    def _known(self, run_id: str | None) -> str | None:
        """The id, if the store has a run with it, which nobody has deleted."""
        from mlflow.exceptions import MlflowException

        if not run_id:
            return None
        try:
            deleted = self._client.get_run(run_id).info.lifecycle_stage == "deleted"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return None if deleted else run_id

    def _last_step(self, name: str) -> int:
        return max(point.step for point in self._client.get_metric_history(self._id, name))

    def _keep_flags(self, flags: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)[:_LONGEST]) for name, value in flags.items()]
        for first in range(0, len(params), _MOST_FLAGS):
            self._client.log_batch(self._id, params=params[first : first + _MOST_FLAGS])


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Holds off other runs that begin: of two at once each would make the experiment."""
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _experiment(client: "MlflowClient", name: str) -> str:
    """The id of an experiment, which is made where it is missing."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    try:
        return found.experiment_id if found else client.create_experiment(name)
    except MlflowException:  # another was faster
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id
