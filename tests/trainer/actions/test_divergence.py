"""The detector on recorded and made-up steps, and what becomes of what it finds."""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from trainer.actions.diverged import DivergedError
from trainer.actions.divergence import SUSTAINED, Divergence
from trainer.actions.nonfinite import NonFinite
from trainer.actions.spikes import IN_A_ROW, Detector
from trainer.loop import Block
from trainer.run_folder.history import History

HERE = pathlib.Path(__file__).parent
NORMS = {path.stem: path for path in (HERE / "norms").glob("*.json")}
CURVES = {path.stem: path for path in (HERE / "curves").glob("healthy*.json")}
CHANCE = math.log(10)


def most_in_a_row(losses: Sequence[float], norms: Sequence[float] | float = 1.0) -> int:
    """The most steps in a row that stood out."""
    detector = Detector(CHANCE)
    rows = zip(losses, np.broadcast_to(norms, len(losses)).tolist(), strict=True)
    return max(detector.step(step, *row) for step, row in enumerate(rows, start=1))


def noisy(mean: np.ndarray, batch: int, seed: int) -> np.ndarray:
    """Each step the mean of `batch` examples' losses, heavy-tailed with a deviation of 0.5."""
    shape = batch * (mean / 0.5) ** 2
    return mean * np.random.default_rng(seed).gamma(shape, 1 / shape)


def decay(steps: int = 600, floor: float = 0.05, tau: float = 50, seed: int = 0) -> np.ndarray:
    """Losses of a batch of 64 from chance level to a floor."""
    mean = floor + (CHANCE - floor) * np.exp(-np.arange(steps) / tau)
    return noisy(mean, 64, seed)


def test_there_are_healthy_recordings_of_different_kinds() -> None:
    assert len(NORMS) >= 10 and len(CURVES) >= 20


@pytest.mark.parametrize("name", sorted(NORMS))
def test_no_alarm_on_healthy_losses_and_norms(name: str) -> None:
    curve = json.loads(NORMS[name].read_text())
    assert most_in_a_row(curve["loss"], curve["gradient_norm"]) <= 3  # of 8


@pytest.mark.parametrize("name", sorted(CURVES))
def test_no_alarm_on_healthy_losses(name: str) -> None:
    assert most_in_a_row(json.loads(CURVES[name].read_text())["loss"]) <= 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("floor", [0.02, 0.1, 0.5, 1.2, 1.9])
@pytest.mark.parametrize("batch", [2, 8, 256])
def test_no_alarm_on_noise(batch: int, floor: float, seed: int) -> None:
    """Also where most losses are next to nothing and single examples cost ten times the mean."""
    mean = floor + (CHANCE - floor) * np.exp(-np.arange(3000) / 100)
    assert most_in_a_row(noisy(mean, batch, seed)) < IN_A_ROW - 2


def test_no_alarm_on_a_restart_that_gives_a_fifth_back() -> None:
    mean = np.concatenate([np.linspace(0.05, 0.02, 300), np.linspace(0.46, 0.02, 100)])
    assert most_in_a_row(noisy(mean, 64, 0)) < IN_A_ROW - 2


def test_no_alarm_when_a_network_begins_to_learn() -> None:
    """A plateau at chance level with next to no gradient, then a hundred times as much."""
    losses = np.concatenate([np.full(300, CHANCE), np.linspace(CHANCE, 0.5, 60), np.full(60, 0.5)])
    norms = np.concatenate([np.full(300, 0.01), np.full(120, 1.0)])
    assert most_in_a_row(losses, norms) == 0


def test_no_alarm_on_lone_spikes() -> None:
    losses = decay()
    losses[200::20] = 50.0
    losses[201::20] = 50.0
    assert most_in_a_row(losses) == 2


@pytest.mark.parametrize("at", [60, 150, 500])
@pytest.mark.parametrize("to", [1.2, CHANCE, 30.0, 1e30])
def test_a_loss_that_jumps_and_stays_is_found_at_once(at: int, to: float) -> None:
    losses = decay(tau=15)
    losses[at:] = to
    detector = Detector(CHANCE)
    counts = [detector.step(step, loss, 1.0) for step, loss in enumerate(losses, start=1)]
    assert counts[at - 1] == 0 and counts[at : at + IN_A_ROW] == list(range(1, IN_A_ROW + 1))
    assert detector.onset == at + 1


def test_a_norm_that_jumps_while_the_loss_does_not_fall_is_found() -> None:
    losses, norms = noisy(np.full(400, 1.0), 64, 0), np.full(400, 2.0)
    norms[300:] = 50.0
    losses[300:] = 1.3
    assert most_in_a_row(losses, norms) == 100
    norms[300:] = 5.0
    assert most_in_a_row(losses, norms) == 0


