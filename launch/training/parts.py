"""What the parts of a command take, each alone: network, sum and data of a step; data; a save.

    python -m launch.training.parts step|input|checkpoint SECONDS FLAGS…

The last line that it prints is one of the dataclasses here as JSON. It trains as launch.train does,
in a folder to be thrown away, and takes the parts apart behind that.
"""

import dataclasses
import functools
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from input_pipeline.bad_records import Faults
from launch.flags.command import Command, read_command
from launch.process import cli
from launch.training.gpus import sum_seconds
from launch.training.job import Job, plan_command
from launch.training.startup import Startup
from launch.training.streams import training_data
from launch.training.trial import Trial, Tried, run_alone, tried
from trainer.plan.plan import Plan

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.replicas.streams import MakeDataset

# Steps whose data lie in memory: so many that no cache of the processor holds what a step needs.
_IN_MEMORY = 4
_TURNS = 5  # of what is measured more than once
_BLOCK_SECONDS = 0.25  # between two looks at the clock
_MOST_STEPS = 10_000  # of one call
STEP, INPUT, CHECKPOINT = "step", "input", "checkpoint"


@dataclasses.dataclass(frozen=True)
class StepParts:
    """A step, and its parts each by itself; seconds.

    Attributes:
      trial: of the command as it stands.
      replicas, global_batch, micro_batch: of its plan.
      device: GPU or CPU.
      parameters: that train.
      gradient_dtype: what their gradients are summed in.
      step: as it trains.
      from_memory: the same with data that lie in memory.
      data: of a step, with nothing beside.
      all_reduce: the sum over the replicas, by itself; 0 of one replica.
    """

    trial: Trial
    replicas: int
    global_batch: int
    micro_batch: int
    device: str
    parameters: int
    gradient_dtype: str
    step: float
    from_memory: float
    data: float
    all_reduce: float

    @property
    def network(self) -> float:
        """What is neither sum nor data: forward, backward, the update."""
        return max(0.0, self.from_memory - self.all_reduce)

    @property
    def waiting(self) -> float:
        """What it takes longer than with data from memory."""
        return max(0.0, self.step - self.from_memory)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        waited = None if math.isnan(self.trial.waited) else self.trial.waited
        trial = {**dataclasses.asdict(self.trial), "waited": waited}
        parts = {"trial": trial, "network": self.network, "waiting": self.waiting}
        return dataclasses.asdict(self) | parts


@dataclasses.dataclass(frozen=True)
class InputParts:
    """The data by themselves.

    Attributes:
      examples: that were read in the time that was measured.
      seconds: that they took.
      cpu: seconds of processor time that they took.
      first: seconds until the first batch was there.
      bytes: of an example, as the model gets it.
    """

    examples: int
    seconds: float
    cpu: float
    first: float
    bytes: int


@dataclasses.dataclass(frozen=True)
class CheckpointParts:
    """A checkpoint; medians of some, in seconds.

    Attributes:
      step: of training, as it trains.
      bytes: of the files.
      pause: the training stands still.
      written: until it is on the disk, the pause with it.
      restored: to verify it and set all variables.
    """

    step: float
    bytes: int
    pause: float
    written: float
    restored: float


def run_step(argv: Sequence[str], seconds: float) -> StepParts:
    """The parts of a step, in a process of its own; see `launch.training.trial.run_alone`."""
    found = json.loads(_alone(STEP, argv, seconds))
    return StepParts(**{**found, "trial": Trial(**found["trial"])})


def run_input(argv: Sequence[str], seconds: float) -> InputParts:
    """The data, likewise."""
    return InputParts(**json.loads(_alone(INPUT, argv, seconds)))


def run_checkpoint(argv: Sequence[str], seconds: float) -> CheckpointParts:
    """A checkpoint, likewise."""
    return CheckpointParts(**json.loads(_alone(CHECKPOINT, argv, seconds)))


def _alone(what: str, argv: Sequence[str], seconds: float) -> str:
    return run_alone("launch.training.parts", what, str(seconds), *argv)


def step_parts(command: Command, startup: Startup, seconds: float) -> StepParts:
    """Trains the command, then takes its step apart.

    Raises:
      WrongCommandError: the command is wrong.
      FailedError: a device has no memory for it, or no step was timed.
    """
    with tried(command, startup, seconds) as done, done.session.faults["train"].raised():
        from trainer.models.sizes import trainable_parameters

        plan, run, step = done.job.plan, done.session.run, _step_seconds(done)
        parameters = trainable_parameters(run.model)
        alone = time_data(_data(done.job, done.session.faults["train"]), plan, seconds)
        return StepParts(
            trial=done.trial,
            replicas=plan.replicas,
            global_batch=plan.global_batch,
            micro_batch=plan.micro_batch,
            device=plan.device,
            parameters=parameters,
            gradient_dtype=run.train_loop.step.exchange.asked.gradient_dtype,
            step=step,
            from_memory=from_memory(done, step, seconds),
            data=plan.global_batch * alone.seconds / alone.examples,
            all_reduce=sum_seconds(run, plan.device, parameters) if plan.replicas > 1 else 0.0,
        )


def _step_seconds(done: Tried) -> float:
    if not done.trial.steps:
        raise cli.FailedError("no step was timed; give a longer --train_for.")
    return done.trial.seconds / done.trial.steps


