"""No request, whatever it is, ends a run: refused with a sentence, noted, and moved aside."""

import dataclasses
import json
import math
import os
import pathlib
from typing import Any

import pytest
import tensorflow as tf

from launch.flags.command import read_command
from launch.training.job import plan_command
from trainer.actions.control import Control
from trainer.files.whole_files import append_line
from trainer.learning_rate.learning_rate import LearningRate
from trainer.run_folder.requests import Request, leave_request, read_ledger

COMMAND = "--device=cpu --dataset=digits --train_for=100st --warmup=0 --lr_scaling=none"
GOOD = Request("good", "hold", None, "me@here", "now", "")


class Run:
    """A learning rate with the control of a run's folder, and what that has told."""

    def __init__(self, folder: pathlib.Path, more: str = "", first: int = 0) -> None:
        command = [*COMMAND.split(), "--learning_rate=0.1", *more.split()]
        self.plan, self.folder = plan_command(read_command(command))[0], folder
        self.rate = LearningRate(self.plan.learning_rate, tf.distribute.get_strategy())
        self.said: list[str] = []
        self.notes: list[dict[str, Any]] = []
        self.control = Control(
            folder,
            self.plan,
            self.rate,
            first,
            self,
        )

    def note(self, step: int, event: dict[str, Any]) -> None:
        """Takes an event down, as a journal does."""
        self.notes.append({"step": step, **event})

    def say(self, text: str) -> None:
        """Takes a line down, as a journal does."""
        self.said.append(text)

    def at(self, step: int) -> "Run":
        """After so many steps."""
        self.rate.progress.assign(step)
        self.control.take_up(step)
        return self

    def state(self) -> list[float]:
        """What steers the rate."""
        return [float(self.rate.scale.numpy()), *map(float, self.rate.steering.numpy())]


def leave(folder: pathlib.Path, name: str, content: Any) -> pathlib.Path:
    """Puts bytes, or JSON, among the requests."""
    path = folder / "requests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def asked(action: str, value: Any = None, **more: Any) -> dict[str, Any]:
    """A request as JSON."""
    return dataclasses.asdict(GOOD) | {"action": action, "value": value, "id": "bad", **more}


