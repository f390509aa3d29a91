"""Writing a checkpoint beside the training: one thread, one after the other."""

import contextlib
import dataclasses
import pathlib
import queue
import threading
from collections.abc import Callable, Sequence

import tensorflow as tf

from trainer.checkpoint import on_disk
from trainer.checkpoint.on_disk import STATE, WRITING, DamagedError, Keep
from trainer.checkpoint.snapshot import Value
from trainer.checkpoint.tensors import check_tensors, write_tensors

# A write that ends with one of these can be tried again.
WRITE_ERRORS = (OSError, tf.errors.OpError, DamagedError)


@dataclasses.dataclass(frozen=True)
class CheckpointWriter:
    """Writes checkpoints into the first of its folders that takes them.

    A checkpoint is written beside, read back, compared, brought to the disk and made current by one
    rename, so that a kill at any moment leaves the one before it untouched.
    """

    run_folder: pathlib.Path  # where checkpoints belong
    folders: Sequence[pathlib.Path]  # to try one after the other
    names: Sequence[str]  # of the variables
    keep: Keep

    def write(
        self,
        step: int,
        state: str,
        values: Sequence[Value],
        old: set[int],
        before: Callable[[], None],
    ) -> pathlib.Path:
        """Writes the checkpoint of a step, then removes what is no longer needed.

        Args:
          state: JSON.
          values: of the variables, in the order of their names.
          old: the steps of those that go, of the run's folder; of another the newest are kept.
          before: called before the run's folder is written to; may raise OSError, which is ignored.

        Returns:
          The folder that has taken it.

        Raises:
          WRITE_ERRORS: none has.
        """
        for folder in self.folders:
            try:
                if folder == self.run_folder:
                    with contextlib.suppress(OSError):
                        before()
                self._write_to(folder, step, state, values)
            except WRITE_ERRORS:
                with contextlib.suppress(OSError):
                    on_disk.discard(folder / f"{WRITING}{step}")
                if folder == self.folders[-1]:
                    raise
            else:
                break
        with contextlib.suppress(OSError):
            self._remove_old(folder, old)
        return folder

    def _write_to(
        self, folder: pathlib.Path, step: int, state: str, values: Sequence[Value]
    ) -> None:
        writing = folder / f"{WRITING}{step}"
        on_disk.discard(writing)
        writing.mkdir(parents=True)
        write_tensors(writing, self.names, values)
        (writing / STATE).write_text(state, encoding="utf-8")
        on_disk.seal(writing)
        if (writing / STATE).read_bytes() != state.encode():
            raise DamagedError(f"{STATE} is not read back as it was written")
        check_tensors(writing, self.names, values)
        on_disk.publish(writing, folder / f"step-{step}")

    def _remove_old(self, written: pathlib.Path, old: set[int]) -> None:
        if written == self.run_folder:
            for step in old:
                on_disk.remove(written / f"step-{step}")
        for folder in self.folders:
            if folder != self.run_folder:
                kept = self.keep.newest if folder == written else 0
                steps = on_disk.checkpoint_steps(folder)
                for step in steps[: max(0, len(steps) - kept)]:
                    on_disk.remove(folder / f"step-{step}")


class Write:
    """A checkpoint that a thread writes; `error` is why it could not, once it is done.

    Attributes:
      folder: the folder of checkpoints that has taken it.
    """

    def __init__(self, step: int, score: float | None, write: Callable[[], pathlib.Path]) -> None:
        self.step, self.score = step, score
        self._write: Callable[[], pathlib.Path] | None = write
        self.folder: pathlib.Path | None = None
        self.error: Exception | None = None
        self._done = threading.Event()

    def run(self) -> None:
        """Writes it, and lets go of what was to be written."""
        write, self._write = self._write, None
        try:
            self.folder = write()
        except Exception as error:  # raised where it is waited for
            self.error = error
        self._done.set()

    def done(self, seconds: float | None = 0.0) -> bool:
        """Whether it is done within this time; None: as long as it takes."""
        return self._done.wait(seconds)


def start_writer() -> "queue.SimpleQueue[Write]":
    """Starts the thread that writes what it is given, one after the other.

    To start one for each would take as long as to copy a megabyte.
    """
    given: queue.SimpleQueue[Write] = queue.SimpleQueue()

    def work() -> None:
        while True:
            given.get().run()

    threading.Thread(target=work, daemon=True, name="writes checkpoints").start()
    return given
