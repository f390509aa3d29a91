"""The time that a step waits for its data, measured inside the device loop."""

import dataclasses
import json

import pytest
from helpers import run_program

from launch.flags.command import read_command
from launch.terminal.summary import summary_text
from launch.terminal.time_text import input_verdict
from launch.training.job import plan_command
from trainer.plan.headline import Headline
from trainer.run_folder.history import History

# Two replicas, blocks of ten steps; a micro-batch takes SECONDS longer than it should.
PROGRAM = """
import json, sys, time
import numpy as np
from input_pipeline.bad_records import Faults
from launch.process import cli
from launch.flags.command import read_command
from launch.training.streams import training_data
from launch.training.job import plan_command
command = read_command(["--device=cpu", "--replicas=2", "--model=mlp"])
plan, devices, sources = plan_command(command)
cli.import_tensorflow(0)
import tensorflow as tf
from trainer.run import build_run

def slowly(number):
    time.sleep(SECONDS)
    return number

def delayed(pipeline, pipelines):
    faults = Faults(sources["train"])
    data = training_data(command, plan, sources["train"], 0, faults)(pipeline, pipelines)
    def wait(batch):
        position = tf.numpy_function(slowly, [batch["position"]], tf.int64)
        return batch | {"position": tf.ensure_shape(position, batch["position"].shape)}
    return data.map(wait)

run = build_run(command.settings, plan, devices)
stream = iter(run.stream(delayed))
run.train_loop(stream, 10)
for _ in range(BLOCKS):
    begin = time.perf_counter()
    waits = run.train_loop(stream, 10)["input_wait"]
    seconds = time.perf_counter() - begin
    print(json.dumps({"steps": len(waits), "waits": float(waits.sum()), "seconds": seconds}))
"""


def measure(seconds: float, blocks: int) -> list[dict[str, float]]:
    """What each block of ten steps says it waited, and how long it took."""
    program = PROGRAM.replace("SECONDS", str(seconds)).replace("BLOCKS", str(blocks))
    return [json.loads(line) for line in run_program(program)]


def test_a_block_waits_as_long_as_its_data_takes_less_what_training_hides() -> None:
    blocks = measure(0.1, blocks=4)
    for block in blocks:
        assert block["steps"] == 10
        assert 0 <= block["waits"] <= block["seconds"]
    # Twenty micro-batches, two seconds; two at most were there before, and training hides little,
    # unless the machine pauses: in one of the blocks it will not have.
    most = max(blocks, key=lambda block: block["waits"] / block["seconds"])
    assert most["waits"] > 1.2 and most["waits"] > 0.5 * most["seconds"], blocks


# A network that has much to compute on micro-batches that are there.
IN_MEMORY = """
import json
from launch.process import cli
cli.import_tensorflow(0)
from tests.benchmarks.arms import build_lockstep
from tests.benchmarks.cells import parse_cell
import time
_, run, block = build_lockstep(parse_cell("cnn:REPLICAS:20"), ["--micro_batch=8"])
block(20)
for _ in range(4):
    begin = time.perf_counter()
    waits = block(20)["input_wait"]
    print(json.dumps(float(waits.sum()) / (time.perf_counter() - begin)))
"""


@pytest.mark.parametrize("replicas", [1, 2])
def test_computing_is_no_waiting(replicas: int) -> None:
    # Each pass could begin as soon as its own micro-batch is there, before the others are.
    shares = run_program(IN_MEMORY.replace("REPLICAS", str(replicas)))
    # The machine may pause in some.
    assert min(map(json.loads, shares)) < 0.1, shares


@pytest.mark.parametrize(
    ("device", "wait", "cores", "expected"),
    [
        ("GPU", 0.38, 4, "38% of the steps' time was spent waiting for data; 3 more cores"),
        ("GPU", 0.1, 8, "10% of the steps' time was spent waiting for data; 1 more core "),
        ("CPU", 0.38, 2, "38% of the steps' time was spent waiting for data; the same 2"),
    ],
)
def test_the_verdict_says_how_many_cores_more(
    device: str, wait: float, cores: int, expected: str
) -> None:
    assert input_verdict(device, wait, cores).startswith(f"input-bound: {expected}")


@pytest.mark.parametrize(
    ("device", "wait", "said"),
    [
        ("GPU", 0.049, False),
        ("GPU", 0.051, True),
        # The first run of all, of 16 % on a busy machine, is a healthy one.
        ("CPU", 0.16, False),
        ("CPU", 0.49, False),
        ("CPU", 0.51, True),
    ],
)
def test_the_summary_says_it_from_five_percent_on_and_on_a_cpu_from_half(
    device: str, wait: float, said: bool
) -> None:
    plan, _, _ = plan_command(read_command(["--device=cpu"]))
    plan = dataclasses.replace(plan, device=device)
    spent = {"waiting for data": 1000 * wait, "compute": 1000 * (1 - wait)}
    text = summary_text(
        plan,
        10,
        History(),
        "run",
        noise_scale=None,
        spent=spent,
        verdict=[],
        bad_records=0,
        headline=Headline(),
    )
    assert (f"Input-bound: {wait:.0%} of the steps' time" in text) == said
