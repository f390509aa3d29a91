"""launch.benchmark: the parts of a step, its scaling and the verdict on it, by what was planted."""

import dataclasses
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from helpers import REPOSITORY, finish, start, wait_until
from PIL import Image

from launch import benchmark
from launch.flags.command import read_command
from launch.process import cli
from launch.terminal.benchmark_text import checkpoint_text, input_text, scaling_text, step_text
from launch.terminal.scaling_chart import save_chart
from launch.terminal.scaling_verdict import verdict
from launch.training.job import plan_command
from launch.training.parts import CheckpointParts, InputParts, StepParts
from launch.training.trial import Trial
from trainer.plan.plan import Plan

RECIPE = (
    "--device=cpu --dataset=python:planted_data:digits --model=python:planted:network "
    "--global_batch=16 --xla=off --steps_per_loop=1 --seconds=1"
)
DIGITS = "--dataset=digits --model=mlp --global_batch=64 --device=cpu"
TRIAL = Trial({"imports": 3.0, "build": 1.5}, 200, 10.0, 0.01, 3 * 10**9, 0, "off")
# What is planted, in milliseconds, and what the verdict says of it. A network that takes as long as
# it has examples is twice as fast on two replicas.
PLANTED = {
    "nothing": ({"AN_EXAMPLE": 20}, ""),
    "data": ({"AN_EXAMPLE": 5, "A_RECORD": 15}, r"waits \d\d% of its time for data"),
    "sum": ({"AN_EXAMPLE": 10, "A_SUM": 150}, r"\d\d% of each step is the all-reduce"),
    "network": ({"A_STEP": 200}, "too few of them; a larger --global_batch"),
}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_command(read_command(DIGITS.split()))[0]


def time_planted(folder: pathlib.Path, what: str) -> dict[str, Any]:
    """What `scaling` says where this is planted."""
    env = {name: str(ms) for name, ms in PLANTED[what][0].items()}
    command = f"scaling {RECIPE} --replicas=1,2 --json"
    env["PYTHONPATH"] = f"{REPOSITORY}:{REPOSITORY / 'tests'}"
    ended = finish(start(command, folder, env, module="launch.benchmark"))
    assert ended.code == 0, ended.err
    assert Image.open(folder / "scaling.png").size[0] > 900
    return json.loads(ended.out)


STORIES = {what: functools.partial(time_planted, what=what) for what in PLANTED}


@pytest.mark.parametrize("story", STORIES)
def test_scaling_names_the_cause_that_was_planted(story: str, stories: dict[str, Any]) -> None:
    (planted, said), found = PLANTED[story], stories[story]
    assert len(found["verdict"]) == bool(said), found["verdict"]
    assert re.search(said, "".join(found["verdict"])), found["verdict"]
    assert [one["replicas"] for one in found["strong"] + found["weak"]] == [1, 2, 1, 2]
    assert [one["global_batch"] for one in found["strong"] + found["weak"]] == [16, 16, 16, 32]
    # What was planted is what was measured, but for what a busy machine adds.
    two = found["strong"][1]
    for part, milliseconds in (
        ("network", planted.get("A_STEP", 0) + 8 * planted.get("AN_EXAMPLE", 0)),
        ("data", 16 * planted.get("A_RECORD", 0)),
        ("all_reduce", planted.get("A_SUM", 0)),
    ):
        # A batch that has been read ahead comes at once.
        assert 0.95 * milliseconds <= 1000 * two[part] + 1 <= 1.3 * milliseconds + 40, part


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
        gradient_dtype="float32",
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


def test_nothing_is_advised_that_is_done_already() -> None:
    sums = [ONE, dataclasses.replace(cell(2, 50, 60), gradient_dtype="bfloat16")]
    (said,) = verdict(sums, WEAK, cores=8)
    assert said.endswith("a larger --global_batch has fewer of them.")
    assert "gradient_dtype=bfloat16" in verdict([ONE, cell(2, 50, 60)], WEAK, cores=8)[0]
    compiled = dataclasses.replace(cell(2, 90), trial=dataclasses.replace(TRIAL, xla="on"))
    held_up = [ONE, cell(2, 180, batch=128)]
    assert "(more --steps_per_loop)" in verdict([ONE, compiled], held_up, cores=8)[0]
    assert "(--xla=on, more" in verdict([ONE, cell(2, 90)], held_up, cores=8)[0]


