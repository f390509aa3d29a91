"""An evaluation that two worker processes share counts what a single process counts."""

import json
import os
import socket
import subprocess
import sys

import pytest
from helpers import REPOSITORY

EXAMPLES, SECONDS = 360, 240
# The run's own plan, data, model and evaluation; then which records had a weight, in a second pass.
PROGRAM = """
import json, os, sys
from input_pipeline.bad_records import Faults
from launch.process import cli
from launch.flags.command import read_command
from launch.training.streams import evaluation_data
from launch.training.job import plan_command
replicas, global_batch = sys.argv[1:]
command = read_command(
    ["--device=cpu", "--model=mlp", f"--replicas={replicas}", f"--global_batch={global_batch}"]
)
config = os.environ.pop("TF_CONFIG", None)  # commands refuse several workers
plan, devices, sources = plan_command(command)
if config:
    os.environ["TF_CONFIG"] = config
cli.import_tensorflow(0)
import tensorflow as tf
from trainer.replicas.strategy import make_strategy
from trainer.run import build_run_on
strategy = tf.distribute.MultiWorkerMirroredStrategy() if config else make_strategy(devices)
run = build_run_on(strategy, command.settings, plan)
source = sources["eval"]
stream = run.stream(evaluation_data(command, plan, source, Faults(source)))
batches = -(-source.length // plan.eval_batch)
((loss, correct, weight),) = run.evaluate(iter(stream), tf.constant(batches)).numpy().tolist()
records = []
iterator = iter(stream)
for _ in range(batches):
    batch = next(iterator)
    columns = (strategy.experimental_local_results(batch[name]) for name in ("record", "weight"))
    for record, weights in zip(*columns):
        records += record[weights > 0].numpy().tolist()
print(json.dumps({"replicas": strategy.num_replicas_in_sync, "loss": loss, "correct": correct,
                  "weight": weight, "records": records}), flush=True)
os._exit(0)  # a worker that ends cleanly waits for its peers
"""


def start(replicas: int, global_batch: int, config: dict[str, object] | None) -> subprocess.Popen:
    """Starts the program, as a worker of this cluster if there is one."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": "-1"}
    environment |= {"TF_CONFIG": json.dumps(config)} if config else {}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(replicas), str(global_batch)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="module")
def evaluations() -> list[dict[str, object]]:
    """What a single process found, then what each of two workers did."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    configs = [{"cluster": cluster, "task": {"type": "worker", "index": n}} for n in range(2)]
    # Of the last batch of 350, all ten examples are the first worker's: the second has padding.
    processes = [start(2, 350, config) for config in configs] + [start(1, 100, None)]
    found = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, err
            found.append(json.loads(out))
    finally:
        # A worker without its peer would wait for it without end.
        for process in processes:
            process.kill()
            process.wait()
    return [found[2], *found[:2]]


def test_two_workers_count_what_one_process_counts(evaluations: list[dict[str, object]]) -> None:
    one, *workers = evaluations
    assert one["replicas"] == 1 and one["weight"] == EXAMPLES
    assert 0 < one["correct"] < EXAMPLES
    for worker in workers:
        assert (worker["replicas"], worker["weight"]) == (2, EXAMPLES)
        assert worker["correct"] == one["correct"]
        assert worker["loss"] == pytest.approx(one["loss"], rel=1e-6)  # summed in another order
    assert workers[0]["loss"] == workers[1]["loss"]


def test_each_example_is_evaluated_by_one_of_them(evaluations: list[dict[str, object]]) -> None:
    _, first, second = (evaluation["records"] for evaluation in evaluations)
    assert first == [*range(175), *range(350, 360)]
    assert second == list(range(175, 350))
