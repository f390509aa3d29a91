"""Two worker processes train the very weights that one process trains: all bits, every row."""

import numpy as np
import pytest

from tests.on_workers import run_program

FLAGS = (
    "--micro_batch=8 --clip_norm=0.5 --dropout=0.2 --ema=0.9 --augment=shift(1)|flip "
    "--weight_decay=0.01 --learning_rate=0.1"
)
PROGRAM = """
source = sources["train"]
stream = iter(run.stream(training_data(command, plan, source, 0, Faults(source))))
found = {f"rows/{name}": column for name, column in run.train_loop(stream, 30).items()}
for group, members in run.variables().items():
    found |= {f"{group}/{name}": variable.numpy() for name, variable in members.items()}
np.savez(given, replicas=strategy.num_replicas_in_sync, **found)
"""


@pytest.fixture(scope="module", params=["--model=cnn", "--model=mlp --precision=float16"])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, np.ndarray]]:
    """What one process came to, then what each of two workers did."""
    folder, flags = tmp_path_factory.mktemp("workers"), f"{FLAGS} {request.param} --replicas="
    alone, *outs = (str(folder / f"{name}.npz") for name in ("alone", "first", "second"))
    run_program(PROGRAM, [(out, f"{flags}2") for out in outs], [(alone, f"{flags}1")])
    return [dict(np.load(out)) for out in (alone, *outs)]


def test_two_workers_train_the_weights_and_rows_of_one_process(
    trained: list[dict[str, np.ndarray]],
) -> None:
    alone, *workers = trained
    assert alone.pop("replicas") == 1
    for worker in workers:
        assert worker.pop("replicas") == 2
        assert not worker.pop("rows/stop").any()  # what one of several is asked for, all know
        assert set(worker) == set(alone)
        assert [
            name
            for name, value in alone.items()
            if name != "rows/input_wait" and value.tobytes() != worker[name].tobytes()
        ] == []
    assert np.ptp(alone["rows/train/loss"]) > 0.1  # it has trained