def test_the_times_that_are_missed_are_rounded() -> None:
    (said,) = verdict([cell(3, 100), cell(4, 95)], [], cores=8)
    assert "4 replicas are 1.05 times as fast as 3, not 1.33 times:" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--flagfile=digits", "say first what to time, scaling, step, input, checkpoint or"),
        ("scalling --flagfile=digits", r".scalling. cannot be timed \(did you mean scaling\?\)"),
        ("step extra --flagfile=digits", "unexpected argument 'extra'"),
        ("step --flagfile=digits --replicas=1,2", "are several, which are for"),
        ("scaling --flagfile=digits --replicas=1,x", "no list of numbers of replicas"),
        ("scaling --flagfile=digits --replicas=1,0", "no list of numbers of replicas"),
        ("scaling --flagfile=digits --replicas=00,2", "no list of numbers of replicas"),
        ("scaling --flagfile=digits --replicas=1", "give --replicas=1,2,4"),
        ("scaling --flagfile=digits --replicas=1,3", "128 .* 3"),
        ("scaling --flagfile=digits --out=nowhere/x.png", "a folder that exists"),
        ("scaling --flagfile=digits --out=none --replicas=1,2 --seconds=0", "give more"),
        ("input --flagfile=digits --dataset=nothing", "nothing"),
    ],
)
def test_a_wrong_command_is_a_sentence(arguments: str, said: str) -> None:
    with pytest.raises(cli.WrongCommandError, match=said):
        benchmark.main(arguments.split())


@pytest.mark.parametrize(
    ("given", "replicas", "cells"),
    [
        ("--replicas=4", [1, 2, 4], 5),
        ("--replicas=6 --global_batch=96", [1, 2, 4, 6], 7),
        ("--replicas=2,1,2", [1, 2], 3),
        ("", [1, 2], 3),
    ],
)
def test_which_numbers_of_replicas_are_timed(
    tmp_path: pathlib.Path, given: str, replicas: list[int], cells: int
) -> None:
    arguments = [*DIGITS.split(), *given.split(), f"--out={tmp_path}/x.png"]
    values = benchmark.define_benchmark_flags()
    recipe = benchmark.read_recipe("scaling", arguments, values, tmp_path)
    assert recipe.replicas == replicas and len(recipe.cells()) == cells
    batch = recipe.plan.global_batch
    assert recipe.cells()[-1] == ("weak", replicas[-1], batch * replicas[-1])


def test_tables_fit_a_terminal_and_a_picture_is_drawn(tmp_path: pathlib.Path, plan: Plan) -> None:
    strong = [cell(n, 12_345 / n, 8.9, 123.4, batch=65_536) for n in (1, 2, 4, 8, 1024)]
    weak = [dataclasses.replace(one, global_batch=99_999) for one in strong]
    text = scaling_text(plan, strong, weak, verdict(strong, weak, 8))
    assert max(map(len, text.splitlines())) <= 80
    save_chart(plan, strong, weak, tmp_path / "scaling.png")
    assert Image.open(tmp_path / "scaling.png").size[0] > 900


@pytest.mark.parametrize("factor", [1, 1000])
def test_columns_stand_below_each_other_whatever_the_numbers(plan: Plan, factor: int) -> None:
    strong = [cell(n, 70_000 * factor / n, batch=1_048_576) for n in (1, 2)]
    slow = [cell(n, 1_000 * factor, batch=2 * n) for n in (1, 2)]
    for cells in (strong, slow):
        heading, *rows = scaling_text(plan, cells, [], []).splitlines()[3:]
        assert {len(row) for row in rows} == {len(heading)} and len(heading) <= 80
        rate = heading.index("examples/s")
        shown = float(rows[0][rate : rate + 10].replace(",", ""))
        assert shown == pytest.approx(cells[0].global_batch / cells[0].step, rel=0.05)


