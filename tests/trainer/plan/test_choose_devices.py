"""Which devices a run takes: what was asked for, or an error that says what was found."""

import pytest

from trainer.plan.devices import Devices, choose_devices
from trainer.plan.settings import DeviceSettings


def choose(device: str, replicas: int | None, gpus: int) -> Devices:
    settings = DeviceSettings(device, replicas, global_batch=64)
    return choose_devices(settings, gpus, cores=2)


@pytest.mark.parametrize(
    ("device", "replicas", "gpus", "kind", "count"),
    [
        ("auto", None, 8, "GPU", 8),
        ("auto", None, 1, "GPU", 1),
        ("auto", None, 0, "CPU", 1),
        ("auto", 4, 0, "CPU", 4),
        ("auto", 4, 8, "GPU", 4),
        ("gpu", None, 8, "GPU", 8),
        ("gpu", 8, 8, "GPU", 8),
        ("cpu", None, 8, "CPU", 1),
        ("cpu", 4, 2, "CPU", 4),
    ],
)
def test_the_run_takes_what_was_asked_for(
    device: str, replicas: int | None, gpus: int, kind: str, count: int
) -> None:
    devices = choose(device, replicas, gpus)
    assert (devices.kind, devices.replicas) == (kind, count)
    assert str(count) in devices.because


@pytest.mark.parametrize("device", ["auto", "gpu"])
def test_more_replicas_than_gpus_is_an_error_and_not_a_fall_to_fewer(device: str) -> None:
    with pytest.raises(
        ValueError, match=r"--replicas=4, but TensorFlow found 2 GPUs; .* at most 2"
    ):
        choose(device, 4, gpus=2)


@pytest.mark.parametrize("replicas", [None, 1, 4])
def test_gpu_without_a_gpu_is_an_error_and_not_a_fall_to_the_cpu(replicas: int | None) -> None:
    with pytest.raises(ValueError, match="--device=gpu, but TensorFlow found 0 GPUs"):
        choose("gpu", replicas, gpus=0)


def test_a_cpu_that_nobody_asked_for_is_said_to_be_one() -> None:
    assert "found 0 GPUs" in choose("auto", None, gpus=0).because


def test_more_cpu_replicas_than_cores_warn() -> None:
    assert "warning: 64 on 2 cores" in choose("cpu", 64, gpus=0).because
    for kind, replicas, gpus in (("cpu", 2, 0), ("auto", None, 0), ("gpu", 8, 8)):
        assert "warning" not in choose(kind, replicas, gpus).because
