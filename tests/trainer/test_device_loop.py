"""Blocks of any length see the same data, and one that is left is the last of its stream."""

import json

from helpers import run_program

# Two replicas, two micro-batches each; prints the losses of seven steps in one block and in three,
# then of a block that is left in its first step.
PROGRAM = """
import json
from input_pipeline.faults import Faults
from launch import cli, flags
from launch.data import training_data
from launch.job import plan_command
command = flags.read_command(
    ["--device=cpu", "--replicas=2", "--accumulate=2", "--model=mlp", "--learning_rate=0.0"]
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

print(json.dumps(losses(stream(), 7)))
blocks = stream()
print(json.dumps(losses(blocks, 1) + losses(blocks, 4) + losses(blocks, 2)))
run.most_steps.assign(1)
print(json.dumps(losses(blocks, 5)))
try:
    losses(blocks, 1)
except RuntimeError as error:
    print(json.dumps(str(error)))
"""


def test_blocks_go_through_the_data_in_turn_until_one_is_left() -> None:
    at_once, in_blocks, left, error = map(json.loads, run_program(PROGRAM))
    assert len(set(at_once)) == 7  # the weights stay: what differs is the data
    assert in_blocks == at_once
    assert len(left) == 1 and left[0] not in at_once
    assert "new stream" in error
