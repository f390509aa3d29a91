"""Checks of the labels before anything is built; no TensorFlow.

A source that knows its labels is looked at whole; of another a few records are read.
"""

import numpy as np

from input_pipeline.class_names import escaped
from input_pipeline.labels import some_labels
from input_pipeline.sources.source import Source

_SHOWN = 5
# A model with more outputs, of which so many times more than labels that occur, is a mistake.
_OUTPUTS, _TIMES = 1000, 100
# From so many examples on it is worth a line that hardly two have the same label.
_EXAMPLES = 20
# Where more of the labels are wrong, leaving these records out is no way.
_SHARE = 0.1


def check_labels(train: Source, evaluation: Source, max_bad_records: int = 0) -> tuple[str, ...]:
    """Sees that the labels can be trained and evaluated on.

    Args:
      train: the split to train on.
      evaluation: the split to evaluate on.
      max_bad_records: how many records of each may be left out.

    Returns:
      What there is to say of them, a sentence each.

    Raises:
      ValueError: more labels than that are out of range, there is nothing to tell apart, or the
        labels are no classes.
    """
    if train.targets != "class":
        return check_targets(train, evaluation)
    _check_same_classes(train, evaluation)
    _check_range(train, evaluation=False, limit=max_bad_records)
    _check_range(evaluation, evaluation=True, limit=max_bad_records)
    if train.labels is None:
        if train.num_classes == 1:
            raise ValueError(_one_class(train, train.names()[0]))
        return ()
    present = np.unique(train.labels)
    present = present[(present >= 0) & (present < train.num_classes)]
    _check_classes(train, present)
    return _missing(train, evaluation, present) + _distinct(train, present)


def check_targets(train: Source, evaluation: Source) -> tuple[str, ...]:
    """Sees that targets other than classes can be trained and evaluated on.

    Returns:
      What there is to say of them, a sentence each.

    Raises:
      ValueError: the splits differ in what is to be told, or there is nothing to tell apart.
    """
    if train.num_classes != evaluation.num_classes:
        raise ValueError(
            f"{train.name} has {train.num_classes:,} targets for each record and "
            f"{evaluation.name} {evaluation.num_classes:,}; give splits with the same."
        )
    if train.labels is None or train.labels.ndim != 2:
        return ()
    same = np.flatnonzero(np.ptp(train.labels, axis=0) == 0)
    if len(same) == train.num_classes:
        raise ValueError(
            f"all {train.length:,} examples of {train.name} have the same targets: there is "
            "nothing to tell apart; give examples that differ."
        )
    names = train.names()
    return tuple(
        f"warning: the target {names[place]} is the same in all examples to train on"
        for place in same[:_SHOWN]
    )


def _check_same_classes(train: Source, evaluation: Source) -> None:
    """A source of the user's own may say anything."""
    for source in (train, evaluation):
        if source.labels is not None and source.labels.shape != (source.length,):
            raise ValueError(
                f"{source.name} has {source.length:,} records and labels of the shape "
                f"{list(source.labels.shape)}; give one for each record."
            )
        if source.class_names and len(source.class_names) != source.num_classes:
            raise ValueError(
                f"{source.name} has {source.num_classes:,} classes and {len(source.class_names):,} "
                "names of them; give each class a name, or none."
            )
    named = train.class_names and evaluation.class_names
    if train.num_classes != evaluation.num_classes:
        of = [f"{source.name} has {source.num_classes:,}" for source in (train, evaluation)]
    elif named and train.class_names != evaluation.class_names:
        pairs = zip(train.class_names, evaluation.class_names, strict=True)
        label, names = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
        of = [f"the label {label} of {train.name} is {names[0]!r}", f"in the other {names[1]!r}"]
    else:
        return
    raise ValueError(f"the classes differ: {of[0]}, {of[1]}; give splits with the same classes.")


