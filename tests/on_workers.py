"""A program in one process, or as each of several workers of a cluster on this machine."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

from tests.helpers import REPOSITORY

_SECONDS = 240
# Before the program: the run of a command of launch.train on the replicas of all workers.
_BUILT = """
import json, os, sys
from input_pipeline.bad_records import Faults
from launch.process import cli
from launch.flags.command import read_command
from launch.training.job import plan_command
from launch.training.streams import evaluation_data, training_data
given, flags = json.loads(sys.argv[1]), sys.argv[2:]
command = read_command(["--device=cpu", *flags])
config = os.environ.pop("TF_CONFIG", None)  # commands refuse several workers
plan, devices, sources = plan_command(command)
if config:
    os.environ["TF_CONFIG"] = config
cli.import_tensorflow(0)
import numpy as np
import tensorflow as tf
from trainer.replicas.strategy import make_strategy
from trainer.run import build_run_on
strategy = tf.distribute.MultiWorkerMirroredStrategy() if config else make_strategy(devices)
run = build_run_on(strategy, command.settings, plan)
"""
_END = "os._exit(0)  # a worker that ends cleanly waits for its peers"


def run_program(
    program: str, workers: Sequence[tuple[object, str]], alone: Sequence[tuple[object, str]] = ()
) -> list[str]:
    """Runs a program as the workers of a cluster and, beside them, in processes of their own.

    Args:
      program: goes on from `command`, `plan`, `sources`, `strategy` and `run`, and `given`.
      workers: of each, what is `given` to it and the flags of launch.train.
      alone: likewise.

    Returns:
      What each printed, the workers first.
    """
    cluster = {"worker": [f"127.0.0.1:{port}" for port in _free_ports(len(workers))]}
    configs = [
        {"cluster": cluster, "task": {"type": "worker", "index": n}} for n in range(len(workers))
    ]
    configs = [*map(json.dumps, configs), *[""] * len(alone)]
    processes = [
        _start(program, *one, config)
        for one, config in zip([*workers, *alone], configs, strict=True)
    ]
    try:
        return [_printed(process) for process in processes]
    finally:
        # A worker without its peer would wait for it without end.
        for process in processes:
            process.kill()
            process.wait()


def _start(program: str, given: object, flags: str, config: str) -> subprocess.Popen:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": "-1"}
    environment |= {"TF_CONFIG": config} if config else {}
    return subprocess.Popen(
        [sys.executable, "-c", _BUILT + program + _END, json.dumps(given), *flags.split()],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _printed(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=_SECONDS)
    assert process.returncode == 0, err
    return out


def _free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
