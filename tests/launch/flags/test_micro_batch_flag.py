"""`--micro_batch` and `--threads`: their plan, and what a resume keeps, without TensorFlow."""

import pathlib
import re

import pytest

from launch.flags.command import Command, read_command
from launch.terminal.plan_text import plan_text
from launch.training.job import (
    as_begun,
    changed_flags,
    check_changes,
    decided,
    plan_command,
)
from trainer.plan.devices import Devices
from trainer.plan.plan import Plan, make_plan
from trainer.run_folder.history import History
from trainer.run_folder.run_folder import Found
from trainer.run_folder.state import State

COMMAND = "--device=cpu --global_batch=64 --model=mlp"


def planned(text: str) -> tuple[Command, Plan]:
    command = read_command(f"{COMMAND} {text}".split())
    return command, plan_command(command)[0]


def resumed(before: str, now: str) -> tuple[Command, Plan, Found]:
    """The command of now with the checkpoint of a run of the command of before."""
    begun, plan = planned(before)
    found = Found(10, State(10, decided(begun, plan), History(), False, plan.dataset, {}, {}))
    command = read_command(f"{COMMAND} {now}".split())
    plan, devices, _ = plan_command(command)
    return command, as_begun(command, plan, devices, found)[0], found


def test_any_number_of_replicas_sums_the_same_micro_batches() -> None:
    for replicas in (1, 2, 4):
        _, plan = planned(f"--micro_batch=16 --replicas={replicas}")
        assert (plan.global_batch, plan.micro_batch, plan.micro_batches) == (64, 16, 4)
        assert plan.accumulate == 4 // replicas and plan.exact
        assert "the same weights, to the bit, on 1, 2, 4 replicas" in plan_text(plan)


@pytest.mark.parametrize(
    ("flags", "exact", "said"),
    [
        ("--exact_sums=off", False, "up to rounding: --exact_sums=off"),
        ("--all_reduce=ring", False, "up to rounding: --all_reduce=ring"),
        ("--gradient_dtype=bfloat16", False, "up to rounding: --gradient_dtype=bfloat16"),
        ("--batch_norm=synchronized", False, "on 1 replica only, by --batch_norm=synchronized"),
        (
            "--micro_batch=0 --batch_norm=synchronized --replicas=2",
            False,
            "up to rounding: --batch_norm=synchronized",
        ),
    ],
)
def test_the_plan_says_where_it_is_up_to_rounding(flags: str, exact: bool, said: str) -> None:
    _, plan = planned(f"--micro_batch=16 {flags}")
    assert plan.exact == exact and said in plan_text(plan)


@pytest.mark.parametrize("flag", ["--all_reduce=ring", "--gradient_dtype=bfloat16"])
def test_exact_sums_are_refused_with_what_rounds(flag: str) -> None:
    with pytest.raises(ValueError, match=f"--exact_sums=on, but {flag} .*--exact_sums=off"):
        planned(f"--exact_sums=on {flag}")
    assert not planned(f"--exact_sums=off {flag}")[1].exact


@pytest.mark.parametrize(("before", "now"), [(2, 1), (2, 4), (8, 1), (4, 2), (1, 1)])
def test_left_out_a_run_keeps_the_one_that_it_began_with(before: int, now: int) -> None:
    begun = 64 // before
    command, plan, found = resumed(f"--replicas={before}", f"--replicas={now}")
    if begun * now > 64:  # fewer micro-batches than replicas
        assert plan.micro_batch == 64 // now
        return
    assert (plan.micro_batch, plan.micro_batches) == (begun, before)
    assert changed_flags(command, plan, found) == {}
    assert check_changes(command, plan, found) == []


def test_where_the_replicas_cannot_share_it_that_is_a_change(tmp_path: pathlib.Path) -> None:
    command, plan, found = resumed("--replicas=2", "--replicas=4")
    assert plan.micro_batch == 16
    assert changed_flags(command, plan, found) == {"micro_batch": (32, 16)}
    command, plan, found = resumed(
        "--replicas=2", f"--replicas=4 --resume=exact --run_dir={tmp_path}"
    )
    with pytest.raises(ValueError, match=r"--resume=exact, but (.|\n)*micro_batch\b.*32.*16"):
        check_changes(command, plan, found)


def test_a_synchronized_batch_normalization_sees_the_whole_batch_on_other_replicas_too() -> None:
    synchronized = "--batch_norm=synchronized --replicas"
    command, plan, found = resumed(f"{synchronized}=4", f"{synchronized}=2")
    assert (plan.micro_batch, plan.accumulate) == (32, 1)
    changes = changed_flags(command, plan, found)
    assert changes == {"micro_batch": (16, 32), "replicas": (4, 2)}


def test_one_that_is_given_is_taken_and_told() -> None:
    command, plan, found = resumed("--micro_batch=16", "--micro_batch=8 --replicas=2")
    assert plan.micro_batch == 8
    assert changed_flags(command, plan, found) == {"micro_batch": (16, 8)}
    # The same as it came to then is no change, given or not.
    command, plan, found = resumed("--replicas=2", "--micro_batch=32 --replicas=1")
    assert changed_flags(command, plan, found) == {}


