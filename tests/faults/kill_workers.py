"""Kills workers of a run at random, and compares its end with an undisturbed one.

    python -m tests.faults.kill_workers --kills=100 --out=/tmp/kills

`launch.supervise --workers=2` starts them again each time. Of the kills, half are of one worker,
a quarter of all at once, a quarter a stop by SIGTERM; the times between them are exponential, as
those between failures are. Prints the share of the time in which was trained what the end consists
of (ETTR), and what `trainer.plan.failures` expects by the restarts that were timed.
"""

import argparse
import collections
import math
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import time

import psutil

from tests.helpers import REPOSITORY, Run
from trainer.plan.failures import Failures, goodput

FLAGS = (
    "--device=cpu --dataset=digits --model=mlp --dropout=0.2 --ema=0.9 --global_batch=64 "
    "--micro_batch=32 --eval_every=500st --checkpoint_every=50st --log_every=50st "
    "--check_replicas_every=50st --steps_per_loop=10 --xla=off"
)
KINDS = ("one", "one", "all", "stop")
# Seconds after a kill by which what writes to the log is the next start.
_ENDED = 2.5


def main() -> None:
    """Runs both and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--mean", type=float, default=30.0, help="seconds between two of them")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="where both runs go")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    flags = f"{FLAGS} --train_for={given.steps}st"
    alone, run = Run(given.out / "alone"), Run(given.out / "killed")
    given.out.mkdir(parents=True)
    command = ["launch.train", *flags.split(), f"--run_dir={alone.folder}"]
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", *command], cwd=REPOSITORY, check=True, capture_output=True
    )
    undisturbed = time.monotonic() - began
    supervise = ["launch.supervise", "--max_restarts=1000", "--backoff_s=0.1", "--workers=2", "--"]
    command = [*supervise, *flags.split(), f"--run_dir={run.folder}"]
    began = time.monotonic()
    made, restarts, seconds, useful = disturb(command, given, run)
    done = time.monotonic() - began
    same = run.rows_without_times() == alone.rows_without_times()
    print(
        f"{sum(made.values())} kills ({dict(made)}) in {seconds:.0f} s, {done:.0f} s to its end, "
        f"undisturbed on one process {undisturbed:.0f} s"
    )
    restart, turn = statistics.median(restarts), run.rows()[-1]["seconds"] * 50 / given.steps
    failures = Failures(given.mean, 1, math.inf, 1, 0.0, restart, turn, 0.0)
    print(
        f"ETTR {useful / seconds:.1%} ({useful:.0f} s of training); expected "
        f"{goodput(failures, 1):.1%}, by restarts of {restart:.1f} s (median of {len(restarts)}) "
        f"and a checkpoint every {turn:.2f} s"
    )
    print(f"every row of the log with all digests: {'the same' if same else 'DIFFERENT'}")
    sys.exit(0 if same else 1)


def disturb(
    command: list[str], given: argparse.Namespace, run: Run
) -> tuple[collections.Counter[str], list[float], float, float]:
    """Runs the command to its end, killing its workers.

    Returns:
      How often by kind; the seconds from each kill to the next row of the log, where no other kill
      came before it; the seconds to the last kill; and how many of them were of training that
      counts.
    """
    began, last = time.monotonic(), (1.0, 0.0)
    chance, made, restarts = random.Random(given.seed), collections.Counter(), []
    log, killed = (given.out / "log.txt").open("w", encoding="utf-8"), None
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT
    )
    due = time.monotonic() + chance.expovariate(1 / given.mean)
    while process.poll() is None:
        time.sleep(0.1)
        if killed and time.time() - killed > _ENDED and written(run) > killed + _ENDED:
            restarts.append(time.time() - killed)
            killed = None
        if sum(made.values()) < given.kills and time.monotonic() > due:
            workers = workers_below(process.pid)
            if workers:
                kind = chance.choice(KINDS)
                for worker in workers if kind == "all" else [chance.choice(workers)]:
                    worker.send_signal(signal.SIGTERM if kind == "stop" else signal.SIGKILL)
                made[kind] += 1
                killed = time.time()
                last = (time.monotonic() - began, trained(run))
            due = time.monotonic() + chance.expovariate(1 / given.mean)
    if process.returncode:
        raise RuntimeError(f"it ended with {process.returncode}; see {given.out / 'log.txt'}")
    return made, restarts, *last


def trained(run: Run) -> float:
    """Seconds of training that the log has come to; the row in hand may be cut off."""
    try:
        return run.rows()[-1]["seconds"]
    except (OSError, ValueError, IndexError):
        return 0.0


def written(run: Run) -> float:
    """When the run has written to its log for the last time."""
    log = run.folder / "metrics.jsonl"
    return log.stat().st_mtime if log.exists() else 0.0


def workers_below(pid: int) -> list[psutil.Process]:
    """The processes of launch.train below a supervisor."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if "launch.train" in process.cmdline() and "launch.cluster" not in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


if __name__ == "__main__":
    main()
