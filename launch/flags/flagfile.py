"""Flagfiles: one flag a line, `#` comments; read with the place of each flag, and written.

A line is `--name=value`, `--name` or `--noname`, as on a command line but without a shell's quotes.
What a plain line cannot hold, such as a newline or a space at the end, stands as a JSON string:
`--name="two\\nlines "`. `--flagfile=PATH` takes in another file at its place. The later line wins,
and the command line wins over all flagfiles.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from absl import flags

from trainer.plan.call_syntax import did_you_mean
from trainer.plan.durations import shortened

RECIPES = pathlib.Path(__file__).parents[1] / "recipes"
_MOST_BYTES = 1 << 20  # a checkpoint that was given by mistake is not read whole
_NAMES = ("--flagfile", "-flagfile")


@dataclasses.dataclass(frozen=True)
class Line:
    """A flag of a flagfile as the command line would have it, and where it stands."""

    text: str
    where: str  # line 3 of mine.flags

    def __str__(self) -> str:
        plain = self.text.isprintable() and len(self.text) <= 200
        return f"{self.text if plain else shortened(self.text)} in {self.where}"

    def name(self, values: flags.FlagValues) -> str:
        """The flag's name; that of `--notf32` is tf32."""
        name = self.text.partition("=")[0].lstrip("-")
        return name if name in values else name.removeprefix("no")


def expand(argv: Sequence[str]) -> tuple[list[Line], list[str]]:
    """The lines of all flagfiles that are named, in their order, and the other arguments.

    Raises:
      ValueError: a flagfile does not exist, cannot be read or is none.
    """
    lines: list[Line] = []
    rest: list[str] = []
    pending = list(argv)
    while pending:
        argument = pending.pop(0)
        name, equals, path = argument.partition("=")
        if name not in _NAMES:
            rest.append(argument)
            continue
        if not equals:
            path = pending.pop(0) if pending else ""
        lines += read(path)
    return lines, rest


def read(path: str, inside: tuple[pathlib.Path, ...] = ()) -> Iterator[Line]:
    """The lines of a flagfile and of those that it names.

    Args:
      path: of the file, or the name of a recipe.
      inside: the files that name it.

    Raises:
      ValueError: a file does not exist, cannot be read or is none, or names itself.
    """
    file = find_flagfile(path)
    if file in inside:
        raise ValueError(f"the flagfile {path} takes in itself; remove that line.")
    called = f"the recipe {file.stem}" if file.parent == RECIPES else str(file)
    for number, line in enumerate(_text(file, called).split("\n"), 1):
        text, where = line.strip(), f"line {number} of {called}"
        if not text or text.startswith(("#", "//")):
            continue
        name, equals, value = text.partition("=")
        if value.startswith('"'):
            value = _unquoted(value, where)
        if name not in _NAMES:
            yield Line(name + equals + value, where)
            continue
        try:
            yield from read(value.strip(), (*inside, file))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None


def _text(file: pathlib.Path, called: str) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(
            f"the flagfile {called} cannot be read ({error.strerror}); give one that can."
        ) from None
    if len(content) > _MOST_BYTES:
        raise ValueError(f"the flagfile {called} has more than a million bytes; give a flagfile.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"line {number} of {called} is not text in UTF-8; give a flagfile, one flag a line."
        ) from None


def _unquoted(value: str, where: str) -> str:
    try:
        text = json.loads(value)
    except (ValueError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise ValueError(
            f"{where}: a value that begins with a quotation mark is a JSON string, and "
            f'{shortened(value)} is none; write it as "…", or without quotation marks.'
        )
    return text


def find_flagfile(path: str) -> pathlib.Path:
    """A flagfile by its path, or a packaged recipe: `digits`, `launch/recipes/digits.flags`.

    Raises:
      ValueError: neither exists.
    """
    given = pathlib.Path(os.path.expanduser(path))
    if path and _is(pathlib.Path.is_file, given):
        return given
    packaged = RECIPES / (given.name.removesuffix(".flags") + ".flags")
    by_name = given.parent.name in ("", "recipes") and given.name
    if by_name and _is(pathlib.Path.is_file, packaged):
        return packaged
    if path and _is(pathlib.Path.is_dir, given):
        raise ValueError(f"the flagfile {path!r} is a folder; give a file.")
    names = recipes()
    meant = did_you_mean(packaged.stem, names)
    raise ValueError(
        f"the flagfile {path!r} does not exist{meant}; give a file's path or the name of a recipe: "
        f"{', '.join(names)}."
    )


def recipes() -> list[str]:
    """The names of the packaged recipes."""
    return sorted(file.stem for file in RECIPES.glob("*.flags"))


def _is(kind: Callable[[pathlib.Path], bool], path: pathlib.Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a name that no file system takes
        return kind(path)
    return False


def line_of(name: str, value: object) -> str:
    """The line that gives a flag this value, whatever is in it."""
    text = str(value)
    plain = text.isprintable() and text == text.strip() and not text.startswith('"')
    return f"--{name}={text if plain else json.dumps(text)}"


@contextlib.contextmanager
def places_named(values: flags.FlagValues, lines: Mapping[str, Sequence[Line]]) -> Iterator[None]:
    """Adds to an error where the flagfiles give the flags that it speaks of.

    Args:
      values: the flags as parsed.
      lines: by flag, the lines that gave it, the last one being what counts; those that the
        command line has overridden are not among them.

    Raises:
      ValueError: the one raised inside, with the places.
    """
    try:
        yield
    except ValueError as error:
        said = str(error)
        found = [name for name in lines if _speaks_of(said, name, str(values[name].value))]
        if not found:
            raise
        places = "; ".join(_place(lines[name]) for name in found)
        end = "\n" if "\n" in said else " "  # a table stands by itself
        raise ValueError(f"{said}{end}See {places}.") from error


def _speaks_of(text: str, name: str, value: str) -> bool:
    return bool(re.search(rf"--{name}\b", text)) or (len(value) > 2 and repr(value) in text)


def _place(lines: Sequence[Line]) -> str:
    """The last line and where it stands, and those before that say something else."""
    last = lines[-1]
    others = [str(line) for line in lines if line.text != last.text]
    return str(last) + (f", not {', '.join(others)}" if others else "")
