"""A wrong command: one sentence, exit code 2, before TensorFlow, and nothing written."""

import glob
import pathlib
from functools import partial
from types import ModuleType

import pytest
from helpers import REPOSITORY, Ended, call, in_parallel

from launch import find_lr, look, plan, prepare, supervise
from launch.process import cli

WRONG = {
    # What does not divide, and the nearest that does.
    "--replicas=2 --global_batch=65": ["--global_batch=65", "2 replicas", "64 or 66"],
    "--micro_batch=24 --global_batch=64": ["--micro_batch=24", "--global_batch=64", "16 or 32"],
    "--replicas=3 --micro_batch=16": ["4 micro-batches of 16", "3 replicas", "1, 2 or 4 of them"],
    "--replicas=4 --global_batch=1": ["4 replicas", "use 4"],
    "--global_batch=2000": ["2000", "1,437 training examples", "digits", "at most 1437"],
    "--micro_batch=-1": ["micro_batch", "-1"],
    "--micro_batch=two": ["micro_batch", "two"],
    "--accumulate=2": ["--accumulate is gone", "--micro_batch", "replicas ÷ accumulated"],
    "--accumulate=auto --max_replica_batch=16": ["is gone", "--micro_batch"],
    "--max_replica_batch=16": ["--max_replica_batch is gone", "--micro_batch"],
    "--exact_sums=yes": ["--exact_sums=yes", "auto"],
    "--exact_sums=on --all_reduce=ring": ["--exact_sums=on", "--all_reduce=ring", "=off"],
    # Names that do not exist, and the nearest that do.
    "--model=resnet": ["--model=resnet", "resnet20", "mlp, cnn"],
    "--model=zzz": ["--model=zzz", "mlp, cnn"],
    "--dataset=digit": ["'digit'", "digits"],
    "--dataset=imagenet": ["'imagenet'", "tfds:NAME", "folder:DIR", "tfrecord:GLOB", "arrays:FILE"],
    "--dataset=folder:nowhere": ["the folder nowhere does not exist"],
    "--dataset=tfrecord:nowhere/*": ["no file matches 'nowhere/*'"],
    "--dataset=arrays:nowhere.npz": ["nowhere.npz cannot be read"],
    "--dataset=tfds:nowhere --data_dir=data": [
        "tfds:nowhere is not in data",
        "tfds.builder('nowhere', data_dir='data').download_and_prepare()",
    ],
    "--dataset=python:nowhere:f": ["'python:nowhere:f' cannot be imported"],
    "--train_split=train[:5]": ["--train_split=train[:5] belongs to", "tfds, folder"],
    "--dataset=synthetic:8by8": ["synthetic:8by8", "synthetic:224x224x3"],
    "--optimizer=adm": ["--optimizer=adm", "did you mean adam?", "lamb"],
    "'--optimizer=lamb(beta2=0.9)'": ["beta2", "did you mean beta_2?", "epsilon"],
    "'--optimizer=adamw(weight_decay=1)'": ["weight_decay is no argument", "use --weight_decay"],
    "'--optimizer=sgd(momentum=1)'": ["momentum of sgd is '1'", "below 1"],
    "'--optimizer=sgd(momentum=0.5)' --momentum=0.8": ["--momentum=0.8", "sgd(momentum=0.8)"],
    "--optimizer=adamw --momentum=0.8": ["--momentum=0.8", "sgd or lars", "leave it out"],
    "--optimizer=rmsprop --decay=one_cycle": ["rmsprop has none", "lars, adam"],
    "--optimizer=ftrl": ["--optimizer=ftrl multiplies the weights", "--warmup=none"],
    "--optimizer=lion --scale_betas": ["--scale_betas", "adam, adamw, lamb, not lion"],
    "--clip_norm=1 --clip_value=2": ["--clip_norm=1.0 and --clip_value=2.0", "one of them"],
    "--weight_decay=head=1e-3": ["--weight_decay", "'head=1e-3' is not a number", "1e-4,head"],
    "--weight_decay=1e-4,head": ["--weight_decay", "'head'", "PATTERN=FACTOR"],
    "--decay=cosin": ["--decay=cosin", "did you mean cosine?", "constant"],
    "--lr_scaling=liner": ["--lr_scaling=liner", "did you mean linear?", "sqrt"],
    "--resume=alway": ["--resume=alway", "never"],
    "--precision=bfloat": ["--precision=bfloat", "did you mean bfloat16?", "float32"],
    "--on_nonfinite=skp": ["--on_nonfinite=skp", "did you mean skip?"],
    "--gpus=0,x": ["--gpus=0,x", "no list of numbers", "0,2"],
    "--gpus=٣": ["--gpus=٣", "no list of numbers"],
    "--gpus=1,1": ["--gpus=1,1", "twice"],
    "--gpus=1": ["--gpus=1 with --device=cpu", "leave out one"],
    "--gpu_memory_gb=0.001": ["--gpu_memory_gb=0.001", "at least 0.1"],
    "--gpu_allocator=asink": ["--gpu_allocator=asink", "did you mean async?"],
    "--device=gpus": ["--device=gpus", "did you mean gpu?", "cpu"],
    "--augment=shft(1)": ["--augment", "'shft(1)'", "shift("],
    "--augment=shift(0)": ["--augment", "'shift(0)'", "at least 1"],
    "--augment=flip|flap": ["--augment", "'flap'", "flip"],
    "'--augment=flip|crop'": ["--augment", "crop comes once and first", "'crop|flip'"],
    "--augment=randaugment(2,90)": ["MAGNITUDE is '90'", "from 0 to 10"],
    "--dataset=synthetic:8x8x4 --augment=jitter(1,1,1)": ["jitter", "1 or 3 channels", "have 4"],
    "--mixup=0.2 --global_batch=63": ["--mixup", "a micro-batch has 63", "even"],
    "--image_size=-1": ["image_size", "-1"],
    "--cutmix=inf": ["--cutmix=inf", "finite"],
    "--learning_rat=1": ["learning_rat", "learning_rate"],
    "--flagfile=digit": ["'digit'", "digits"],
    "--flagfile=/nowhere/at-all.flags": ["'/nowhere/at-all.flags'", "does not exist", "digits"],
    "digits": ["'digits'", "--name=value"],
    # Durations.
    "--train_for=5epochs": ["--train_for", "'5epochs'", "did you mean 5ep?"],
    "--eval_every=100": ["--eval_every", "'100'", "has no unit", "steps"],
    "--checkpoint_every=ten": ["--checkpoint_every", "'ten'"],
    "--log_every=-5st": ["--log_every", "'-5st'", "negative"],
    "--train_for=50%": ["--train_for", "50%", "60ep"],
    "--train_for=0ep": ["--train_for=0ep", "1st"],
    "--train_for=10ep --warmup=60ep": ["--warmup=60ep", "longer than the run", "5%"],
    # Numbers.
    "--learning_rate=-0.1": ["learning_rate", "-0.1"],
    "--momentum=-0.5": ["momentum", "-0.5"],
    "--momentum=1": ["momentum", "less than 1"],
    "--ema=1": ["--ema=1", "less than 1"],
    "--dropout=1": ["--dropout=1", "less than 1"],
    "--batch_norm=locale": ["--batch_norm=locale", "did you mean local?", "synchronized"],
    "--class_weights=zero=2": ["--class_weights=zero=2", "'zero' is unknown", "from 0 to 9"],
    "--weight_decay=-1": ["weight_decay", "-1"],
    "--clip_norm=-1": ["clip_norm", "-1"],
    "--label_smoothing=1.5": ["label_smoothing", "less than 1"],
    "--global_batch=-64": ["global_batch", "-64"],
    "--global_batch=0": ["global_batch", "0"],
    "--replicas=-1": ["replicas", "-1"],
    "--seed=-1": ["seed", "-1"],
    "--steps_per_loop=2.5": ["steps_per_loop", "2.5"],
    "--learning_rate=nan": ["--learning_rate=nan", "finite"],
    "--clip_norm=inf": ["--clip_norm=inf", "finite"],
    "--learning_rate=1e999": ["--learning_rate=1e999", "finite"],
    "--learning_rate=fast": ["learning_rate", "fast"],
}


