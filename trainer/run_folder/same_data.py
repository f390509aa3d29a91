"""Whether the data of a resumed run are those that it was trained on; no TensorFlow.

Every checkpoint keeps `DatasetFacts`. A position in the data must mean the same example and the
same label as before, else the run does not go on: `moved` says why. What else has changed is told.
"""

from collections.abc import Sequence

from trainer.plan.dataset import DatasetFacts

# Of many classes that moved so many are named.
_SHOWN = 5


def moved(then: DatasetFacts, now: DatasetFacts, *, resized: bool) -> str:
    """Why a position in the data does not mean the same example and label any more; else "".

    Args:
      then, now: the data of the checkpoint, and those there are.
      resized: whether another size was asked for, which is no change of the data.
    """
    if then.class_names and now.class_names and then.class_names != now.class_names:
        return classes_moved(then.class_names, now.class_names)
    if then.num_classes != now.num_classes:
        return f"there were {then.num_classes:,} classes and are {now.num_classes:,}"
    if then.targets != now.targets:
        return f"what there is to tell was of the kind {then.targets} and is {now.targets}"
    if now.targets == "tokens" and then.image_shape != now.image_shape:
        lengths = [facts.image_shape[0] - 1 for facts in (then, now)]
        return f"rows told {lengths[0]:,} tokens and tell {lengths[1]:,} (--sequence_length)"
    if now.targets == "tokens":
        return _moved_records(then, now)
    same_size = resized or then.image_shape[:2] == now.image_shape[:2]
    if not same_size or then.image_shape[2] != now.image_shape[2]:
        shapes = ["×".join(map(str, facts.image_shape)) for facts in (then, now)]
        return f"the images were {shapes[0]} and are {shapes[1]} (height × width × channels)"
    return _moved_records(then, now)


def _moved_records(then: DatasetFacts, now: DatasetFacts) -> str:
    if then.train_examples != now.train_examples:
        out = f", {now.left_out:,} bad ones left out" if then.left_out or now.left_out else ""
        return f"there were {then.train_examples:,} examples and are {now.train_examples:,}{out}"
    if _differ(then.train.labels, now.train.labels):
        return "there are as many examples, but their labels are others, or in another order"
    if _differ(then.train.order, now.train.order):
        return "there are as many examples, but they are others, or in another order"
    return ""


def classes_moved(then: Sequence[str], now: Sequence[str]) -> str:
    """Which label was which class and is which, and which classes are new and which are gone."""
    none = "none"
    most = max(len(then), len(now))
    pairs = [
        tuple(repr(names[label]) if label < len(names) else none for names in (then, now))
        for label in range(most)
    ]
    changed = [
        f"label {label} was {before} and is {after}"
        for label, (before, after) in enumerate(pairs)
        if before != after
    ]
    text = ", ".join(changed[:_SHOWN])
    if len(changed) > _SHOWN:
        text += f", and {len(changed) - _SHOWN:,} more"
    there, here = set(then), set(now)
    apart = [
        f"{what}: {', '.join(map(repr, names[:_SHOWN]))}{', …' if len(names) > _SHOWN else ''}"
        for what, names in (("new", sorted(here - there)), ("gone", sorted(there - here)))
        if names
    ]
    return text + (f" ({'; '.join(apart)})" if apart else "")


def provably_same(then: DatasetFacts, now: DatasetFacts) -> bool:
    """Whether the training data are the same, wherever they lie: all that tells it is there."""
    known = now.train.order or (now.train.labels and now.train.contents)
    return bool(known) and then.train == now.train


def told(then: DatasetFacts, now: DatasetFacts) -> list[str]:
    """Notes on data with which a run can go on, but which are not quite the same."""
    said = []
    if _differ(then.train.contents, now.train.contents):
        said.append(
            "warning: the training files are not quite those of before, though as many, with the "
            "same labels and in the same order: some were replaced"
        )
    before, after = then.evaluation, now.evaluation
    count = then.eval_examples, now.eval_examples
    if count[0] != count[1]:
        what = f"there were {count[0]:,} examples to evaluate on and are {count[1]:,}"
    elif any(
        _differ(getattr(before, name), getattr(after, name))
        for name in ("labels", "order", "contents")
    ):
        what = "the examples to evaluate on are not those of before"
    else:
        return said
    return [*said, f"warning: {what}: evaluations before and after, and the best, do not compare"]


def _differ(then: str, now: str) -> bool:
    """Whether two digests are known and not the same."""
    return bool(then and now) and then != now
