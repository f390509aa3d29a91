"""A process that trains by Keras `fit` and is going to be killed, forked off or fresh."""

import json
import os
import pathlib
import sys
import traceback
from multiprocessing.connection import Connection

from tests.faults.aim import Kill
from tests.faults.child import prepare
from tests.faults.keras_fit.places import KERAS_PLACES


def run(
    replicas: int,
    run_dir: pathlib.Path,
    log: pathlib.Path,
    kill: Kill | None,
    tell: Connection | None,
) -> None:
    """Trains, to be killed in it or not, and ends the process with 0 or, after a traceback, 1.

    Args:
      log: without a suffix, for what it prints and reads.
    """
    run_dir.mkdir(exist_ok=True)
    prepare(run_dir, log, kill, tell, KERAS_PLACES)
    try:
        from tests.faults.keras_fit import training

        training.fit(run_dir, log, replicas)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    replicas, run_dir, log, kill = json.loads(sys.argv[1])
    run(replicas, pathlib.Path(run_dir), pathlib.Path(log), Kill(**kill), None)
