"""Sweeps twice from the same state and tells what was different: python tests/sweep_twice.py FLAGS

A process of its own, since one process has one set of replicas.
"""

import json
import sys

import numpy as np

from input_pipeline.bad_records import Faults
from launch import find_lr
from launch.flags.command import read_command
from launch.process import cli
from launch.training.job import plan_command
from launch.training.streams import training_data
from trainer.actions.range_test import Snapshot


def main() -> None:
    """Prints JSON: the copies that the sweep changed and did not put back, and other rows."""
    command = read_command(sys.argv[1:], find_lr.define_find_lr_flags())
    plan, devices, sources = plan_command(command)
    sweep = find_lr.plan_range_test(command, plan)
    cli.import_tensorflow(0)
    from trainer.run import build_run

    run = build_run(command.settings, sweep.plan, devices)

    def state() -> dict[str, np.ndarray]:
        return {
            f"{group}/{name}/{number}": copy.numpy()
            for group, members in run.variables().items()
            for name, variable in members.items()
            for number, copy in enumerate(run.strategy.experimental_local_results(variable))
        }

    def swept() -> dict[str, np.ndarray]:
        faults = Faults(sources["train"])
        data = training_data(command, plan, sources["train"], first_position=0, faults=faults)
        return find_lr.train_once(run, sweep.plan, iter(run.stream(data))).rows

    before, snapshot = state(), None
    snapshot = Snapshot(run.variables(), run.strategy.experimental_local_results)
    first, changed = swept(), state()
    snapshot.put_back()
    after, second = state(), swept()
    names = ("train/loss", "learning_rate", "gradient_norm")
    # The blocks are as long as the machine is fast: one sweep may have gone on for longer.
    rows = min(len(first["train/loss"]), len(second["train/loss"]))
    result = {
        "variables": len(before),
        "changed": [name for name in before if not np.array_equal(before[name], changed[name])],
        "not put back": [
            name for name in before if before[name].tobytes() != after[name].tobytes()
        ],
        "other rows": [
            name for name in names if not np.array_equal(first[name][:rows], second[name][:rows])
        ],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    cli.exit_with(lambda argv: main() or cli.FINISHED)
