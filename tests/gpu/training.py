"""What is measured by `launch.train` itself: bits, a kill, device loops, the input, the start."""

import os
import pathlib
import shlex
import statistics
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from launch.process.cli import FailedError
from tests.gpu.rows import Row, Setting, failed, run_command

_SIDE_BY_SIDE = "--log_every=1st --eval_every=0"
_BITS = f"{_SIDE_BY_SIDE} --global_batch=64 --micro_batch=16 --deterministic --exact_sums=on"
_BITS += " --xla=off --optimizer=adamw --train_for=50st --checkpoint_every=10st --dataset="
_DIGITS = f"{_BITS}digits --model=cnn"
# Of networks that are compared by bits, the flags.
_COMPARED = {
    "cnn, TF32": _DIGITS,
    "cnn, float32": f"{_DIGITS} --tf32=false",
    "ResNet-20, bfloat16": f"{_BITS}synthetic:32x32x3 --model=resnet20 --precision=bfloat16",
}
_PICTURES = 2048


def train(
    setting: Setting,
    name: str,
    flags: str,
    *,
    replicas: int = 1,
    extra: Mapping[str, str] | None = None,
) -> pathlib.Path:
    """Trains by `launch.train`; the run's folder.

    Args:
      replicas: where there are fewer GPUs, the first one is divided into so many.

    Raises:
      FailedError: it ended with another code than 0.
    """
    run, module = setting.folder / name, ["launch.train"]
    if setting.device == "gpu" and replicas > setting.count:
        module = ["tests.gpu.logical", str(replicas), *module]
        flags += " --all_reduce=reduce_to_one"
    flags += f" --device={setting.device} --replicas={replicas} --run_dir={run}"
    run_command([*module, *shlex.split(flags)], setting.folder, extra)
    return run


def equality(setting: Setting, network: str) -> list[Row]:
    """Bits that differ on 1, 2 and 4 replicas."""
    counts = (1, 2) if setting.small else (1, 2, 4)
    runs = {
        count: train(setting, f"on_{count}", _COMPARED[network], replicas=count) for count in counts
    }
    rows = []
    for count in counts[1:]:
        logical = setting.device == "cpu" or count > setting.count
        what = f"{network}: 1 and {count} {'logical ' * logical}{setting.device.upper()}s"
        rows.append(compared("equality", what, runs[1], runs[count]))
    return rows


def networks(setting: Setting) -> list[str]:
    """What is compared by bits, each in a process of its own."""
    return list(_COMPARED)[: 1 if setting.small else None]


def resume(setting: Setting, _: str) -> list[Row]:
    """Kills a training by SIGKILL somewhere behind its second checkpoint and goes on with it."""
    from tests.helpers import Gate

    replicas = max(n for n in (1, 2, 4) if n <= setting.count)  # which share 4 micro-batches
    undisturbed = train(setting, "undisturbed", _DIGITS, replicas=replicas)
    run = setting.folder / "killed"
    gate = Gate(run)
    place = f"--device={setting.device} --replicas={replicas} --run_dir={run}"
    process = gate.start(f"{_DIGITS} {place}", setting.folder, os.environ)
    gate.pass_until((run / "checkpoints/step-20").exists, process)
    gate.kill_behind(process)
    if process.returncode != -9:
        raise FailedError(f"it ended with {process.returncode} before it was killed")
    train(setting, "killed", _DIGITS, replicas=replicas)
    what = f"cnn, {replicas} {setting.device.upper()}, killed after step 20 of 50"
    return [compared("resume", what, undisturbed, run)]


def compared(part: str, what: str, one: pathlib.Path, other: pathlib.Path) -> Row:
    """How many bits differ between the last checkpoints of two runs, as a row."""
    from tests.faults.compare import different_bits
    from tests.helpers import Run

    runs = Run(one), Run(other)
    step = runs[0].checkpoints()[-1]
    if runs[1].checkpoints()[-1] != step:
        return failed(part, what, f"their last checkpoints are {step} and another")
    there, here = (run.variables(step) for run in runs)
    bits = {n: different_bits(there.get(n), here.get(n)) for n in {**there, **here}}
    differing, count = sum(bits.values()), sum(map(bool, bits.values()))
    if differing:
        return failed(part, what, f"{differing:,} bits differ in {count} of {len(bits)} variables")
    return Row(part, what, "0 bits differ", note=f"{len(bits)} variables, step {step}", raw=bits)


