"""The GPUs of a machine before TensorFlow: device files, and the environment."""

import dataclasses
import glob
import pathlib
import re
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import tensorflow as tf

from launch.checks.finding import NOTE, OK, WARNING, Finding
from launch.flags.command import read_command
from launch.process import cli
from launch.process.cuda_libraries import device_files
from launch.terminal import output
from launch.training import gpus, job
from launch.training.gpus import count_gpus, settings_for
from launch.training.job import plan_command
from trainer.plan.cluster import Cluster
from trainer.plan.devices import Devices
from trainer.plan.plan import Plan
from trainer.plan.settings import Communication
from trainer.replicas import preflight, strategy
from trainer.replicas.all_reduce import Exchange

CACHE = "--tf_xla_persistent_cache_directory=/home/me/.cache/lockstep/xla/"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A machine with two device files, of which TensorFlow can use none, and what is done to it."""
    made = {"files": ["/dev/nvidia1", "/dev/nvidia0"], "usable": 0, "imports": 0}

    def files(pattern: str) -> list[str]:
        return made["files"] if pattern == "/dev/nvidia[0-9]*" else []

    def imported(verbosity: int) -> None:
        made["imports"] += 1

    environment = {"HOME": "/home/me"}
    monkeypatch.setattr(glob, "glob", files)
    monkeypatch.setattr(cli, "import_tensorflow", imported)
    monkeypatch.setattr(strategy, "count_gpus", lambda: made["usable"])
    monkeypatch.setattr(gpus, "why_no_gpu", lambda _: "error: cuDNN is missing; install it")
    monkeypatch.setattr(gpus.os, "environ", environment)
    return made | {"environment": environment}


@pytest.mark.parametrize("device", ["auto", "gpu"])
def test_a_gpu_that_cannot_be_used_is_never_a_run_on_the_processor(
    device: str, machine: dict[str, object]
) -> None:
    with pytest.raises(
        ValueError, match=r"(?s)a GPU \(/dev/nvidia0\) .*cuDNN is .*launch.doctor .*--device=cpu"
    ):
        count_gpus(device, 0)
    assert count_gpus("cpu", 0) == 0


def test_gpus_that_somebody_has_hidden_are_not_asked_for(machine: dict[str, object]) -> None:
    for value in ("", "-1", "NoDevFiles", "void"):
        machine["environment"]["CUDA_VISIBLE_DEVICES"] = value
        assert count_gpus("auto", 0) == 0
    machine["environment"]["CUDA_VISIBLE_DEVICES"] = "1"
    with pytest.raises(ValueError, match="cannot use it"):
        count_gpus("auto", 0)


def test_the_environment_is_there_before_tensorflow_is(
    machine: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    environment = machine["environment"]
    monkeypatch.setattr(cli, "import_tensorflow", lambda _: seen.update(environment))
    monkeypatch.setattr(strategy, "count_gpus", lambda: 2)
    assert count_gpus("auto", 0, allocator="async") == 2
    assert seen["TF_GPU_ALLOCATOR"] == "cuda_malloc_async"
    assert seen["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert seen["TF_XLA_FLAGS"].startswith(CACHE)


def test_without_a_device_file_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glob, "glob", lambda _: [])
    monkeypatch.setattr(cli, "import_tensorflow", lambda _: pytest.fail("imported"))
    assert count_gpus("auto", 0) == 0


def test_what_is_set_already_stays() -> None:
    given = {
        "HOME": "/home/me",
        "CUDA_DEVICE_ORDER": "FASTEST_FIRST",
        "TF_GPU_THREAD_MODE": "global",
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=1",
    }
    new = settings_for(given)
    assert set(new) == {
        "CUDA_CACHE_MAXSIZE",
        "TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT",
        "TF_XLA_FLAGS",
    }
    assert new["TF_XLA_FLAGS"].startswith(f"--tf_xla_auto_jit=1 {CACHE}")
    own = {"TF_XLA_FLAGS": "--tf_xla_persistent_cache_directory=mine"}
    assert "TF_XLA_FLAGS" not in settings_for(own)


def test_a_deterministic_run_leaves_out_what_does_not_repeat() -> None:
    assert "TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT" not in settings_for({}, deterministic=True)
    assert "TF_GPU_ALLOCATOR" not in settings_for({})


def test_compute_capabilities_are_those_that_tensorflow_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cards = {"0": {"compute_capability": (9, 0)}, "1": {"compute_capability": (7, 5)}}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: list(cards))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda card: cards[card])
    assert gpus.capabilities(2) == [(9, 0), (7, 5)]
    cards["1"] = {}
    assert gpus.capabilities(2) == gpus.capabilities(0) == []


def planned(device: str, replicas: int) -> Plan:
    command = read_command(f"--device=cpu --model=mlp --replicas={replicas}".split())
    return dataclasses.replace(plan_command(command)[0], device=device)


def job_on(device: str, replicas: int, cluster: Cluster | None = None) -> SimpleNamespace:
    devices = Devices(device, replicas, "", cluster=cluster)
    return SimpleNamespace(plan=planned(device, replicas), devices=devices)


RUN = SimpleNamespace(
    strategy=None,
    train_loop=SimpleNamespace(
        step=SimpleNamespace(exchange=Exchange(2, "one", False, False, True, Communication()))
    ),
)


@pytest.mark.parametrize("hangs", [False, True])
def test_gpus_that_cannot_sum_end_the_run_before_its_first_step(
    hangs: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> list[float]:
        raise preflight.AllReduceError(2, 7, hangs, "did not come back within 60 s")

    monkeypatch.setattr(preflight, "check_all_reduce", fails)
    monkeypatch.setattr(output, "leave", sys.exit)
    said = r"^the all-reduce of a few numbers over 2 replicas did not come back .*hierarchical_copy"
    if hangs:  # what hangs cannot be interrupted
        with pytest.raises(SystemExit) as left:
            gpus.check_sum(RUN, job_on("GPU", 2))
        assert left.value.code == cli.FAILED
        assert re.search(said.replace("^", "^error: "), capsys.readouterr().err)
    else:
        with pytest.raises(cli.FailedError, match=said):
            gpus.check_sum(RUN, job_on("GPU", 2))
    for device, replicas in (("CPU", 2), ("GPU", 1)):  # with nothing to be found out
        assert not gpus.has_link(job_on(device, replicas))
    assert gpus.has_link(job_on("CPU", 2, Cluster(("a:1", "b:1"), 0, "TF_CONFIG")))


def test_workers_that_cannot_sum_may_try_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two = Cluster(("a:1", "b:1"), 0, "TF_CONFIG")
    failed = preflight.AllReduceError(2, 7, False, "failed: Connection reset")
    wrong = preflight.AllReduceError(2, 7, False, "came back with 7 wrong numbers")
    failed.__cause__ = tf.errors.UnavailableError(None, None, "/job:worker/task:1 is gone")
    for error, raised, said in (
        (failed, tf.errors.UnavailableError, "task:1"),
        (wrong, cli.FailedError, "see the network between the workers"),
        (preflight.AllReduceError(2, 7, True, "did not come back"), SystemExit, "75"),
    ):

        def fails(*_: object, error: Exception = error) -> list[float]:
            raise error

        monkeypatch.setattr(preflight, "check_all_reduce", fails)
        monkeypatch.setattr(output, "leave", sys.exit)
        with pytest.raises(raised, match=said):
            gpus.check_sum(RUN, job_on("CPU", 2, two))
    assert "did not come back; see the network" in capsys.readouterr().err


def test_gpus_of_one_machine_that_fail_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> list[float]:
        error = preflight.AllReduceError(2, 7, False, "failed: NCCL: unhandled system error")
        raise error from tf.errors.InternalError(None, None, "NCCL: unhandled system error")

    monkeypatch.setattr(preflight, "check_all_reduce", fails)
    with pytest.raises(cli.FailedError, match="failed: NCCL: unhandled system error"):
        gpus.check_sum(RUN, job_on("GPU", 2))


def test_what_is_amiss_is_said_before_a_run_on_gpus_and_what_is_well_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    found = [
        Finding("driver", OK, "570.1"),
        Finding("kernels", NOTE, "are compiled for this card once"),
        Finding("/dev/shm", WARNING, "has 64 MB", "docker run --shm-size=1g"),
    ]
    monkeypatch.setattr(gpus, "quick_findings", lambda seen, folder: found if seen == 2 else [])
    gpus.say_what_is_amiss(SimpleNamespace(plan=planned("GPU", 2), run_dir=tmp_path))
    out = capsys.readouterr().out
    assert "570.1" not in out
    assert "note: are compiled for this card once" in out
    assert "warning: has 64 MB; docker run --shm-size=1g" in out
    gpus.say_what_is_amiss(SimpleNamespace(plan=planned("CPU", 2), run_dir=tmp_path))
    assert capsys.readouterr().out == ""


def test_gpus_that_tensorflow_is_not_for_are_no_error(
    machine: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glob, "glob", lambda pattern: [pattern.replace("[0-9]*", "0")])
    assert device_files() == ["/dev/nvidia0", "/dev/kfd", "/dev/dxg"]
    for other in ("/dev/kfd", "/dev/dxg"):
        monkeypatch.setattr(gpus, "device_files", lambda other=other: [other])
        assert count_gpus("auto", 0) == 0


def test_compiled_programs_lie_where_caches_are_to() -> None:
    flags = settings_for({"HOME": "/home/me", "XDG_CACHE_HOME": "/large"})["TF_XLA_FLAGS"]
    assert flags.startswith("--tf_xla_persistent_cache_directory=/large/lockstep/xla/")


def test_the_first_sum_is_of_a_few_numbers_and_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def timed(strategy: object, sizes: Sequence[int], seconds: float, reduce: object) -> list:
        asked.append((sizes, seconds))
        assert reduce("ones") == "sum of ones"  # that of the step itself
        return [0.001, 0.002]

    monkeypatch.setattr(Exchange, "over_replicas", lambda _, packs: [f"sum of {packs[0]}"])
    monkeypatch.setattr(preflight, "check_all_reduce", timed)
    assert gpus.has_link(job_on("GPU", 2)) and not gpus.has_link(job_on("GPU", 1))
    link = gpus.check_sum(RUN, job_on("GPU", 2))  # which the start-up then tells of
    assert asked == [((preflight.A_FEW, preflight.MANY_ON_GPUS), 60.0)]
    assert link.latency == 0.001
    assert link.bandwidth == pytest.approx(4 * (preflight.MANY_ON_GPUS - 7) / 0.001)
    # What is gathered comes whole from each of the three others.
    exact = dataclasses.replace(RUN.train_loop.step.exchange, replicas=4, exact=True)
    loop = SimpleNamespace(step=SimpleNamespace(exchange=exact))
    many = gpus.check_sum(SimpleNamespace(strategy=None, train_loop=loop), job_on("GPU", 4))
    assert many.bandwidth == pytest.approx(4 * 3 * (preflight.MANY_ON_GPUS - 7) / 0.001)


def test_a_plan_is_made_for_the_cards_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {}

    def count(device: str, verbosity: int, **how: object) -> int:
        told.update(how)
        return 1

    monkeypatch.setattr(job, "count_gpus", count)
    monkeypatch.setattr(job, "capabilities", lambda gpus: [(8, 0)] * gpus)
    flags = "--model=mlp --precision=auto --deterministic --gpu_allocator=async"
    plan, devices, _ = plan_command(read_command(flags.split()))
    assert told == {"allocator": "async", "deterministic": True}
    assert (plan.precision, devices.capability) == ("bfloat16", (8, 0))
