"""How long a checkpoint holds up the devices, and how long it takes to train again after a kill.

    python -m tests.benchmarks.checkpoint --out=checkpoint.json

A run's variables of 1 to 400 MB in float32, twelve of them, and those of ResNet-20 with AdamW. In
turn, forwards and backwards in alternation, and after an update of all of them each time:

    pause    `Checkpoints.save`, which returns when the devices may go on; the checkpoint is then
             written, and waited for, outside of the time
    copy     the same bytes copied by NumPy, from where the variables are into host memory that is
             warm; to find out where they are is not in the time
    control  the same once more: what chance alone does

What counts is the ratio within a turn. `next` is the time of the update after it, likewise, since
small variables are copied by that. The restart is a training on digits that is killed, and started
again with the same command: what its event `started` says, and the whole process besides.
"""

import argparse
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.benchmarks.interleaved import Round, ratios
from trainer.files.whole_files import read_lines

REPOSITORY = pathlib.Path(__file__).parents[2]
MEGABYTES = (1, 4, 16, 64, 400)
PIECES = 12
MOST = 1.2  # issue 6: the pause over a copy
RUN = (
    "--device=cpu --replicas=2 --dataset=digits --model=cnn --global_batch=64 --train_for=1kst "
    "--log_every=1st --eval_every=0 --checkpoint_every=50st --steps_per_loop=5 --optimizer=adamw"
)


def shapes_of(size: str) -> list[tuple[int, ...]]:
    """The shapes of the variables: megabytes in equal pieces, or those of ResNet-20."""
    if size != "ResNet-20":
        return [(int(size) * 1_000_000 // 4 // PIECES,)] * PIECES
    from trainer.models.make_model import make_model
    from trainer.plan.dataset import DatasetFacts
    from trainer.plan.settings import LayerSettings

    facts = DatasetFacts("any", 1, 1, 10, (32, 32, 3))
    shapes = [tuple(v.shape) for v in make_model("resnet20", facts, LayerSettings()).variables]
    return 3 * shapes


def measure(size: str, turns: int) -> dict[str, Any]:
    """Seconds of each arm in each turn, and their ratios."""
    import tensorflow as tf

    from trainer.checkpoint.checkpoints import Checkpoints

    shapes = shapes_of(size)
    variables = {str(i): tf.Variable(tf.random.normal(s)) for i, s in enumerate(shapes)}
    memory = [np.ones_like(variable.numpy()) for variable in variables.values()]
    sources: list[np.ndarray] = []

    def look() -> None:
        sources[:] = [np.asarray(memoryview(v.read_value())) for v in variables.values()]

    @tf.function
    def update() -> None:
        for variable in variables.values():
            variable.assign_add(variable * 1e-3)

    def copy() -> None:
        for here, source in zip(memory, sources, strict=True):
            np.copyto(here, source)

    with tempfile.TemporaryDirectory() as folder:
        checkpoints, step = Checkpoints(pathlib.Path(folder), {"model": variables}), 0

        def save() -> None:
            nonlocal step
            step += 1
            checkpoints.save(step, {})

        arms: dict[str, Callable[[], None]] = {"pause": save, "copy": copy, "control": copy}
        taken, after = [], []
        for turn in range(turns + 2):
            seconds, following = {}, {}
            for arm in list(arms)[:: -1 if turn % 2 else 1]:
                update()
                look()
                seconds[arm] = timed(arms[arm])
                sources.clear()  # or the update would copy what is still looked at
                following[arm] = timed(update)
                checkpoints.wait()
            taken.append(seconds)
            after.append(following)
    # The first two turns make the memory and the function.
    rounds = [Round({}, [one]) for one in taken[2:]]
    following = [Round({}, [one]) for one in after[2:]]
    return {
        "bytes": sum(array.nbytes for array in memory),
        "variables": len(memory),
        "copy_ms": 1000 * float(np.median([one["copy"] for one in taken[2:]])),
        "pause_ms": 1000 * float(np.median([one["pause"] for one in taken[2:]])),
        "pause / copy": ratios(rounds, "pause", "copy"),
        "control / copy": ratios(rounds, "control", "copy"),
        "next: pause / copy": ratios(following, "pause", "copy"),
        "next: control / copy": ratios(following, "control", "copy"),
    }


def timed(function: Callable[[], None]) -> float:
    """Seconds that it takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def restarts(count: int) -> list[dict[str, float]]:
    """Kills a training and starts it again, so many times; seconds of each phase."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        command = [sys.executable, "-m", "launch.train", *RUN.split(), f"--run_dir={run}"]
        for number in range(count + 1):
            begin, before = time.monotonic(), len(events(run))
            process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
            while len(events(run)) <= before:
                if process.poll() is not None:
                    raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
                time.sleep(0.005)
            seconds = time.monotonic() - begin
            wanted = 50 * (number + 1)
            while not (run / f"checkpoints/step-{wanted}").exists():
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
            if number:  # the first did not go on from anything
                event = events(run)[-1]
                phases = {name: event[name] for name in event if name.endswith("_s")}
                found.append({**phases, "to_the_first_row_s": seconds})
    return found


def events(run: pathlib.Path) -> list[dict[str, Any]]:
    """The events `started` that the run has written."""
    rows = read_lines(run / "metrics.jsonl")
    return [row for row in rows if row.get("event") == "started"]


def main(arguments: Sequence[str]) -> int:
    """Prints the tables; 1 where a pause is longer than it may be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = ",".join([*map(str, MEGABYTES), "ResNet-20"])
    parser.add_argument("--sizes", default=sizes, help="MB in float32, or ResNet-20")
    parser.add_argument("--turns", type=int, default=30, help="of each arm; 400 MB takes a third")
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--out", default="")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {}
    print("size        variables  copy ms  pause ms  pause / copy        control             next")
    for size in options.sizes.split(","):
        turns = options.turns // 3 if size == "400" else options.turns
        one = results[size] = measure(size, turns)
        print(
            f"{size:10}  {one['variables']:9}  {one['copy_ms']:7.3f}  {one['pause_ms']:8.3f}  "
            + "  ".join(
                f"{r['median']:.2f} ({r['from']:.2f}–{r['to']:.2f})"
                for name, r in one.items()
                if " / " in name
            ),
            flush=True,
        )
    started = restarts(options.restarts) if options.restarts else []
    for name in started[0] if started else ():
        values = [one[name] for one in started]
        print(f"{name:20} {np.median(values):.1f} s ({min(values):.1f}–{max(values):.1f})")
    if options.out:
        text = json.dumps({"pauses": results, "restarts": started}, indent=1)
        pathlib.Path(options.out).write_text(text, encoding="utf-8")
    return int(any(one["pause / copy"]["median"] > MOST for one in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
