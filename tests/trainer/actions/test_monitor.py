"""The monitor on recorded and made-up losses: the right word on sick ones, none on healthy ones."""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from trainer.actions.monitor import LONG, Interval, Monitor, judge
from trainer.run_folder.history import History

CURVES = {path.stem: path for path in pathlib.Path(__file__).with_name("curves").glob("*.json")}
HEALTHY = sorted(name for name in CURVES if name.startswith("healthy"))
SICK = sorted(set(CURVES) - set(HEALTHY))
CHANCE = math.log(10)
Event = tuple[int, str]
# What is to be said of each sick curve, in this order, and the step by which, with a row a step.
# One that explodes and then stays at chance level stalls as well.
DEAD = ("explodes", "stalls")
EXPECTED = {
    "explodes-adamw": (DEAD, 20),
    "explodes-adamw-warmup": (("explodes",), 80),  # it is at its lowest at step 45
    "explodes-cnn": (("explodes",), 20),
    "explodes-cnn-recovers": (("explodes",), 25),
    "explodes-dead-0.5": (DEAD, 20),
    "explodes-dead-0.8": (DEAD, 20),
    "explodes-dead-1.5": (DEAD, 20),
    "explodes-plain": (DEAD, 20),
    "explodes-sgd": (DEAD, 20),
    "explodes-warmup": (("explodes",), 40),  # it is at its lowest at step 20
    "oscillates-clip": (("oscillates",), 165),
    "oscillates-linear": (("explodes", "oscillates", "explodes"), 20),
    "oscillates-linear-adamw": (("explodes", "oscillates"), 20),
    "oscillates-step": (("oscillates",), 205),
    "stalls-dead": (("stalls",), 110),
    "stalls-dead-batch-16": (("stalls",), 350),
    "stalls-frozen": (("stalls",), 110),
    "stalls-rate-too-small": (("stalls",), 130),
    "stalls-rate-too-small-batch-8": (("stalls",), 680),
}


