"""Checkpoints are whole or absent, whatever becomes of their files; and they hold up nobody."""

import dataclasses
import json
import pathlib
import shutil
import threading
from collections.abc import Callable

import pytest
import tensorflow as tf
from helpers import Run

from trainer.checkpoint.checkpoints import Checkpoints
from trainer.checkpoint.on_disk import DamagedError, Keep, checkpoint_steps, verify
from trainer.plan.dataset import DatasetFacts
from trainer.run_folder.run_folder import newest_checkpoint, tidy

FILES = (
    "manifest.json",
    "state.json",
    "variables.index",
    "variables.data-00000-of-00001",
)
DATASET = DatasetFacts("own", 64, 64, 10, (8, 8, 1))
STATE = {"flags": {}, "history": {}, "final": False, "dataset": dataclasses.asdict(DATASET)}


def make_variables(number: int) -> dict[str, dict[str, tf.Variable]]:
    value = float(number)
    return {
        "model": {"dense/kernel": tf.Variable(tf.fill([3, 5], value)), "a.b": tf.Variable(value)},
        "optimizer": {
            "iterations": tf.Variable(number, dtype=tf.int64),
            "empty": tf.Variable(tf.zeros([0, 2])),
            "half": tf.Variable(tf.fill([2], tf.constant(value, tf.bfloat16))),
            "seed": tf.Variable([number, 7], dtype=tf.uint32),
        },
    }


def values_of(variables: dict[str, dict[str, tf.Variable]]) -> dict[str, bytes]:
    flat = {f"{g}/{n}": v for g, members in variables.items() for n, v in members.items()}
    return {name: v.numpy().tobytes() for name, v in flat.items()}


def set_all(variables: dict[str, dict[str, tf.Variable]], value: float) -> None:
    for members in variables.values():
        for variable in members.values():
            variable.assign(tf.cast(tf.fill(variable.shape, value), variable.dtype))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run's folder with the checkpoints of steps 1 and 2, in which all variables are 1 and 2."""
    run_dir = tmp_path_factory.mktemp("saved")
    for step in (1, 2):
        checkpoints = Checkpoints(run_dir / "checkpoints", make_variables(step))
        assert checkpoints.save(step, {**STATE, "unwritten": [f"at {step}"]})
        checkpoints.wait()
    return run_dir


