"""Runs whose pages of TensorBoard are read, and looked at in a browser."""

import shutil

import pytest
from helpers import Run, train_in_turn

# A checkpoint lies one step before the last histogram, and one before the first.
COMMAND = (
    "--device=cpu --dataset=digits --augment=shift(1) --model=mlp --global_batch=64 --xla=off "
    "--train_for=59st --log_every=5st --eval_every=20st --checkpoint_every=29st --warmup=10st "
    "--histograms_every=29.5st --pictures=always"
)


@pytest.fixture(scope="session")
def board_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Two runs beside each other; one whose folder cannot hold a plan; and one that was killed."""
    runs, others = (tmp_path_factory.mktemp(name) for name in ("runs", "others"))
    one = f"{COMMAND} --learning_rate=0.1 --seed=1"
    two = f"{COMMAND} --learning_rate=0.2 --plateau=reduce(patience=0,threshold=0.9)"
    made = train_in_turn(runs, {"one": one, "two": two})
    shutil.copytree(made["one"].folder, others / "killed")
    for path in ("checkpoints/step-58", "checkpoints/step-59", "best"):
        shutil.rmtree(others / "killed" / path)
    (others / "killed/model.keras").unlink()
    (others / "blocked").mkdir()
    (others / "blocked/plan").touch()
    short = COMMAND.replace("59st", "3st").replace("=10st", "=1st")
    return made | train_in_turn(others, {"killed": one, "blocked": short})
