"""Advice that works: what an error says to do is done, and leads to a plan.

A row has a wrong command, how its message words the advice, and what to give then, made of the
message's own words. `test_every_advice_is_followed` sees that no message that advises a flag is
left out.
"""

import ast
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
from launch import control, find_lr, look, prepare, train
from launch import plan as plan_command_line
from launch.flags.command import read_command
from launch.training.job import open_job, plan_command
from trainer.plan.devices import choose_devices
from trainer.plan.settings import DeviceSettings

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
_FLAG = r"(--\w+=[^\s,;]*[^\s,;.])"

# Wrong command, the advice in its message, and the flags to give: each template by itself.
PLAN: list[tuple[str, str, list[str]]] = [
    # The batch and its parts.
    (
        "--replicas=2 --global_batch=65",
        r"use (\d+) or (\d+), the nearest",
        ["--global_batch={0}", "--global_batch={1}"],
    ),
    ("--replicas=4 --global_batch=1", r"use (\d+), the nearest", ["--global_batch={0}"]),
    ("--replicas=2 --global_batch=1437", r"use (\d+), the nearest", ["--global_batch={0}"]),
    ("--replicas=2000 --global_batch=64", r"use fewer replicas", ["--replicas=2"]),
    ("--replicas=2 --global_batch=2000", r"use at most (\d+)", ["--global_batch={0}"]),
    (
        "--replicas=2000 --global_batch=2000",
        r"use at most (\d+), and fewer replicas",
        ["--global_batch={0} --replicas=3"],
    ),
    (
        "--accumulate=auto",
        f"give it, {_FLAG}, or give the number",
        ["{0}", "--accumulate=2"],
    ),
    ("--accumulate=0", r"give one, or (auto)", ["--accumulate={0} --max_replica_batch=8"]),
    ("--max_replica_batch=16", f"use {_FLAG}", ["{0}"]),
    (
        "--mixup=0.2 --global_batch=63",
        r"use a --global_batch .* even number, or leave them out",
        ["--global_batch=64", "--mixup=0 --cutmix=0"],
    ),
    (
        "--image_size=30000",
        r"use a smaller --image_size or --global_batch",
        ["--image_size=8", "--image_size=300 --global_batch=2"],
    ),
    # Devices.
    ("--device=gpu", f"use {_FLAG}", ["{0}"]),
    ("--all_reduce=nccl", r"use (auto), or (ring)", ["--all_reduce={0}", "--all_reduce={1}"]),
    # The learning rate.
    (
        "--optimizer=adamw --lr_scaling=adascale --global_batch=256 --accumulate=2 "
        "--lr_reference_batch=32",
        f"use {_FLAG}, or {_FLAG}",
        ["{0}", "{1}"],
    ),
    ("--lr_scaling=adascale --accumulate=2", f"for example {_FLAG}", ["{0}"]),
    ("--lr_scaling=adascale --accumulate=2 --global_batch=2", f"for example {_FLAG}", ["{0}"]),
    ("--lr_scaling=adascale --lr_reference_batch=32", f"use {_FLAG}", ["{0}"]),
    (
        "--optimizer=lion --scale_betas --lr_scaling=sqrt",
        f"leave it out, or use {_FLAG}",
        ["--scale_betas=false", "{0}"],
    ),
    ("--optimizer=adamw --scale_betas", f"use {_FLAG}", ["{0}"]),
    (
        "--optimizer=adamw --scale_betas --lr_scaling=sqrt --lr_reference_batch=32 "
        "--global_batch=512",
        f"use a --global_batch of at most (\\d+), or {_FLAG}",
        ["--global_batch={0}", "{1}"],
    ),
    (
        "'--optimizer=adamw(beta_1=0)' --scale_betas --lr_scaling=sqrt --lr_reference_batch=1",
        f"use {_FLAG}",
        ["{0}"],
    ),
    (
        "--optimizer=rmsprop --decay=one_cycle",
        f"use {_FLAG}, or one of (.*), lamb, lion",
        ["{0}", "--optimizer=lars", "--optimizer=adam"],
    ),
    ("--momentum=0 --decay=one_cycle", f"for example {_FLAG} {_FLAG}", ["{0} {1}"]),
    ("'--optimizer=sgd(momentum=0)' --decay=one_cycle", f"{_FLAG} {_FLAG}", ["{0} {1}"]),
    ("--optimizer=ftrl", f"use {_FLAG} {_FLAG}, without --plateau", ["{0} {1}"]),
    (
        "--optimizer=ftrl '--plateau=reduce(0.1)'",
        f"use {_FLAG} {_FLAG}, without --plateau",
        ["{0} {1} --plateau="],
    ),
    ("--warmup=60ep", f"for example {_FLAG}", ["{0}"]),
    ("'--warmup=exponential(2ep)'", r"\(start=…\)", ["'--warmup=exponential(2ep,start=0.01)'"]),
    ("'--warmup=exponential(2ep,start=0)'", r"give (\S+),", ["'--warmup=exponential(2ep,{0})'"]),
    ("--warmup=90% --decay=wsd", r"at most (\S+)\.", ["'--decay=wsd(cooldown={0})'"]),
    ("--warmup=100% --decay=one_cycle", r"at most (\S+)\.", ["'--decay=one_cycle(rise={0})'"]),
    (
        "'--decay=step(30ep:0.1)'",
        r"between the end of the warmup, ([\d,]+), and the end of the run, ([\d,]+)",
        ["'--decay=step({0}st:0.1)'"],
    ),
    (
        "'--decay=step(6ep:0.1,3ep:0.1)'",
        r"write them so",
        ["'--decay=step(3ep:0.1,6ep:0.1)'"],
    ),
    (
        "--train_for=100000ep '--decay=cosine_restarts(period=1st,longer=1)'",
        r"use a longer period",
        ["'--decay=cosine_restarts(period=100ep,longer=1)'"],
    ),
    ("--decay=cosin", r"did you mean (\w+)", ["--decay={0}"]),
    ("--train_for=5epochs", r"did you mean (\w+)", ["--train_for={0}"]),
    ("--train_for=50%", r"for example (\w+)", ["--train_for={0}"]),
    ("--train_for=0ep", r"give at least (\w+)", ["--train_for={0}"]),
    ("--train_for=1e14ep", r"give at most ([\d,]+)", ["--train_for={0}st"]),
    ("--train_for=1e30ep", r"to (\S+)ep", ["--train_for=1e4ep"]),
    ("--checkpoint_every=0min", r"example (\w+)", ["--checkpoint_every={0}"]),
    (
        "--learning_rate=1e37 --global_batch=1024 --lr_reference_batch=1",
        r"give --learning_rate, --lr_scaling, --warmup and --decay that keep it",
        ["--learning_rate=0.1", "--lr_scaling=none"],
    ),
    # The optimizer.
    ("--clip_norm=1 --clip_value=2", r"give one of them", ["--clip_norm=0", "--clip_value=0"]),
    ("--optimizer=adamw --momentum=0.8", r"leave it out", ["--momentum=0.9"]),
    (
        "'--optimizer=sgd(momentum=0.5)' --momentum=0.8",
        r"write (\S+), and leave out --momentum",
        ["'{0}' --momentum=0.9"],
    ),
    ("'--optimizer=lamb(beta2=0.9)'", r"mean (\w+)", ["'--optimizer=lamb({0}=0.9)'"]),
    ("'--optimizer=adamw(weight_decay=1)'", r"use (--\w+)\.", ["--optimizer=adamw {0}=1"]),
    ("'--optimizer=sgd(clipvalue=1)'", r"use (--\w+)\.", ["--optimizer=sgd {0}=1"]),
    ("'--optimizer=adafactor(warmup_steps=9)'", r"(--\w+)\.", ["--optimizer=adafactor {0}=9st"]),
    ("'--optimizer=adafactor(relative_step=1)'", r"(--\w+)\.", ["--optimizer=lion {0}=linear"]),
    ("'--optimizer=adam(loss_scale_factor=2)'", r"(--\w+)\.", ["--optimizer=adam {0}=float16"]),
    ("'--optimizer=adam(use_ema=true)'", r"(--\w+)\.", ["--optimizer=adam {0}=0.99"]),
    ("'--optimizer=adam(gradient_accumulation_steps=2)'", r"(--\w+)\.", ["--optimizer=adam {0}=2"]),
    ("--class_weights=zero=2", r"from (\d+) to (\d+)", ["--class_weights={0}=2,{1}=3"]),
    ("--weight_decay=head=1e-3", r"for example (\S+)\.$", ["--weight_decay={0}"]),
    ("--lr_multiplier=head", r"for example (\S+)\.$", ["--lr_multiplier={0}"]),
    # Recovery and times.
    (
        "--on_divergence=rollback --checkpoint_every=1st",
        r"save every (\S+), or keep more",
        ["--checkpoint_every={0}", "--keep=100"],
    ),
    ("--backoff=0", r"for example (\S+)\.", ["--backoff={0}"]),
    ("--grace=0", r"for example (\S+)\.", ["--grace={0}"]),
    ("--stop_after=soon", r"for example (\S+)\.", ["--stop_after={0}"]),
    ("--stop_after=20000d", r"give at most (\w+)", ["--stop_after={0}"]),
    # Data.
    ("--dataset=digit", r"valid one is (\w+)", ["--dataset={0}"]),
    ("--dataset=imagenet", r"for example (\S+)\.", ["--dataset={0}"]),
    (
        "--dataset=synthetic:8by8",
        r"for example (\S+) or (\S+)\.",
        ["--dataset={0}", "--dataset={1}"],
    ),
    ("--train_split=train[:5]", r"leave it out", ["--train_split="]),
    ("'--augment=flip|crop'", r"use '([^']*)'", ["'--augment={0}'"]),
    ("--augment=zzz", r"for example '([^']*)'", ["'--augment={0}'"]),
    ("--flagfile=digit", r"did you mean (\w+)", ["--flagfile={0}"]),
]
FIND_LR = [
    (
        "--lr_scaling=adascale --accumulate=2 --global_batch=512",
        f"{_FLAG} {_FLAG}",
        ["{0} {1}"],
    ),
    ("--sweep_for=3st", r"at least (\w+)", ["--sweep_for={0}"]),
    ("--from_rate=2 --to_rate=1", r"two rates above 0, the second", ["--to_rate=3"]),
]


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
        settings = DeviceSettings(device, replicas, global_batch=64, accumulate=1)
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
    size = re.search(f"for example {_FLAG}", message_of(plan, command))
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
    instead = re.search(f"{_FLAG}, without --eval_split", message_of(plan, f"{command} {SAME}"))
    plan([*command.split(), instead[1]])
    path = tmp_path / "records"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(20):
            content = (tmp_path / "pets/train/cat/0.png").read_bytes()
            writer.write(write_example({"image": content, "label": number % 2}))
    command = f"--num_classes=2 --global_batch=2 --dataset=tfrecord:{path}"
    instead = re.search(
        f"leave EVAL_GLOB out and say {_FLAG}", message_of(plan, f"{command},{path}")
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

    with pytest.raises(ValueError, match=r"use --batch_norm=local.* with --accumulate=2 or more"):
        compared(True, "--replicas=2")
    assert compared(False, "--replicas=2") == 2
    assert compared(True, "--accumulate=2") == 2


@pytest.mark.parametrize("command", [control, find_lr, look, plan_command_line, prepare, train])
@pytest.mark.parametrize("flag", ["--help", "--helpfull"])
def test_help_is_there(command: ModuleType, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([flag]) == 0
    assert f"python -m {command.__name__}" in capsys.readouterr().out


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
    with pytest.raises(ValueError, match=f"give another --run_dir, or {_FLAG} to go on"):
        opened("used", "--resume=never")
    opened("used", "--resume=auto")
    opened("new", "--resume=never")


RUN_DIR = "test_another_run_folder_is_always_one; the runs in tests/launch/training/test_resume.py"
# Advice on flags that is followed elsewhere: where, by a piece of the sentence.
ELSEWHERE = {
    "another --run_dir": RUN_DIR,
    "or --resume=auto": RUN_DIR,
    "use at most □, or --device=cpu": "test_more_replicas_than_gpus",
    "--out=FOLDER, or --out=none": "tests/launch/terminal/test_pictures.py",
    "give the size to bring them to": "test_images_that_differ_in_size_or_channels",
    "use splits with equal channels": "test_images_that_differ_in_size_or_channels",
    "RUN_DIR --status": "tests/launch/test_control.py",
    "give the --run_dir of one": "tests/launch/test_control.py",
    "--flagfile=□/flags.txt": "tests/launch/training/test_run_folder.py",
    "Run with --help": "test_help_is_there",
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
