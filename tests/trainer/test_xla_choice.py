"""`--xla=auto`: what is timed, what follows from it, and that a run keeps to it."""

import json
import pathlib
import re
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from helpers import Run, call, run_program, train_all

from launch.flags.command import read_command
from launch.terminal.plan_text import plan_text
from launch.training.job import as_begun, begun_xla, plan_command
from trainer import xla_choice
from trainer.plan.plan import Plan
from trainer.run_folder.history import History
from trainer.run_folder.run_folder import Found
from trainer.run_folder.state import State

CONSTANT = "--dataset=digits --model=mlp --global_batch=32 --micro_batch=8 --learning_rate=0.05"
CONSTANT += " --decay=constant --warmup=none --eval_every=0 --check_replicas_every=0 --device=cpu"


def planned(flags: str) -> Plan:
    return plan_command(read_command(flags.split()))[0]


@pytest.mark.parametrize(
    ("flags", "xla"),
    [
        ("--train_for=1000st", "auto"),
        ("--train_for=999st", "off"),  # over before it would pay
        ("--train_for=1000st --deterministic", "off"),  # what is timed does not repeat
        ("--train_for=999st --xla=on", "on"),
        ("--train_for=1000st --xla=off", "off"),
    ],
)
def test_the_plan_says_whether_it_is_to_be_timed(flags: str, xla: str) -> None:
    plan = planned(f"{CONSTANT} {flags}")
    assert plan.xla == xla
    text = " ".join(plan_text(plan).split())
    assert ("timed with and without at the start" in text) == (xla == "auto")
    # Another run of it may choose otherwise.
    assert ("replicas, with the same --xla" in text) == (xla == "auto")


def trained(folder: pathlib.Path, ratio: str, flags: str) -> str:
    """Trains in a folder, with what timing finds; what it prints."""
    command = f"{ratio} {CONSTANT} {flags} --run_dir={folder}"
    ended = call(command, folder.parent, module="tests.trainer.timed_both_ways")
    # Where a run is given a time, a slow machine does not come to its end.
    assert ended.code in (0, 75), f"{ended.out}\n{ended.err}"
    return ended.out


def kept(folder: pathlib.Path) -> tuple[str, str]:
    """What flags.txt and plan.json say."""
    lines = (folder / "flags.txt").read_text(encoding="utf-8").splitlines()
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    return next(line for line in lines if line.startswith("--xla=")), plan["xla"]


