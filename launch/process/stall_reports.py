"""Reports of stalls: RUN_DIR/stall-N.txt, with every thread and open file."""

import contextlib
import dataclasses
import datetime
import faulthandler
import itertools
import os
import pathlib
import threading
from collections.abc import Mapping

from input_pipeline.pending_reads import Reads
from trainer.run_folder.journal import Journal

# Where the run's folder does not answer, it must not keep the process from leaving.
_REPORT_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Stall:
    """Nothing moves: since when, doing what, and what is probably the cause."""

    step: int  # the last one done
    seconds: float  # since the last sign of life
    doing: str
    cause: str


class StallReports:
    """Writes stalls down: a file with all that is known, an event, a sentence on the terminal.

    Args:
      run_dir: the run's folder.
      reads: of the data to train on and to evaluate on.
    """

    def __init__(self, run_dir: pathlib.Path, reads: Mapping[str, Reads], journal: Journal) -> None:
        self._run_dir, self._reads, self._journal = run_dir, reads, journal

    def __call__(self, stall: Stall | None, then: str = "") -> None:
        """Reports a stall, or that it is over; gives up on a folder that does not answer.

        Args:
          stall: None if it is over.
          then: what happens next, for the end of the sentence.
        """
        target = self._over if stall is None else lambda: self._write(stall, then)
        thread = threading.Thread(target=target, daemon=True, name="stall report")
        thread.start()
        thread.join(_REPORT_SECONDS)

    def _over(self) -> None:
        self._journal.say("the stall is over")

    def _write(self, stall: Stall, then: str) -> None:
        seconds = round(stall.seconds, 1)
        quiet = f"step {stall.step:,}  nothing has moved for {seconds:.0f} s"
        try:
            where = f"stacks and input in {self._write_file(stall)}"
        except OSError as error:
            where = f"the stacks could not be written ({error.strerror})"
        self._journal.say(f"{quiet}: {stall.cause}; {where}{then}")
        event = {"event": "stall", "stalled_s": seconds, "cause": stall.cause}
        with contextlib.suppress(OSError):  # has been said
            self._journal.note(stall.step, event)

    def _write_file(self, stall: Stall) -> pathlib.Path:
        paths = (self._run_dir / f"stall-{number}.txt" for number in itertools.count(1))
        path = next(path for path in paths if not path.exists())
        with path.open("w", encoding="utf-8") as file:
            file.write(
                f"{datetime.datetime.now().astimezone().isoformat(timespec='seconds')}: after step "
                f"{stall.step:,} nothing has moved for {stall.seconds:.1f} s.\n"
                f"It was {stall.doing}. Likely cause: {stall.cause}.\n\nInput\n"
            )
            file.writelines(f"{reads.text()}\n" for reads in self._reads.values())
            for title, lines in (("Open files", open_files()), ("Threads", threads())):
                file.write("\n".join(["", title, *lines, ""]))
            file.write("\nPython stacks\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        return path


def open_files() -> list[str]:
    """The files that this process has open, by descriptor; none where the system does not tell."""
    lines = []
    for file in sorted(pathlib.Path("/proc/self/fd").glob("*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):  # closed meanwhile
            lines.append(f"{file.name:>4}  {os.readlink(file)}")
    return lines


def threads() -> list[str]:
    """This process's threads: system's number, state (R runs, S waits, D for a disk), CPU time.

    Several of the same name, state and time are one line. Those of Python follow, by the identifier
    that the stacks have.
    """
    ticks, counts = os.sysconf("SC_CLK_TCK"), {}
    for task in sorted(pathlib.Path("/proc/self/task").glob("*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):  # ended meanwhile
            _, _, rest = (task / "stat").read_text().rpartition(")")
            fields = rest.split()
            seconds = (int(fields[11]) + int(fields[12])) / ticks
            name = (task / "comm").read_text().strip()
            key = f"{name:16} {fields[0]}  {seconds:.1f} s"
            counts.setdefault(key, []).append(task.name)
    lines = [
        f"{key}  {numbers[0]}{f' and {len(numbers) - 1} more' * (len(numbers) > 1)}"
        for key, numbers in counts.items()
    ]
    return lines + [f"0x{t.ident:016x}  {t.name}" for t in threading.enumerate() if t.ident]
