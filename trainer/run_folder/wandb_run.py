"""A run in W&B: at its server where there is an API key, else offline in the run's folder.

An offline run cannot go on. Each start makes it anew, with all that metrics.jsonl has, and removes
the one before it: there is one to `wandb sync`, with every step once.
"""

import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.run_folder.trackers import Sent, keep_id, read_id

_OFFLINE, _NOTHING = ("offline", "dryrun"), "disabled"
# Of a server, which is tried again by us.
_PATIENCE_SECONDS = 10.0


class WandbRun:
    """See `trainer.run_folder.trackers.Store`.

    Args:
      run_dir: the run's folder, which names it; the folder around it names the project.
      flags: of the run, its config.
    """

    def __init__(self, run_dir: pathlib.Path, flags: Mapping[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # what W&B sends about itself
        import wandb

        run_dir = run_dir.absolute()
        folder = run_dir / "wandb"
        folder.mkdir(exist_ok=True)  # W&B would take a temporary one
        settings = wandb.Settings(
            console="off", silent=True, reinit="create_new", init_timeout=_PATIENCE_SECONDS
        )
        mode = _mode(wandb, settings)
        run_id = read_id(run_dir, "wandb") or secrets.token_hex(4)
        keep_id(run_dir, "wandb", run_id)
        if mode in _OFFLINE:
            for before in folder.glob(f"offline-run-*-{run_id}"):
                shutil.rmtree(before)
        project = os.environ.get("WANDB_PROJECT") or run_dir.parent.name or "lockstep"
        self._run = wandb.init(
            project=re.sub(r"[/\\#?%:]", "-", project)[:128],
            name=run_dir.name,
            id=run_id,
            dir=run_dir,
            mode=mode,
            resume=None if mode in _OFFLINE else "allow",
            config=dict(flags),
            allow_val_change=True,
            settings=settings,
        )
        resumed = self._run.summary.keys() if self._run.resumed else ()
        self.held = dict.fromkeys(resumed, self._run.step - 1)
        place = f"offline in {folder}" if mode in _OFFLINE else self._run.url or mode
        self.where = f"W&B run {run_dir.name} of project {project}, {place}"

    def allowed(self, name: str) -> str:
        """A metric's name as W&B takes it: any."""
        return name

    def add(self, rows: Sequence[Sent]) -> None:
        """Sends rows; W&B shows those of a step when the next one comes."""
        for step, values in rows:
            self._run.log(values, step=step)

    def end(self, state: str, best: Mapping[str, float]) -> None:
        """Sends the best evaluation as `best/NAME` and the state, into the summary."""
        of_best = {f"best/{name}": value for name, value in best.items()}
        self._run.summary.update({**of_best, "state": state})
        if state == "stopped":
            self._run.mark_preempting()
        self._run.finish(exit_code=int(state != "finished"))


def _mode(wandb: Any, settings: Any) -> str:
    """How W&B is told to work, by WANDB_MODE or `wandb offline`; without an API key offline."""
    told = wandb.setup(settings).settings.mode
    if told in (*_OFFLINE, _NOTHING) or wandb.login(prompt=False, verify=False):
        return told
    return "offline"
