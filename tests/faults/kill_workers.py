"""Kills workers of a run at random, and compares its end with an undisturbed one.

    python -m tests.faults.kill_workers --kills=100 --out=/tmp/kills

`launch.supervise --workers=2` starts them again each time. Of the kills, half are of one worker,
a quarter of all at once, a quarter a stop by SIGTERM; each comes up to --longest seconds after the
one before. Prints how many there were at which step, the steps done twice, and the share of the
time in which a worker was training what the end consists of (ETTR).
"""

import argparse
import collections
import pathlib
import random
import signal
import subprocess
import sys
import time

import psutil

from tests.helpers import REPOSITORY, Run

FLAGS = (
    "--device=cpu --dataset=digits --model=mlp --dropout=0.2 --ema=0.9 --global_batch=64 "
    "--micro_batch=32 --eval_every=500st --checkpoint_every=50st --log_every=50st "
    "--check_replicas_every=50st --steps_per_loop=10 --xla=off"
)
KINDS = ("one", "one", "all", "stop")


def main() -> None:
    """Runs both and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--longest", type=float, default=20.0, help="seconds between two of them")
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
    began, made = time.monotonic(), disturb(command, given)
    seconds = time.monotonic() - began
    same = run.rows_without_times() == alone.rows_without_times()
    print(
        f"{sum(made.values())} kills ({dict(made)}) in {seconds:.0f} s, undisturbed on one "
        f"process {undisturbed:.0f} s"
    )
    print(f"every row of the log with all digests: {'the same' if same else 'DIFFERENT'}")
    sys.exit(0 if same else 1)


def disturb(command: list[str], given: argparse.Namespace) -> collections.Counter[str]:
    """Runs the command to its end, killing its workers; how often by kind."""
    chance, made = random.Random(given.seed), collections.Counter()
    log = (given.out / "log.txt").open("w", encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT
    )
    due = time.monotonic() + chance.uniform(0, given.longest)
    while process.poll() is None:
        time.sleep(0.1)
        if sum(made.values()) < given.kills and time.monotonic() > due:
            workers = workers_below(process.pid)
            if workers:
                kind = chance.choice(KINDS)
                chosen = workers if kind == "all" else [chance.choice(workers)]
                for worker in chosen:
                    worker.send_signal(signal.SIGTERM if kind == "stop" else signal.SIGKILL)
                made[kind] += 1
            due = time.monotonic() + chance.uniform(0, given.longest)
    if process.returncode:
        raise RuntimeError(f"it ended with {process.returncode}; see {given.out / 'log.txt'}")
    return made


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
