"""Defining a flag, all in one place: name, default, help, and what it is marked as.

    add = Group(values, "learning rate")
    add.text("decay", "cosine", "What follows the warmup.", decisive=True)

The first line of a help text is for `--help`, all of it for `--helpfull`.
"""

import dataclasses
import math

from absl import flags

from trainer.plan.call_syntax import GREATEST, LEAST

_MOST = 2**31 - 1
_LONGEST = 100_000  # characters


class _Text(flags.ArgumentParser[str]):
    """Any text that a path, a name or a formula can be."""

    def parse(self, argument: str) -> str:
        if "\0" in argument:
            raise ValueError("a text with a NUL character; give one without.")
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise ValueError("no text in UTF-8; give one that is.")
        if len(argument) > _LONGEST:
            raise ValueError(f"more than {_LONGEST:,} characters; give fewer.")
        return argument


class _Whole(flags.ArgumentParser[int]):
    """A whole number from `low` to `high`."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.low, self.high = low, high

    def parse(self, argument: str | int) -> int:
        try:
            number = int(argument)
        except ValueError:  # also of more digits than Python reads
            number = None
        if number is None or not self.low <= number <= self.high:
            what = f"a whole number from {self.low:,} to {self.high:,}"
            raise ValueError(f"not {what}; give one.")
        return number


class _Number(flags.ArgumentParser[float]):
    """A number of 0 or more that keeps its meaning in float32."""

    def parse(self, argument: str | float) -> float:
        try:
            number = float(argument)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError("not a finite number; give one that is, such as 0.1.")
        if number and not LEAST <= number <= GREATEST:
            raise ValueError(f"not 0 and not from {LEAST:g} to {GREATEST:g}; give such a number.")
        return number


class _Switch(flags.BooleanParser):
    """True or false."""

    def parse(self, argument: str | bool) -> bool:
        try:
            return super().parse(argument)
        except ValueError:
            raise ValueError("neither true nor false; give one of them.") from None


@dataclasses.dataclass(frozen=True)
class Group:
    """A group of flags of `values`: each method adds one; none takes a value below 0.

    Attributes:
      decisive: whether a flag decides about the bits that come out of a run; the others decide what
        is seen of it. This and `rare` hold for the flags that do not say else.
      rare: whether the short help leaves a flag out.
    """

    values: flags.FlagValues
    name: str
    decisive: bool = False
    rare: bool = False

    def text(self, name: str, default: str | None, help_text: str, **marks: bool) -> None:
        """Adds a flag that takes any text."""
        self._add(flags.Flag(_Text(), None, name, default, help_text), **marks)

    def several(self, name: str, help_text: str, **marks: bool) -> None:
        """Adds a flag that takes any text and may be given more than once; none by default."""
        self._add(flags.MultiFlag(_Text(), None, name, [], help_text), **marks)

    def integer(
        self, name: str, default: int, low: int, help_text: str, high: int = _MOST, **marks: bool
    ) -> None:
        """Adds a flag that takes a whole number from `low` to `high`."""
        self._add(flags.Flag(_Whole(low, high), None, name, default, help_text), **marks)

    def number(self, name: str, default: float, help_text: str, **marks: bool) -> None:
        """Adds a flag that takes a finite number of 0 or more."""
        self._add(flags.Flag(_Number(), None, name, default, help_text), **marks)

    def boolean(self, name: str, default: bool, help_text: str, **marks: bool) -> None:
        """Adds a flag that is true or false."""
        flag = flags.BooleanFlag(name, default, help_text)
        flag.parser = _Switch()
        self._add(flag, **marks)

    def _add(
        self, flag: flags.Flag, decisive: bool | None = None, rare: bool | None = None
    ) -> None:
        flag.decisive = self.decisive if decisive is None else decisive
        flag.rare = self.rare if rare is None else rare
        flags.DEFINE_flag(flag, self.values, self.name)


def decisive(values: flags.FlagValues) -> frozenset[str]:
    """The names of the flags that decide what comes out of a run."""
    return frozenset(name for name in values if values[name].decisive)


def rare(values: flags.FlagValues) -> frozenset[str]:
    """The names of the flags that the short help leaves out."""
    return frozenset(name for name in values if values[name].rare)
