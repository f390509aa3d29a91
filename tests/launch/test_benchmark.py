"""launch.benchmark: the parts of a step, its scaling and the verdict on it, by what was planted."""

import json
import pathlib
import re

import pytest
from helpers import REPOSITORY, finish, start
from PIL import Image

from launch.terminal.scaling_verdict import verdict
from launch.training.parts import StepParts
from launch.training.trial import Trial

MODULES = f"{REPOSITORY}:{REPOSITORY / 'tests'}"
RECIPE = (
    "--device=cpu --dataset=python:planted:digits --model=python:planted:network "
    "--global_batch=16 --xla=off --steps_per_loop=1 --seconds=1.5"
)
TRIAL = Trial({"imports": 3.0, "build": 1.5}, 200, 10.0, 0.01, 3 * 10**9, 0, "off")
# What is planted, in milliseconds, and what the verdict says of it. A network that takes as long as
# it has examples is twice as fast on two replicas.
PLANTED = {
    "nothing": ({"AN_EXAMPLE": 4}, ""),
    "data": ({"AN_EXAMPLE": 2, "A_RECORD": 4}, r"waits \d\d% of its time for data"),
    "sum": ({"AN_EXAMPLE": 4, "A_SUM": 60}, r"\d\d% of each step is the all-reduce"),
    "network": ({"A_STEP": 60}, "too few of them; a larger --global_batch"),
}


@pytest.mark.parametrize("what", PLANTED)
def test_scaling_names_the_cause_that_was_planted(tmp_path: pathlib.Path, what: str) -> None:
    planted, said = PLANTED[what]
    env = {"PYTHONPATH": MODULES} | {name: str(ms) for name, ms in planted.items()}
    command = f"scaling {RECIPE} --replicas=1,2 --json"
    ended = finish(start(command, tmp_path, env, module="launch.benchmark"))
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert len(found["verdict"]) == bool(said), found["verdict"]
    assert re.search(said, "".join(found["verdict"])), found["verdict"]
    assert [one["replicas"] for one in found["strong"] + found["weak"]] == [1, 2, 1, 2]
    assert [one["global_batch"] for one in found["strong"] + found["weak"]] == [16, 16, 16, 32]
    # What was planted is what was measured, but for what a step takes beside.
    network = planted.get("A_STEP", 0) + 8 * planted.get("AN_EXAMPLE", 0)
    two = found["strong"][1]
    assert network <= 1000 * two["network"] <= network + 15
    assert (
        16 * planted.get("A_RECORD", 0)
        <= 1000 * two["data"]
        <= 16 * planted.get("A_RECORD", 0) + 15
    )
    assert planted.get("A_SUM", 0) <= 1000 * two["all_reduce"] <= planted.get("A_SUM", 0) + 15
    assert Image.open(tmp_path / "scaling.png").size[0] > 900


def cell(
    replicas: int,
    network: float,
    all_reduce: float = 0.0,
    waiting: float = 0.0,
    batch: int = 64,
    device: str = "GPU",
) -> StepParts:
    """A step on so many replicas, its parts in milliseconds."""
    from_memory = (network + all_reduce) / 1000
    return StepParts(
        trial=TRIAL,
        replicas=replicas,
        global_batch=batch,
        micro_batch=batch // replicas,
        device=device,
        parameters=25_000_000,
        step=from_memory + waiting / 1000,
        from_memory=from_memory,
        data=0.004,
        all_reduce=all_reduce / 1000,
    )


ONE = cell(1, 100)
WEAK = [ONE, cell(2, 100, batch=128), cell(4, 110, batch=256)]


@pytest.mark.parametrize(
    ("strong", "weak", "said"),
    [
        ([ONE, cell(2, 52, 2), cell(4, 27, 4)], WEAK, []),
        ([ONE, cell(2, 50, 12.5), cell(4, 25, 6.2)], WEAK, []),  # 80 % each
        (
            [ONE, cell(2, 50, 2), cell(4, 25, 60)],
            WEAK,
            ["4 replicas are 1.18 times as fast as 1, not 4 times: 71% of each step is the"],
        ),
        (
            [ONE, cell(2, 50, 60), cell(4, 25, 60)],  # the fewest that are out of order
            WEAK,
            ["2 replicas are slower than 1, 0.91 times as fast: 55% of each step is the"],
        ),
        (
            [ONE, cell(2, 50, 2, 50), cell(4, 40, 70, 1)],  # and the most, of another cause
            WEAK,
            ["2 replicas are no faster than 1: each step waits 49% of its time", "4 replicas are"],
        ),
        # One that waits already gains nothing by another that does.
        ([cell(1, 50, 0, 50), cell(2, 25, 0, 75)], [], ["each step waits 75% of its time for"]),
        ([ONE, cell(2, 90)], WEAK, ["a replica's 32 examples take the network 90 ms, and 64 took"]),
        ([ONE, cell(2, 90)], WEAK, ["too few of them; a larger --global_batch"]),
        ([ONE, cell(2, 90)], [ONE, cell(2, 180, batch=128)], ["hold each other up, 1.8 times"]),
        ([cell(2, 50), cell(4, 49)], [], ["4 replicas are no faster than 2: a replica's 16"]),
    ],
)
def test_the_verdict_names_what_is_lost(
    strong: list[StepParts], weak: list[StepParts], said: list[str]
) -> None:
    found = verdict(strong, weak, cores=8)
    assert len(found) == len(said), found
    for sentence, part in zip(found, said, strict=True):
        assert part in sentence


def test_on_a_cpu_the_replicas_share_its_cores() -> None:
    on_cpu = [cell(n, ms, device="CPU") for n, ms in ((1, 100), (2, 95))]
    weak = [on_cpu[0], cell(2, 190, batch=128, device="CPU")]
    (said,) = verdict(on_cpu, weak, cores=2)
    assert "the replicas share 2 cores, and take 1.9 times as long" in said
    waits = [cell(n, 50, waiting=ms, device="CPU") for n, ms in ((1, 50), (2, 75))]
    assert "the same cores prepare the data" in verdict(waits, [], cores=2)[0]
