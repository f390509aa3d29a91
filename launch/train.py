"""Trains: `python -m launch.train --flagfile=launch/recipes/digits.flags`."""

import glob
import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from input_pipeline.layout import Layout
from input_pipeline.sources import Source, open_source
from launch import cli, flags, report
from launch.stop import StopRequests
from trainer.blocks import next_due
from trainer.files import read_lines, write_json
from trainer.plan import DatasetFacts, Devices, Plan, choose_devices, make_plan
from trainer.run_folder import Found, lock, open_run_folder


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    if {"--help", "-h", "--helpfull"} & set(argv):
        print(flags.help_text(flags.define_training_flags(), "launch.train", "--helpfull" in argv))
        return cli.FINISHED
    with StopRequests() as stop:
        with cli.wrong_command():
            command = flags.read_command(argv)
            sources = {split: open_source(command.data, split) for split in ("train", "eval")}
            facts = dataset_facts(sources)
            devices = choose_devices(command.settings.devices, gpus_here(command))
            plan = make_plan(command.settings, facts, devices)
            run_dir = pathlib.Path(command.settings.run.run_dir)
            found = open_run_folder(run_dir, command.settings.run.resume)
            changes = changed_flags(command, found)
            held = lock(run_dir)
        print(report.plan_text(plan), flush=True)
        if changes:
            print(f"\n{report.changes_text(found.step, changes)}", flush=True)
        if found.step >= plan.steps or (found.state or {}).get("final"):
            print(f"\n{run_dir} is finished at step {found.step:,}; nothing to do.")
            return cli.FINISHED
        cli.import_tensorflow(command.values.verbosity)
        with held:
            return carry_out(command, plan, devices, sources, found, changes, stop)


def dataset_facts(sources: dict[str, Source]) -> DatasetFacts:
    """What the plan needs to know of the sources."""
    train = sources["train"]
    return DatasetFacts(
        name=train.name.removesuffix("/train"),
        train_examples=train.length,
        eval_examples=sources["eval"].length,
        num_classes=train.num_classes,
        image_shape=train.image_shape,
    )


def gpus_here(command: flags.Command) -> int:
    """How many GPUs TensorFlow finds; it loads for seconds, so it is only asked if some can be."""
    device_files = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")
    if command.settings.devices.device == "cpu" or not any(map(glob.glob, device_files)):
        return 0
    cli.import_tensorflow(command.values.verbosity)
    from trainer.devices import count_gpus

    return count_gpus()


def changed_flags(command: flags.Command, found: Found) -> dict[str, tuple[Any, Any]]:
    """What the checkpoint was made with and this command asks for instead, by flag.

    Raises:
      ValueError: the position in the data would mean something else, or --resume=exact was given.
    """
    if found.state is None:
        return {}
    then, now = found.state["flags"], command.values.flag_values_dict()
    changed = {
        name: (then[name], now[name])
        for name in flags.DECISIVE & set(then) & set(now)
        if then[name] != now[name]
    }
    for name in ("dataset", "global_batch", "seed"):
        if name in changed:
            before, after = changed[name]
            raise ValueError(
                f"the run in {command.settings.run.run_dir} was trained with "
                f"--{name}={before}, not {after}; give that, or another --run_dir."
            )
    if changed and command.settings.run.resume == "exact":
        raise ValueError(
            f"--resume=exact, but {command.settings.run.run_dir} was trained with other flags; "
            f"give those, or --resume=auto:\n{report.changes_text(found.step, changed)}"
        )
    return changed


