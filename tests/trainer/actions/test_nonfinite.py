"""What becomes of steps that were not finite: told, noted, counted, or the end of the run."""

from typing import Any

import numpy as np
import pytest

from trainer.actions.diverged import DivergedError
from trainer.actions.nonfinite import MOST_IN_A_ROW, NonFinite
from trainer.loop import Block
from trainer.run_folder.history import History


class Told:
    """A host that is its own journal, and goes through blocks."""

    def __init__(self, stop: bool, places: tuple[str, ...] = ()) -> None:
        self.history, self.lines, self.notes, self.step = History(), [], [], 0
        self.say = self.lines.append
        self._action = NonFinite(stop, self.history, places, self)

    def note(self, step: int, event: dict[str, Any]) -> None:
        self.notes.append((step, event))

    def block(self, finite: list[int], **columns: list[float]) -> None:
        rows = {"finite": finite, "learning_rate": [0.1] * len(finite)}
        rows["train/loss"] = [1.0 if good else np.nan for good in finite]
        rows |= columns
        block = Block(self.step, {n: np.array(c, np.float32) for n, c in rows.items()}, None)
        self._action(block)
        self.history.nonfinite_steps += int(block.skipped.sum())  # as the log does
        self.step = block.last


def test_stop_ends_at_the_first_one_and_names_its_step_and_rate() -> None:
    host = Told(stop=True)
    host.block([1, 1])
    with pytest.raises(
        DivergedError, match=r"of step 4 were not finite at a learning rate of 0.1;"
    ) as error:
        host.block([1, 0, 0])
    assert (error.value.onset, error.value.step) == (4, 4)
    assert host.notes == []


def test_skip_notes_every_step_and_tells_the_first_ones_and_then_counts() -> None:
    host = Told(stop=False)
    host.block([1, 0, 1, 0])
    host.block([1] * 4)
    for _ in range(12):
        host.block([0, 1])
    steps = [2, 4, *range(9, 33, 2)]
    assert [step for step, _ in host.notes] == steps
    assert [event["total"] for _, event in host.notes] == list(range(1, 15))
    assert [line.split()[1] for line in host.lines] == ["2", "4", "9", "23"]
    assert host.lines[-1].endswith("were not finite: skipped; 10 steps so far")


def test_skip_ends_after_a_hundred_in_a_row_over_blocks_and_restarts() -> None:
    host = Told(stop=False)
    host.block([0] * 60 + [1] + [0] * 60)
    saved = host.history.to_json()
    resumed = Told(stop=False)
    resumed.history.nonfinite_in_a_row = saved["nonfinite_in_a_row"]
    resumed.step = 121
    resumed.block([0] * (MOST_IN_A_ROW - 61))
    with pytest.raises(
        DivergedError, match="of 100 steps in a row up to step 161 were not"
    ) as error:
        resumed.block([0])
    assert error.value.onset == 62


def test_a_float16_overflow_never_ends_the_run_while_the_scale_can_be_halved() -> None:
    for stop in (True, False):
        host = Told(stop)
        for scale in [2.0**7, 2.0**6] * 60:
            host.block([0], **{"train/loss": [2.3], "loss_scale": [scale]})
        assert "overflowed at a loss scale of 128: skipped" in host.lines[0]
        assert host.notes[1][1] == {
            "event": "nonfinite",
            "overflow": True,
            "total": 2,
            "loss_scale": 64.0,
        }


@pytest.mark.parametrize(
    ("loss", "scale"), [(2.3, 1.0), (np.nan, 4.0)], ids=["least scale", "the loss itself"]
)
def test_a_float16_step_that_no_scale_can_mend_does(loss: float, scale: float) -> None:
    with pytest.raises(DivergedError, match="step 1 were not finite"):
        Told(stop=True).block([0], **{"train/loss": [loss], "loss_scale": [scale]})


def test_the_place_is_named() -> None:
    places = ("input weight", "weight conv1/kernel")
    host = Told(stop=False, places=places)
    host.block([0], nonfinite_place=[2])
    assert "not finite, first the weight conv1/kernel: skipped" in host.lines[0]
    assert host.notes[0][1]["first"] == "weight conv1/kernel"
    with pytest.raises(DivergedError, match=r"of 0.1, first the input weight; try"):
        Told(stop=True, places=places).block([0], nonfinite_place=[1])
