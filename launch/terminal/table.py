"""A table of names and values within 80 columns."""

import shlex
import textwrap
from collections.abc import Sequence


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Names in a column, what is to be said of each beside it, within 80 columns."""
    return "\n".join(_wrapped(name, value) for name, value in rows)


def _wrapped(name: str, value: str) -> str:
    return textwrap.fill(
        value,
        80,
        initial_indent=f"{name:14} ",
        subsequent_indent=" " * 15,
        break_long_words=False,
        break_on_hyphens=False,
    ).replace(_SPACE, " ")


# No path and no argument can hold it.
_SPACE = "\0"


def whole(text: object) -> str:
    """A path or a command in a row of a `table`, where it stays in one piece to be copied."""
    return str(text).replace(" ", _SPACE)


def command_text(*arguments: object) -> str:
    """A command as a shell takes it, for a `table`."""
    return whole(shlex.join(map(str, arguments)))
