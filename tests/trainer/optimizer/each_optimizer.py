"""Six steps with each of many flags in one process: each_optimizer.py REPLICAS CASES.json OUT.npz

Of every case OUT.npz holds all variables: before, after one step, after three, after six, and after
six with a restoration of the checkpoint of step three, made in the same objects, so that whatever
the checkpoint does not hold is as step six left it.
"""

import json
import pathlib
import shlex
import sys
import tempfile

import numpy as np

from launch.flags.command import read_command
from launch.process import cli
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import choose_devices
from trainer.plan.plan import make_plan

BATCH, STEPS = 32, 6
COMMON = f"--device=cpu --model=mlp --global_batch={BATCH} --train_for={STEPS}st --lr_scaling=none"


def main() -> None:
    """Runs the cases, a JSON object of flags by name."""
    replicas, cases, out = sys.argv[1:]
    cli.import_tensorflow(0)
    states = {}
    for name, text in json.loads(pathlib.Path(cases).read_text(encoding="utf-8")).items():
        for moment, variables in states_of(f"{COMMON} --replicas={replicas} {text}").items():
            states |= {f"{name}|{moment}|{key}": value for key, value in variables.items()}
    np.savez(out, **states)


def states_of(text: str) -> dict[str, dict[str, np.ndarray]]:
    """All variables of a case, at each of its moments."""
    import tensorflow as tf

    from trainer.checkpoint.checkpoints import Checkpoints
    from trainer.run import build_run

    settings = read_command(shlex.split(text)).settings
    facts = DatasetFacts("random", BATCH * STEPS, BATCH, 10, (8, 8, 1))
    devices = choose_devices(settings.devices, gpus=0, cores=8)
    plan = make_plan(settings, facts, devices)
    run = build_run(settings, plan, devices)

    # One iterator, since each costs 0.3 s: the batches of the last three steps come twice.
    dataset = tf.data.Dataset.from_tensor_slices(random_examples([0, 1, 2, 3, 4, 5, 3, 4, 5]))
    stream = run.stream(lambda pipeline, pipelines: dataset.batch(plan.micro_batch))
    iterator = iter(stream)

    def train(steps: int) -> None:
        rows = run.train_loop(iterator, steps)
        assert np.all(rows["finite"] == 1)

    def state() -> dict[str, np.ndarray]:
        values = {}
        for group, members in run.variables().items():
            for name, variable in members.items():
                copies = [c.numpy() for c in run.strategy.experimental_local_results(variable)]
                assert all(np.array_equal(copies[0], copy) for copy in copies), name
                values[f"{group}/{name}"] = copies[0]
        del values["learning_rate/gradient_noise"]  # compares micro-batches
        return values

    states = {"before": state()}
    train(1)
    states["one"] = state()
    train(2)
    states["three"] = state()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(pathlib.Path(folder), run.variables())
        checkpoints.save(3, {})
        train(3)
        states["six"] = state()
        checkpoints.restore(3)
    states["restored"] = state()
    train(3)
    states["again"] = state()
    return states


def random_examples(steps: list[int]) -> dict[str, np.ndarray]:
    """The examples of these steps; of any step all are different."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (STEPS, BATCH, 8, 8, 1), np.uint8)
    labels = random.integers(0, 10, (STEPS, BATCH))
    return {
        "image": images[steps].reshape(-1, 8, 8, 1),
        "label": labels[steps].ravel(),
        "weight": np.ones(len(steps) * BATCH, np.float32),
    }


if __name__ == "__main__":
    cli.exit_with(lambda argv: main() or cli.FINISHED)
