"""Pictures of a run that trains, for TensorBoard: what the model sees, and what it gets wrong.

An action behind the evaluation. Pictures are few: from one to the next a run at least doubles its
steps; and cheap: with --pictures=auto all of them take a hundredth of the process's time.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from input_pipeline.bad_records import Faults
from input_pipeline.layout import Layout
from input_pipeline.sources import Source
from launch.training.evaluated_data import seen
from launch.training.job import Job
from trainer.run_folder.boards import Value, picture_value, text_value
from trainer.run_folder.tensorboard import write_events
from trainer.tasks.classification_report import NO_ANSWER, report, worst

if TYPE_CHECKING:
    from trainer.loop import Block
    from trainer.run import Run
    from trainer.run_folder.journal import Journal

_SHARE = 0.01  # of the time
_FIRST_SECONDS = 1.0  # what the first pictures are taken to cost
# Evaluation examples that are answered: at most so many and so many bytes, and for so long.
_MOST, _BYTES, _SECONDS = 256, 16_000_000, 1.0
_SHOWN, _COLUMNS = 20, 5
_MASKS, _ROWS = 8, 3  # pictures with masks, and rows of a text
_CLASSES = 200  # of more there is no matrix
_TAG = "3_pictures"


@dataclasses.dataclass
class Pictures:
    """Draws after an evaluation, where it is time; what goes wrong is told and ends no run.

    Attributes:
      when: auto, always or never.
    """

    job: Job
    run: "Run"
    journal: "Journal"
    when: str
    began: float = dataclasses.field(default_factory=time.perf_counter)
    spent: float = 0.0
    cost: float = _FIRST_SECONDS  # of the last ones
    next_step: int = 0
    asked: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)  # what is answered

    def __call__(self, block: "Block") -> None:
        """Draws if it is time."""
        step, begin = block.last, time.perf_counter()
        if self.journal.history.evaluated != step or not self._is_time(block, begin):
            return
        try:
            self._draw(step)
        except Exception as error:  # of the user's data, model or memory
            self.when = "never"
            self.journal.say(f"no pictures for TensorBoard: {' '.join(str(error).split())[:200]}")
        self.cost = time.perf_counter() - begin
        self.spent, self.next_step = self.spent + self.cost, 2 * step

    def _is_time(self, block: "Block", now: float) -> bool:
        # Several workers would have to answer together.
        several = self.job.devices.cluster is not None
        if several or self.when == "never" or not (block.final or block.last >= self.next_step):
            return False
        return self.when == "always" or self.spent + self.cost <= _SHARE * (now - self.began)

    def _draw(self, step: int) -> None:
        path = self.job.run_dir / "train" / "events.out.tfevents.1.examples"
        train = self.job.sources["train"]
        if train.dataset is None and train.targets != "tokens" and not path.exists():
            write_events(path, [picture_value(f"{_TAG}/examples", examples(self.job, step))])
        if self.job.sources["eval"].read is not None:
            self.asked = self.asked or to_answer(self.job)
            for value in answers(self.job, self.run, self.asked, step):
                self.journal.metrics.boards.add("eval", step, value)


def examples(job: Job, step: int) -> bytes:
    """The examples that follow step `step`, as the model sees them, as a PNG file."""
    from input_pipeline.streams import training_stream
    from launch.terminal.mosaic import mosaic

    data, source = job.command.data, job.sources["train"]
    stream = training_stream(
        source,
        layout=Layout(_SHOWN),
        seed=job.command.settings.run.seed,
        augment=data.augment,
        first_position=job.plan.position(step) // 2 * 2,  # examples are mixed in pairs
        shuffle_block=data.shuffle_block,
        image_size=data.image_size,
        mixup=data.mixup,
        cutmix=data.cutmix,
        faults=Faults(source, source.length),
    )
    batch = next(stream.take(1).as_numpy_iterator())
    captions = [caption(batch, number, source) for number in range(_SHOWN)]
    heading = f"{source.name}, as the model sees it: augment {data.augment}"
    return mosaic(_overlaid(batch, source), captions, heading, _COLUMNS)


def caption(batch: dict[str, np.ndarray], number: int, source: Source) -> str:
    """What there is to tell of an example."""
    from launch.terminal.image_grid import label_text

    if source.targets in ("class", "masks"):
        return label_text(batch, number, source)
    if source.targets == "labels":
        there = np.flatnonzero(batch["label"][number])
        return ", ".join(source.names()[label] for label in there) or "none"
    return ", ".join(f"{value:.4g}" for value in batch["label"][number])


def _overlaid(batch: dict[str, np.ndarray], source: Source) -> Iterable[np.ndarray]:
    from launch.terminal.mask_picture import overlaid

    if source.targets != "masks":
        return batch["image"]
    return [overlaid(*pair) for pair in zip(batch["image"], batch["label"], strict=True)]


def to_answer(job: Job) -> dict[str, np.ndarray]:
    """Evaluation examples, evenly spread, as a batch; of a text its first rows."""
    source, shape = job.sources["eval"], job.plan.dataset.image_shape
    if source.targets == "tokens":
        (tokens,) = source.read(np.arange(min(_ROWS, source.length)))
        return {"tokens": np.asarray(tokens, np.int32), "weight": np.ones(len(tokens), np.float32)}
    most = max(1, min(_MOST, source.length, _BYTES // math.prod(shape)))
    records = np.linspace(0, source.length - 1, most).astype(np.int64)
    return seen(source, records, job.command.data.image_size)


def answers(job: Job, run: "Run", batch: dict[str, np.ndarray], step: int) -> Iterable[Value]:
    """What the model makes of a batch: pictures, or of text a text."""
    draw = {
        "classification": classes_drawn,
        "segmentation": masks_drawn,
        "language_model": text_told,
    }.get(job.plan.task)
    if draw is None:
        return ()
    source, outputs = job.sources["eval"], told(run, batch, job.plan.micro_batch)
    batch = {name: column[: len(outputs)] for name, column in batch.items()}
    heading = f"step {step:,}: {len(outputs):,} of {source.length:,} examples of {source.name}"
    return draw(batch, outputs, source, heading)


def told(run: "Run", batch: dict[str, np.ndarray], at_once: int) -> np.ndarray:
    """The model's outputs, float32 [k, …], for as many of the examples as there is time for."""
    found, begin, averages = [], time.perf_counter(), run.averages
    with averages.in_place() if averages is not None else contextlib.nullcontext():
        for first in range(0, len(batch["weight"]), at_once):
            if found and time.perf_counter() - begin > _SECONDS:
                break
            piece = {name: column[first : first + at_once] for name, column in batch.items()}
            found.append(np.asarray(run.model(run.task.inputs(piece), training=False), np.float32))
    return np.concatenate(found)


