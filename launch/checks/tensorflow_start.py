"""TensorFlow started once more, to hear why it finds no GPU.

A run keeps it quiet, and how much it writes can be set only before it is imported. So where GPUs
are missing another process imports it, with all that it has to say of drivers and libraries. It
takes as long as the import of TensorFlow.
"""

import dataclasses
import os
import subprocess
import sys

from launch.process import cli

_SECONDS = 300


@dataclasses.dataclass(frozen=True)
class Started:
    """What came of it.

    Attributes:
      gpus: how many TensorFlow found; None if it could not be imported.
      log: what it wrote, for `launch.checks.tensorflow_log`.
    """

    gpus: int | None
    log: str


def start_tensorflow() -> Started:
    """Imports TensorFlow in another process, and listens."""
    heard = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1,cuda_diagnostics=1"}
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "launch.checks.tensorflow_start"],
            env={**os.environ, **heard},
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Started(None, f"the import of TensorFlow took more than {_SECONDS} s")
    last = ended.stdout.strip().rpartition("\n")[2]
    gpus = int(last) if ended.returncode == 0 and last.isdigit() else None
    return Started(gpus, ended.stderr)


def _count() -> int:
    from launch.process.cuda_libraries import open_before_tensorflow

    open_before_tensorflow()
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


if __name__ == "__main__":
    cli.exit_with(lambda _: print(_count()) or cli.FINISHED)