def loops(setting: Setting, steps: str) -> list[Row]:
    """Steps a second with a device loop of so many steps."""
    flags = "--dataset=synthetic:32x32x3 --model=resnet20 --global_batch=128 --train_for=3000st"
    if setting.small:
        flags = "--dataset=digits --model=mlp --train_for=400st"
    run = train(setting, "run", f"{flags} {_SIDE_BY_SIDE} --xla=off --steps_per_loop={steps}")
    times = [row["step_ms"] for row in logged(run)]
    rate = 1000 / statistics.median(times[len(times) // 2 :])
    model = "mlp" if setting.small else "ResNet-20 on 32 × 32, batch 128"
    what, waited = f"{model}, --steps_per_loop={steps}", share_waited(run)
    note = f"waited for data {waited:.1%} of the time".replace("%", " %")
    return [Row("loops", what, f"{rate:,.0f} steps/s", note=note, raw=times)]


def real_input(setting: Setting, kind: str) -> list[Row]:
    """Images a second, and the share of the time that was waited for them."""
    pictures, side, batch = (64, 32, 8) if setting.small else (_PICTURES, 224, 128)
    flags = f"{_SIDE_BY_SIDE} --global_batch={batch * setting.count} --xla=off"
    if setting.small:
        flags += " --model=cnn --train_for=20st --steps_per_loop=5"
    else:
        flags += " --model=resnet50 --precision=bfloat16 --train_for=300st --steps_per_loop=10"
    if kind == "JPEG":
        write_pictures(setting.folder / "pictures", pictures)
        flags += f" --dataset=folder:{setting.folder / 'pictures'} --augment=crop|flip"
    else:
        flags += f" --dataset=synthetic:{side}x{side}x3"
    flags = f"'--image_size={side}' " + flags.replace("crop|flip", "'crop|flip'")
    run = train(setting, "run", flags, replicas=setting.count)
    rows = logged(run)
    rates = [row["examples_per_second"] for row in rows[len(rows) // 2 :]]
    return [
        Row(
            "input",
            f"{kind} input to {'cnn' if setting.small else 'ResNet-50, bfloat16'}, {side} × {side}",
            f"waited {share_waited(run):.1%} of the time".replace("%", " %"),
            note=f"{statistics.median(rates):,.0f} images/s on {os.cpu_count()} cores",
            raw=rows,
        )
    ]


def write_pictures(folder: pathlib.Path, count: int) -> None:
    """Writes JPEGs of 500 × 375 of eight classes, for `--dataset=folder:`."""
    from tests.benchmarks.input_data import make_jpeg

    for number in range(8):
        (folder / f"class{number}").mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, jpeg in enumerate(pool.map(make_jpeg, range(count))):
            (folder / f"class{number % 8}" / f"{number}.jpg").write_bytes(jpeg)


def start(setting: Setting, _: str) -> list[Row]:
    """Seconds to the end of the first step, with caches that are new and once more with them."""
    flags = "--dataset=synthetic:224x224x3 --model=resnet50 --precision=bfloat16 --xla=on"
    if setting.small:
        flags = "--dataset=digits --model=mlp --xla=off"
    flags += f" {_SIDE_BY_SIDE} --train_for=2st --global_batch={32 * setting.count}"
    caches = {name: str(setting.folder / name) for name in ("CUDA_CACHE_PATH", "XDG_CACHE_HOME")}
    rows = []
    for name in ("first", "second"):
        run = train(setting, name, flags, replicas=setting.count, extra=caches)
        (event,) = (row for row in metrics(run) if row.get("event") == "started")
        phases = {key.removesuffix("_s"): event[key] for key in event if key.endswith("_s")}
        told = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in phases.items())
        model = "mlp" if setting.small else "ResNet-50, bfloat16, --xla=on"
        what, seconds = f"{name} start, {model}", sum(phases.values())
        rows.append(Row("start", what, f"{seconds:.1f} s", note=told, raw=phases))
    return rows


def metrics(run: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    from trainer.files.whole_files import read_lines

    return read_lines(run / "metrics.jsonl")


def logged(run: pathlib.Path) -> list[dict[str, Any]]:
    """Those of training steps."""
    return [row for row in metrics(run) if "step_ms" in row]


def share_waited(run: pathlib.Path) -> float:
    """The mean share of its time that the second half of a run's steps waited for data."""
    rows = logged(run)
    return statistics.fmean(row["input_wait_fraction"] for row in rows[len(rows) // 2 :])
