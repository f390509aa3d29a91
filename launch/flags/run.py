"""The flags of a training run: those of the run as a whole, and all subjects' together."""

import re

from absl import flags

from launch.flags import data, devices, learning_rate, model, optimizer, recovery
from launch.flags.group import Group
from launch.flags.parsing import duration, duration_or_time, one_of, parsed, path
from trainer.plan.settings import RunSettings, Settings
from trainer.plan.span import parse_span


def define_training_flags() -> flags.FlagValues:
    """The flags of a training run, by subject."""
    values = flags.FlagValues()
    run = Group(values, "run")
    _define_durations(run)
    _define_conduct(run)
    devices.define_device_flags(values)
    data.define_data_flags(values)
    model.define_model_flags(values)
    learning_rate.define_learning_rate_flags(values)
    optimizer.define_optimizer_flags(values)
    recovery.define_recovery_flags(values)
    Group(values, "terminal").integer(
        "verbosity",
        0,
        0,
        "TensorFlow's own messages.\n0: none, 1: warnings and errors, 2: everything.",
    )
    return values


def _define_durations(add: Group) -> None:
    add.text("run_dir", "", "The run's folder.\nDefault: runs/DATASET-MODEL.")
    add.integer("seed", 0, 0, "Seed of weights, order and augmentation.", decisive=True)
    add.text("train_for", "10ep", "How long to train.\nA duration: st, ep or ex.", decisive=True)
    add.text(
        "eval_every", "1ep", "How often to evaluate.\nAlso at the end; 0: only then.", decisive=True
    )
    add.text(
        "checkpoint_every",
        "5ep",
        "How often to save: 5ep or 10min.\nAlso at the end; 0: only then.",
    )
    add.text("log_every", "50st", "How often to log.\nLoss and accuracy are means since then.")
    add.text(
        "pictures",
        "auto",
        "Pictures for TensorBoard: auto, always, never.\nWhat the model sees and gets wrong, after "
        "some evaluations. auto: where they take 1 % of the time.",
        rare=True,
    )
    add.text(
        "histograms_every",
        "0",
        "How often to write histograms of the weights.\nFor TensorBoard, with the ratio of "
        "update to weights by layer.\nA duration, 0: never.",
        rare=True,
    )
    add.integer(
        "steps_per_loop",
        0,
        0,
        "Steps on the device without the host.\n10,000 at most; 0: as many as take about half a "
        "second.",
        rare=True,
    )


def _define_conduct(add: Group) -> None:
    add.text(
        "resume",
        "auto",
        "What to do with a used folder.\nauto: go on from its newest checkpoint, and tell which "
        "flags changed;\nexact: refuse if any that matters did; never: refuse it.",
    )
    add.boolean(
        "deterministic",
        False,
        "The same bits again.\nSome operations are slower, the input is read in sequence, and "
        "input_wait_fraction is not measured.",
        decisive=True,
    )
    add.text(
        "on_nonfinite",
        "stop",
        "stop or skip, where a step is not finite.\nThe step changes nothing. stop: exit with 76; "
        "skip: count it and go on, up to 100 in a row. A float16 overflow that halving the loss "
        "scale can mend always goes on.",
        decisive=True,
        rare=True,
    )
    add.boolean(
        "locate_nonfinite",
        False,
        "Name the place that was first not finite.\nAn input, weight, layer, the loss, a gradient.",
        rare=True,
    )
    add.text(
        "tracker",
        "none",
        "Send the log to mlflow or wandb, too.\nMLFLOW_TRACKING_URI or WANDB_MODE say where to; by "
        "themselves into files beside and in the run's folder.",
        rare=True,
    )
    add.text(
        "profile",
        "",
        "Steps to profile for TensorBoard: 100:110.\nThose after step 100 up to 110, each in a "
        "device loop of its own.",
        rare=True,
    )


def training_settings(values: flags.FlagValues) -> Settings:
    """The settings of a training run that the parsed flags make, without the data's.

    Raises:
      ValueError: a flag has a value that it cannot take, or flags contradict each other.
    """
    return Settings(
        run=_run_settings(values),
        devices=devices.device_settings(values),
        task=data.task_name(values),
        model=model.model_name(values),
        layers=model.layer_settings(values),
        fine_tuning=model.fine_tuning(values),
        learning_rate=learning_rate.learning_rate_settings(values),
        optimizer=optimizer.optimizer_settings(values),
        recovery=recovery.recovery_settings(values),
    )


def _run_settings(values: flags.FlagValues) -> RunSettings:
    return RunSettings(
        run_dir=path(values, "run_dir") or f"runs/{folder_name(values)}",
        seed=values.seed,
        train_for=duration(values, "train_for"),
        eval_every=duration(values, "eval_every"),
        checkpoint_every=duration_or_time(values, "checkpoint_every"),
        log_every=duration(values, "log_every"),
        steps_per_loop=values.steps_per_loop,
        resume=one_of("resume", values.resume, ("auto", "exact", "never")),
        deterministic=values.deterministic,
        on_nonfinite=one_of("on_nonfinite", values.on_nonfinite, ("stop", "skip")),
        locate_nonfinite=values.locate_nonfinite,
        histograms_every=duration(values, "histograms_every"),
        pictures=one_of("pictures", values.pictures, ("auto", "always", "never")),
        check_replicas_every=duration(values, "check_replicas_every"),
        audit_every=duration(values, "audit_every"),
        profile=parsed(values, "profile", parse_span),
        tracker=one_of("tracker", values.tracker, ("none", "mlflow", "wandb")),
    )


def folder_name(values: flags.FlagValues) -> str:
    """The name of a folder for what is trained: DATASET-MODEL."""
    return re.sub(r"[^\w.-]+", "-", f"{values.dataset}-{values.model}")
