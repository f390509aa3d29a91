"""Replicas that drift apart are found: a flipped bit, planted in a running training."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from helpers import Ended, Run, call, in_parallel

from trainer.actions.faulty_device import FaultyDeviceError
from trainer.actions.replica_check import (
    CheckReplicas,
    differences,
)
from trainer.loop import Block
from trainer.plan.durations import next_due
from trainer.replicas.checksums import checksums_of

TRAIN = (
    "--device=cpu --replicas=3 --dataset=digits --model=mlp --global_batch=63 --train_for=12st "
    "--steps_per_loop=1 --eval_every=0 --checkpoint_every=4st --check_replicas_every=4st"
)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Run, Ended]]:
    """A run in which a bit of a weight flips on replica 2 after step 6, and a sound one."""
    folder = tmp_path_factory.mktemp("bits")
    modules = {"faulty": "tests.trainer.actions.flip_a_bit 2 12", "sound": "launch.train"}

    def train(name: str) -> tuple[Run, Ended]:
        module, *arguments = modules[name].split()
        flags = " ".join([*arguments, TRAIN, f"--run_dir={folder / name}"])
        return Run(folder / name), call(flags, folder, module=module)

    return in_parallel({name: functools.partial(train, name) for name in modules})


def test_a_flipped_bit_ends_the_run_with_its_variable_and_its_replica(
    ended: dict[str, tuple[Run, Ended]],
) -> None:
    """The check after step 4 is silent; update 7 spreads the bit to no other replica's weights."""
    run, process = ended["faulty"]
    assert process.code == 70, process.err
    sentence = (
        "error: after step 8 model/dense2/kernel on replica 2 is not what it is on the others"
    )
    assert sentence in process.out
    assert "Traceback" not in process.err
    (event,) = [row for row in run.rows() if row.get("event") == "replicas differ"]
    assert event["step"] == 8
    assert (event["variable"], event["replicas"]) == ("model/dense2/kernel", [2])
    assert run.checkpoints() == [4]  # the one of step 8 would have kept the fault


def test_a_sound_run_is_left_alone(ended: dict[str, tuple[Run, Ended]]) -> None:
    run, process = ended["sound"]
    assert (process.code, process.err) == (0, "")
    assert run.checkpoints()[-1] == 12


def test_the_time_to_the_first_step_is_told_by_phase(ended: dict[str, tuple[Run, Ended]]) -> None:
    run, process = ended["sound"]
    (event,) = [row for row in run.rows() if row.get("event") == "started"]
    assert (event["step"], event["steps"]) == (1, 1)
    phases = ["imports_s", "data_s", "build_s", "trace_s", "first_step_s"]
    assert [name for name in event if name.endswith("_s")] == phases
    assert all(event[phase] > 0 for phase in phases)
    (line,) = [text for text in process.out.splitlines() if text.startswith("started in ")]
    assert f"trace {event['trace_s']:.1f}" in line and len(line) <= 80


def checksum(value: tf.Tensor) -> int:
    return int(checksums_of([value])[0])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "int32", "bool"])
def test_a_checksum_sees_every_single_bit(dtype: str) -> None:
    value = np.zeros(5, tf.as_dtype(dtype).as_numpy_dtype)
    right = checksum(tf.constant(value))
    raw = value.view(f"uint{8 * value.itemsize}")
    for place in range(len(value)):
        for bit in range(1 if dtype == "bool" else 8 * value.itemsize):
            raw[place] ^= raw.dtype.type(1) << raw.dtype.type(bit)
            assert checksum(tf.constant(value)) != right, (place, bit)
            raw[place] ^= raw.dtype.type(1) << raw.dtype.type(bit)


def test_a_checksum_tells_an_exchange_of_two_weights() -> None:
    a, b = tf.constant([1.0, 2.0, 3.0]), tf.constant([2.0, 1.0, 3.0])
    assert checksum(a) != checksum(b)


def test_every_tensor_has_a_checksum_of_its_own_whatever_its_neighbours_are() -> None:
    """Of a thousand tensors of several types one changes, and one checksum with it."""
    types = ("float32", "int64", "float16")
    values = [tf.fill([1 + n % 7, 3], tf.cast(n, types[n % 3])) for n in range(1000)]
    before = checksums_of(values).numpy()
    for place in (0, 1, 500, 999):
        changed = [*values[:place], values[place] + 1, *values[place + 1 :]]
        assert np.flatnonzero(checksums_of(changed).numpy() != before).tolist() == [place]


def test_the_odd_replica_is_the_one_that_most_disagree_with() -> None:
    same, first = [7, 7, 7], [8, 7, 7]
    assert differences(np.array([same, same, first]).T) == [(2, [0])]
    assert differences(np.array([[1, 2], [1, 3]])) == [(1, [1])]  # of two, not the first
    assert differences(np.array([[1], [2], [3]])) == [(0, [1, 2])]
    assert differences(np.ones([4, 3], int)) == []


def test_replicas_are_compared_after_the_block_that_reaches_the_step() -> None:
    asked = []

    def checksums() -> tf.Tensor:
        asked.append(True)
        return tf.constant([[1, 5], [1, 6]])

    check = CheckReplicas(functools.partial(next_due, period=10.0), ("a", "b"), checksums)
    check(Block(0, {"x": np.zeros(9)}, None))
    assert not asked
    with pytest.raises(FaultyDeviceError, match=r"^after step 12 b on replica 1 is not"):
        check(Block(9, {"x": np.zeros(3)}, None))
