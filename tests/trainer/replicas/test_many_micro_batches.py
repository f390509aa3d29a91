"""Forty micro-batches a step, and an evaluation by each kind of all-reduce."""

import functools

import pytest
from helpers import Run, different_variables, in_parallel, train

STEPS, MICRO_BATCHES = 4, 40
FLAGS = (
    f"--device=cpu --model=mlp --global_batch={2 * MICRO_BATCHES} --micro_batch=2 --clip_norm=0.5 "
    f"--train_for={STEPS}st --eval_every=2st --log_every=1st --learning_rate=0.2"
)
COMMANDS = {
    "1": f"{FLAGS} --replicas=1",
    "2": f"{FLAGS} --replicas=2",
    # As GPUs and several machines sum: by TensorFlow's own collective.
    "ring": f"{FLAGS} --replicas=2 --all_reduce=ring",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("many")
    return in_parallel(
        {name: functools.partial(train, folder, name, text) for name, text in COMMANDS.items()}
    )


def test_a_step_may_have_any_number_of_micro_batches(runs: dict[str, Run]) -> None:
    for name, run in runs.items():
        plan = run.plan()
        assert plan["accumulate"] == MICRO_BATCHES // plan["replicas"], name
    one, two = (runs[name].variables(STEPS) for name in ("1", "2"))
    assert different_variables(one, two) == []
    assert runs["1"].rows_without_times() == runs["2"].rows_without_times()


def test_an_evaluation_by_a_collective_is_that_of_one_replica(runs: dict[str, Run]) -> None:
    ours, theirs = (runs[name].rows("eval/") for name in ("1", "ring"))
    assert [row["step"] for row in theirs] == [2, 4]
    for a, b in zip(ours, theirs, strict=True):
        # The weights differ by rounding; what is counted does not.
        assert b["eval/loss"] == pytest.approx(a["eval/loss"], rel=1e-5)
        assert b["eval/accuracy"] == pytest.approx(a["eval/accuracy"], abs=2 / 360)
