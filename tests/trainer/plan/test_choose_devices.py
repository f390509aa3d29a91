"""Which devices a run takes: what was asked for, or an error that says what was found."""

import dataclasses

import pytest

from trainer.plan.cluster import Cluster
from trainer.plan.devices import Devices, choose_devices
from trainer.plan.precision import choose_precision, precision_text
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


@pytest.mark.parametrize(
    ("gpus", "replicas", "taken"),
    [((), None, (0, 1, 2, 3)), ((), 2, (0, 1)), ((3, 1), None, (3, 1)), ((0, 2, 3), 2, (0, 2))],
)
def test_a_run_takes_the_gpus_that_were_named_and_says_which(
    gpus: tuple[int, ...], replicas: int | None, taken: tuple[int, ...]
) -> None:
    settings = DeviceSettings("auto", replicas, global_batch=64, gpus=gpus, gpu_memory_gb=12.0)
    devices = choose_devices(settings, 4, cores=2)
    assert (devices.kind, devices.gpus, devices.replicas) == ("GPU", taken, len(taken))
    assert devices.gpu_memory_gb == 12.0 and "; at most 12 GB of each" in devices.because
    named = f": {', '.join(map(str, taken))}"
    assert devices.because.startswith(f"{len(taken)} of 4 GPUs")
    assert (named in devices.because) == (len(taken) < 4)


@pytest.mark.parametrize(
    ("device", "replicas", "here", "said"),
    [
        ("auto", None, 2, "--gpus=1,2, but TensorFlow found 2 GPUs, numbered 0, 1; give"),
        ("auto", None, 0, "--gpus=1,2, but TensorFlow found 0 GPUs; give .*, or leave it out"),
        ("cpu", None, 4, "--gpus=1,2 with --device=cpu, which takes none"),
        ("gpu", 3, 4, "--replicas=3, but --gpus names 2; use at most 2, or --device=cpu"),
    ],
)
def test_gpus_that_are_not_there_are_an_error(
    device: str, replicas: int | None, here: int, said: str
) -> None:
    settings = DeviceSettings(device, replicas, global_batch=64, gpus=(1, 2))
    with pytest.raises(ValueError, match=said):
        choose_devices(settings, here, cores=2)


@pytest.mark.parametrize(
    ("capabilities", "gpus", "precision"),
    [
        ([(9, 0), (8, 0)], (), "bfloat16"),
        ([(9, 0), (7, 5)], (), "float16"),  # of the oldest of them
        ([(9, 0), (7, 5)], (0,), "bfloat16"),  # which is not taken
        ([], (), "float32"),  # not known
    ],
)
def test_precision_by_what_the_cards_are_fast_in(
    capabilities: list[tuple[int, int]], gpus: tuple[int, ...], precision: str
) -> None:
    settings = DeviceSettings("auto", None, global_batch=64, gpus=gpus, precision="auto")
    devices = choose_devices(settings, 2, 2, capabilities)
    chosen, text = choose_precision(settings, devices)
    assert chosen == precision and text.startswith(precision)
    assert ("compute capability" in text) == bool(capabilities)
    given = dataclasses.replace(settings, precision="float32")
    assert choose_precision(given, devices)[0] == "float32"
    settings = dataclasses.replace(settings, device="cpu", gpus=())
    cpu = choose_devices(settings, 2, 2, capabilities)
    assert choose_precision(settings, cpu) == ("float32", "float32")


@pytest.mark.parametrize(
    ("tf32", "kind", "text"),
    [
        (True, "GPU", "float32 (products in TensorFloat-32)"),
        (False, "GPU", "float32"),
        (True, "CPU", "float32"),
    ],
)
def test_rounded_products_are_said_where_there_are_some(tf32: bool, kind: str, text: str) -> None:
    assert precision_text("float32", tf32, kind) == text


@pytest.mark.parametrize(
    ("gpus", "device", "replicas", "found"),
    [
        (4, "auto", None, ("GPU", 8, 4, (0, 1, 2, 3))),
        (4, "auto", 4, ("GPU", 4, 2, (0, 1))),
        (0, "auto", None, ("CPU", 2, 1, ())),
        (4, "cpu", 2, ("CPU", 2, 1, ())),
    ],
)
def test_workers_have_equal_shares_of_the_replicas(
    gpus: int, device: str, replicas: int | None, found: tuple[object, ...]
) -> None:
    cluster = Cluster(("a:1", "b:2"), 1, "the test")
    settings = DeviceSettings(device, replicas, global_batch=64)
    chosen = choose_devices(settings, gpus, 2, cluster=cluster)
    assert (chosen.kind, chosen.replicas, chosen.here, chosen.gpus) == found
    assert chosen.workers == 2 and chosen.because.startswith("2 workers by the test, each with ")


@pytest.mark.parametrize(
    ("gpus", "replicas", "said"),
    [
        (4, 3, "a multiple of 2"),
        (4, 10, "this one has 4 GPUs for it; use at most 8"),
        (1, 4, "this one has 1 GPUs for it; use at most 2"),
        (0, 4, "give 2, one a worker"),
        (0, 1, "give 2, one a worker"),
    ],
)
def test_replicas_that_workers_cannot_share(gpus: int, replicas: int, said: str) -> None:
    cluster = Cluster(("a:1", "b:2"), 0, "the test")
    with pytest.raises(ValueError, match=said):
        choose_devices(DeviceSettings("auto", replicas, 64), gpus, 2, cluster=cluster)


def test_of_gpus_that_were_named_no_more_can_be_shared_out() -> None:
    cluster = Cluster(("a:1", "b:2"), 0, "the test")
    settings = DeviceSettings("auto", 8, 64, gpus=(1, 3))
    with pytest.raises(ValueError, match="has 2 GPUs for it; use at most 4"):
        choose_devices(settings, 4, 2, cluster=cluster)


@pytest.mark.parametrize(
    ("index", "numbers"), [(0, [0, 1, 6, 7]), (1, [2, 3, 8, 9]), (2, [4, 5, 10, 11])]
)
def test_the_micro_batches_of_a_worker_are_those_of_its_replicas(
    index: int, numbers: list[int]
) -> None:
    devices = Devices("GPU", 6, "", cluster=Cluster(("a:1", "b:2", "c:3"), index, "the test"))
    assert devices.reads(12) == numbers
    assert Devices("GPU", 6, "").reads(12) == list(range(12))
