"""A device that computes wrongly is found by audits, and named where that can be known."""

import contextlib
import dataclasses
import functools
import json
import re
import types

import numpy as np
import pytest
import tensorflow as tf
from helpers import Ended, Run, call, in_parallel

from launch.flags.command import read_command
from trainer.actions.audited import audited, suspects
from trainer.actions.digests import Digests
from trainer.actions.faulty_device import FaultyDeviceError
from trainer.actions.replica_check import replica_check
from trainer.audit import make_audit
from trainer.loop import Block
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.plan import Plan, make_plan

TRAIN = (
    "--device=cpu --dataset=digits --model=mlp --global_batch=60 --train_for=12st --eval_every=0 "
    "--steps_per_loop=2 --checkpoint_every=4st"
)
# By what goes wrong: the module with its arguments, the flags. Step 8 begins at position 420.
FAULTY = {
    "three, always": ("compute_wrongly 2 0 always", "--replicas=3 --audit_every=4st"),
    "three, once": ("compute_wrongly 1 30 440", "--replicas=3 --audit_every=4st"),
    "two, always": ("compute_wrongly 1 3 always", "--replicas=2 --audit_every=4st"),
    "two, once": ("compute_wrongly 1 3 450", "--replicas=2 --audit_every=4st"),
    "one, once": ("compute_wrongly 0 3 420", "--replicas=1 --audit_every=4st"),
    "mixed": ("", "--replicas=2 --audit_every=4st --model=cnn --batch_norm=synchronized"),
    "not audited": ("compute_wrongly 1 3 always", "--replicas=2 --check_replicas_every=2st"),
}
EVERYTHING = "--ema=0.9 --clip_norm=1 --optimizer=adamw --learning_rate=0.01"
SOUND = {
    "float16": "--replicas=2 --micro_batch=4 --precision=float16",
    "xla": "--replicas=2 --micro_batch=8 --xla=on",
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Run, Ended]]:
    """Trainings on a device that computes wrongly, and one that cannot be audited."""
    folder = tmp_path_factory.mktemp("faulty")

    def train(name: str) -> tuple[Run, Ended]:
        program, flags = FAULTY[name]
        module, *arguments = f"tests.trainer.{program}".split() if program else ["launch.train"]
        run = Run(folder / name.replace(", ", "-").replace(" ", "-"))
        line = " ".join([*arguments, TRAIN, flags, f"--run_dir={run.folder}"])
        return run, call(line, folder, module=module)

    return in_parallel({name: functools.partial(train, name) for name in FAULTY})


@pytest.mark.parametrize(
    ("name", "step", "replicas", "known", "told"),
    [
        (
            "three, always",
            4,
            [2],
            True,
            "replica 2 (CPU:2) computes wrongly: a micro-batch came to",
        ),
        ("three, once", 8, [1], True, "replica 1 (CPU:1) computes wrongly: a micro-batch came to"),
        ("two, once", 8, [1], True, "replica 1 (CPU:1) computes wrongly: a micro-batch came to"),
        ("two, always", 4, [0, 1], False, "replica 0 (CPU:0) or replica 1 (CPU:1) computes"),
        ("one, once", 8, [0], True, "replica 0 (CPU:0) computes wrongly: a micro-batch came twice"),
    ],
)
def test_a_flipped_bit_of_a_gradient_ends_the_run_and_names_the_replica_where_it_is_known(
    ended: dict[str, tuple[Run, Ended]],
    name: str,
    step: int,
    replicas: list[int],
    known: bool,
    told: str,
) -> None:
    run, process = ended[name]
    assert process.code == 70, process.err
    assert f"error: step {step}: {told}" in process.out
    assert "Traceback" not in process.err
    (event,) = [row for row in run.rows() if row.get("event") == "computes wrongly"]
    assert (event["step"], event["replicas"], event["known"]) == (step, replicas, known)
    assert run.checkpoints() == ([4] if step == 8 else [])  # none is of a step with the fault
    since = f"checkpoints after step {step - 4} may hold wrong work"
    assert since in process.out


