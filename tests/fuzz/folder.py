"""A run folder as a run leaves it, made by the product's own writers, and what is made of it."""

import dataclasses
import functools
import json
import pathlib
import shutil
import types
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from input_pipeline.bad_records import Faults
from launch.control import status_text
from launch.flags.command import Command, flagfile_text, read_command
from launch.terminal.changes import changes_text
from launch.terminal.time_text import advice, goodput_text, spent_text
from launch.terminal.verdict import verdict
from launch.training import job
from launch.training.attempt import noise_scale, rows_in_the_end
from trainer.actions.control import Control
from trainer.actions.monitor import Monitor
from trainer.actions.spikes import Detector
from trainer.checkpoint import on_disk
from trainer.files.whole_files import append_line, write_json, write_text
from trainer.learning_rate.learning_rate import LearningRate
from trainer.plan.durations import next_due
from trainer.plan.headline import Headline
from trainer.run_folder import log_rows
from trainer.run_folder.account import Account, signs_of_life
from trainer.run_folder.history import History
from trainer.run_folder.requests import Request, Status, write_status
from trainer.run_folder.resume import progress_ratio
from trainer.run_folder.rollbacks import Rollback, backoff_factor, write_rollback
from trainer.run_folder.run_folder import finished_step, tidy

COMMAND = (
    "--device=cpu --dataset=digits --model=mlp --global_batch=64 --train_for=100st --warmup=0 "
    "--learning_rate=0.1 --checkpoint_every=20st --eval_every=25st --log_every=5st "
    "--on_divergence=rollback --backoff_for=50st --max_bad_records=5"
)
# What a rollback at step 48 back to step 40 leaves out.
SKIPPED = 8 * 64
ROLLBACK = Rollback(
    at=48, onset=41, to=40, why="the loss rose", position=48 * 64, skipped=SKIPPED, factor=0.5,
    over=50 * 64.0, seconds=4.0,
)  # fmt: skip


@functools.cache
def plan_once() -> tuple[Any, Any, Any]:
    """The plan of the command, which depends on nothing in the folder."""
    return job.plan_command(command("nowhere"))


def command(run_dir: pathlib.Path | str) -> Command:
    """The command that the run was started with."""
    return read_command([*COMMAND.split(), f"--run_dir={run_dir}"])


def make(run_dir: pathlib.Path, kind: str) -> None:
    """A run that was `rolled back` and killed, one that stands before its `rollback`, or `ended`.

    All have been steered. Variables are a few bytes: nothing that is done here reads them.
    """
    asked, plan = command(run_dir), plan_once()[0]
    for name in ("checkpoints", "best", "train", "eval", "control/requests"):
        (run_dir / name).mkdir(parents=True)
    (run_dir / "lock").touch()
    write_text(run_dir / "flags.txt", flagfile_text(asked))
    write_json(run_dir / "plan.json", plan.to_json())
    write_json(run_dir / "best/metrics.json", {"step": 25, "epoch": 1.1, "eval/accuracy": 0.5})
    steps = {"rollback": (20, 40), "rolled back": (20, 40, 60), "ended": (80, 100)}[kind]
    # A process has gone further than its last checkpoint.
    _write_rows(run_dir, plan, min(100, steps[-1] + 6))
    if kind != "ended":
        write_rollback(run_dir, ROLLBACK)
    for number, (step, action, value) in enumerate(
        ((10, "scale", 0.5), (62, "hold", None), (63, "resume_schedule", None), (64, "scale", 0.9))
    ):
        if step <= steps[-1] + 6:
            request = Request(f"{number:020d}-1", action, value, "me@here", "2026-01-01", "why")
            row = {"step": step, "request": dataclasses.asdict(request)}
            row |= {"learning_rate_before": 0.1, "learning_rate_after": 0.05}
            append_line(run_dir / "control/applied.jsonl", row)
    waits = Request("9-1", "scale", 0.25, "me@here", "2026-01-01", "the next")
    write_json(run_dir / "control/requests/9-1.json", dataclasses.asdict(waits))
    write_json(run_dir / "control/rejected.txt", {})
    write_status(
        run_dir / "control",
        Status(steps[-1], 100, 2.5, 0.1, 0.5, None, 90.0, 1.7e9, 17),
    )
    faults = Faults(plan_once()[2]["train"], 5, run_dir / "bad_records.jsonl")
    for record in (3, 7):
        faults.note(record, f"record {record} of digits/train ends too early.")
    if kind == "ended":
        (run_dir / "model.keras").write_bytes(b"a model")
    for step in steps:
        _write_checkpoint(run_dir, asked, plan, step, kind)


