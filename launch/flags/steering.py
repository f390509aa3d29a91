"""The flags that steer the learning rate of a run, and the request that one of them makes."""

import datetime
import getpass
import os
import secrets
import socket
import time

from absl import flags

from launch.flags.group import Group
from trainer.run_folder.requests import Request, check_request

STEERING = ("scale", "learning_rate", "hold", "resume_schedule", "cooldown")


def define_steering_flags(values: flags.FlagValues) -> None:
    """Adds the flags."""
    add = Group(values, "one of")
    add.text("scale", None, "Multiply the schedule by this; 1: as planned.")
    add.text("learning_rate", None, "Set the rate to this now, by the scale.")
    add.boolean("hold", False, "Keep the curve where it is.")
    add.boolean("resume_schedule", False, "Back to the plan: scale 1, no hold or cooldown.")
    add.text("cooldown", None, "Go down to the end rate over this, and end.")


def make_request(action: str, value: object, reason: str) -> Request:
    """The request of one flag that was given.

    Args:
      value: of the flag; True where it takes none.

    Raises:
      ValueError: the value cannot be.
    """
    if action in ("scale", "learning_rate"):
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"--{action}={value} is not a number.") from None
    now = datetime.datetime.now(datetime.UTC)
    return check_request(
        {
            # Requests are taken up in the order of their names.
            "id": f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(3)}",
            "action": action,
            "value": None if value is True else value,
            "who": f"{_user()}@{socket.gethostname()}",
            "when": now.isoformat(timespec="seconds"),
            "reason": " ".join(reason.split()),
        }
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())