@pytest.fixture
def run_dir(saved: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of it."""
    return shutil.copytree(saved, tmp_path / "run")


def test_all_variables_and_the_state_come_back(run_dir: pathlib.Path) -> None:
    variables = make_variables(9)
    state = Checkpoints(run_dir / "checkpoints", variables).restore(1)
    assert (state["step"], state["unwritten"]) == (1, ["at 1"])
    assert values_of(variables) == values_of(make_variables(1))


def test_the_files_are_those_of_tensorflow(run_dir: pathlib.Path) -> None:
    found = Run(run_dir).variables(2)
    assert {name: array.tobytes() for name, array in found.items() if "a." not in name} == {
        name: value for name, value in values_of(make_variables(2)).items() if "a." not in name
    }


@pytest.mark.parametrize("more", [0, 50])  # many variables are read in another way
def test_what_changes_while_it_is_written_is_not_in_it(tmp_path: pathlib.Path, more: int) -> None:
    variables, go_on = make_variables(5), threading.Event()
    variables["optimizer"]["large"] = tf.Variable(tf.fill([600, 500], 5.0))
    variables["more"] = {f"{n}": tf.Variable(tf.fill([n, 2], n + 5.0)) for n in range(more)}
    checkpoints = Checkpoints(tmp_path, variables)
    checkpoints.save(4, {})
    checkpoints.wait()
    variables["model"]["a.b"].assign(2.5)
    before = values_of(variables)

    class Held(bytes):
        """A line of the state that keeps the thread from looking at any variable."""

        def decode(self) -> str:
            assert go_on.wait(60)
            return ""

    checkpoints.save(5, {"line": Held()})
    for members in variables.values():
        for variable in members.values():
            if variable.dtype == tf.float32:
                variable.assign_add(tf.ones_like(variable))  # in place
    set_all(variables, 6)
    go_on.set()
    checkpoints.wait()
    checkpoints.restore(5)
    assert values_of(variables) == before


CHANGES: dict[str, Callable[[dict[str, dict[str, tf.Variable]]], object]] = {
    "model/dense/kernel  [3, 5] float32  [5, 3] float32": lambda v: v["model"].update(
        {"dense/kernel": tf.Variable(tf.zeros([5, 3]))}
    ),
    "model/a.b  [] float32  [] float64": lambda v: v["model"].update(
        {"a.b": tf.Variable(0.0, dtype=tf.float64)}
    ),
    "model/a.b  [] float32  –": lambda v: v["model"].pop("a.b"),
    "model/new  –  [1] float32": lambda v: v["model"].update({"new": tf.Variable([0.0])}),
    "optimizer/iterations  [] int64  –": lambda v: v["optimizer"].pop("iterations"),
}


@pytest.mark.parametrize("row", CHANGES)
def test_what_does_not_match_is_a_row_of_a_table(run_dir: pathlib.Path, row: str) -> None:
    variables = make_variables(9)
    CHANGES[row](variables)
    before = values_of(variables)
    with pytest.raises(ValueError, match="is of another model or optimizer") as error:
        Checkpoints(run_dir / "checkpoints", variables).restore(2)
    lines = str(error.value).splitlines()[2:]
    rows = ["  ".join(part.strip() for part in line.split("  ") if part.strip()) for line in lines]
    assert rows == [row]
    assert values_of(variables) == before


def test_an_optional_group_comes_and_goes(tmp_path: pathlib.Path) -> None:
    """As the loss scale does, where a run goes on with another --precision."""
    scale = {"loss_scale": {"scale": tf.Variable(64.0)}}

    def checkpoints(folder: str, variables: dict) -> Checkpoints:
        return Checkpoints(tmp_path / folder, variables, optional=("loss_scale",))

    for folder, more in (("without", {}), ("with", scale)):
        written = checkpoints(folder, make_variables(3) | more)
        written.save(1, STATE)
        written.wait()
    gone, begun = make_variables(9), {"loss_scale": {"scale": tf.Variable(7.0)}}
    checkpoints("with", gone).restore(1)
    assert values_of(gone) == values_of(make_variables(3))
    checkpoints("without", make_variables(9) | begun).restore(1)
    assert begun["loss_scale"]["scale"].numpy() == 7
    checkpoints("with", make_variables(9) | begun).restore(1)
    assert begun["loss_scale"]["scale"].numpy() == 64
    other = {"loss_scale": {"scale": tf.Variable([1.0, 2.0])}}
    with pytest.raises(ValueError, match="is of another model or optimizer"):
        checkpoints("with", make_variables(9) | other).restore(1)


def cut(data: bytes, at: float) -> bytes:
    return data[: int(at * (len(data) - 1))]


def flip(data: bytes, at: float) -> bytes:
    place = int(at * (len(data) - 1))
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


HARM: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda data: None,
    "empty": lambda data: b"",
    "longer": lambda data: data + b"\0",
    **{f"cut at {at}": lambda data, at=at: cut(data, at) for at in (0.1, 0.5, 1.0)},
    **{f"flipped at {at}": lambda data, at=at: flip(data, at) for at in (0.0, 0.5, 1.0)},
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_checkpoint_is_named_and_set_aside_and_the_one_before_is_used(
    run_dir: pathlib.Path, file: str, harm: str
) -> None:
    path = run_dir / "checkpoints/step-2" / file
    data = HARM[harm](path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    variables = make_variables(9)
    checkpoints = Checkpoints(run_dir / "checkpoints", variables)
    with pytest.raises(ValueError, match=r"step-2 is damaged \(.*\); move its folder away"):
        checkpoints.restore(2)
    assert values_of(variables) == values_of(make_variables(9))
    found = newest_checkpoint(run_dir)
    assert (found.step, found.state.unwritten) == (1, ["at 1"])
    ((where, reason),) = found.damaged
    assert where == run_dir / "checkpoints/step-2"
    assert file in reason or "manifest.json" in reason
    (said,) = tidy(run_dir, found)
    # Without its manifest, which is written last, it was never whole in this place.
    unfinished = (file, harm) == ("manifest.json", "missing")
    assert f"{where} is {'not whole' if unfinished else 'damaged'} ({reason})" in said
    name = f"{'unfinished' if unfinished else 'damaged'}-step-2"
    assert f"it is now {name}, and training goes on from step 1" in said
    assert checkpoint_steps(run_dir / "checkpoints") == [1]
    assert newest_checkpoint(run_dir).damaged == ()
    checkpoints.restore(1)
    assert values_of(variables) == values_of(make_variables(1))


@pytest.mark.parametrize("file", FILES)
def test_no_byte_can_change_unnoticed(run_dir: pathlib.Path, file: str) -> None:
    path = run_dir / "checkpoints/step-2" / file
    data = path.read_bytes()
    verify(path.parent)
    for place in range(len(data)):
        path.write_bytes(flip(data, place / max(1, len(data) - 1)))
        with pytest.raises(DamagedError):
            verify(path.parent)
    path.write_bytes(data)
    verify(path.parent)


def test_a_file_by_another_name_or_in_another_folder_is_not_taken(run_dir: pathlib.Path) -> None:
    folder = run_dir / "checkpoints"
    (folder / "step-2").rename(folder / "step-3")
    found = newest_checkpoint(run_dir)
    assert found.step == 1
    assert found.damaged[0][1] == "state.json is not that of step 3"


def test_what_is_not_finished_does_not_count_among_those_that_are_kept(
    run_dir: pathlib.Path,
) -> None:
    folder = run_dir / "checkpoints"
    for step in (3, 4):
        (folder / f"step-{step}").mkdir()
        shutil.copy(folder / "step-2/state.json", folder / f"step-{step}")
    assert checkpoint_steps(folder) == [1, 2]
    checkpoints = Checkpoints(folder, make_variables(5), Keep(2))
    checkpoints.save(5, STATE)
    checkpoints.wait()
    assert checkpoint_steps(folder) == [2, 5]
    found = newest_checkpoint(run_dir)
    assert (found.step, found.damaged) == (5, ())


def test_where_no_checkpoint_is_whole_nothing_starts_from_scratch(run_dir: pathlib.Path) -> None:
    for step in (1, 2):
        (run_dir / f"checkpoints/step-{step}/state.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"is whole .*does not start from scratch in a used folder"
    ):
        newest_checkpoint(run_dir)
    assert checkpoint_steps(run_dir / "checkpoints") == [1, 2]


def test_what_a_kill_has_left_is_removed(run_dir: pathlib.Path) -> None:
    for name in ("writing-7", "removing-step-1"):
        shutil.copytree(run_dir / "checkpoints/step-2", run_dir / "checkpoints" / name)
    assert tidy(run_dir, newest_checkpoint(run_dir)) == []
    assert {p.name for p in (run_dir / "checkpoints").iterdir()} == {"step-1", "step-2"}


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (Keep(1), {90}),
        (Keep(3), {70, 80, 90}),
        (Keep(1, best=2), {20, 50, 90}),  # 0.8 and the earlier of the two 0.7
        (Keep(1, every=25.0), {30, 50, 80, 90}),  # 80 is the first after 75
        (Keep(2, best=1, every=45.0), {20, 50, 80, 90}),
    ],
)
def test_what_is_kept(keep: Keep, kept: set[int]) -> None:
    scores = dict.fromkeys(range(10, 100, 10)) | {20: 0.8, 50: 0.7, 60: 0.5, 80: 0.7}
    assert keep.of(scores) == kept


def test_what_is_kept_does_not_depend_on_what_was_removed_before() -> None:
    keep, there = Keep(2, best=1, every=25.0), {}
    scores = {10: 0.2, 20: 0.3, 50: 0.3, 60: 0.1, 90: 0.25}
    for step in range(10, 130, 10):
        there[step] = scores.get(step)
        there = {s: there[s] for s in keep.of(there)}
    assert set(there) == {20, 30, 50, 80, 100, 110, 120}


def test_old_checkpoints_are_removed_also_by_a_later_process(tmp_path: pathlib.Path) -> None:
    variables = make_variables(1)
    for step in range(1, 7):
        checkpoints = Checkpoints(tmp_path, variables, Keep(2, best=1))
        checkpoints.save(step, {"score": 0.9 if step == 2 else 0.1})
        checkpoints.wait()
    assert checkpoint_steps(tmp_path) == [2, 5, 6]
    assert checkpoints.best() == [0.9, 0.1, 0.1]
    checkpoints.drop_after(2)
    assert checkpoint_steps(tmp_path) == [2] == checkpoints.steps()
    assert {path.name for path in tmp_path.iterdir()} == {"step-2"}
    checkpoints.save(6, {})
    checkpoints.wait()
    assert checkpoint_steps(tmp_path) == [2, 6]


def test_of_a_mirrored_variable_every_copy_is_restored(tmp_path: pathlib.Path) -> None:
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        variables = make_variables(2)
    checkpoints = Checkpoints(tmp_path, variables)
    checkpoints.save(1, {})
    checkpoints.wait()
    set_all(variables, 5)
    checkpoints.restore(1)
    assert values_of(variables) == values_of(make_variables(2))


def test_the_state_is_checked_before_it_is_used(run_dir: pathlib.Path) -> None:
    from trainer.checkpoint.on_disk import seal

    path = run_dir / "checkpoints/step-2"
    (path / "manifest.json").unlink()
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | {"history": []}))
    seal(path)
    with pytest.raises(
        ValueError, match=r"not one of launch.train's: its state.json has history = \[\]"
    ):
        newest_checkpoint(run_dir)
