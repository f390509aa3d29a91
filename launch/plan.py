"""Shows a run before it runs: `python -m launch.plan --flagfile=digits`. Builds no model."""

import contextlib
import functools
import pathlib
from collections.abc import Sequence

from absl import flags as absl_flags

from input_pipeline.tuning import host_cores, host_memory
from launch.checks.cards import find_cards
from launch.flags.command import parse, read_command
from launch.flags.group import Group
from launch.flags.parsing import path
from launch.flags.run import define_training_flags
from launch.flags.scaling import (
    Scaling,
    define_scaling_flags,
    failures_of,
    read_scaling,
    site_of,
)
from launch.process import cli
from launch.terminal import plan_chart
from launch.terminal.changes import changes_text, rederived_text
from launch.terminal.plan_text import plan_text
from launch.terminal.scaling_text import scaling_text
from launch.terminal.trial_text import trial_text
from launch.training.job import as_begun, changed_flags, check_changes, plan_command, settled
from launch.training.trial import Trial, run_trial
from trainer.plan import curves
from trainer.plan.plan import Plan
from trainer.plan.span import check_span
from trainer.run_folder.resume import going_on, rederived
from trainer.run_folder.run_folder import fallback_folder, newest_checkpoint

_TRIAL_SECONDS = 10.0  # of training, after its first block


def define_plan_flags() -> absl_flags.FlagValues:
    """The flags of a training run and those of this command."""
    values = define_training_flags()
    add = Group(values, "plan")
    add.text(
        "out",
        "",
        "Folder of the picture, plan.png.\nDefault: the run's; with --compare the first one's. "
        "none: no picture.",
    )
    add.text(
        "compare",
        "",
        "Recipes laid over each other: a.flags,b.flags.\nOther flags here apply to each.",
    )
    add.boolean(
        "measure",
        False,
        "Train for half a minute, too.\nIn a folder that is thrown away: the time to the first "
        "step, speed, memory, and the largest micro-batch that would fit.",
    )
    define_scaling_flags(values)
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        parse(values, argv)
        many = read_scaling(values)
        for name, asked in (("measure", values.measure), ("workers", values.workers)):
            if asked and values.compare:
                raise ValueError(f"--{name} is of one run; leave --compare out.")
        recipes = [recipe for recipe in values.compare.split(",") if recipe] or [None]
        planned = [
            plan_of([*([f"--flagfile={recipe}"] if recipe else []), *argv]) for recipe in recipes
        ]
        plans = [(plan, notes) for plan, notes, _ in planned]
        picture = show(plans, recipes, values, pathlib.Path(path(values, "out") or planned[0][2]))
        plan, trial = plans[0][0], None
        if values.measure:
            trial, text = measured(plan, argv, memory_here(plan, values.gpu_memory_gb))
            print(text, flush=True)
        if many:
            print(on_many(many, plan, argv, trial), flush=True)
        if picture:
            print(f"picture: {picture}")
    return cli.FINISHED


def show(
    plans: Sequence[tuple[Plan, list[str]]],
    recipes: Sequence[str | None],
    values: absl_flags.FlagValues,
    out: pathlib.Path,
) -> pathlib.Path | None:
    """Prints each plan with what there is to say of it, and draws all; the picture, if any."""
    rate = rate_curve([plan for plan, _ in plans], values.verbosity)
    names = [pathlib.Path(recipe).stem if recipe else "plan" for recipe in recipes]
    for name, (plan, notes) in zip(names, plans, strict=True):
        if values.compare:
            print(f"── {name} " + "─" * (76 - len(name)))
        print(plan_text(plan))
        print(*notes, sep="\n", end="\n" if notes else "")
        print(f"\n{plan_chart.terminal_chart(plan, rate)}\n", flush=True)
    if values.out == "none":
        return None
    named = [(name, plan) for name, (plan, _) in zip(names, plans, strict=True)]
    return save_picture(named, out, rate)


