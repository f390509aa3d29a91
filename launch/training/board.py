"""What TensorBoard shows of a run besides its rows: the plan, the command, the flags to compare by.

Each is a whole event file that a new start of the run writes anew, so that nothing is there twice.
"""

import os
import pathlib
import platform
import shlex
import time
from typing import TYPE_CHECKING

import numpy as np
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.hparams import api, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
from tensorboard.util import tensor_util

from launch.terminal.plan_text import plan_text
from launch.training.hparams import hparams
from launch.training.job import Job
from launch.training.model_card import PACKAGES, command_text, markdown_table, versions
from trainer.plan import curves
from trainer.plan.learning_rate import phases
from trainer.plan.plan import Plan
from trainer.run_folder.board_tags import MARKS, tag_of
from trainer.run_folder.boards import Boards, Value, text_value
from trainer.run_folder.happened import Phase
from trainer.run_folder.tensorboard import write_events

if TYPE_CHECKING:
    from trainer.run import Run

_POINTS = 200  # of a planned curve
_FILE = "events.out.tfevents.1"


def write_about(job: Job, run: "Run") -> None:
    """Writes what is known before training: texts, the layout of the charts, and the flags.

    Raises:
      OSError: it cannot be written.
    """
    headline, measured = run.task.headline, run.noise.measured
    words = list(map(shlex.quote, shlex.split(command_text(job))))
    texts = [
        text_value("1_plan", _code(plan_text(job.plan)), "Every derived number: `plan.json`."),
        text_value(
            "3_command",
            _code(" \\\n  ".join([" ".join(words[:3]), *words[3:]])),
            "Every flag: `flags.txt`.",
        ),
        text_value("4_environment", environment_text(job.plan)),
    ]
    layout = layout_value(headline.name, measured)
    write_events(job.run_dir / "plan" / f"{_FILE}.about", [*texts, layout])
    write_hparams(job, ended=False)


def write_hparams(job: Job, ended: bool) -> None:
    """Writes the flags that the HParams page compares runs by, beside the evaluations.

    Raises:
      OSError: it cannot be written.
    """
    flags = api.hparams_pb(hparams(job), trial_id=str(job.run_dir))
    values = list(flags.value)
    if ended:
        end = plugin_data_pb2.SessionEndInfo(status=STATUS_SUCCESS, end_time_secs=time.time())
        data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
        values.append(
            Value(
                tag=hparams_metadata.SESSION_END_INFO_TAG,
                metadata=hparams_metadata.create_summary_metadata(data),
                tensor=hparams_metadata.NULL_TENSOR,
            )
        )
    write_events(job.run_dir / "eval" / f"{_FILE}.hparams", values)


def write_plan(boards: Boards, plan: Plan, first: int) -> None:
    """Draws the planned rate, and a momentum that moves, from the step after `first` on.

    With AdaScale the gain decides when a rate comes, and there is nothing to draw ahead.
    """
    if plan.learning_rate.adascale > 1:
        return
    steps = planned_steps(plan, max(first, 1))
    progress = np.array(steps, np.float64) - 1 + plan.ahead
    rates = rate_at(plan, progress)
    boards.scalars("plan", "learning_rate", zip(steps, rates.tolist(), strict=True))
    momenta = curves.momentum(plan.learning_rate, progress)
    if momenta is not None:
        boards.scalars("plan", "momentum", zip(steps, momenta.tolist(), strict=True))


def rate_at(plan: Plan, progress: np.ndarray) -> np.ndarray:
    """The planned rate at each progress, float64 [n]."""
    if not plan.learning_rate.has_own_decay:
        return curves.rate(plan.learning_rate, progress)
    from trainer.learning_rate.own_schedule import drawn_rate

    return drawn_rate(plan.learning_rate, progress)


def planned_steps(plan: Plan, first: int) -> list[int]:
    """The steps from `first` to the end at which the plan is drawn, both ends of phases too."""
    last = max(plan.last_step, first)
    steps = set(np.linspace(first, last, min(_POINTS, last - first + 1)).astype(int).tolist())
    for phase in phases(plan.learning_rate):
        edges = (phase.start + 1 - plan.ahead, phase.stop - plan.ahead)
        steps |= {step for step in map(round, edges) if first <= step <= last}
    return sorted(steps)


def planned_phases(plan: Plan) -> list[Phase]:
    """The phases of the learning rate by the first step of each, where that is known."""
    if plan.learning_rate.adascale > 1:
        return []
    return [
        Phase(round(phase.start + 1 - plan.ahead), phase.name)
        for phase in phases(plan.learning_rate)
    ]


def layout_value(headline: str, measured: bool) -> Value:
    """The charts of the Custom Scalars page.

    Args:
      headline: the name of the task's metric.
      measured: whether the gradient noise is.
    """
    metric = [] if headline == "loss" else [headline]
    best = f"best_{headline}"
    categories = {
        "Does it learn?": [["loss"], *([[name, best] for name in metric] or [[best]])],
        "The learning rate, and its plan": [["learning_rate"]],
        "The gradient": [["gradient_norm"], *([["noise_scale"]] if measured else [])],
        "How fast is it?": [["examples_per_second"], ["input_wait_fraction"], ["step_ms"]],
        "What happened": [[MARKS]],
    }
    layout = layout_pb2.Layout()
    for title, charts in categories.items():
        category = layout.category.add(title=title)
        for names in charts:
            tags = [f"^{tag_of(name, headline)}$" for name in names]
            category.chart.add(title=names[0], multiline=layout_pb2.MultilineChartContent(tag=tags))
    tensor = tensor_util.make_tensor_proto(layout.SerializeToString())
    return Value(
        tag=layout_metadata.CONFIG_SUMMARY_TAG,
        metadata=layout_metadata.create_summary_metadata(),
        tensor=tensor,
    )


def environment_text(plan: Plan) -> str:
    """The machine, the devices and the packages."""
    rows = {
        "machine": f"{platform.node()}, {platform.system()}, {os.cpu_count()} cores",
        "devices": f"{plan.replicas} × {plan.device}, {plan.precision}",
        "started in": str(pathlib.Path.cwd()),
        **versions(PACKAGES),
    }
    return markdown_table("Environment", rows)


def _code(text: str) -> str:
    return f"```\n{text}\n```"