def _write_rows(run_dir: pathlib.Path, plan: Any, last: int) -> None:
    rows = []
    for step in range(5, last + 1, 5):
        row = {"step": step, "epoch": plan.epoch(step), "seconds": step / 10}
        rows.append(row | {"train/loss": 2.0, "learning_rate": 0.1, "noise_scale": 30.0})
        if step % 25 == 0:
            rows.append(row | {"eval/loss": 1.5, "eval/accuracy": 0.5})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run_dir / "metrics.jsonl").write_text(text, encoding="utf-8")


def _write_checkpoint(
    run_dir: pathlib.Path, asked: Command, plan: Any, step: int, kind: str
) -> None:
    after = kind == "rolled back" and step > ROLLBACK.to
    monitor = Monitor(plan.steps_per_epoch, 64, 2.3, History(), _journal([], []))
    detector = Detector(2.3)
    for row in range(1, step + 1):
        detector.step(row, 2.0 - row / 100, 1.0 + row % 7)
        if row % 5 == 0:
            monitor.row(row, {"train/loss": 2.0 - row / 100, "learning_rate": 0.1})
    evaluated = step // 25 * 25
    history = History(
        seconds=step / 10,
        best=0.5 if evaluated else None,
        best_step=min(evaluated, 25),
        evaluation={"eval/loss": 1.5, "eval/accuracy": 0.5} if evaluated else {},
        evaluated=evaluated,
        unlogged={"train/loss": 3.5, "gradient_norm": 2.0},
        unlogged_steps=2,
        monitor=monitor.to_json(),
        spikes=detector.to_json(),
        rollbacks=int(after),
        backoff={"factor": 0.5, "since": 40.0, "over": 50.0} if after else {},
        position=step * 64 + after * SKIPPED,
        spent={"imports": 2.0, "compute": step / 20, "behind the last checkpoint": 1.0},
        until=1.7e9 + step,
    )
    names = {"model/dense/kernel": [64, 10], "learning_rate/progress": []}
    state = {
        "flags": job.decided(asked, plan),
        "dataset": dataclasses.asdict(plan.dataset),
        "history": history.to_json(),
        "final": step == 100,
        "score": 0.5 if evaluated == step else None,
        "unwritten": [json.dumps({"step": step, "epoch": 1.0, "seconds": 1.0, "train/loss": 2.0})],
        "step": step,
        "shapes": names,
        "dtypes": {"model/dense/kernel": "float32", "learning_rate/progress": "float64"},
    }
    folder = run_dir / f"checkpoints/step-{step}"
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    (folder / "variables.index").write_bytes(bytes(range(64)))
    (folder / "variables.data-00000-of-00001").write_bytes(bytes(range(200)))
    on_disk.seal(folder)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What would be trained, and what a person is told beyond the plan."""

    decides: Mapping[str, Any]  # what is trained, and how
    recalls: Mapping[str, Any]  # what earlier steps came to, on which later judgements rest
    told: tuple[str, ...]


class Loader:
    """Goes through all that a process does with a run folder, but for TensorFlow's variables."""

    def __init__(self) -> None:
        self._rate = LearningRate(plan_once()[0].learning_rate, tf.distribute.get_strategy())
        self._start = [v.numpy() for v in self._rate.variables().values()]
        job.plan_command = lambda command: plan_once()

    def load(self, run_dir: pathlib.Path) -> Outcome:
        """What comes of the folder.

        Raises:
          ValueError, OSError: the command ends with a sentence.
        """
        status_text(run_dir)
        finished_step(run_dir)
        opened = job.open_job(command(run_dir))
        try:
            return self._outcome(opened, run_dir)
        finally:
            opened.held.close()

    def _outcome(self, opened: job.Job, run_dir: pathlib.Path) -> Outcome:
        found, plan, told = opened.found, opened.plan, []
        told += tidy(run_dir, found)
        if opened.changes:
            told.append(changes_text(found.step, opened.changes))
        history = found.state.history if found.state else History()
        unwritten = found.state.unwritten if found.state else []
        log_rows.rows_to_go_on_with(
            run_dir / "metrics.jsonl", found.step, unwritten, history.to_evaluate
        )
        self._look_back(history, found.step, run_dir)
        for source in opened.sources.values():
            Faults(source, 5, run_dir / "bad_records.jsonl")
        decides = {
            "step": found.step,
            "plan": plan.to_json(),
            "finished": opened.finished(),
            "complete": opened.complete(),
            "to_evaluate": history.to_evaluate,
            "rollbacks": [(one.to, one.position, one.skipped) for one in found.rollbacks],
            "control": self._steered(opened, told),
            "backoffs": [
                backoff_factor(history.backoff, p * progress_ratio(plan, found))
                for p in (40, 60, 80, 99)
            ],
        }
        recalls = {
            name: value
            for name, value in vars(history).items()
            if name not in ("started", "seconds", "position", "ahead", "to_evaluate", "backoff")
        }
        recalls["factors"] = [(one.factor, one.over) for one in found.rollbacks]
        self._judge_on(history, found.step, plan)
        return Outcome(json_of(decides), json_of(recalls), tuple(told))

    @staticmethod
    def _look_back(history: History, step: int, run_dir: pathlib.Path) -> None:
        """What the closing summary makes of the log, and of where the time went."""
        rows, account = rows_in_the_end(run_dir), Account(0.0)
        account.go_on(history.spent, history.until, signs_of_life(run_dir))
        spent = account.spent()
        for text in (spent_text(spent), goodput_text(spent), advice(spent, "CPU", 2)):
            assert "nan" not in text
        noise_scale(rows)
        verdict(rows, step, None, Headline())

    def _steered(self, opened: job.Job, told: list[str]) -> list[Any]:
        """What requests of before and new ones do, step by step."""
        notes: list[Any] = []
        said: list[str] = []
        for variable, value in zip(self._rate.variables().values(), self._start, strict=True):
            variable.assign(value)
        control = Control(
            opened.run_dir / "control", opened.plan, self._rate, opened.found.step,
            _journal(notes, said),
        )  # fmt: skip
        step = opened.found.step
        while step < opened.plan.last_step:
            self._rate.progress.assign(step)
            control.take_up(step)
            step = int(min(control.next_replay(step), opened.plan.last_step))
            control.stop_waits()
        told += [line for line in said if "again, as before" not in line]
        return [
            (step, event["action"], event["value"], event["learning_rate_after"])
            for step, event in notes
            if event["event"] == "control"
        ]

    def _judge_on(self, history: History, step: int, plan: Any) -> None:
        """Has what judges the losses go on from its state for some steps."""
        monitor = Monitor(plan.steps_per_epoch, 64, 2.3, history, _journal([], []))
        detector = Detector(2.3, history.spikes)
        for row in range(step + 1, step + 30):
            detector.step(row, 2.0, 1.0)
            monitor.row(row, {"train/loss": 2.0, "learning_rate": 0.1})
        json.dumps([monitor.to_json(), detector.to_json(), history.to_json()])
        next_due(step, plan.eval_every, plan.ahead)


def _journal(notes: list[Any], said: list[str]) -> Any:
    """One that takes events and lines down in these."""
    return types.SimpleNamespace(
        note=lambda step, event: notes.append((step, event)), say=said.append
    )


def json_of(value: Any) -> Any:
    """As it compares: NaN is NaN, and a tuple a list."""
    return json.loads(json.dumps(value, default=repr, sort_keys=True).replace("NaN", '"NaN"'))


def copy(template: pathlib.Path, run_dir: pathlib.Path) -> None:
    """A copy of a run folder in which `flags.txt` names its own."""
    shutil.copytree(template, run_dir)


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> Sequence[str]:
    """The names under which two outcomes differ."""
    return [name for name in a if a[name] != b.get(name)]