def test_a_long_name_of_the_data_is_wrapped(plan: Plan) -> None:
    long = dataclasses.replace(plan, dataset=dataclasses.replace(plan.dataset, name="a" * 70))
    assert max(map(len, scaling_text(long, [ONE], [], []).splitlines())) <= 80


def test_what_cannot_be_timed_is_told_and_the_others_are_not_lost(tmp_path: pathlib.Path) -> None:
    (tmp_path / "own.py").write_text(
        "import keras\n"
        "def network(spec):\n"
        "    images = keras.Input(spec.shape, dtype=spec.dtype)\n"
        "    x = keras.layers.Rescaling(1 / 255)(keras.layers.Flatten()(images))\n"
        "    return keras.Model(images, keras.layers.Dense(spec.outputs)(Small()(x)))\n"
        "class Small(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        if (x.shape[0] or 0) > 32:\n"
        "            raise MemoryError('no memory for so many')\n"
        "        return x\n"
    )
    env = {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}
    command = f"scaling {DIGITS} --model=python:own:network --xla=off --replicas=1,2 --seconds=0.2"
    ended = finish(start(command, tmp_path, env, module="launch.benchmark"))
    said = " ".join(ended.out.split())
    assert ended.code == cli.FAILED and ended.err == "", ended.err
    assert "3/3" in said and "failed 1 replica, batch 64: " in said
    assert "failed 2 replicas, batch 128: " in said and "out of memory" in said
    assert re.search(r" times of ideal .* 2 64 [\d,]+ 1\.00 100% ", said), said
    assert "weak scaling" not in said
    assert Image.open(tmp_path / "scaling.png").size[0] > 900


ENDS = """
import dataclasses, os, pathlib, signal
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source

def tried():
    return "launch.training" in pathlib.Path("/proc/self/cmdline").read_text()

def killed(split):
    if tried():
        os.kill(os.getpid(), signal.SIGKILL)
    return open_source(DataSettings("digits"), split)

def wrong(split):
    def read(records):
        raise ValueError("a first line\\nand a second one")
    return dataclasses.replace(open_source(DataSettings("digits"), split), read=read)
"""


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("killed", r"ended by SIGKILL \(as where there is no memory left\)"),
        ("wrong", r"ended with 70: .*a first line\nand a second one"),
    ],
)
def test_how_a_trial_has_ended_is_told(tmp_path: pathlib.Path, which: str, said: str) -> None:
    (tmp_path / "own.py").write_text(ENDS)
    env = {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}
    command = f"step --dataset=python:own:{which} --model=mlp --device=cpu"
    ended = finish(start(command, tmp_path, env, module="launch.benchmark"))
    assert ended.code == cli.FAILED and re.search(said, ended.err), ended.err


def test_sigterm_ends_it_behind_a_scripts_ampersand_too(tmp_path: pathlib.Path) -> None:
    command = f"{sys.executable} -m launch.benchmark step {DIGITS} --seconds=60"
    env = os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)}
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # So a shell starts what does not stand in front: it does not hear Ctrl-C.
    command = f"trap '' INT; exec {command}"
    with subprocess.Popen(["sh", "-c", command], cwd=tmp_path, env=env, **quiet) as process:
        try:
            assert "timing a step" in process.stdout.readline()
            wait_until(lambda: any(tmp_path.glob("trial-*/run")), process)
            process.terminate()
            assert process.wait(30) == cli.STOPPED
        finally:
            process.kill()
        assert process.stderr.read() == "stopped before its end\n"
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_written_in_the_end_loses_no_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, plan: Plan
) -> None:
    (tmp_path / "out").mkdir()
    given = [*DIGITS.split(), f"--out={tmp_path / 'out' / 'x.png'}"]
    values = benchmark.define_benchmark_flags()
    recipe = benchmark.read_recipe("scaling", given, values, tmp_path)
    (tmp_path / "out").rmdir()
    monkeypatch.setattr(benchmark, "run_step", lambda argv, seconds: ONE)
    text, found = benchmark.time_scaling(recipe, lambda line: None)
    assert "strong scaling" in text
    assert "x.png: No such file or directory" in " ".join(text.split())
    assert len(found["strong"]) == 2 and len(found["failed"]) == 1


