"""Imports what a training imports, TensorFlow too, and does nothing with it.

A process that is forked off one that has imported this starts in a third of the time.
"""

import importlib
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
for name in (
    "launch.train",
    "launch.training.host",
    "trainer.run",
    "trainer.loop",
    "trainer.actions.log",
):
    importlib.import_module(name)
for name in ("input_pipeline.streams", "tests.faults.digits", "tests.faults.schedule"):
    importlib.import_module(name)
