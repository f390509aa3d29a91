"""Evaluation when it is due: the metrics, the best model, and the plateau's rule."""

import concurrent.futures
import contextlib
import dataclasses
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from trainer.evaluation import evaluate_in_pieces
from trainer.export import save_model
from trainer.files.storage import Storage
from trainer.files.whole_files import write_json, write_text
from trainer.learning_rate import plateau
from trainer.loop import Block
from trainer.plan.plan import Plan
from trainer.plan.settings import PlateauSettings
from trainer.replicas.streams import Batch, Stream
from trainer.run import Run
from trainer.run_folder.account import MODELS, TRACE
from trainer.run_folder.history import History
from trainer.run_folder.journal import Journal


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluates every `plan.eval_every` steps on all the evaluation data; keeps the best.

    Attributes:
      folder: takes the best model, its metrics, and `classes`.
      classes: the text of its classes.txt.
      go_on: asked before every piece of a pass.
      agreed: see `trainer.evaluation.evaluate_in_pieces`.
      keeps: whether the best model is written; of several workers only the chief does.
      reading: entered around a pass, to tell of what ends the reading of its data.
      card: makes the text of its MODEL.md of the step and the metrics.
      during: entered around what is something else than evaluating, with its name in the account.
    """

    run: Run
    plan: Plan
    history: History
    journal: Journal
    stream: Stream
    folder: pathlib.Path
    classes: str
    plateau: PlateauSettings | None
    storage: Storage
    go_on: Callable[[], bool]
    agreed: Callable[[int, int], int] = lambda done, batches: batches
    keeps: bool = True
    reading: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    card: Callable[[int, Mapping[str, float]], str] = lambda step, metrics: ""
    during: Callable[[str], contextlib.AbstractContextManager] = contextlib.nullcontext
    left: list[Any] = dataclasses.field(default_factory=list)
    begun: list["concurrent.futures.Future[Iterator[Batch]]"] = dataclasses.field(
        default_factory=list
    )

    def prepare(self) -> None:
        """Traces a pass in the background, up to its first batch; the next one goes on from there.

        The first steps are for long in TensorFlow's own hands, where Python has nothing to do.
        """
        future: concurrent.futures.Future[Iterator[Batch]] = concurrent.futures.Future()

        def begin() -> None:
            try:
                iterator = iter(self.stream)
                self.run.evaluate(iterator, tf.constant(0), None)
                future.set_result(iterator)
            except BaseException as error:  # for whoever waits for it
                future.set_exception(error)

        self.begun.append(future)
        # Not one that the end of the process would wait for.
        threading.Thread(target=begin, name="evaluation", daemon=True).start()

    def _iterator(self) -> Iterator[Batch]:
        if not self.begun:
            return iter(self.stream)
        with self.during(TRACE):
            return self.begun.pop().result()

    def __call__(self, block: Block) -> None:
        """Evaluates if it is time."""
        if block.final or self.plan.due(block.last, self.plan.eval_every):
            self.evaluate(block.last)

    def evaluate(self, step: int) -> None:
        """One exact pass; writes the task's metrics as eval/NAME, and `best` if it is the best.

        With averaged weights these are theirs, and eval/NAME_raw are those of the weights that
        train. A pass that was left, because of a stop, writes nothing,
        and `history.to_evaluate` says so: it is then made at the start of the next process.
        """
        batches = -(-self.plan.dataset.eval_examples // self.plan.eval_batch)
        with self.reading():
            iterator = self._iterator()
            rows = evaluate_in_pieces(self.run.evaluate, iterator, batches, self.go_on, self.agreed)
        self.history.to_evaluate = rows is None
        if rows is None:
            # Its destructor would wait for reads that are going on.
            self.left.append(iterator)
            return
        values, epoch = self.run.evaluate.metrics(rows), self.plan.epoch(step)
        self.journal.rows({step: values})
        best = self.history.take_in(step, values, self.run.task.headline)
        if best and self.keeps:
            kept = {"step": step, "epoch": epoch, **self.history.evaluation}
            told = f"the best model, that of step {step:,},"
            with self.during(MODELS), self.storage.attempt(told):
                save_model(self.run, self.folder / "model.keras")
                write_json(self.folder / "metrics.json", kept)
                write_text(self.folder / "classes.txt", self.classes)
                write_text(self.folder / "MODEL.md", self.card(step, kept))
        if not rows[0, -1]:
            self.journal.say(
                f"step {step:,} (epoch {epoch:.1f})  nothing was evaluated: the weights of all "
                f"{self.plan.dataset.eval_examples:,} evaluation examples are 0"
            )
            return
        said = f"step {step:,} (epoch {epoch:.1f})  {self._text(values)}"
        self.journal.say(said + ("  best" if best else ""))
        if self.plateau:
            self._reduce_on_plateau(step, values[self.plateau.metric])

    def _text(self, values: Mapping[str, float]) -> str:
        """The loss and the headline, each once."""
        text, headline = f"eval/loss {values['eval/loss']:.4f}", self.run.task.headline
        if headline.name != "loss":
            text += f"  eval/{headline.name} {headline.text(values[f'eval/{headline.name}'])}"
        raw = values.get(f"eval/{headline.name}_raw")
        return text if raw is None else f"{text} ({headline.text(raw)} raw)"

    def _reduce_on_plateau(self, step: int, value: float) -> None:
        settings, scale = self.plateau, self.run.learning_rate.scale
        lower = settings.metric == "eval/loss" or self.run.task.headline.lower_is_better
        self.history.plateau, cut = plateau.judge(settings, self.history.plateau, value, lower)
        before = float(scale.numpy())
        after = max(before * settings.factor, settings.minimum)
        # The scale is a float32: at the minimum it may lie a rounding above it.
        if not cut or after > before * (1 - 1e-6):
            return
        scale.assign(after)
        reason = f"{settings.metric} has not improved in {settings.patience + 1} evaluations"
        event = {"event": "plateau", "scale_before": before, "scale": after, "reason": reason}
        self.journal.note(step, event)
        self.journal.say(f"step {step:,}  learning rate × {after / before:.4g}: {reason}")
