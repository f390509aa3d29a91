"""Says whether training would work on this machine, and what to do: `python -m launch.doctor`."""

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence

from absl import flags as absl_flags

from launch.checks.cards import Cards, find_cards
from launch.checks.collective import try_to_sum
from launch.checks.decoding import decode
from launch.checks.finding import ERROR, NOTE, Finding, would_train
from launch.checks.installed import find_installed, report_rows
from launch.checks.libraries import installed_packages, try_libraries
from launch.checks.machine import find_machine
from launch.checks.quick import Facts, findings_of
from launch.checks.small_training import train_a_little
from launch.checks.tensorflow_start import start_tensorflow
from launch.flags.command import parse, unexpected_arguments
from launch.flags.devices import ALL_REDUCE
from launch.flags.group import Group
from launch.flags.parsing import one_of
from launch.process import cli
from launch.process.workers import find_cluster
from launch.terminal.table import table, whole
from launch.training.cluster_sums import Asked, lines_of, measure


def define_doctor_flags() -> absl_flags.FlagValues:
    """The command's flags."""
    values = absl_flags.FlagValues()
    add = Group(values, "doctor")
    add.text("device", "auto", "auto, gpu or cpu.\ngpu: no GPU is an error.")
    add.boolean("quick", False, "Leaves out what trains, sums or decodes.")
    add.boolean("json", False, "One JSON object instead of a table.")
    add.text("run_dir", "runs", "Where runs are to be written.\nThe disk there is looked at.")
    add.text("all_reduce", "auto", "How replicas sum.\nSee launch.train --helpfull.")
    add.boolean(
        "cluster",
        False,
        "Sums over several workers instead.\nOn each of them at once, as launch.train is started: "
        "known values of several sizes, what they take, and whether they come back right.",
    )
    add.number("join_timeout_s", 300.0, "Seconds to wait for the other workers.")
    add.integer("sum_within", 60, 1, "Seconds after which a sum counts as hanging.")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        unexpected_arguments(parse(values, argv))
        one_of("device", values.device, ("auto", "gpu", "cpu"))
        one_of("all_reduce", values.all_reduce, ALL_REDUCE)
    if values.cluster:
        return over_workers(values)
    facts = collect(pathlib.Path(values.run_dir), values.device)
    findings = []
    for finding in examine(facts, values):
        findings.append(finding)
        if not values.json:
            print(table([(finding.topic, str(finding))]), flush=True)
    if values.json:
        print(json.dumps(as_json(facts, findings), indent=1, ensure_ascii=False))
    else:
        print(f"\nfor a bug report, with what stands above:\n{table(_rows(facts))}\n")
        print(conclusion(findings, values.quick))
    return cli.FINISHED if would_train(findings) else cli.FAILED


def over_workers(values: absl_flags.FlagValues) -> int:
    """Sums over all workers, of which this process is one; the exit code.

    Raises:
      WrongCommandError: nothing tells of other workers, or they are not alike.
      FailedError: they came to other numbers.
      TryAgainError: one is missing, or has gone.
    """
    with cli.wrong_command():
        cluster = find_cluster("auto", os.environ)
        if cluster is None:
            raise ValueError(
                "--cluster sums over several workers, and nothing tells of others here; start it "
                "by launch.cluster --workers=2 --doctor, by srun, or with a TF_CONFIG for each."
            )
        asked = Asked(values.device, values.all_reduce, values.sum_within, values.join_timeout_s)
        measured = measure(cluster, asked, _doing if cluster.chief else lambda what: None)
    if cluster.chief and values.json:
        print(json.dumps(dataclasses.asdict(measured), indent=1))
    elif cluster.chief:
        print(table([("workers", measured.devices), ("sums", "every number is right")]), "\n")
        print(*lines_of(measured), sep="\n")
    return cli.FINISHED


def collect(run_dir: pathlib.Path, device: str) -> Facts:
    """The facts of this machine."""
    _doing("looking at the machine, the GPUs and the libraries")
    installed, machine, packages = find_installed(), find_machine(run_dir), installed_packages()
    if device == "cpu":
        cards, libraries = Cards(asked=False), ()
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # of what is tried from here on
    else:
        cards, libraries = find_cards(), try_libraries()
    _doing("starting TensorFlow")
    return Facts(installed, cards, machine, libraries, packages, start_tensorflow())


def examine(facts: Facts, values: absl_flags.FlagValues) -> Iterator[Finding]:
    """What is found, one after the other."""
    found = [*findings_of(facts)]
    gpus = facts.started.gpus or 0
    if values.device == "gpu" and not gpus:
        text = "--device=gpu, but TensorFlow finds no GPU that it can use"
        found.append(Finding("device", ERROR, text, "mend what is said above, or --device=cpu"))
    yield from found
    if values.quick:
        text = "no sum, no decoding, no training was tried"
        yield Finding("left out", NOTE, text, "python -m launch.doctor tries them")
    elif facts.started.gpus is not None:
        yield from try_out(gpus, facts.machine.cores, values)


def try_out(gpus: int, cores: int, values: absl_flags.FlagValues) -> Iterator[Finding]:
    """Sums, trains and decodes."""
    kind, replicas = ("GPU", gpus) if gpus else ("CPU", 2)
    _doing(f"summing over {replicas} {kind} replica{'s' * (replicas != 1)}")
    found = try_to_sum(kind, replicas, values.all_reduce, values.sum_within)
    yield from found
    if would_train(found):
        for count in (replicas,) if gpus else (1, 2):
            _doing(f"training on {count} {kind} replica{'s' * (count != 1)}")
            yield from train_a_little(kind, count, values.all_reduce)
    else:
        yield Finding("training", NOTE, "not tried, since a step has such a sum to make")
    _doing("decoding pictures")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # which are not needed for that
    cli.import_tensorflow(0)
    yield decode(cores)


def as_json(facts: Facts, findings: Iterable[Finding]) -> dict[str, object]:
    """What is printed for a program to read."""
    return {
        "would_train": would_train(findings),
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "facts": dataclasses.asdict(facts),
    }


def conclusion(findings: Sequence[Finding], quick: bool) -> str:
    """What it comes to, in a sentence."""
    errors = sum(finding.status == ERROR for finding in findings)
    if not errors:
        return (
            "nothing that was looked at stands against training here"
            if quick
            else "training works here"
        )
    return f"training would not work here as asked: {errors} error{'s' * (errors != 1)} above"


def _rows(facts: Facts) -> list[tuple[str, str]]:
    """The rows of a bug report, in which what can be copied stays in one piece."""
    rows = [*report_rows(facts.installed), *facts.nvidia_packages.items()]
    return [(name, whole(value) if name.isupper() else value) for name, value in rows]


def _doing(what: str) -> None:
    print(f"{what} …", file=sys.stderr, flush=True)


main = cli.entry_point("launch.doctor", define_doctor_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
