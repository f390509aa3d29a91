"""Finds a learning rate: `python -m launch.find_lr --flagfile=digits`.

The test itself is `trainer.actions.range_test`.
"""

import dataclasses
import math
import pathlib
import shutil
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from input_pipeline.bad_records import Faults
from input_pipeline.sources import Source
from launch.flags.command import Command, flagfile_text, read_command
from launch.flags.group import Group
from launch.flags.parsing import duration, one_of, path
from launch.flags.run import define_training_flags, folder_name
from launch.process import cli
from launch.terminal import range_test_chart
from launch.terminal.plan_text import what_trains
from launch.terminal.table import command_text, table, whole
from launch.training.job import plan_command
from launch.training.streams import evaluation_data, training_data
from trainer.actions.range_test import (
    MOST_TRIALS,
    Curve,
    Finding,
    NoSuggestionError,
    Recorder,
    Snapshot,
    Trial,
    find_rate,
    steered_to,
)
from trainer.files.whole_files import write_json
from trainer.learning_rate.steering import Backoff, Steering
from trainer.plan import curves
from trainer.plan.devices import Devices
from trainer.plan.learning_rate import plan_sweep, scaled_rate
from trainer.plan.plan import Plan
from trainer.run_folder.journal import Row

if TYPE_CHECKING:
    from trainer.run import Run
    from trainer.run_folder.metrics_writer import MetricsWriter

