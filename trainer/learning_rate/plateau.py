"""Lower the learning rate when a metric has stopped improving, as a change of its scale."""

import math
from collections.abc import Mapping

from trainer.plan.call_syntax import Parameter, bind, choose, parse_call
from trainer.plan.settings import PlateauSettings

_PARAMETERS = (
    Parameter("factor", "number", 0.1),
    Parameter("patience", "count", 5),
    Parameter("metric", "text", "eval/loss"),
    Parameter("threshold", "number", 1e-4),
    Parameter("cooldown", "count", 0),
    Parameter("minimum", "number", 0.0),
)


def parse_plateau(text: str) -> PlateauSettings | None:
    """Reads `reduce(factor=0.1, patience=5)`; nothing for "".

    Raises:
      ValueError: it has another form, or a factor of 1 or more.
    """
    if not text:
        return None
    call = parse_call(text)
    choose("plateau", call.name, ("reduce",))
    given = bind(call, _PARAMETERS)
    if not 0 < given["factor"] < 1:
        raise ValueError(f"the factor of reduce is {given['factor']:g}; give one between 0 and 1.")
    return PlateauSettings(**given)


def judge(
    settings: PlateauSettings, state: Mapping[str, float], value: float, lower_is_better: bool
) -> tuple[dict[str, float], bool]:
    """Takes one evaluation into account: the state to keep, and whether to cut the rate now.

    The rule is that of PyTorch's ReduceLROnPlateau: after more than `patience` evaluations in a row
    without a relative improvement of `threshold` the rate is cut; the `cooldown` evaluations after
    a cut do not count. Keras's counts one evaluation less of either, and its threshold is absolute.
    A value that is not finite is no improvement, and any finite one is better. The state is {} at
    first, and plain JSON.
    """
    # Lower is better from here on.
    value = value if lower_is_better else -value
    best, bad = state.get("best", math.inf), state.get("bad", 0)
    waiting = state.get("waiting", 0)
    known = math.isfinite(best)
    if math.isfinite(value) and (not known or value < best - settings.threshold * abs(best)):
        best, bad, known = value, 0, True
    elif not waiting:
        bad += 1
    waiting = max(0, waiting - 1)
    cut = bad > settings.patience
    if cut:
        bad, waiting = 0, settings.cooldown
    return {"bad": bad, "waiting": waiting} | ({"best": best} if known else {}), cut
