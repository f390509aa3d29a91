"""launch.sweep: the product of settings, side by side, stopped and gone on with, and halved."""

import pathlib
import re
import signal

import numpy as np
import pytest
from helpers import Ended, Run, call, finish, start, wait_until

import launch.sweep
from launch.flags.sweep import parse_set, runs_of
from launch.process.cli import WrongCommandError
from launch.process.side_by_side import Task
from launch.sweep import Sweep, rungs_of
from trainer.run_folder.run_folder import lock

FLAGS = (
    "--dataset=digits --model=mlp --device=cpu --global_batch=64 --lr_scaling=none --xla=off "
    "--train_for=90st --eval_every=10st --checkpoint_every=30st --log_every=10st"
)


def accuracy(run: Run, step: int) -> float:
    return next(row["eval/accuracy"] for row in run.rows("eval/") if row["step"] == step)


def trained(folder: pathlib.Path) -> dict[str, Run]:
    found = {path.parent.name: Run(path.parent) for path in folder.glob("*/metrics.jsonl")}
    return dict(sorted(found.items()))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, list[Ended]]:
    """A sweep of twelve runs, stopped once and killed once."""
    folder, ended = tmp_path_factory.mktemp("sweep"), []
    sets = "--set=learning_rate=0.001,0.1 --set=momentum=0.5,0.9 --seeds=3"
    line = f"{FLAGS} {sets} --jobs=2 --run_dir=s"
    process = start(line, folder, module="launch.sweep")
    wait_until(lambda: len(trained(folder / "s")) >= 2, process)
    process.send_signal(signal.SIGINT)
    ended.append(finish(process))
    process = start(line, folder, module="launch.sweep")
    wait_until(lambda: len(trained(folder / "s")) >= 4, process)
    process.kill()
    ended.append(finish(process))
    ended.append(call(line, folder, module="launch.sweep"))
    return folder, ended


def test_a_sweep_that_was_stopped_and_killed_ends_with_the_right_table(
    swept: tuple[pathlib.Path, list[Ended]],
) -> None:
    folder, (stopped, killed, done) = swept
    assert stopped.code == 75 and "the same command goes on" in stopped.out
    assert killed.code == -signal.SIGKILL and done.code == 0, done.err
    runs = trained(folder / "s")
    names = {
        f"learning_rate={rate},momentum={momentum},seed={seed}"
        for rate in ("0.001", "0.1")
        for momentum in ("0.5", "0.9")
        for seed in (0, 1, 2)
    }
    assert set(runs) == names
    table = done.out[done.out.index("learning_rate  momentum") :].splitlines()[1:5]
    said = {tuple(line.split()[:2]): line for line in table}
    assert len(said) == 4
    means = []
    for line in table:
        rate, momentum = line.split()[:2]
        values = [
            accuracy(runs[f"learning_rate={rate},momentum={momentum},seed={seed}"], 90)
            for seed in (0, 1, 2)
        ]
        assert f"{np.mean(values):.2%} ± {np.std(values, ddof=1):.2%}" in line
        assert "3 finished" in line
        means.append(np.mean(values))
    assert means == sorted(means, reverse=True)
    assert max(map(len, table)) <= 80
    assert (folder / "s" / "report.html").stat().st_size > 10_000
    # Other settings, and other seeds, are other runs.
    losses = [run.rows("train/")[-1]["train/loss"] for run in runs.values()]
    assert len(set(losses)) == 12


def test_a_run_of_a_sweep_is_that_of_its_command(
    swept: tuple[pathlib.Path, list[Ended]],
) -> None:
    folder, _ = swept
    flags = f"{FLAGS} --learning_rate=0.1 --momentum=0.9 --seed=1 --run_dir=alone"
    assert call(flags, folder).code == 0
    same = Run(folder / "s" / "learning_rate=0.1,momentum=0.9,seed=1")
    assert same.rows_without_times() == Run(folder / "alone").rows_without_times()


def test_halving_finds_the_best_of_the_grid_for_less_than_half_of_it(
    tmp_path: pathlib.Path,
) -> None:
    line = f"{FLAGS} --set=learning_rate=0.0001,0.0003,0.001,0.003,0.01,0.03,0.1,0.3,1 --run_dir=s"
    ended = call(f"{line} --halving --jobs=2", tmp_path, module="launch.sweep")
    assert ended.code == 0, ended.err
    runs = trained(tmp_path / "s")
    steps = {name: run.rows("eval/")[-1]["step"] for name, run in runs.items()}
    assert sorted(steps.values()) == [10] * 6 + [30] * 2 + [90]
    at_10 = sorted(runs, key=lambda name: accuracy(runs[name], 10), reverse=True)
    assert {name for name, step in steps.items() if step > 10} == set(at_10[:3])
    assert sum(steps.values()) < 9 * 90 / 2
    (best,) = [name for name, step in steps.items() if step == 90]
    assert accuracy(runs[best], 90) > 0.9
    # Again: nothing is left to do.
    again = call(f"{line} --halving", tmp_path, module="launch.sweep")
    assert (
        again.code == 0
        and {name: run.rows("eval/")[-1]["step"] for name, run in trained(tmp_path / "s").items()}
        == steps
    )


