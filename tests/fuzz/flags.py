"""Wrong values of flags by the thousand: each is a plan or a sentence, never a traceback or a hang.

    python -m tests.fuzz.flags --mutations=10000 --seed=0

Random values, mutations of right ones and pairs of them go to the flags of `launch.train` and
`launch.find_lr`, on the command line or in a flagfile, up to the opened run folder. What is left to
train is a plan of finite numbers that can be shown, drawn and written into a flagfile that gives it
again. TensorFlow is never imported: the plan does without.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings

from absl import flags as absl_flags

from launch import find_lr
from launch.flags.command import flagfile_text, read_command
from launch.flags.run import define_training_flags
from launch.process import cli
from launch.terminal import plan_chart
from launch.terminal.plan_text import plan_text
from launch.training.job import open_job, plan_command

SECONDS = 5.0  # of processor time, for one command
MEMORY = 3 << 30  # bytes of address space, for all of them

NUMBERS = (
    *("0", "1", "-1", "2.7", "1e-400", "5e-324", "1e-40", "1e-38", "1e30", "1e38", "1e39", "1e308"),
    *("1e309", "inf", "-inf", "nan", "NaN", "9" * 400, "9" * 5000, "0x10", "1_000", "١٢", "²", ""),
    *("2147483647", "2147483648", "9223372036854775807", "9223372036854775808", "0.1.2", "1e", "+"),
    *("10007", "1000003", "2000000011", "1e10", "0.999999999999", "1e-9", "1e15", "1e16", "1e22"),
)
UNITS = ("", *("st", "ep", "ex", "%", "kex", "Mex", "Gex", "Gst", "k%", "min", "s", "h", "d", "m"))
TEXTS = (
    *(
        "",
        " ",
        "\n",
        "\t",
        "a\nb",
        "trailing ",
        " leading",
        "\0",
        "\x1b[31m",
        "\r",
        "\u2028",
        "é",
        "漢",
    ),
    *(
        "\udcff",
        "😀",
        "'",
        '"',
        '"quoted"',
        "\\",
        "$(x)",
        "--",
        "-",
        "=",
        "#",
        "//",
        "a=b=c",
        ",,,",
        ":",
    ),
    *(
        "(",
        ")",
        "((",
        "f(",
        "f)",
        "f()()",
        "f(f(f(1)))",
        "f(a=)",
        "f(=1)",
        "f(,)",
        "f(1,",
        "reduce(f",
    ),
    *("(" * 2000, "[" * 2000 + "=1", "f(" + "1," * 2000 + ")", "9" * 30_000, " " * 30_000 + "x"),
    *("x" * 300, "x" * 5000, "x" * 150_000, "a/" * 3000, "f(" * 300 + ")" * 300),
    *("(a+)+$=1", "(a|aa)+$=1", "[=1", "(?P<a=1", "a{99999999999}=1", "(?<=a+)b=1", "\\=1", "*=1"),
    *(
        ".",
        "..",
        "/",
        "/dev/null",
        "/dev/full/x",
        "/proc/self/mem",
        "/nowhere/at/all",
        "~",
        "here",
        "file",
    ),
    *(
        "none",
        "None",
        "null",
        "true",
        "auto",
        "balanced",
        "python:os:getcwd",
        "python:::",
        "python:.:f",
    ),
    *(
        "python:\udcff:f",
        "folder:",
        "folder:here",
        "folder:file",
        "folder:\n",
        "arrays:file",
        "arrays:here",
    ),
    *(
        "tfrecord:*",
        "tfrecord:file,file",
        "tfrecord:[",
        "tfrecord:**",
        "tfds:",
        "tfds:x:y:z",
        "tfds:../x",
    ),
    *(
        "synthetic:",
        "synthetic:8x8",
        "synthetic:99999x99999x3",
        "synthetic:8x8x3x999999999",
        "digits:1",
    ),
    *(
        "synthetic:9999999999999999999999x1x1",
        "synthetic:1x1x1x1",
        "synthetic:8x8x99999999",
        "train[::]",
    ),
    *(
        "train[:101%]",
        "train[99999999999999999999:]",
        "train+train",
        "image=a,image=b",
        "image",
        "label=",
    ),
)
# Right values that a mutation starts from, beside the flag's default.
RIGHT = {
    "audit_every": ("100st", "1ep", "10%"),
    "histograms_every": ("100st", "1ep", "10%"),
    "warmup": ("linear(5ep,start=0.01)", "exponential(1ep,start=0.001)", "constant(1ep,start=1)"),
    "decay": (
        *("exponential(period=1ep,rate=0.9,staircase=true)", "step(3ep:0.1,6ep:0.1)", "linear"),
        *(
            "inverse_time(period=1ep,rate=0.5)",
            "polynomial(power=2)",
            "inverse_sqrt(timescale=1ep)",
        ),
        *(
            "cosine_restarts(period=1ep,longer=2,lower=1)",
            "wsd(cooldown=20%,shape=sqrt)",
            "constant",
        ),
        "one_cycle(rise=30%,start=25,end=1e4,low=0.85,high=0.95)",
    ),
    "plateau": (
        "reduce(factor=0.1,patience=5,metric=eval/loss,threshold=1e-4,cooldown=0,minimum=0)",
    ),
    "optimizer": (
        *("lamb(beta_2=0.99)", "adamw(beta_1=0.9,epsilon=1e-7)", "lars(trust_coefficient=0.001)"),
        *("muon(ns_steps=5,exclude_layers=logits)", "adafactor(beta_2_decay=-0.8)", "lion", "ftrl"),
    ),
    "augment": ("crop(0.5,1)|flip|shift(1)", "randaugment(2,9)|erase(0.25)", "jitter(1,1,1,0.1)"),
    "lr_multiplier": ("conv1/.*=0.1,head=1", ".*=0"),
    "weight_decay": ("1e-4,.*kernel=0,head=1e-3",),
    "class_weights": ("0=1,3=2.5", "balanced"),
    "dataset": ("digits", "synthetic:8x8x3x4", "synthetic:9x9x1"),
    "micro_batch": ("16", "32", "64"),
    "threads": ("1", "2", "1024"),
    "exact_sums": ("on", "off"),
    "stop_after": ("3h50m",),
    "profile": ("100:110", "3:4"),
    "checkpoint_every": ("10min", "5ep"),
    "model": ("mlp", "resnet20"),
    "lr_scaling": ("sqrt", "adascale", "none"),
    "precision": ("float16",),
    "on_divergence": ("rollback",),
    "compare": (),
}


_RIGHT = {"plan", "sentence", "left to TensorFlow"}


class TooLongError(BaseException):
    """A command took longer than `SECONDS`."""


def main() -> int:
    """Fuzzes; the exit code says whether everything was a plan or a sentence."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    warnings.simplefilter("error")  # it would stand on a person's terminal
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # an import of it fails
    for name in ("TF_CONFIG", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "WORLD_SIZE"):
        os.environ.pop(name, None)
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        pathlib.Path("here").mkdir()
        pathlib.Path("file").write_text("x")
        draw = random.Random(asked.seed)
        for number in range(asked.mutations):
            argv = make_command(draw)
            outcome, told = judge(argv, number)
            counts[outcome] += 1
            if outcome not in _RIGHT:
                print(f"{outcome}: {[part[:200] for part in argv]}\n{told}\n", flush=True)
    print(f"{asked.mutations:,} commands: " + ", ".join(f"{v:,} {k}" for k, v in counts.items()))
    return int(bool(set(counts) - _RIGHT))


