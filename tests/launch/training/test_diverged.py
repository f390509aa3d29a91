"""A training that diverges ends with a sentence, exit code 76 and finite weights."""

import pathlib

import numpy as np
import pytest
from helpers import Ended, Run, call

COMMAND = (
    "--device=cpu --replicas=2 --model=mlp --train_for=20st --warmup=0 --decay=constant "
    "--learning_rate=1e25 --lr_scaling=none --log_every=1st --checkpoint_every=1st --eval_every=0"
)


def second_step_is_not_finite(folder: pathlib.Path) -> tuple[Ended, Run]:
    return call(f"{COMMAND} --run_dir=run", folder), Run(folder / "run")


STORIES = {"diverged": second_step_is_not_finite}


@pytest.fixture
def diverged(stories: dict[str, tuple[Ended, Run]]) -> tuple[Ended, Run]:
    """A run whose second step is not finite."""
    return stories["diverged"]


def test_it_says_what_happened_and_exits_with_76(diverged: tuple[Ended, Run]) -> None:
    ended, _ = diverged
    assert ended.code == 76
    told = ended.out + ended.err
    assert "step 2 were not finite at a learning rate of 1e+25" in told
    assert "--learning_rate" in told.split("not finite")[1]
    assert "Traceback" not in told


def test_the_log_tells_it(diverged: tuple[Ended, Run]) -> None:
    _, run = diverged
    last = run.rows()[-1]
    assert (last["step"], last["event"]) == (2, "diverged")
    assert "step 2 were not finite" in last["what"]


def test_what_it_leaves_is_finite(diverged: tuple[Ended, Run]) -> None:
    _, run = diverged
    assert run.checkpoints() == [1]
    variables = run.variables(1)
    for name, value in variables.items():
        assert np.all(np.isfinite(value)), name
    assert np.max(np.abs(variables["model/logits/bias"])) > 1e20  # about to burst
    assert [row["step"] for row in run.rows("train/")] == [1]
    assert not (run.folder / "model.keras").exists()