def test_without_audits_nobody_sees_it(ended: dict[str, tuple[Run, Ended]]) -> None:
    """The wrong gradient is in the sum, and the sum is the same on both replicas."""
    run, process = ended["not audited"]
    assert process.code == 0, process.err
    assert run.checkpoints()[-1] == 12


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What 200 audits of a sound training have found, by how it trains."""
    folder = tmp_path_factory.mktemp("sound")

    def train(name: str) -> dict[str, object]:
        process = call(
            f"200 {EVERYTHING} {SOUND[name]}", folder, module="tests.trainer.audit_sound"
        )
        assert process.code == 0, process.err
        return json.loads(process.out)

    return in_parallel({name: functools.partial(train, name) for name in SOUND})


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_training_is_never_accused_and_trains_the_same(
    sound: dict[str, dict[str, object]], name: str
) -> None:
    """With every random layer, BatchNormalization, a regularizer, examples of no weight."""
    found = sound[name]
    assert (found["steps"], found["fault"], found["different"]) == (200, 0, [])
    if name == "float16":
        assert found["not finite"] > 0  # such a step's numbers are audited, too
    losses = found["losses"]
    assert losses[3] < losses[0] - 0.1


def test_what_cannot_be_computed_again_is_refused(ended: dict[str, tuple[Run, Ended]]) -> None:
    _, process = ended["mixed"]
    assert process.code == 2, process.out
    assert "use --batch_norm=local, or --audit_every=0." in process.err
    assert "Traceback" not in process.err


def planned(devices: Devices, *flags: str) -> Plan:
    settings = read_command(["--audit_every=100st", "--global_batch=64", *flags]).settings
    return make_plan(settings, DatasetFacts("memory", 960, 96, 10, (8, 8, 1)), devices)


def test_the_plan_says_what_audits_cost() -> None:
    two, one = Devices("CPU", 2, ""), Devices("CPU", 1, "")
    assert "another replica" in planned(two).because["audit"]
    assert planned(two).because["audit"].endswith(": 1 % more passes")
    # A micro-batch of four is computed again, of each replica.
    assert planned(two, "--micro_batch=8").because["audit"].endswith(": 0.25 % more passes")
    assert "only a fault that passes shows" in planned(one).because["audit"]
    assert "audit" not in planned(two, "--audit_every=0").because


def block(first: int, last: int) -> Block:
    return Block(first, {"x": np.zeros(last - first)}, None)


@pytest.mark.parametrize(("every", "ahead"), [(4, 0), (7.5, 0), (4, 2.5), (1.3, -3.7), (0.4, 1)])
def test_after_another_global_batch_the_same_steps_are_compared_digested_and_audited(
    every: float, ahead: float
) -> None:
    """Those that the plan calls due; none of it at others."""
    plan = dataclasses.replace(
        planned(Devices("CPU", 2, "")),
        ahead=ahead,
        check_replicas_every=every,
        audit_every=every,
        checkpoint_every=0,
    )
    first, last = 10, 40
    due = {step for step in range(first + 1, last + 1) if plan.due(step, every)}
    assert due

    audit, seen = make_audit(tf.distribute.get_strategy(), every), set()
    (action,) = audited(plan, audit, first)
    audit.fault.assign(1)
    is_due = tf.function(audit._next_is_due, autograph=False)  # as in the step's graph
    for step in range(first, last):
        assert bool(audit.due) == (step + 1 in due)
        audit.steps.assign_add(1)
        audit.due.assign(is_due())
        with contextlib.suppress(FaultyDeviceError):
            action(block(step, step + 1))
            continue
        seen.add(step + 1)
    assert seen == due

    run = types.SimpleNamespace(variables=dict, strategy=tf.distribute.get_strategy())
    (check,) = replica_check(plan, run)
    calls, compared = [], set()
    check = dataclasses.replace(check, checksums=lambda: calls.append(1) or tf.zeros([2, 1]))
    for step in range(first, last):
        check(block(step, step + 1))
        compared |= {step + 1} if calls else set()
        calls.clear()
    digests = Digests(plan, {}, None)
    assert compared == due
    assert {s for s in range(first + 1, last + 1) if digests.next_due(s - 1) == s} == due


def test_a_gpu_is_audited_where_it_repeats_its_bits_only() -> None:
    gpus = Devices("GPU", 2, "")
    with pytest.raises(ValueError, match=r"^--audit_every=100st ") as error:
        planned(gpus)
    advice = re.search(r"; use (\S+), or (\S+)\.$", str(error.value))
    assert planned(gpus, advice[1]).audit_every == 100
    assert planned(gpus, advice[2]).audit_every == 0


def computed(
    replicas: int, wrong: set[tuple[int, int]], random: np.random.Generator, again: bool
) -> np.ndarray:
    """The checksums where these (turn, replica) are wrong, each in its own way or always alike."""
    right = random.integers(1, 2**60, replicas)
    turns = np.stack([right, right, right])
    for turn, replica in wrong:
        batch = (replica - turn) % replicas
        turns[turn, batch] += replica + 1 if again else random.integers(1, 2**60)
    if (turns[0] == turns[1]).all():
        turns[2] = turns[0]  # it was not taken
    return turns


@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 8])
def test_no_sound_replica_is_named_where_one_is_faulty(replicas: int) -> None:
    """In any of the turns, and repeating itself or not; of three and more it is always known."""
    random = np.random.default_rng(0)
    for faulty in range(replicas):
        for turns in ({0}, {1}, {0, 1}, {0, 2}, {1, 2}, {0, 1, 2}):
            for again in (False, True):
                wrong = {(turn, faulty) for turn in turns}
                checksums = computed(replicas, wrong, random, again)
                if (checksums[0] == checksums[1]).all():
                    assert suspects(checksums) == ([], True)  # one replica, twice the same
                    continue
                named, known = suspects(checksums)
                assert faulty in named, (checksums, named)
                if known:
                    assert named == [faulty], (turns, again, checksums)
                if replicas != 2:
                    assert known
