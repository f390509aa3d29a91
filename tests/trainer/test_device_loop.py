"""Blocks of any length see the same data, and so does what comes after one that was left."""

import json

from helpers import run_program

# Two replicas, two micro-batches each; prints the losses of twelve steps in one block and in five,
# the fourth of which may do three updates only, then of a block that is left in its first step.
PROGRAM = """
import json
from input_pipeline.bad_records import Faults
from launch.process import cli
from launch.flags.command import read_command
from launch.training.streams import training_data
from launch.training.job import plan_command
command = read_command(
    ["--device=cpu", "--replicas=2", "--micro_batch=16", "--model=mlp", "--learning_rate=0.0"]
)
plan, devices, sources = plan_command(command)
cli.import_tensorflow(0)
import tensorflow as tf
from trainer.run import build_run

run = build_run(command.settings, plan, devices)

def stream():
    data = training_data(command, plan, sources["train"], 0, Faults(sources["train"]))
    return iter(run.stream(data))

def losses(iterator, steps):
    return run.train_loop(iterator, steps)["train/loss"].tolist()

print(json.dumps(losses(stream(), 12)))
blocks = stream()
before = losses(blocks, 1) + losses(blocks, 4) + losses(blocks, 2)
run.learning_rate.steering[1].assign(run.learning_rate.progress + 2.5)
short = losses(blocks, 5)
run.learning_rate.steering[1].assign(1e18)
print(json.dumps([before, short, losses(blocks, 2)]))
run.most_steps.assign(1)
left = losses(blocks, 5)
run.most_steps.assign(10)
print(json.dumps([left, losses(blocks, 2), losses(stream(), 10), losses(stream(), 5)]))
"""


# On one replica; prints the losses of a block and, of one whose eighth step has data that cannot be
# read, what is there after the error.
FAILS = """
import json
from input_pipeline.bad_records import Faults
from launch.process import cli
from launch.flags.command import read_command
from launch.training.streams import training_data
from launch.training.job import plan_command
command = read_command(["--device=cpu", "--model=mlp", "--learning_rate=0.0"])
plan, devices, sources = plan_command(command)
cli.import_tensorflow(0)
from trainer.run import build_run

class Fails:
    def __init__(self, record):
        self.record = record
    def __getattr__(self, name):
        return getattr(sources["train"], name)
    def read(self, records):
        if self.record in records:
            raise OSError("the disk has gone")
        return sources["train"].read(records)

def stream(source):
    return iter(run.stream(training_data(command, plan, source, 0, Faults(source))))

run = build_run(command.settings, plan, devices)
records = stream(sources["train"])
record = [next(records)["record"].numpy() for _ in range(8)][7][0]
loop = run.train_loop
print(json.dumps(loop(stream(sources["train"]), 8)["train/loss"].tolist()))
bad = stream(Fails(record))
print(json.dumps(loop(bad, 3)["train/loss"].tolist()))
try:
    loop(bad, 8)
except Exception as error:
    print(json.dumps("the disk has gone" in str(error)))
print(json.dumps(loop.before_error["train/loss"].tolist()))
try:
    loop(bad, 1)
except RuntimeError:
    print(json.dumps(loop.before_error))
bad = stream(Fails(record))
loop(bad, 7)
try:
    loop(bad, 2)
except Exception:
    print(json.dumps(loop.before_error["train/loss"].tolist()))
"""


def test_what_was_done_before_an_error_in_the_data_is_still_there() -> None:
    undisturbed, first, raised, before_error, again, at_once = map(json.loads, run_program(FAILS))
    assert first == undisturbed[:3] and raised and again == {} and at_once == []
    assert before_error == undisturbed[3:7]  # up to the step whose data cannot be read


def test_blocks_go_through_the_data_in_turn_and_one_that_was_left_loses_nothing() -> None:
    at_once, in_blocks, (left, after_it, ten, five) = map(json.loads, run_program(PROGRAM))
    assert len(set(at_once)) == 12  # the weights stay: what differs is the data
    before, short, after = in_blocks
    assert len(short) == 3
    assert before + short + after == at_once
    assert len(left) == 1 and len(after_it) == 2
    assert len({*at_once, *left, *after_it}) == 15  # each step has data of its own
    assert ten == at_once[:10] and five == at_once[:5]
