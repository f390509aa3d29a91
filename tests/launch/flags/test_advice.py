"""Advice that works: what an error says to do is done, and leads to a plan.

The rows are in `advice_rows`. `test_every_advice_is_followed` sees that no message that advises a
flag is left out.
"""

import ast
import json
import pathlib
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline.records.tf_example import write_example
from launch import control, find_lr, look, prepare, replay, train, verify
from launch import plan as plan_command_line
from launch.flags.command import read_command
from launch.replay import open_out_folder
from launch.training.job import open_job, plan_command
from launch.training.re_execution import Ran, device_flags, trained_on
from tests.launch.flags.advice_rows import FIND_LR, FLAG, PLAN
from trainer.plan.devices import choose_devices
from trainer.plan.settings import DeviceSettings

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]


def plan(arguments: list[str]) -> None:
    """All that launch.plan checks."""
    plan_command(read_command(["--device=cpu", "--run_dir=run", *arguments]))


def sweep(arguments: list[str]) -> None:
    """All that launch.find_lr checks."""
    values = find_lr.define_find_lr_flags()
    command = read_command(["--device=cpu", "--run_dir=run", *arguments], values)
    find_lr.plan_range_test(command, plan_command(command)[0])


def message_of(check: Callable[[list[str]], None], command: str) -> str:
    with pytest.raises(ValueError) as error:
        check(shlex.split(command))
    return str(error.value)


def name_of(argument: str) -> str:
    return argument.partition("=")[0]


@pytest.mark.parametrize(
    ("check", "command", "pattern", "fixes"),
    [(plan, *row) for row in PLAN] + [(sweep, *row) for row in FIND_LR],
)
def test_what_an_error_says_to_do_leads_to_a_plan(
    check: Callable[[list[str]], None], command: str, pattern: str, fixes: list[str]
) -> None:
    message = message_of(check, command)
    advice = re.search(pattern, message)
    assert advice, message
    words = [re.sub(r"(?<=\d),(?=\d{3})", "", word) for word in advice.groups()]
    for fix in fixes:
        given = shlex.split(fix.format(*words))
        kept = [each for each in shlex.split(command) if name_of(each) not in map(name_of, given)]
        check(kept + given)


def test_more_replicas_than_gpus() -> None:
    def choose(device: str, replicas: int, gpus: int) -> str:
        settings = DeviceSettings(device, replicas, global_batch=64)
        return choose_devices(settings, gpus, cores=2).because

    with pytest.raises(ValueError, match=r"--replicas=4.*use at most 2, or --device=cpu\.$"):
        choose("gpu", 4, 2)
    choose("gpu", 2, 2)
    warning = re.search(r"slower than --replicas=(\d+)", choose("cpu", 4, 0))
    assert "warning" not in choose("cpu", int(warning[1]), 0)


def images(folder: pathlib.Path, sides: Mapping[str, int], modes: Mapping[str, str]) -> None:
    """Two classes of images in `folder/SPLIT/CLASS`, of a side each class and a mode each split."""
    for split, mode in modes.items():
        for name, side in sides.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(4):
                Image.new(mode, (side, side)).save(folder / split / name / f"{number}.png")


def test_images_that_differ_in_size_or_channels(tmp_path: pathlib.Path) -> None:
    images(tmp_path / "sizes", {"cat": 8, "dog": 9}, {"train": "L", "test": "L"})
    command = f"--dataset=folder:{tmp_path}/sizes --global_batch=4"
    size = re.search(f"for example {FLAG}", message_of(plan, command))
    plan([*command.split(), size[1]])
    np.savez(
        tmp_path / "sizes.npz",
        x_train=np.zeros((9, 8, 8, 1), np.uint8),
        y_train=np.arange(9) % 3,
        x_test=np.zeros((3, 9, 9, 1), np.uint8),
        y_test=np.arange(3),
    )
    command = f"--dataset=arrays:{tmp_path}/sizes.npz --global_batch=4"
    assert "and --image_size for equal sizes" in message_of(plan, command)
    plan([*command.split(), "--image_size=8"])


def test_what_is_trained_and_evaluated_on(tmp_path: pathlib.Path) -> None:
    images(tmp_path / "pets", {"cat": 8, "dog": 8}, {"train": "L"})
    command = f"--dataset=folder:{tmp_path}/pets --global_batch=2"
    instead = re.search(f"{FLAG}, without --eval_split", message_of(plan, f"{command} {SAME}"))
    plan([*command.split(), instead[1]])
    path = tmp_path / "records"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(20):
            content = (tmp_path / "pets/train/cat/0.png").read_bytes()
            writer.write(write_example({"image": content, "label": number % 2}))
    command = f"--num_classes=2 --global_batch=2 --dataset=tfrecord:{path}"
    instead = re.search(
        f"leave EVAL_GLOB out and say {FLAG}", message_of(plan, f"{command},{path}")
    )
    plan([*command.split(), instead[1]])


