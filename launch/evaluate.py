"""Measures a trained model on all examples of a split: `python -m launch.evaluate RUN_DIR`."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags as absl_flags

from input_pipeline.bad_records import Faults
from input_pipeline.sources import Source
from launch.flags.command import parse
from launch.flags.group import Group
from launch.flags.parsing import check_file, one_of, one_run_folder
from launch.process import cli
from launch.reports.evaluation import NUMBERS
from launch.terminal.csv_text import csv_text
from launch.terminal.evaluation_charts import (
    save_calibration,
    save_confusion,
    save_masks,
    save_mistakes,
)
from launch.terminal.evaluation_text import mask_report_text, report_text
from launch.terminal.image_grid import as_it_is
from launch.terminal.plan_text import classes_text
from launch.terminal.table import table, whole
from launch.training.answers import every_answer
from launch.training.evaluated_data import define_evaluated_data_flags, open_evaluated
from launch.training.gpus import count_gpus
from launch.training.mask_answers import MaskAnswers, mask_answers
from launch.training.streams import evaluation_data
from launch.training.trained import (
    Trained,
    define_checkpoint_flag,
    devices_for,
    open_trained,
    plan_for,
    restored_apart,
)
from trainer.files.whole_files import write_json, write_text
from trainer.plan.devices import Devices
from trainer.plan.headline import Headline
from trainer.plan.plan import Plan
from trainer.run_folder.run_folder import is_locked
from trainer.tasks.classification_report import NO_ANSWER, Report, report, worst

if TYPE_CHECKING:
    from trainer.evaluation import Evaluation
    from trainer.replicas.streams import Stream

_MISTAKES = 36  # in the picture
_MATRIX = 1_000  # classes that a matrix is drawn of


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What a model was measured on, and what came of it."""

    trained: Trained
    plan: Plan
    source: Source
    metrics: dict[str, float]  # as training logs them
    headline: Headline  # of the task
    report: Report | None = None  # of classes alone
    records: np.ndarray | None = None  # int64 [n], of the report's examples
    masks: MaskAnswers | None = None  # of masks alone

    @property
    def heading(self) -> str:
        """Of its pictures."""
        name, value = self.headline.name, self.metrics[f"eval/{self.headline.name}"]
        shown = f"{name.replace('_', ' ')} {self.headline.text(value)}"
        return f"{self.source.name}, step {self.trained.step:,}: {shown}"


def define_evaluate_flags() -> absl_flags.FlagValues:
    """The flags of this command."""
    values = absl_flags.FlagValues()
    add = Group(values, "evaluate")
    define_checkpoint_flag(add)
    define_evaluated_data_flags(add)
    add.text("json", "", "A file for all numbers, as JSON.\nDefault: none.")
    add.text(
        "out",
        "",
        "A folder for pictures and answers.csv; none: leave them out.\n"
        "Default: RUN_DIR/evaluation/step-STEP-SPLIT, unless the run goes on.",
    )
    add.text("device", "auto", "auto, gpu or cpu.\nauto: the GPUs if there are any.")
    add.integer("replicas", 0, 0, "Devices to evaluate on.\n0: every GPU, or one CPU.")
    add.integer("verbosity", 0, 0, "TensorFlow's own messages.\n0: none, 2: everything.")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        run_dir = one_run_folder(parse(values, argv), "launch.evaluate RUN_DIR")
        device = one_of("device", values.device, ("auto", "gpu", "cpu"))
        trained = open_trained(run_dir, values.checkpoint)
        with cli.own_code(values.verbosity):
            source, data = open_evaluated(trained, values.dataset, values.data_dir, values.split)
        command = dataclasses.replace(trained.command, data=data)
        trained = dataclasses.replace(trained, command=command)
        devices = devices_for(
            trained, device, values.replicas, count_gpus(device, values.verbosity)
        )
        plan = plan_for(trained, devices)
        check_file("json", values.json, begins=b'{\n "run": ')
        pictures = values.out if plan.task in ("classification", "segmentation") else "none"
        out, why_none = open_out(trained, source, pictures)
    print(intended_text(trained, source), flush=True)
    cli.import_tensorflow(values.verbosity)
    faults = Faults(source, source.length)
    with cli.wrong_command(), faults.raised():
        evaluated = evaluate(trained, source, plan, devices, faults)
    print(evaluated_text(evaluated, faults))
    with cli.wrong_command():
        if values.json:
            write_json(pathlib.Path(values.json), to_json(evaluated))
        if out is not None:
            save_pictures(evaluated, out)
    where = f"{whole(out)}: answers.csv and pictures" if out else why_none
    if where:
        print(table([("written", where)]))
    return cli.FINISHED


