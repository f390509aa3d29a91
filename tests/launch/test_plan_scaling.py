"""launch.plan --workers: what a run would do on many of them."""

import pathlib
import re

import pytest
from helpers import Ended, call

import launch.plan
from launch.process.cli import WrongCommandError
from launch.training.trial import Trial

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