def test_the_product_of_what_is_set() -> None:
    runs = runs_of(["a=1,2", "b=step(3ep:0.1,6ep:0.1),cosine"], 1, 0)
    assert [run.flags() for run in runs] == [
        ["--a=1", "--b=step(3ep:0.1,6ep:0.1)"],
        ["--a=1", "--b=cosine"],
        ["--a=2", "--b=step(3ep:0.1,6ep:0.1)"],
        ["--a=2", "--b=cosine"],
    ]
    assert all(re.fullmatch(r"[\w=.,+-]+", run.name) for run in runs)
    assert len({run.name for run in runs}) == 4
    seeds = runs_of(["a=1"], 3, 5)
    assert [run.seed for run in seeds] == [5, 6, 7] and seeds[0].flags() == ["--a=1", "--seed=5"]
    assert parse_set("--rate = 1 , 2") == ("rate", ["1", "2"])
    # What is too long for a folder's name is told apart behind where that is cut.
    long = runs_of([f"a={'/x' * 100}1,{'/x' * 100}2"], 2, 0)
    assert len({run.name for run in long}) == 4 and max(len(run.name) for run in long) < 200
    assert [run.flags() for run in runs_of(["seed=3,4"], 1, 0)] == [["--seed=3"], ["--seed=4"]]


def test_a_second_sweep_in_the_folder_of_one_is_told_how_to_end_that(
    tmp_path: pathlib.Path,
) -> None:
    line = f"{FLAGS} --set=momentum=0.5 --run_dir={tmp_path}"
    with lock(tmp_path), pytest.raises(WrongCommandError, match="end it by Ctrl-C"):
        launch.sweep.main(line.split())


def test_a_run_that_another_process_trains_is_waited_for_with_a_word(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    sweep, task = Sweep(tmp_path, [], {}), Task("run", [], tmp_path / "run.log")
    with lock(tmp_path / "run"):
        assert not sweep.is_free(task) and not sweep.is_free(task)
    assert capsys.readouterr().out == "run: another process trains it, which is waited for\n"
    assert sweep.is_free(task)


def test_names_are_folders() -> None:
    (long,) = runs_of([f"a={'x' * 300}"], 1, 0)
    assert len(long.name) == 159 and long.flags() == [f"--a={'x' * 300}"]
    with pytest.raises(ValueError, match="would have the same folder, a=x_: --a=x/ and "):
        runs_of(["a=x/,x!"], 1, 0)
    (ends,) = runs_of(["init_from=.."], 1, 0)
    assert ends.name == "init_from="
    with pytest.raises(ValueError, match=r"the sweep has 1,001 runs; give .* at most 1,000\."):
        runs_of(["a=1"], 1_001, 0)
    assert len(runs_of(["a=1"], 1_000, 0)) == 1_000


@pytest.mark.parametrize(
    ("settings", "rungs"),
    [(1, [1]), (2, [1]), (3, [1 / 3, 1]), (8, [1 / 3, 1]), (9, [1 / 9, 1 / 3, 1])]
    + [(100, [1 / 9, 1 / 3, 1])],
)
def test_how_often_a_sweep_is_cut_to_a_third(settings: int, rungs: list[float]) -> None:
    assert rungs_of(settings) == pytest.approx(rungs)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "--set is missing"),
        ("--set=learning_rate", "is no flag with its values"),
        ("--set=learning_rate=", "is no flag with its values"),
        ("--set=learning_rate=1,,2", "is no flag with its values"),
        ("--set=momentum=0.1 --set=momentum=0.2", "give each flag once"),
        ("--set=run_dir=a,b", "no run_dir"),
        ("--set=seed=1,2 --seeds=2", "both vary the seed"),
        ("--set=momentum=0.1,0.1", "give each value once"),
        ("--set=dataset=folder:a/b,folder:a_b", "--dataset=folder:a/b and --dataset=folder:a_b"),
        ("--set=learning_rat=1", "the run learning_rat=1 cannot be: "),
        ("--set=momentum=0.1,2", "the run momentum=2 cannot be: "),
        ("--set=momentum=0.1,0.2,0.3 --halving --eval_every=50%", "give --eval_every=10%"),
    ],
)
def test_a_wrong_sweep_is_a_sentence(tmp_path: pathlib.Path, line: str, said: str) -> None:
    with pytest.raises(WrongCommandError) as error:
        launch.sweep.main([*FLAGS.split(), f"--run_dir={tmp_path}/s", *line.split()])
    assert said in str(error.value)


def test_other_flags_are_another_sweep(swept: tuple[pathlib.Path, list[Ended]]) -> None:
    folder, _ = swept
    line = [*FLAGS.split(), f"--run_dir={folder}/s", "--set=momentum=0.5", "--clip_norm=1"]
    with pytest.raises(WrongCommandError, match="whose runs share other flags"):
        launch.sweep.main(line)
    line[-3] = f"--run_dir={folder}/s/learning_rate=0.1,momentum=0.9,seed=1"
    with pytest.raises(WrongCommandError, match="holds a run; give the sweep another --run_dir"):
        launch.sweep.main(line)
