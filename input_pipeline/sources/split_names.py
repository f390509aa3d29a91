"""The usual names of a dataset's splits."""

from collections.abc import Iterable

# In the order in which they are taken.
USUAL = {
    "train": ("train", "training"),
    "eval": ("test", "val", "validation", "eval", "valid", "testing", "evaluation", "dev"),
}


def usual(split: str, there: Iterable[str]) -> str | None:
    """The name among those there that stands for `train` or `eval`, whatever its capitals."""
    names = {name.lower(): name for name in sorted(there, reverse=True)}
    return next((names[name] for name in USUAL[split] if name in names), None)