SAME = "--eval_split=train"


def test_adascale_beside_a_synchronized_batch_normalization() -> None:
    from trainer.run import comparable_micro_batches

    def compared(synchronized: bool, *arguments: str) -> int:
        asked = ["--device=cpu", "--lr_scaling=adascale", "--lr_reference_batch=32"]
        planned, _, _ = plan_command(read_command([*asked, *arguments]))
        normalize = keras.layers.BatchNormalization(synchronized=synchronized)
        return comparable_micro_batches(keras.Sequential([keras.Input([4]), normalize]), planned)

    with pytest.raises(ValueError, match=r"use --batch_norm=local, a model without it, or one rep"):
        compared(True, "--replicas=2")
    assert compared(False, "--replicas=2") == 2
    assert compared(True, "--micro_batch=32") == 2


TAKE_RECIPES = [find_lr, look, plan_command_line, prepare, train]


@pytest.mark.parametrize("command", [*TAKE_RECIPES, control, replay, verify])
@pytest.mark.parametrize("flag", ["--help", "--helpfull"])
def test_help_is_there(command: ModuleType, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([flag]) == 0
    text = capsys.readouterr().out
    assert f"python -m {command.__name__}" in text
    assert (
        ("--flagfile=RECIPE" in text) == ("Recipes: cifar10" in text) == (command in TAKE_RECIPES)
    )
    assert max(map(len, text.split("\n"))) <= 80


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "def own(*a):\n    return 1 / 0\n",
            "ended with ZeroDivisionError (division by zero) in line 2",
        ),
        ("def own(): pass\n", "ended with TypeError"),
        ("def own(\n", "ended with SyntaxError"),
        ("raise RuntimeError('two\\nlines')\n", "ended with RuntimeError (two lines) in line 1"),
        ("def own(*a): return 3\n", "returned int"),
    ],
)
def test_a_function_of_ones_own_that_fails_is_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    from trainer.learning_rate.own_schedule import own_decay

    name = f"own_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    message = message_of(plan, f"--dataset=python:{name}:own")
    assert said in message and "\n" not in message
    command = read_command(["--device=cpu", f"--decay=python:{name}:own"])
    with pytest.raises(ValueError, match=re.escape(said)):
        own_decay(plan_command(command)[0].learning_rate)


def test_another_run_folder_is_always_one(tmp_path: pathlib.Path) -> None:
    """Whatever is wrong with one, `another --run_dir` is right, as is the other advice."""

    def opened(name: str, *arguments: str) -> None:
        run_dir = f"--run_dir={tmp_path / name}"
        open_job(read_command(["--device=cpu", run_dir, *arguments])).held.close()

    (tmp_path / "odd/flags.txt").mkdir(parents=True)
    with pytest.raises(ValueError, match="move it away, or give another --run_dir"):
        opened("odd")
    (tmp_path / "odd/flags.txt").rename(tmp_path / "away")
    opened("odd")
    (tmp_path / "used").mkdir()
    (tmp_path / "used/metrics.jsonl").touch()
    with pytest.raises(ValueError, match=f"give another --run_dir, or {FLAG} to go on"):
        opened("used", "--resume=never")
    opened("used", "--resume=auto")
    opened("new", "--resume=never")


def ran_on(folder: pathlib.Path, **devices: object) -> Ran:
    """A run, of whose folder only what its plan says of the devices is there."""
    (folder / "plan.json").write_text(json.dumps({"accumulate": 2, **devices}))
    settings = read_command(["--deterministic"]).settings
    return Ran(folder, settings, [], {}, [], [], [], {}, trained_on(folder))


