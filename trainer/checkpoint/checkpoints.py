"""Checkpoints: complete, whole or absent, written while the training goes on."""

import contextlib
import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from trainer.checkpoint import on_disk
from trainer.checkpoint.on_disk import DamagedError, Keep
from trainer.checkpoint.restore import describe, restore
from trainer.checkpoint.retry import Retry
from trainer.checkpoint.snapshot import Snapshot
from trainer.checkpoint.tensors import flat_names, reason
from trainer.checkpoint.writer import WRITE_ERRORS, CheckpointWriter, Write, start_writer

# How long training waits for the checkpoint before this one; a network's disk may hang.
PATIENCE_SECONDS = 10.0


class SaveError(Exception):
    """A checkpoint could not be written; the message is a sentence for the user."""


class Checkpoints:
    """The checkpoints of a run: `FOLDER/step-N/`, see `trainer.checkpoint.on_disk`.

        checkpoints.save(step, state)  # returns when the variables are copied to host memory
        checkpoints.wait()             # returns when they are on the disk, or raises

    A thread does the writing (`CheckpointWriter`). A write that fails is told of and made anew
    later, with the state of then.

    Args:
      folder: of the checkpoints.
      variables: by group ("model", "optimizer", …) and name.
      keep: which checkpoints are kept.
      fallback: another folder, for what this one does not take.
      optional: groups that may be missing. Where a checkpoint lacks one, its variables stay as they
        are; where a checkpoint has one that this run has not, it is passed over.
      say: tells a person, from the thread that calls.
      writes: whether anything is saved; of several workers only the chief does.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        variables: Mapping[str, Mapping[str, tf.Variable]],
        keep: Keep = Keep(),  # noqa: B008 - frozen
        *,
        fallback: pathlib.Path | None = None,
        optional: Sequence[str] = (),
        say: Callable[[str], None] = print,
        writes: bool = True,
    ) -> None:
        self._writes = writes
        self.folder, self.fallback, self._keep, self._say = folder, fallback, keep, say
        self._variables = flat_names(variables)
        self._described = describe(self._variables)
        self._optional = tuple(f"{group}/" for group in optional)
        self._snapshot = Snapshot(list(self._variables.values()))
        self._queue = start_writer()
        self._write: Write | None = None
        self._folders = [folder, *([fallback] if fallback else [])]
        self._scores = self._read_scores()
        self.saved_in: pathlib.Path | None = None  # what has taken the newest
        self._saved: int | None = None  # the newest that this process has saved
        self._known = max(self._scores, default=0)  # the newest there is
        self._late = self._warned = False
        self._retry = Retry()

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        before: Callable[[], None] = lambda: None,
        patience: float | None = None,
    ) -> bool:
        """Saves all variables and `state`, which is JSON, as the checkpoint of this step.

        Args:
          state: not to be changed any more; its key `score`, if it has one, is that of an
            evaluation at this step. Lines in it may be bytes.
          before: called by the thread before it writes to the run's folder; may raise OSError,
            which means no more than that.
          patience: seconds to wait for the checkpoint before this one.

        Returns:
          Whether it is under way, or was saved before: not where the one before is still being
          written.
        """
        if not self._writes:
            return True
        if patience is None:
            patience = 0.0 if self._late else PATIENCE_SECONDS
        if not self._settled(patience):
            return False
        if self._saved == step:
            return True
        score = state.get("score")
        scores = self._scores | {step: score}
        taken = self._snapshot.take()

        def write() -> pathlib.Path:
            old = set(scores) - self._keep.of(scores)
            described = {**state, "step": step, **vars(self._described)}
            text = json.dumps(described, indent=1, default=_line)
            return writer.write(step, text, taken(), old, before)

        names = list(self._variables)
        writer = CheckpointWriter(self.folder, list(self._folders), names, self._keep)
        self._write = Write(step, score, write)
        self._queue.put(self._write)
        return True

    def due_again(self) -> bool:
        """Whether the last write has failed, and it is time to try once more."""
        self._settled(0.0)
        return self._retry.due()

    def wait(self, seconds: float | None = None) -> None:
        """Waits until what is being written is on the disk.

        Raises:
          SaveError: it failed, or took longer than this.
        """
        write = self._write
        if write and not self._settled(seconds):
            raise SaveError(
                f"the checkpoint of step {write.step:,} is still being written to "
                f"{self._folders[0]} after {seconds:.0f} s, and {self._newest()}"
            )
        if write and write.error:
            raise SaveError(self._failed(write)) from write.error

    def hangs(self) -> bool:
        """Whether a write is under way and there is another folder to write to."""
        return self._write is not None and self.fallback is not None

    def abandon(self) -> None:
        """Leaves a write that hangs to itself; from now on the fallback folder is written."""
        self._snapshot = Snapshot(list(self._variables.values()))
        self._queue = start_writer()
        self._write, self._folders = None, [self.fallback] if self.fallback else [self.folder]

    def steps(self) -> list[int]:
        """The steps of all checkpoints, in ascending order."""
        return sorted({step for f in self._folders for step in on_disk.checkpoint_steps(f)})

    def best(self) -> list[float]:
        """The scores of the checkpoints, from the best to the worst."""
        return [self._scores[step] for step in on_disk.best_steps(self._scores)]

    def drop_after(self, step: int) -> None:
        """Removes the checkpoints after this step, once what is being written is done."""
        self._settled(None)
        for folder in self._folders:
            for newer in on_disk.checkpoint_steps(folder):
                if newer > step:
                    on_disk.remove(folder / f"step-{newer}")
                    self._scores.pop(newer, None)
        self._saved, self._known = None, min(step, self._known)

    def restore(self, step: int) -> dict[str, Any]:
        """Restores every variable from the checkpoint of this step and returns its state.

        Nothing is restored unless all of it can be.

        Raises:
          ValueError: the checkpoint is damaged, or of a model or optimizer that does not match.
        """
        self._settled(None)
        paths = [folder / f"step-{step}" for folder in self._folders]
        path = next((path for path in paths if path.exists()), paths[0])
        state = restore(path, self._variables, self._optional)
        self._known = step
        return state

    def _settled(self, seconds: float | None) -> bool:
        """Whether no write is under way after this time; tells what became of the one before."""
        write = self._write
        if write is None:
            return True
        if not write.done(seconds):
            if not self._late and seconds:
                self._say(
                    f"warning: the checkpoint of step {write.step:,} is still being written after "
                    f"{seconds:.0f} s; training goes on and saves as soon as it is"
                )
                self._late = True
            return False
        self._write, self._late = None, False
        if write.error is None:
            self._succeeded(write)
        elif isinstance(write.error, WRITE_ERRORS):
            if not self._retry.failures:
                self._say(f"warning: {self._failed(write)}; training goes on and tries again")
            self._retry.failed()
        else:
            raise write.error
        return True

    def _succeeded(self, write: Write) -> None:
        if self._retry.failures:
            self._say(f"the checkpoint of step {write.step:,} is saved in {write.folder}")
        elif write.folder != self.folder and not self._warned:
            self._say(
                f"warning: {self.folder} cannot be written; "
                f"the checkpoint of step {write.step:,} is saved in {write.folder}"
            )
        self._warned = write.folder != self.folder
        self.saved_in = write.folder
        self._saved = self._known = write.step
        self._retry.succeeded()
        if write.folder == self.folder:
            self._scores[write.step] = write.score
            self._scores = {s: self._scores[s] for s in self._keep.of(self._scores)}

    def _failed(self, write: Write) -> str:
        return (
            f"the checkpoint of step {write.step:,} could not be written to "
            f"{' or '.join(map(str, self._folders))} ({reason(write.error)}), and {self._newest()}"
        )

    def _newest(self) -> str:
        return f"the newest is that of step {self._known:,}" if self._known else "there is no other"

    def _read_scores(self) -> dict[int, float | None]:
        scores: dict[int, float | None] = {}
        for step in on_disk.checkpoint_steps(self.folder):
            scores[step] = None
            if self._keep.best:
                with contextlib.suppress(OSError, DamagedError):
                    score = on_disk.read_state(self.folder / f"step-{step}").get("score")
                    # One that is not a number is as none: it is not better than any other.
                    good = isinstance(score, float) and math.isfinite(score)
                    scores[step] = score if good else None
        return scores


def _line(line: bytes) -> str:
    return line.decode().rstrip("\n")