def from_memory(done: Tried, step: float, seconds: float) -> float:
    """Seconds of a step whose data lie in memory.

    Args:
      step: as it trains, about.
      seconds: to measure for.
    """
    run, plan = done.session.run, done.job.plan
    data = _data(done.job, done.session.faults["train"])

    def kept(pipeline: int, pipelines: int) -> "tf.data.Dataset":
        count = _IN_MEMORY * plan.accumulate * plan.replicas // pipelines
        return data(pipeline, pipelines).take(count).cache().repeat().prefetch(1)

    stream = cli.keep(iter(run.stream(kept)))
    run.trace(stream)
    block = max(1, min(_MOST_STEPS, round(_BLOCK_SECONDS / step)))

    def train(steps: int) -> None:
        done_steps = 0
        while done_steps < steps:  # one that was asked to stop does a step at a time
            run.most_steps.assign(run.most_steps.dtype.max)
            done_steps += len(run.train_loop(stream, steps - done_steps)["input_wait"])

    train(max(block, _IN_MEMORY))  # by then they are in memory
    return _repeated(functools.partial(train, block), seconds) / block


def _data(job: Job, faults: Faults) -> "MakeDataset":
    """The data of the job's training from its first position on."""
    position = job.plan.position(0)
    return training_data(job.command, job.plan, job.sources["train"], position, faults)


def time_data(data: "MakeDataset", plan: Plan, seconds: float) -> InputParts:
    """Reads the data for so long and does nothing with them."""
    import tensorflow as tf

    elements = plan.accumulate * plan.replicas  # of a step: each is a micro-batch
    began = time.perf_counter()
    iterator = cli.keep(iter(data(0, 1)))
    one = tf.nest.flatten(next(iterator))
    first = time.perf_counter() - began

    @functools.partial(tf.function, autograph=False)
    def read(count: tf.Tensor) -> tf.Tensor:
        def body(done: tf.Tensor) -> tuple[tf.Tensor]:
            with tf.control_dependencies(tf.nest.flatten(iterator.get_next())):
                return (done + 1,)

        return tf.while_loop(lambda done: done < count, body, (tf.constant(0),))[0]

    def read_steps(steps: int) -> None:
        read(tf.constant(elements * steps)).numpy()

    read_steps(1)
    about = _repeated(functools.partial(read_steps, 1), 0.0)
    block = max(1, min(_MOST_STEPS, round(_BLOCK_SECONDS / about)))
    read_steps(block)  # what was read ahead comes at once
    cpu, begin, steps = _cpu_seconds(), time.perf_counter(), 0
    while time.perf_counter() - begin < seconds or steps < _TURNS * block:
        read_steps(block)
        steps += block
    return InputParts(
        examples=steps * plan.global_batch,
        seconds=time.perf_counter() - begin,
        cpu=_cpu_seconds() - cpu,
        first=first,
        bytes=sum(tensor.numpy().nbytes for tensor in one) // plan.micro_batch,
    )


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _repeated(call: Callable[[], object], seconds: float) -> float:
    """Calls for so long, and some times at least; the seconds of a call, the median."""
    taken: list[float] = []
    while sum(taken) < seconds or len(taken) < _TURNS:
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def input_parts(command: Command, seconds: float) -> InputParts:
    """Reads the command's data, and does nothing else.

    Raises:
      WrongCommandError: the command is wrong.
    """
    with cli.wrong_command():
        plan, _, sources = plan_command(command)
    cli.import_tensorflow(0)
    source = sources["train"]
    faults = Faults(source, command.data.max_bad_records)
    with cli.wrong_command(), faults.raised():
        data = training_data(command, plan, source, plan.position(0), faults)
        return time_data(data, plan, seconds)


def checkpoint_parts(command: Command, startup: Startup, seconds: float) -> CheckpointParts:
    """Trains the command for a while, then saves and restores it some times.

    Raises:
      WrongCommandError: the command is wrong.
      FailedError: a device has no memory for it, or no step was timed.
    """
    with tried(command, startup, seconds) as done:
        saves, last = done.host.save.checkpoints, max(done.host.save.checkpoints.steps())
        taken = []
        for step in range(last + 1, last + 1 + _TURNS):
            begin = time.perf_counter()
            saves.save(step, {})
            paused = time.perf_counter()
            saves.wait()
            written = time.perf_counter()
            saves.restore(step)
            taken.append((paused - begin, written - begin, time.perf_counter() - written))
        pause, written, restored = map(statistics.median, zip(*taken, strict=True))
        files = (saves.folder / f"step-{step}").rglob("*")
        return CheckpointParts(
            step=_step_seconds(done),
            bytes=sum(path.stat().st_size for path in files if path.is_file()),
            pause=pause,
            written=written,
            restored=restored,
        )


def main(argv: Sequence[str]) -> int:
    """Prints the parts of a command, which may be one of launch.benchmark."""
    startup = Startup()
    what, seconds = argv[0], float(argv[1])
    with cli.wrong_command():
        command = read_command(argv[2:])
    if what == INPUT:
        parts = input_parts(command, seconds)
    else:
        take_apart = {STEP: step_parts, CHECKPOINT: checkpoint_parts}[what]
        parts = take_apart(command, startup, seconds)
    print(json.dumps(dataclasses.asdict(parts)))
    return cli.FINISHED


if __name__ == "__main__":
    cli.exit_with(main, trains=True)