def test_so_are_the_threads_of_an_operation() -> None:
    begun, _ = planned("--threads=3")
    assert begun.settings.devices.threads == 3
    command, plan, found = resumed("--threads=3", "--replicas=2")
    assert (plan.threads, plan.micro_batch) == (3, 32)
    assert "3 threads, as it began" in plan_text(plan)
    command, plan, found = resumed("--threads=3", "--threads=5")
    assert plan.threads == 5
    assert changed_flags(command, plan, found) == {"threads": (3, 5)}
    with pytest.raises(ValueError, match=r"--threads=1025 is too many; give at most 1,024"):
        planned("--threads=1025")


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        ("--xla=on", "", {}),  # kept, as it began
        ("--xla=on", "--xla=off", {"xla": ("on", "off")}),
        ("", "--pack_mb=1", {"pack_mb": (0.0, 1.0)}),
        (
            "",
            "--all_reduce=ring",
            {"all_reduce": ("auto", "ring"), "exact_sums": ("on", "off")},
        ),
        ("--replicas=2", "--replicas=1", {}),
        ("--replicas=2", "--replicas=1 --exact_sums=on", {}),  # which it came to then
        (
            "--replicas=2 --exact_sums=off",
            "--replicas=1 --exact_sums=off",
            {"replicas": (2, 1)},
        ),
    ],
)
def test_what_decides_about_bits_is_told_and_exact_refuses_it(
    before: str, now: str, changes: dict[str, tuple], tmp_path: pathlib.Path
) -> None:
    command, plan, found = resumed(before, f"{now} --resume=exact --run_dir={tmp_path}")
    assert changed_flags(command, plan, found) == changes
    if changes:
        with pytest.raises(ValueError, match=f"--resume=exact, but (.|\n)*{next(iter(changes))}"):
            check_changes(command, plan, found)


def test_another_kind_of_device_is_told_and_one_that_is_not_known_is_not() -> None:
    command, plan, found = resumed("", "")
    found.state.flags.update(device="gpu", replicas=8)
    assert changed_flags(command, plan, found) == {"device": ("gpu", "cpu")}
    found.state.flags.update(device="auto", replicas=0, exact_sums="auto")
    assert changed_flags(command, plan, found) == {}


def test_another_global_batch_that_the_size_does_not_divide_has_one_of_its_own() -> None:
    command, plan, found = resumed("--replicas=2", "--replicas=2 --global_batch=48")
    assert plan.micro_batch == 24
    changes = changed_flags(command, plan, found)
    assert changes == {"global_batch": (64, 48), "micro_batch": (32, 24)}


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("--accumulate=2", "accumulate"),
        ("--accumulate=auto", "accumulate"),
        ("--max_replica_batch=16", "max_replica_batch"),
    ],
)
def test_the_flags_of_before_say_what_to_give(flags: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"--{name} is gone: give --micro_batch,"):
        planned(flags)


def test_a_flagfile_of_before_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "old.flags").write_text("--model=mlp\n--accumulate=4\n")
    with pytest.raises(
        ValueError, match=r"line 2 of .*old\.flags: --accumulate is gone: give --mi"
    ):
        planned(f"--flagfile={tmp_path}/old.flags")


def test_adascale_goes_on_with_the_micro_batches_of_its_run(tmp_path: pathlib.Path) -> None:
    """One replica has none to compare of its own."""
    flags = f"--lr_scaling=adascale --lr_reference_batch=32 --replicas=1 --run_dir={tmp_path}"
    for content in ('{"micro_batch": 0}', "[]", '{"micro_batch": 48}', "not JSON"):
        (tmp_path / "plan.json").write_text(content)
        with pytest.raises(ValueError, match="compares micro-batches and there is one"):
            planned(flags)
    (tmp_path / "plan.json").write_text('{"micro_batch": 16}')
    assert planned(flags)[1].micro_batches == 4


def test_a_precision_that_was_chosen_is_kept() -> None:
    command, plan, found = resumed("--precision=bfloat16", "--precision=auto")
    assert plan.precision == "bfloat16" and "as it began" in plan_text(plan)
    assert changed_flags(command, plan, found) == {}
    command, plan, found = resumed("--precision=auto", "--precision=bfloat16")
    assert changed_flags(command, plan, found) == {"precision": ("float32", "bfloat16")}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("", "up to rounding to the 10 bits of TensorFloat-32 .*: a GPU repeats its bits with"),
        ("--tf32=false", "up to rounding: a GPU repeats its bits with --deterministic only"),
        ("--tf32=false --deterministic", "up to rounding: --exact_sums=on gathers all gradients"),
        ("--deterministic --exact_sums=on", "the same weights, to the bit, on 1, 2, 4 replicas"),
    ],
)
def test_the_plan_says_what_holds_on_gpus_with_which_flags(flags: str, said: str) -> None:
    command, plan = planned(f"--micro_batch=16 {flags}")
    plan = make_plan(command.settings, plan.dataset, Devices("GPU", 2, "the test"))
    assert re.search(said, plan.because["exact"])
