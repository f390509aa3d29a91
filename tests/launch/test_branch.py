"""launch.branch: a run that goes on from a checkpoint of another one, with other settings."""

import json
import pathlib
import shlex
import shutil

import pytest
from helpers import Ended, Run, call

import launch.branch
from launch.process.cli import WrongCommandError
from trainer.run_folder.branch import branch_off, branched_from

FLAGS = (
    "--dataset=digits --model=mlp --device=cpu --global_batch=64 --dropout=0.2 --train_for=120st "
    "--checkpoint_every=20st --keep=1 --keep_every=40st --eval_every=60st --log_every=10st "
    "--steps_per_loop=10 --xla=off"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, dict[str, Ended]]:
    """A run, and branches of it: as it is, steered, with another flag, and one cooled down."""
    folder = tmp_path_factory.mktemp("branch")
    ended = {"run": call(f"{FLAGS} --run_dir=run", folder)}
    for name, line in (
        ("same", "run --at=40 --out=same"),
        ("half", "run --at=80 --out=half --reason='too fast' -- --scale=0.5"),
        ("of_half", "half --at=120 --out=of_half -- --train_for=130st"),
        ("other", "run --at=40 -- --clip_norm=0.1"),
        ("cooled", "run --at=80 --out=cooled -- --cooldown=10st"),
    ):
        ended[name] = call(line, folder, module="launch.branch")
    for name, one in ended.items():
        assert one.code == 0, f"{name}: {one.err}"
    return folder, ended


def rows(run: Run, first: int = 0, last: int = 10**9) -> list[dict]:
    return [row for row in run.rows_without_times() if first <= row["step"] <= last]


def test_a_branch_without_changes_ends_with_the_bits_of_the_run(
    runs: tuple[pathlib.Path, dict[str, Ended]],
) -> None:
    folder, ended = runs
    run, same = Run(folder / "run"), Run(folder / "same")
    assert rows(same) == rows(run)
    assert any(row.get("event") == "digest" and row["step"] == 120 for row in rows(same))
    assert not (folder / "same" / "checkpoints" / "step-20").exists()
    assert "same goes on from step 40 of run" in ended["same"].out
    assert branched_from(same.folder) == {"run_dir": str(run.folder), "step": 40}
    assert branched_from(run.folder) is None


def test_a_steered_branch_has_the_log_of_before_and_another_rate_from_there(
    runs: tuple[pathlib.Path, dict[str, Ended]],
) -> None:
    folder, _ = runs
    run, half = Run(folder / "run"), Run(folder / "half")

    def rates(one: Run) -> dict[int, float]:
        return {row["step"]: row["learning_rate"] for row in rows(one) if "learning_rate" in row}

    before, after = rates(run), rates(half)
    assert list(before) == list(after)
    for step, rate in before.items():
        assert after[step] == pytest.approx(rate * (0.5 if step > 80 else 1), rel=1e-6)
    (control,) = [row for row in rows(half) if row.get("event") == "control"]
    assert control["step"] == 80 and control["reason"] == "too fast" and control["value"] == 0.5
    assert rows(half, last=79) == rows(run, last=79)
    assert rows(half, first=90) != rows(run, first=90)
    # A branch of the branch has that request behind it, and does not do it again.
    of_half = Run(folder / "of_half")
    assert [r["step"] for r in rows(of_half) if r.get("event") == "control"] == [80]
    assert max(rates(of_half)) == 130


def test_another_flag_and_a_cooldown(runs: tuple[pathlib.Path, dict[str, Ended]]) -> None:
    folder, ended = runs
    other, cooled = Run(folder / "run-at-40"), Run(folder / "cooled")  # the name it gets by itself
    assert "clip_norm" in ended["other"].out  # as a change that is told
    assert rows(other, last=39) == rows(Run(folder / "run"), last=39)
    assert max(row["step"] for row in rows(cooled)) == 90  # it ends the run


