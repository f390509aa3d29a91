"""What TensorBoard shows of a run: the values of its log, in the order that people ask in, once."""

import io
import itertools
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
import pytest
from helpers import TIMES, Run
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.util.tensor_util import make_ndarray

from trainer.run_folder.board_tags import name_of, tag_of


def series(run: Run) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """All series of scalars, by board and name."""
    boards = ("train", "eval", "plan")
    return {(board, name): it for board in boards for name, it in run.board(board).items()}


def test_the_values_are_those_of_the_log(board_runs: dict[str, Run]) -> None:
    for name in ("one", "two", "killed"):
        run = board_runs[name]
        rows = [row for row in run.rows() if "event" not in row]
        logged: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for row in rows:
            for key, value in row.items():
                if key in ("step", "epoch", "seconds") or value is None:
                    continue
                board, _, short = key.partition("/")
                place = (board, short) if board in ("train", "eval") else ("train", key)
                logged.setdefault(place, []).append((row["step"], float(np.float32(value))))
        # The account of the time is an event's, and test_where_time_goes is about it.
        shown = {key: it for key, it in series(run).items() if not key[1].startswith("time/")}
        own = {("train", "events"), ("eval", "best_accuracy"), ("plan", "learning_rate")}
        assert shown.keys() == logged.keys() | own
        assert {place: shown[place] for place in logged} == logged


def test_the_best_and_the_marks_follow_from_the_log(board_runs: dict[str, Run]) -> None:
    for run in (board_runs["two"], board_runs["killed"]):
        evaluated = [(row["step"], row["eval/accuracy"]) for row in run.rows("eval/")]
        best = itertools.accumulate((value for _, value in evaluated), max)
        expected = [
            (step, float(np.float32(it))) for (step, _), it in zip(evaluated, best, strict=True)
        ]
        assert run.board("eval")["best_accuracy"] == expected
        count, before, marks = 0, 0, []
        for row in run.rows():
            if "event" in row:
                count += row["event"] != "digest"
            elif "train/loss" in row:
                phases = sum(before < first <= row["step"] for first in (1, 11))
                marks.append((row["step"], float(count + phases)))
                count, before = 0, row["step"]
        assert run.board("train")["events"] == marks
        assert marks[0][1] == 2  # the start, and the warmup
        assert [step for step, mark in marks if mark][1] == 15  # the cosine


def test_the_first_page_is_in_order_and_says_what_it_shows(board_runs: dict[str, Run]) -> None:
    run = board_runs["one"]
    found = {board: run.events(board) for board in ("train", "eval", "plan")}
    tags = {tag for it in found.values() for tag in it.PluginTagToContent("scalars")}
    overview = [name_of(tag) for tag in sorted(tags) if tag.startswith("1_overview/")]
    assert overview == ["loss", "accuracy", "learning_rate", "gradient_norm"] + [
        "examples_per_second",
        "input_wait_fraction",
        "step_ms",
        "events",
    ]
    assert min(tags) == "1_overview/1_loss"
    for it in found.values():
        for tag in it.PluginTagToContent("scalars"):
            assert it.SummaryMetadata(tag).summary_description, tag


def test_a_tag_tells_its_name() -> None:
    for headline in ("loss", "accuracy", "bits_per_byte"):
        for name in ("loss", headline, "learning_rate", "learning_rate/head × 0.1", "iou_3"):
            assert name_of(tag_of(name, headline)) == name
    assert tag_of("accuracy", "bits_per_byte") == "2_details/accuracy"


def test_the_plan_is_drawn_to_the_end_before_it_happens(board_runs: dict[str, Run]) -> None:
    for name in ("one", "killed"):
        run = board_runs[name]
        planned = dict(run.board("plan")["learning_rate"])
        assert sorted(planned) == list(range(1, 60))
        applied = run.board("train")["learning_rate"]
        np.testing.assert_allclose([planned[s] for s, _ in applied], [r for _, r in applied], 1e-6)
    # Cuts of the rate are none of the plan's.
    run = board_runs["two"]
    planned, last = dict(run.board("plan")["learning_rate"]), run.rows("train/")[-1]
    (cut,) = [row for row in run.rows("scale") if row["step"] < 59]
    assert last["learning_rate"] == pytest.approx(planned[59] * cut["scale"])


def test_texts_tell_what_was_planned_asked_for_and_done(board_runs: dict[str, Run]) -> None:
    run = board_runs["two"]
    texts = {tag: it[-1][1] for tag, it in run.texts("plan").items()}
    assert "learning rate  0.05 = 0.2 × 64/256, linear" in texts["1_plan"]
    words = shlex.split(texts["3_command"].strip("`\n").replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "launch.train"]
    assert set(words) >= {"--learning_rate=0.2", "--plateau=reduce(patience=0,threshold=0.9)"}
    assert "| tensorflow | 2." in texts["4_environment"]
    table = [line.split(" | ") for line in texts["2_events"].splitlines()[2:]]
    assert [step for step, _ in table] == sorted(
        (step for step, _ in table), key=lambda s: int(s[2:])
    )
    told = [text.split("**")[1] for _, text in table]
    assert told == ["started", "phase", "phase", "plateau", "plateau"], table