def on_many(many: Scaling, plan: Plan, argv: Sequence[str], trial: Trial | None) -> str:
    """What the run would do on many workers that each do what this machine is to do.

    Args:
      trial: of the command, where its step was not given.

    Raises:
      ValueError: the model cannot be built.
      FailedError: the trial timed no step.
    """
    seconds = many.step_ms / 1000
    if not seconds:
        if not trial.steps:
            raise cli.FailedError("no step was timed, so give --step_ms, or a longer run.")
        seconds = trial.seconds / trial.steps
    command = read_command(argv, define_plan_flags())
    cli.import_tensorflow(command.values.verbosity)
    from trainer.models.make_model import make_model
    from trainer.models.sizes import trainable_parameters
    from trainer.run import build_model, check
    from trainer.tasks.make_task import make_task

    model = build_model(command.settings, plan, make_model)
    check(model, make_task(command.settings, plan), plan)
    site = site_of(many, plan, trainable_parameters(model), command.values.pack_mb, seconds)
    return scaling_text(site, many.workers, functools.partial(failures_of, many, plan))


def memory_here(plan: Plan, gpu_memory_gb: float) -> int:
    """Bytes of the host that trains, or of each GPU; 0 where nothing tells of the GPUs'."""
    if plan.device != "GPU":
        return host_memory()
    least = min((card.memory for card in find_cards().cards), default=0)
    return min(filter(None, (least, int(gpu_memory_gb * 1e9))), default=0)


def measured(plan: Plan, argv: Sequence[str], memory: int) -> tuple[Trial, str]:
    """A trial of the command, and what training takes here by it and one with half the batch.

    Args:
      memory: bytes, see `memory_here`.

    Raises:
      FailedError: it does not train.
    """
    print("measuring: two short trainings in a folder that is thrown away …", flush=True)
    # A run that has begun goes on with what it began with, which the trials' folder does not tell.
    argv = [*argv, *(f"--{name}={value}" for name, value in settled(plan).items())]
    whole, half = run_trial(argv, _TRIAL_SECONDS), None
    if plan.micro_batch % 2 == 0:
        batch, micro_batch = plan.global_batch // 2, plan.micro_batch // 2
        smaller = [f"--global_batch={batch}", f"--micro_batch={micro_batch}", f"--xla={whole.xla}"]
        # It may be refused, as what mixes pairs of examples is for micro-batches of one.
        with contextlib.suppress(cli.WrongCommandError, cli.FailedError):
            half = run_trial([*argv, *smaller], 0.0)
    return whole, trial_text(plan, whole, half, memory, host_cores())


def rate_curve(plans: Sequence[Plan], verbosity: int) -> plan_chart.Curve:
    """The planned rate; a schedule of the user's own takes TensorFlow, all else is without."""
    if not any(plan.learning_rate.has_own_decay for plan in plans):
        return curves.rate
    cli.import_tensorflow(verbosity)
    from trainer.learning_rate.own_schedule import drawn_rate

    return drawn_rate


def save_picture(
    plans: Sequence[tuple[str, Plan]], out: pathlib.Path, rate: plan_chart.Curve
) -> pathlib.Path:
    """Draws the plans into the folder's plan.png, and says where that is.

    Raises:
      ValueError: the folder cannot be made or written.
    """
    picture = out / "plan.png"
    try:
        out.mkdir(parents=True, exist_ok=True)
        plan_chart.save_chart(plans, picture, rate)
    except OSError as error:
        raise ValueError(
            f"the picture {picture} cannot be written ({error.strerror}); give another folder, "
            "--out=FOLDER, or --out=none."
        ) from None
    return picture


def plan_of(argv: Sequence[str]) -> tuple[Plan, list[str], pathlib.Path]:
    """The plan of a command line, what there is to say about its folder, and that folder.

    Raises:
      ValueError: the command is wrong.
    """
    command = read_command(argv, define_plan_flags())
    plan, devices, _ = plan_command(command)
    run_dir = pathlib.Path(command.settings.run.run_dir)
    fallback = fallback_folder(run_dir, command.settings.recovery.fallback_dir)
    found = newest_checkpoint(run_dir, fallback)
    plan, _ = as_begun(command, plan, devices, found)
    told = check_changes(command, plan, found)
    changes = changed_flags(command, plan, found)
    plan = going_on(plan, found)
    check_span(command.settings.run.profile, plan.last_step)
    notes = [*told, changes_text(found.step, changes)] if changes else told
    notes += filter(None, [rederived_text(found.step, rederived(plan, found))])
    notes += [f"warning: {path} is damaged: {reason}" for path, reason in found.damaged]
    if found.step:
        notes = [f"{run_dir} is at step {found.step:,}; training goes on from there", *notes]
    return plan, notes, run_dir


main = cli.entry_point("launch.plan", define_plan_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
