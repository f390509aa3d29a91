"""What a process does up to its first step, by phase: imports, data, build, trace, the step."""

from types import TracebackType

import launch
from launch.terminal.last_line import Phases
from trainer.loop import Action, Block
from trainer.run_folder.account import (
    BUILD,
    CHECK,
    DATA,
    HOST,
    IMPORTS,
    STARTING,
    TRACE,
    XLA,
    Account,
    process_began,
)
from trainer.run_folder.journal import Journal

_SAID = {
    IMPORTS: "importing TensorFlow",
    DATA: "opening the data",
    BUILD: "building the model",
    CHECK: "having the GPUs sum",
    XLA: "trying out XLA",
    TRACE: "tracing the step",
    HOST: "the first step",  # which is up next
}


class Startup:
    """Begins the account of a process's time, and tells of its phases up to the first step.

        with Startup() as startup:
            startup.begin(DATA)

    Args:
      began: when the run began, by `time.perf_counter`; None: with the process.

    Attributes:
      account: goes on when all is started.
      seconds: of each phase, in the order in which they began, once the first step is done.
    """

    def __init__(self, began: float | None = None) -> None:
        self.account = Account(process_began(launch.BEGAN) if began is None else began)
        self.seconds: dict[str, float] = {}
        self._phases: Phases | None = None

    def show(self) -> None:
        """From the next phase on, a person sees which one it is."""
        self._phases = self._phases or Phases()

    def begin(self, phase: str) -> None:
        """Says what the process does from here on."""
        self.account.begin(phase)
        if self._phases and phase in _SAID:
            self._phases.begin(_SAID[phase])

    def __enter__(self) -> "Startup":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._phases:
            self._phases.close()

    def text(self) -> str:
        """One line for the terminal."""
        parts = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in self.seconds.items())
        return (
            f"started in {sum(self.seconds.values()):.1f} s: {parts.replace('first step', 'step')}"
        )

    def reporter(self, journal: Journal) -> Action:
        """The action that tells of it after the process's first block, and of no other."""

        def report(block: Block) -> None:
            if not self.seconds:
                self._end()
                seconds = {
                    f"{phase.replace(' ', '_').replace('-', '_')}_s": round(value, 3)
                    for phase, value in self.seconds.items()
                }
                journal.note(block.last, {"event": "started", **seconds, "steps": block.steps})
                journal.say(self.text())

        return report

    def _end(self) -> None:
        here = self.account.here()
        self.seconds = {phase: here[phase] for phase in here if phase in STARTING}
        if self._phases:
            self._phases.close()
