"""A report says what the runs have logged, whatever their folders hold."""

import fcntl
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from helpers import REPOSITORY

from launch import report
from launch import runs as runs_command
from launch.process.cli import WrongCommandError
from launch.reports.evaluation import NUMBERS, picture_url
from tests.launch.reports.real_runs import ODD, data_of, line_of, rows_of, write_row


def made(out: pathlib.Path, *folders: pathlib.Path) -> str:
    """The page of these runs."""
    assert report.main([*map(str, folders), f"--out={out}"]) == 0
    return out.read_text(encoding="utf-8")


def copied(run: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(run, to / run.name))


def test_the_curves_are_those_of_the_log(runs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folders = [runs / "slow", runs / "resumed"]
    data = data_of(made(tmp_path / "report.html", *folders))
    for run, folder in enumerate(folders):
        rows = [row for row in rows_of(folder) if "event" not in row]
        for title, kind, name in (
            ("Loss", "train", "train/loss"),
            ("Loss", "eval", "eval/loss"),
            ("Accuracy", "eval", "eval/accuracy"),
            ("Learning rate", "", "learning_rate"),
        ):
            logged = {row["step"]: row[name] for row in rows if name in row}
            assert line_of(data, title, run, kind) == pytest.approx(logged, rel=1e-5)
    assert len(data["runs"][1]["clock"]["s"]) == len(rows_of(folders[1]))
    applied, planned = (line_of(data, "Learning rate", 0, kind) for kind in ("", "plan"))
    assert {step: planned[step] for step in applied} == pytest.approx(applied, rel=1e-5)


def test_what_happened_is_told(runs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = copied(runs / "resumed", tmp_path)
    write_row(
        folder, step=88, event="rollback", **{"from": 88, "to": 60}, factor=0.5, why="a spike"
    )
    write_row(folder, step=89, event="something new", size=3, secret=None)
    write_row(folder, step=90, event="time", wall_s=20.0, goodput=0.4, compute_s=8.0, trace_s=12.0)
    page = made(tmp_path / "report.html", folder)
    events = [event["x"] for event in data_of(page)["runs"][0]["events"]]
    assert len(events) == 4, events
    assert events[0] == "went on with --train_for 2ep → 4ep"
    assert events[1].startswith("went on in a new process")
    assert events[2] == "went back from step 88 to 60, rate × 0.5: a spike"
    assert events[3] == "something new: size 3"
    shown = page.split("<script")[0]  # of the rate, and of all events
    assert shown.count("went on with --train_for 2ep → 4ep") == 2
    assert "60.0%, 12 s" in page and "40.0%, 8.0 s" in page
    assert "0.2 = 0.2, none: not scaled with the batch" in page


def test_an_evaluation_is_shown_and_its_picture_said_in_words(
    runs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (file,) = (runs / "resumed").glob(f"evaluation/*/{NUMBERS}")
    numbers = json.loads(file.read_text())
    page = made(tmp_path / "report.html", runs / "resumed")
    for one in numbers["per_class"]:
        assert f"{one['recall']:.1%}</td>" in page
    wrong = [count for label, answer, count in numbers["confusion"] if label != answer]
    assert page.count('<td class="miss"') == len(wrong) > 0
    worst = numbers["worst"][0]
    assert f"is {worst['class']}, taken for {worst['answer']}" in page.split('alt="')[1][:200]
    file.with_name("wide.png").write_bytes(file.with_name("mistakes.png").read_bytes())
    assert len(picture_url(file.with_name("wide.png"), 20_000)) <= 20_100
    folder = copied(runs / "resumed", tmp_path)
    (file,) = folder.glob(f"evaluation/*/{NUMBERS}")
    older = file.parent.with_name("older") / NUMBERS
    older.parent.mkdir()
    older.write_text(json.dumps(numbers | {"confusion": [[0, 77, 1.0]]}))
    os.utime(older, (1, 1))
    said = "confuses classes that it does not have"
    assert said not in made(tmp_path / "report.html", folder)
    for pair in ([0, 77, 1.0], [77, 0, 1.0], [0, len(numbers["per_class"]), 1.0]):
        file.write_text(json.dumps(numbers | {"confusion": [pair]}))
        assert said in made(tmp_path / "report.html", folder)


def test_a_name_is_text_wherever_it_stands(runs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    page = made(tmp_path / "report.html", runs / ODD, runs / "slow")
    assert "<img" not in page and "<b>" not in page.split("<script>")[0]
    assert page.count("</script>") == 2
    data = data_of(page)
    assert data["runs"][0]["name"] == ODD
    assert data["runs"][0]["events"][0]["x"].endswith("</script><b>bold</b>")


def long_log(folder: pathlib.Path, rows: int) -> None:
    """A log of many rows: a spike, a gap, and what no run writes but Python reads."""
    lines = []
    for step in range(1, rows + 1):
        values = {f"train/{name}": math.sin(step / 9 + n) for n, name in enumerate("abcdefgh")}
        values |= {"train/loss": 1 / step, "learning_rate": 0.1}
        if step == rows // 3:
            values["train/loss"] = 777.0
        if step == rows // 2:
            values |= {"train/loss": None, "train/a": math.inf, "train/b": math.nan, "train/c": "x"}
        lines.append(json.dumps({"step": step, "epoch": step / 9, "seconds": step / 3, **values}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_thousands_of_rows_are_thinned_out_and_no_extreme_is_lost(
    runs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = copied(runs / "slow", tmp_path)
    long_log(folder, 6_000)
    copies = [shutil.copytree(folder, tmp_path / f"copy-{n}") for n in range(9)]
    page = made(tmp_path / "report.html", folder, *copies)
    assert len(page.encode()) < 2_000_000
    data = data_of(page)
    loss = line_of(data, "Loss", 3, "train")
    assert len(loss) < 1_600
    assert loss[2_000] == 777.0 and loss[3_000] is None and loss[1] == 1.0 and 6_000 in loss
    for name in "ABC":
        assert line_of(data, name, 0, "train")[3_000] is None


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.jsonl", "", "slow has logged nothing yet"),
        ("metrics.jsonl", None, "slow has logged nothing yet"),
        ("metrics.jsonl", '{"step": 1, "train/loss": 2.5}\nnonsense\n{"step": -1}\n[]\n', "line 2"),
        ("metrics.jsonl", '{"step": 1, "train/loss": 2.5}\n{"step": 2, "tr', '"v":[2.5]'),
        ("plan.json", "{}", "plan.json has no"),
        ("plan.json", "[" * 5000, "plan.json is not JSON"),
        ("flags.txt", '--seed="', "flags.txt"),
        ("control/status.json", "{", "finished"),
    ],
)
def test_a_damaged_file_is_told_and_the_rest_is_shown(
    runs: pathlib.Path, tmp_path: pathlib.Path, file: str, content: str | None, said: str
) -> None:
    folder = copied(runs / "slow", tmp_path)
    (folder / file).unlink() if content is None else (folder / file).write_text(content)
    page = made(tmp_path / "report.html", folder, runs / "resumed")
    assert said in page and "resumed" in page


def test_the_state_is_that_of_the_folder(runs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def state(folder: pathlib.Path) -> str:
        return made(tmp_path / "report.html", folder).split('class="state ')[1].split('"')[0]

    folder = copied(runs / "slow", tmp_path)
    assert state(folder) == "finished"
    with (folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert state(folder) == "running"
    (folder / "model.keras").unlink()
    assert state(folder) == "stopped"
    write_row(folder, step=68, event="diverged", what="the loss is not finite")
    assert state(folder) == "diverged"
    write_row(folder, step=70, **{"train/loss": 1.0})
    assert state(folder) == "stopped"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give the folders of one or more runs"),
        (["."], "there are some in it: "),
        (["nowhere"], "nowhere holds no run; give the --run_dir of one."),
        (["slow", "--out=slow/flags.txt"], "holds something else; give a new file."),
        (["slow", "--out=nowhere/x.html"], "give a file in a folder that exists"),
        (["slow", "--ot=x.html"], "Unknown command line flag"),
        ([f"{n}/../slow{'/.' * n}" for n in range(41)], "give the --run_dir"),
    ],
)
def test_a_wrong_command_is_a_sentence(
    runs: pathlib.Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(runs)
    before = (runs / "slow/flags.txt").read_bytes()
    with pytest.raises(WrongCommandError) as error:
        report.main(arguments)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert (runs / "slow/flags.txt").read_bytes() == before


def test_the_report_goes_beside_one_run_and_here_for_several(
    runs: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(runs / "slow", tmp_path)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # its own file is written over
        assert report.main([str(folder)]) == 0
    assert (folder / "report.html").exists() and not pathlib.Path("report.html").exists()
    assert report.main([str(folder), str(runs / "slow"), str(folder / ".")]) == 0
    assert [run["name"] for run in data_of(pathlib.Path("report.html").read_text())["runs"]] == [
        f"{tmp_path.name}/slow",
        "runs/slow",
    ]


def test_the_table_fits_80_columns_and_a_wide_one_has_more(
    runs: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown, two = {}, tmp_path / "two"
    for name in ("slow", "resumed"):
        shutil.copytree(runs / name, two / name)
    for width in ("80", "160", ""):
        monkeypatch.setenv("COLUMNS", width)
        assert runs_command.main([str(two)]) == 0
        shown[width] = capsys.readouterr().out
        assert max(map(len, shown[width].splitlines())) <= int(width or 80)
    assert shown[""] == shown["80"]
    for name in ("run", "state", "step", "accuracy", "best", "time", "learning_rate"):
        assert name in shown["80"].split("\n")[0]
    assert "eval loss" not in shown["80"].split("\n")[0] and "--json" in shown["80"]
    assert "eval loss" in shown["160"].split("\n")[0] and "not shown" not in shown["160"]
    assert runs_command.main([str(runs)]) == 0  # with a name that is too long
    monkeypatch.setenv("COLUMNS", "40")
    assert runs_command.main([str(runs)]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_runs_as_json_and_sorted(runs: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs_command.main([str(runs.parent), "--json", "--sort=best", "--reverse"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert pathlib.Path(found[0]["folder"]).name == "resumed"
    evaluated = [row for row in rows_of(runs / "resumed") if "eval/accuracy" in row]
    best = max(evaluated, key=lambda row: row["eval/accuracy"])
    assert (found[0]["best"], found[0]["best_step"]) == (best["eval/accuracy"], best["step"])
    assert found[0]["final"] == evaluated[-1]["eval/accuracy"]
    assert found[0]["loss"] == evaluated[-1]["eval/loss"]
    assert found[0]["seconds"] == max(row["seconds"] for row in rows_of(runs / "resumed"))
    assert found[0]["state"] == "finished" and found[0]["flags"]["model"] == "mlp"
    assert found[0]["differ"]["train_for"] == "4ep" and "model" not in found[0]["differ"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["slow/best"], "slow/best holds no run"),
        (["slow", "resumed"], "give one folder"),
        ([".", "--sort=bst"], "did you mean best?"),
    ],
)
def test_runs_of_a_wrong_command(
    runs: pathlib.Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(runs)
    with pytest.raises(WrongCommandError, match=said.replace("?", r"\?")):
        runs_command.main(arguments)


def test_help_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for main in (report.main, runs_command.main):
        assert main(["--helpfull"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80 and "--flagfile" not in lines[0]


def test_neither_command_loads_tensorflow(runs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    program = (
        "import sys; from launch import report, runs\n"
        f"assert report.main([{str(runs / 'resumed')!r}, '--out={tmp_path}/x.html']) == 0\n"
        f"assert runs.main([{str(runs)!r}]) == 0\n"
        "assert not {'tensorflow', 'keras', 'tensorboard', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY)