@pytest.mark.parametrize(
    ("then", "exact", "wrong", "right"),
    [
        ("CPU", True, ("gpu", 2, 0), ["--device=cpu", "--replicas=2"]),
        ("GPU", True, ("cpu", 2, 2), ["--device=gpu", "--replicas=2"]),
        ("GPU", True, ("gpu", 4, 2), ["--device=gpu", "--replicas=2"]),
        ("CPU", False, ("auto", 2, 0), ["--device=cpu", "--replicas=4"]),
        ("GPU", False, ("auto", 2, 4), ["--device=gpu", "--replicas=4"]),
        ("GPU", False, ("auto", 2, 3), "take 4 GPUs, and this machine has 3; do it where they are"),
        ("GPU", True, ("gpu", 0, 0), "take 1 GPU, and this machine has none; do it where they are"),
    ],
)
def test_devices_that_steps_are_done_again_on(
    tmp_path: pathlib.Path,
    then: str,
    exact: bool,
    wrong: tuple[str, int, int],
    right: list[str] | str,
) -> None:
    ran = ran_on(tmp_path, device=then, replicas=4, exact=exact)
    with pytest.raises(ValueError) as error:
        device_flags(ran, *wrong)
    if isinstance(right, str):
        assert right in str(error.value)
        return
    name, value = re.search(r"; use --(\w+)=(\w+)\.$", str(error.value)).groups()
    device, replicas, here = wrong
    device = value if name == "device" else device
    replicas = int(value) if name == "replicas" else replicas
    assert device_flags(ran, device, replicas, here) == right


def test_a_folder_for_a_replayed_run(tmp_path: pathlib.Path) -> None:
    for wrong in ("used", "used/file"):
        out = tmp_path / wrong
        out.parent.mkdir(exist_ok=True)
        out.touch() if wrong == "used/file" else (out / "in it").mkdir(parents=True)
        with pytest.raises(ValueError, match="remove it, or give a new folder, --out=DIR"):
            open_out_folder(out)
    for impossible in ("used/file/in it", "x" * 300):
        with pytest.raises(OSError, match="give another folder, --out=DIR"):
            open_out_folder(tmp_path / impossible)
    open_out_folder(tmp_path / "new/one")
    (tmp_path / "used/file").unlink()
    open_out_folder(tmp_path / "used/file")


def test_numbers_that_are_no_classes(tmp_path: pathlib.Path) -> None:
    images, path = np.arange(9 * 16, dtype=np.uint8).reshape(9, 4, 4), tmp_path / "numbers.npz"
    labels = np.eye(9)[:, :3] + np.eye(9)[:, 1:4]
    for targets, tasks in ((np.arange(9) / 2, "regression"), (labels, "regression multi_label")):
        np.savez(path, x_train=images, y_train=targets, x_test=images, y_test=targets)
        command = f"--dataset=arrays:{path} --global_batch=4"
        advised = re.findall(r"(--task=\w+)", message_of(plan, command))
        assert advised == [f"--task={task}" for task in tasks.split()]
        for flag in advised:
            plan([*command.split(), flag])


