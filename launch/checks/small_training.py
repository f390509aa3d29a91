"""A training of a few steps on the digits, by the very command that trains."""

import pathlib
import subprocess
import sys
import tempfile
import time

from launch.checks.finding import ERROR, OK, Finding
from launch.checks.tensorflow_log import told

_SECONDS = 1_800  # a card may compile its kernels first
_STEPS = 20


def train_a_little(kind: str, replicas: int, all_reduce: str) -> list[Finding]:
    """Trains for a few steps in a process and a folder of its own."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lockstep-doctor-") as folder:
        flags = [
            f"--device={kind.lower()}",
            f"--replicas={replicas}",
            f"--global_batch={16 * replicas}",
            "--micro_batch=16",
            f"--train_for={_STEPS}st",
            "--model=cnn",
            "--dataset=digits",
            "--eval_every=0",
            f"--all_reduce={all_reduce}",
            f"--run_dir={pathlib.Path(folder) / 'run'}",
        ]
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "launch.train", *flags],
                capture_output=True,
                encoding="utf-8",
                errors="backslashreplace",
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return [training_finding(kind, replicas, None, "", float(_SECONDS))]
    seconds = time.monotonic() - began
    return [training_finding(kind, replicas, ended.returncode, ended.stderr, seconds)] + (
        told(ended.stderr) if ended.returncode else []
    )


def training_finding(
    kind: str, replicas: int, code: int | None, err: str, seconds: float
) -> Finding:
    """What came of it.

    Args:
      kind: of the devices, CPU or GPU.
      replicas: how many.
      code: the exit code; None: it did not end.
      err: what it wrote on stderr.
      seconds: that it took.
    """
    what = f"{_STEPS} steps on {replicas} {kind} replica{'s' * (replicas != 1)}"
    if code == 0:
        return Finding("training", OK, f"{what} took {seconds:.3g} s, the start included")
    if code is None:
        return Finding(
            "training",
            ERROR,
            f"{what} did not end within {seconds:.0f} s",
            "see what the findings above say, then train with --verbosity=2",
        )
    lines = [line for line in err.strip().splitlines() if line.strip()]
    said = lines[-1].strip() if lines else "it said nothing"
    return Finding(
        "training",
        ERROR,
        f"{what} ended with code {code}: {said}",
        "see what the findings above say, then train with --verbosity=2",
    )