_LEAST_STEPS, _MOST_STEPS = 20, 1_000_000
_MOST_EVALUATED = 100  # batches after a trial
_RESULT = "range_test.json"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The settings of a range test: the plan of its sweep, and the folder of its results."""

    plan: Plan
    kind: str
    factor: float  # a rate at this batch over that at the reference batch
    reference: int  # the reference batch
    scaling: str  # from the one to the other, by name
    out: pathlib.Path


def define_find_lr_flags() -> absl_flags.FlagValues:
    """The flags of a training run and those of this command."""
    values = define_training_flags()
    add = Group(values, "range test")
    add.text("sweep", "exponential", "exponential or linear.")
    add.number(
        "from_rate",
        1e-5,
        "The sweep's first rate.\nAt the reference batch, scaled like learning_rate.",
    )
    add.number(
        "to_rate", 100.0, "Its last, if it does not diverge before.\nAt the reference batch too."
    )
    add.text(
        "sweep_for",
        "200st",
        "How long the sweep takes, and each trial.\nA duration.",
    )
    add.text("out", "", "Where the results go.\nDefault: runs/find_lr/DATASET-MODEL.")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        command = read_command(argv, values)
        plan, devices, sources = plan_command(command)
        sweep = plan_range_test(command, plan)
        open_out_folder(sweep.out)
    print(intended(sweep), flush=True)
    cli.import_tensorflow(values.verbosity)
    try:
        return run_test(command, sweep, devices, sources)
    except NoSuggestionError as error:
        print(textwrap.fill(f"no suggestion: {error}.", 80, break_on_hyphens=False))
        return cli.DIVERGED


def plan_range_test(command: Command, plan: Plan) -> Sweep:
    """The sweep in place of the run that is planned.

    Raises:
      ValueError: the sweep's flags contradict each other or the run.
    """
    values, rate = command.values, command.settings.learning_rate
    kind = one_of("sweep", values.sweep, ("exponential", "linear"))
    if plan.learning_rate.adascale > 1:
        raise ValueError(
            "--lr_scaling=adascale moves the rate by a gain in every update, which a sweep would "
            f"not see; find the rate of its reference batch: --global_batch={rate.reference_batch} "
            "--lr_scaling=none."
        )
    units = {"global_batch": plan.global_batch, "examples": plan.dataset.train_examples}
    steps = duration(values, "sweep_for").steps(**units, total=plan.steps)
    if not _LEAST_STEPS <= steps <= _MOST_STEPS:
        allowed = f"least {_LEAST_STEPS}st" if steps < _LEAST_STEPS else f"most {_MOST_STEPS}st"
        raise ValueError(f"--sweep_for={values.sweep_for} is {steps:,} steps; give at {allowed}.")
    if plan.optimizer == "ftrl":
        raise ValueError(
            "--optimizer=ftrl multiplies the weights themselves by every change of the rate, which "
            "is all that a sweep does; compare trainings with rates of your own."
        )
    factor, _ = scaled_rate(dataclasses.replace(rate, learning_rate=1.0), plan.global_batch)
    rising = plan_sweep(kind, values.from_rate, values.to_rate, steps, factor)
    swept = dataclasses.replace(
        plan,
        steps=steps,
        epochs=steps / plan.steps_per_epoch,
        learning_rate=rising,
        audit_every=0.0,  # there is nothing to be saved from a fault
    )
    out = path(values, "out") or f"runs/find_lr/{folder_name(values)}"
    return Sweep(swept, kind, factor, rate.reference_batch, rate.scaling, pathlib.Path(out))


def open_out_folder(out: pathlib.Path) -> None:
    """Makes the folder of the results, where they will take the place of a range test's before.

    Raises:
      ValueError: there are other things in it.
      OSError: it cannot be made or written.
    """
    mine = (out / _RESULT).exists()
    if not mine and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out={out} holds other things; give a new folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError(
            f"--out={out} cannot be written ({error.strerror}); give a folder that can."
        ) from None


def empty_out_folder(out: pathlib.Path) -> None:
    """Removes the results of a range test before; what is written first says whose folder it is."""
    for board in ("train", "eval", "plan"):
        shutil.rmtree(out / board, ignore_errors=True)
    for name in ("metrics.jsonl", "found.flags", "range_test.png"):
        (out / name).unlink(missing_ok=True)
    write_json(out / _RESULT, {})


def intended(sweep: Sweep) -> str:
    """The sweep that is about to begin, in a few lines."""
    plan, rising = sweep.plan, sweep.plan.learning_rate
    text = (
        f"{sweep.kind}, {curves.rate(rising, 0):.3g} to {rising.peak:.3g} at batch "
        f"{plan.global_batch:,}, {plan.steps:,} steps = {plan.epochs:.3g} epochs"
    )
    then = f"from where it points to, by factors of 2: 2 to {MOST_TRIALS} of {plan.steps:,} steps"
    return table([*what_trains(plan), ("sweep", text), ("trials", then)])


def run_test(
    command: Command, sweep: Sweep, devices: Devices, sources: Mapping[str, Source]
) -> int:
    """Sweeps, reads the curve, tries the suggestion, and leaves everything in the folder.

    Returns:
      The exit code.

    Raises:
      NoSuggestionError: the curve shows no rate to suggest.
    """
    from launch.training.memory import memory_named
    from trainer.run import build_run
    from trainer.run_folder.metrics_writer import MetricsWriter

    with cli.wrong_command(), memory_named(sweep.plan, built=False):
        run = build_run(command.settings, sweep.plan, devices)
    with memory_named(sweep.plan, built=True):
        finding, recorder = find(command, sweep, run, sources)
    suggested = rounded_down(finding.suggestion / sweep.factor)
    sentence, at = suggestion_text(suggested, sweep), suggested * sweep.factor
    empty_out_folder(sweep.out)
    picture = sweep.out / "range_test.png"
    range_test_chart.save_chart(
        finding,
        at,
        title=(title(sweep), sentence),
        plan=sweep.plan,
        factor=sweep.factor,
        reference=sweep.reference,
        path=picture,
    )
    metrics = MetricsWriter(sweep.out, 0, headline=run.task.headline)
    try:
        log(metrics, sweep.plan, recorder)
        metrics.boards.picture("train", sweep.plan.steps, "range_test", picture.read_bytes())
    finally:
        metrics.close()
    write_found(command, sweep, finding, suggested)
    print(f"\n{range_test_chart.terminal_chart(finding, at)}\n\n{summary_text(finding, sweep)}")
    print(sentence)
    return cli.FINISHED


def find(
    command: Command, sweep: Sweep, run: "Run", sources: Mapping[str, Source]
) -> tuple[Finding, Recorder]:
    """Sweeps, and tries rates from where that points to; also the rows of the sweep.

    Raises:
      NoSuggestionError: the curve shows no rate to suggest.
    """
    from trainer.evaluation import evaluate_in_pieces

    before = Snapshot(run.variables(), run.strategy.experimental_local_results)
    faults = {name: Faults(of, command.data.max_bad_records) for name, of in sources.items()}
    plan, swept = sweep.plan, []
    batches = min(-(-sources["eval"].length // plan.eval_batch), _MOST_EVALUATED)

    def train(rate: float | None) -> Recorder:
        data = training_data(command, plan, sources["train"], 0, faults["train"])
        with cli.wrong_command():  # a dataset of the user's own is made here
            stream = cli.keep(iter(run.stream(data)))
        return train_once(run, plan, stream, rate)

    def carry_out_sweep() -> Curve:
        swept.append(train(None))
        before.put_back()
        return swept[0].curve()

    def carry_out_trial(rate: float) -> Trial:
        loss = math.inf
        if train(rate).lasts():
            data = evaluation_data(command, plan, sources["eval"], faults["eval"])
            iterator = cli.keep(iter(run.stream(data)))
            rows = evaluate_in_pieces(run.evaluate, iterator, batches, lambda: True)
            loss = run.evaluate.metrics(rows)["eval/loss"]
        before.put_back()
        return Trial(rate, loss if math.isfinite(loss) else math.inf)

    with faults["train"].raised(), faults["eval"].raised():
        return find_rate(carry_out_sweep, carry_out_trial), swept[0]


def write_found(command: Command, sweep: Sweep, finding: Finding, suggested: float) -> None:
    """Writes the finding, and a flagfile that trains with the suggestion."""
    comment = (
        f"{suggestion_text(suggested, sweep)}, by launch.find_lr.\n"
        "Every flag of the run: python -m launch.train --flagfile=THIS_FILE trains with it."
    )
    found_flags = flagfile_text(command, comment, {"learning_rate": suggested})
    (sweep.out / "found.flags").write_text(found_flags, encoding="utf-8")
    write_json(sweep.out / _RESULT, to_json(finding, suggested, sweep))


def train_once(run: "Run", plan: Plan, stream: Any, rate: float | None = None) -> Recorder:
    """The sweep, or a trial of a rate, until it diverges or ends."""
    from trainer import loop

    factor, steering, backoff = 1.0, Steering(), Backoff()
    if rate is not None:
        first = float(curves.rate(plan.learning_rate, 0))
        factor, steering, backoff = steered_to(rate, first, plan.steps)
    run.learning_rate.scale.assign(factor)
    run.learning_rate.steering.assign(steering)
    run.learning_rate.back_off(backoff._asdict())
    recorder = Recorder(plan.steps)
    loop.train(
        run.train_loop,
        stream,
        first=0,
        last=plan.steps,
        next_boundary=lambda step: math.inf,
        steps_per_loop=0,
        actions=(recorder,),
        finished=lambda: False,
        stop_requested=lambda step: recorder.diverged(),
    )
    return recorder


def log(metrics: "MetricsWriter", plan: Plan, recorder: Recorder) -> None:
    """Writes the sweep's rows: the applied rate of each step and what it had before its update."""
    columns = {name: column.tolist() for name, column in recorder.rows.items()}
    names = [name for name in columns if name.startswith("train/")]
    names += ["gradient_norm", "learning_rate"]
    rows = []
    for index, seconds in enumerate(columns["seconds"]):
        values = {name: columns[name][index] for name in names}
        rows.append(Row(index + 1, plan.epoch(index + 1), seconds, values))
    metrics.write_all(rows)
    metrics.flush()