def make_command(draw: random.Random) -> list[str]:
    """A random command: one to three flags with values that are mostly wrong."""
    values = find_lr.define_find_lr_flags()
    names = sorted(set(values) - {"run_dir", "out"})
    chosen = draw.sample(names, draw.choice((1, 1, 1, 2, 2, 3)))
    argv = [f"--{name}={make_value(draw, name, values)}" for name in chosen]
    if draw.random() < 0.03:
        argv.append(f"--{changed(draw, draw.choice(names))}={draw.choice(TEXTS)}")
    if draw.random() < 0.1:
        argv.append(f"--run_dir={draw.choice(TEXTS)}")
    if draw.random() < 0.2:
        # As a surrogate is a byte of a command line that is no text, so it is in a file.
        junk = [draw.choice(("", "--", "-")) + draw.choice(TEXTS)] * (draw.random() < 0.2)
        lines = "\n".join([*junk, *argv]).encode("utf-8", "surrogateescape")
        pathlib.Path("mine.flags").write_bytes(lines)
        argv = ["--flagfile=mine.flags"]
    if draw.random() < 0.3:
        argv.append("--flagfile=digits")
    return argv


def make_value(draw: random.Random, name: str, values: absl_flags.FlagValues) -> str:
    """A value of the flag: any text, any number with any unit, or a right one that was changed."""
    kind = draw.random()
    if kind < 0.2:
        return draw.choice(TEXTS)
    if kind < 0.4:
        return draw.choice(NUMBERS) + draw.choice(UNITS)
    text = draw.choice((str(values[name].default), *RIGHT.get(name, ())))
    for _ in range(draw.choice((0, 1, 1, 2))):
        text = changed(draw, text)
    return text


