"""Checkpoints: a folder a step, complete and whole, or not there at all."""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer.run_folder import checkpoint_steps

_WRITING = "writing-"


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run: `FOLDER/step-N/` holds the variables and `state.json`.

    A checkpoint is written beside, brought to the disk and made current by one rename, so a kill at
    any moment leaves the one before it untouched.
    """

    folder: pathlib.Path
    variables: Mapping[
        str, Mapping[str, tf.Variable]
    ]  # by group ("model", "optimizer", …) and name
    keep: int = 3

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Saves all variables and `state`, which is JSON, as the checkpoint of this step."""
        writing = self.folder / f"{_WRITING}{step}"
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir(parents=True)
        self._tracked().write(str(writing / "variables"))
        described = {**state, "step": step, "shapes": self._shapes()}
        (writing / "state.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
        for file in writing.iterdir():
            _sync(file)
        _sync(writing)
        final = self.folder / f"step-{step}"
        shutil.rmtree(final, ignore_errors=True)
        os.rename(writing, final)
        _sync(self.folder)
        for old in checkpoint_steps(self.folder)[: -self.keep]:
            shutil.rmtree(self.folder / f"step-{old}")

    def restore(self, step: int) -> dict[str, Any]:
        """Restores every variable from the checkpoint of this step and returns its state.

        Raises:
          ValueError: the checkpoint is damaged, or of a model or optimizer that does not match.
        """
        path = self.folder / f"step-{step}"
        try:
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
            _compare_shapes(path, state["shapes"], self._shapes())
            self._tracked().read(str(path / "variables")).assert_consumed()
        except (tf.errors.OpError, OSError, json.JSONDecodeError, KeyError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"the checkpoint {path} is damaged ({reason}); "
                "move its folder away to go on from the one before it."
            ) from error
        return state

    def drop_after(self, step: int) -> None:
        """Removes the checkpoints after this step, each at once."""
        for newer in checkpoint_steps(self.folder):
            if newer > step:
                dropped = self.folder / f"{_WRITING}{newer}"
                shutil.rmtree(dropped, ignore_errors=True)
                os.rename(self.folder / f"step-{newer}", dropped)
                shutil.rmtree(dropped)

    def _tracked(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(**{group: dict(v) for group, v in self.variables.items()})

    def _shapes(self) -> dict[str, list[int]]:
        return {
            f"{group}/{name}": variable.shape.as_list()
            for group, members in self.variables.items()
            for name, variable in members.items()
        }


def _compare_shapes(
    path: pathlib.Path, there: Mapping[str, list[int]], here: Mapping[str, list[int]]
) -> None:
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if not names:
        return
    width = max(map(len, names[:20]))
    rows = [
        f"  {name:{width}}  {there.get(name, '–')!s:18}  {here.get(name, '–')}"
        for name in names[:20]
    ]
    more = [f"  … and {len(names) - 20} more"] if len(names) > 20 else []
    raise ValueError(
        f"the checkpoint {path} is of another model or optimizer; "
        "give the flags it was made with, or another --run_dir:\n"
        + "\n".join([f"  {'variable':{width}}  {'checkpoint':18}  this command", *rows, *more])
    )


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unique_names(paths: list[str]) -> list[str]:
    """The paths, with a number behind those that occurred before."""
    seen: dict[str, int] = {}
    names = []
    for path in paths:
        seen[path] = seen.get(path, 0) + 1
        names.append(path if seen[path] == 1 else f"{path}~{seen[path]}")
    return names
