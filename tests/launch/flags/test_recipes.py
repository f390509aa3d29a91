"""Every recipe that comes with Lockstep is planned as it stands, and trains."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from helpers import REPOSITORY, call

from launch import plan
from launch.flags.flagfile import recipes
from tests import pages

# Their data are not here: the same pictures' sizes and classes, made up. So few examples are less
# than a warmup in steps, or a milestone.
DATA = {
    "digits": "digits",
    "digits_wsd": "digits",
    "fashion_mnist": "synthetic:28x28x1",
    "fashion_mnist_resnet20": "synthetic:28x28x1",
    "cifar10_resnet20": "synthetic:32x32x3",
    "cifar10_resnet56": "synthetic:32x32x3",
    "imagenet_resnet50": "synthetic:224x224x3x1000",
    "imagenet_vit_s16": "synthetic:224x224x3x1000",
    "fine_tuning": "synthetic:224x224x3x5",
    "segmentation": "folder:SHAPES",
    "language_model": f"text:{REPOSITORY}/launch/*.py",
}
# The others take minutes for two steps on two cores.
SMALL = (
    "fashion_mnist",
    "fashion_mnist_resnet20",
    "cifar10_resnet20",
    "segmentation",
    "language_model",
)
WHOLE = bool(os.environ.get("LOCKSTEP_ALL_RECIPES"))
HERE = "--device=cpu --replicas=1 --eval_split= --data_dir="


@pytest.fixture(scope="module", name="data")
def data_of_recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """`DATA`, with a few of the shapes that the documentation makes."""
    folder = tmp_path_factory.mktemp("shapes")
    files = dict(block.file for block in pages.blocks("docs/tasks.md") if block.file)
    script = re.sub(r"COUNTS = .*", 'COUNTS = {"train": 32, "test": 16}', files["shapes.py"])
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)
    return DATA | {"segmentation": f"folder:{folder}/shapes"}


@pytest.mark.parametrize("name", recipes())
def test_it_is_planned(
    name: str, data: dict[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [f"--flagfile={name}", *HERE.split(), f"--dataset={data[name]}"]
    assert plan.main([*asked, f"--run_dir={tmp_path}/run", "--out=none"]) == 0
    shown = capsys.readouterr().out
    assert "warning" not in shown and "learning rate" in shown


@pytest.mark.parametrize("name", recipes())
def test_its_file_says_what_to_expect(name: str) -> None:
    lines = (REPOSITORY / f"launch/recipes/{name}.flags").read_text().splitlines()
    comments = "\n".join(line for line in lines if line.startswith("#"))
    assert f"--flagfile={name}" in comments or f"{name}.flags" in comments
    assert "Expected: " in comments


def test_two_steps_of_each_are_real(data: dict[str, str], tmp_path: pathlib.Path) -> None:
    names = [name for name in recipes() if WHOLE or name in SMALL]
    commands = {
        name: f"launch.train --flagfile={name} {HERE} '--dataset={data[name]}' --global_batch=16 "
        f"--micro_batch=8 --lr_scaling=none --warmup=none --decay=constant --train_for=2st "
        f"--eval_every=0 --run_dir={tmp_path}/{name}"
        for name in names
    }
    path = tmp_path / "commands.json"
    path.write_text(json.dumps(commands))
    ended = call(str(path), tmp_path, module="tests.launch.in_one_process")
    assert ended.code == 0, ended
    for name, (code, out) in json.loads(ended.out).items():
        assert code == 0, out
        assert (tmp_path / name / "model.keras").exists()
