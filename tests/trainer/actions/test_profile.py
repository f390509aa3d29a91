"""--profile: markers and scopes in what is left for TensorBoard, and the same bits as without."""

import importlib.util
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from helpers import TIMES, call

from trainer.actions.profile import Profile
from trainer.loop import Block
from trainer.plan.span import Span

RUN = (
    "launch.train --device=cpu --dataset=digits --model=cnn --replicas=2 --global_batch=64 "
    "--train_for=16st --eval_every=13st --checkpoint_every=12st --log_every=1st "
    "--steps_per_loop=10 --verbosity=0"
)
PLAN = RUN.replace("launch.train", "launch.plan") + " --out=none"

Said = dict[str, tuple[int, str]]


def carry_out(folder: pathlib.Path, lines: dict[str, str]) -> Said:
    """Commands in one process: the exit code and what was printed, by name."""
    path = folder / f"{next(iter(lines))}.json"
    path.write_text(json.dumps(lines), encoding="utf-8")
    ended = call(str(path), folder, module="tests.launch.in_one_process")
    assert ended.code == 0, ended.err
    return json.loads(ended.out.splitlines()[-1])


def at_step_12(of: pathlib.Path, name: str) -> pathlib.Path:
    """The run's folder as it would be had the run been killed after its first checkpoint."""
    folder = of.with_name(name)
    shutil.copytree(of, folder)
    (folder / "model.keras").unlink()
    for later in ("checkpoints/step-16", "best", "profile"):
        shutil.rmtree(folder / later)
    return folder