def test_a_resumed_detector_goes_on_as_if_undisturbed() -> None:
    losses = decay()
    losses[300:305] = losses[400:] = 9.0
    norms = np.random.default_rng(0).uniform(1, 3, len(losses))
    whole = Detector(CHANCE)
    counts = [whole.step(s, *row) for s, row in enumerate(zip(losses, norms, strict=True))]
    for cut in (0, 1, 15, 20, 21, 250, 303, 403):
        first = Detector(CHANCE)
        got = [first.step(s, losses[s], norms[s]) for s in range(cut)]
        state = json.loads(json.dumps(first.to_json(), allow_nan=False))
        second = Detector(CHANCE, state)
        got += [second.step(s, losses[s], norms[s]) for s in range(cut, len(losses))]
        assert got == counts
        assert json.dumps(second.to_json()) == json.dumps(whole.to_json())


class Host:
    """A host that is its own journal, and goes through blocks."""

    def __init__(self, rollback: bool, stop: bool = True) -> None:
        self.history, self.lines, self.notes, self.step = History(), [], [], 0
        self.say = self.lines.append
        nonfinite = NonFinite(stop, self.history, (), self)
        self._action = Divergence(nonfinite, self.history, self, CHANCE, rollback=rollback)

    def note(self, step: int, event: dict[str, Any]) -> None:
        self.notes.append((step, event))

    def block(self, losses: Sequence[float], weightless: bool = False) -> None:
        """A block with these losses; where one is not a number the step changed nothing.

        Or it was `weightless`: all of its examples weigh 0.
        """
        columns = {"train/loss": losses, "gradient_norm": np.ones(len(losses))}
        finite = np.isfinite(losses) | weightless
        columns |= {"learning_rate": np.full(len(losses), 0.1), "finite": finite}
        rows = {name: np.array(column, np.float32) for name, column in columns.items()}
        block = Block(self.step, rows, None)
        self._action(block)
        self.step = block.last


CALM = [0.1] * 50


def test_a_spike_ends_the_attempt_where_there_is_a_way_back() -> None:
    host = Host(rollback=True)
    host.block(CALM)
    assert host.history.healthy
    host.block([5.0] * 7)
    assert not host.history.healthy
    host.block([0.1])
    assert host.history.healthy
    with pytest.raises(
        DivergedError, match=r"the loss rose from 0.1 or less to 5 in the steps 59 to 66"
    ) as it:
        host.block([5.0] * 100)
    assert (it.value.onset, it.value.step) == (59, 66)
    assert "--on_divergence" not in str(it.value)
    assert (host.lines, host.notes) == ([], [])


def test_without_one_it_is_told_and_ends_the_run_only_when_it_lasts() -> None:
    host = Host(rollback=False)
    host.block(CALM)
    host.block([5.0] * (SUSTAINED - 1))
    host.block(CALM)
    assert len(host.lines) == 1 and host.lines[0].startswith(
        "step 58  the loss rose from 0.1 or less"
    )
    ((step, event),) = host.notes
    assert (step, event["event"], event["onset"]) == (58, "spike", 51)
    with pytest.raises(DivergedError, match="or --on_divergence=rollback") as error:
        host.block([5.0] * 200)
    assert error.value.step - error.value.onset == SUSTAINED - 1


@pytest.mark.parametrize("blocks", [[100], [1] * 100, [53, 47], [55, 45]])
@pytest.mark.parametrize("steps", ["spike first", "not finite first"])
def test_what_came_first_counts_however_long_the_blocks_are(steps: str, blocks: list[int]) -> None:
    losses = np.array([*CALM, *[5.0] * 50])
    losses[70 if steps == "spike first" else 54] = np.nan
    host = Host(rollback=True)
    with pytest.raises(DivergedError) as error:
        for part in np.split(losses, np.cumsum(blocks)[:-1]):
            host.block(part)
    expected = (51, 58) if steps == "spike first" else (55, 55)
    assert (error.value.onset, error.value.step) == expected


@pytest.mark.parametrize("weightless", [False, True])
def test_steps_that_are_skipped_or_weigh_nothing_are_not_seen(weightless: bool) -> None:
    host = Host(rollback=True, stop=weightless)
    host.block(CALM)
    host.block([np.nan] * 20 + [0.1], weightless)
    assert host.history.healthy
    json.dumps(host.history.spikes, allow_nan=False)
    host.block([5.0] * 4 + [np.nan] * 5 + [5.0] * 3, weightless)
    with pytest.raises(DivergedError, match="in the steps 72 to 84"):
        host.block([5.0])