def classes_drawn(
    batch: dict[str, np.ndarray], logits: np.ndarray, source: Source, heading: str
) -> list[Value]:
    """The confusion matrix, and the surest of the mistakes."""
    from launch.terminal.mosaic import confusion, mosaic

    found, names = report(logits, batch["label"], batch["weight"]), source.names()
    values = []
    if len(names) <= _CLASSES:
        matrix = np.zeros([len(names), len(names)])
        answered = found.pairs[:, 1] != NO_ANSWER
        matrix[tuple(found.pairs[answered].T)] = found.counts[answered]
        values.append(picture_value(f"{_TAG}/confusion", confusion(matrix, names, heading)))
    wrong = worst(found, _SHOWN)
    captions = []
    for example in wrong.tolist():
        answer = int(found.answers[example])
        given = "not a number"
        if answer != NO_ANSWER:
            given = f"not {names[answer]} ({found.probabilities[example, answer]:.0%})"
        captions.append(f"is {names[found.labels[example]]}\n{given}")
    if captions:
        heading = f"{heading}, the worst mistakes"
        png = mosaic(batch["image"][wrong], captions, heading, _COLUMNS)
        values.append(picture_value(f"{_TAG}/mistakes", png))
    return values


def masks_drawn(
    batch: dict[str, np.ndarray], logits: np.ndarray, source: Source, heading: str
) -> list[Value]:
    """Pictures beside their masks and the answers, the worst ones first."""
    from launch.terminal.mask_picture import grey, overlaid
    from launch.terminal.mosaic import mosaic
    from trainer.tasks.segmentation import answers as classes_of
    from trainer.tasks.segmentation import right_share

    right = right_share({"label": batch["label"]}, logits).numpy()
    told_classes = classes_of(logits).numpy().astype(np.uint8)
    pictures, captions = [], []
    for example in np.argsort(right, kind="stable")[:_MASKS].tolist():
        image = batch["image"][example]
        masks = (batch["label"][example], told_classes[example])
        pictures += [image, *(overlaid(grey(image), mask) for mask in masks)]
        captions += [f"{right[example]:.1%} right", "mask", "answer"]
    png = mosaic(pictures, captions, f"{heading}, the worst", 6)
    return [picture_value(f"{_TAG}/masks", png)]


def text_told(
    batch: dict[str, np.ndarray], logits: np.ndarray, source: Source, heading: str
) -> list[Value]:
    """Rows of the text, each above the tokens that the model holds for the most likely ones."""
    right, given = batch["tokens"][:, 1:], logits.argmax(axis=-1)
    lines = [heading, ""]
    for row, answer in zip(right, given, strict=True):
        there = row >= 0
        shown = [_readable(tokens[there], source.num_classes) for tokens in (row, answer)]
        lines += ["```", f"text  {shown[0]}", f"told  {shown[1]}", "```", ""]
    return [text_value("5_sample", "\n".join(lines))]


def _readable(tokens: np.ndarray, kinds: int) -> str:
    """Bytes as signs, one for each; other tokens as their numbers."""
    if kinds > 257:
        return " ".join(map(str, tokens.tolist()))
    return "".join(chr(token) if 32 <= token < 127 else "·" for token in tokens.tolist())
