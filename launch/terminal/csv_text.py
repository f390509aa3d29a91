"""A table as the text of a CSV file."""

import csv
import io
from collections.abc import Iterable, Sequence


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """The rows, each a line; a cell with a line's end of any kind in it stands in quotes."""
    rows, text = [[str(cell) for cell in row] for row in rows], io.StringIO()
    # Python quotes a carriage return only where the lines themselves end with one.
    odd = any("\r" in cell for row in rows for cell in row)
    writer = csv.writer(
        text, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL
    )
    writer.writerows(rows)
    return text.getvalue()
