"""A disk that is really full, read-only or hangs: training goes on, and nothing is spoilt.

The disks are small tmpfs of their own; where mounting is not allowed these tests are skipped.
"""

import dataclasses
import os
import pathlib
import subprocess
import threading
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import keras
import pytest
import tensorflow as tf
from helpers import Run, call

from launch.training.attempt import noise_scale, rows_in_the_end
from trainer.checkpoint.checkpoints import Checkpoints, SaveError
from trainer.checkpoint.on_disk import checkpoint_steps
from trainer.export import save_model
from trainer.files import append_file
from trainer.files.append_file import AppendFile
from trainer.files.storage import Storage
from trainer.files.whole_files import append_line, read_lines, write_json, write_text
from trainer.plan.dataset import DatasetFacts
from trainer.run_folder.journal import Row
from trainer.run_folder.metrics_writer import MetricsWriter
from trainer.run_folder.run_folder import newest_checkpoint, open_run_folder

DATASET = DatasetFacts("own", 64, 64, 10, (8, 8, 1))
STATE = {"flags": {}, "history": {}, "final": False, "dataset": dataclasses.asdict(DATASET)}


class Disk:
    """A disk of 2 MiB, mounted on a folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
        try:
            done = subprocess.run(mount, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("no mount command here")
        if done.returncode:
            pytest.skip(f"no disk to fill: mounting is not allowed here ({done.stderr.strip()})")

    def fill(self, free: int = 0) -> None:
        """Leaves so many bytes, in whole pages."""
        self.free()
        there = os.statvfs(self.folder)
        (self.folder / "filler").write_bytes(bytes(there.f_bavail * there.f_frsize - free))

    def free(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)

    def read_only(self, on: bool) -> None:
        mode = "remount,ro" if on else "remount,rw"
        subprocess.run(["mount", "-o", mode, str(self.folder)], check=True)

    def end(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.end()


def lines(*numbers: int) -> list[bytes]:
    return [f"line {number} {'x' * 1000}\n".encode() for number in numbers]


def test_lines_wait_in_memory_while_the_disk_is_full(disk: Disk) -> None:
    said: list[str] = []
    path = disk.folder / "file"
    file = AppendFile(path, said.append)
    file.add(*lines(0))
    for free in (0, 4096):
        disk.fill(free)
        # More than one of them, so that with 4096 bytes left a part of them gets there.
        file.add(*lines(*range(1 + free, 20 + free)))
        assert len(file.pending()) == (19 if free == 0 else 38)
    assert said == [
        f"warning: {path} cannot be written (No space left on device); "
        "what belongs there is kept in memory and written as soon as it can be"
    ]
    disk.free()
    file.add(*lines(99))
    assert (file.pending(), len(said)) == ([], 2)
    assert said[1] == f"{path} can be written again and is complete"
    wanted = lines(0, *range(1, 20), *range(4097, 4116), 99)
    assert path.read_bytes() == b"".join(wanted)


def test_a_file_that_hangs_is_waited_for_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_file, "_PATIENCE_SECONDS", 0.01)
    said: list[str] = []
    os.mkfifo(tmp_path / "pipe")  # to open it hangs until somebody reads
    file = AppendFile(tmp_path / "pipe", said.append)
    for number in range(3):
        file.add(*lines(number))
    assert file.pending() == lines(0, 1, 2)
    (warning,) = said
    assert "cannot be written (it does not answer)" in warning


def test_who_does_not_wait_is_told_of_a_fault_with_the_next_piece(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_file, "_PATIENCE_SECONDS", 0.01)
    said: list[str] = []
    os.mkfifo(tmp_path / "pipe")
    file = AppendFile(tmp_path / "pipe", said.append)
    file.add(*lines(0), wait=False)
    assert (said, file.pending()) == ([], lines(0))
    file.add(*lines(1), wait=False)
    assert len(said) == 1 and file.pending() == lines(0, 1)


def test_what_nobody_waited_for_is_in_the_file_once_it_is_synchronized(
    tmp_path: pathlib.Path,
) -> None:
    file = AppendFile(tmp_path / "file", print, frame=lambda piece: b"<" + piece + b">")
    for number in range(100):
        file.add(b"%d" % number, wait=False)
    file.sync()
    assert (tmp_path / "file").read_bytes() == b"".join(b"<%d>" % n for n in range(100))
    assert file.unsynced() == []


@pytest.mark.parametrize("kill", [False, True])
def test_metrics_have_no_gap_after_a_full_disk(disk: Disk, kill: bool) -> None:
    """Freed in time, or killed and gone on from a checkpoint that holds what is not written."""
    said: list[str] = []
    metrics = MetricsWriter(disk.folder / "run", 0, (), said.append)

    def write(step: int) -> None:
        metrics.write_all(
            [Row(step, step / 4, step, {"train/loss": float(step), "eval/loss": 2.0 * step})]
        )

    write(1)
    metrics.close()  # waits until it is there
    disk.fill()
    for step in range(2, 200):
        write(step)
    metrics.flush()
    metrics.note(199, 199 / 4, 199, {"event": "something"})
    assert len(said) == 3  # metrics.jsonl and TensorBoard's two
    unwritten = [line.decode().rstrip("\n") for line in metrics.unwritten()]
    written = len((disk.folder / "run/metrics.jsonl").read_bytes().splitlines())
    assert written < 200 <= len(unwritten) + written
    disk.free()
    if kill:
        metrics = MetricsWriter(disk.folder / "run", 199, unwritten, said.append)
    write(200)
    metrics.close()
    run = Run(disk.folder / "run")
    assert [row["step"] for row in run.rows("train/")] == list(range(1, 201))
    assert [row["step"] for row in run.rows("event")] == [199]
    assert run.board("train")["loss"] == [(step, float(step)) for step in range(1, 201)]
    assert run.board("eval")["loss"] == [(step, 2.0 * step) for step in range(1, 201)]


def test_lines_that_were_written_after_all_are_not_repeated(tmp_path: pathlib.Path) -> None:
    metrics = MetricsWriter(tmp_path, 0)
    for step in (1, 2, 3):
        metrics.write_all([Row(step, 0.0, 0.0, {"train/loss": 1.0})])
    metrics.close()
    kept = (tmp_path / "metrics.jsonl").read_text().splitlines()
    MetricsWriter(tmp_path, 2, [kept[1]]).close()
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == kept[:2]


def test_what_is_done_again_after_the_checkpoint_is_not_in_the_log_twice(
    tmp_path: pathlib.Path,
) -> None:
    """A stop saves after what was asked for at that very step, and holds that row too."""
    metrics = MetricsWriter(tmp_path, 0)
    metrics.write_all([Row(2, 0.0, 0.0, {"train/loss": 1.0})])
    metrics.note(2, 0.0, 0.0, {"event": "control"})
    unwritten = [line.decode().rstrip("\n") for line in metrics.unwritten()]
    metrics.close()
    assert len(unwritten) == 2
    MetricsWriter(tmp_path, 2, unwritten).close()
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == unwritten[:1]


def test_small_files_are_whole_or_as_they_were(disk: Disk) -> None:
    write_json(disk.folder / "plan.json", [1])
    append_line(disk.folder / "applied.jsonl", {"n": 1})
    before = {path.name: path.read_bytes() for path in disk.folder.iterdir()}
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        write_json(disk.folder / "plan.json", [2] * 5000)
    with pytest.raises(OSError, match="No space left"):
        append_line(disk.folder / "applied.jsonl", {"n": "x" * 9000})
    disk.free()
    assert {path.name: path.read_bytes() for path in disk.folder.iterdir()} == before
    with (disk.folder / "applied.jsonl").open("a") as file:
        file.write('{"n": 2')  # a kill
    append_line(disk.folder / "applied.jsonl", {"n": 3})
    assert read_lines(disk.folder / "applied.jsonl") == [{"n": 1}, {"n": 3}]


def make_checkpoints(disk: Disk, said: list[str], **more: pathlib.Path) -> Checkpoints:
    """Of a variable of 40 kB, that is 1."""
    variable = tf.Variable(tf.ones([10_000]))
    folder = disk.folder / "checkpoints"
    return Checkpoints(folder, {"model": {"kernel": variable}}, say=said.append, **more)


def test_a_disk_that_fills_up_anywhere_in_a_checkpoint_leaves_the_one_before(disk: Disk) -> None:
    said: list[str] = []
    checkpoints = make_checkpoints(disk, said)
    checkpoints.save(1, STATE)
    checkpoints.wait()
    step, outcomes = 1, []
    for free in range(0, 80_000, 4096):
        disk.fill(free)
        step += 1
        try:
            checkpoints.save(step, STATE)
            checkpoints.wait()
            last = step
        except SaveError as error:
            last = 1
            assert "(" in str(error) and "and the newest is that of step 1" in str(error)
        outcomes.append(last)
        found = newest_checkpoint(disk.folder)
        assert (found.step, found.damaged) == (last, ())
        assert checkpoint_steps(disk.folder / "checkpoints") == sorted({1, last})
        assert {p.name for p in (disk.folder / "checkpoints").iterdir()} <= {
            "step-1",
            f"step-{last}",
        }
        if last > 1:
            break
    assert 10 <= len(outcomes) < 20
    assert [text for text in said if text.startswith("warning")] == said[:1]
    assert "No space left" in said[0] or "ENOSPC" in said[0], said[0]


def test_a_folder_that_turns_read_only(disk: Disk, tmp_path: pathlib.Path) -> None:
    said: list[str] = []
    fallback = tmp_path / "fallback/checkpoints"
    checkpoints = make_checkpoints(disk, said, fallback=fallback)
    checkpoints.save(1, STATE)
    checkpoints.wait()
    disk.read_only(True)
    checkpoints.save(2, STATE)
    checkpoints.wait()
    with pytest.raises(OSError, match=r"--run_dir=.* cannot be written \(Read-only file system\)"):
        open_run_folder(disk.folder, "auto")
    disk.read_only(False)
    found = newest_checkpoint(disk.folder, fallback.parent)
    assert (found.step, found.folder) == (2, fallback)
    checkpoints.save(3, STATE)
    checkpoints.wait()
    assert newest_checkpoint(disk.folder, fallback.parent).folder == disk.folder / "checkpoints"
    assert checkpoint_steps(fallback) == []


def test_a_model_that_does_not_fit_leaves_the_one_before_and_no_half(disk: Disk) -> None:
    said: list[str] = []
    storage, path = Storage(said.append), disk.folder / "best/model.keras"
    model = keras.Sequential([keras.Input([100]), keras.layers.Dense(500)])
    run = types.SimpleNamespace(model=model, averages=None)
    save_model(run, path)
    before = path.read_bytes()
    for free in (0, 4096, 65536, 131072):
        disk.fill(free)
        with storage.attempt("the best model"):
            save_model(run, path)
        disk.free()
        assert path.read_bytes() == before
        assert [file.name for file in path.parent.iterdir()] == ["model.keras"]
    assert said == [
        "warning: the best model cannot be written (No space left on device); training goes on"
    ]
    with storage.attempt("the best model"):
        save_model(run, path)


def test_a_full_disk_is_told_at_the_start(disk: Disk) -> None:
    disk.fill()
    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\)"):
        open_run_folder(disk.folder / "run", "auto")
    open_run_folder(disk.folder / "run", "auto", fallback=True).close()
    assert [path.name for path in (disk.folder / "run").iterdir()] == ["lock"]


LINES = {
    b'{"step": 1}\n{"step": 2': None,
    b'{"step": 1}\n\0\0\0\n': None,  # after the checkpoint, of a power cut
    b'{"step": 1}\nx\n{"step": 2}\n': "line 2, is not JSON",
    b'[1]\n{"step": 1}\n': "line 1, is not a JSON object",
    b'{"step": "1"}\n{"step": 1}\n': "line 1, has step = '1'; it must be a whole number",
    b'{"a": ' + b"[" * 100_000 + b'\n{"step": 1}\n': "line 1, is not JSON .nested too deeply",
    b'\xff\n{"step": 1}\n': "line 1, is not JSON",
}


@pytest.mark.parametrize("text", LINES, ids=range(len(LINES)))
def test_metrics_are_read_strictly(tmp_path: pathlib.Path, text: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(text)
    if LINES[text] is None:
        MetricsWriter(tmp_path, 3).close()
        assert {row["step"] for row in read_lines(path)} <= {1, 2}
        assert noise_scale(rows_in_the_end(tmp_path)) == float("inf")
    else:
        with pytest.raises(ValueError, match=LINES[text]):
            MetricsWriter(tmp_path, 3)
        assert path.read_bytes() == text


def test_writing_takes_place_beside_the_caller(tmp_path: pathlib.Path) -> None:
    file = AppendFile(tmp_path / "deep/file", print)
    caller = threading.get_ident()
    file.add(b"a\n")
    file.sync()
    assert (tmp_path / "deep/file").read_bytes() == b"a\n"
    assert caller == threading.get_ident()


FLAGS = (
    "--device=cpu --dataset=digits --model=mlp --global_batch=64 --train_for=60st "
    "--log_every=5st --eval_every=20st --checkpoint_every=10st --steps_per_loop=5 --deterministic"
)


def test_a_run_on_a_full_disk_is_saved_in_the_fallback_and_goes_on_from_there(
    disk: Disk, tmp_path: pathlib.Path
) -> None:
    """Also where the newest checkpoint there is damaged, and where the trained model is gone."""
    run, fallback = Run(disk.folder / "run"), tmp_path / "fallback"
    command = f"{FLAGS} --run_dir={run.folder} --fallback_dir={fallback}"
    disk.fill(64 * 1024)
    first = call(f"{command} --train_for=40st", tmp_path)
    assert (first.code, first.err) == (0, "")
    assert "warning: " in first.out
    (kept,) = fallback.iterdir()
    steps = checkpoint_steps(kept / "checkpoints")
    assert steps[-1] == 40 and len(steps) > 1
    assert (kept / "model.keras").exists()
    assert f"the trained model is {kept / 'model.keras'}" in first.out
    disk.free()
    state = kept / "checkpoints/step-40/state.json"
    state.write_bytes(state.read_bytes()[:-1])
    second = call(command, tmp_path)
    assert (second.code, second.err) == (0, "")
    assert "step-40 is damaged (state.json has " in second.out
    assert f"going on from step {steps[-2]}" in second.out
    assert [row["step"] for row in run.rows("train/")] == list(range(5, 61, 5))
    assert [row["step"] for row in run.rows("eval/")] == [20, 40, 60]
    assert run.checkpoints()[-1] == 60
    assert [path.name for path in (kept / "checkpoints").iterdir()] == ["damaged-step-40"]
    (kept / "model.keras").unlink()
    (run.folder / "model.keras").unlink()
    third = call(command, tmp_path)
    assert (third.code, third.err) == (0, "")
    assert (run.folder / "model.keras").exists(), third.out
    assert run.checkpoints()[-1] == 60


def test_what_is_no_plain_file_takes_what_is_written(tmp_path: pathlib.Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text)
        write_text(pipe, "a text")
        assert read.result() == "a text"
    assert pipe.is_fifo()
    longest = tmp_path / ("l" * 255)
    write_text(longest, "a text")
    assert longest.read_text() == "a text" and len(list(tmp_path.iterdir())) == 2
