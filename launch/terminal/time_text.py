"""Where the time of a run went, for a person: the shares, the goodput, and what is out of order.

The rules of the advice are those of docs/time.md.
"""

import math
from collections.abc import Mapping

from trainer.run_folder.account import (
    CHECKPOINT,
    COMPUTE,
    DOWN,
    EVALUATION,
    HOST,
    LOGGING,
    MODELS,
    STARTING,
    UNDONE,
    WAITING,
    goodput,
)

# What takes less is summed up.
_NAMED = 0.01
# Nobody gains much from less than so many seconds.
LEAST_SECONDS = 5.0
# Of the time of the steps; everything else is of all. On a CPU the same cores prepare and train:
# there is nothing to be gained before the data takes longer than the training.
_INPUT_BOUND = {"GPU": 0.05, "CPU": 0.5}
# A start takes as long for a run of a minute as for one of a week.
_LONG_RUN = 600.0
# Names, the share of all the time from which they are out of order, and what to do.
_LIMITS = (
    ((EVALUATION,), 0.2, "evaluate less often (--eval_every), or fewer examples"),
    (
        (CHECKPOINT,),
        0.1,
        "save less often (--checkpoint_every), or to a faster disk (--run_dir)",
    ),
    ((MODELS,), 0.1, "the best model is written at every best evaluation: a larger --eval_every"),
    ((LOGGING, HOST), 0.1, "more steps between two looks of the host: --steps_per_loop=0"),
    ((UNDONE,), 0.1, "save more often (--checkpoint_every): this was done again"),
    ((DOWN,), 0.25, "python -m launch.supervise starts a run again at once"),
    (STARTING, 0.2, "fewer restarts, and --xla=off where compiling takes long"),
)
_UNITS = (
    ("min", 60, "s", 1, 3_600),
    ("h", 3_600, "min", 60, 86_400),
    ("d", 86_400, "h", 3_600, 100 * 86_400),
)
_CALLED = {
    (LOGGING, HOST): "the host between blocks of steps",
    (MODELS,): "writing models",
    (UNDONE,): "what lay behind the last checkpoint",
    (DOWN,): "the time between processes",
    STARTING: "starting",
}


def spent_text(spent: Mapping[str, float]) -> str:
    """All the time and its parts, the largest first."""
    wall = sum(spent.values())
    parts = sorted(spent.items(), key=lambda part: -part[1])
    named = [(name, seconds) for name, seconds in parts if seconds >= _NAMED * wall]
    rest = wall - sum(seconds for _, seconds in named)
    if rest >= _NAMED / 2 * wall:
        named.append(("other", rest))
    shares = ", ".join(f"{name} {seconds / wall:.0%}" for name, seconds in named if wall)
    return f"{duration_text(wall)}: {shares}"


def goodput_text(spent: Mapping[str, float]) -> str:
    """The share of the time that counts, and what does not count of other processes."""
    lost = [
        f"{duration_text(spent[name])} {name}" for name in (UNDONE, DOWN) if spent.get(name, 0) >= 1
    ]
    told = f" ({', '.join(lost)})" if lost else ""
    return f"{goodput(spent):.0%} of it computed steps that count{told}"


def advice(spent: Mapping[str, float], device: str, cores: int) -> str:
    """A sentence on what is most out of order; "" if nothing is.

    Args:
      device: GPU or CPU.
      cores: of the machine.
    """
    wall = sum(spent.values())
    found = {}
    for names, share, what in _LIMITS:
        seconds = sum(spent.get(name, 0.0) for name in names)
        short = names == STARTING and wall < _LONG_RUN
        if seconds >= max(share * wall, LEAST_SECONDS) and not short:
            said = f"{_CALLED.get(names, names[0])} took {seconds / wall:.0%} of the time"
            found[f"{said[0].upper()}{said[1:]}: {what}."] = seconds - share * wall
    wait = waiting_share(spent)
    if input_bound(device, wait) and spent[WAITING] >= LEAST_SECONDS:
        said = input_verdict(device, wait, cores)
        found[f"{said[0].upper()}{said[1:]}."] = spent[WAITING] * (1 - _INPUT_BOUND[device] / wait)
    return max(found, key=found.get) if found else ""


def waiting_share(spent: Mapping[str, float]) -> float:
    """The share of the steps' time in which they waited for their data."""
    waited = spent.get(WAITING, 0.0)
    steps = waited + sum(s for name, s in spent.items() if name.startswith(COMPUTE))
    return waited / steps if waited else 0.0


def input_bound(device: str, wait: float) -> bool:
    """Whether a run waits for its data for too large a share of its steps' time."""
    return wait >= _INPUT_BOUND[device]


def input_verdict(device: str, wait: float, cores: int) -> str:
    """One line on a run that waited for its data for this share of its steps' time.

    The input needs 1 / (1 - wait) times its present rate; on GPUs all the cores work for it.
    """
    text = f"input-bound: {wait:.0%} of the steps' time was spent waiting for data"
    if device == "CPU":
        return f"{text}; the same {cores} cores prepare it and train"
    more = math.ceil(cores * wait / (1 - wait)) if wait < 1 else cores
    return f"{text}; {more} more core{'s' * (more != 1)} would do"


def duration_text(seconds: float) -> str:
    """Seconds as a person reads them: 12.3 s, 5 min 20 s, 3 h 05 min, 2 d 4 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, small, of, most in _UNITS:
        if whole < most:
            return f"{whole // size} {unit} {whole % size // of:02d} {small}"
    return f"{whole // 86_400:,} d"
