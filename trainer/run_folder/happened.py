"""What has happened in a run, as a table for a person."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

# An event of every checkpoint, which tells a person nothing.
_UNTOLD = ("digest", "time")
# The table has the newest; metrics.jsonl has all.
_MOST = 50
_COMMON = ("step", "epoch", "seconds", "event")


class Phase(NamedTuple):
    """A stretch of the learning rate: its first step, and its name."""

    step: int
    name: str


class Happened:
    """Collects events and tells of them: a whole table with every step at which there is a new one.

    A step's table is told once, when a later step is spoken of, since TensorBoard keeps one text of
    a step. Any thread may note something.

    Args:
      phases: of the learning rate, which begin as rows of the log come to them.
      tell: takes a step and its table.
    """

    def __init__(self, phases: Sequence[Phase], tell: Callable[[int, str], None]) -> None:
        self._phases, self._tell = phases, tell
        self._lines: list[tuple[int, str]] = []
        self._count, self._row = 0, 0  # events since the last row of the log, and its step
        self._begun, self._waiting = False, 0  # the step of a table that is to be told
        self._lock = threading.Lock()

    def begin(self, step: int) -> None:
        """Tells of all from here on; what was noted before is told with this step."""
        self._begun = True
        if self._lines:
            self._wait(step)

    def note(self, step: int, event: Mapping[str, Any]) -> None:
        """Takes down what has happened at a step."""
        with self._lock:
            self._reach(step)
            if event["event"] not in _UNTOLD:
                self._lines.append((step, _text(event)))
                self._count += 1
                self._wait(step)

    def count_up_to(self, step: int) -> int:
        """How many things happened since the row before, of a row of the training's log."""
        with self._lock:
            begun = [phase for phase in self._phases if self._row < phase.step <= step]
            for phase in begun:
                self._lines.append((phase.step, f"**phase** {_plain(phase.name)}"))
                self._wait(step)
            count, self._count, self._row = self._count + len(begun), 0, step
            return count

    def reach(self, step: int) -> None:
        """Tells what happened at an earlier step than this."""
        with self._lock:
            self._reach(step)

    def close(self) -> None:
        """Tells what has not been told."""
        with self._lock:
            self._reach(self._waiting + 1)

    def _reach(self, step: int) -> None:
        if 0 < self._waiting < step:
            self._tell(self._waiting, self._table())
            self._waiting = 0

    def _wait(self, step: int) -> None:
        if self._begun:
            self._waiting = max(step, self._waiting, 1)

    def _table(self) -> str:
        lines = sorted(self._lines, key=lambda line: line[0])
        left = len(lines) - _MOST
        earlier = [f"{left:,} earlier ones are in metrics.jsonl.", ""] if left > 0 else []
        rows = [f"| {step:,} | {text} |" for step, text in lines[-_MOST:]]
        return "\n".join([*earlier, "| step | what happened |", "|---:|---|", *rows])


def _text(event: Mapping[str, Any]) -> str:
    kind, values = event["event"], {n: v for n, v in event.items() if n not in _COMMON}
    values = {name: value for name, value in values.items() if value is not None and value != ""}
    if kind == "started":
        seconds = sum(value for name, value in values.items() if name.endswith("_s"))
        return f"**started** in {seconds:.1f} s"
    if kind == "control":
        given = f"={values['value']}" if "value" in values else ""
        text = f"**control** `--{values.get('action')}{given}` by {values.get('who', 'somebody')}"
        rates = [values.get(f"learning_rate_{when}") for when in ("before", "after")]
        if None not in rates:
            text += f", rate {_plain(rates[0])} → {_plain(rates[1])}"
        return _line(text + (f": {values['reason']}" if "reason" in values else ""))
    if kind == "resumed" and isinstance(values.get("changed"), Mapping):
        pairs = [f"`--{name}` {_pair(pair)}" for name, pair in values.pop("changed").items()]
        return _line(f"**resumed** with {', '.join(pairs) or 'other data'}{_rest(values)}")
    return _line(f"**{kind}**{_rest(values)}")


def _pair(pair: Any) -> str:
    return " → ".join(map(_plain, pair)) if isinstance(pair, Sequence) else _plain(pair)


def _rest(values: Mapping[str, Any]) -> str:
    text = ", ".join(f"{name.replace('_', ' ')}: {_plain(it)}" for name, it in values.items())
    return f" {text}" if text else ""


def _plain(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _line(text: str) -> str:
    """One line that is a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