def _check_range(source: Source, *, evaluation: bool, limit: int) -> None:
    records, labels = some_labels(source)
    bad = np.flatnonzero((labels < 0) | (labels >= source.num_classes))
    if not len(bad) or (len(bad) <= limit and len(bad) < len(labels)):
        return
    values, whole = labels[bad], source.labels is not None
    low, high = int(values.min()), int(values.max())
    which = f"all {len(labels):,}" if len(bad) == len(labels) else f"{len(bad):,} of the"
    which += "" if len(bad) == len(labels) else f" {len(labels):,}"
    verb = "is" if len(bad) == 1 else "are"
    span = f"{verb} {low}" if low == high else f"{verb} from {low} to {high}"
    bounds = f"from 0 to {source.num_classes - 1}" if source.num_classes > 1 else "0 or more"
    raise ValueError(
        f"{which} labels{'' if whole else ' looked at'} of {source.name} {span}, but must be "
        f"{bounds}, the first that of {source.describe(int(records[bad[0]]))}; "
        f"{_advice(source, labels, bad, evaluation)}."
    )


def _advice(source: Source, labels: np.ndarray, bad: np.ndarray, evaluation: bool) -> str:
    values, highest = np.unique(labels).tolist(), source.num_classes - 1
    if values == [-1]:
        if evaluation:
            return (
                "these are hidden, as those of a test set often are; evaluate on others, for "
                "example on a part of the examples to train on with --holdout=10%"
            )
        return "these are hidden; give examples whose labels are known"
    if values == [-1, 1]:
        return "write the labels -1 and 1 as 0 and 1, (y + 1) // 2"
    if values[0] == 1 and values[-1] == highest + 1:
        return "if the first class has the label 1, subtract 1 from each"
    if source.labels is not None and len(bad) <= _SHARE * len(labels):
        return f"mend them, or give --max_bad_records={len(bad)} to leave such records out"
    if values[0] < 0:
        return "number the classes from 0, and leave examples without a label out"
    if evaluation:
        return "give examples of these classes to train on, or leave these out"
    return "number the classes from 0"


def _check_classes(train: Source, present: np.ndarray) -> None:
    if len(present) <= 1:
        raise ValueError(_one_class(train, train.names()[int(present[0])]))
    empty = train.num_classes > max(_OUTPUTS, train.length, _TIMES * len(present))
    if empty and not train.class_names:
        raise ValueError(
            f"the {train.length:,} labels of {train.name} are from {present[0]} to {present[-1]}, "
            f"of which only {len(present):,} occur, and the model would have "
            f"{train.num_classes:,} outputs: these are no classes; number the classes from 0, for "
            "example as np.unique(y, return_inverse=True)[1] does."
        )


def _one_class(train: Source, name: str) -> str:
    return (
        f"all {train.length:,} examples of {train.name} are of one class, {escaped(name)}: there "
        "is nothing to tell apart; give examples of at least two classes to train on."
    )


def _missing(train: Source, evaluation: Source, present: np.ndarray) -> tuple[str, ...]:
    """A sentence on the classes without an example to train on."""
    missing = np.setdiff1d(np.arange(train.num_classes), present, assume_unique=True)
    if not len(missing):
        return ()
    if missing.tolist() == [0] and not train.class_names:
        return (
            f"warning: no training example has the label 0, they are from 1 to {present[-1]}: if "
            "the first class has the label 1, subtract 1 from each",
        )
    names = train.names()
    shown = ", ".join(escaped(names[label]) for label in missing[:_SHOWN])
    text = (
        f"warning: {len(missing):,} of the {train.num_classes:,} classes "
        f"{'has' if len(missing) == 1 else 'have'} no training example: {shown}"
        f"{', …' if len(missing) > _SHOWN else ''}"
    )
    if evaluation.labels is not None:
        among = int(np.isin(evaluation.labels, missing).sum())
        text += f"; {among:,} of the examples to evaluate on are of these" if among else ""
    return (text,)


def _distinct(train: Source, present: np.ndarray) -> tuple[str, ...]:
    """A sentence on labels that look like the examples' own numbers, or like values."""
    if train.length < _EXAMPLES or len(present) <= train.length / 2:
        return ()
    return (
        f"warning: {len(present):,} different labels in {train.length:,} training examples: hardly "
        "two are of one class",
    )
