"""Consecutive steps of a run: --profile=100:110 names those after step 100, up to step 110."""

import dataclasses
import re

_PATTERN = re.compile(r"([0-9]{1,12}):([0-9]{1,12})")
# A profile holds some thousand events of each step, in memory, and a browser is to show them.
_MOST_STEPS = 100


@dataclasses.dataclass(frozen=True)
class Span:
    """The steps from `begin` + 1 to `end`, both given as steps done; none where they are equal."""

    begin: int = 0
    end: int = 0

    def has_next(self, done: int) -> bool:
        """Whether the step that follows so many steps done is one of them."""
        return self.begin <= done < self.end

    def __str__(self) -> str:
        if self.end == self.begin + 1:
            return f"step {self.end:,}"
        return f"steps {self.begin + 1:,} to {self.end:,}"


NO_STEPS = Span()


def parse_span(text: str) -> Span:
    """Reads a span such as `100:110`; an empty text is none.

    Raises:
      ValueError: it has no steps, or too many.
    """
    if not text:
        return NO_STEPS
    match = _PATTERN.fullmatch(text)
    if not match:
        raise ValueError(
            "not two numbers of steps done; give those before the first step and after the last, "
            "such as 100:110 for the steps 101 to 110."
        )
    begin, end = map(int, match.groups())
    if end <= begin:
        first, last = (begin, begin + 10) if begin == end else (end, min(begin, end + _MOST_STEPS))
        raise ValueError(f"no step is after {begin} and up to {end}; give {first}:{last}.")
    if end - begin > _MOST_STEPS:
        raise ValueError(
            f"{end - begin:,} steps; give at most {_MOST_STEPS}, for example {begin}:{begin + 10}."
        )
    return Span(begin, end)


def check_span(span: Span, last_step: int) -> None:
    """Sees that a run that ends with this step comes to all of what --profile asks for.

    Raises:
      ValueError: it does not.
    """
    if span.end > last_step:
        begin = max(0, last_step - (span.end - span.begin))
        raise ValueError(
            f"--profile={span.begin}:{span.end} goes beyond step {last_step:,}, the run's last; "
            f"give --profile={begin}:{last_step}, or train longer."
        )