def title(sweep: Sweep) -> str:
    """A line that names the model, the data and the batch tested."""
    plan = sweep.plan
    return (
        f"range test: {plan.model} on {plan.dataset.name}, {plan.optimizer}, batch "
        f"{plan.global_batch:,} on {plan.replicas} replica{'s' * (plan.replicas != 1)}, "
        f"{plan.steps:,} steps, {sweep.kind}"
    )


def rounded_down(rate: float) -> float:
    """The rate with two digits: a curve does not tell more."""
    digit = 10.0 ** (math.floor(math.log10(rate)) - 1)
    # A product such as 48 × 0.01 has digits of its own.
    return float(f"{math.floor(rate / digit + 1e-9) * digit:.2g}")


def suggestion_text(suggested: float, sweep: Sweep) -> str:
    """The suggestion in a line; `suggested` is the rate at the reference batch."""
    here = f"suggested: {suggested * sweep.factor:.3g} at batch {sweep.plan.global_batch:,}"
    if sweep.factor == 1:
        return here
    return f"{here} = {suggested:.2g} at the reference batch {sweep.reference:,} ({sweep.scaling})"


def summary_text(finding: Finding, sweep: Sweep) -> str:
    """The findings, the trials and the places of the results, in a few lines."""
    curve = finding.curve
    lowest = f"{curve.smoothed[curve.best]:.4g} at a rate of {curve.lowest_at:.3g}"
    edge = f"half of the gain lost again at {finding.edge:.3g}"
    if not finding.edge_seen:
        edge = f"not reached at {finding.edge:.3g}: a higher --to_rate may find a higher rate"
    rows = [("lowest loss", f"{lowest}, {curve.first_loss:.4g} before the sweep"), ("edge", edge)]
    for trial in finding.trials:
        came_to = f"evaluated loss {trial.loss:.4g}" if trial.lasts else "cannot be held"
        rows.append(("trial", f"{trial.rate:.3g}, then down to 0: {came_to}"))
    if finding.unfinished:
        rows.append(("", "the last trial is the best: go on from there with another --to_rate"))
    rows.append(
        ("folder", f"{whole(sweep.out)}: range_test.png, metrics.jsonl, TensorBoard's train")
    )
    train = ("python", "-m", "launch.train", f"--flagfile={sweep.out}/found.flags")
    rows.append(("go on with", command_text(*train)))
    return table(rows)


def to_json(finding: Finding, suggested: float, sweep: Sweep) -> dict[str, Any]:
    """The finding as plain JSON values; rates are as applied where the name does not say else."""
    curve, plan = finding.curve, sweep.plan
    return {
        "sweep": sweep.kind,
        "global_batch": plan.global_batch,
        "learning_rate": suggested * sweep.factor,
        "learning_rate_at_reference_batch": suggested,
        "edge": finding.edge,
        "edge_seen": finding.edge_seen,
        "lowest_at": curve.lowest_at,
        "first_loss": curve.first_loss,
        "trials": [
            {
                "learning_rate": trial.rate,
                "loss": trial.loss if trial.lasts else None,
                "lasts": trial.lasts,
            }
            for trial in finding.trials
        ],
        "curve": {name: getattr(curve, name).tolist() for name in ("rates", "losses", "smoothed")},
    }


main = cli.entry_point("launch.find_lr", define_find_lr_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main, trains=True)
