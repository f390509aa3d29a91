"""Out of a run: evaluate, predict, export and MODEL.md, on runs as they are."""

import contextlib
import csv
import fcntl
import importlib
import io
import json
import pathlib
import re
import shutil
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf
from helpers import Ended, Run, call, carried_out, content, in_parallel
from PIL import Image

from input_pipeline.bad_records import Faults
from input_pipeline.images.listed_files import image_paths
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from launch.evaluate import Evaluated, evaluated_text
from launch.export import Interrupt
from launch.flags.parsing import check_file
from launch.predict import open_model
from launch.process import cli
from launch.terminal.csv_text import csv_text
from launch.terminal.evaluation_charts import short as short_count
from trainer.exported import missing
from trainer.plan.headline import Headline

NEEDED = ("1x1", "2x2")
EMA = (
    "launch.train --device=cpu --dataset=digits --model=mlp --global_batch=64 --train_for=12st "
    "--micro_batch=16 --ema=0.8 --log_every=6st --eval_every=6st --checkpoint_every=6st"
)
# In one process, on one replica; RUN is a copy of an mlp that two replicas have trained.
LINES = {
    "ema": f"{EMA} --run_dir=ema",
    "last": "launch.evaluate run --json=last.json --out=out",
    "best": "launch.evaluate run --json=best.json --out=none --checkpoint=best",
    "locked": "launch.evaluate locked --checkpoint=40",
    "averages": "launch.evaluate ema --json=averages.json --out=none",
    "pictures": "launch.evaluate run --dataset=folder:pictures --split=train --json=pictures.json",
    "predict": "launch.predict run pictures --out=predicted.csv --top=2",
    "broken": "launch.predict run/model.keras pictures/train/7 broken --top=1",
    "saved_model": "launch.export run --out=saved",
    "keras": "launch.export run --format=keras",
    "exported": "launch.predict run/export/keras-step-50/model.keras pictures --out=exported.csv "
    "--top=2",
    "litert": "launch.export run --format=litert",
    **{
        form: f"launch.export run --format={form}"
        for form in ("onnx", "openvino")
        if not missing(form)
    },
}