@pytest.fixture(scope="module")
def without_tensorflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which importing TensorFlow fails, since it takes seconds."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "tensorflow.py").write_text("raise RuntimeError('TensorFlow was imported')\n")
    return {"PYTHONPATH": f"{folder}:{REPOSITORY}"}


def assert_one_sentence(ended: Ended) -> None:
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1 and ended.err.endswith(".\n")
    assert "Traceback" not in ended.err


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, without_tensorflow: dict[str, str]
) -> dict[str, tuple[pathlib.Path, Ended]]:
    """The wrong commands' ends, and the folders that they were given in, empty before."""

    def answer(flags: str, folder: pathlib.Path) -> tuple[pathlib.Path, Ended]:
        command = f"--device=cpu --run_dir=run {flags}"
        return folder, call(command, folder, without_tensorflow)

    folders = {flags: tmp_path_factory.mktemp("wrong") for flags in WRONG}
    return in_parallel({flags: partial(answer, flags, folders[flags]) for flags in WRONG})


@pytest.mark.parametrize("flags", WRONG)
def test_a_wrong_command_is_one_sentence_that_says_what_to_do(
    flags: str, answers: dict[str, tuple[pathlib.Path, Ended]]
) -> None:
    folder, ended = answers[flags]
    assert_one_sentence(ended)
    for fragment in WRONG[flags]:
        assert fragment in ended.err, ended.err
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: pathlib.Path, without_tensorflow: dict[str, str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    ended = call("--device=cpu --run_dir=file/run", tmp_path, without_tensorflow)
    assert_one_sentence(ended)
    assert "--run_dir=file/run cannot be written" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_mistake_in_a_flagfile_is_one_too(
    tmp_path: pathlib.Path, without_tensorflow: dict[str, str]
) -> None:
    (tmp_path / "mine.flags").write_text("# a comment\n--model=cnn\n--warmpu=1ep\n")
    ended = call("--flagfile=mine.flags --run_dir=run", tmp_path, without_tensorflow)
    assert_one_sentence(ended)
    assert "warmpu" in ended.err and "warmup" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.flags"]


@pytest.mark.parametrize("flags", ["--device=gpu", "--device=gpu --replicas=2"])
def test_gpu_without_a_gpu_says_what_was_found(
    tmp_path: pathlib.Path, without_tensorflow: dict[str, str], flags: str
) -> None:
    # Where there is none, TensorFlow need not be asked; where there is one, it is hidden.
    extra = {"CUDA_VISIBLE_DEVICES": "-1"} if glob.glob("/dev/nvidia[0-9]*") else without_tensorflow
    ended = call(f"{flags} --run_dir=run", tmp_path, extra)
    assert_one_sentence(ended)
    assert "--device=gpu, but TensorFlow found 0 GPUs" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "argument", "said"),
    [
        (prepare, f"--shards={'9' * 5000}", "not a whole number from 1 to 100,000"),
        (prepare, f"--to_tfrecord={'x' * 5000}", "cannot be used (File name too long)"),
        (look, f"--out={'x' * 5000}", "cannot be used (File name too long)"),
        (look, "--look_at=1e3", "--look_at=1e3: not a whole number"),
        (supervise, "--backoff_s=inf", "--backoff_s=inf: not a finite number"),
        (find_lr, "--to_rate=1e308", "--to_rate=1e308: not 0 and not from 1e-37 to 1e+37"),
        (find_lr, f"--out={'x' * 5000}", "is no folder (File name too long)"),
        (plan, "--out=\udcff", "--out=\\udcff: no text in UTF-8"),
        (plan, "--tf32=maybe", "--tf32=maybe: neither true nor false"),
        (plan, "--notf32=1", "--notf32=1 does not take an argument"),
        (plan, f"--{'x' * 5000}=1", "so long a name is unknown. Run with --help"),
        (plan, "--compare=digits,nowhere", "the flagfile 'nowhere' does not exist"),
        (plan, "--train_for=1e308ep", "--train_for=1e308ep: '1e308ep' is longer or shorter"),
        (plan, "--train_for=1e30ep", "--train_for=1e30ep: '1e30ep' is longer or shorter"),
        (plan, "--train_for=1e12ep", "--train_for=1e12ep is 2.25e+13 steps; give at most"),
        (plan, "--warmup=1e308Gex", "--warmup=1e308Gex: '1e308Gex' is longer or shorter"),
        (plan, "--check_replicas_every=1e-300st", "is longer or shorter than anything in a run"),
        (plan, "--stall_after=999999999d", "too long a time; give at most 10000d"),
        (plan, "--pack_mb=1e308", "--pack_mb=1e308: not 0 and not from 1e-37 to 1e+37"),
        (plan, "--pack_mb=1e30", "--pack_mb=1e+30 is too large; give at most 1,000,000"),
        (plan, "--learning_rate=1e38", "--learning_rate=1e38: not 0 and not from"),
        (plan, "--decay=exponential(period=1st,rate=1e30)", "the learning rate of step"),
        (plan, "--dropout=", "--dropout=: not a finite number"),
        (
            plan,
            "--plateau=reduce(patience=2.7)",
            "patience of reduce is '2.7'; give a whole number",
        ),
        (
            plan,
            "--plateau=reduce(cooldown=0.5)",
            "cooldown of reduce is '0.5'; give a whole number",
        ),
        (plan, "--optimizer=muon(ns_steps=1000)", "ns_steps is more than 100; give fewer"),
        (plan, "--layer_decay=2", "--layer_decay=2 is too large; give at most 1"),
        (plan, "--features=a\nb", "--features='a\\nb' belongs"),
        (plan, "--decay=a\n\x1b[31mb", "--decay='a\\n\\x1b[31mb': "),
    ],
)
def test_the_other_commands_answer_in_a_sentence_too(
    command: ModuleType, argument: str, said: str
) -> None:
    with pytest.raises(cli.WrongCommandError) as error:
        command.main([argument, "--", "--flagfile=digits"] if command == supervise else [argument])
    assert said in str(error.value)
    assert str(error.value).isprintable() and str(error.value).endswith(".")
    assert len(str(error.value)) < 1200


def test_the_same_command_without_the_mistake_goes_as_far_as_tensorflow(
    tmp_path: pathlib.Path, without_tensorflow: dict[str, str]
) -> None:
    """Otherwise the tests above might pass for another reason."""
    ended = call("--device=cpu --run_dir=run", tmp_path, without_tensorflow)
    assert "TensorFlow was imported" in ended.err
