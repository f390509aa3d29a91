"""`python -m slowed WHAT SECONDS …`: launch.train, where something takes so much longer each time.

WHAT is `nothing`, `input` (each read of --dataset=python:slowed:digits), `evaluation` (each piece
of a pass) or `checkpoint` (each that is written). `slowed.json` in the working folder then has when
what was planted began and ended, by a clock of our own, likewise the calls of `MEASURED`, and when
the process left.
"""

import contextlib
import dataclasses
import json
import pathlib
import runpy
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source
from launch.terminal import output

# Where the host's main thread spends its time, by what is slow; `other` lies within an evaluation.
MEASURED = ("input", "evaluation", "checkpoint", "other")
_ONE_AT_A_TIME = threading.Lock()
_planted: list[tuple[float, float]] = []
_calls: dict[str, list[tuple[float, float]]] = {name: [] for name in MEASURED}
_inside: list[str] = []
_input_seconds: list[float] = []


@contextlib.contextmanager
def longer(seconds: float) -> Iterator[None]:
    """Takes so much longer, and no two at once."""
    with _ONE_AT_A_TIME:
        began = time.perf_counter()
        time.sleep(seconds)
        _planted.append((began, time.perf_counter()))
    yield


def digits(split: str) -> Source:
    """Digits that are read slowly to train on, where that is planted."""
    source = open_source(DataSettings("digits"), split)

    def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
        with longer(_input_seconds[0]):
            return source.read(records)

    slow = split == "train" and bool(_input_seconds)
    return dataclasses.replace(source, name=f"slowed/{split}", read=read if slow else source.read)


def measured(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The same, whose outermost calls of the main thread are written down."""

    def timed(*arguments: Any, **more: Any) -> Any:
        if name in _inside or threading.current_thread() is not threading.main_thread():
            return call(*arguments, **more)
        _inside.append(name)
        began = time.perf_counter()
        try:
            return call(*arguments, **more)
        finally:
            _inside.remove(name)
            _calls[name].append((began, time.perf_counter()))

    return timed


def plant(what: str, seconds: float) -> None:
    """Has it take longer, and measures that and the others."""
    from launch.process import cli

    cli.import_tensorflow(0)
    from trainer.actions import evaluate
    from trainer.actions.save import Save
    from trainer.checkpoint.writer import CheckpointWriter
    from trainer.device_loop import DeviceLoop
    from trainer.evaluation import Evaluation

    def slow(call: Callable[..., Any]) -> Callable[..., Any]:
        def slowly(*arguments: Any) -> Any:
            with longer(seconds):
                return call(*arguments)

        return slowly

    if what == "input":
        _input_seconds.append(seconds)
    elif what == "checkpoint":
        CheckpointWriter.write = slow(CheckpointWriter.write)
    else:
        of_a_piece = slow(Evaluation.__call__)
        of_none = Evaluation.__call__  # which only traces it, in another thread

        def piece(*arguments: Any) -> Any:
            main = threading.current_thread() is threading.main_thread()
            return (of_a_piece if main else of_none)(*arguments)

        Evaluation.__call__ = piece
    DeviceLoop.__call__ = measured("input", DeviceLoop.__call__)
    evaluate.Evaluate.evaluate = measured("evaluation", evaluate.Evaluate.evaluate)
    evaluate.save_model = measured("other", evaluate.save_model)
    prepared, anew = evaluate.Evaluate._iterator, measured("other", evaluate.Evaluate._iterator)
    evaluate.Evaluate._iterator = lambda self: (anew if self.begun else prepared)(self)
    for name in ("__call__", "save", "close"):
        setattr(Save, name, measured("checkpoint", getattr(Save, name)))


def tell_at_the_end() -> None:
    """Writes down what was seen when the process leaves."""
    leave = output.leave

    def tell_and_leave(*arguments: Any) -> None:
        found = {"left": time.perf_counter(), "planted": _planted, "calls": _calls}
        pathlib.Path("slowed.json").write_text(json.dumps(found), encoding="utf-8")
        leave(*arguments)

    output.leave = tell_and_leave


if __name__ == "__main__":
    sys.modules["slowed"] = sys.modules["__main__"]  # whose `digits` the command will look for
    if sys.argv[1] != "nothing":
        plant(sys.argv[1], float(sys.argv[2]))
    tell_at_the_end()
    sys.argv[:3] = ["launch.train"]
    runpy.run_module("launch.train", run_name="__main__", alter_sys=True)