def carry_out(
    command: flags.Command,
    plan: Plan,
    devices: Devices,
    sources: dict[str, Source],
    found: Found,
    changes: dict[str, tuple[Any, Any]],
    stop: StopRequests,
) -> int:
    """Builds the run, goes on from what was found, trains, and leaves the folder complete."""
    from input_pipeline import streams
    from trainer import actions, loop
    from trainer.checkpoints import Checkpoints
    from trainer.control import Control
    from trainer.metrics import MetricsWriter
    from trainer.run import build_run

    settings, run_dir = command.settings, pathlib.Path(command.settings.run.run_dir)
    with cli.wrong_command():
        run = build_run(settings, plan, devices)
    checkpoints = Checkpoints(run_dir / "checkpoints", run.variables())
    history = actions.History()
    if found.state is not None:
        with cli.wrong_command():
            history = actions.History(**checkpoints.restore(found.step)["history"])
        print(f"going on from step {found.step:,} in {run_dir}")
    (run_dir / "flags.txt").write_text(flags.flagfile_text(command), encoding="utf-8")
    write_json(run_dir / "plan.json", plan.to_json())

    def training_data(pipeline: int, pipelines: int) -> "streams.tf.data.Dataset":
        layout = Layout(
            plan.global_batch, plan.accumulate, plan.replicas // pipelines, pipelines, pipeline
        )
        return streams.training_stream(
            sources["train"],
            layout=layout,
            seed=settings.run.seed,
            augment=command.data.augment,
            first_step=found.step,
        )

    def evaluation_data(pipeline: int, pipelines: int) -> "streams.tf.data.Dataset":
        layout = Layout(plan.eval_batch, 1, plan.replicas // pipelines, pipelines, pipeline)
        return streams.evaluation_stream(sources["eval"], layout=layout)

    report.print_groups(run.groups)
    if not run.noise.measured and plan.replicas * plan.accumulate > 1:
        print("gradient noise: not measured, synchronized BatchNormalization mixes the replicas")
    metrics = MetricsWriter(run_dir, found.step)
    progress = report.Progress(plan, found.step)
    save = actions.Save(plan, history, metrics, checkpoints, command.values.flag_values_dict())
    log = actions.Log(plan, history, metrics, run.groups, progress.row)
    evaluate = actions.Evaluate(
        run,
        plan,
        history,
        metrics,
        run.stream(evaluation_data),
        run_dir / "best",
        settings.learning_rate.plateau,
        progress.say,
    )
    control = Control(
        run_dir / "control",
        plan,
        run.learning_rate,
        found.step,
        lambda step, event: metrics.note(step, plan.epoch(step), history.now(), event),
        progress.say,
    )
    if changes:
        event = {"event": "resumed", "changed": {n: list(pair) for n, pair in changes.items()}}
        metrics.note(found.step, plan.epoch(found.step), history.now(), event)
    try:
        control.take_up(found.step)
        block = loop.train(
            run.train_loop,
            iter(run.stream(training_data)),
            first=found.step,
            last=plan.steps,
            next_boundary=lambda step: min(
                next_due(step, plan.eval_every),
                next_due(step, plan.checkpoint_every),
                control.next_replay(step),
            ),
            steps_per_loop=settings.run.steps_per_loop,
            actions=(actions.StopAtNonFinite(), log, progress, evaluate, save, control),
            finished=lambda: bool(run.learning_rate.finished().numpy()),
            stop_requested=lambda: stop.requested() or control.stop_requested(),
        )
        if block and not block.final:
            save.save(block.last)
    except actions.DivergedError as error:
        progress.say(f"diverged: {error}")
        return cli.DIVERGED
    finally:
        progress.close()
        metrics.close()
    if not (block and block.final):
        step = block.last if block else found.step
        print(f"stopped at step {step:,}, everything saved; the same command goes on from there")
        return cli.STOPPED
    actions.save_model(run, run_dir / "model.keras")
    noise = noise_scale(run_dir) if run.noise.measured else None
    print(f"\n{report.summary_text(plan, block.last, history, noise, str(run_dir))}")
    return cli.FINISHED


def noise_scale(run_dir: pathlib.Path) -> float:
    """The run's typical gradient noise scale: the median over the log, infinite where unknown."""
    rows = [
        row["noise_scale"] for row in read_lines(run_dir / "metrics.jsonl") if "noise_scale" in row
    ]
    return statistics.median(math.inf if row is None else row for row in rows) if rows else math.inf


if __name__ == "__main__":
    cli.exit_with(main)
