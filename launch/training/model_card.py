"""`MODEL.md` beside a `model.keras`: what it takes and gives, how to use it, its origin."""

import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence

from input_pipeline.class_names import CLASSES, escaped
from launch.flags.flagfile import line_of
from launch.training.job import Job
from trainer.plan.dataset import DatasetFacts

MODEL_CARD = "MODEL.md"
_CLASSES = 20
PACKAGES = ("lockstep", "tensorflow", "keras", "numpy")


def model_card(job: Job, step: int, metrics: Mapping[str, float]) -> str:
    """The text of the file.

    Args:
      step: after which the weights were these.
      metrics: of an evaluation, by the names of metrics.jsonl.
    """
    facts, names = job.plan.dataset, job.sources["train"].names()
    hub = "keras_hub" in sys.modules  # which only a model with its layers imports
    averaged = ", averaged" if job.command.settings.optimizer.ema else ""
    sections = [
        f"# {job.plan.model}, trained by Lockstep",
        f"`model.keras` holds the weights{averaged} after step {step:,}.",
        _inputs(facts, bool(job.command.data.image_size)),
        *_what_it_tells(job.plan.task, facts, names, bool(job.command.data.image_size), hub),
        _from(job, step),
        markdown_table("How good it is", {n: repr(v) for n, v in metrics.items() if "/" in n}),
        markdown_table("Made with", versions((*PACKAGES, "keras-hub") if hub else PACKAGES)),
    ]
    return "\n\n".join(sections) + "\n"


def _what_it_tells(
    task: str, facts: DatasetFacts, names: Sequence[str], resized: bool, hub: bool
) -> list[str]:
    """What the model gives, and how to use one that tells classes."""
    if task == "classification":
        use = (
            f"## How to use it\n\n```python\n{example(facts, resized, hub)}\n```\n\n"
            "Or `python -m launch.predict model.keras picture.png`, which decodes pictures as "
            "training did."
        )
        return [_outputs(names), use]
    if task == "segmentation":
        return [f"## What it gives\n\n{_of_pixels(facts, names)}"]
    count = facts.num_classes
    gives = {
        "multi_label": f"Logits of {count} labels, float32 [n, {count}]: `keras.ops.sigmoid` makes "
        f"probabilities of them. The labels are in `{CLASSES}`, in their order.",
        "regression": f"Float32 [n, {count}], in the targets' own units.",
        "language_model": f"Logits of the next token, float32 [n, length, {count}].",
    }.get(task, f"What the task `{task}` takes.")
    return [f"## What it gives\n\n{gives}"]


def example(facts: DatasetFacts, resized: bool, hub: bool) -> str:
    """Five lines of Python that load the model and name what is in `picture.png`.

    Args:
      hub: whether it has layers of KerasHub.
    """
    height, width, channels = facts.image_shape
    mode = {1: "L", 3: "RGB"}.get(channels, "RGBA")
    picture = f'PIL.ImageOps.exif_transpose(PIL.Image.open("picture.png")).convert("{mode}")'
    # What is cut off at the edges leaves 0.875 of each side.
    fitted = (
        f"PIL.ImageOps.fit({picture}, ({width}, {height}), bleed=0.0625)"
        if resized
        else f"{picture}.resize(({width}, {height}))"
    )
    shape = f"1, {height}, {width}, {channels}"
    return "\n".join(
        [
            f"import keras, {'keras_hub, ' if hub else ''}numpy, PIL.Image, PIL.ImageOps",
            'model = keras.saving.load_model("model.keras")',
            f"image = numpy.asarray({fitted}).reshape({shape})",
            "logits = model.predict(image, verbose=0)",
            f'print(open("{CLASSES}", encoding="utf-8").read().split("\\n")[logits.argmax()])',
        ]
    )


def _inputs(facts: DatasetFacts, resized: bool) -> str:
    if facts.targets == "tokens":
        length = facts.image_shape[0] - 1
        return (
            f"## What it takes\n\n`tokens`: int32 [n, {length}], each from 0 to "
            f"{facts.num_classes - 1:,}; each position sees itself and those before it."
        )
    shape = ", ".join(map(str, ("n", *facts.image_shape)))
    seen = "the whole picture, as it is"
    if resized:
        whole = facts.targets == "masks"
        middle = "the middle of the picture, 0.875 of its short side, resized"
        seen = "the whole picture, resized" if whole else middle
    return (
        f"## What it takes\n\n`image`: uint8 [{shape}]: height, width, channels"
        f"{' (RGB)' if facts.image_shape[2] == 3 else ''}, from 0 to 255: {seen}.\n"
        "\n**Give the bytes as they are. The model scales them itself: pixels that were divided by "
        "255 before become 0 in its uint8 input, without a warning, and all answers are wrong.**"
    )


def _of_pixels(facts: DatasetFacts, names: Sequence[str]) -> str:
    height, width = facts.image_shape[:2]
    shape = f"float32 [n, {height}, {width}, {len(names)}]"
    return (
        f"Logits of the class of each pixel, {shape}: the largest of the last axis is told, "
        f"`logits.argmax(-1)`. The classes, by number, are in `{CLASSES}`:\n\n{_listed(names)}\n\n"
        "`python -m launch.predict model.keras picture.png --out=DIR` writes masks, as PNG files "
        "with a palette, in the pictures' own sizes."
    )


def _listed(names: Sequence[str]) -> str:
    shown = [f"{label}: {escaped(name)}" for label, name in enumerate(names[:_CLASSES])]
    if len(names) > _CLASSES:
        shown.append(f"… {len(names) - _CLASSES:,} more")
    return "\n".join(f"- {line}" for line in shown)


def _outputs(names: Sequence[str]) -> str:
    return (
        f"## What it gives\n\nLogits, float32 [n, {len(names)}]; `keras.ops.softmax` makes "
        f"probabilities of them. The classes, by label, are in `{CLASSES}`:\n\n{_listed(names)}"
    )


def _from(job: Job, step: int) -> str:
    plan, facts = job.plan, job.plan.dataset
    digests = {
        f"digest of the {part} of {split}": digest
        for split, of in (("train", facts.train), ("eval", facts.evaluation))
        for part, digest in vars(of).items()
        if digest
    }
    rows = {
        "data": f"{facts.name}: {facts.train_examples:,} examples to train on, "
        f"{facts.eval_examples:,} to evaluate on",
        **digests,
        "seed": str(job.command.settings.run.seed),
        "step": f"{step:,} (epoch {plan.epoch(step):.4g}), {plan.global_batch:,} examples each",
        "devices": f"{plan.replicas} × {plan.device}, {plan.precision}",
    }
    return markdown_table("Where it comes from", rows) + f"\n\n```\n{command_text(job)}\n```"


def command_text(job: Job) -> str:
    """The command, with the flags that are not as they would be by themselves."""
    values = job.command.values
    given = [name for name in values if values[name].value != values[name].default]
    lines = [line_of(name, values[name].value) for name in sorted(given)]
    return shlex.join(["python", "-m", "launch.train", *lines])


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of Python and these packages, by name."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # it runs from its folder
            found[package] = "not installed as a package"
    return found


def markdown_table(heading: str, rows: Mapping[str, str]) -> str:
    """A heading and a table of two columns."""
    lines = [f"| {name} | {text.replace('|', chr(92) + '|')} |" for name, text in rows.items()]
    return "\n".join([f"## {heading}", "", "| | |", "|---|---|", *lines])
