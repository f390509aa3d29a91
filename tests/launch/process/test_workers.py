"""Several workers are refused before anything is done, never trained as silent copies."""

import json
import pathlib

import pytest
from helpers import call

from launch.process.workers import check_one_worker


def tf_config(**cluster: list[str]) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}})


@pytest.mark.parametrize(
    "environment",
    [
        {"TF_CONFIG": tf_config(worker=["a:1", "b:1"])},
        {"TF_CONFIG": tf_config(chief=["a:1"], worker=["b:1"])},
        {"TF_CONFIG": tf_config(worker=["a:1"], ps=["b:1"])},
        {"TF_CONFIG": "{"},
        {"TF_CONFIG": "[1]"},
        {"TF_CONFIG": '{"cluster": {"worker": 2}}'},
        {"SLURM_NTASKS": "2"},
        {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"},
        {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "4"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"PMI_SIZE": "8"},
        {"WORLD_SIZE": "2"},
    ],
)
def test_several_are_an_error(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="one process on one machine") as error:
        check_one_worker(environment)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TF_CONFIG": ""},
        {"TF_CONFIG": "{}"},
        {"TF_CONFIG": tf_config(worker=["a:1"])},
        {"SLURM_NTASKS": "1"},
        {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"},  # srun --ntasks=1 in a larger job
        {"SLURM_NTASKS": "many"},
        {"WORLD_SIZE": "1"},
    ],
)
def test_one_is_not(environment: dict[str, str]) -> None:
    check_one_worker(environment)


@pytest.mark.parametrize("module", ["launch.train", "launch.plan", "launch.find_lr"])
def test_the_commands_look(tmp_path: pathlib.Path, module: str) -> None:
    ended = call("--flagfile=digits", tmp_path, {"SLURM_NTASKS": "2"}, module)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "srun --ntasks=1" in ended.err
    assert list(tmp_path.iterdir()) == []
