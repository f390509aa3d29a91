"""An evaluation that two worker processes share counts what a single process counts."""

import json

import pytest

from tests.on_workers import run_program

EXAMPLES = 360
# The run's own plan, data, model and evaluation; then which records had a weight, in a second pass.
PROGRAM = """
source = sources["eval"]
stream = run.stream(evaluation_data(command, plan, source, Faults(source)))
batches = -(-source.length // plan.eval_batch)
((loss, correct, weight),) = run.evaluate(iter(stream), tf.constant(batches)).numpy().tolist()
records = []
iterator = iter(stream)
for _ in range(batches):
    batch = next(iterator)
    columns = (strategy.experimental_local_results(batch[name]) for name in ("record", "weight"))
    for record, weights in zip(*columns):
        records += record[weights > 0].numpy().tolist()
print(json.dumps({"replicas": strategy.num_replicas_in_sync, "loss": loss, "correct": correct,
                  "weight": weight, "records": records}), flush=True)
"""


@pytest.fixture(scope="module")
def evaluations() -> list[dict[str, object]]:
    """What a single process found, then what each of two workers did."""
    # Of the last batch of 350, all ten examples are the first worker's: the second has padding.
    flags = "--model=mlp --replicas={} --global_batch={}"
    workers, alone = [(None, flags.format(2, 350))] * 2, [(None, flags.format(1, 100))]
    *found, one = map(json.loads, run_program(PROGRAM, workers, alone))
    return [one, *found]


def test_two_workers_count_what_one_process_counts(evaluations: list[dict[str, object]]) -> None:
    one, *workers = evaluations
    assert one["replicas"] == 1 and one["weight"] == EXAMPLES
    assert 0 < one["correct"] < EXAMPLES
    for worker in workers:
        assert (worker["replicas"], worker["weight"]) == (2, EXAMPLES)
        assert worker["correct"] == one["correct"]
        assert worker["loss"] == pytest.approx(one["loss"], rel=1e-6)  # summed in another order
    assert workers[0]["loss"] == workers[1]["loss"]


def test_each_example_is_evaluated_by_one_of_them(evaluations: list[dict[str, object]]) -> None:
    _, first, second = (evaluation["records"] for evaluation in evaluations)
    assert first == [*range(175), *range(350, 360)]
    assert second == list(range(175, 350))
