"""What a check has found, as a sentence, and what to do about it."""

import dataclasses
from collections.abc import Iterable

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
      topic: a word or two, such as `driver`.
      status: `ok`; `note`, which is good to know; `warning`, with which training works, but worse
        than it could; `error`, with which it would not work as asked.
      text: what was found, without a full stop.
      advice: what to do, without a full stop; empty if nothing is to be done.
    """

    topic: str
    status: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        said = self.text if self.status == OK else f"{self.status}: {self.text}"
        return f"{said}; {self.advice}" if self.advice else said


def would_train(findings: Iterable[Finding]) -> bool:
    """Whether none of them is an error."""
    return all(finding.status != ERROR for finding in findings)
