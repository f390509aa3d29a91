"""Several runs of `launch.train` in one process: python tests/many_runs.py COMMANDS.json

Starting TensorFlow takes longer than the sixty steps that a schedule is tested with.
"""

import contextlib
import json
import pathlib
import shlex
import sys
import time

import launch
from launch import train
from launch.process import cli


def main() -> None:
    """Trains with every command line of the file, JSON, by name; all with the same devices.

    What a run prints goes to NAME.out beside the file.
    """
    path = pathlib.Path(sys.argv[1])
    for name, command in json.loads(path.read_text(encoding="utf-8")).items():
        out = path.with_name(f"{name}.out")
        with out.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            launch.BEGAN = time.perf_counter()
            code = train.main(shlex.split(command))
        if code not in (cli.FINISHED, cli.DIVERGED):
            raise SystemExit(f"exit code {code}: {command}")
        import keras

        keras.utils.clear_session()  # or the next one's optimizer is called sgd_1


if __name__ == "__main__":
    cli.exit_with(lambda argv: main() or cli.FINISHED)
