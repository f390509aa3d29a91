"""Time to the first batch at position 0 and at 10,000,000 of ten million records.

    python -m tests.benchmarks.resume --rounds=8 --out=resume.json

Writes the records (1.4 GB), times the building of their index, and then starts a training's input
in fresh processes, in turn: at 0, at 0 once more (`control`: what chance alone does) and at the end
of the first epoch. Timed is what a resumed run does once it is built: from its stream's creation to
the first batch in the strategy's hands; beside it the whole process, from its start on.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from input_pipeline.records.tf_example import write_example
from input_pipeline.records.tfrecord_index import open_index
from input_pipeline.records.tfrecord_writer import framed, png_file
from tests.benchmarks.interleaved import Round, median_rates, ratios

REPOSITORY = pathlib.Path(__file__).parents[2]
RECORDS, SHARDS, DISTINCT, BATCH = 10_000_000, 10, 10_000, 64
ARMS = {"0": 0, "control": 0, "10,000,000": RECORDS}
MOST_SECONDS = 2.0  # to the first batch, as issue 4 requires


@dataclasses.dataclass(frozen=True)
class Started:
    """What a process measured, in seconds."""

    opening: float  # the sources and the plan
    first_batch: float  # from the stream's creation on
    first_batch_cpu: float  # the processor's time, of all cores, in that
    process: float  # from the process's start to the first batch


def write_records(folder: pathlib.Path) -> None:
    """Ten million tf.train.Examples of 4 × 4 images: ten thousand, over and over."""
    random = np.random.RandomState(0)
    images = random.randint(256, size=(DISTINCT, 4, 4, 1), dtype=np.uint8)
    examples = [
        framed(write_example({"image": png_file(image), "label": number % 10}))
        for number, image in enumerate(images)
    ]
    some = b"".join(examples)
    for shard in range(SHARDS):
        with (folder / f"train-{shard:05d}-of-{SHARDS:05d}.tfrecord").open("wb") as file:
            for _ in range(RECORDS // SHARDS // DISTINCT):
                file.write(some)
    (folder / "eval-00000-of-00001.tfrecord").write_bytes(some)


def build_index(folder: pathlib.Path) -> dict[str, float]:
    """Builds the index: seconds, its bytes, and those of the files."""
    begin = time.perf_counter()
    index = open_index(sorted(map(str, folder.glob("train-*"))))
    seconds = time.perf_counter() - begin
    assert len(index) == RECORDS and index.kept is not None
    return {
        "seconds": seconds,
        "bytes": index.kept.stat().st_size,
        "bytes_of_records": int(index.bounds[-1]),
    }


def start(folder: pathlib.Path, position: int) -> Started:
    """Starts the input at this position in a fresh process."""
    process = [sys.executable, "-m", "tests.benchmarks.resume", f"--folder={folder}"]
    ended = subprocess.run(
        [*process, f"--position={position}", f"--began={time.monotonic()}"],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    return Started(**json.loads(ended.stdout))


def first_batch(folder: pathlib.Path, position: int, began: float) -> Started:
    """In the fresh process: builds the run as launch.train does, and takes the first batch."""
    from input_pipeline.bad_records import Faults
    from launch.flags.command import read_command
    from launch.process import cli
    from launch.training.job import plan_command
    from launch.training.streams import training_data

    dataset = f"tfrecord:{folder}/train-*.tfrecord,{folder}/eval-*.tfrecord"
    command = read_command(
        [
            "--device=cpu",
            "--model=mlp",
            f"--dataset={dataset}",
            "--num_classes=10",
            "--augment=crop|flip",
            f"--global_batch={BATCH}",
        ]
    )
    begin = time.perf_counter()
    plan, devices, sources = plan_command(command)
    opened = time.perf_counter()
    cli.import_tensorflow(0)
    from trainer.run import build_run

    run = build_run(command.settings, plan, devices)
    source = sources["train"]
    built, used = time.perf_counter(), time.process_time()
    data = training_data(command, plan, source, position, Faults(source))
    batch = next(cli.keep(iter(run.stream(data))))
    positions = batch["position"].numpy()
    now, used = time.perf_counter(), time.process_time() - used
    assert positions.tolist() == list(range(position, position + BATCH))
    return Started(opened - begin, now - built, used, time.monotonic() - began)


def measure(folder: pathlib.Path, rounds: int) -> dict[str, list[Round]]:
    """Fresh processes in turn, forwards and backwards in alternation; rounds of each duration."""
    fields = [field.name for field in dataclasses.fields(Started)]
    found: dict[str, list[Round]] = {name: [] for name in fields}
    for number in tqdm(range(rounds), disable=None):
        order = list(ARMS)[:: -1 if number % 2 else 1]
        started = {arm: start(folder, ARMS[arm]) for arm in order}
        for name in fields:
            seconds = {arm: getattr(started[arm], name) for arm in ARMS}
            found[name].append(Round({arm: {} for arm in ARMS}, [seconds]))
    return found


def run_benchmark(folder: pathlib.Path, rounds: int, out: str) -> int:
    """Prints the tables; 1 if a first batch takes too long or the position matters."""
    begin = time.perf_counter()
    write_records(folder)
    print(f"{RECORDS:,} records written in {time.perf_counter() - begin:.1f} s")
    index = build_index(folder)
    print(
        f"index: {index['seconds']:.1f} s, {index['bytes']:,} bytes, "
        f"for {index['bytes_of_records']:,} bytes of records"
    )
    start(folder, 0)  # not counted: what a first process leaves in caches
    found = measure(folder, rounds)
    result = {"index": index}
    for name, taken in found.items():
        result[name] = {
            "seconds": median_rates(taken),
            "ratio": ratios(taken, "10,000,000", "0"),
            "control": ratios(taken, "control", "0"),
        }
        seconds = ", ".join(f"{arm}: {s:.3f} s" for arm, s in result[name]["seconds"].items())
        print(f"{name:12} {seconds}")
        for kind in ("ratio", "control"):
            r = result[name][kind]
            print(f"{'':12} {kind} {r['median']:.3f} ({r['from']:.3f}–{r['to']:.3f})")
    if out:
        pathlib.Path(out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    slowest = max(result["first_batch"]["seconds"].values())
    ratio = result["first_batch"]["ratio"]
    return 0 if slowest < MOST_SECONDS and ratio["from"] <= 1 <= ratio["to"] else 1


def main(argv: Sequence[str]) -> int:
    """The benchmark or, with --position, one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--out", default="", help="where the numbers go, as JSON")
    for name, kind in (("folder", pathlib.Path), ("position", int), ("began", float)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.position is not None:
        started = first_batch(given.folder, given.position, given.began)
        print(json.dumps(dataclasses.asdict(started)), flush=True)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return run_benchmark(pathlib.Path(folder), given.rounds, given.out)


if __name__ == "__main__":
    from launch.process import cli

    cli.exit_with(main)