def write_pictures(folder: pathlib.Path) -> None:
    """The digits to evaluate on as files, `train/CLASS/RECORD.png`; eights are of no class here."""
    source = open_source(DataSettings("digits"), "eval")
    files, labels = source.read(np.arange(source.length))
    for record, (file, label) in enumerate(zip(files, labels.tolist(), strict=True)):
        for split in ("train", "test"):
            path = folder / split / str(label) / f"{split}{record:04}.png"
            if label != 8 and (split == "train" or record < 60):
                path.parent.mkdir(parents=True, exist_ok=True)
                # Those to evaluate on are others, or they would be in both splits.
                path.write_bytes(file if split == "train" else file + b" ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, mlp_runs: dict[str, Run]) -> pathlib.Path:
    made = tmp_path_factory.mktemp("serving")
    for name in ("run", "locked"):
        shutil.copytree(mlp_runs["2x2"].folder, made / name)
    write_pictures(made / "pictures")
    (made / "broken").mkdir()
    Image.new("RGB", (30, 20), "white").save(made / "broken/large.webp")
    (made / "broken/cut.png").write_bytes((made / "broken/large.webp").read_bytes()[:40])
    return made


@pytest.fixture(scope="module")
def ended(folder: pathlib.Path) -> dict[str, Ended]:
    """What came of `LINES`, and of evaluations on three replicas."""
    before = content(folder / "locked")
    three = "run --json=three.json --out=none --replicas=3 --device=cpu"
    with (folder / "locked/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = in_parallel(
            {
                "one": lambda: carried_out(folder, LINES),
                "three": lambda: call(three, folder, module="launch.evaluate"),
            }
        )
    assert content(folder / "locked") == before
    return found["one"] | {"three": found["three"]}


@pytest.fixture(scope="module")
def run(folder: pathlib.Path, ended: dict[str, Ended]) -> Run:
    codes = {name: one.code for name, one in ended.items()}
    assert codes == dict.fromkeys(codes, 0) | {"broken": 1}, ended
    return Run(folder / "run")


def metrics(folder: pathlib.Path, name: str) -> dict[str, float]:
    found = json.loads((folder / f"{name}.json").read_text())
    return {n: found[n] for n in found if n.startswith("eval/")} | {"step": found["step"]}


@pytest.mark.parametrize("name", ["last", "three", "best"])
def test_evaluate_has_the_very_numbers_that_training_logged(
    folder: pathlib.Path, run: Run, name: str
) -> None:
    found = metrics(folder, name)
    rows = {row["step"]: row for row in run.rows("eval/")}
    best = json.loads((run.folder / "best/metrics.json").read_text())["step"]
    assert found["step"] == (best if name == "best" else 50)
    assert found == {n: rows[found["step"]][n] for n in found}


def test_averages_are_evaluated_as_training_did(folder: pathlib.Path, run: Run) -> None:
    found, logged = metrics(folder, "averages"), Run(folder / "ema").rows("eval/")[-1]
    assert found == {name: logged[name] for name in found}
    assert found["eval/loss"] != found["eval/loss_raw"]


def test_what_is_shown_and_written_is_what_the_numbers_say(
    folder: pathlib.Path, run: Run, ended: dict[str, Ended]
) -> None:
    found = json.loads((folder / "last.json").read_text())
    text = ended["last"].out
    assert max(map(len, text.split("\n"))) <= 80
    assert f"accuracy       {found['eval/accuracy']:.2%}" in text
    rows = re.findall(r"^(\d) +([\d.]+)% +([\d.]+)% +([\d.]+)% +(\d+)$", text, re.MULTILINE)
    assert len(rows) == len(found["per_class"]) == 10
    for (name, *shown), row in zip(rows, found["per_class"], strict=True):
        assert name == row["name"] and float(shown[3]) == row["support"]
        for share, column in zip(shown, ("precision", "recall", "f1"), strict=False):
            assert float(share) == pytest.approx(100 * row[column], abs=0.006)
    right = sum(count for label, answer, count in found["confusion"] if label == answer)
    assert right / found["examples"] == pytest.approx(found["eval/accuracy"], abs=1e-12)
    for name in ("confusion", "calibration", "mistakes"):
        assert np.asarray(Image.open(folder / f"out/{name}.png")).std() > 10
    wrong = [r for r in table(folder / "out/answers.csv") if r["class"] != r["answer"]]
    assert {row["example"] for row in found["worst"]} <= {row["example"] for row in wrong}
    assert len(wrong) == round((1 - found["eval/accuracy"]) * found["examples"])


def test_all_metrics_of_a_task_are_shown_and_the_headline_as_it_is_read() -> None:
    names = ("loss", "mean_average_precision", "accuracy", "top_5_accuracy")
    metrics = {f"eval/{name}": 0.125 * place for place, name in enumerate(names, start=1)}
    shown = {
        Headline("accuracy", False, True): ["0.125", "0.25", "37.50%", "0.5"],
        Headline("mean_average_precision", False, True): ["0.125", "25.00%", "0.375", "0.5"],
    }
    for headline, values in shown.items():
        of = Evaluated(None, None, None, metrics, headline, None, np.zeros(0, np.int64))
        lines = evaluated_text(of, Faults(None)).split("\n")
        assert [line.rpartition(" ")[0].rstrip().replace(" ", "_") for line in lines] == [*names]
        assert [line.split()[-1] for line in lines] == values


def test_a_run_that_trains_is_only_read(ended: dict[str, Ended], run: Run) -> None:
    assert "no pictures: the run is training" in ended["locked"].out  # see the fixture `ended`
    assert "of step 40" in ended["locked"].out


def table(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_labels_of_other_data_are_found_by_the_classes_names(
    folder: pathlib.Path, run: Run
) -> None:
    """Their nine is class 8 of these and 9 of the model's."""
    found = json.loads((folder / "pictures.json").read_text())
    mine = {(label, answer): n for label, answer, n in found["confusion"]}
    model = json.loads((folder / "last.json").read_text())["confusion"]
    assert mine == {(label, answer): n for label, answer, n in model if label != 8}


def test_predict_gives_the_answers_that_evaluate_does(
    folder: pathlib.Path, run: Run, ended: dict[str, Ended]
) -> None:
    (out,) = (run.folder / "evaluation").glob("step-50-pictures-train/answers.csv")
    answers = {pathlib.Path(row["example"]).name: row for row in table(out)}
    predicted = {pathlib.Path(row["path"]).name: row for row in table(folder / "predicted.csv")}
    assert len(answers) > 300 and set(answers) <= set(predicted)
    for name, row in answers.items():
        assert predicted[name]["class_1"] == row["answer"]
        assert float(predicted[name]["probability_1"]) == pytest.approx(
            float(row["probability"]), abs=2e-5
        )


def test_a_model_exported_beside_its_run_tells_what_the_run_does(
    folder: pathlib.Path, ended: dict[str, Ended]
) -> None:
    assert ended["exported"].code == 0, ended["exported"]
    assert table(folder / "exported.csv") == table(folder / "predicted.csv")


def test_broken_pictures_are_named_and_the_others_answered(
    folder: pathlib.Path, ended: dict[str, Ended], run: Run
) -> None:
    lines = ended["broken"].out.splitlines()
    assert len(lines) == len(list((folder / "pictures/train/7").iterdir())) + 1
    assert lines[-1].startswith("broken/large.webp ")
    assert (
        re.findall(r"^left out: (.*)$", ended["broken"].err, re.MULTILINE)
        == ["broken/cut.png: its image is damaged (image file is truncated)."]
        or "left out: broken/cut.png: its image" in ended["broken"].err
    )
    assert sum(line.split()[-2] == "7" for line in lines[:-1]) > 30


def test_exports_answer_as_the_model_does(ended: dict[str, Ended], run: Run) -> None:
    for form in ("saved_model", "litert", "onnx", "openvino"):
        if form in ended:
            assert f"{form:14} 64 of 64 answers equal" in ended[form].out
    assert "from files     64 of 64 answers equal" in ended["saved_model"].out


def test_a_saved_model_has_labels_and_takes_files(folder: pathlib.Path, run: Run) -> None:
    loaded = tf.saved_model.load(str(folder / "saved"))
    files = sorted((folder / "pictures/train").glob("*/*.png"))[::40]
    found = loaded.signatures["encoded"](tf.constant([file.read_bytes() for file in files]))
    predicted = {row["path"]: row for row in table(folder / "predicted.csv")}
    for file, name in zip(files, found["class"].numpy(), strict=True):
        assert predicted[str(file.relative_to(folder))]["class_1"] == name.decode()
    labels = "".join(f"{number}\n" for number in range(10))
    assert (folder / "saved/labels.txt").read_text() == labels
    assert (folder / "saved/assets/labels.txt").read_text() == labels


@pytest.mark.parametrize("where", ["", "best"])
def test_the_five_lines_of_the_model_card_work_as_they_stand(
    folder: pathlib.Path,
    run: Run,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    card = (run.folder / where / "MODEL.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert code.count("\n") == 5
    monkeypatch.chdir(run.folder / where)
    predicted = {row["path"]: row for row in table(folder / "predicted.csv")}
    for file in sorted((folder / "pictures/train").glob("*/*.png"))[5::120]:
        shutil.copyfile(file, "picture.png")
        exec(compile(code, "MODEL.md", "exec"), {})
        assert (
            where
            or capsys.readouterr().out.strip()
            == (predicted[str(file.relative_to(folder))]["class_1"])
        )
    step = json.loads((run.folder / "best/metrics.json").read_text())["step"] if where else 50
    row = next(row for row in run.rows("eval/") if row["step"] == step)
    assert f"| eval/loss | {row['eval/loss']!r} |" in card
    assert "uint8 [n, 8, 8, 1]" in card and "- 9: 9\n" in card and "--seed" not in card


def test_an_image_divided_by_255_is_zeros_to_the_model_as_its_card_warns(run: Run) -> None:
    """Keras casts to the input's uint8 before any layer sees it, so none could warn."""
    model = tf.keras.models.load_model(run.folder / "model.keras")
    image = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    found = model.predict(image / 255, verbose=0)
    assert np.array_equal(found, model.predict(np.zeros_like(image), verbose=0))
    assert not np.allclose(found, model.predict(image, verbose=0))
    assert "divided by 255 before become 0" in (run.folder / "MODEL.md").read_text()


WRONG = {
    "evaluate nowhere": "nowhere holds no run; give the --run_dir of one.",
    "evaluate": "give one run folder: python -m launch.evaluate RUN_DIR.",
    "evaluate pictures": "pictures holds no run",
    "evaluate run --checkpoint=17": "those of step 20, 40, 50; use last or best, or one of these.",
    "evaluate run --split=test": "--split=test is unknown; use one of eval, train.",
    "evaluate run --dataset=folder:gone": "the folder gone does not exist",
    "evaluate run --dataset=folder:other": "the classes 'cat', 'dog' of other/eval are none that",
    "evaluate run --dataset=synthetic:8x8x3": "are 8 × 8 × 3 and the model of run takes 8 × 8 × 1",
    "evaluate run --json=gone/a.json": "--json=gone/a.json cannot be written",
    "evaluate run --replicas=2 --device=gpu": "--device=gpu, but TensorFlow found 0 GPUs",
    "evaluate bare": "bare has no checkpoint; wait for its first one.",
    "evaluate bare --checkpoint=best": "--checkpoint=best, and bare was not evaluated yet",
    "predict run": "give a run's folder or a model and pictures",
    "predict run none.png": "none.png does not exist; give image files, or folders of them.",
    "predict run empty": "the folder empty holds no image; give one that does.",
    "predict gone.keras pictures": "gone.keras does not exist; give a run's folder",
    "predict run pictures --out=gone/a.csv": "--out=gone/a.csv cannot be written",
    "export run --format=onx": r"did you mean onnx\?",
    "export run --format=keras --out=pictures": "pictures is there already; remove it, or give",
}


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory, mlp_runs: dict[str, Run]) -> pathlib.Path:
    made = tmp_path_factory.mktemp("mistakes")
    shutil.copytree(mlp_runs["2x2"].folder, made / "run")
    (made / "bare").mkdir()
    shutil.copyfile(made / "run/flags.txt", made / "bare/flags.txt")
    for name in ("empty", "pictures", *(f"other/{s}/{c}" for s in ("train", "test") for c in "dc")):
        (made / name).mkdir(parents=True)
    for number, split in enumerate(("train", "test")):
        for short, name in (("c", "cat"), ("d", "dog")):
            path = (made / "other" / split / short).rename(made / "other" / split / name)
            Image.new("L", (8, 8), 40 * number + len(short) + ord(short)).save(path / "a.png")
    Image.new("L", (8, 8)).save(made / "pictures/a.png")
    return made


@pytest.fixture
def there(mistakes: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    monkeypatch.chdir(mistakes)
    yield mistakes


@pytest.mark.parametrize("line", WRONG)
def test_a_mistake_is_one_sentence(line: str, there: pathlib.Path) -> None:
    command, *arguments = line.split()
    with pytest.raises(cli.WrongCommandError, match=WRONG[line]) as raised:
        importlib.import_module(f"launch.{command}").main(arguments)
    assert "\n" not in str(raised.value)
    assert not (there / "run/evaluation").exists() and not (there / "run/export").exists()


def test_counts_in_a_picture_are_short() -> None:
    counts = [0, 0.5, 9_999, 9_999.6, 12_345, 669_432, 1_234_567, 52_428_800, 3e9]
    shown = ["0", "0.5", "9999", "10k", "12k", "669k", "1.2M", "52M", "3.0G"]
    assert [short_count(count) for count in counts] == shown


def test_a_cell_with_any_end_of_a_line_comes_back() -> None:
    rows = [["path", "class"], ["a\rb", "c,d"], ['e"f', "g\nh"], ["i\r\nj", "k"]]
    assert list(csv.reader(io.StringIO(csv_text(rows), newline=""))) == rows
    assert csv_text([["a", 1.5]]) == "a,1.5\n"
    assert csv_text(rows).startswith("path,class\n")  # by which a table is known again


def test_what_another_file_holds_is_not_written_over(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_text("path,class_1\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty").touch()
    for name in ("a.csv", "empty", "new"):
        check_file("out", str(tmp_path / name), begins=b"path,")
    with pytest.raises(ValueError, match=r"picture\.png is there already and holds something else"):
        check_file("out", str(tmp_path / "picture.png"), begins=b"path,")


def test_files_that_are_pictures_by_name_alone_are_not_passed_over(tmp_path: pathlib.Path) -> None:
    for name in ("text.png", "photo.HEIC", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_text("no picture")
    assert image_paths([str(tmp_path)]) == [
        f"{tmp_path}/{name}" for name in ("photo.HEIC", "text.png")
    ]


def test_an_interrupt_that_a_converter_swallows_is_raised_again() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        interrupt = Interrupt()
        interrupt.check()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_model_in_an_export_has_the_names_and_the_pictures_of_its_run(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = tmp_path / "run/export/keras-step-4"
    export.mkdir(parents=True)
    (export / "model.keras").touch()
    (export / "labels.txt").write_text("cat\ndog\n")
    alone = open_model(export / "model.keras", "best")
    assert (alone.class_names, alone.resized) == (("cat", "dog"), False)
    assert "no run's flags.txt is near" in capsys.readouterr().err
    (tmp_path / "run/flags.txt").write_text("--dataset=folder:pets\n--image_size=16\n")
    assert open_model(export / "model.keras", "best").resized
    (tmp_path / "run/classes.txt").write_text("others\nof\nthe run\n")
    assert open_model(export / "model.keras", "best").class_names == ("cat", "dog")
    assert capsys.readouterr().err == ""
