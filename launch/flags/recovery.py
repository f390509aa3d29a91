"""The flags of recovery: what the run does about faults, and the settings that they make."""

import re

from absl import flags

from launch.flags.group import Group
from launch.flags.parsing import duration, one_of, parsed, path
from trainer.plan.settings import RecoverySettings

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_TIME = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(min|[smhd])\s*", re.ASCII)
_MOST_DAYS = 10_000


def define_recovery_flags(values: flags.FlagValues) -> None:
    """Adds the flags of recovery."""
    add = Group(values, "recovery", rare=True)
    _define_keeping(add)
    _define_stopping(add)
    _define_rollbacks(add)


def _define_keeping(add: Group) -> None:
    add.integer("keep", 3, 1, "The newest checkpoints that are kept.")
    add.integer("keep_best", 0, 0, "And as many of the best evaluations.\nBy eval/accuracy.")
    add.text("keep_every", "0", "And one every so often, for ever.\nA duration; 0: none.")
    add.text("fallback_dir", "", "Where to save what --run_dir cannot take.\nA full or lost disk.")


def _define_stopping(add: Group) -> None:
    add.text(
        "stop_after", "", "Save and exit with 75 after this time.\nFor queues: 3h50m.", rare=False
    )
    add.text(
        "stop_at",
        "",
        "Save and exit with 75 at this point.\nSuch as 300st or 25% of the run, which goes on from "
        "there without it.",
    )
    add.text("grace", "60s", "Time to save in when asked to stop.\nExit within it, in any case.")
    add.text(
        "stall_after",
        "auto",
        "No step for so long is a stall.\nauto: ten times the median step, at least 5 minutes; "
        "0: never.",
    )
    add.boolean("restart_on_stall", False, "Exit with 75 on a stall.")


def _define_rollbacks(add: Group) -> None:
    add.text(
        "on_divergence",
        "stop",
        "stop or rollback, where training diverges.",
        decisive=True,
        rare=False,
    )
    add.boolean(
        "skip_window",
        True,
        "After a rollback, other data.\nSkips what it diverged on.",
        decisive=True,
    )
    add.number("backoff", 0.5, "Rate's factor after a rollback.", decisive=True)
    add.text("backoff_for", "5%", "How long until the rate is back.\nA duration.", decisive=True)
    add.integer("rollbacks", 3, 0, "Most rollbacks.\nThen the run exits with 76.", decisive=True)


def recovery_settings(values: flags.FlagValues) -> RecoverySettings:
    """The settings that the parsed flags make.

    Raises:
      ValueError: a value that does not exist or cannot be.
    """
    stall = values.stall_after
    if not 0 < values.backoff <= 1:
        raise ValueError(
            f"--backoff={values.backoff:g} is out of bounds; give more than 0 and at most 1, for "
            "example 0.5."
        )
    return RecoverySettings(
        keep=values.keep,
        keep_best=values.keep_best,
        keep_every=duration(values, "keep_every"),
        fallback_dir=path(values, "fallback_dir"),
        stop_after=parsed(values, "stop_after", parse_time) or None if values.stop_after else None,
        stop_at=duration(values, "stop_at") if values.stop_at else None,
        grace=parsed(values, "grace", _some_time),
        stall_after=None if stall == "auto" else parsed(values, "stall_after", parse_time),
        restart_on_stall=values.restart_on_stall,
        on_divergence=one_of("on_divergence", values.on_divergence, ("stop", "rollback")),
        skip_window=values.skip_window,
        backoff=values.backoff,
        backoff_for=duration(values, "backoff_for"),
        rollbacks=values.rollbacks,
    )


def _some_time(text: str) -> float:
    """Reads a time that is not 0."""
    seconds = parse_time(text)
    if not seconds:
        raise ValueError("no time to save in; give some, for example 60s.")
    return seconds


def parse_time(text: str) -> float:
    """Reads a time such as `3h50m`, `90s`, `1d` or plain `0`, in seconds.

    Raises:
      ValueError: it is none.
    """
    if text.strip() == "0":
        return 0.0
    parts = _TIME.findall(text) if len(text) <= 100 else []
    if not parts or "".join(n + u for n, u in parts) != re.sub(r"\s", "", text):
        raise ValueError("not a time; use d, h, m (or min) and s, for example 3h50m.")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > _MOST_DAYS * _SECONDS["d"]:
        raise ValueError(f"too long a time; give at most {_MOST_DAYS}d.")
    return seconds
