"""Which GPUs TensorFlow sees, and how much of them: a faked list, since there are none here."""

import json
from typing import Any

import pytest
from helpers import run_program

PROGRAM = """
import json
from launch.process import cli
cli.import_tensorflow(0)
import tensorflow as tf
from trainer.plan.devices import Devices
from trainer.replicas import strategy

told = []
gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{n}", "GPU") for n in range(4)]
real = tf.config.list_physical_devices
tf.config.list_physical_devices = lambda kind=None: gpus if kind == "GPU" else real(kind)
def see(those, kind):
    told.append([kind, *(g.name[-1] for g in those)])
tf.config.set_visible_devices = see
tf.config.experimental.set_memory_growth = lambda gpu, on: told.append(["grow", gpu.name[-1]])
limits = tf.config.set_logical_device_configuration
def limit(device, those):
    if device in gpus:
        told.append(["limit", device.name[-1], *(c.memory_limit for c in those)])
    else:
        limits(device, those)
tf.config.set_logical_device_configuration = limit
tf.distribute.MirroredStrategy = lambda names, *_: told.append(names)
if ARGUMENTS:
    strategy.make_strategy(Devices(*ARGUMENTS))
else:
    cli.import_tensorflow(0)
print(json.dumps(told))
"""


def told(*devices: Any) -> list[list[Any]]:
    """What TensorFlow is told."""
    return json.loads(run_program(PROGRAM.replace("ARGUMENTS", repr(devices)))[-1])


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (
            ("GPU", 2, "", 0, (3, 1)),
            [["GPU", "3", "1"], ["grow", "3"], ["grow", "1"], ["GPU:0", "GPU:1"]],
        ),
        (
            ("GPU", 1, "", 0, (2,), (9, 0), 2.097152),
            [["GPU", "2"], ["limit", "2", 2000.0], ["GPU:0"]],
        ),
        # Not one of them: TensorFlow would take some of the memory of each.
        (("CPU", 2, ""), [["GPU"], ["CPU:0", "CPU:1"]]),
    ],
)
def test_a_run_sees_its_own_gpus_and_no_other(
    devices: tuple[Any, ...], expected: list[list[Any]]
) -> None:
    assert told(*devices) == expected


def test_a_command_that_does_not_train_takes_one_gpu_and_only_what_it_needs_of_it() -> None:
    assert told() == [["GPU", "0"], ["grow", "0"]]