def test_the_same_command_goes_on_and_another_is_refused(
    runs: tuple[pathlib.Path, dict[str, Ended]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = runs
    before = (folder / "half" / "control" / "applied.jsonl").read_text(encoding="utf-8")
    again = call("run --at=80 --out=half -- --scale=0.5", folder, module="launch.branch")
    assert again.code == 0 and "is finished at step 120" in again.out
    assert (folder / "half" / "control" / "applied.jsonl").read_text(encoding="utf-8") == before
    monkeypatch.chdir(folder)
    for line, said in (
        ("run --at=40 --out=half", "half holds something else than this branch of run"),
        # Another request would not be followed: the branch is there, and has its own.
        ("run --at=80 --out=half -- --scale=0.1", "half holds something else"),
        ("run --at=80 --out=half", "half holds something else"),
        ("run --at=40 --out=same -- --hold", "same holds something else"),
        ("run --at=40 -- --run_dir=other", "as --out"),
        ("run --at=60", "no checkpoint of step 60 (there are: 40, 80, 120)"),
        ("run", "--at is missing"),
        ("nothing --at=4", "nothing holds no run"),
        ("run --at=40 -- --scale=0.5 --hold", "give one of --scale, --hold, not several"),
        ("run --at=40 -- --scale=much", "--scale=much is not a number"),
        ("run --at=40 -- --resume=never", "leave it out"),
        ("run --at=40 -- --learning_rat=1", "learning_rat"),
        ("--at=40 -- --scale=1", "give one run folder"),
    ):
        with pytest.raises(WrongCommandError) as error:
            launch.branch.main(shlex.split(line))
        assert said in str(error.value), line
    assert not (folder / "run-at-60").exists()


def test_a_branch_that_trains_no_step_has_nothing_of_later(
    runs: tuple[pathlib.Path, dict[str, Ended]],
) -> None:
    folder, _ = runs
    before = (folder / "run" / "metrics.jsonl").read_bytes()
    refused = call("run --at=80 --out=refused -- --model=cnn", folder, module="launch.branch")
    assert refused.code == 2
    assert rows(Run(folder / "refused")) == rows(Run(folder / "run"), last=80)
    assert (folder / "run" / "metrics.jsonl").read_bytes() == before


def test_a_request_counts_as_done_from_the_step_behind_it_on(
    runs: tuple[pathlib.Path, dict[str, Ended]], tmp_path: pathlib.Path
) -> None:
    # A checkpoint of the step that it was taken up at is from before it.
    for step, done in ((80, False), (120, True)):
        new = tmp_path / str(step)
        new.mkdir()  # an empty folder gives way, and one with anything in it does not
        assert branch_off(runs[0] / "half", step, new)
        assert (new / "control" / "applied.jsonl").exists() == done
        assert new.stat().st_mode & 0o777 == 0o755
        assert (new / "plan.json").read_bytes() == (runs[0] / "half/plan.json").read_bytes()
    # The model of an evaluation that is yet to come is none of the branch's.
    assert (runs[0] / "half" / "best").exists() and (tmp_path / "120" / "best").exists()
    assert branch_off(runs[0] / "run", 40, tmp_path / "40")
    assert not (tmp_path / "40" / "best").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(ValueError, match="holds something else"):
        branch_off(runs[0] / "half", 80, tmp_path / "other")


def test_a_damaged_checkpoint_and_one_that_a_rollback_has_undone(
    runs: tuple[pathlib.Path, dict[str, Ended]], tmp_path: pathlib.Path
) -> None:
    shutil.copytree(runs[0] / "run", tmp_path / "run")
    row = {"at": 100, "onset": 95, "to": 40, "why": "", "position": None, "skipped": 0}
    row |= {"factor": 0.5, "over": 100, "seconds": 1.0}
    (tmp_path / "run" / "rollbacks.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="a rollback has undone"):
        branch_off(tmp_path / "run", 80, tmp_path / "new")
    # From before it: the branch does not know of it.
    assert branch_off(tmp_path / "run", 40, tmp_path / "new")
    assert not (tmp_path / "new" / "rollbacks.jsonl").exists()
    (tmp_path / "run" / "checkpoints" / "step-40" / "state.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="step-40 is damaged"):
        branch_off(tmp_path / "run", 40, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "run"]
