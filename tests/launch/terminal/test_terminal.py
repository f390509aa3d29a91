"""What a person sees: nothing but the run, and a help that fits."""

import os
import pathlib
import re

from helpers import Run, call, finish, start


def test_a_successful_run_prints_nothing_on_stderr(
    sgd_runs: dict[str, Run], adamw_runs: dict[str, Run], mlp_runs: dict[str, Run]
) -> None:
    for run in (*sgd_runs.values(), *adamw_runs.values(), *mlp_runs.values()):
        assert run.ended.err == ""


def test_the_plan_comes_first_the_progress_next_and_the_summary_last(
    sgd_runs: dict[str, Run],
) -> None:
    lines = sgd_runs["4"].ended.out.splitlines()
    # Where there are fewer cores, it says so.
    assert lines[0].startswith("devices        4 logical CPU devices")
    assert "batch          64 = 4 replicas × 2 micro-batches × 8" in lines
    first = next(n for n, line in enumerate(lines) if line.startswith("step 1/50 "))
    plan = "\n".join(lines[:first])
    for fragment in ("1,437 to train, 360 to evaluate", "50 steps", "warmup linear: steps 1–10"):
        assert fragment in plan
    order = "order all records permuted anew every epoch; each replica reads 8 of every 32 examples"
    assert order in " ".join(plan.split())
    assert max(map(len, lines[:first])) <= 80
    assert sum(line.startswith("step ") and "/50 " in line for line in lines) == 50
    assert re.match(r"look at it     \S*tensorboard --logdir \S+$", lines[-1])


def test_a_reader_that_leaves_early_is_no_mistake(tmp_path: pathlib.Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as `| head -0` does
    process = start("--device=cpu --out=none", tmp_path, module="launch.plan", stdout=writing)
    os.close(writing)
    ended = finish(process)
    assert (ended.code, ended.err) == (0, "")


def test_help_is_grouped_and_fits_on_a_screen(tmp_path: pathlib.Path) -> None:
    ended = call("--help", tmp_path)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    groups = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert groups[:6] == [
        "run:",
        "devices:",
        "data:",
        "model:",
        "learning rate:",
        "optimizer:",
    ]
    assert len(lines) <= 60  # a screen and a half of 40 lines
    assert max(map(len, lines)) <= 80
    for name in ("run_dir", "learning_rate", "replicas", "clip_norm"):
        assert f"\n  --{name}=" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_helpfull_says_more_about_more_flags(tmp_path: pathlib.Path) -> None:
    short, full = (call(flag, tmp_path) for flag in ("--help", "--helpfull"))
    assert (full.code, full.err) == (0, "")

    def flags(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("  --")]

    assert set(flags(short.out)) < set(flags(full.out))
    assert "--shuffle_block=0" not in short.out and "--shuffle_block=0" in full.out
    assert len(full.out) > len(short.out) + 500
    assert max(map(len, full.out.splitlines())) <= 80
