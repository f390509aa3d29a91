"""Prepares a dataset: `python -m launch.prepare --dataset=… [--verify] [--to_tfrecord=OUT_DIR]`.

Builds the index of its TFRecord files, looks at every record, or writes it as TFRecord shards.
"""

import contextlib
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import flags as absl_flags
from tqdm import tqdm

from input_pipeline.checks import check_pictures
from input_pipeline.sources import Source, open_source
from input_pipeline.verify import find_bad
from launch.flags.command import read_command
from launch.flags.group import Group
from launch.flags.run import define_training_flags
from launch.process import cli
from launch.terminal.table import command_text, table, whole

_SHOWN = 10


def define_prepare_flags() -> absl_flags.FlagValues:
    """The flags of a training run and those of this command."""
    values = define_training_flags()
    add = Group(values, "prepare")
    add.boolean(
        "verify",
        False,
        "Look at every record.\nIts checksum, image, label, weight; training leaves bad ones out.",
    )
    add.text(
        "to_tfrecord",
        "",
        "Write TFRecord shards there.\nA new folder; with the classes' names in classes.txt.",
    )
    add.integer(
        "shards",
        8,
        1,
        "How many, of the training split.\nThe other gets as many as its length is worth.",
        high=100_000,
    )
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        command = read_command(argv, values)
        out = pathlib.Path(values.to_tfrecord) if values.to_tfrecord else None
        if out:
            check_out_folder(out)
        sources = {}
        for split in ("train", "eval"):
            start = time.monotonic()
            with cli.own_code(values.verbosity):
                sources[split] = open_source(command.data, split, leave_out=False)
            if out:
                check_pictures(sources[split], "launch.prepare writes")
            elif values.verify:
                check_pictures(sources[split], "launch.prepare looks at", ("class", "masks"))
            print(table([(split, facts(sources[split], time.monotonic() - start))]))
            for note in sources[split].notes:
                print(table([("", note)]))
        if values.verify:
            cli.import_tensorflow(values.verbosity)
            for split, source in sources.items():
                verify(split, source)
        if out:
            convert({split: open_source(command.data, split) for split in sources}, out, values)
    return cli.FINISHED


def facts(source: Source, seconds: float) -> str:
    """The facts of a source that was opened, in a sentence."""
    text = f"{source.name}: {source.length:,} records, {source.num_classes:,} classes"
    if source.index is None:
        return f"{text}; opened in {seconds:.1f} s, needs no index"
    records, size = len(source.index), int(source.index.bounds[-1])
    of = "" if records == source.length else f" of the {records:,}"
    where = source.index.kept or "not kept: neither beside the data nor in the cache can be written"
    return f"{text}{of} in {size:,} bytes, opened in {seconds:.1f} s; index {where}"


def verify(split: str, source: Source) -> None:
    """Looks at every record, lists the bad ones beside the data, and says what was found."""
    start = time.monotonic()
    with progress(source.length, f"verify {split}") as looked_at:
        bad = find_bad(source, looked_at)
    seconds = time.monotonic() - start
    speed = source.length / max(seconds, 1e-3)
    text = f"{source.length:,} records in {seconds:.1f} s, {speed:,.0f}/s: {len(bad):,} bad"
    place = None
    if source.bad_list:
        place = source.bad_list.update(source.numbers(np.arange(source.length)), bad)
    if bad and place:
        text += f", listed in {whole(place)}; training leaves them out"
    elif bad:
        text += ", which nothing can be listed beside: training will meet them"
    print(table([("verified", f"{whole(source.name)}: {text}")]))
    for record in bad[:_SHOWN]:
        print(table([("", f"{whole(record.where)}: {record.why}")]))
    if len(bad) > _SHOWN:
        print(table([("", f"and {len(bad) - _SHOWN:,} more")]))


def check_out_folder(out: pathlib.Path) -> None:
    """Sees that the folder of the shards is new.

    Raises:
      ValueError: it is not.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--to_tfrecord={out} holds other things; give a new folder.")


def convert(
    sources: Mapping[str, Source], out: pathlib.Path, values: absl_flags.FlagValues
) -> None:
    """Writes the shards and says how to train with them.

    Raises:
      ValueError: a record cannot be read.
      OSError: the folder cannot be written.
    """
    from input_pipeline.records.tfrecord_writer import write_tfrecords

    start, total = time.monotonic(), sum(source.length for source in sources.values())
    try:
        with progress(total, "write") as written:
            write_tfrecords(sources, out, values.shards, written)
    except OSError as error:
        raise OSError(
            f"--to_tfrecord={out} cannot be written ({error.strerror}); give a folder that can."
        ) from None
    size = sum(path.stat().st_size for path in out.iterdir())
    seconds = time.monotonic() - start
    dataset = f"tfrecord:{out}/train-*.tfrecord,{out}/eval-*.tfrecord"
    print(table([("written", f"{total:,} records, {size:,} bytes in {seconds:.1f} s")]))
    train = ("python", "-m", "launch.train", f"--dataset={dataset}")
    print(table([("go on with", command_text(*train))]))


@contextlib.contextmanager
def progress(total: int, name: str) -> Iterator[tqdm]:
    """A bar on a terminal where it takes longer than a second; gives what moves it."""
    with tqdm(total=total, desc=name, unit=" records", delay=1, disable=None) as bar:
        yield bar.update


main = cli.entry_point("launch.prepare", define_prepare_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
