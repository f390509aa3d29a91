"""launch.plan --workers: what a run would do on many of them."""

import dataclasses
import math
import pathlib
import re

import numpy as np
import pytest
from helpers import Ended, call

import launch.plan
from launch.flags.command import read_command
from launch.flags.scaling import failures_of, read_scaling, site_of
from launch.process.cli import WrongCommandError
from launch.terminal.scaling_text import advice, line_of, scaling_text
from launch.training.trial import Trial
from trainer.plan.failures import Failures, best_interval, simulate
from trainer.plan.scaling import Site, scaled
from trainer.plan.traffic import Link

RUN = "--dataset=digits --model=mlp --global_batch=64 --device=cpu --train_for=100st --out=none"
ROW = re.compile(
    r"^ +([\d,]+) +([\d,]+) +([\d.]+) (m?s) +([\d.]+) (m?s) +([\d,]+) +([\d.]+)% +([\d.]+) % "
)


def rows(text: str) -> dict[int, list[float]]:
    """Of each number of workers: batch, step and exchange in ms, examples/s, scaling, goodput."""
    found = {}
    for line in text.splitlines():
        if match := ROW.match(line):
            workers, batch, step, unit, exchange, other, *rest = match.groups()
            scale = {"ms": 1.0, "s": 1000.0}
            times = [float(step) * scale[unit], float(exchange) * scale[other]]
            numbers = [float(part.replace(",", "")) for part in (batch, *rest)]
            found[int(workers.replace(",", ""))] = [numbers[0], *times, *numbers[1:]]
    return found


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("scaling")
    flags = "--workers=1,4,64 --step_ms=10 --bandwidth=0.1 --latency_us=500 --exact_sums=off"
    flags += " --checkpoint_every=10min"
    return call(f"{RUN} {flags}", folder, module="launch.plan")


def test_a_row_of_each_number_of_workers(said: Ended) -> None:
    assert said.code == 0, said.err
    found = rows(said.out)
    assert list(found) == [1, 4, 64]
    (shown,) = re.findall(
        r"([\d.]+) MB of gradients, summed on the way", " ".join(said.out.split())
    )
    seconds = 6 * 0.0005 + 2 * 3 / 4 * float(shown) * 1e6 / 1e8
    batch, step, exchange, speed, scaling, goodput = found[4]
    assert batch == 256 and exchange == pytest.approx(1000 * seconds, rel=0.01)
    assert step == pytest.approx(10 + 1000 * seconds, rel=0.01)
    assert speed == pytest.approx(256 / (0.01 + seconds), rel=0.01)
    assert scaling == pytest.approx(100 / (1 + 100 * seconds), rel=0.01)
    assert found[1][1:3] == [10, 0] and 99 < goodput <= 100
    assert max(map(len, said.out.splitlines())) <= 80
    share = 100 * found[64][2] / found[64][1]
    assert f"64 workers: {share:.0f}% of a step is the exchange; --pack_mb hides" in said.out
    assert "64 workers: 0.26 interruptions a day" in said.out


def test_what_is_missing_or_cannot_be() -> None:
    for flags, expected in (
        ("--workers=8 --bandwidth=1", "give --step_ms, or --measure"),
        ("--workers=8 --step_ms=10", "give --bandwidth in GB/s"),
        ("--workers=8,many --step_ms=10 --bandwidth=1", "give such as 8,64"),
        ("--workers=0 --step_ms=10 --bandwidth=1", "workers are 1 to 1,000,000"),
        ("--workers=8 --step_ms=10 --bandwidth=1 --mtbf_days=0", "--mtbf_days=0 cannot be"),
        ("--workers=8 --step_ms=10 --bandwidth=1 --repair_h=0", "--repair_h=0 cannot be"),
        ("--workers=8 --step_ms=10 --bandwidth=1 --restart_s=0", "--restart_s=0 cannot be"),
        ("--workers=00000008 --step_ms=10 --bandwidth=1", "no list of whole numbers"),
        ("--workers=1,99 --step_ms=1 --bandwidth=1 --mtbf_days=0.005", "a larger --mtbf_days"),
        ("--workers=99 --step_ms=1 --bandwidth=1 --mtbf_days=0.001", "give a larger --mtbf_days"),
        ("--workers=8 --step_ms=10 --bandwidth=1 --compare=a.flags", "leave --compare out"),
    ):
        with pytest.raises(WrongCommandError, match=re.escape(expected)):
            launch.plan.main(f"{RUN} {flags}".split())


