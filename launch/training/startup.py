"""The time to the first step by phase: imports, data, build, trace, the step itself."""

import time

import launch
from trainer.loop import Action, Block
from trainer.run_folder.journal import Journal


class Startup:
    """A stopwatch of phases, which begins with the process."""

    def __init__(self) -> None:
        self._last = launch.BEGAN
        self._told = False
        self.seconds: dict[str, float] = {}  # in the order in which they began

    def done(self, phase: str) -> None:
        """Counts the time since the last call to this phase."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now

    def text(self) -> str:
        """One line for the terminal."""
        parts = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in self.seconds.items())
        return (
            f"started in {sum(self.seconds.values()):.1f} s: {parts.replace('first step', 'step')}"
        )

    def reporter(self, journal: Journal) -> Action:
        """The action that tells of it after the process's first block, and of no other."""

        def report(block: Block) -> None:
            if not self._told:
                self._told = True
                self.done("first step")
                seconds = {
                    f"{phase.replace(' ', '_').replace('-', '_')}_s": round(value, 3)
                    for phase, value in self.seconds.items()
                }
                journal.note(block.last, {"event": "started", **seconds, "steps": block.steps})
                journal.say(self.text())

        return report
