"""What a report says of one run: its learning rate, events, evaluation, time, plan and command."""

import itertools
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from launch.flags.flagfile import line_of
from launch.reports.classes import evaluation_section
from launch.reports.compare import duration_text
from launch.reports.events import Told
from launch.reports.log import Event
from launch.reports.markup import facts, text, wide
from launch.reports.run import RunFacts
from trainer.files.whole_files import read_file

_CARD_BYTES = 1 << 20


def run_sections(
    number: int, run: RunFacts, events: Sequence[Told], left_out: int, picture_bytes: int
) -> str:
    """All that there is of a run, as HTML.

    Args:
      number: of the run in the report.
      events: those that are shown; `left_out` others are not.
      picture_bytes: that a picture may take.
    """
    parts = [
        _rate(number, run, events),
        _events(number, run, events, left_out),
        evaluation_section(run, picture_bytes),
        _time(run),
        _plan(number, run),
        _command(run),
    ]
    return "\n".join(filter(None, parts))


def _section(heading: str, body: str, place: str = "") -> str:
    named = f' id="{place}"' if place else ""
    return f'<section>\n<h2{named}>{heading}</h2>\n<div class="panel">{body}</div>\n</section>'


def _rate(number: int, run: RunFacts, events: Sequence[Told]) -> str:
    """Where the rate comes from, its phases, and what changed it."""
    if run.planned is None:
        return ""
    plan = run.planned.plan
    rows = [("peak", text(plan.because.get("learning_rate", f"{plan.learning_rate.peak:.6g}")))]
    for phase in run.planned.phases:
        begin, end = round(phase.start - plan.ahead) + 1, round(phase.stop - plan.ahead)
        rates = f"{phase.begin:.4g} → {phase.end:.4g}"
        shown = "a schedule of your own" if math.isnan(phase.begin) else rates
        rows.append((text(phase.name), text(f"steps {begin:,}–{end:,}: {shown}")))
    applied = run.log.curves.get("learning_rate")
    if applied is not None and len(applied.steps):
        last = f"{applied.values[-1]:.6g} in step {applied.steps[-1]:,}"
        rows.append(("last applied", text(last)))
    changes = [one for one in events if one.changes_rate]
    listed = [f"step {one.step:,}: {text(one.text)}" for one in changes]
    rows += [("changed by", listed[0])] if listed else [("changed by", "nothing: as planned")]
    rows += [("", line) for line in listed[1:20]]
    if len(listed) > 20:
        rows.append(("", f"… and {len(listed) - 20:,} more, see the events"))
    return _section("Learning rate", facts(rows), f"rate-{number}")


def _events(number: int, run: RunFacts, events: Sequence[Told], left_out: int) -> str:
    if not events:
        body = "<p>Nothing happened: no stop, no change, no trouble.</p>"
        return _section("Events", body, f"events-{number}")
    rows = "".join(
        f'<tr><td class="right">{one.step:,}</td><td class="right">{_when(one)}</td>'
        f'<td class="text">{text(one.text)}</td></tr>'
        for one in events
    )
    head = (
        '<thead><tr><th scope="col" class="right">step</th><th scope="col" class="right">after</th>'
        '<th scope="col">what happened</th></tr></thead>'
    )
    more = f'<p class="under">{left_out:,} more are in metrics.jsonl.</p>' if left_out else ""
    table = wide(f"events, {run.name}", f"<table>{head}<tbody>{rows}</tbody></table>")
    return f'<section>\n<h2 id="events-{number}">Events</h2>\n{table}\n{more}</section>'


def _when(event: Told) -> str:
    return "" if math.isnan(event.seconds) else duration_text(event.seconds)


def _time(run: RunFacts) -> str:
    """Where the time went, as far as the log tells."""
    spent = _spent(run)
    if spent:
        whole = sum(spent.values()) or 1.0
        largest = sorted(spent, key=spent.__getitem__, reverse=True)
        bar = "".join(
            f'<span style="width:{spent[name] / whole:.2%};background:var(--c{place % 8})"></span>'
            for place, name in enumerate(largest)
        )
        rows = [
            (
                f'<span class="swatch" style="color:var(--c{place % 8})"></span>{text(name)}',
                f"{spent[name] / whole:.1%}, {duration_text(spent[name])}",
            )
            for place, name in enumerate(largest)
        ]
        body = f'<div class="shares" aria-hidden="true">{bar}</div>{facts(rows)}'
        return _section("Time", body)
    rows = [("start", text(line)) for line in itertools.islice(_starts(run), 6)]
    waited = run.log.curves.get("input_wait_fraction")
    known = [] if waited is None else [one for one in waited.values.tolist() if not math.isnan(one)]
    if known:
        share = sum(known) / len(known)
        rows.append(("waiting for data", f"{share:.1%} of the steps' time, on average"))
    return _section("Time", facts(rows)) if rows else ""


def _spent(run: RunFacts) -> dict[str, float]:
    """The seconds of the run's newest account of its time, by part; empty where it has none."""
    accounts = run.log.named("time")
    return _seconds_of(accounts[-1], but="wall_s") if accounts else {}


def _starts(run: RunFacts) -> Iterator[str]:
    """What each process did before its first step."""
    for event in run.log.named("started"):
        if phases := _seconds_of(event):
            listed = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items())
            yield f"{sum(phases.values()):.1f} s: {listed}"


def _seconds_of(event: Event, but: str = "") -> dict[str, float]:
    """The fields of an event that are seconds, by what they are of."""
    return {
        name.removesuffix("_s").replace("_", " "): float(seconds)
        for name, seconds in event.fields.items()
        if name.endswith("_s") and name != but
        if type(seconds) in (int, float) and 0 < seconds < 1e12
    }


def _plan(number: int, run: RunFacts) -> str:
    if run.planned is None:
        return ""
    # A space that a terminal's table must not break at is a NUL there.
    rows = [(text(name), text(value.replace("\0", " "))) for name, value in run.planned.rows]
    return _section("Plan", facts(rows), f"plan-{number}")


def _command(run: RunFacts) -> str:
    """The command that repeats the run, the versions it ran with, and where it lies."""
    given = [line_of(name, value) for name, value in run.given.items()]
    lines = [shlex.join(["python", "-m", "launch.train"]), *map(shlex.quote, given)]
    command = " \\\n    ".join(lines) if run.flags else ""
    rows = [("folder", text(run.folder.absolute()))]
    rows += [(text(name), text(value)) for name, value in _made_with(run).items()]
    shown = f"<pre>{text_lines(command)}</pre>" if command else ""
    return _section("Command and environment", shown + facts(rows))


def text_lines(value: str) -> str:
    """A text of several lines."""
    return "\n".join(map(text, value.split("\n")))


def _made_with(run: RunFacts) -> Mapping[str, str]:
    """The versions that the newest MODEL.md names; none before the first evaluation."""
    for folder in (run.folder, run.folder / "best"):
        try:
            card = read_file(folder / "MODEL.md", _CARD_BYTES).decode("utf-8", "replace")
        except (ValueError, OSError):
            continue
        below = card.partition("## Made with")[2]
        rows: list[Any] = re.findall(r"^\| ([^|\n]+) \| ([^|\n]*) \|$", below, re.MULTILINE)
        return dict(itertools.islice(rows, 20))
    return {}
