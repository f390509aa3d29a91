"""What happened in a run, in words: each event of metrics.jsonl as a sentence of a kind."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launch.reports.log import Event
from launch.terminal.drawn_text import printable

RATE, TROUBLE, PROCESS, OTHER = "rate", "trouble", "process", "other"
_LONGEST = 500  # characters of a sentence
# Written at every checkpoint, or as often as a row of the log: told elsewhere, if at all.
_QUIET = ("digest", "time")


@dataclasses.dataclass(frozen=True)
class Told:
    """An event for a person.

    Attributes:
      kind: `RATE`: it changes the learning rate alone; `TROUBLE`: something went wrong; `PROCESS`:
        a process began; or `OTHER`.
      changes_rate: whether the learning rate may be another behind it.
    """

    step: int
    seconds: float
    kind: str
    text: str
    changes_rate: bool


def tell(events: Sequence[Event]) -> list[Told]:
    """The events that a person wants to see, in their order."""
    told, started = [], 0
    for event in events:
        if event.name in _QUIET:
            continue
        started += event.name == "started"
        if event.name == "started" and started == 1 and event.step <= event.fields.get("steps", 0):
            continue  # the beginning of a run is no news
        kind, text = _KINDS.get(event.name, (OTHER, lambda fields, name=event.name: name))
        words = printable(text(event.fields) or event.name)
        if event.name not in _KINDS and event.fields:
            words += f": {_pairs(event.fields)}"
        shown = words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}…"
        changes = kind == RATE or event.name in ("resumed", "rollback")
        told.append(Told(event.step, event.seconds, kind, shown, changes))
    return told


def _number(value: Any) -> str:
    return f"{value:.4g}" if type(value) in (int, float) else str(value)


def _pairs(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {_number(v)}" for k, v in fields.items() if v is not None)


def _control(of: Mapping[str, Any]) -> str:
    value = "" if of.get("value") is None else f"={of['value']}"
    before, after = (_number(of.get(f"learning_rate_{when}")) for when in ("before", "after"))
    reason = f": {of['reason']}" if of.get("reason") else ""
    rates = "" if before == after else f", rate {before} → {after}"
    return f"--{of.get('action')}{value} by {of.get('who')}{rates}{reason}"


def _resumed(of: Mapping[str, Any]) -> str:
    changed = of.get("changed")
    pairs = changed.items() if isinstance(changed, dict) else ()
    parts = [
        f"--{name} {_value(pair[0])} → {_value(pair[1])}"
        for name, pair in pairs
        if isinstance(pair, list) and len(pair) == 2
    ]
    data = of.get("data")
    parts += [str(line) for line in data] if isinstance(data, list) else []
    derived = of.get("rederived")
    if isinstance(derived, dict) and "peak_learning_rate" in derived:
        parts.append(f"peak rate {_number(derived['peak_learning_rate'])}")
    return f"went on with {', '.join(parts) or 'changes'}"


def _value(value: Any) -> str:
    return "(none)" if value in ("", None) else str(value)


def _rollback(of: Mapping[str, Any]) -> str:
    skipped = f", {of['skipped']:,} examples left out" if type(of.get("skipped")) is int else ""
    where = f"went back from step {_number(of.get('from'))} to {_number(of.get('to'))}"
    return f"{where}, rate × {_number(of.get('factor'))}{skipped}: {of.get('why')}"


def _plateau(of: Mapping[str, Any]) -> str:
    before, after = _number(of.get("scale_before")), _number(of.get("scale"))
    return f"plateau, scale {before} → {after}: {of.get('reason')}"


def _nonfinite(of: Mapping[str, Any]) -> str:
    first = f", first the {of['first']}" if of.get("first") else ""
    what = "float16 gradients overflowed" if of.get("overflow") else "a step was not finite"
    return f"{what}{first}: skipped"


def _started(of: Mapping[str, Any]) -> str:
    seconds = sum(v for k, v in of.items() if k.endswith("_s") and type(v) in (int, float))
    return f"went on in a new process, after {seconds:.1f} s of starting"


Teller = Callable[[Mapping[str, Any]], str]
_KINDS: dict[str, tuple[str, Teller]] = {
    "control": (RATE, _control),
    "plateau": (RATE, _plateau),
    "resumed": (PROCESS, _resumed),
    "started": (PROCESS, _started),
    "rollback": (TROUBLE, _rollback),
    "diverged": (TROUBLE, lambda of: f"diverged: {of.get('what')}"),
    "spike": (TROUBLE, lambda of: f"spike: {of.get('finding')}"),
    "monitor": (TROUBLE, lambda of: f"{of.get('finding')}: try {of.get('advice')}"),
    "nonfinite": (TROUBLE, _nonfinite),
    "stall": (
        TROUBLE,
        lambda of: f"nothing moved for {_number(of.get('stalled_s'))} s: {of.get('cause')}",
    ),
    "refused": (OTHER, lambda of: f"a request was refused: {of.get('why')}"),
    "replicas differ": (TROUBLE, lambda of: f"replicas differ: {_pairs(of)}"),
    "computes wrongly": (TROUBLE, lambda of: f"a device computes wrongly: {_pairs(of)}"),
}
