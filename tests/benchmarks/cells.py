"""What `step` and its like measure: a network, a number of CPU replicas, a device loop, its data.

A cell is written `tiny:2:100`, or `tiny:2` for the network's usual device loop.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from launch.flags.command import read_command
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.plan import Plan, make_plan
from trainer.plan.settings import Settings

if TYPE_CHECKING:
    import tensorflow as tf

DISTINCT_BATCHES = 4  # global batches that the data consists of, over and over


@dataclasses.dataclass(frozen=True)
class Network:
    """A network, what it is trained on, and how long its device loop is."""

    model: str
    image_shape: tuple[int, int, int] | tuple[int]  # of text, the tokens of a row
    global_batch: int
    steps: int  # of a device loop if the cell does not say; for fit, of an epoch
    checked: int = 20  # steps after which all arms must have come to the same
    # Whether all micro-batches of a batch are one: then a BatchNormalization sees the same in each
    # as in the whole batch, which it has where there is one device.
    alike: bool = False
    tokens: int = 256  # of text, how many there are


NETWORKS = {
    "tiny": Network("mlp", (4, 4, 1), 64, 100),
    "cnn": Network("cnn", (8, 8, 1), 64, 10),
    # Its ReLUs and a BatchNormalization of 16 images amplify rounding: on 4 replicas a relative
    # 1e-7 in the weights moves the bare loop's own loss by 2e-4 after 3 steps, by 1e-2 after 6.
    "resnet20": Network("resnet20", (32, 32, 3), 16, 3, checked=2),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """What is measured: a network on so many replicas, in device loops of so many steps."""

    name: str
    network: Network
    replicas: int
    loop: int
    device: str = "cpu"


def parse_cell(text: str) -> Cell:
    """Reads `tiny:2:100`, or `tiny:2` for the network's usual device loop."""
    network, *numbers = text.split(":")
    good = network in NETWORKS and len(numbers) in (1, 2) and all(map(str.isdecimal, numbers))
    if not good or "0" in numbers:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not one of {', '.join(NETWORKS)} with a number of replicas and, if "
            "wanted, of steps in a device loop, such as tiny:2 or tiny:2:100"
        )
    replicas, loop = (*map(int, numbers), NETWORKS[network].steps)[:2]
    return Cell(text, NETWORKS[network], replicas, loop)


def plan_cell(cell: Cell, extra: Sequence[str] = ()) -> tuple[Settings, Plan, Devices]:
    """What `launch.train` makes of these flags, for data that is in memory."""
    command = read_command(
        [
            f"--model={cell.network.model}",
            f"--replicas={cell.replicas}",
            f"--global_batch={cell.network.global_batch}",
            f"--device={cell.device}",
            "--train_for=10000000st",
            "--xla=off",  # as the peers; an option of its own
            "--learning_rate=0.02",
            "--lr_scaling=none",
            "--warmup=10st",
            "--weight_decay=0.001",
            # The peers' local moving statistics are those of a replica, and no work to compare.
            "--batch_norm=synchronized",
            *extra,
        ]
    )
    shape = cell.network.image_shape
    classes, targets = (10, "class") if len(shape) == 3 else (cell.network.tokens, "tokens")
    facts = DatasetFacts("memory", 50_000, 10_000, classes, shape, targets=targets)
    gpus = tuple(range(cell.replicas)) if cell.device == "gpu" else ()
    devices = Devices(cell.device.upper(), cell.replicas, "the benchmark", gpus=gpus)
    return command.settings, make_plan(command.settings, facts, devices), devices


def make_data(plan: Plan, alike: bool = False) -> dict[str, np.ndarray]:
    """Micro-batches, an array [number, micro, …] for each name; any replicas get the same.

    Args:
      alike: see `Network`.
    """
    random, shape = np.random.default_rng(0), plan.dataset.image_shape
    examples, classes = DISTINCT_BATCHES * plan.global_batch, plan.dataset.num_classes
    arrays = {"weight": np.ones(examples, "float32")}
    if plan.dataset.targets == "tokens":
        arrays["tokens"] = random.integers(0, classes, (examples, *shape), "int32")
    else:
        arrays["image"] = random.integers(0, 256, (examples, *shape), "uint8")
        arrays["label"] = random.integers(0, classes, examples)
    micro = {n: a.reshape(-1, plan.micro_batch, *a.shape[1:]) for n, a in arrays.items()}
    first = np.arange(len(micro["weight"]))
    first -= first % plan.micro_batches if alike else 0
    return {name: array[first] for name, array in micro.items()}


def pairs(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What `fit` and the bare loop are fed; Lockstep carries the weights of examples besides."""
    if "tokens" in arrays:
        return arrays["tokens"][..., :-1], arrays["tokens"][..., 1:]
    return arrays["image"], arrays["label"]


def endless(arrays: Any, plan: Plan) -> "tf.data.Dataset":
    """The micro-batches over and over out of memory: the step is to be measured, not its input."""
    import tensorflow as tf

    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    data = tf.data.Dataset.from_tensor_slices(arrays).repeat()
    return data.prefetch(2 * plan.replicas).with_options(options)
