"""The report as one HTML file that asks nothing of any network."""

import datetime
import json
import pathlib
from collections.abc import Sequence

from launch.reports import charts
from launch.reports.charts import Chart
from launch.reports.compare import Column, compare, duration_text
from launch.reports.difference import sentences
from launch.reports.events import Told, tell
from launch.reports.markup import cls, sortable, sorts_by, swatch, text, wide
from launch.reports.run import RUNNING, RunFacts
from launch.reports.sections import run_sections

BEGINS = '<!doctype html>\n<html lang="en" data-by="launch.report">'
MOST_RUNS = 40
_HERE = pathlib.Path(__file__).parent
_MAIN_CHARTS = 4
_ALL_EVENTS = 1_200  # of all runs together
_PICTURES_BYTES = 700_000  # likewise
# Nothing but what is in the file: no request can be made, whatever is in a name.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(runs: Sequence[RunFacts], now: datetime.datetime) -> str:
    """The whole file, of at most `MOST_RUNS` runs."""
    told = [tell(run.log.events) for run in runs]
    shown = [charts.shown_events(each, _ALL_EVENTS // len(runs)) for each in told]
    drawn = charts.charts_of(runs)
    columns = compare(runs)
    data = charts.to_json(runs, drawn, [events for events, _ in shown])
    title = ", ".join(run.name for run in runs[:3]) + (", …" if len(runs) > 3 else "")
    picture_bytes = _PICTURES_BYTES // len(runs)
    parts = [
        _header(runs, title, now),
        "<main>",
        _tiles(runs[0]) if len(runs) == 1 else _table(runs, columns),
        *_faults(runs),
        _charts(runs, drawn),
        *(
            _run(number, run, *shown[number], picture_bytes, len(runs))
            for number, run in enumerate(runs)
        ),
        "</main>",
        _footer(drawn),
    ]
    return "\n".join([_head(title), *parts, _script(data), "</body>\n</html>\n"])


def _head(title: str) -> str:
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    return (
        f'{BEGINS}\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>"
    )


def _script(data: dict[str, object]) -> str:
    # Within a script nothing is escaped, so that no text may end it.
    numbers = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    code = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in ("plot.js", "page.js"))
    return (
        f'<script type="application/json" id="data">{numbers}</script>\n<script>\n{code}</script>'
    )


def _header(runs: Sequence[RunFacts], title: str, now: datetime.datetime) -> str:
    single = runs[0] if len(runs) == 1 else None
    heading = text(title) if single else f"{len(runs)} runs"
    what = _what(single) if single else text(title)
    running = any(run.state == RUNNING for run in runs)
    when = f"{'as it was' if running else 'written'} on {now:%-d %B %Y at %H:%M}"
    links = [("runs", "Runs")] if not single else []
    links += [("curves", "Curves")]
    links += (
        [("rate-0", "Learning rate"), ("events-0", "Events"), ("plan-0", "Plan")]
        if single
        else [(f"run-{number}", run.name) for number, run in enumerate(runs[:12])]
    )
    nav = "".join(f'<a href="#{place}">{text(name)}</a>' for place, name in links)
    return (
        f'<header>\n<h1>{heading}</h1>\n<p class="quiet">{what} · {when}</p>\n'
        f'<nav aria-label="Parts of this page">{nav}</nav>\n</header>'
    )


def _what(run: RunFacts) -> str:
    if run.planned is None:
        return text(run.folder)
    plan = run.planned.plan
    where = f"{plan.replicas} × {plan.device}"
    return text(f"{plan.model} on {plan.dataset.name}, {plan.task.replace('_', ' ')} · {where}")


def _state(run: RunFacts) -> str:
    return f'<span class="state {run.state}">{run.state}</span>'


def _tiles(run: RunFacts) -> str:
    """What a single run came to."""
    headline, log = run.headline, run.log
    final, loss = run.final.get(f"eval/{headline.name}"), run.final.get("eval/loss")
    # NaN where it was not finite.
    shown = "–" if final is None else "not finite" if final != final else headline.text(final)
    tiles = [
        (headline.name.replace("_", " "), shown, "of the last evaluation"),
        ("best", headline.text(run.best[1]), f"at step {run.best[0]:,}") if run.best else None,
        ("evaluation loss", f"{loss:.4g}", "") if loss is not None and loss == loss else None,
        ("steps", f"{log.step:,}", f"of {run.last_step:,}" if run.last_step else ""),
        ("time", duration_text(log.seconds), "of training"),
    ]
    speed = run.examples_per_second
    if speed == speed:
        tiles.append(("speed", f"{speed:,.0f}", "examples a second"))
    cells = [
        f"<div><dt>{text(name)}</dt><dd>{text(value)}<small>{text(more)}</small></dd></div>"
        for name, value, more in filter(None, tiles)
    ]
    state = f"<div><dt>state</dt><dd>{_state(run)}</dd></div>"
    return f'<dl class="tiles">{state}{"".join(cells)}</dl>'


def _table(runs: Sequence[RunFacts], columns: Sequence[Column]) -> str:
    """The runs beside each other; a click on a heading sorts them."""
    names = [run.headline for run in runs]
    comparable = len(set(names)) == 1
    bests = [run.best[1] for run in runs if run.best]
    pick = min if names[0].lower_is_better else max
    top = pick(bests) if bests and comparable else None
    rows = []
    for place, run in enumerate(runs):
        cells = [
            f'<th scope="row"{sorts_by(columns[0].cells[place])}>{swatch(place)}'
            f'<a href="#run-{place}">{text(run.name)}</a></th>'
        ]
        for column in columns[1:]:
            cell = column.cells[place]
            best = "best" if column.key == "best" and cell.value == top is not None else ""
            shown = _state(run) if column.key == "state" else text(cell.text)
            right = "right" if column.numeric else ""
            cells.append(f"<td{sorts_by(cell)}{cls(right, best)}>{shown}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = sortable([(column.head, column.numeric) for column in columns])
    table = f'<table class="runs">{head}<tbody>{"".join(rows)}</tbody></table>'
    differ = [column.head for column in columns if column.flag]
    said = f"They differ in {', '.join(differ)}." if differ else "Their flags are the same."
    more = "".join(f'\n<p class="under">{text(one)}</p>' for one in sentences(runs))
    return (
        f'<section>\n<h2 id="runs">Runs</h2>\n{wide("the runs beside each other", table)}\n'
        f'<p class="under">{text(said)} A click on a heading sorts.</p>{more}\n</section>'
    )


def _faults(runs: Sequence[RunFacts]) -> list[str]:
    """What could not be read, and what is not there yet."""
    said = [fault for run in runs for fault in run.faults[:4]]
    said += [f"{run.name} has logged nothing yet." for run in runs if not run.log.curves]
    return [f'<p class="warning">{text(one)}</p>' for one in said]


def _charts(runs: Sequence[RunFacts], drawn: Sequence[Chart]) -> str:
    if not drawn:
        return '<section>\n<h2 id="curves">Curves</h2>\n<p>There are none.</p>\n</section>'
    figures = [_figure(number, chart, runs) for number, chart in enumerate(drawn)]
    first, more = figures[:_MAIN_CHARTS], figures[_MAIN_CHARTS:]
    folded = f'<details>\n<summary>{len(more)} more</summary>\n<div class="charts">\n'
    chips = "".join(
        f'<label><input type="checkbox" value="{number}" checked>{swatch(number)}'
        f"{text(run.name)}</label>"
        for number, run in enumerate(runs)
    )
    return "\n".join(
        [
            '<section>\n<h2 id="curves">Curves</h2>',
            "<noscript><p>The curves are drawn by a script within this file, and scripts are off."
            "</p></noscript>",
            _tools(f'<div class="chips" role="group" aria-label="runs">{chips}</div>')
            if len(runs) > 1
            else _tools(""),
            f'<div class="charts">\n{"".join(first)}</div>',
            f"{folded}{''.join(more)}</div>\n</details>" if more else "",
            _KEY,
            "</section>",
        ]
    )


def _tools(chips: str) -> str:
    options = "".join(f"<option>{axis}</option>" for axis in ("step", "epoch", "time"))
    return (
        f'<div class="tools">{chips}<label>over <select id="axis">{options}</select></label>'
        '<label>smooth <input type="range" id="smooth" min="0" max="0.98" step="0.02" value="0">'
        '</label><label><input type="checkbox" id="events" checked>events</label>'
        '<button type="button" id="reset" disabled>whole range</button></div>'
    )


_KEY = (
    '<ul class="key">'
    '<li><svg viewBox="0 0 26 10" aria-hidden="true"><path class="curve" d="M0,5H26" '
    'stroke="currentColor"/><circle cx="13" cy="5" r="2.6" fill="currentColor"/></svg>evaluation'
    '</li><li><svg viewBox="0 0 26 10" aria-hidden="true"><path class="curve train" d="M0,5H26" '
    'stroke="currentColor"/></svg>training</li>'
    '<li><svg viewBox="0 0 26 10" aria-hidden="true"><path class="curve plan" d="M0,5H26" '
    'stroke="currentColor"/></svg>planned</li>'
    "<li>▼ the rate was changed</li><li>● a process went on</li><li>✕ trouble</li>"
    "<li>Drag over a chart to zoom in, double-click to zoom out.</li></ul>"
)


def _figure(number: int, chart: Chart, runs: Sequence[RunFacts]) -> str:
    words = text(charts.described(chart, runs))
    note = ""
    if chart.name == "learning_rate" and len(runs) == 1 and runs[0].planned:
        because = runs[0].planned.plan.because.get("learning_rate", "")
        note = f'<p class="under">peak {text(because)}</p>'
    log = (
        '<button type="button" class="log" aria-pressed="false" '
        f'aria-label="log: {text(chart.title)}">log</button>'
    )
    return (
        f'<figure data-chart="{number}"><figcaption><h3>{text(chart.title)}</h3>{log}'
        f'</figcaption><div class="plot" tabindex="0" role="img" aria-label="{words}"></div>{note}'
        '<div class="tip" role="status" hidden></div></figure>\n'
    )


def _run(
    number: int, run: RunFacts, events: Sequence[Told], left_out: int, bytes_: int, count: int
) -> str:
    sections = run_sections(number, run, events, left_out, bytes_)
    if count == 1:
        return sections
    return (
        f'<details class="run" id="run-{number}">\n<summary>{swatch(number)}{text(run.name)} '
        f"{_state(run)}</summary>\n{sections}\n</details>"
    )


def _footer(drawn: Sequence[Chart]) -> str:
    fewer = list(charts.thinned_out(drawn))
    said = (
        f" Of {', '.join(fewer)} not every point is drawn, but every extreme of a stretch."
        if fewer
        else ""
    )
    return (
        "<footer>Made by <code>python -m launch.report</code> of Lockstep, from metrics.jsonl and "
        f"what else the runs have left.{text(said)}</footer>"
    )
