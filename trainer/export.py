"""The trained model as a `.keras` file."""

import contextlib
import os
import pathlib

from trainer.files.whole_files import sync
from trainer.run import Run


def save_model(run: Run, path: pathlib.Path) -> None:
    """Writes the model as a `.keras` file, whole or not at all, with the averages if there are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"writing-{path.name}")
    try:
        with run.averages.in_place() if run.averages is not None else contextlib.nullcontext():
            run.model.save(beside)
        sync(beside)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
