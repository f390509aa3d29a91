"""A table as the text of a CSV file."""

import csv
import io
from collections.abc import Iterable, Sequence


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """The rows, each a line; a cell with a line's end of any kind in it stands in quotes."""
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    # Which Python leaves out for a carriage return where the lines do not end with one.
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        odd = any("\r" in str(cell) for cell in row)
        (quoted if odd else plain).writerow(row)
    return text.getvalue()