WRONG = {
    "text": b'{"action": "sca',
    "no JSON": b"\x00\xff\xfe",
    "empty": b"",
    "huge": b" " * (1 << 17),
    "nested": b"[" * 50_000,
    "nested, closed": b"[" * 50_000 + b"]" * 50_000,
    "nested value": b'{"id": "bad", "value": ' + b"[" * 900 + b"]" * 900 + b"}",
    "a list": [asked("hold")],
    "a number": 1,
    "other keys": {"a": 1},
    "another key": {**asked("hold"), "more": 1},
    "unknown": asked("explode"),
    "NaN": asked("scale", math.nan),
    "infinite": asked("scale", math.inf),
    "negative": asked("scale", -1),
    "too large": asked("scale", 1e9),
    "beyond float64": asked("learning_rate", 10**400),
    "digits without end": b'{"value": ' + b"9" * 6000 + b"}",
    "a million times the peak": asked("learning_rate", 1e5),
    "a text": asked("learning_rate", "0.1"),
    "true": asked("scale", True),
    "none": asked("scale"),
    "a list in it": asked("scale", [1]),
    "a value": asked("hold", 3),
    "stop with a value": asked("stop", "now"),
    "without end": asked("cooldown", "1e308ep"),
    "infinite examples": asked("cooldown", "1e308Gex"),
    "longer than what is left": asked("cooldown", "101st"),
    "no time": asked("cooldown", "0"),
    "no duration": asked("cooldown", "5epochs"),
    "no text": asked("cooldown", 30),
    "a long text": asked("cooldown", "9" * 50_000 + "st"),
    "no id": asked("hold", id=""),
    "a path": asked("hold", id="../../x"),
    "an id that is none": asked("hold", id=None),
    "a bell": asked("hold", reason="\x07\x1b[2J"),
    "no letter": asked("hold", reason="\ud800"),
    "two lines": asked("hold", who="a\nb"),
    "a book": asked("hold", reason="a" * 5000),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_refused_and_the_next_one_taken_up(
    tmp_path: pathlib.Path, name: str
) -> None:
    run = Run(tmp_path)
    before, path = run.state(), leave(tmp_path, "bad.json", WRONG[name])
    run.at(10)
    assert run.state() == before and not run.control.stop_requested()
    assert not path.exists()
    told = json.loads((tmp_path / "rejected/bad.json").read_text())
    assert (told["step"], (tmp_path / "rejected/bad.json.given").exists()) == (10, True)
    assert [(n["event"], n["request"], n["why"]) for n in run.notes] == [
        ("refused", "bad.json", told["why"])
    ]
    (said,) = run.said
    assert told["why"] in said and said.isprintable() and len(said) < 600
    leave_request(tmp_path, GOOD)
    run.at(20)
    assert run.state()[1] == 20 and read_ledger(tmp_path)[0][0].request == GOOD


def test_what_is_no_file_is_moved_aside(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "requests"
    (folder / "a-folder.json").mkdir(parents=True)
    (folder / "a-folder.json/inside").touch()
    os.mkfifo(folder / "b-pipe.json")
    (folder / "c-link.json").symlink_to("/etc/passwd")
    (folder / "d-nowhere.json").symlink_to("nowhere")
    (folder / os.fsdecode(b"e-\xff\n.json")).write_bytes(b"{}")
    (folder / f"{'f' * 250}.json").write_bytes(b"{}")
    leave_request(tmp_path, GOOD)
    run = Run(tmp_path).at(10)
    assert list(folder.iterdir()) == []
    assert [note["event"] for note in run.notes] == ["refused"] * 6 + ["control"]
    assert all(line.isprintable() for line in run.said)
    assert (tmp_path / "rejected/a-folder.json.given/inside").exists()
    # A second of the same name cannot be moved there, nor removed: it is left, and told of once.
    (folder / "a-folder.json").mkdir()
    (folder / "a-folder.json/inside").touch()
    run.at(11).at(12)
    assert len(run.notes) == 8 and (folder / "a-folder.json").exists()


def test_a_replayed_request_that_no_longer_fits_is_refused_again_and_again(
    tmp_path: pathlib.Path,
) -> None:
    first = Run(tmp_path)
    leave(tmp_path, "a.json", asked("learning_rate", 5, id="a"))
    leave(tmp_path, "b.json", asked("cooldown", "30st", id="b"))
    first.at(60)
    assert [note["event"] for note in first.notes] == ["control"] * 2
    for _ in range(2):
        again = Run(tmp_path, "--train_for=80st --learning_rate=0.001", first=50)
        assert again.control.next_replay(50) == 60
        before = again.state()
        again.at(60)
        assert again.state() == before
        why = [note["why"] for note in again.notes if note["event"] == "refused"]
        assert "it no longer fits: --learning_rate=5 is out of bounds; use at most 1" in why[0]
        assert "it no longer fits: --cooldown=30st is 30 steps, and 20 are left" in why[1]
        assert again.control.next_replay(50) == math.inf
    same = Run(tmp_path, first=50).at(60)
    assert same.state() == first.state()


def test_a_ledger_with_wrong_lines_is_replayed_as_far_as_it_can_be(tmp_path: pathlib.Path) -> None:
    run = Run(tmp_path)
    for number, action in enumerate(("hold", "resume_schedule", "hold")):
        leave(tmp_path, f"{number}.json", asked(action, id=f"r{number}"))
        run.at(10 * (number + 1))
    path = tmp_path / "applied.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    spoiled = {
        "not JSON": (lines[1].replace(b"{", b"[", 1), []),
        "not what was written": (lines[1].replace(b'"step": 20', b'"step": 25'), [1]),
        "unknown name": (b'{"step": 20, "hold": 1}\n', []),
        "which is said twice": (lines[0], None),
        "cut off": (b"", None),
    }
    for why, (line, _) in spoiled.items():
        path.write_bytes(lines[0] + line + lines[2] + (lines[1][:30] if why == "cut off" else b""))
        again = Run(tmp_path, first=0)
        refused = [note["why"] for note in again.notes]
        assert len(refused) == (0 if line in (lines[0], b"") else 1), why
        assert all(why in text and "line 2" in text for text in refused)
        again.at(10).at(20).at(30)
        assert [note["step"] for note in again.notes if note["event"] == "control"] == [10, 30]
    path.unlink()
    path.mkdir()
    assert "applied.jsonl cannot be read" in Run(tmp_path).said[0]


@pytest.mark.parametrize("peak", ["0", "1e-42", "1e-39"])
def test_a_curve_that_is_nearly_0_is_not_scaled_to_what_is_none(
    tmp_path: pathlib.Path, peak: str
) -> None:
    run = Run(tmp_path, "--decay=constant")
    # No flag asks for such a peak; a schedule of one's own can lead there.
    low = dataclasses.replace(run.plan.learning_rate, peak=float(peak))
    run.rate = LearningRate(low, tf.distribute.get_strategy())
    run.control._rate = run.rate
    before = run.state()
    for number, wanted in enumerate((0.1, 1e-5, 1e-36)):
        leave(tmp_path, f"{number}.json", asked("learning_rate", wanted, id=f"r{number}"))
    run.at(1)
    assert run.state() == before and [note["event"] for note in run.notes] == ["refused"] * 3


def test_what_would_overflow_where_the_curve_comes_back_is_refused(tmp_path: pathlib.Path) -> None:
    decay = "--decay=cosine --end_learning_rate=1e-37 --learning_rate=30"
    run = Run(tmp_path, decay)
    leave(tmp_path, "a.json", asked("learning_rate", 20))
    run.at(100)
    assert "is no finite rate" in run.said[0] and run.state()[0] == 1


def test_a_backoff_begins_and_ends_also_in_what_was_traced(tmp_path: pathlib.Path) -> None:
    run = Run(tmp_path, "--decay=constant")

    @tf.function
    def applied() -> tf.Tensor:
        run.rate.look_ahead(tf.constant(1))
        run.rate.set_applied(tf.constant(1.0, tf.float64))
        return tf.convert_to_tensor(run.rate.applied)

    run.at(0)
    assert float(applied()) == tf.constant(0.1).numpy()
    run.rate.back_off({"factor": 0.5, "since": 0.0, "over": 1000.0})
    assert float(applied()) == pytest.approx(0.05)
    leave(tmp_path, "a.json", asked("resume_schedule"))
    run.at(0)
    assert float(applied()) == tf.constant(0.1).numpy()
    (note,) = run.notes
    assert note["learning_rate_before"] == pytest.approx(0.05)
    assert note["learning_rate_after"] == pytest.approx(0.1)


def test_a_stop_is_seen_before_it_is_taken_up_and_only_once(tmp_path: pathlib.Path) -> None:
    run = Run(tmp_path)
    leave(tmp_path, "a.json", b"{")
    os.mkfifo(tmp_path / "requests/b.json")
    assert not run.control.stop_waits()
    leave(tmp_path, "c.json", asked("hold", id="c"))
    assert not run.control.stop_waits()
    path = leave(tmp_path, "d.json", asked("stop", id="d"))
    content = path.read_bytes()
    assert run.control.stop_waits()
    assert run.at(1).control.stop_requested() and not run.control.stop_waits()
    path.write_bytes(content)  # as a kill leaves it behind the line of the ledger
    assert not Run(tmp_path).control.stop_waits()


def test_a_disk_that_takes_no_line_leaves_the_request_where_it_is(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    leave_request(tmp_path, GOOD)

    def full(path: pathlib.Path, row: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.actions.control.append_line", full)
    before = run.state()
    with pytest.raises(OSError, match="No space"):
        run.at(3)
    assert run.state() == before and (tmp_path / "requests/good.json").exists()
    monkeypatch.setattr("trainer.actions.control.append_line", append_line)
    assert run.at(4).state()[1] == 4
