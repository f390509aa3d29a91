"""A table of image files in a CSV file: its columns by what they hold, each row with its line."""

import codecs
import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterator, Sequence

from input_pipeline.records.open_files import reason
from input_pipeline.sources.tfrecord import parse_features

# What people call the columns, without capitals, spaces, hyphens and underscores.
# A label that is the path of a mask.
_MASK = ("mask", "maskpath", "maskfile")
_CALLED = {
    "image": ("path", "image", "imagepath", "file", "filename", "filepath", "imagefile", "img"),
    "label": ("label", "class", "classname", "category", "target", "labels", "y", *_MASK),
    "weight": ("weight", "sampleweight", "weights"),
    "split": ("split", "subset", "set", "partition"),
}
_NEEDED = ("image", "label")
_BETWEEN = "\t"  # the values of several columns
_DELIMITERS = ",;\t|"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of the file, a list for each column; `weights` and `splits` may be empty.

    A label that stands in several columns has these joined by tabs. `of_masks` says whether its
    column is called as those of masks are.
    """

    path: pathlib.Path
    lines: list[int]
    images: list[str]
    labels: list[str]
    weights: list[str]
    splits: list[str]
    of_masks: bool

    def where(self, row: int) -> str:
        """The file and the line of a row."""
        return f"{self.path}, line {self.lines[row]:,}"


def read_table(path: pathlib.Path, features: str) -> Table:
    """Reads the table, its columns parted by commas, semicolons, tabs or bars.

    Args:
      path: the file, in UTF-8, or in UTF-16 with a mark of its byte order.
      features: `image=COLUMN,label=COLUMN,weight=COLUMN` where they have names of their own;
        `label=COLUMN+COLUMN` where a label stands in several.

    Raises:
      ValueError: it cannot be read, a column is missing, or a row does not fit.
    """
    text, named = _text(path), parse_features(features)
    # The header tells what parts the columns: it has to have those that are needed.
    headers = {mark: next(_rows(path, text, mark), (1, []))[1] for mark in _DELIMITERS}
    places = {mark: _places(header, named) for mark, header in headers.items()}
    mark = next((m for m in _DELIMITERS if set(_NEEDED) | set(named) <= set(places[m])), None)
    if mark is None:
        most = max(_DELIMITERS, key=lambda mark: len(headers[mark]))
        raise _no_column(path, headers[most], places[most], named)
    columns: dict[str, list] = {role: [] for role in ("line", *_CALLED)}
    rows = _rows(path, text, mark)
    _, header = next(rows)
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {line:,}: it has {len(row)} columns and the header has "
                f"{len(header)}; mend the line; what holds a {mark!r} must stand in double quotes."
            )
        columns["line"].append(line)
        for role, at in places[mark].items():
            values = [row[place].strip() for place in at]
            if not all(values):
                raise ValueError(
                    f"{path}, line {line:,}: the column {header[at[values.index('')]]} is empty; "
                    "fill it or remove the line."
                )
            columns[role].append(_BETWEEN.join(values))
    if not columns["line"]:
        raise ValueError(f"{path} holds no rows below its header; give one for each image.")
    labelled = _plain(header[places[mark]["label"][0]])
    return Table(path, *columns.values(), of_masks=labelled in _MASK)


def _text(path: pathlib.Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({reason(error)}); give a table with the columns path and "
            "label."
        ) from None
    try:
        return data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line:,} is not UTF-8; save the table as UTF-8.") from None


def _rows(path: pathlib.Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The line that each row ends in, and its columns; blank lines are passed over."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if any(row):
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num:,} cannot be read ({error}); mend its quotes."
        ) from None


def _places(header: Sequence[str], named: dict[str, str]) -> dict[str, list[int]]:
    """Which columns hold what, of those that are there: one, of a label maybe several."""
    plain = [_plain(name) for name in header]
    places = {}
    for role, called in _CALLED.items():
        if role in named:
            wanted, there = named[role], [name.strip() for name in header]
            parts = wanted.split("+") if role == "label" and wanted not in there else [wanted]
            found = [there.index(part) for part in parts if part in there]
            found = found if len(found) == len(parts) else []
        else:
            found = [plain.index(name) for name in called if name in plain][:1]
        if found:
            places[role] = found
    return places


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _no_column(
    path: pathlib.Path, header: Sequence[str], places: dict[str, list[int]], named: dict[str, str]
) -> ValueError:
    role = next(role for role in (*_NEEDED, *named) if role not in places)
    called = f" called {named[role]!r}" if role in named else ""
    shown = ", ".join(name.strip() for name in header[:10]) or "nothing"
    return ValueError(
        f"{path} has no column{called} for the {role}; its first line is {shown}: begin it with a "
        f"line such as path,label, or say which column it is with --features={role}=COLUMN."
    )