RUN_DIR = "test_another_run_folder_is_always_one; the runs in tests/launch/training/test_resume.py"
TRAINED = "tests/launch/training/test_trained.py"
# Advice on flags that is followed elsewhere: where, by a piece of the sentence.
ELSEWHERE = {
    "give --replicas=1,2,4": "tests/launch/test_benchmark.py",
    "or use --tracker=none": "tests/launch/training/test_tracking.py",
    "give another file, --out=FILE": "tests/launch/reports/test_report.py",
    "has the --run_dir of some": "tests/launch/reports/test_report.py",
    "is no flag with its values": "tests/launch/test_sweep.py",
    "whose runs share other flags": "tests/launch/test_sweep.py",
    "give --eval_every=10%": "tests/launch/test_sweep.py",
    "give such as --set=": "tests/launch/test_sweep.py",
    "give this one another --run_dir": "tests/launch/test_sweep.py",
    "give the sweep another --run_dir": "tests/launch/test_sweep.py",
    "leave --stop_at out": "tests/launch/training/test_stop_at.py",
    "goes beyond step": "tests/trainer/actions/test_profile.py",
    "give another --out.": "tests/launch/test_branch.py",
    "before it, as --out": "tests/launch/test_branch.py",
    "give another --at.": "tests/launch/test_branch.py",
    "or keep more by --keep_every": "tests/launch/test_branch.py",
    "GPUs for it; use at most □": "test_replicas_that_workers_cannot_share",
    "give --step_ms, or --measure to find": "tests/launch/test_plan_scaling.py",
    "give a larger --mtbf_days": "tests/launch/test_plan_scaling.py",
    "give --bandwidth in GB/s": "tests/launch/test_plan_scaling.py",
    "launch.cluster --workers=2 --doctor": "tests/launch/test_doctor_cluster.py",
    "is not on the volume": "tests/launch/test_kubernetes.py",
    "do not name a pod of an indexed Job": "tests/launch/process/test_workers.py",
    "start it by srun, or leave --cluster": "tests/launch/process/test_workers.py",
    "set it, or leave --cluster": "tests/launch/process/test_workers.py",
    "Slurm announces □ tasks": "tests/launch/process/test_workers.py",
    "--submit needs Slurm": "tests/launch/test_slurm.py",
    "which the chief goes on from, cannot be copied": "test_several_workers.py",
    "is training; give a folder for it, --out=DIR": TRAINED,
    "use --checkpoint=last": TRAINED,
    "give the command again, or another --checkpoint": TRAINED,
    "another --run_dir": RUN_DIR,
    "these with --task=regression": "test_numbers_that_are_no_classes",
    "leave --dropout out": "tests/launch/test_models.py",
    "of □ channels and these have □; use another --model": "tests/trainer/models/test_hub.py",
    "was trained with as --tokenizer": "tests/trainer/models/test_hub.py",
    "use --sequence_length=□": "tests/trainer/models/test_hub.py",
    "give that, or another --init_from": "tests/trainer/models/test_hub.py",
    "take the weights alone: --init_from": "tests/launch/training/test_fine_tuning.py",
    "or --resume=auto": RUN_DIR,
    "try a lower --from_rate": "tests/launch/test_find_lr.py",
    "try a longer --sweep_for": "tests/launch/test_find_lr.py",
    "use at most □, or --device=cpu": "test_more_replicas_than_gpus",
    "is of one run; leave --compare out": "tests/launch/test_plan_measure.py",
    "which takes none; leave out one": "tests/trainer/plan/test_choose_devices.py",
    "and --device=cpu trains on the processor": "tests/launch/training/test_gpus.py",
    "--out=FOLDER, or --out=none": "tests/launch/terminal/test_pictures.py",
    "give the size to bring them to": "test_images_that_differ_in_size_or_channels",
    "use splits with equal channels": "test_images_that_differ_in_size_or_channels",
    "halves images □ times": "tests/trainer/models/test_networks.py",
    "RUN_DIR --status": "tests/launch/test_control.py",
    "give the --run_dir of one": "tests/launch/test_control.py",
    "--flagfile=□/flags.txt": "tests/launch/training/test_run_folder.py",
    "give one run folder": "tests/launch/test_verify.py",
    "give a new folder, --out=DIR": "test_a_folder_for_a_replayed_run",
    "give another folder, --out=DIR": "test_a_folder_for_a_replayed_run",
    "has other bits; use --device=□": "test_devices_that_steps_are_done_again_on",
    "as its plan says; use --replicas=□": "test_devices_that_steps_are_done_again_on",
    "GPUs here are □; use --replicas=0": "test_devices_that_steps_are_done_again_on",
    "use --deterministic, or --audit_every=0": "tests/trainer/test_audit.py",
    "give the flags of launch.train after --": "tests/launch/process/test_supervise.py",
    "use --batch_norm=local": "test_adascale_beside_a_synchronized_batch_normalization",
    "use --xla=auto": "tests/trainer/replicas/test_exchange.py",
    "the same flags and --verify": "tests/launch/test_prepare.py",
    "hold a part of them out": "test_what_is_trained_and_evaluated_on",
    "leave EVAL_GLOB out": "test_what_is_trained_and_evaluated_on",
    "leave --eval_split out": "tests/input_pipeline/sources/test_tfds.py",
    "with --train_split": "tests/input_pipeline/sources/test_tfds.py",
    "--max_bad_records=□": "tests/launch/training/test_bad_records.py",
    "--num_classes=N": "tests/input_pipeline/sources/test_files_of_images.py",
    "--features=": "tests/input_pipeline/sources/test_files_of_images.py and test_tfds.py",
    "--data_dir that holds it": "tests/input_pipeline/sources/test_tfds.py",
    "□_split": "tests/input_pipeline/sources/test_tfds.py and test_files_of_images.py",
}


def advising_sentences() -> Iterator[tuple[str, str]]:
    """Every sentence of the packages that ends in advice on a flag, and where it is."""
    for package in ("launch", "trainer", "input_pipeline"):
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("Error"):
                    for text in map(template, node.args[:1]):
                        if re.search(r"(use|give|try|with|or|leave|save|example)\b.* --\w", text):
                            yield text, f"{file.relative_to(REPOSITORY)}:{node.lineno}"


def template(node: ast.expr) -> str:
    """A message with □ for what is put into it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return str(node.value) if isinstance(node, ast.Constant) else "□"


def test_every_advice_is_followed() -> None:
    messages = [message_of(plan, row[0]) for row in PLAN]
    messages += [message_of(sweep, row[0]) for row in FIND_LR]
    forgotten = []
    for text, place in advising_sentences():
        form = ".*".join(map(re.escape, text.split("□")))
        followed = any(re.search(form, message) for message in messages)
        if not followed and not any(piece in text for piece in ELSEWHERE):
            forgotten.append(f"{place}: {text}")
    assert not forgotten, "\n".join(forgotten)
