"""The metric that a person looks at first, and that says which evaluation is the best."""

import dataclasses
import math
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Headline:
    """A metric of a task: `eval/NAME` of an evaluation and, where there is one, `train/NAME`.

    Attributes:
      name: of the metric, for example `accuracy`.
      lower_is_better: as of an error.
      percent: whether it is a share, which is shown in percent.
    """

    name: str = "loss"
    lower_is_better: bool = True
    percent: bool = False

    def of(self, values: Mapping[str, float]) -> float | None:
        """Its value in an evaluation; None where that or the loss is no finite number.

        A model whose loss is not finite is never the best, however many answers happen to be right.
        """
        value, loss = (values.get(f"eval/{name}", math.nan) for name in (self.name, "loss"))
        return value if math.isfinite(value) and math.isfinite(loss) else None

    def score(self, values: Mapping[str, float]) -> float | None:
        """The same, such that more is better: what checkpoints of the best are kept by."""
        value = self.of(values)
        return -value if value is not None and self.lower_is_better else value

    def as_good(self, one: float, other: float) -> bool:
        """Whether one value of it is as good as another, or better."""
        return one <= other if self.lower_is_better else one >= other

    def text(self, value: float, digits: int = 2) -> str:
        """A value of it, as a person reads it."""
        if self.percent:
            return f"{value:.{digits}%}"
        return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.5g}"
