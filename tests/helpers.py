"""What the tests share: commands in processes of their own, and what their runs leave behind."""

import atexit
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import random
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from tests import preloaded
from trainer.run_folder.board_tags import name_of

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
# What tells of time, and so differs from run to run: fields of a row of metrics.jsonl, and of the
# history that a checkpoint keeps.
TIMES = {"seconds", "step_ms", "examples_per_second", "input_wait_fraction", "spent", "until"}


@dataclasses.dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


def start(
    flags: str,
    cwd: pathlib.Path,
    extra: Mapping[str, str] | None = None,
    module: str = "launch.train",
    stdout: int = subprocess.PIPE,
    before: Sequence[str] = (),
) -> subprocess.Popen:
    """Starts `python -m MODULE` in a folder of its own with nothing of our environment.

    Args:
      before: a command that the program is started by.
    """
    process = subprocess.Popen(
        [*before, sys.executable, "-m", module, *shlex.split(flags)],
        cwd=cwd,
        env={**preloaded.environment(), "PYTHONPATH": str(REPOSITORY), **(extra or {})},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.kill)  # a test that fails leaves it behind
    return process


def finish(process: subprocess.Popen, seconds: float = 900) -> Ended:
    """Waits for a started command; one that does not end is killed, and an error."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Ended(process.returncode, out, err)


def call(
    flags: str,
    cwd: pathlib.Path,
    extra: Mapping[str, str] | None = None,
    module: str = "launch.train",
) -> Ended:
    """Runs `python -m MODULE` to its end.

    In a process that begins with TensorFlow imported (tests/preloaded.py), unless it is to have
    anything in its environment that an import may look at.
    """
    path = (extra or {}).get("PYTHONPATH", str(REPOSITORY))
    known = path in (str(REPOSITORY), f"{REPOSITORY}:{REPOSITORY / 'tests'}")
    if set(extra or {}) <= {"PYTHONPATH"} and known and "--verbosity" not in flags:
        env = preloaded.environment() | {"PYTHONPATH": path}
        return Ended(*preloaded.call(module, shlex.split(flags), cwd, env))
    return finish(start(flags, cwd, extra, module))


def run_program(program: str) -> list[str]:
    """The lines that a Python program prints that has to end with code 0."""
    # As our commands do: an iterator may wait for ever as it is destroyed (`launch.process.cli`).
    end = "\nimport os, sys\nsys.stdout.flush()\nos._exit(0)\n"
    command = [sys.executable, "-c", program + end]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def in_parallel(tasks: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Calls the functions, as many at once as there are processors; their results by name."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = {name: pool.submit(task) for name, task in tasks.items()}
        return {name: future.result() for name, future in futures.items()}


def train(folder: pathlib.Path, name: str, command: str) -> "Run":
    """Trains with the command, in a process and a folder of its own."""
    run = Run(folder / name)
    ended = call(f"{command} --run_dir={run.folder}", folder)
    assert ended.code == 0, f"{name} exited with {ended.code}:\n{ended.out}\n{ended.err}"
    return dataclasses.replace(run, ended=ended)


def train_all(folder: pathlib.Path, commands: Mapping[str, str]) -> dict[str, "Run"]:
    """Trains with each of the commands, each in a process and a folder of its own."""
    return in_parallel(
        {name: functools.partial(train, folder, name, commands[name]) for name in commands}
    )


def train_in_turn(folder: pathlib.Path, commands: Mapping[str, str]) -> dict[str, "Run"]:
    """Trains with each of the commands in one process; all have to ask for the same devices."""
    path = folder / f"{next(iter(commands))}.json"
    runs = {name: Run(folder / name) for name in commands}
    lines = {name: f"{command} --run_dir={folder / name}" for name, command in commands.items()}
    path.write_text(json.dumps(lines), encoding="utf-8")
    modules = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    ended = call(str(path), folder, modules, module="many_runs")
    assert ended.code == 0, f"{commands}:\n{ended.out}\n{ended.err}"
    outs = {name: (folder / f"{name}.out").read_text(encoding="utf-8") for name in commands}
    return {
        name: dataclasses.replace(run, ended=Ended(0, outs[name], ended.err))
        for name, run in runs.items()
    }


def carried_out(folder: pathlib.Path, lines: dict[str, str]) -> dict[str, Ended]:
    """What came of several commands that were carried out in one process."""
    path = folder / f"{next(iter(lines))}.json"
    modules = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    path.write_text(json.dumps(lines), encoding="utf-8")
    ended = call(str(path), folder, modules, module="tests.launch.in_one_process")
    assert ended.code == 0, f"{ended.out}\n{ended.err}"
    return {name: Ended(*one, ended.err) for name, one in json.loads(ended.out).items()}


def content(folder: pathlib.Path) -> dict[str, Any]:
    """The files of a folder, their bytes and when they were written."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p): (hashlib.md5(p.read_bytes()).digest(), p.stat().st_mtime_ns) for p in files}


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run has left behind."""

    folder: pathlib.Path
    ended: Ended | None = None

    def checkpoints(self) -> list[int]:
        """The steps of its checkpoints, in ascending order."""
        names = (self.folder / "checkpoints").glob("step-*")
        return sorted(int(path.name.removeprefix("step-")) for path in names)

    def variables(self, step: int) -> dict[str, np.ndarray]:
        """Every variable of a checkpoint by its name, such as `model/conv1/kernel`."""
        reader = tf.train.load_checkpoint(str(self.folder / f"checkpoints/step-{step}/variables"))
        names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
        # TensorFlow escapes a slash within a name.
        plain = {name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): name for name in names}
        return {short.replace(".S", "/"): reader.get_tensor(name) for short, name in plain.items()}

    def rows(self, kind: str = "") -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; of a kind: those with a metric of that prefix."""
        lines = (self.folder / "metrics.jsonl").read_bytes().splitlines()
        rows = [json.loads(line) for line in lines]
        return [row for row in rows if any(name.startswith(kind) for name in row)]

    def rows_without_times(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl that another run of the same command repeats."""
        left_out = ("started", "refused", "time")
        rows = [row for row in self.rows() if row.get("event") not in left_out]
        return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]

    def plan(self) -> dict[str, Any]:
        """What plan.json holds."""
        return json.loads((self.folder / "plan.json").read_text(encoding="utf-8"))

    def board(self, name: str) -> dict[str, list[tuple[int, float]]]:
        """What TensorBoard shows of `train`, `eval` or `plan`: by name the steps and values."""
        events = self.events(name)
        return {
            name_of(tag): [
                (e.step, make_ndarray(e.tensor_proto).item()) for e in events.Tensors(tag)
            ]
            for tag in events.PluginTagToContent("scalars")
        }

    def texts(self, name: str) -> dict[str, list[tuple[int, str]]]:
        """The texts that TensorBoard shows of one of them, by tag with their steps."""
        events = self.events(name)
        return {
            tag: [
                (e.step, make_ndarray(e.tensor_proto).item().decode()) for e in events.Tensors(tag)
            ]
            for tag in events.PluginTagToContent("text")
        }

    def events(self, name: str) -> EventAccumulator:
        """All that the event files of `train`, `eval` or `plan` hold, as TensorBoard reads them."""
        everything = dict.fromkeys(("scalars", "images", "histograms", "text"), 0)
        path = str(self.folder / name)
        return EventAccumulator(path, {"tensors": 0}, everything).Reload()


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / ‖a‖; infinite if only `a` is zero, or one of them is not finite."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    difference, norm = np.linalg.norm(a - b), np.linalg.norm(a)
    if difference == 0:
        return 0.0
    return float(difference / norm) if norm and np.isfinite(difference) else float("inf")


def worst_difference(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> tuple[float, str]:
    """The largest relative difference of any variable of two checkpoints, and its name."""
    assert a.keys() == b.keys()
    return max((relative_difference(a[name], b[name]), name) for name in a)


def different_variables(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> list[str]:
    """The names of the variables that are not the same, bit for bit."""
    assert a.keys() == b.keys()
    return [name for name in a if not np.array_equal(a[name], b[name])]


def digits_to_evaluate() -> tuple[np.ndarray, np.ndarray]:
    """All evaluation images, uint8 [360, 8, 8, 1], and their labels, int64 [360]."""
    source = open_source(DataSettings("digits"), "eval")
    files, labels = source.read(np.arange(source.length))
    return np.stack([tf.io.decode_png(png, channels=1).numpy() for png in files]), labels


def evaluate_in_keras(path: pathlib.Path) -> tuple[float, int]:
    """The mean loss and the number of right answers of a saved model, by plain Keras."""
    images, labels = digits_to_evaluate()
    logits = keras.models.load_model(path)(images, training=False)
    losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return float(np.mean(losses)), int(np.sum(np.argmax(logits, axis=1) == labels))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    """Waits for something that a started command does, as long as it lives."""
    begin = time.monotonic()
    while not condition():
        code = process.poll()
        # Both may have come about since.
        assert code is None or condition(), f"ended with {code}: {process.communicate()}"
        assert time.monotonic() - begin < 900, "waited for a quarter of an hour"
        time.sleep(0.002)


class Gate:
    """Holds a run after every block of its steps, so that a test need not be as fast as the run.

    Started by the gate, a run that has taken up the requests after a block reads from a named pipe
    in RUN_DIR/control until that is closed: it waits for us, see `gated`.

        gate = Gate(run_dir)
        process = gate.start(flags, cwd)  # it waits before its first step
        gate.reached(process)
        gate.let_pass()       # it carries out one block, and another gate stands behind that
        gate.remove()         # or: it goes on undisturbed
    """

    def __init__(self, run_dir: pathlib.Path) -> None:
        self._folder = run_dir / "control"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._number = 0
        self._pipe = self._make_pipe()

    def _path(self) -> pathlib.Path:
        return self._folder / f"gate-{self._number:06d}"

    def start(
        self, flags: str, cwd: pathlib.Path, extra: Mapping[str, str] | None = None
    ) -> subprocess.Popen:
        """Starts launch.train, as `start` does."""
        paths = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
        return start(f"launch.train {flags}", cwd, {**(extra or {}), **paths}, module="gated")

    def _make_pipe(self) -> int:
        os.mkfifo(self._path())
        # Held open from the start, so that a run whose test is killed reads the end and goes on.
        return os.open(self._path(), os.O_RDWR)

    def reached(self, process: subprocess.Popen) -> None:
        """Waits until the run stands at the gate."""
        wait_until(lambda: self._is_open_in(process), process)

    def _is_open_in(self, process: subprocess.Popen) -> bool:
        """Whether the run stands at the gate: whether it, too, has the pipe open."""
        pipe = os.fstat(self._pipe)
        for file in pathlib.Path(f"/proc/{process.pid}/fd").glob("*"):
            with contextlib.suppress(OSError):  # closed meanwhile
                if os.path.samestat(file.stat(), pipe):
                    return True
        return False

    def let_pass(self) -> None:
        """Lets the run, which stands at the gate, carry out its next block."""
        # It has listed the gates already, and so meets the next one a block later.
        behind, self._number = self._pipe, self._number + 1
        self._pipe = self._make_pipe()
        os.close(behind)

    def pass_until(self, condition: Callable[[], bool], process: subprocess.Popen) -> None:
        """Lets the run carry out blocks until a condition holds; it then stands at the gate."""
        self.reached(process)
        while not condition():
            self.let_pass()
            self.reached(process)

    def kill_behind(self, process: subprocess.Popen) -> None:
        """Lets the next block begin and kills the run somewhere in it, or where it ended."""
        self.let_pass()
        time.sleep(random.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.remove()

    def stop_behind(self, process: subprocess.Popen) -> None:
        """Lets the next block begin and asks the run to stop somewhere in it, or where it ended."""
        self.let_pass()
        time.sleep(random.uniform(0, 0.2))
        process.send_signal(signal.SIGTERM)

        def stands_or_has_ended() -> bool:
            # Asked before the block began, it ends without coming to another gate.
            if process.poll() is not None:
                return True
            return has_told(process) and self._is_open_in(process)

        wait_until(stands_or_has_ended, process)
        self.remove()

    def remove(self) -> None:
        """Takes the gate away; a run that stands at it goes on."""
        self._path().unlink(missing_ok=True)
        os.close(self._pipe)


def has_told(process: subprocess.Popen) -> bool:
    """Whether a started command has written anything to its stderr, which is left unread."""
    return bool(select.select([process.stderr], [], [], 0)[0])


def logged_step(folder: pathlib.Path) -> int:
    """The last step in metrics.jsonl, 0 if there is none; a process may be writing it."""
    path = folder / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    steps = re.findall(r'^{"step": (\d+),.*}$', text, re.MULTILINE)
    return int(steps[-1]) if steps else 0
