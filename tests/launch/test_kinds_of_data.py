"""Every kind of dataset by the commands that a person has, all in one process."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import REPOSITORY, Run, finish, run_program, start

from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from tests.input_pipeline.sources.test_files_of_images import image, write
from tests.input_pipeline.sources.test_idx import idx
from tests.input_pipeline.sources.test_parquet import table
from tests.input_pipeline.sources.test_parquet import write as write_parquet

COUNT = 30  # images of each dataset, of three classes
# What each command says of each dataset, its lines joined.
_COMMANDS = """
import contextlib, io, json, keras
from launch import look, plan, prepare, train
folder = {folder!r}
for name, dataset in {datasets!r}.items():
    data = ["--dataset=" + dataset, "--device=cpu", "--seed=1"]
    run = [*data, "--global_batch=6", "--train_for=3st", "--log_every=1st", "--model=mlp",
           f"--run_dir={{folder}}/run-{{name}}"]
    commands = {{
        "plan": (plan, [*run, "--out=none"]),
        "train": (train, run),
        "look": (look, [*data, f"--out={{folder}}/{{name}}.png"]),
        "prepare": (prepare, [*data, "--verify"]),
    }}
    said = {{}}
    for command, (module, flags) in commands.items():
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = module.main(flags)
        said[command] = [code, " ".join(out.getvalue().split())]
    keras.utils.clear_session()
    print("said", json.dumps([name, said]))
"""


def write_all(root: Path) -> dict[str, str]:
    """The datasets by their kind."""
    contents = [image(number, size=(8, 8)) for number in range(COUNT)]
    rows = ["path,label,weight,split"]
    for number, content in enumerate(contents):
        write(root / f"flat/{'abc'[number % 3]}/{number}.png", content)
        split = "test" if number >= 24 else "train"
        rows.append(f"flat/{'abc'[number % 3]}/{number}.png,{'abc'[number % 3]},{number},{split}")
    write(root / "table.csv", "\n".join(rows).encode())
    for split, numbers in (("train", range(24)), ("test", range(24, COUNT))):
        write_parquet(root / f"hub/data/{split}-00000-of-00001.parquet", table(numbers))
        pixels = np.array([np.full((8, 8), number) for number in numbers], np.uint8)
        labels = np.array([number % 3 for number in numbers])
        for what, data in (("images-idx3", pixels), ("labels-idx1", labels)):
            write(root / f"mnist/{split}-{what}-ubyte.gz", gzip.compress(idx(data)))
    return {
        "folder": f"folder:{root}/flat",
        "csv": f"csv:{root}/table.csv",
        "parquet": f"parquet:{root}/hub",
        "idx": f"idx:{root}/mnist",
    }


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    root = tmp_path_factory.mktemp("data")
    program = _COMMANDS.format(folder=str(root), datasets=write_all(root))
    lines = [line for line in run_program(program) if line.startswith("said ")]
    return root, dict(json.loads(line.removeprefix("said ")) for line in lines)


@pytest.mark.parametrize("kind", ["folder", "csv", "parquet", "idx"])
def test_a_kind_of_data_is_planned_trained_on_looked_at_and_verified(
    said: tuple[Path, dict[str, dict]], kind: str
) -> None:
    root, by_kind = said
    codes = {command: code for command, (code, _) in by_kind[kind].items()}
    assert codes == {"plan": 0, "train": 0, "look": 0, "prepare": 0}
    text = {command: text for command, (_, text) in by_kind[kind].items()}
    train, held = (27, 3) if kind == "folder" else (24, 6)
    for command in ("plan", "train"):
        assert f"{train} to train, {held} to evaluate;" in text[command]
        assert ("held out: 10% of each class by --seed=1, 3 of 30" in text[command]) == (
            kind == "folder"
        )
    assert "none is empty" in text["look"] and "no image looked at is in both" in text["look"]
    assert text["prepare"].count(": 0 bad") == 2
    assert (root / f"{kind}.png").read_bytes()[:4] == b"\x89PNG"
    rows = Run(root / f"run-{kind}").rows("train/loss")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(np.isfinite(row["train/loss"]) for row in rows)
    held_out = root / f"run-{kind}/held_out.txt"
    assert held_out.exists() == (kind == "folder")
    if kind == "folder":
        source = open_source(DataSettings(f"folder:{root}/flat", seed=1), "eval")
        listed = [source.describe(record) for record in range(source.length)]
        assert held_out.read_text().splitlines() == listed
        assert [Path(path).parent.name for path in listed] == ["a", "b", "c"]
    plan = Run(root / f"run-{kind}").plan()["dataset"]
    assert (plan["train_examples"], plan["eval_examples"]) == (train, held)
    assert plan["class_names"] == {"idx": [], "parquet": ["cat", "dog", "emu"]}.get(
        kind, ["a", "b", "c"]
    )
    assert any("by --seed=1" in note for note in plan["notes"]) == (kind == "folder")


@pytest.mark.parametrize("command", ["launch.plan", "launch.look", "launch.prepare"])
def test_data_whose_module_imports_tensorflow_are_as_quiet(tmp_path: Path, command: str) -> None:
    (tmp_path / "own.py").write_text(
        "import keras, tensorflow\n"
        "from input_pipeline.settings import DataSettings\n"
        "from input_pipeline.sources import open_source\n"
        "assert keras.backend.backend() == 'tensorflow'\n"
        "def digits(split):\n    return open_source(DataSettings('digits'), split)\n"
    )
    flags = "--dataset=python:own:digits --device=cpu"
    out = {"launch.plan": "--out=none"}.get(command, "")
    # What has no forks of one that has imported it already.
    env = {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}", "KERAS_BACKEND": "jax"}
    ended = finish(start(f"{flags} {out}", tmp_path, env, module=command))
    assert (ended.code, ended.err) == (0, "")