def test_a_step_that_was_measured(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = Trial({"imports": 1.0}, 200, 5.0, 0.0, 10**9, 0, "off")
    monkeypatch.setattr(launch.plan, "run_trial", lambda *_: trial)
    flags = f"{RUN} --run_dir={tmp_path} --workers=1 --bandwidth=1 --measure"
    assert launch.plan.main(flags.split()) == 0
    assert rows(capsys.readouterr().out)[1][1] == 25


def test_the_flags_are_what_the_model_takes() -> None:
    flags = (
        "--workers=8 --step_ms=20 --bandwidth=2 --latency_us=30 --reads=500 --mtbf_days=10 "
        "--rack_mtbf_days=40 --rack=4 --spares_percent=10 --repair_h=5 --restart_s=60 "
        "--checkpoint_pause_s=3 --micro_batch=16 --pack_mb=4 --checkpoint_every=50st"
    )
    command = read_command(f"{RUN} {flags}".split(), launch.plan.define_plan_flags())
    asked, (plan, _, _) = (
        read_scaling(command.values),
        launch.plan.plan_of(f"{RUN} {flags}".split()),
    )
    day = 86_400.0
    told = Failures(10 * day, 4, 40 * day, 1, 5 * 3600.0, 60.0, math.inf, 3.0)
    assert asked.failures == told and asked.link == Link(30e-6, 2e9) and asked.reads == 500
    site = site_of(asked, plan, 1_000, 4.0, 0.02)
    assert (site.gradients, site.piece, site.micro_batches) == (4_000, 4e6, 4)
    assert (site.examples, site.tree, site.exact) == (64, False, True)
    assert site_of(asked, plan, 1_000, 0.0, 0.02).piece == math.inf
    for workers, spares in ((15, 2), (1, 1), (100, 10)):
        many = failures_of(asked, plan, workers, 0.02)
        assert (many.spares, many.checkpoint_every) == (spares, 1.0)
    none = dataclasses.replace(asked, spares_percent=0.0)
    assert failures_of(none, plan, 100, 0.02).spares == 1


# A second of computing, and 4 GB around a ring of 1 GB/s.
SITE = Site(1.0, 100, 2, 4e9, False, 1, Link(0.0, 1e9), math.inf, False, math.inf)
FAILURES = Failures(250 * 86_400.0, 8, math.inf, 50, 3600.0, 300.0, 600.0, 1.0)


def test_advice_is_of_what_limits() -> None:
    slow = dataclasses.replace(SITE, reads=10.0)
    (reads, *_) = advice(scaled(slow, 4), slow, FAILURES)
    needed = 100 / (scaled(slow, 4).compute + scaled(slow, 4).exchange)
    assert f"would have to read {needed:,.0f} examples/s" in reads
    best = best_interval(FAILURES, 4)
    for factor, said in ((0.4, True), (0.6, False), (1.0, False), (1.9, False), (2.5, True)):
        failures = dataclasses.replace(FAILURES, checkpoint_every=factor * best)
        found = advice(scaled(SITE, 4), SITE, failures)
        assert (f"; {best:,.3g} s would lose least." in found[-1]) == said, factor
    free = dataclasses.replace(FAILURES, checkpoint_pause=0.0)
    assert "would lose least" not in advice(scaled(SITE, 4), SITE, free)[-1]


def test_a_line_has_units_and_the_middle_of_nineteen_months_of_twenty() -> None:
    failures = dataclasses.replace(FAILURES, spares=0, machine_mtbf=40 * 86_400.0)
    line = line_of(SITE, 4, failures)
    low, high = map(float, re.search(r"\(([\d.]+)–([\d.]+)\)$", line).groups())
    assert line.split()[:4] == ["4", "400", f"{scaled(SITE, 4).seconds:.3g}", "s"]
    assert rows(line)[4][1] == pytest.approx(1000 * scaled(SITE, 4).seconds, rel=0.01)
    months = 100 * simulate(failures, 4, 30 * 86_400.0, 40)
    assert [low, high] == pytest.approx(np.percentile(months, [5, 95]), abs=0.06)
    asked = []
    text = scaling_text(SITE, [4], lambda *of: asked.append(of) or FAILURES)
    assert " 2 replicas, 100 examples in 1e+03 ms;" in text
    assert asked == [(4, scaled(SITE, 4).seconds)] * 2  # of a step there, with the exchange
