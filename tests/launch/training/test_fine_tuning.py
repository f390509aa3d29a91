"""First weights, freezing and unfreezing: exact over a kill, and on any number of replicas."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import REPOSITORY, Run, different_variables, in_parallel

from trainer.models.make_model import make_model
from trainer.plan.dataset import DatasetFacts

REPLICAS = (1, 2)
FROZEN = ("stem/", "stem_norm/", "stage1")


def is_frozen(name: str) -> bool:
    return name.startswith(FROZEN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The runs: resnet20 on digits, of weights for seven classes in place of ten."""
    folder = tmp_path_factory.mktemp("fine_tuning")
    model = make_model("resnet20", DatasetFacts("other", 10, 10, 7, (8, 8, 1)))
    random = np.random.default_rng(0)
    for variable in model.variables:
        noise = random.uniform(0.5, 1.5, variable.shape).astype("float32")
        variable.assign(variable.numpy() * noise + 0.01 * noise)
    model.save(folder / "first.keras")

    def run(replicas: int) -> dict[str, list]:
        arguments = ["-m", "tests.launch.training.fine_tuned", str(replicas), str(folder)]
        ended = subprocess.run(
            [sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout.splitlines()[-1])

    said = in_parallel({str(n): lambda n=n: run(n) for n in REPLICAS})
    (folder / "said.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize("replicas", REPLICAS)
def test_killed_and_resumed_is_undisturbed(folder: pathlib.Path, replicas: int) -> None:
    whole, killed = (Run(folder / f"{name}_{replicas}") for name in ("whole", "killed"))
    code, out = json.loads((folder / "said.json").read_text())[str(replicas)]["killed"]
    assert code == 0 and "going on from step 4" in out and "weights from" not in out
    assert different_variables(whole.variables(8), killed.variables(8)) == []
    assert whole.rows_without_times() == killed.rows_without_times()


def test_replicas_agree_to_the_bit(folder: pathlib.Path) -> None:
    one, two = (Run(folder / f"whole_{replicas}") for replicas in REPLICAS)
    assert different_variables(one.variables(8), two.variables(8)) == []


def test_what_is_frozen_stays_until_it_is_not(folder: pathlib.Path) -> None:
    """Its statistics stay after that, too; all else moves from the beginning."""
    run, first = Run(folder / "whole_1"), keras.saving.load_model(folder / "first.keras")
    begun = {f"model/{v.path}": v.numpy() for v in first.variables}
    at = {step: run.variables(step) for step in (4, 8)}
    for name, value in begun.items():
        variable = name.removeprefix("model/")
        same = {step: np.array_equal(at[step][name], value) for step in at if "logits" not in name}
        if "logits" in name:
            assert at[4][name].shape[-1] == 10
        elif is_frozen(variable):
            assert same == {4: True, 8: "moving" in variable}, name
        else:
            assert same == {4: False, 8: False}, name
    slots = {n: v for n, v in at[4].items() if n.startswith("optimizer/") and v.ndim > 1}
    frozen = [v for n, v in slots.items() if any(part in n for part in ("stem_k", "stage1"))]
    assert frozen and not any(map(np.any, frozen))
    assert int(at[4]["optimizer/adam_w/late_updates"]) == 0
    assert int(at[8]["optimizer/adam_w/late_updates"]) == 2


def test_the_report_names_what_was_taken(folder: pathlib.Path) -> None:
    code, out = json.loads((folder / "said.json").read_text())["1"]["whole"]
    assert code == 0 and "frozen         stem.*, stage1.*: until step 6 = 6st" in out
    told = json.loads((folder / "whole_1" / "init_from.json").read_text())
    assert len(told["taken"]) == 107 - 2
    assert told["new"] == [
        ["logits/kernel", [64, 10], "64×7 in the file"],
        ["logits/bias", [10], "7 in the file"],
    ]
    assert [name for name, _, _ in told["skipped"]] == ["logits", "logits"]
    assert f"  taken   {105:5}" in out and "  new         2  logits/kernel 64×10" in out