def rows(run: pathlib.Path) -> list[dict]:
    """The log without what tells of time: digests are in it."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    kept = [row for row in found if row.get("event") not in ("started", "resumed", "time")]
    return [{name: row[name] for name in row.keys() - TIMES} for row in kept]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def said(folder: pathlib.Path) -> Said:
    first = carry_out(
        folder,
        {
            "plain": f"{RUN} --run_dir={folder}/plain",
            "profiled": f"{RUN} --run_dir={folder}/profiled --profile=9:14",
        },
    )
    within = at_step_12(folder / "profiled", "within")
    return first | carry_out(
        folder,
        {
            "within": f"{RUN} --run_dir={within} --profile=9:14",
            "planned": f"{PLAN} --run_dir={folder}/new --profile=9:14",
            "beyond": f"{PLAN} --run_dir={folder}/new --profile=9:17",
            "advised": f"{PLAN} --run_dir={folder}/new --profile=8:16",
            "trained beyond": f"{RUN} --run_dir={folder}/new --profile=9:17",
        },
    )


def profile_of(run: pathlib.Path) -> tuple[list[int], set[str], set[str]]:
    """The steps that have markers, in their order, the names of events, those of statistics."""
    description = "tensorflow.tsl.profiler.protobuf.xplane_pb2"
    reader = pytest.importorskip(description, reason="this TensorFlow cannot read its profiles")
    (path,) = run.glob("profile/plugins/profile/*/*.xplane.pb")
    markers, events, statistics = [], set(), set()
    for plane in reader.XSpace.FromString(path.read_bytes()).planes:
        names = {number: each.name for number, each in plane.event_metadata.items()}
        kinds = {number: each.name for number, each in plane.stat_metadata.items()}
        statistics |= set(kinds.values())
        for event in (event for line in plane.lines for event in line.events):
            events.add(names[event.metadata_id])
            of_event = {kinds[each.metadata_id]: each.int64_value for each in event.stats}
            if "step_num" in of_event:
                markers.append((event.offset_ps, of_event["step_num"]))
    return [step for _, step in sorted(markers)], events, statistics


def test_every_step_of_the_span_has_a_marker_and_its_parts_have_names(
    said: Said, folder: pathlib.Path
) -> None:
    code, out = said["profiled"]
    assert code == 0 and "profiling steps 10 to 14\n" in out, out
    assert "profiled steps 10 to 14: see TensorBoard's tab Profile\n" in out
    there = importlib.util.find_spec("xprof") is not None
    assert ("the tab comes with pip install 'lockstep[profile]'" in out) is not there
    steps, events, statistics = profile_of(folder / "profiled")
    assert steps == [10, 11, 12, 13, 14]
    for scope in ("forward/cnn", "gradient_tape/forward/cnn", "backward/"):
        assert any(name.startswith(scope) for name in events), scope
    for scope in ("/all_reduce/", "/update/sgd"):
        assert any(scope in name for name in events), scope
    # By that name, the plugin would take iterations for steps, and see no marker.
    assert "iter_num" not in statistics and "iteration" in statistics


def test_the_same_bits_as_without(said: Said, folder: pathlib.Path) -> None:
    assert said["plain"][0] == 0 and not (folder / "plain/profile").exists()
    assert [row["step"] for row in rows(folder / "plain") if row.get("event") == "digest"]
    assert rows(folder / "profiled") == rows(folder / "plain")


def test_a_run_that_goes_on_within_the_span_profiles_the_rest_of_it(
    said: Said, folder: pathlib.Path
) -> None:
    code, out = said["within"]
    assert code == 0 and "profiling steps 13 to 14, the rest of steps 10 to 14\n" in out, out
    assert profile_of(folder / "within")[0] == [13, 14]
    assert rows(folder / "within") == rows(folder / "plain")


def test_the_plan_shows_it_and_knows_where_the_run_ends(said: Said, folder: pathlib.Path) -> None:
    assert "profile        steps 10 to 14, for TensorBoard\n" in said["planned"][1]
    for name in ("beyond", "trained beyond"):
        code, out = said[name]
        assert code == 2 and "--profile=9:17 goes beyond step 16, the run's last; give " in out
        assert "give --profile=8:16, or train longer." in out
    assert said["advised"][0] == 0
    assert not (folder / "new/checkpoints").exists()


def profiled(profile: Profile, first: int, last: int) -> None:
    """Goes through blocks of a step, as a run that goes on from `first` does."""
    profile.begin_at(first)
    for step in range(first, last):
        with profile.step(step):
            tf.random.normal([9]).numpy()
        block = Block(step, {"finite": np.ones(1, np.float32)}, None)
        profile.end(block)
        profile.begin(block)
    profile.close()


def test_a_run_that_goes_on_after_the_span_does_not_profile(tmp_path: pathlib.Path) -> None:
    lines = []
    profiled(Profile(Span(2, 12), tmp_path, 12, lines.append), 12, 15)
    assert lines == ["nothing to profile: steps 3 to 12 came before step 12"]
    assert not (tmp_path / "profile").exists()


def test_a_profile_that_cannot_be_written_is_a_warning(tmp_path: pathlib.Path) -> None:
    (tmp_path / "profile").write_text("no folder", encoding="utf-8")
    lines = []
    profiled(Profile(Span(1, 3), tmp_path, 0, lines.append), 0, 5)
    assert lines[0] == "profiling steps 2 to 3"
    (warning,) = lines[1:]
    assert warning.startswith("warning: steps 2 to 3 left no profile (")
    assert warning.endswith("); training goes on")


def test_a_stop_within_the_span_leaves_what_there_is(tmp_path: pathlib.Path) -> None:
    lines = []
    profiled(Profile(Span(1, 9), tmp_path, 0, lines.append), 0, 4)
    assert lines[1] == "profiled steps 2 to 4: see TensorBoard's tab Profile"
    assert profile_of(tmp_path)[0] == [2, 3, 4]


def test_a_profiler_that_runs_already_is_left_alone(tmp_path: pathlib.Path) -> None:
    lines = []
    profile = Profile(Span(4, 6), tmp_path, 3, lines.append)
    tf.profiler.experimental.start(str(tmp_path / "other"))
    profile.begin_at(4)
    with profile.step(4):
        tf.constant(1) + 1
    profile.begin_at(5)
    profile.close()
    tf.profiler.experimental.stop()  # raises where it was stopped
    assert list(tmp_path.glob("other/plugins/profile/*/*.xplane.pb"))
    (line,) = lines
    assert line.startswith("warning: steps 5 to 6 cannot be profiled (") and "profiler" in line
    assert not (tmp_path / "profile").exists()