def same(one: Run, other: Run, step: int) -> bool:
    """Whether all variables of a checkpoint are the same to the bit."""
    a, b = one.variables(step), other.variables(step)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Two runs that were told which way to go."""
    commands = {
        way: f"{CONSTANT} --train_for=8st --xla={way} --replicas=2" for way in ("on", "off")
    }
    return train_all(tmp_path_factory.mktemp("told"), commands)


@pytest.mark.parametrize(("ratio", "xla"), [("0.5", "on"), ("0.99", "off")])
def test_a_run_trains_the_faster_way_and_keeps_to_it(
    ratio: str, xla: str, told: dict[str, Run], tmp_path: pathlib.Path
) -> None:
    assert not same(told["on"], told["off"], 8)  # or it would show nothing
    run, other = Run(tmp_path / "run"), {"on": "2", "off": "0.5"}[xla]
    out = trained(run.folder, ratio, "--train_for=4st --replicas=2")
    assert f"xla: {'compiled' if xla == 'on' else 'not compiled'}; a pass takes 1 ms" in out
    assert kept(run.folder) == (f"--xla={xla}", xla)
    # Gone on with, on other replicas too, it does not time anything again.
    out = trained(run.folder, other, "--train_for=8st --replicas=4")
    assert "going on from step 4" in out and "a pass takes" not in out and "trained with" not in out
    assert kept(run.folder) == (f"--xla={xla}", xla)
    assert same(run, told[xla], 8)


def test_started_again_before_its_first_checkpoint_it_keeps_to_it_too(
    told: dict[str, Run], tmp_path: pathlib.Path
) -> None:
    run = Run(tmp_path / "run")
    trained(run.folder, "0.5", "--train_for=8st --replicas=2")
    for name in ("checkpoints", "best"):
        shutil.rmtree(run.folder / name, ignore_errors=True)
    (run.folder / "model.keras").unlink()
    trained(run.folder, "2", "--train_for=8st --replicas=2")
    assert same(run, told["on"], 8)


def test_a_choice_is_of_the_same_command_and_never_against_what_was_asked(
    tmp_path: pathlib.Path,
) -> None:
    trained(tmp_path / "run", "0.5", "--train_for=2st")
    plan = (tmp_path / "run/plan.json").read_text(encoding="utf-8")
    others = {"--micro_batch=16": "off", "--train_for=3st": "off", "--deterministic": "off"}
    for number, (flag, xla) in enumerate({"--seed=1": "on", **others}.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "plan.json").write_text(plan, encoding="utf-8")
        out = trained(folder, "2", f"--train_for=2st {flag}")
        assert kept(folder) == (f"--xla={xla}", xla), flag
        assert ("xla            on, as it began" in out) == (xla == "on")


def test_what_auto_was_before_goes_on_compiled() -> None:
    command = read_command(f"{CONSTANT} --train_for=1000st".split())
    plan, devices, _ = plan_command(command)
    state = State(4, {"xla": "auto"}, History(), False, plan.dataset, {}, {})
    assert as_begun(command, plan, devices, Found(4, state))[0].xla == "on"


def test_the_plan_is_that_of_the_run_in_its_folder(tmp_path: pathlib.Path) -> None:
    trained(tmp_path / "run", "0.5", "--train_for=1000st --stop_after=15s")
    flags = f"{CONSTANT} --train_for=1000st --resume=exact --run_dir=run --out=none"
    ended = call(flags, tmp_path, module="launch.plan")
    assert ended.code == 0, ended.err
    assert "xla            on, as it began" in ended.out and "auto" not in ended.out


def test_where_timing_is_refused_or_would_take_long_it_goes_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = SimpleNamespace(train_loop=SimpleNamespace(step=None), task=None, model=None)
    plan = SimpleNamespace(accumulate=1, dataset=None, micro_batch=8, replicas=1)

    def refuse(*_: object) -> None:
        raise ValueError("a label of every class, please")

    monkeypatch.setattr(xla_choice, "timed_pass", refuse)
    assert xla_choice.choose(run, plan, {}, 1000)[1].endswith("to be timed, is refused")
    monkeypatch.setattr(xla_choice, "timed_pass", lambda *_: lambda: 0.2)
    assert xla_choice.choose(run, plan, {}, 1000) == (run, None)  # 200 s
    monkeypatch.setattr(xla_choice, "inputs_spec", lambda *_: time.sleep(0.01))
    monkeypatch.setattr(xla_choice, "why_not", lambda *_: None)
    monkeypatch.setattr(xla_choice, "_COMPILING", 10_000.0)  # so 100 s
    assert "a while for a run of some 400 s" in xla_choice.choose(run, plan, {}, 2000)[1]


def test_what_fails_as_it_is_compiled_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    faster = SimpleNamespace(train_loop=SimpleNamespace(step="compiled"))
    step = SimpleNamespace(step="plain")
    run = SimpleNamespace(train_loop=step, task=None, model=None, compiled=lambda: faster)
    plan = SimpleNamespace(accumulate=1, dataset=None, micro_batch=8, replicas=1)

    def timed_pass(step: str, *_: object) -> object:
        if step == "compiled":
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory\nby a lot")
        return lambda: 1.0

    monkeypatch.setattr(xla_choice, "timed_pass", timed_pass)
    monkeypatch.setattr(xla_choice, "inputs_spec", lambda *_: None)
    monkeypatch.setattr(xla_choice, "why_not", lambda *_: None)
    told = xla_choice.choose(run, plan, {}, 1000)
    assert told == (run, "xla: not compiled, it fails here: out of memory")


def test_the_ratio_is_that_of_the_compiled_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xla_choice, "_TIMED_SECONDS", 0.0)
    assert xla_choice._compare(lambda: 0.2, lambda: 0.1) == (0.5, 200.0)


@pytest.mark.parametrize(
    "name", ["task", "model", "precision", "global_batch", "micro_batch", "steps", "threads"]
)
def test_a_choice_is_not_of_other_work(name: str, tmp_path: pathlib.Path) -> None:
    command = read_command(f"{CONSTANT} --train_for=1000st --run_dir={tmp_path}".split())
    plan = plan_command(command)[0]
    before = plan.to_json() | {"xla": "on"}
    for written, xla in ((before, "on"), (before | {name: "another"}, "")):
        (tmp_path / "plan.json").write_text(json.dumps(written), encoding="utf-8")
        assert begun_xla(command, plan, {}) == xla


def test_what_cannot_be_compiled_goes_without(tmp_path: pathlib.Path) -> None:
    flags = "--train_for=2st --replicas=2 --model=cnn --batch_norm=synchronized"
    out = trained(tmp_path / "run", "0.5", flags)
    assert "xla: not compiled, the synchronized BatchNormalization" in " ".join(out.split())
    assert kept(tmp_path / "run") == ("--xla=off", "off")


TIMES = """
from launch.flags.command import read_command
from launch.process import cli
from launch.training.job import plan_command
command = read_command({flags!r}.split())
plan, devices, sources = plan_command(command)
cli.import_tensorflow(0)
import numpy as np
import tensorflow as tf
from input_pipeline.bad_records import Faults
from launch.training.streams import training_data
from trainer.run import build_run
from trainer.replicas.streams import spec_of_each
from trainer.xla_choice import example, timed_pass

run = build_run(command.settings, plan, devices)
data = training_data(command, plan, sources["train"], 0, Faults(sources["train"]))
spec = spec_of_each(run.stream(data))
print({{name: part.shape.as_list() for name, part in spec.items()}})
made = example(spec)
print(float(made["weight"][0]), int(tf.reduce_max(tf.cast(made["image"], tf.int32))) > 100)
before = [v.numpy() for group in run.variables().values() for v in group.values()]
for step in (run.train_loop.step, run.compiled().train_loop.step):
    print(0 < timed_pass(step, plan.accumulate, spec)() < 60)
after = [v.numpy() for group in run.variables().values() for v in group.values()]
print(all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)))
"""


def test_timing_changes_no_variable() -> None:
    lines = run_program(TIMES.format(flags=f"{CONSTANT} --train_for=1000st --replicas=2"))
    assert lines[0].startswith("{'image': [8, 8, 8, 1]")
    assert lines[1:] == ["1.0 True", "True", "True", "True"]


def test_it_is_really_measured(tmp_path: pathlib.Path) -> None:
    out = trained(tmp_path / "run", "real", "--train_for=2st")
    assert "of that with it (measured in" in " ".join(out.split())
    assert re.search(r"^started in .*build [\d.]+, xla [\d.]+, trace", out, re.M)
