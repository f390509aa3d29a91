"""`launch.train` with a fault: after its sixth step one bit of one weight flips on one replica.

python -m tests.trainer.actions.flip_a_bit REPLICA BIT [--flag=value …]
"""

import dataclasses
import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import trainer.run
from launch import train
from launch.process import cli
from trainer.run import Run

STEP, VARIABLE = 6, "dense2/kernel"


def flip(run: Run, replica: int, bit: int) -> None:
    """Flips a bit of the last weight of the variable, in the copy of one replica."""
    variable = run.variables()["model"][VARIABLE]
    copy = run.strategy.experimental_local_results(variable)[replica]
    value = copy.numpy()
    value.view("uint32")[-1, -1] ^= 1 << bit
    copy.assign(value)


def faulty(build: Callable[..., Run], replica: int, bit: int) -> Callable[..., Run]:
    """`build_run`, of a run whose memory is so."""

    def build_run(*arguments: Any) -> Run:
        run, calls = build(*arguments), itertools.count(1)

        class Loop:
            trace, step = run.train_loop.trace, run.train_loop.step

            def __call__(self, stream: Any, steps: int) -> dict[str, np.ndarray]:
                rows = run.train_loop(stream, steps)
                if next(calls) == STEP:
                    flip(run, replica, bit)
                return rows

        return dataclasses.replace(run, train_loop=Loop())

    return build_run


if __name__ == "__main__":
    replica, bit = map(int, sys.argv[1:3])
    trainer.run.build_run = faulty(trainer.run.build_run, replica, bit)
    sys.argv[1:3] = []
    cli.exit_with(train.main)