class Listener:
    """A monitor and, being its journal, what it said."""

    def __init__(
        self,
        steps_per_epoch: float,
        batch: int = 64,
        chance: float | None = CHANCE,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.lines: list[str] = []
        self.events: list[Event] = []
        self.notes: list[dict[str, Any]] = []
        self.say = self.lines.append
        self.monitor = Monitor(steps_per_epoch, batch, chance, History(monitor=state or {}), self)

    def note(self, step: int, event: dict[str, Any]) -> None:
        assert event["event"] == "monitor"
        self.events.append((step, event["verdict"]))
        self.notes.append(event)

    def hear(
        self,
        losses: Sequence[float],
        rates: Sequence[float] | float,
        every: int = 1,
        first: int = 0,
    ) -> "Listener":
        """Feeds a loss and a rate for each step as rows of `every` steps."""
        rows = len(losses) // every
        means = np.reshape(losses[: rows * every], (rows, every)).mean(axis=1).tolist()
        rates = np.broadcast_to(rates, len(losses))[every - 1 :: every].tolist()
        for index, (loss, rate) in enumerate(zip(means, rates, strict=True), start=1):
            self.monitor.row(first + every * index, {"train/loss": loss, "learning_rate": rate})
        return self


def read(name: str) -> dict[str, Any]:
    return json.loads(CURVES[name].read_text())


def test_there_are_curves_of_each_kind() -> None:
    assert sorted(EXPECTED) == SICK
    assert len(HEALTHY) >= 10
    assert max(read(name)["loss"][-1] for name in HEALTHY) < 0.8 * CHANCE


@pytest.mark.parametrize("chance", [CHANCE, None], ids=["chance", "no chance"])
@pytest.mark.parametrize("every", [1, 2, 5, 10, 50])
@pytest.mark.parametrize("name", HEALTHY)
def test_no_word_on_a_healthy_recorded_loss(name: str, every: int, chance: float | None) -> None:
    curve = read(name)
    listener = Listener(curve["steps_per_epoch"], curve["global_batch"], chance)
    assert listener.hear(curve["loss"], curve["learning_rate"], every).lines == []


@pytest.mark.parametrize("name", SICK)
def test_the_right_word_on_a_sick_recorded_loss(name: str) -> None:
    curve, (kinds, soon) = read(name), EXPECTED[name]
    listener = Listener(curve["steps_per_epoch"], curve["global_batch"])
    events = listener.hear(curve["loss"], curve["learning_rate"]).events
    assert tuple(kind for _, kind in events) == kinds
    assert events[0][0] <= soon


@pytest.mark.parametrize("every", [2, 3, 5])
@pytest.mark.parametrize("name", SICK)
def test_no_wrong_word_on_a_sick_loss_of_fewer_rows(name: str, every: int) -> None:
    curve, (kinds, _) = read(name), EXPECTED[name]
    listener = Listener(curve["steps_per_epoch"], curve["global_batch"])
    events = listener.hear(curve["loss"], curve["learning_rate"], every).events
    assert events or every == 5  # its intervals are too long for the shortest runs
    assert {kind for _, kind in events} <= {*kinds, "stalls"}


def noisy(mean: np.ndarray | Sequence[float], batch: int, seed: int) -> np.ndarray:
    """Each step the mean of `batch` examples' losses, heavy-tailed with a deviation of 0.5.

    Digits have 0.3 at chance level and about 0.5 later, whatever the mean is.
    """
    mean = np.asarray(mean)
    shape = batch * (mean / 0.5) ** 2
    return mean * np.random.default_rng(seed).gamma(shape, 1 / shape)


def decay(*, steps: int, batch: int, floor: float, tau: float, seed: int) -> np.ndarray:
    """A noisy exponential decay from chance level to a floor."""
    mean = floor + (CHANCE - floor) * np.exp(-np.arange(steps) / tau)
    return noisy(np.maximum(mean, 0.01), batch, seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("floor", [0.0, 0.1, 0.5, 1.2, 1.9])
@pytest.mark.parametrize("batch", [2, 8, 32, 256])
@pytest.mark.parametrize("tau", [30, 300])
def test_no_word_on_noisy_decays(tau: int, batch: int, floor: float, seed: int) -> None:
    losses = decay(steps=3000, batch=batch, floor=floor, tau=tau, seed=seed)
    for steps_per_epoch, every in ((1500 / batch, 1), (1500 / batch, 10), (5000, 1), (5000, 50)):
        assert Listener(steps_per_epoch, batch).hear(losses, 0.1, every).lines == []


def test_no_word_while_a_warmup_has_not_reached_its_rate() -> None:
    rates = np.linspace(0, 0.1, 3000)
    losses = noisy([CHANCE] * 3000, 64, seed=0)
    assert Listener(100).hear(losses, rates).lines == []
    assert [kind for _, kind in Listener(100).hear(losses, 0.1).events] == ["stalls"]


def test_no_word_when_a_decayed_rate_leaves_the_loss_where_it_is() -> None:
    rates = np.where(np.arange(2000) < 200, 0.1, 0.01)
    losses = np.where(np.arange(2000) < 200, 2.4, 2.2)
    assert Listener(100).hear(losses, rates).lines == []


def test_no_word_on_a_warm_restart() -> None:
    losses = np.concatenate([decay(steps=300, batch=64, floor=0, tau=40, seed=0)] * 2)
    losses[300:] *= 0.25
    rates = np.tile(0.1 * (1 + np.cos(np.linspace(0, math.pi, 300))) / 2, 2)
    assert Listener(30).hear(losses, rates).lines == []


def test_no_word_on_a_lone_spike() -> None:
    losses = decay(steps=600, batch=64, floor=0.05, tau=40, seed=0)
    losses[400] = 50.0
    assert Listener(30).hear(losses, 0.1).lines == []


@pytest.mark.parametrize("chance", [CHANCE, None])
@pytest.mark.parametrize("loss", [CHANCE, 2.31])
def test_a_loss_that_never_moves_stalls(loss: float, chance: float | None) -> None:
    listener = Listener(22.4, 64, chance).hear([loss] * 300, 0.1)
    assert listener.events == [(100, "stalls")]
    assert listener.lines == [
        f"step 100  the loss has stalled at {loss:.3g} for 4.2 epochs at a rate of 0.1: "
        "try another rate (launch.find_lr), or a look at the labels"
    ]


def test_a_dead_network_is_told_from_one_that_never_started() -> None:
    listener = Listener(2000).hear([2.3, 900.0, 3.0] + [2.303] * 2000, 0.8, every=50)
    assert listener.lines == [
        "step 1,000  the loss has stalled at 2.3 for 950 steps at a rate of 0.8: "
        "try a lower rate or a longer warmup, since it jumped to 20.3 first"
    ]


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_grows_explodes(seed: int) -> None:
    healthy = decay(steps=500, batch=64, floor=0.05, tau=50, seed=seed)
    growing = healthy[-1] * np.exp(np.arange(200) / 20)
    listener = Listener(30).hear(np.concatenate([healthy, growing]), 0.1)
    assert [kind for _, kind in listener.events] == ["explodes"]
    told = listener.events[0][0]
    assert growing[told - 501] > 0.4 * CHANCE > growing[told - 501 - 20]


@pytest.mark.parametrize("every", [1, 5, 50])
@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_swings_oscillates(seed: int, every: int) -> None:
    """Swings that the intervals, of 50 steps, do not average out."""
    wave = 1.2 + 0.6 * np.sin(2 * math.pi * np.arange(4000) / 133)
    losses = noisy(wave, 64, seed)
    listener = Listener(5000).hear(losses, 0.8, every)
    assert [kind for _, kind in listener.events] == ["oscillates"]
    assert listener.events[0][0] <= 2000
    assert "at a rate of 0.8: try a lower rate or a longer warmup" in listener.lines[0]


def test_speaks_again_only_after_a_kind_was_gone_for_a_stretch() -> None:
    good, bad = [0.1] * 130, [2.0] * 300  # an interval is 5 steps
    listener = Listener(10).hear([CHANCE] * 5 + good, 0.1)
    short, long = bad[:40] + good[:80], bad + good
    listener.hear(short * 2 + long * 2, 0.1, first=135)
    first, again = 135, 135 + 2 * 120 + 430
    assert listener.events == [(first + 10, "explodes"), (again + 10, "explodes")]


def test_a_resumed_monitor_goes_on_as_if_undisturbed() -> None:
    curve = read("oscillates-linear")
    losses, rates = np.array(curve["loss"]), np.array(curve["learning_rate"])
    whole = Listener(curve["steps_per_epoch"], curve["global_batch"]).hear(losses, rates)
    assert whole.events
    for cut in (0, 1, 3, 50, 117, len(losses) - 1):
        first = Listener(curve["steps_per_epoch"], curve["global_batch"]).hear(
            losses[:cut], rates[:cut]
        )
        state = json.loads(json.dumps(first.monitor.to_json(), allow_nan=False))
        second = Listener(curve["steps_per_epoch"], curve["global_batch"], state=state)
        second.hear(losses[cut:], rates[cut:], first=cut)
        assert first.lines + second.lines == whole.lines
        assert second.monitor.to_json() == whole.monitor.to_json()


def test_rows_that_are_not_finite_are_left_to_others() -> None:
    listener = Listener(22.4).hear([math.nan, math.inf, 2.3, 2.2, 2.1], 0.1)
    json.dumps(listener.monitor.to_json(), allow_nan=False)
    assert listener.lines == []


def test_no_word_on_a_single_class_of_which_nothing_is_to_be_known() -> None:
    """Its loss is the penalty on the weights, and ln 1 = 0."""
    falling = 0.02 * np.exp(-np.arange(400) / 200)
    assert Listener(100.0, 64, math.log(1)).hear(falling.tolist(), 0.1).lines == []


def test_the_state_does_not_grow() -> None:
    listener = Listener(22.4).hear(decay(steps=5000, batch=8, floor=0.1, tau=99, seed=0), 0.1)
    assert len(listener.monitor.to_json()["intervals"]) == LONG


def test_the_event_is_plain_json() -> None:
    (event,) = Listener(22.4).hear([2.3] * 200, 0.1).notes
    assert json.loads(json.dumps(event)) == {
        "event": "monitor",
        "verdict": "stalls",
        "finding": "the loss has stalled at 2.3 for 4.2 epochs at a rate of 0.1",
        "advice": "another rate (launch.find_lr), or a look at the labels",
    }


def test_too_little_is_no_verdict() -> None:
    assert judge([Interval(5, 90.0, 0.1)] * 2, CHANCE, 22.4) is None
    assert judge([Interval(5, 90.0, 0.1)] * 3, CHANCE, 22.4).kind == "explodes"
    assert judge([Interval(5, CHANCE, 0.1)] * (LONG - 1), CHANCE, 22.4) is None
