"""`classes.txt`: the names of the classes, one a line, in the order of their labels from 0.

What would break a line, and a space at a line's end, is written as in Python's strings: a line feed
is `\\n`, a backslash `\\\\`. An empty name is a single backslash.
"""

import re
import unicodedata
from collections.abc import Iterable

CLASSES = "classes.txt"
# Control characters, line and paragraph separators, and what of a file's name is no UTF-8.
_ESCAPED = ("Cc", "Zl", "Zp", "Cs")
_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LONG = re.compile(r"\\(?:\\|n|r|t|x[0-9a-f]{2}|u[0-9a-f]{4}|$)")


def names_text(names: Iterable[str]) -> str:
    """The text of a `classes.txt`; `read_names` gives the names back."""
    return "".join(f"{escaped(name)}\n" for name in names)


def read_names(text: str) -> tuple[str, ...]:
    """The names in the text of a `classes.txt`, also one written by hand: empty lines are none."""
    lines = (line.strip() for line in text.removeprefix("\ufeff").split("\n"))
    return tuple(_LONG.sub(_character, line) for line in lines if line)


def escaped(name: str) -> str:
    """The name as a line of a `classes.txt`, and as it can be printed anywhere."""
    if not name:
        return "\\"
    bare = name.strip()
    begin = name.index(bare) if bare else len(name)
    edges = {*range(begin), *range(begin + len(bare), len(name))}
    return "".join(
        _escape(character) if position in edges or _breaks(character) else character
        for position, character in enumerate(name)
    )


def _breaks(character: str) -> bool:
    return character in "\\\ufeff" or unicodedata.category(character) in _ESCAPED


def _escape(character: str) -> str:
    code = ord(character)  # spaces and separators all lie below 2**16
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _character(match: re.Match[str]) -> str:
    text = match.group()
    plain = {escaped: character for character, escaped in _SHORT.items()} | {"\\": ""}
    return plain[text] if text in plain else chr(int(text[2:], 16))