def test_nothing_is_there_twice_after_a_kill(board_runs: dict[str, Run]) -> None:
    whole, killed = board_runs["one"], board_runs["killed"]
    assert "going on from step 29" in killed.ended.out
    left_out = {*TIMES, "events"}  # there was another start
    theirs, ours = (
        {
            place: it
            for place, it in series(run).items()
            if place[1] not in left_out and not place[1].startswith("time/")
        }
        for run in (whole, killed)
    )
    assert ours == theirs
    for board in ("train", "eval", "plan"):
        events = killed.events(board)
        for tag in events.Tags()["tensors"]:
            steps = [event.step for event in events.Tensors(tag)]
            assert steps == sorted(set(steps)), tag
    assert killed.texts("plan")["2_events"][-1][1].count("**started**") == 2
    assert len(list((killed.folder / "eval").iterdir())) == 3  # two processes', and the flags


def hparams_of(run: Run) -> tuple[Mapping[str, Any], bool]:
    """The flags of a run on the HParams page, and whether it says that it has ended well."""
    content = run.events("eval").PluginTagToContent("hparams")
    start = hparams.parse_session_start_info_plugin_data(content[hparams.SESSION_START_INFO_TAG])
    assert start.group_name == str(run.folder)
    end = hparams.parse_session_end_info_plugin_data(content[hparams.SESSION_END_INFO_TAG])
    values = {name: getattr(it, it.WhichOneof("kind")) for name, it in start.hparams.items()}
    return values, end.status == 1


def test_hparams_have_the_flags_that_matter(board_runs: dict[str, Run]) -> None:
    (one, _), (two, ended) = hparams_of(board_runs["one"]), hparams_of(board_runs["two"])
    assert ended
    differ = {name for name in {**one, **two} if one.get(name) != two.get(name)}
    assert differ == {"learning_rate", "plateau", "seed"}
    assert (one["learning_rate"], one["model"], one["micro_batch"]) == (0.1, "mlp", 64)
    assert isinstance(one["weight_decay"], float) and "run_dir" not in one


def test_every_chart_of_the_layout_has_curves(board_runs: dict[str, Run]) -> None:
    run = board_runs["one"]
    events = run.events("plan")
    (tensor,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(make_ndarray(tensor.tensor_proto).item())
    assert layout.category[0].chart[0].title == "loss"
    tags = {tag for b in ("train", "eval") for tag in run.events(b).PluginTagToContent("scalars")}
    for chart in (chart for category in layout.category for chart in category.chart):
        assert {it.strip("^$") for it in chart.multiline.tag} <= tags, chart


def test_pictures_are_few_and_whole(board_runs: dict[str, Run]) -> None:
    for name in ("one", "killed"):
        found = {}
        for board in ("train", "eval"):
            events = board_runs[name].events(board)
            for tag in events.PluginTagToContent("images"):
                shown = [(e.step, make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
                for _, (width, height, png) in shown:
                    image = PIL.Image.open(io.BytesIO(png))
                    assert image.size == (int(width), int(height)) and len(png) < 100_000
                    assert len(np.unique(image)) > 10
                found[tag.removeprefix("3_pictures/")] = [step for step, _ in shown]
        assert found == {"examples": [0], "confusion": [20, 40, 59], "mistakes": [20, 40, 59]}


def test_histograms_are_of_the_weights_and_ratios_of_the_step(board_runs: dict[str, Run]) -> None:
    run = board_runs["killed"]
    before, after = run.variables(58), run.variables(59)
    layers = {name.split("/")[1] for name in after if name.startswith("model/")}
    events = run.events("train")
    assert {f"weights/{layer}" for layer in layers} == set(events.PluginTagToContent("histograms"))
    (row,) = [row for row in run.rows("update_ratio/") if row["step"] == 59]
    for layer in layers:
        then, now = (
            np.concatenate([v.ravel() for n, v in of.items() if n.startswith(f"model/{layer}/")])
            for of in (before, after)
        )
        ratio = np.linalg.norm(now.astype(float) - then) / np.linalg.norm(now.astype(float))
        assert row[f"update_ratio/{layer}"] == pytest.approx(ratio, rel=1e-5)
        first, last = events.Tensors(f"weights/{layer}")
        assert (first.step, last.step) == (30, 59)
        shown = make_ndarray(last.tensor_proto)
        counts, edges = np.histogram(now.astype(float), 30)
        np.testing.assert_array_equal(shown[:, 2], counts)
        np.testing.assert_allclose(shown[:, 0], edges[:-1])


def test_a_folder_that_takes_no_plan_ends_no_run(board_runs: dict[str, Run]) -> None:
    run = board_runs["blocked"]
    assert "TensorBoard's texts cannot be written" in run.ended.out
    assert [step for step, _ in run.board("train")["loss"]] == [3]
