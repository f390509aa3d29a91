"""Two worker processes train the very weights that one process trains: all bits, every row."""

import json

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


# The second worker is asked to stop while a long block goes on; then all exchange something.
STOPPED = """
import threading, time
from trainer.plan.cluster import Cluster
from trainer.replicas.agreement import Agreement
source = sources["train"]
stream = iter(run.stream(training_data(command, plan, source, 0, Faults(source))))
run.train_loop(stream, 5)
ask = threading.Timer(1.0, run.ask_to_stop)
if given == 1:
    ask.start()
rows = run.train_loop(stream, 100_000)
agreement = Agreement(strategy, Cluster(("a:1", "b:2"), given, "the test"))
told = {"name": "é" * 5000, "numbers": [1, None]}  # more than travels at once
print(json.dumps({
    "stop": rows["stop"].tolist(),
    "rest": run.learning_rate.progress.numpy().item(),
    "of_all": agreement.of_all(given, 2**40 + given).tolist(),
    "told": agreement.from_chief(told if given == 0 else "not this") == told,
}), flush=True)
"""


def test_all_leave_a_block_after_the_step_that_one_is_asked_in() -> None:
    flags = "--model=mlp --micro_batch=32 --replicas=2 --train_for=1000000st"
    first, second = map(json.loads, run_program(STOPPED, [(0, flags), (1, flags)]))
    assert first["stop"] == second["stop"] and first["rest"] == second["rest"]
    assert 1 < len(first["stop"]) < 50_000
    assert first["stop"][-1] > 0 and not any(first["stop"][:-1])
    for one in (first, second):
        assert one["of_all"] == [[0, 2**40], [1, 2**40 + 1]] and one["told"]


# The examples of two steps: of each micro-batch its number in the order, and a digest of each.
READS = """
import hashlib
from trainer.plan.cluster import Cluster
from trainer.plan.devices import Devices
from trainer.replicas.streams import next_of_each
index, workers = given
cluster = Cluster(("a:1", "b:2", "c:3")[:workers], index, "") if workers > 1 else None
devices = Devices("CPU", plan.replicas, "", cluster=cluster)
source = sources["train"]
stream = iter(run.stream(training_data(command, plan, source, 0, Faults(source))))
fetch, said = next_of_each(strategy, stream), []
for step in range(2):
    batches = [fetch() for _ in range(plan.accumulate)]
    local = [strategy.experimental_local_results(batch["image"]) for batch in batches]
    images = [image.numpy() for parts in local for image in parts]
    for number, image in zip(devices.reads(plan.micro_batches), images, strict=True):
        digests = [hashlib.sha1(one.tobytes()).hexdigest()[:12] for one in image]
        said.append([step * plan.micro_batches + number, digests])
print(json.dumps(said), flush=True)
"""


def test_workers_read_what_they_say_and_together_what_one_process_reads() -> None:
    flags = "--model=mlp --global_batch=48 --micro_batch=8 --replicas="
    (alone,) = run_program(READS, [], [((0, 1), f"{flags}1")])
    expected = json.loads(alone)
    assert [number for number, _ in expected] == list(range(12))
    for workers in (2, 3):
        given = [((index, workers), f"{flags}{workers}") for index in range(workers)]
        parts = [json.loads(said) for said in run_program(READS, given)]
        assert all(len(part) == 12 // workers for part in parts)
        assert sorted(one for part in parts for one in part) == expected
