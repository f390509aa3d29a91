"""Audits every step of a sound training in which everything is on, and trains it without audits.

    python -m tests.trainer.audit_sound STEPS [--flag=value …]

The flags are those of launch.train. Prints as JSON how many steps were audited, the one with a
fault, the steps whose gradient was not finite, what is different after 40 steps without audits, and
the mean loss of each quarter.
"""

import json
import sys
from typing import Any

import numpy as np

from launch.flags.command import Command, read_command
from launch.process import cli
from tests import train_in_memory as memory
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.plan import make_plan

COMPARED = 40  # steps
examples = memory.examples()


def train(steps: int, command: Command) -> tuple[Any, dict[str, np.ndarray], dict[str, bytes]]:
    """The audit, the rows of the steps, and the bytes of all variables by name after `COMPARED`."""
    import keras
    import tensorflow as tf

    from trainer.run import build_run

    facts = DatasetFacts("memory", memory.EXAMPLES, 1, memory.CLASSES, memory.SHAPE)
    devices = Devices("CPU", command.settings.devices.replicas or 1, "the test")
    plan = make_plan(command.settings, facts, devices)
    keras.utils.clear_session()  # or the next one's optimizer is called sgd_1
    run = build_run(command.settings, plan, devices, memory.make_model)
    if run.loss_scale:
        run.loss_scale.scale.assign(2.0**36)  # so that it overflows
    arrays = {n: np.resize(a, [steps * memory.BATCH, *a.shape[1:]]) for n, a in examples.items()}
    arrays["position"] = np.arange(steps * memory.BATCH)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    data = tf.data.Dataset.from_tensor_slices(arrays).batch(plan.micro_batch, drop_remainder=True)
    stream = cli.keep(iter(run.stream(lambda *_: data.with_options(options))))
    rows = run.train_loop(stream, COMPARED)
    groups = run.variables().items()
    found = {
        f"{group}/{n}": v.numpy().tobytes() for group, named in groups for n, v in named.items()
    }
    if steps > COMPARED:
        more = run.train_loop(stream, steps - COMPARED)
        rows = {name: np.concatenate([rows[name], more[name]]) for name in rows}
    return run.audit, rows, found


def main(argv: list[str]) -> int:
    """See above."""
    steps, flags = int(argv[0]), [*argv[1:], f"--global_batch={memory.BATCH}", "--device=cpu"]
    cli.import_tensorflow(0)
    flags.append(f"--train_for={steps}st")
    audit, rows, audited = train(steps, read_command([*flags, "--audit_every=1st"]))
    _, _, unaudited = train(COMPARED, read_command(flags))
    found = {
        "steps": int(audit.steps.numpy()),
        "fault": int(audit.fault.numpy()),
        "not finite": int(np.sum(rows["finite"] == 0)),
        "different": [n for n, value in audited.items() if value != unaudited[n]],
        "losses": np.nanmean(rows["train/loss"].reshape(4, -1), axis=1).tolist(),
    }
    print(json.dumps(found))
    return cli.FINISHED


if __name__ == "__main__":
    cli.exit_with(lambda _: main(sys.argv[1:]))
