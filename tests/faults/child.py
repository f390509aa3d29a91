"""A training process that is going to be killed: `launch.train`, forked off or fresh."""

import ctypes
import importlib
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection

from tests.faults.aim import PLACES, Kill, Place, arm

READS = "LOCKSTEP_FAULTS_READS"
_PR_SET_PDEATHSIG = 1


def prepare(
    run_dir: pathlib.Path,
    log: pathlib.Path,
    kill: Kill | None,
    tell: Connection | None,
    places: Mapping[str, Place],
) -> None:
    """Has this process killed at the kill's place, and what it says and reads written down.

    Args:
      log: without a suffix; what it prints goes to `.out`, what it reads to `.reads`.
      places: by their names.
    """
    # Nobody is to go on writing into a story's folder whose teller has gone.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    out = os.open(log.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        os.dup2(out, number)
        stream.reconfigure(line_buffering=True)  # what a kill would lose
    os.environ[READS] = str(log.with_suffix(".reads"))
    if kill is not None:
        arm(kill, places[kill.place], run_dir, tell)


def run(
    command: list[str],
    run_dir: pathlib.Path,
    log: pathlib.Path,
    kill: Kill | None,
    tell: Connection | None,
) -> None:
    """Trains, to be killed in it or not, and ends the process with the command's exit code."""
    prepare(run_dir, log, kill, tell, PLACES)
    from launch import train
    from launch.process import cli

    sys.argv = ["launch.train", *command, f"--run_dir={run_dir}"]
    cli.exit_with(train.main)


if __name__ == "__main__":
    command, run_dir, log, kill = json.loads(sys.argv[1])
    log = pathlib.Path(log)
    if kill is None:
        importlib.import_module("tests.faults.preload")
        log.with_suffix(".imports").write_text(str(time.process_time()), encoding="utf-8")
    run(command, pathlib.Path(run_dir), log, kill and Kill(**kill), None)
