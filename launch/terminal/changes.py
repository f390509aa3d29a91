"""Tables of what differs when a run goes on: flags, and numbers that follow from another batch."""

import textwrap
from collections.abc import Mapping
from typing import Any


def changes_text(step: int, changes: Mapping[str, tuple[Any, Any]]) -> str:
    """A table of the flags that are not what the checkpoint was made with."""
    width = max(map(len, changes)) + 2
    rows = [f"{'--' + n:{width}}  {then!s:24}  {now}" for n, (then, now) in sorted(changes.items())]
    return "\n".join([f"{'flag':{width}}  {f'until step {step:,}':24}  from now on", *rows])


def rederived_text(step: int, numbers: Mapping[str, Any]) -> str:
    """The numbers of `trainer.run_folder.resume.rederived` as lines; "" if there are none."""
    if not numbers:
        return ""
    left = numbers["last_step"] - step
    return textwrap.fill(
        f"the data go on at example {numbers['position']:,}, epoch {numbers['epoch']:.4g}; step "
        f"{step:,} counts as step {numbers['plan_step']:.6g} of the {numbers['plan_steps']:,} "
        f"planned above, so {left:,} are left, to step {numbers['last_step']:,}; the learning "
        f"rate's peak is {numbers['peak_learning_rate']:.4g}, its warmup "
        f"{numbers['warmup_steps']:,} steps",
        80,
    )
