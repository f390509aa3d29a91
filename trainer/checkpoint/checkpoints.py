"""Checkpoints: complete, whole or absent, written while the training goes on."""

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.checkpoint import on_disk
from trainer.checkpoint.described import Described, compare, variables_of
from trainer.checkpoint.on_disk import STATE, VARIABLES, WRITING, DamagedError, Keep
from trainer.checkpoint.snapshot import Snapshot, Value
from trainer.checkpoint.writer import Write, start_writer

# How long training waits for the checkpoint before this one; a network's disk may hang.
PATIENCE_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 60.0
_KEY = "{}/.ATTRIBUTES/VARIABLE_VALUE"


class SaveError(Exception):
    """A checkpoint could not be written; the message is a sentence for the user."""


class Checkpoints:
    """The checkpoints of a run: `FOLDER/step-N/`, see `trainer.checkpoint.on_disk`.

        checkpoints.save(step, state)  # returns when the variables are copied to host memory
        checkpoints.wait()             # returns when they are on the disk, or raises

    A thread writes the copy beside, reads every tensor back and compares it with the copy, brings
    all to the disk and makes it current by one rename, so a kill at any moment leaves the one
    before it untouched. A write that fails is told of and made anew, with the state of then.

    Args:
      folder: of the checkpoints.
      variables: by group ("model", "optimizer", …) and name.
      keep: which checkpoints are kept.
      fallback: another folder, for what this one does not take.
      optional: groups that a checkpoint need not have, which then stay as they are, and that one of
        a run which had them may have.
      say: tells a person, from the thread that calls.
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
    ) -> None:
        self.folder, self.fallback, self._keep, self._say = folder, fallback, keep, say
        self._variables = {
            f"{group}/{name}": variable
            for group, members in variables.items()
            for name, variable in members.items()
        }
        self._keys = {
            f"{group}/{name}": _key(f"{group}/{name}")
            for group, members in variables.items()
            for name in members
        }
        self._described = Described(
            {name: v.shape.as_list() for name, v in self._variables.items()},
            {name: v.dtype.name for name, v in self._variables.items()},
        )
        self._optional = tuple(f"{group}/" for group in optional)
        self._snapshot = Snapshot(list(self._variables.values()))
        self._writer = start_writer()
        self._write: Write | None = None
        self._folders = [folder, *([fallback] if fallback else [])]
        self._scores = self._read_scores()
        self.saved_in: pathlib.Path | None = None  # what has taken the newest
        self._saved: int | None = None  # the newest that this process has saved
        self._known = max(self._scores, default=0)  # the newest there is
        self._late = self._warned = False
        self._failures, self._again = 0, 0.0

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
            return self._write_somewhere(step, text, taken(), old, before)

        self._write = Write(step, score, write)
        self._writer.put(self._write)
        return True

    def due_again(self) -> bool:
        """Whether the last write has failed, and it is time to try once more."""
        self._settled(0.0)
        return bool(self._failures) and time.monotonic() >= self._again

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
        self._writer = start_writer()
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
        try:
            state = on_disk.read_state(path)
            there = variables_of(state)
            compare(path, there, self._described, self._optional)
            values = self._read(path, there.shapes)
        except (DamagedError, OSError) as error:
            raise ValueError(
                f"the checkpoint {path} is damaged ({str(error).rstrip('.')}); "
                "move its folder away to go on from the one before it."
            ) from error
        for name, value in values.items():
            self._variables[name].assign(value)
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
            if self._failures:
                self._say(f"the checkpoint of step {write.step:,} is saved in {write.folder}")
            elif write.folder != self.folder and not self._warned:
                self._say(
                    f"warning: {self.folder} cannot be written; "
                    f"the checkpoint of step {write.step:,} is saved in {write.folder}"
                )
            self._warned = write.folder != self.folder
            self.saved_in = write.folder
            self._saved = self._known = write.step
            self._failures = 0
            if write.folder == self.folder:
                self._scores[write.step] = write.score
                self._scores = {s: self._scores[s] for s in self._keep.of(self._scores)}
            return True
        if not isinstance(write.error, OSError | tf.errors.OpError | DamagedError):
            raise write.error
        if not self._failures:
            self._say(f"warning: {self._failed(write)}; training goes on and tries again")
        self._failures += 1
        self._again = time.monotonic() + min(2.0 ** (self._failures - 1), _LONGEST_PAUSE_SECONDS)
        return True

    def _failed(self, write: Write) -> str:
        return (
            f"the checkpoint of step {write.step:,} could not be written to "
            f"{' or '.join(map(str, self._folders))} ({_reason(write.error)}), and {self._newest()}"
        )

    def _newest(self) -> str:
        return f"the newest is that of step {self._known:,}" if self._known else "there is no other"

    def _write_somewhere(
        self,
        step: int,
        text: str,
        arrays: Sequence[Value],
        old: set[int],
        before: Callable[[], None],
    ) -> pathlib.Path:
        """Writes a checkpoint to the first folder that takes it, and returns that.

        Removes what is then not needed: of the run's folder `old`, and all in the fallback.
        """
        for folder in self._folders:
            try:
                if folder == self.folder:
                    with contextlib.suppress(OSError):
                        before()
                self._write_to(folder, step, text, arrays)
            except (OSError, tf.errors.OpError, DamagedError):
                with contextlib.suppress(OSError):
                    on_disk.discard(folder / f"{WRITING}{step}")
                if folder == self._folders[-1]:
                    raise
            else:
                break
        with contextlib.suppress(OSError):
            if folder == self.folder:
                for former in old:
                    on_disk.remove(folder / f"step-{former}")
            if self.fallback:
                kept = self._keep.newest if folder == self.fallback else 0
                steps = on_disk.checkpoint_steps(self.fallback)
                for former in steps[: max(0, len(steps) - kept)]:
                    on_disk.remove(self.fallback / f"step-{former}")
        return folder

    def _write_to(
        self, folder: pathlib.Path, step: int, text: str, arrays: Sequence[Value]
    ) -> None:
        writing = folder / f"{WRITING}{step}"
        on_disk.discard(writing)
        writing.mkdir(parents=True)
        with tf.device("CPU:0"):
            tf.raw_ops.SaveV2(
                prefix=str(writing / VARIABLES),
                tensor_names=list(self._keys.values()),
                shape_and_slices=[""] * len(arrays),
                tensors=arrays,
            )
        (writing / STATE).write_text(text, encoding="utf-8")
        on_disk.seal(writing)
        if (writing / STATE).read_bytes() != text.encode():
            raise DamagedError(f"{STATE} is not read back as it was written")
        reader = tf.train.load_checkpoint(str(writing / VARIABLES))
        for (name, key), array in zip(self._keys.items(), arrays, strict=True):
            if _bytes(reader.get_tensor(key)) != _bytes(array):
                raise DamagedError(f"{name} is not read back as it was written")
        on_disk.publish(writing, folder / f"step-{step}")

    def _read(self, path: pathlib.Path, listed: Collection[str]) -> dict[str, np.ndarray]:
        """The value of every variable that the state lists, by its name.

        Raises:
          DamagedError: they are not all there, or there are others.
        """
        try:
            reader = tf.train.load_checkpoint(str(path / VARIABLES))
            if set(reader.get_variable_to_shape_map()) != {_key(name) for name in listed}:
                raise DamagedError(f"{VARIABLES} are not those of {STATE}")
            names = [name for name in self._variables if name in listed]
            values = {name: reader.get_tensor(self._keys[name]) for name in names}
        except (tf.errors.OpError, RuntimeError, IndexError, ValueError) as error:
            raise DamagedError(_reason(error)) from error
        for name, value in values.items():
            variable = self._variables[name]
            if value.shape != tuple(variable.shape):
                raise DamagedError(f"{name} does not have the shape that {STATE} says")
            if value.dtype != variable.dtype.as_numpy_dtype:
                raise DamagedError(f"{name} does not have the dtype that {STATE} says")
        return values

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


def _bytes(value: Value) -> bytes:
    return (value.numpy() if isinstance(value, tf.Tensor) else np.asarray(value)).tobytes()


def _key(name: str) -> str:
    """A variable's name as TensorFlow's object checkpoints have it."""
    parts = (part.replace(".", "..").replace("/", ".S") for part in name.split("/", 1))
    return _KEY.format("/".join(parts))


def _reason(error: Exception) -> str:
    """What is wrong, without the path, which is told beside."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = error.message if isinstance(error, tf.errors.OpError) else str(error)
    return message.splitlines()[0].rstrip(".") if message else type(error).__name__
