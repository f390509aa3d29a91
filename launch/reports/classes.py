"""What launch.evaluate has found, as HTML: per class, what is taken for what, mistakes."""

from collections.abc import Sequence

from launch.reports.compare import Cell
from launch.reports.evaluation import Class, Mistake, Numbers, picture_url, read_evaluation
from launch.reports.markup import cls, facts, sortable, sorts_by, text, wide
from launch.reports.run import RunFacts

_MATRIX = 20  # classes of which the whole matrix is shown
_CLASSES = 60  # that are listed: of more those that are told worst
_PAIRS = 15
_LISTED = 12  # mistakes


def evaluation_section(run: RunFacts, picture_bytes: int) -> str:
    """The newest evaluation of a run; how to make one where there is none."""
    found, fault = read_evaluation(run.folder)
    if fault:
        return f'<section>\n<h2>Evaluation</h2>\n<p class="warning">{text(fault)}</p>\n</section>'
    if found is None:
        return (
            '<section>\n<h2>Evaluation</h2>\n<p class="quiet">Per class, confusion and worst '
            f"mistakes: <code>python -m launch.evaluate {text(run.folder)}</code>, then this "
            "report again.</p>\n</section>"
        )
    metrics = [
        (text(name.removeprefix("eval/").replace("_", " ")), _metric(value))
        for name, value in found.metrics.items()
        if not name.startswith("eval/iou_")
    ]
    of = f"{found.data}, {found.examples:,} examples, at step {found.step:,}"
    parts = [
        f'<div class="panel"><h3>{text(of)}</h3>{facts(metrics)}</div>',
        f'<div class="columns">{_confusion(run.name, found)}{_classes(run.name, found)}</div>'
        if found.classes
        else "",
        _worst(found, picture_bytes),
    ]
    return f"<section>\n<h2>Evaluation</h2>\n{''.join(parts)}\n</section>"


def _metric(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6g}"


def _percent(share: float | None) -> Cell:
    return Cell("–", None) if share is None else Cell(f"{share:.1%}", share)


def _classes(run: str, found: Numbers) -> str:
    """A row for each class; a click sorts."""
    masks = found.unit == "pixels"
    measures = ("iou", "precision", "recall") if masks else ("precision", "recall", "f1")
    by = measures[0] if masks else "f1"
    rows = list(found.classes)
    if len(rows) > _CLASSES:
        rows = sorted(rows, key=lambda one: -1 if getattr(one, by) is None else getattr(one, by))
    body = "".join(_class(one, measures) for one in rows[:_CLASSES])
    heads = [("class", False), *((name.replace("iou", "IoU"), True) for name in measures)]
    table = f"<table>{sortable([*heads, (found.unit, True)])}<tbody>{body}</tbody></table>"
    more = len(rows) - _CLASSES
    said = f'<p class="under">{more:,} classes that are told better are not shown.</p>'
    return f"<div>{wide(f'per class, {run}', table)}{said if more > 0 else ''}</div>"


def _class(one: Class, measures: Sequence[str]) -> str:
    cells = [_percent(getattr(one, name)) for name in measures]
    cells.append(Cell(f"{one.support:,.6g}", one.support))
    shown = "".join(f'<td class="right"{sorts_by(cell)}>{cell.text}</td>' for cell in cells)
    name = sorts_by(Cell(one.name, one.name))
    return f'<tr><th scope="row"{name}>{text(one.name)}</th>{shown}</tr>'


def _confusion(run: str, found: Numbers) -> str:
    """The matrix of few classes; of many, what is taken for what most often."""
    if not found.confusion:
        return ""
    if len(found.classes) > _MATRIX:
        return _pairs(run, found)
    counts = {(label, answer): count for label, answer, count in found.confusion}
    answers = [*range(len(found.classes)), *([-1] if any(a < 0 for _, a in counts) else [])]
    named = {**{n: one.name for n, one in enumerate(found.classes)}, -1: "none"}
    head = "".join(f'<th scope="col">{text(named[answer])}</th>' for answer in answers)
    body = "".join(
        f'<tr><th scope="row">{text(one.name)}</th>'
        + "".join(_count(counts.get((label, a), 0), one.support, label == a) for a in answers)
        + "</tr>"
        for label, one in enumerate(found.classes)
    )
    table = (
        f'<table class="matrix"><thead><tr><th scope="col">is ↓ taken for →</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )
    return f"<div>{wide(f'what is taken for what, {run}', table)}</div>"


def _count(count: float, support: float, hit: bool) -> str:
    if not count:
        return '<td class="quiet">·</td>'
    share = min(1.0, count / support) if support else 0.0
    # Mistakes are few where a model is good, and are to be seen all the same.
    strength = share if hit else 0.25 + 0.75 * share**0.5
    kind = "hit" if hit else "miss"
    return f'<td{cls(kind)} style="--share:{strength:.0%}">{count:,.6g}</td>'


def _pairs(run: str, found: Numbers) -> str:
    wrong = [one for one in found.confusion if one[0] != one[1]]
    wrong.sort(key=lambda one: -one[2])
    names = {**{n: one.name for n, one in enumerate(found.classes)}, -1: "none"}
    body = "".join(
        f'<tr><th scope="row">{text(names[label])}</th><td>{text(names[answer])}</td>'
        f'<td class="right">{count:,.6g}</td></tr>'
        for label, answer, count in wrong[:_PAIRS]
    )
    head = (
        '<thead><tr><th scope="col">class</th><th scope="col">taken for</th>'
        f'<th scope="col" class="right">{found.unit}</th></tr></thead>'
    )
    table = f"<table>{head}<tbody>{body}</tbody></table>"
    return f"<div>{wide(f'what is taken for what most often, {run}', table)}</div>"


def _worst(found: Numbers, picture_bytes: int) -> str:
    if not found.worst:
        return ""
    said = [_mistake(one) for one in found.worst]
    picture = ""
    if found.picture is not None and (url := picture_url(found.picture, picture_bytes)):
        alt = text(f"The worst mistakes: {'; '.join(said[:_LISTED])}")
        picture = f'<img class="mistakes" src="{url}" alt="{alt}">'
    listed = "".join(f"<li>{text(line)}</li>" for line in said)
    return (
        f'<div class="panel"><h3>Worst mistakes</h3>{picture}'
        f"<details><summary>{len(said)} by name</summary><ol>{listed}</ol></details></div>"
    )


def _mistake(one: Mistake) -> str:
    if one.pixel_accuracy is not None:
        return f"{one.example}: {one.pixel_accuracy:.1%} of the pixels right"
    taken = "no answer" if one.answer is None else f"taken for {one.answer}"
    sure = f", {one.probability:.1%} sure" if one.probability is not None else ""
    return f"{one.example}: is {one.of_class}, {taken}{sure}"
