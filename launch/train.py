"""Trains: `python -m launch.train --flagfile=launch/recipes/digits.flags`."""

import dataclasses
import glob
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from input_pipeline.checks import check_data, check_mixing
from input_pipeline.faults import Faults
from input_pipeline.labels import count_labels
from input_pipeline.layout import Layout
from input_pipeline.sources import Source, open_sources
from launch import cli, flags, report
from launch.help import help_text
from launch.parsing import parsed
from launch.startup import Startup
from launch.stop import StopRequests
from trainer.blocks import next_due
from trainer.class_weights import class_weights
from trainer.files import read_json, read_lines, write_json
from trainer.plan import DatasetFacts, Devices, Plan, choose_devices, make_plan
from trainer.run_folder import Found, lock, open_run_folder

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.actions import History, Log, Save
    from trainer.control import Control
    from trainer.loop import Action
    from trainer.metrics import MetricsWriter
    from trainer.run import MakeDataset, Run


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    if {"--help", "-h", "--helpfull"} & set(argv):
        print(help_text(flags.define_training_flags(), "launch.train", "--helpfull" in argv))
        return cli.FINISHED
    startup = Startup()
    with StopRequests() as stop:
        with cli.wrong_command():
            command = flags.read_command(argv)
            startup.done("imports")
            plan, devices, sources = plan_command(command)
            run_dir = pathlib.Path(command.settings.run.run_dir)
            found = open_run_folder(run_dir, command.settings.run.resume)
            changes = changed_flags(command, plan, found)
            check_same_examples(plan, run_dir, found)
            held = lock(run_dir)
        print(report.plan_text(plan), flush=True)
        if changes:
            print(f"\n{report.changes_text(found.step, changes)}", flush=True)
        ended = found.state is not None and found.state["final"] and not changes
        if ended or found.step >= plan.steps:
            print(f"\n{run_dir} is finished at step {found.step:,}; nothing to do.")
            return cli.FINISHED
        startup.done("data")
        cli.import_tensorflow(command.values.verbosity)
        with held:
            return carry_out(command, plan, devices, sources, found, changes, stop, startup)


def plan_command(command: flags.Command) -> tuple[Plan, Devices, dict[str, Source]]:
    """The plan of a command, with the devices and the data that it is made for.

    Raises:
      ValueError: the settings contradict each other, the data or the devices.
      OSError: the data cannot be read.
    """
    sources = open_sources(command.data)
    facts = dataset_facts(command, sources)
    devices = choose_devices(command.settings.devices, gpus_here(command))
    plan = make_plan(command.settings, facts, devices)
    check_mixing(command.data.mixup, command.data.cutmix, plan.micro_batch)
    return plan, devices, sources


def dataset_facts(command: flags.Command, sources: dict[str, Source]) -> DatasetFacts:
    """What the plan needs to know of the sources.

    Raises:
      ValueError: they do not suit the data's settings or each other.
    """
    train = sources["train"]

    def weights(text: str) -> tuple[float, ...]:
        return class_weights(
            text, train.class_names, train.num_classes, lambda: count_labels(train)
        )

    return DatasetFacts(
        name=train.name.removesuffix("/train"),
        train_examples=train.length,
        eval_examples=sources["eval"].length,
        num_classes=train.num_classes,
        image_shape=check_data(command.data, train, sources["eval"]),
        shuffle_block=command.data.shuffle_block,
        left_out=sum(source.left_out for source in sources.values()),
        class_weights=parsed(command.values, "class_weights", weights),
    )


def gpus_here(command: flags.Command) -> int:
    """How many GPUs TensorFlow finds; it loads for seconds, so it is only asked if some can be."""
    device_files = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")
    if command.settings.devices.device == "cpu" or not any(map(glob.glob, device_files)):
        return 0
    cli.import_tensorflow(command.values.verbosity)
    from trainer.devices import count_gpus

    return count_gpus()


def decided(command: flags.Command, plan: Plan) -> dict[str, Any]:
    """The flags as a checkpoint keeps them: what --accumulate=auto has come to, not `auto`."""
    return command.values.flag_values_dict() | {"accumulate": plan.accumulate}


def changed_flags(command: flags.Command, plan: Plan, found: Found) -> dict[str, tuple[Any, Any]]:
    """What the checkpoint was made with and this command asks for instead, by flag.

    Raises:
      ValueError: the position in the data would mean something else, or --resume=exact was given.
    """
    if found.state is None:
        return {}
    then, now = found.state["flags"], decided(command, plan)
    changed = {
        name: (then[name], now[name])
        for name in flags.DECISIVE & set(then) & set(now)
        if then[name] != now[name]
    }
    for name in ("dataset", "train_split", "global_batch", "seed"):
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