@pytest.mark.parametrize(("given", "code"), [("", cli.FAILED), ("--max_bad_records=6", 0)])
def test_data_alone_may_have_no_more_bad_records_than_training(
    tmp_path: pathlib.Path, given: str, code: int
) -> None:
    for number in range(12):
        file = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(file)
        if number % 2:
            file.write_bytes(file.read_bytes()[:300])
    command = "input --dataset=folder:pictures --holdout=25% --image_size=8 --global_batch=2"
    ended = finish(
        start(f"{command} {given} --device=cpu --seconds=0.1", tmp_path, module="launch.benchmark")
    )
    assert ended.code == code, ended.err
    assert (".png" in ended.err) == bool(code) and ("examples/s" in ended.out) == (not code)


@pytest.mark.parametrize(("length", "xla"), [("999st", "off"), ("1000st", "auto")])
def test_what_is_timed_is_compiled_as_the_recipe_itself_would_be(
    tmp_path: pathlib.Path, length: str, xla: str
) -> None:
    given = [*DIGITS.split(), f"--train_for={length}", "--out=none", "--cluster=auto"]
    for kind in ("step", "startup"):
        values = benchmark.define_benchmark_flags()
        recipe = benchmark.read_recipe(kind, given, values, tmp_path)
        assert (recipe.own.xla, recipe.plan.xla) == (xla, xla)
        assert "--cluster=none" in recipe.file.read_text(encoding="utf-8").splitlines()
        assert (recipe.plan.last_step > 10**6) == (kind == "step")


def test_what_is_known_of_fewer_replicas_is_compared_with_theirs() -> None:
    """Where one replica has no memory, weak scaling's batches are still those of one."""
    strong = [cell(2, 50), cell(4, 45)]
    weak = [cell(2, 100, batch=128), cell(4, 101, batch=256)]
    assert "too few of them" in verdict(strong, weak, cores=8)[0]


def test_what_is_told_of_one_step(plan: Plan) -> None:
    text = step_text(plan, cell(2, 40, 5, 5, batch=64), cores=2)
    assert "50.0 ms, 1,280 examples/s; not compiled" in text
    assert "40.0 ms, 80%: forward, backward, the update, of 2 × 32 examples" in text
    assert "5.00 ms, 10%: over 2 replicas, of 25,000,000 numbers" in text
    assert "16,000 examples/s come with nothing beside" in " ".join(text.split())
    assert "3 GB at most" in text and "verdict" not in text
    assert "sum" not in step_text(plan, cell(1, 40), cores=2)
    waits = dataclasses.replace(plan, device="GPU")
    assert "input-bound: 50%" in step_text(waits, cell(2, 40, 0, 40), cores=8)


def test_what_is_told_of_data_and_checkpoints(plan: Plan) -> None:
    text = input_text(plan, InputParts(10_000, 5.0, 7.5, 0.25, 98_000), cores=2)
    assert "2,000 examples/s of 98 kB, 196 MB/s" in text
    assert "every 32.0 ms" in text and "0.75 ms an example, 1.5 of 2 cores" in text
    saves = CheckpointParts(step=0.05, bytes=10**8, pause=0.01, written=0.5, restored=0.3)
    by_steps = dataclasses.replace(plan, checkpoint_every=200, checkpoint_seconds=None)
    text = " ".join(checkpoint_text(by_steps, saves).split())
    assert "100 MB" in text and "200 MB/s" in text and "300.0 ms, every byte verified" in text
    assert "200 steps, 10.0 s: the pauses are 0.10%" in text and "5.0 s of it" in text
    assert "save less often" not in text
    often = dataclasses.replace(by_steps, checkpoint_every=2)
    assert "save less often" in checkpoint_text(often, saves)
    by_clock = dataclasses.replace(plan, checkpoint_seconds=600.0)
    assert "10 min 00 s: the pauses" in " ".join(checkpoint_text(by_clock, saves).split())
    never = dataclasses.replace(by_steps, checkpoint_every=0)
    assert "every  " not in checkpoint_text(never, saves)
