"""Steps with something planted in the data or the weights, on two replicas; prints what they did.

    python tests/trainer/layers/planted_steps.py

Replica 1 has the second half of each global batch of 16. Everything is asked of one process: first
an overflow of float16 on replica 1 alone, then each place that can go bad first.
"""

import json
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from input_pipeline.bad_records import Faults
from launch.flags.command import read_command
from launch.process import cli
from launch.training.job import plan_command
from launch.training.streams import training_data

FLAGS = (
    "--device=cpu --replicas=2 --global_batch=16 --model=cnn --precision=float16 "
    "--locate_nonfinite --learning_rate=0.1 --weight_decay=0.01 --warmup=0 --decay=constant"
)
ADASCALE = (
    "--device=cpu --replicas=2 --global_batch=16 --model=mlp --precision=float16 --warmup=4st "
    "--lr_scaling=adascale --lr_reference_batch=4 --learning_rate=0.1 --train_for=40st"
)
OVERFLOW, NAN_WEIGHT = 3, 5  # steps, from 0, with a planted weight
PLANTED = {OVERFLOW * 16 + 10: 1e30, NAN_WEIGHT * 16 + 10: np.nan}

command = read_command(FLAGS.split())
plan, devices, sources = plan_command(command)
cli.import_tensorflow(0)

import tensorflow as tf  # noqa: E402

from trainer.checkpoint.checkpoints import Checkpoints  # noqa: E402
from trainer.run import build_run, build_run_on  # noqa: E402


def plant(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    weight = batch["weight"]
    for position, value in PLANTED.items():
        weight = tf.where(batch["position"] == position, value, weight)
    return batch | {"weight": weight}


run = build_run(command.settings, plan, devices)
local = run.strategy.experimental_local_results


def stream(first: int) -> Iterator[Any]:
    data = training_data(command, plan, sources["train"], first * 16, Faults(sources["train"]))
    make = lambda pipeline, pipelines: data(pipeline, pipelines).map(plant)  # noqa: E731
    return cli.keep(iter(run.stream(make)))


def state() -> dict[str, list[np.ndarray]]:
    """Every variable's copy on each replica; what decides about the step is there once."""
    return {
        f"{group}/{name}": [copy.numpy() for copy in local(variable)]
        for group, members in run.variables().items()
        for name, variable in members.items()
    }


def differing(a: dict[str, list[np.ndarray]], b: dict[str, list[np.ndarray]]) -> list[str]:
    return sorted(
        name
        for name in a
        if any(x.tobytes() != y.tobytes() for x, y in zip(a[name], b[name], strict=True))
    )


def train(iterator: Iterator[Any], steps: int) -> dict[str, list[float]]:
    rows = run.train_loop(iterator, steps)
    return {name: column.tolist() for name, column in rows.items()}


def broken(variable: str, change: Callable[[np.ndarray], Any]) -> str:
    """The place that is found when a variable of the model is changed for one step."""
    target = run.variables()["model"][variable]
    kept = target.numpy()
    target.assign(np.float32(change(kept)))
    rows = train(stream(20), 1)
    target.assign(kept)
    return run.places[int(rows["nonfinite_place"][0]) - 1]


data = stream(0)
before_all = state()
first = train(data, OVERFLOW)
before = state()
overflow = train(data, 1)
after = state()
checkpoints = Checkpoints(pathlib.Path(tempfile.mkdtemp()), run.variables())
checkpoints.save(OVERFLOW + 1, {})
later = train(data, 1)
undisturbed = state()
nan_weight = train(data, 1)
places = {
    "gradient": run.places[int(overflow["nonfinite_place"][0]) - 1],
    "input": run.places[int(nan_weight["nonfinite_place"][0]) - 1],
    "weight": broken("conv2/kernel", lambda kernel: kernel + np.nan),
    "output": broken("conv3/kernel", lambda kernel: kernel * 1e30),
    "loss": broken("logits/bias", lambda bias: np.where(np.arange(10) < 5, 3e38, -3e38)),
}
checkpoints.restore(OVERFLOW + 1)
restored = state()
again = train(stream(OVERFLOW + 1), 1)

# AdaScale, whose first steps overflow: the scale is 2 to the power of 7 higher than it begins.
scaling = read_command(ADASCALE.split())
facts = plan_command(scaling)[0]
adascale = build_run_on(run.strategy, scaling.settings, facts)
adascale.loss_scale.scale.assign(2.0**22)
make_data = training_data(scaling, facts, sources["train"], 0, Faults(sources["train"]))
gains = adascale.train_loop(cli.keep(iter(adascale.stream(make_data))), 12)

json.dump(
    {
        "adascale": {name: column.tolist() for name, column in gains.items()},
        "changed by three steps": differing(before_all, before),
        "changed by the overflow": differing(before, after),
        "copies that differ": [
            n for n, v in after.items() if len(v) > 1 and v[0].tobytes() != v[1].tobytes()
        ],
        "there once": sorted(n for n, v in after.items() if len(v) == 1),
        "first": first,
        "overflow": overflow,
        "scale": [float(s["loss_scale/scale"][1]) for s in (before, after, undisturbed)],
        "later": later,
        "changed by the restored checkpoint": differing(after, restored),
        "again": again,
        "changed by going on from it": differing(undisturbed, state()),
        "places": places,
        "dtypes": {layer.name: layer.compute_dtype for layer in run.model.layers},
        "variable dtypes": sorted({v.dtype for v in run.model.variables}),
    },
    sys.stdout,
)
sys.stdout.flush()
cli.exit_with(lambda argv: 0)