def check_same_examples(plan: Plan, run_dir: pathlib.Path, found: Found) -> None:
    """Sees that a position in the data means the same example as when the run began.

    Raises:
      ValueError: there are more or fewer training examples than then.
    """
    before = read_json(run_dir / "plan.json") if found.state is not None else None
    then, now = (before or {}).get("dataset", {}).get("train_examples"), plan.dataset.train_examples
    if then not in (None, now):
        raise ValueError(
            f"the run in {run_dir} was trained on {then:,} examples of {plan.dataset.name} and "
            f"there are {now:,} now, {plan.dataset.left_out:,} bad ones left out; give it the same "
            "data, or another --run_dir."
        )


def carry_out(
    command: flags.Command,
    plan: Plan,
    devices: Devices,
    sources: dict[str, Source],
    found: Found,
    changes: dict[str, tuple[Any, Any]],
    stop: StopRequests,
    startup: Startup,
) -> int:
    """Builds the run, goes on from what was found, trains, and leaves the folder complete."""
    from trainer import actions, loop
    from trainer.replica_check import ReplicasDifferError
    from trainer.run import build_run

    startup.done("imports")
    run_dir = pathlib.Path(command.settings.run.run_dir)
    with cli.wrong_command():
        run = build_run(command.settings, plan, devices)
        faults = {
            split: Faults(source, command.data.max_bad_records, run_dir / "bad_records.jsonl")
            for split, source in sources.items()
        }
        host = make_host(command, plan, run, sources, faults, found, changes, startup)
    startup.done("build")
    training = training_data(command, plan, sources["train"], found.step, faults["train"])
    try:
        host.control.take_up(found.step)
        stream = cli.keep(iter(run.stream(training)))
        startup.done("data")
        run.trace(stream)
        startup.done("trace")
        with faults["train"].raised(), faults["eval"].raised():
            block = loop.train(
                run.train_loop,
                stream,
                first=found.step,
                last=plan.steps,
                next_boundary=lambda step: min(
                    next_due(step, plan.eval_every),
                    next_due(step, plan.checkpoint_every),
                    host.control.next_replay(step),
                ),
                steps_per_loop=command.settings.run.steps_per_loop,
                actions=host.actions,
                finished=lambda: bool(run.learning_rate.finished().numpy()),
                stop_requested=lambda: stop.requested() or host.control.stop_requested(),
            )
        if block and not block.final:
            host.save.save(block.last)
    except actions.DivergedError as error:
        host.progress.say(f"diverged: {error}")
        event = {"event": "diverged", "what": str(error)}
        host.metrics.note(error.step, plan.epoch(error.step), host.history.now(), event)
        return cli.DIVERGED
    except ReplicasDifferError as error:
        host.progress.say(f"error: {error}")
        event = {"event": "replicas differ", "variable": error.variable, "replicas": error.replicas}
        host.metrics.note(error.step, plan.epoch(error.step), host.history.now(), event)
        return cli.FAILED
    finally:
        host.progress.close()
        host.metrics.close()
    if not (block and block.final):
        step = block.last if block else found.step
        print(f"stopped at step {step:,}, everything saved; the same command goes on from there")
        return cli.STOPPED
    actions.save_model(run, run_dir / "model.keras")
    summary = report.summary_text(
        plan,
        block.last,
        host.history,
        str(run_dir),
        noise_scale=noise_scale(run_dir) if run.noise.measured else None,
        wait=host.log.input_wait_fraction(),
        bad_records=sum(split.count for split in faults.values()),
    )
    print(f"\n{summary}")
    return cli.FINISHED


@dataclasses.dataclass(frozen=True)
class Host:
    """What the host does between two blocks of steps, and the parts of it that others ask for."""

    actions: "tuple[Action, ...]"
    control: "Control"
    log: "Log"
    save: "Save"
    history: "History"
    metrics: "MetricsWriter"
    progress: report.Progress