def intended_text(trained: Trained, source: Source) -> str:
    """What is evaluated on what."""
    rows = [("model", f"{trained.what()} of {whole(trained.folder)}")]
    rows += [("", note) for note in trained.notes]
    count = f"{source.length:,} examples, {classes_text(trained.facts)}"
    rows.append(("data", f"{source.name}: {count}"))
    return table([*rows, *(("", note) for note in source.notes)])


def open_out(trained: Trained, source: Source, given: str) -> tuple[pathlib.Path | None, str]:
    """The folder of the pictures, made; or none, and why.

    Raises:
      ValueError: there is something else in its place.
      OSError: it cannot be made.
    """
    if given == "none":
        return None, ""
    name = re.sub(r"[^\w.-]+", "-", source.name)
    out = pathlib.Path(given or trained.folder / f"evaluation/step-{trained.step}-{name}")
    if not given and is_locked(trained.folder):
        return None, "no pictures: the run is training; give a folder for them, --out=DIR"
    if not given and not os.access(trained.folder, os.W_OK):
        return None, f"no pictures: {trained.folder} is read-only; give a folder, --out=DIR"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise OSError(30, "it is read-only")
    except OSError as error:
        raise OSError(
            f"{out} cannot be made or written ({error.strerror}); give another folder, --out=DIR."
        ) from None
    return out, ""


