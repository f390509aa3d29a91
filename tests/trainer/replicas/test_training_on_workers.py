"""Two worker processes train the very weights that one process trains: all bits, every row."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from helpers import REPOSITORY
from test_evaluation_on_workers import free_ports

STEPS, SECONDS = 30, 240
PROGRAM = """
import json, os, sys
from input_pipeline.bad_records import Faults
from launch.process import cli
from launch.flags.command import read_command
from launch.training.streams import training_data
from launch.training.job import plan_command
out, steps, *flags = sys.argv[1:]
command = read_command(
    ["--device=cpu", "--micro_batch=8", "--clip_norm=0.5", "--dropout=0.2", "--ema=0.9",
     "--augment=shift(1)|flip", "--weight_decay=0.01", "--learning_rate=0.1", *flags]
)
config = os.environ.pop("TF_CONFIG", None)  # commands refuse several workers
plan, devices, sources = plan_command(command)
if config:
    os.environ["TF_CONFIG"] = config
cli.import_tensorflow(0)
import numpy as np
import tensorflow as tf
from trainer.replicas.strategy import make_strategy
from trainer.run import build_run_on
strategy = tf.distribute.MultiWorkerMirroredStrategy() if config else make_strategy(devices)
run = build_run_on(strategy, command.settings, plan)
source = sources["train"]
stream = iter(run.stream(training_data(command, plan, source, 0, Faults(source))))
found = {f"rows/{name}": column for name, column in run.train_loop(stream, int(steps)).items()}
for group, members in run.variables().items():
    found |= {f"{group}/{name}": variable.numpy() for name, variable in members.items()}
np.savez(out, replicas=strategy.num_replicas_in_sync, **found)
os._exit(0)  # a worker that ends cleanly waits for its peers
"""


def start(
    out: pathlib.Path, flags: tuple[str, ...], config: dict[str, object] | None = None
) -> subprocess.Popen:
    """Starts the program, as a worker of this cluster if there is one."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": "-1"}
    environment |= {"TF_CONFIG": json.dumps(config)} if config else {}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(out), str(STEPS), *flags],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module", params=["--model=cnn", "--model=mlp --precision=float16"])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, np.ndarray]]:
    """What one process came to, then what each of two workers did."""
    folder, flags = tmp_path_factory.mktemp("workers"), request.param.split()
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    configs = [{"cluster": cluster, "task": {"type": "worker", "index": n}} for n in range(2)]
    outs = [folder / f"{name}.npz" for name in ("alone", "first", "second")]
    processes = [
        start(outs[0], (*flags, "--replicas=1")),
        *(start(o, (*flags, "--replicas=2"), c) for o, c in zip(outs[1:], configs, strict=True)),
    ]
    try:
        for process in processes:
            _, err = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, err
    finally:
        # A worker without its peer would wait for it without end.
        for process in processes:
            process.kill()
            process.wait()
    return [dict(np.load(out)) for out in outs]


def test_two_workers_train_the_weights_and_rows_of_one_process(
    trained: list[dict[str, np.ndarray]],
) -> None:
    alone, *workers = trained
    assert alone.pop("replicas") == 1
    for worker in workers:
        assert worker.pop("replicas") == 2
        assert set(worker) == set(alone)
        assert [
            name
            for name, value in alone.items()
            if name != "rows/input_wait" and value.tobytes() != worker[name].tobytes()
        ] == []
    assert np.ptp(alone["rows/train/loss"]) > 0.1  # it has trained