def changed(draw: random.Random, text: str) -> str:
    """The text with a number, a piece or a mark in it replaced, added, doubled or removed."""
    digits = [place for place, letter in enumerate(text) if letter.isdigit()]
    if digits and draw.random() < 0.6:
        first = draw.choice(digits)
        last = first
        while last < len(text) and (text[last].isdigit() or text[last] in ".e-"):
            last += 1
        return text[:first] + draw.choice(NUMBERS) + text[last:]
    at, to = sorted(draw.choices(range(len(text) + 1), k=2))
    piece = draw.choice(("", "", *"(),=|:%- ", text[at:to] * 2, draw.choice(TEXTS)))
    return text[:at] + piece + text[to:]


def judge(argv: list[str], number: int) -> tuple[str, str]:
    """What has become of a command: plan, sentence, or what is wrong with it and how."""
    signal.signal(signal.SIGVTALRM, _too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with cli.wrong_command():
            carry_out(argv, number)
    except cli.WrongCommandError as error:
        wrong = what_is_wrong(str(error))
        return (wrong, str(error)) if wrong else ("sentence", "")
    except TooLongError:
        return "hang", traceback.format_exc(limit=-3)
    except ModuleNotFoundError as error:
        # TFDS, and python: that imports TensorFlow itself.
        return (
            ("left to TensorFlow", "") if "tensorflow" in str(error) else ("no module", str(error))
        )
    except Exception as error:
        return type(error).__name__, traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return "plan", ""


def carry_out(argv: list[str], number: int) -> None:
    """All that a command does before it trains; every plan is shown, drawn, written and read."""
    swept = number % 4 == 3
    values = find_lr.define_find_lr_flags() if swept else define_training_flags()
    here = [] if any("run_dir" in part for part in argv) else [f"--run_dir=runs/{number}"]
    if not swept:  # whose flags are not known then
        argv = [part for part in argv if part.split("=")[0] not in _SWEEPS]
    command = read_command(["--device=cpu", *argv, *here], values)
    if swept:
        plan, _, _ = plan_command(command)
        plan = find_lr.plan_range_test(command, plan).plan
    else:
        job = open_job(command)
        job.held.close()
        plan = job.plan
    json.dumps(plan.to_json(), allow_nan=False)
    plan_text(plan)
    if not plan.learning_rate.has_own_decay:
        plan_chart.terminal_chart(plan)
    text = flagfile_text(command)
    pathlib.Path("again.flags").write_text(text, encoding="utf-8")
    again = read_command(["--flagfile=again.flags"])
    for name in define_training_flags():
        if name != "run_dir" and again.values[name].value != command.values[name].value:
            raise AssertionError(f"--{name} is {again.values[name].value!r} in flags.txt")


_SWEEPS = tuple(f"--{name}" for name in ("sweep", "from_rate", "to_rate", "sweep_for", "out"))


def what_is_wrong(sentence: str) -> str:
    """What keeps a message from being a sentence that a person can use, or ""."""
    if "\n" in sentence or not sentence.isprintable():
        return "more than a line"
    if not sentence.endswith((".", "?")):
        return "no sentence"
    if "[Errno" in sentence or "Traceback" in sentence or "object at 0x" in sentence:
        return "foreign"
    if ";" not in sentence and not any(word in sentence for word in _ADVICE):
        return "no advice"
    return ""


_ADVICE = ("must be ", "use ", "give ", "leave ", "write ", "Run with", "every setting is a flag")


def _too_long(*_: object) -> None:
    raise TooLongError


if __name__ == "__main__":
    sys.exit(main())