def evaluate(
    trained: Trained, source: Source, plan: Plan, devices: Devices, faults: Faults
) -> Evaluated:
    """One exact pass, the same that training makes, and another one for each example's answer.

    Raises:
      ValueError: the weights cannot be read.
    """
    from trainer.evaluation import Evaluation, evaluate_in_pieces
    from trainer.layers.precision import set_operations
    from trainer.replicas.strategy import make_strategy
    from trainer.replicas.streams import distribute
    from trainer.tasks.make_task import make_task

    settings = trained.command.settings
    set_operations(settings.devices.tf32, settings.run.deterministic, plan.threads)
    strategy = make_strategy(devices)
    with strategy.scope():
        model, averages = restored_apart(trained, plan)
    stream = distribute(strategy, evaluation_data(trained.command, plan, source, faults))
    batches = -(-source.length // plan.eval_batch)
    pass_ = Evaluation(strategy, model, make_task(settings, plan), averages)
    rows = evaluate_in_pieces(pass_, cli.keep(iter(stream)), batches, lambda: True)
    if not rows[0][-1] > 0:
        raise ValueError(
            f"nothing of {source.name} is labelled or weighs anything, so nothing can be measured."
        )
    # A file has the averages alone.
    metrics = pass_.metrics(rows[:1] if trained.weights.is_file() else rows)
    of = Evaluated(trained, plan, source, metrics, pass_.task.headline)
    if plan.task == "classification":
        found, records = answers_of(pass_, stream, batches, source)
        return dataclasses.replace(of, report=found, records=records)
    if plan.task == "segmentation":
        size = trained.command.data.image_size
        answers = mask_answers(pass_, rows[0], stream, batches, source, size)
        return dataclasses.replace(of, masks=answers)
    return of


def answers_of(
    pass_: "Evaluation", stream: "Stream", batches: int, source: Source
) -> tuple[Report, np.ndarray]:
    """What is told of each example; and their records, int64 [n]."""
    found = every_answer(pass_, stream, batches, source.length)
    outputs, labels, weights, records = (
        found[name] for name in ("outputs", "label", "weight", "record")
    )
    return report(outputs, labels, weights), records


def evaluated_text(of: Evaluated, faults: Faults) -> str:
    """What came of it, for a person."""
    rows = [("loss", f"{of.metrics['eval/loss']:.6g}")]
    for name, value in of.metrics.items():
        short = name.removeprefix("eval/")
        if short == of.headline.name:
            rows.append((short.replace("_", " "), of.headline.text(value)))
        elif short != "loss" and not (of.masks and short.startswith("iou_")):
            rows.append((short.replace("_", " "), f"{value:.6g}"))
    if faults.count:
        rows.append(("bad records", f"{faults.count:,} are left out, such as {faults.shown[0]}"))
    if of.masks is not None:
        return table(rows) + "\n" + mask_report_text(of.masks.report, of.source.names())
    if of.report is None:
        return table(rows)
    return table(rows) + "\n" + report_text(of.report, of.source.names())


def to_json(of: Evaluated) -> dict[str, Any]:
    """All numbers; the metrics under the names, and with the very values, of metrics.jsonl."""
    return {
        "run": str(of.trained.folder),
        "step": of.trained.step,
        "weights": str(of.trained.weights),
        "data": of.source.name,
        "examples": of.source.length,
        **{n: v if np.isfinite(v) else None for n, v in of.metrics.items()},
        **(_of_classes(of) if of.report else {}),
        **(of.masks.to_json(of.source) if of.masks else {}),
    }


def _of_classes(of: Evaluated) -> dict[str, Any]:
    names = of.source.names()
    mistakes = [
        {
            "example": of.source.describe(int(of.records[example])),
            "class": names[of.report.labels[example]],
            "answer": _answer(of.report, example, names),
            "probability": float(np.nan_to_num(of.report.probabilities[example].max())),
        }
        for example in worst(of.report, _MISTAKES).tolist()
    ]
    return {**of.report.to_json(names), "worst": mistakes}


def _answer(of: Report, example: int, names: Sequence[str]) -> str | None:
    answer = int(of.answers[example])
    return None if answer == NO_ANSWER else names[answer]


def save_pictures(of: Evaluated, out: pathlib.Path) -> None:
    """Draws what there is to see, lists the answers, and keeps all numbers for `launch.report`.

    Raises:
      OSError: a file cannot be written.
    """
    names, heading = of.source.names(), of.heading
    for name in ("answers.csv", NUMBERS):
        (out / name).unlink(missing_ok=True)  # what is not there is not half of two
    if of.masks is not None:
        if len(names) <= _MATRIX:
            save_confusion(of.masks.report, names, heading, out / "confusion.png", "pixels")
        save_masks(of.masks.worst, of.source, heading, out / "mistakes.png")
        write_text(out / "answers.csv", of.masks.to_csv(of.source))
        write_json(out / NUMBERS, to_json(of))
        return
    if len(names) <= _MATRIX:
        save_confusion(of.report, names, heading, out / "confusion.png")
    save_calibration(of.report, heading, out / "calibration.png")
    mistakes = worst(of.report, _MISTAKES)
    if len(mistakes):
        images = [as_it_is(of.source, int(record)) for record in of.records[mistakes]]
        path = out / "mistakes.png"
        save_mistakes(of.report, mistakes, images, names, heading, path)
    else:
        (out / "mistakes.png").unlink(missing_ok=True)  # of an evaluation before
    write_text(out / "answers.csv", answers_text(of))
    write_json(out / NUMBERS, to_json(of))


def answers_text(of: Evaluated) -> str:
    """A table of all examples: what it is, its class, the answer and how sure it is."""
    names = of.source.names()
    rows: list[Sequence[str]] = [["example", "class", "answer", "probability", "weight"]]
    columns = (of.records, of.report.labels, of.report.probabilities, of.report.weights)
    for example, (record, label, row, weight) in enumerate(zip(*columns, strict=True)):
        answer = _answer(of.report, example, names) or ""
        described = of.source.describe(int(record))
        rows.append([described, names[label], answer, f"{row.max():.6g}", f"{weight:g}"])
    return csv_text(rows)


main = cli.entry_point("launch.evaluate RUN_DIR", define_evaluate_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
