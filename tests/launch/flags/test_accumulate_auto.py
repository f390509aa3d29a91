"""`--accumulate=auto` on a command line, without TensorFlow: its plan, and what a resume says."""

import pytest

from launch.flags.command import Command, read_command
from launch.terminal.plan_text import plan_text
from launch.training.job import changed_flags, decided, plan_command
from trainer.plan.dataset import DatasetFacts
from trainer.run_folder.history import History
from trainer.run_folder.run_folder import Found
from trainer.run_folder.state import State

COMMAND = "--device=cpu --global_batch=64 --model=mlp"


def planned(text: str) -> tuple[Command, object]:
    command = read_command(f"{COMMAND} {text}".split())
    return command, plan_command(command)[0]


def changes(before: str, now: str) -> dict[str, tuple[object, object]]:
    command, plan = planned(before)
    return changed_flags(*planned(now), found(decided(command, plan)))


def found(made_with: dict[str, object]) -> Found:
    dataset = DatasetFacts("own", 64, 64, 10, (8, 8, 1))
    return Found(10, State(10, made_with, History(), False, dataset, {}, {}))


def test_the_global_batch_stays_what_it_is_when_the_number_of_devices_changes() -> None:
    for replicas, expected in ((1, 4), (2, 2), (4, 1)):
        _, plan = planned(f"--accumulate=auto --max_replica_batch=16 --replicas={replicas}")
        assert (plan.global_batch, plan.accumulate, plan.micro_batch) == (64, expected, 16)
        said = f"{expected} micro-batches, the fewest of at most 16 examples"
        assert said in plan_text(plan)


def test_a_resume_compares_the_number_that_auto_came_to() -> None:
    auto = "--accumulate=auto --max_replica_batch=16"
    assert changes(f"{auto} --replicas=2", f"{auto} --replicas=2") == {}
    assert changes("--accumulate=2 --replicas=2", f"{auto} --replicas=2") == {}
    assert changes(f"{auto} --replicas=2", f"{auto} --replicas=1") == {"accumulate": (2, 4)}


def test_a_number_that_was_given_is_the_same_as_that_of_now() -> None:
    command, plan = planned("")
    made_with = command.values.flag_values_dict() | {"accumulate": 1}
    assert changed_flags(command, plan, found(made_with)) == {}


@pytest.mark.parametrize("text", ["--accumulate=0", "--accumulate=-1", "--accumulate=two"])
def test_what_is_no_number_of_micro_batches_is_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=f"{text} is no whole number from 1 to .*, or auto"):
        planned(text)


def test_auto_needs_to_know_what_fits() -> None:
    with pytest.raises(ValueError, match=r"--accumulate=auto needs .* --max_replica_batch=32"):
        planned("--accumulate=auto")
