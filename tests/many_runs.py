"""Several runs of `launch.train` in one process: python tests/many_runs.py COMMANDS.json

Starting TensorFlow takes longer than the sixty steps that a schedule is tested with.
"""

import json
import pathlib
import shlex
import sys

from launch import cli, train


def main() -> None:
    """Trains with every command line of the file, a JSON list; all with the same devices."""
    for command in json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")):
        code = train.main(shlex.split(command))
        if code not in (cli.FINISHED, cli.DIVERGED):
            raise SystemExit(f"exit code {code}: {command}")


if __name__ == "__main__":
    cli.exit_with(lambda argv: main() or cli.FINISHED)