def make_host(
    command: flags.Command,
    plan: Plan,
    run: "Run",
    sources: dict[str, Source],
    faults: dict[str, Faults],
    found: Found,
    changes: dict[str, tuple[Any, Any]],
    startup: Startup,
) -> Host:
    """Restores the run from what was found, opens its files, and makes the host's actions.

    Raises:
      ValueError: the checkpoint does not match.
    """
    from trainer import actions
    from trainer.checkpoints import Checkpoints
    from trainer.control import Control
    from trainer.metrics import MetricsWriter
    from trainer.monitor import Monitor
    from trainer.nonfinite import NonFinite

    run_dir, settings = pathlib.Path(command.settings.run.run_dir), command.settings
    checkpoints = Checkpoints(run_dir / "checkpoints", run.variables())
    history = actions.History()
    if found.state is not None:
        history = actions.History(**checkpoints.restore(found.step)["history"])
        print(f"going on from step {found.step:,} in {run_dir}")
    (run_dir / "flags.txt").write_text(flags.flagfile_text(command), encoding="utf-8")
    write_json(run_dir / "plan.json", plan.to_json())
    report.print_groups(run.groups, "rate ×")
    report.print_groups(run.decay_groups, "decay")
    print(*(f"{note}\n" for note in run.notes), sep="", end="", flush=True)
    if not run.noise.measured and plan.replicas * plan.accumulate > 1:
        print("gradient noise: not measured, synchronized BatchNormalization mixes the replicas")
    metrics, progress = MetricsWriter(run_dir, found.step), report.Progress(plan, found.step)

    def note(step: int, event: Mapping[str, Any]) -> None:
        metrics.note(step, plan.epoch(step), history.now(), event)

    monitor = Monitor(
        plan.steps_per_epoch,
        plan.global_batch,
        math.log(plan.dataset.num_classes),
        say=progress.say,
        note=note,
        state=history.monitor,
    )

    def show(step: int, values: Mapping[str, float]) -> None:
        progress.row(step, values)
        monitor.row(step, values)
        history.monitor = monitor.to_json()

    evaluation = run.stream(evaluation_data(command, plan, sources["eval"], faults["eval"]))
    evaluate = actions.Evaluate(
        run,
        plan,
        history,
        metrics,
        evaluation,
        run_dir / "best",
        settings.learning_rate.plateau,
        progress.say,
    )
    log = actions.Log(plan, history, metrics, run.groups, show)
    save = actions.Save(plan, history, metrics, checkpoints, decided(command, plan))
    control = Control(run_dir / "control", plan, run.learning_rate, found.step, note, progress.say)
    nonfinite = NonFinite(
        settings.run.on_nonfinite == "stop", history, run.places, note, progress.say
    )
    if changes:
        pairs = {name: list(pair) for name, pair in changes.items()}
        note(found.step, {"event": "resumed", "changed": pairs})
    return Host(
        actions=(
            startup.reporter(note, progress.say),
            nonfinite,
            *replica_check(plan, run),
            log,
            progress,
            evaluate,
            save,
            control,
        ),
        control=control,
        log=log,
        save=save,
        history=history,
        metrics=metrics,
        progress=progress,
    )


def replica_check(plan: Plan, run: "Run") -> "tuple[Action, ...]":
    """The action that compares the replicas, where there are several and it was asked for."""
    from trainer.replica_check import CheckReplicas, make_replica_check

    if plan.replicas == 1 or not plan.check_replicas_every:
        return ()
    variables = run.comparable()
    checksums = make_replica_check(run.strategy, variables)
    return (CheckReplicas(plan.check_replicas_every, tuple(variables), checksums),)


def evaluation_data(
    command: flags.Command, plan: Plan, source: Source, faults: Faults
) -> "MakeDataset":
    """The evaluation data, as `Run.stream` takes it."""
    from input_pipeline.streams import evaluation_stream

    def make(pipeline: int, pipelines: int) -> "tf.data.Dataset":
        replicas = plan.replicas // pipelines
        layout = Layout(plan.eval_batch, 1, replicas, pipelines, pipeline)
        return evaluation_stream(
            source, layout=layout, image_size=command.data.image_size, faults=faults
        )

    return make


def training_data(
    command: flags.Command, plan: Plan, source: Source, first_step: int, faults: Faults
) -> "MakeDataset":
    """The training data from this step on, as `Run.stream` takes it."""
    from input_pipeline.streams import training_stream

    def make(pipeline: int, pipelines: int) -> "tf.data.Dataset":
        return training_stream(
            source,
            layout=Layout(
                plan.global_batch, plan.accumulate, plan.replicas // pipelines, pipelines, pipeline
            ),
            seed=command.settings.run.seed,
            augment=command.data.augment,
            first_step=first_step,
            shuffle_block=command.data.shuffle_block,
            image_size=command.data.image_size,
            mixup=command.data.mixup,
            cutmix=command.data.cutmix,
            faults=faults,
        )

    return make


def noise_scale(run_dir: pathlib.Path) -> float:
    """The run's typical gradient noise scale: the median over the log, infinite where unknown."""
    rows = [
        row["noise_scale"] for row in read_lines(run_dir / "metrics.jsonl") if "noise_scale" in row
    ]
    return statistics.median(math.inf if row is None else row for row in rows) if rows else math.inf


if __name__ == "__main__":
    cli.exit_with(main)
